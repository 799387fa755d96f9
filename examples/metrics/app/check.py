"""Exit 0 while the page on this machine answers; small, because it runs every few seconds."""

import socket

with socket.create_connection(("127.0.0.1", 8000), timeout=2) as sock:
    sock.sendall(b"GET /healthz HTTP/1.0\r\nHost: check\r\n\r\n")
    line = sock.makefile("rb").readline()
if b" 200 " not in line:
    raise SystemExit(line.decode() or "no answer")
