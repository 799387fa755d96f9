"""Answers in as many seconds as the path names, on connections that stay. On SIGTERM it finishes.

What is under way is answered and its connection closed; one that says nothing for a second is
closed, too, so that a stop never waits for idle clients.
"""

import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENDING = threading.Event()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 1.0

    def do_GET(self):
        seconds = float(self.path.strip("/") or 0)
        time.sleep(seconds)
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.send_header("X-Task", socket.gethostname())
        if ENDING.is_set():
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *words):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 256


server = Server(("", int(sys.argv[1])), Answer)


def stop(*_):
    ENDING.set()
    threading.Thread(target=server.shutdown).start()


signal.signal(signal.SIGTERM, stop)
server.serve_forever(poll_interval=0.05)
server.server_close()  # waits for the threads
