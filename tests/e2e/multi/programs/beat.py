"""Beats as a UDP packet every few milliseconds, or takes note of what arrives.

    beat.py send NAME PORT
    beat.py take PORT FILE

A sender has a name of its own, made at its start. The other writes a line for each packet: when it
came, the address it came from, the sender's name, its number.
"""

import os
import signal
import socket
import sys
import time


def send(name, port):
    me = os.urandom(4).hex()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    number, where, known = 0, None, 0.0
    while True:
        if time.monotonic() - known > 1.0:
            try:
                where, known = socket.gethostbyname(name), time.monotonic()
            except OSError:
                where = None
        number += 1
        try:
            if where:
                sock.sendto(f"{me} {number}".encode(), (where, port))
        except OSError:
            pass
        time.sleep(0.01)


def take(port, path):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", port))
    with open(path, "a", buffering=1) as file:
        while True:
            data, (source, _) = sock.recvfrom(100)
            file.write(f"{time.time():.4f} {source} {data.decode()}\n")


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if sys.argv[1] == "send":
    send(sys.argv[2], int(sys.argv[3]))
else:
    take(int(sys.argv[2]), sys.argv[3])
