#!/bin/sh
# On an empty volume: makes the cluster, the user and the database. Then becomes the server.
set -eu
data=/var/lib/postgresql/data/main
user=${POSTGRES_USER:-postgres} database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}

if [ ! -e "$data/.made" ]; then
    echo "postgres: making an empty database"
    # What an interrupted first start left is not kept: nobody has written to it.
    rm -rf "$data"
    initdb -D "$data" -U "$user" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-host=scram-sha-256 \
        --auth-local=trust -E UTF8 --locale=C.UTF-8 >/dev/null
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    if [ "$database" != postgres ]; then
        echo "CREATE DATABASE \"$database\";" | postgres --single -j -D "$data" postgres >/dev/null
    fi
    touch "$data/.made"
fi
exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp \
    -c shared_buffers=32MB
