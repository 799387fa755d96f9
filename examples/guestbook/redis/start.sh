#!/bin/sh
# The password goes to redis on its standard input: arguments are for everybody to read.
set -eu
exec redis-server - <<CONFIG
include /etc/guestbook/redis.conf
requirepass $(cat /run/secrets/redis_password)
CONFIG
