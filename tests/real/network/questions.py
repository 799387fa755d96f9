"""Ask a container's resolver, with an independent DNS implementation."""

import socket
import struct
import time

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from tests.real.network.hosts import AGAIN, inside


def question(namespace, name, kind="A", *, tcp=False, timeout=60.0, size=None, again=AGAIN):
    """Return the parsed answer; over UDP it is asked again every ``again`` seconds."""
    query = dns.message.make_query(name, kind)
    if size:
        query.use_edns(0, payload=size)
    wire = query.to_wire()
    family = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with inside(namespace, lambda: socket.socket(socket.AF_INET, family)) as link:
        link.settimeout(timeout)
        link.connect(("127.0.0.11", 53))
        if not tcp:
            data = _datagram(link, wire, timeout, again)
        else:
            link.sendall(struct.pack("!H", len(wire)) + wire)
            data = b""
            while len(data) < 2 or len(data) < 2 + struct.unpack_from("!H", data)[0]:
                chunk = link.recv(65535)
                assert chunk, "connection closed"
                data += chunk
            data = data[2:]
    answer = dns.message.from_wire(data)
    assert answer.id == query.id
    assert answer.flags & dns.flags.QR
    return answer


def _datagram(link, wire, timeout, again):
    end = time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        link.settimeout(max(min(again, left), 0.01))
        link.send(wire)
        try:
            return link.recv(65535)
        except TimeoutError:
            if left <= again:
                raise


def lookup(namespace, name, kind="A", **arguments):
    """Return the sorted data of the answer, or the name of the error."""
    answer = question(namespace, name, kind, **arguments)
    if answer.rcode():
        return dns.rcode.to_text(answer.rcode())
    return sorted(str(item) for rrset in answer.answer for item in rrset)
