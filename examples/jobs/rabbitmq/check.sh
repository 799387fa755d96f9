# Healthy: the broker answers a client's greeting (it listens only when it has read its queues).
exec 3<>/dev/tcp/127.0.0.1/5672
printf 'AMQP\0\0\x09\x01' >&3
[ "$(head -c 1 <&3 | od -An -tu1 | tr -d ' ')" = 1 ]
