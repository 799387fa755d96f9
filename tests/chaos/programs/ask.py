"""Asks all the time, whatever becomes of it: new requests, long ones, kept connections, names.

    ask.py PATIENCE LONG ADDRESS,... PORT [NAMESERVER NAME]

With a name server the address is what NAME resolves to, and names are asked for, too. A line for
each request when it is known: START SECONDS KIND ADDRESS ok, or "-" and why instead of ok. Times
are the machine's monotonic clock, which all hosts of a lab share. Only the standard library.
"""

import http.client
import os
import random
import socket
import struct
import sys
import threading
import time

PATIENCE, LONG = float(sys.argv[1]), float(sys.argv[2])
ADDRESSES, PORT = sys.argv[3].split(","), int(sys.argv[4])
SERVER, NAME = (sys.argv[5], sys.argv[6]) if len(sys.argv) > 5 else ("", "")
LOCK = threading.Lock()
PARENT = os.getppid()
DNS_TRIES, DNS_WAIT = 2, PATIENCE / 2


def told(kind, address, call):
    begun = time.monotonic()
    try:
        call()
        said = "ok"
    except TimeoutError:
        said = "-timeout"
    except Exception as error:
        said = f"-{type(error).__name__}:{error}".replace(" ", "_")
    with LOCK:
        print(f"{begun:.3f} {time.monotonic() - begun:.3f} {kind} {address} {said}", flush=True)
    return said == "ok"


def answer(link, path):
    link.request("GET", path)
    with link.getresponse() as found:
        if found.status != 200 or found.read() != b"ok\n":
            raise ValueError(f"status {found.status}")


def new(address, path="/0", patience=PATIENCE):
    link = http.client.HTTPConnection(address, PORT, timeout=patience)
    try:
        answer(link, path)
    finally:
        link.close()


class Kept:
    """A connection that stays; one that was closed meanwhile is made anew, once."""

    def __init__(self, address):
        self.address = address
        self.link = None

    def ask(self):
        old = self.link
        if old is not None:
            try:
                return answer(old, "/0")
            except (ConnectionError, http.client.HTTPException):
                old.close()  # closed while it said nothing: a client asks again
            except BaseException:
                self.link = None
                old.close()
                raise
        self.link = http.client.HTTPConnection(self.address, PORT, timeout=PATIENCE)
        try:
            answer(self.link, "/0")
        except BaseException:
            self.link.close()
            self.link = None
            raise


def resolve(name):
    """Return the addresses of a name, as a resolver asks: by UDP, twice."""
    number = random.randrange(1 << 16)
    labels = b"".join(bytes([len(word)]) + word.encode() for word in name.split("."))
    question = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
    for attempt in range(DNS_TRIES):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(DNS_WAIT)
            try:
                link.connect((SERVER, 53))
                link.send(question)
                data = link.recv(4096)
            except (TimeoutError, ConnectionError):
                if attempt == DNS_TRIES - 1:
                    raise
                time.sleep(0.2)
                continue
        _, flags, _, count, _, _ = struct.unpack_from(">HHHHHH", data)
        if flags & 15 or not count:
            raise ValueError(f"rcode {flags & 15}, {count} answers")
        return socket.inet_ntoa(data[-4:])
    raise AssertionError


def forever(pause, kind, address, call):
    while True:
        began = time.monotonic()
        told(kind, address, call)
        time.sleep(max(0.02, began + pause - time.monotonic()))


def main():
    addresses = ADDRESSES
    if SERVER:
        while True:
            try:
                addresses = [resolve(NAME)]
                break
            except Exception:
                time.sleep(0.2)
        for name in (NAME, f"tasks.{NAME}"):
            words = (0.5, "name", name, lambda name=name: resolve(name))
            threading.Thread(target=forever, args=words, daemon=True).start()
    for address in addresses:
        calls = {
            "new": (0.25, lambda a=address: new(a)),
            "kept": (0.4, Kept(address).ask),
            "long": (0.1, lambda a=address: new(a, f"/{LONG:g}", LONG + PATIENCE)),
        }
        for kind, (pause, call) in calls.items():
            threading.Thread(target=forever, args=(pause, kind, address, call), daemon=True).start()
    while os.getppid() == PARENT:  # nobody reads it any more
        time.sleep(1.0)
    os._exit(0)


main()
