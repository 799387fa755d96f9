#!/bin/sh
# On an empty volume: makes the system tables, the database and its user. Then becomes the server.
set -eu
data=/var/lib/mysql

secret() { # NAME: the content of the file that NAME_FILE names, else NAME
    eval "file=\${$1_FILE:-} value=\${$1:-}"
    if [ -n "$file" ]; then cat "$file"; else printf %s "$value"; fi
}

quoted() { # as a string of SQL
    printf "'%s'" "$(printf %s "$1" | sed "s/[\\\\']/\\\\&/g")"
}

if [ ! -e "$data/.made" ]; then
    echo "mariadb: making an empty database"
    # What an interrupted first start left is not kept: nobody has written to it.
    find "$data" -mindepth 1 -delete
    mariadb-install-db --datadir="$data" --skip-test-db --auth-root-authentication-method=normal >/dev/null
    database=${MARIADB_DATABASE:-app} user=$(quoted "${MARIADB_USER:-app}")
    mariadbd --bootstrap --datadir="$data" <<SQL
USE mysql;
FLUSH PRIVILEGES;
ALTER USER root@localhost IDENTIFIED BY $(quoted "$(secret MARIADB_ROOT_PASSWORD)");
CREATE DATABASE IF NOT EXISTS \`$database\` CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS $user@'%' IDENTIFIED BY $(quoted "$(secret MARIADB_PASSWORD)");
GRANT ALL ON \`$database\`.* TO $user@'%';
FLUSH PRIVILEGES;
SQL
    touch "$data/.made"
fi
exec mariadbd --datadir="$data" --bind-address=0.0.0.0 --skip-name-resolve --skip-log-bin \
    --innodb-buffer-pool-size=32M --performance-schema=OFF
