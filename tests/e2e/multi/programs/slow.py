"""Serves slow requests, or makes them. Requests are answered in as many seconds as they name.

    slow.py serve PORT
    slow.py ask ADDRESSES PORT WORKERS SECONDS [once]

The server sends its headers at once and the body when the time is over. On SIGTERM it stops
listening, finishes what it has and ends. The client prints "started" when every worker has an
answer's headers, goes on until a line comes in (``once``: one request each), prints figures.
"""

import collections
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        seconds = float(self.path.strip("/") or 0)
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.send_header("Connection", "close")
        self.send_header("X-Task", socket.gethostname())
        self.send_header("X-Version", os.environ.get("VERSION", ""))
        self.end_headers()
        self.wfile.flush()
        time.sleep(seconds)
        self.wfile.write(b"ok\n")
        self.close_connection = True

    def log_message(self, *words):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 256


def serve(port):
    server = Server(("", port), Answer)

    def stop(*_):
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever(poll_interval=0.05)
    server.server_close()  # waits for the threads


def ask(addresses, port, workers, seconds, once):
    stop = threading.Event()
    lock = threading.Lock()
    begun = threading.Semaphore(0)
    figures = {"total": 0, "failed": 0}
    errors = collections.Counter()

    def request(host, said):
        with socket.create_connection((host, port), timeout=10) as link:
            link.settimeout(seconds + 20)
            link.sendall(f"GET /{seconds} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            data = b""
            while not data.endswith(b"\r\n\r\nok\n"):
                more = link.recv(65536)
                if not more:
                    return "closed too early"
                data += more
                said()
        return "" if data.startswith(b"HTTP/1.1 200") else "status"

    def worker(number):
        host = addresses[number % len(addresses)]
        told = []

        def said():
            if not told:
                told.append(True)
                begun.release()

        while True:
            at = time.monotonic()
            try:
                error = request(host, said)
            except OSError as caught:
                error = repr(caught)
            said()
            with lock:
                figures["total"] += 1
                figures["failed"] += bool(error)
                if error:
                    errors[f"{host}: {error} after {time.monotonic() - at:.1f} s"] += 1
            if once or stop.is_set():
                return

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for _ in threads:
        begun.acquire()
    print("started", flush=True)
    sys.stdin.readline()
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps({**figures, "errors": errors}))


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    ask(
        sys.argv[2].split(","),
        int(sys.argv[3]),
        int(sys.argv[4]),
        float(sys.argv[5]),
        "once" in sys.argv[6:],
    )
