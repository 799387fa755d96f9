"""Asks server.py: argv[1] is JSON [[protocol, host, port], ...], argv[2] seconds to wait (60).

A datagram may be lost on its way, so one that has no answer in five seconds is sent again.
Prints JSON [[name, address seen, address asked], ...]; name is "error" where there was none.
"""

import json
import socket
import sys
import time

PATIENCE = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
AGAIN = 5.0


def ask(protocol, host, port):
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    address = ""
    try:
        address = socket.gethostbyname(host)
        with socket.socket(socket.AF_INET, kind) as link:
            link.settimeout(PATIENCE)
            link.connect((address, port))
            name, seen = answer(link, f"hello {host}\n".encode()).split()
            return [name, seen, address]
    except (OSError, ValueError) as error:
        return ["error", repr(error), address]


def answer(link, question):
    if link.type == socket.SOCK_STREAM:
        link.sendall(question)
        return link.recv(200).decode()
    link.settimeout(min(AGAIN, PATIENCE))
    end = time.monotonic() + PATIENCE
    while True:
        link.send(question)
        try:
            return link.recv(200).decode()
        except TimeoutError:
            if time.monotonic() > end:
                raise


print(json.dumps([ask(*question) for question in json.loads(sys.argv[1])]))
