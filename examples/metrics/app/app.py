"""Counts the requests it answers, and tells Prometheus at /metrics."""

import os
import socket
import threading
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, generate_latest

VERSION = os.environ.get("APP_VERSION", "1")
REQUESTS = Counter("app_requests_total", "Requests for the page", ["version"])
UP = Gauge("app_info", "What runs", ["version", "task"])
UP.labels(VERSION, socket.gethostname()).set(1)
REQUESTS.labels(VERSION)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        kind, body = "text/plain", b"ok\n"
        if self.path == "/metrics":
            kind, body = CONTENT_TYPE_LATEST, generate_latest()
        elif self.path == "/":
            REQUESTS.labels(VERSION).inc()
            body = f"version {VERSION}, {socket.gethostname()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


server = ThreadingHTTPServer(("0.0.0.0", 8000), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
