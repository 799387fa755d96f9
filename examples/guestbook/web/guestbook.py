"""A guestbook in one file of standard library: serve, migrate.

GET /            the page; POST / adds an entry (form fields name, text)
GET /api         the same as JSON; POST /api adds {"name": ..., "text": ...}
GET /slow?s=2    answers after s seconds, to watch a graceful stop
GET /healthz     200 while redis answers

On SIGTERM it stops accepting, finishes the requests in flight and ends with 0.
"""

import html
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8000
SCHEMA = 1
TASK = socket.gethostname()
VERSION = os.environ.get("GUESTBOOK_VERSION", "1")
REDIS = (os.environ.get("REDIS_HOST", "redis"), 6379)
PASSWORD_FILE = "/run/secrets/redis_password"


class RedisError(Exception):
    pass


def redis(*commands):
    """Send commands on a fresh connection and return their answers."""
    with open(PASSWORD_FILE) as file:
        password = file.read().strip()
    with socket.create_connection(REDIS, timeout=2) as sock, sock.makefile("rb") as stream:
        data = b""
        for command in [("AUTH", password), *commands]:
            words = [str(word).encode() for word in command]
            data += b"*%d\r\n" % len(words)
            data += b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        sock.sendall(data)
        return [answer(stream) for _ in range(len(commands) + 1)][1:]


def answer(stream):
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise RedisError("redis closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise RedisError(rest.decode())
    if kind == b"$":
        return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2].decode()
    if kind == b"*":
        return [answer(stream) for _ in range(int(rest))]
    return int(rest) if kind == b":" else rest.decode()


def patiently(*commands, seconds=5.0):
    """As redis(), but outlast a restart of the server."""
    until = time.monotonic() + seconds
    while True:
        try:
            return redis(*commands)
        except (OSError, RedisError):
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def entries():
    (lines,) = patiently(("LRANGE", "entries", 0, 49))
    return [json.loads(line) for line in lines]


def add(name, text, client):
    entry = {"name": name[:80] or "somebody", "text": text[:500], "client": client, "task": TASK}
    patiently(("LPUSH", "entries", json.dumps(entry)), ("INCR", "visits"))


PAGE = """<!doctype html>
<meta charset="utf-8"><title>Guestbook</title>
<style>body{{font:16px/1.5 system-ui;max-width:40rem;margin:3rem auto;padding:0 1rem}}
li{{margin:.4rem 0}} footer,small{{color:#777}} input{{font:inherit;padding:.2rem .4rem}}</style>
<h1>Guestbook <small>version {version}</small></h1>
<form method="post"><input name="name" placeholder="name"> <input name="text" size="40"
placeholder="say something" required> <button>sign</button></form>
<ul>{items}</ul>
<footer>answered by {task}; you are {client}</footer>
"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    stopping = threading.Event()

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        try:
            if url.path == "/healthz":
                patiently(("PING",), seconds=0)
                self.reply(200, "text/plain", "ok\n")
            elif url.path == "/slow":
                time.sleep(float(urllib.parse.parse_qs(url.query).get("s", ["1"])[0]))
                self.reply(200, "text/plain", f"slow but whole, from {TASK}\n")
            elif url.path == "/api":
                self.reply(200, "application/json", json.dumps(self.state()) + "\n")
            elif url.path == "/":
                self.reply(200, "text/html; charset=utf-8", self.page())
            else:
                self.reply(404, "text/plain", "not found\n")
        except (OSError, RedisError) as error:
            self.reply(503, "text/plain", f"redis: {error}\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        try:
            if self.path == "/api":
                entry = json.loads(body)
                add(str(entry.get("name", "")), str(entry.get("text", "")), self.client())
                self.reply(201, "application/json", json.dumps(self.state()) + "\n")
            else:
                form = urllib.parse.parse_qs(body)
                add(form.get("name", [""])[0], form.get("text", [""])[0], self.client())
                self.reply(303, "text/plain", "", {"Location": "/"})
        except (OSError, RedisError) as error:
            self.reply(503, "text/plain", f"redis: {error}\n")
        except ValueError:
            self.reply(400, "text/plain", "malformed\n")

    def client(self):
        return self.headers.get("X-Real-IP") or self.client_address[0]

    def state(self):
        return {"version": VERSION, "task": TASK, "client": self.client(), "entries": entries()}

    def page(self):
        items = "".join(
            f"<li><b>{html.escape(entry['name'])}</b>: {html.escape(entry['text'])}"
            f" <small>through {html.escape(entry['task'])}</small>"
            for entry in entries()
        )
        return PAGE.format(
            version=html.escape(VERSION), items=items, task=TASK, client=html.escape(self.client())
        )

    def reply(self, code, kind, text, headers=None):
        data = text.encode()
        if self.stopping.is_set():
            self.close_connection = True
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Task", TASK)
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        if self.path != "/healthz":
            print(f"{self.client()} {format % args}")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    in_flight = 0
    idle = threading.Condition()

    def process_request_thread(self, request, client_address):
        with self.idle:
            Server.in_flight += 1
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self.idle:
                Server.in_flight -= 1
                self.idle.notify_all()


def serve():
    server = Server(("", PORT), Handler)

    def stop(*_):
        Handler.stopping.set()
        # shutdown() waits for the loop this handler interrupts, so it needs a thread.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"version {VERSION} listens on {PORT}")
    server.serve_forever(poll_interval=0.05)
    server.socket.close()
    with Server.idle:
        Server.idle.wait_for(lambda: not Server.in_flight, timeout=8)
    print("stopped; nothing in flight was dropped")


def migrate():
    """Bring the data to this program's schema; running it again changes nothing."""
    (have,) = patiently(("GET", "schema"), seconds=30)
    print(f"schema {have or 'none'}, wanted {SCHEMA}")
    if have != str(SCHEMA):
        first = {"name": "corral", "text": "Welcome!", "client": "-", "task": TASK}
        patiently(("RPUSH", "entries", json.dumps(first)), ("SET", "schema", SCHEMA))
        print("migrated")


if __name__ == "__main__":
    commands = {"serve": serve, "migrate": migrate}
    name = sys.argv[1] if len(sys.argv) > 1 else "serve"
    if name not in commands:
        sys.exit(f"unknown command {name!r}: want one of {', '.join(commands)}")
    try:
        commands[name]()
    except (OSError, RedisError) as error:
        sys.exit(f"{name}: {error}")
