# Healthy: PHP runs and the database answers (WordPress says 500 when it does not).
exec 3<>/dev/tcp/127.0.0.1/80
printf 'GET /wp-login.php HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
read -r _ code _ <&3
[ "$code" -lt 400 ]
