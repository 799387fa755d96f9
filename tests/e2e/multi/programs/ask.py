"""Asks server.py: argv[1] is JSON [[protocol, host, port], ...].

Prints JSON [[name, address seen, address asked], ...]; name is "error" where there was none.
"""

import json
import socket
import sys


def ask(protocol, host, port):
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    address = ""
    try:
        address = socket.gethostbyname(host)
        with socket.socket(socket.AF_INET, kind) as link:
            link.settimeout(3)
            link.connect((address, port))
            link.sendall(f"hello {host}\n".encode())
            name, seen = link.recv(200).decode().split()
            return [name, seen, address]
    except (OSError, ValueError) as error:
        return ["error", repr(error), address]


print(json.dumps([ask(*question) for question in json.loads(sys.argv[1])]))
