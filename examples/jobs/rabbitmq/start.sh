#!/bin/sh
# The user's password comes from a file. It is set at every start, so that a changed secret is
# a changed password, and before anybody is let in, so that no default user ever is.
set -eu
conf=/tmp/rabbitmq.conf
export RABBITMQ_CONFIG_FILE=/tmp/rabbitmq RABBITMQ_ENABLED_PLUGINS_FILE=/tmp/plugins
umask 077
echo '[].' > "$RABBITMQ_ENABLED_PLUGINS_FILE"
salt=$(od -An -N4 -tx1 /dev/urandom | tr -d ' \n')
# RabbitMQ's own hash: base64(salt + sha256(salt + password)).
hex=$({ echo "$salt" | xxd -r -p; tr -d '\n' < "$RABBITMQ_PASSWORD_FILE"; } | sha256sum | cut -c1-64)
hash=$(echo "$salt$hex" | xxd -r -p | base64 -w0)
cat > /tmp/definitions.json <<JSON
{
  "users": [{"name": "$RABBITMQ_USER", "password_hash": "$hash", "tags": "",
             "hashing_algorithm": "rabbit_password_hashing_sha256", "limits": {}}],
  "vhosts": [{"name": "/"}],
  "permissions": [{"user": "$RABBITMQ_USER", "vhost": "/",
                   "configure": ".*", "write": ".*", "read": ".*"}]
}
JSON
cat > "$conf" <<CONF
definitions.import_backend = local_filesystem
definitions.local.path = /tmp/definitions.json
log.console = true
log.console.level = error
CONF
exec /usr/lib/rabbitmq/bin/rabbitmq-server
