#!/bin/sh
# Healthy: the application's user reads its database, over TCP as everybody else does.
export MYSQL_PWD="$(cat "$MARIADB_PASSWORD_FILE")"
exec mariadb --protocol=tcp -h127.0.0.1 -u"$MARIADB_USER" "$MARIADB_DATABASE" -Ne 'SELECT 1'
