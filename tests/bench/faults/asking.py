"""Asks one address so many times a second, whatever becomes of the requests. Only the stdlib.

    asking.py ADDRESS PORT A_SECOND PATIENCE

Every request has a connection and a thread of its own, so that one that is not answered keeps no
other waiting. A line for each, when it is known: START SECONDS TASK, for TASK "-" and why where it
failed: "-no-connection" and "-no-answer" in time, "-ConnectionRefusedError" ...
The times are the machine's monotonic clock, which all hosts of a lab share.
"""

import re
import socket
import sys
import threading
import time

address, port, rate, patience = (
    sys.argv[1],
    int(sys.argv[2]),
    float(sys.argv[3]),
    float(sys.argv[4]),
)
lock = threading.Lock()


def request():
    """Return who answered, "-" and why where nobody did."""
    connected = False
    try:
        with socket.create_connection((address, port), patience) as link:
            connected = True
            link.settimeout(patience)
            link.sendall(b"GET /0 HTTP/1.1\r\nHost: web\r\n\r\n")
            data = b""
            while not data.endswith(b"\r\n\r\nok\n"):
                more = link.recv(4096)
                if not more:
                    return "-closed"
                data += more
    except TimeoutError:
        return "-no-answer" if connected else "-no-connection"
    except OSError as error:
        return f"-{type(error).__name__}"
    found = re.search(rb"X-Task: (\S+)", data)
    return found[1].decode() if found else "-nobody"


def one():
    begun = time.monotonic()
    who = request()
    took = time.monotonic() - begun
    with lock:
        print(f"{begun:.3f} {took:.3f} {who}", flush=True)


beat = time.monotonic()
while True:
    threading.Thread(target=one, daemon=True).start()
    beat += 1 / rate
    time.sleep(max(0.0, beat - time.monotonic()))
