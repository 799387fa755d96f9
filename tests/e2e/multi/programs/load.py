"""Makes HTTP requests until a line comes in; prints figures. argv: addresses port connections

Half of the workers keep their connection, half make one for each request. Failed is any
response but 2xx and any connection error that RFC 9110 9.2.2 does not let a client retry:
only a request on a *reused* connection, closed before any byte of the response, is made once
more, on a new connection, and counted as retried.
"""

import collections
import json
import socket
import sys
import threading
import time

addresses, port, workers = sys.argv[1].split(","), int(sys.argv[2]), int(sys.argv[3])
PATIENCE = 15  # seconds; whoever is asked and is not there any more never answers
PAUSE = 0.02  # seconds between the requests of a worker: a client, not a flood
stop = threading.Event()
lock = threading.Lock()
figures = {"total": 0, "failed": 0, "retried": 0, "slowest": 0.0}
errors = collections.Counter()


class Closed(Exception):
    """The connection ended; ``clean``: before any byte of the response."""

    def __init__(self, clean, why):
        super().__init__(why)
        self.clean = clean


def exchange(link, host):
    """Return (status, whether the connection stays)."""
    data = b""
    try:
        link.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        while b"\r\n\r\n" not in data:
            more = link.recv(65536)
            if not more:
                raise Closed(not data, "closed")
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(
            line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
        )
        length = int(fields[b"content-length"])
        while len(body) < length:
            more = link.recv(65536)
            if not more:
                raise Closed(False, "closed in the body")
            body += more
    except TimeoutError as error:
        raise Closed(False, f"no answer in {PATIENCE} s") from error
    except OSError as error:
        raise Closed(not data, repr(error)) from error
    return int(head.split(b" ")[1]), fields.get(b"connection") != b"close"


def request(link, host):
    """Make one request; return (error or "", whether it was retried, the connection to keep)."""
    retried = False
    while True:
        reused = link is not None
        try:
            if link is None:
                link = socket.create_connection((host, port), timeout=PATIENCE)
                link.settimeout(PATIENCE)
            status, stays = exchange(link, host)
        except Closed as error:
            link.close()
            link = None
            if reused and error.clean and not retried:
                retried = True
                continue
            return f"{error} ({'reused' if reused else 'new'} connection)", retried, None
        except OSError as error:
            return f"connect: {error!r}", retried, None
        if not stays:
            link.close()
            link = None
        return "" if 200 <= status < 300 else f"status {status}", retried, link


def worker(number):
    host, keep, link = addresses[number // 2 % len(addresses)], number % 2 == 0, None
    while not stop.is_set():
        begun = time.monotonic()
        error, retried, link = request(link, host)
        took = time.monotonic() - begun
        if link is not None and not keep:
            link.close()
            link = None
        with lock:
            figures["total"] += 1
            figures["retried"] += retried
            figures["failed"] += bool(error)
            figures["slowest"] = max(figures["slowest"], took)
            if error:
                errors[f"{host}: {error}"] += 1
        time.sleep(PAUSE)
    if link is not None:
        link.close()


threads = [threading.Thread(target=worker, args=(number,)) for number in range(workers)]
for thread in threads:
    thread.start()
print("started", flush=True)
sys.stdin.readline()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps({**figures, "errors": errors}))
