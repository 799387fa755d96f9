"""DNS messages as bytes: read a query, write an answer. Pure, stdlib only.

Only what a stub resolver's server needs: one question, no compression beyond
the pointer to it, EDNS0's size. Whatever is odd raises :class:`Malformed` and
is answered FORMERR or dropped by the server; nothing here trusts a length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

A, NS, SOA, PTR, AAAA, SRV, OPT, ANY = 1, 2, 6, 12, 28, 33, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5

QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800

PLAIN_SIZE = 512  # of a UDP answer without EDNS0 (RFC 1035)
OUR_SIZE = 1232  # what we offer and honour at most: fits every path unfragmented

Record = tuple[int, int, bytes]  # type, TTL, data; the owner is the question's name


class Malformed(Exception):
    """Not a query we can read; ``answerable`` = it has at least an id to say FORMERR to."""

    def __init__(self, why: str, *, answerable: bool = True) -> None:
        super().__init__(why)
        self.answerable = answerable


@dataclass(frozen=True, slots=True)
class Query:
    """One question. ``name`` is lower case without the last dot; ``size`` the UDP limit."""

    id: int
    flags: int
    name: str
    type: int
    klass: int
    question: bytes  # as sent, to be repeated in the answer
    size: int = PLAIN_SIZE
    edns: bool = False

    @property
    def opcode(self) -> int:
        return (self.flags & _OPCODE) >> 11


def read_name(data: bytes, offset: int) -> tuple[str, int]:
    """Return an uncompressed name (lower case) and the offset after it."""
    labels: list[str] = []
    total = 0
    while True:
        try:
            length = data[offset]
        except IndexError:
            raise Malformed("name runs past the end") from None
        offset += 1
        if length == 0:
            return ".".join(labels), offset
        if length > 63:
            raise Malformed("compressed or reserved label in a question")
        total += length + 1
        label = data[offset : offset + length]
        if len(label) != length or total > 254:
            raise Malformed("name too long")
        # Bytes that are no text (or a dot inside a label) become something no name of ours has.
        labels.append(label.decode("latin-1").lower().replace(".", "\\."))
        offset += length


def parse_query(data: bytes) -> Query:
    """Read a query."""
    if len(data) < 12:
        raise Malformed("shorter than a header", answerable=False)
    ident, flags, questions, answers, authorities, additionals = struct.unpack_from("!6H", data)
    if flags & QR:
        raise Malformed("an answer, not a query", answerable=False)
    if questions != 1 or answers or authorities:
        raise Malformed("not exactly one question")
    name, offset = read_name(data, 12)
    if offset + 4 > len(data):
        raise Malformed("question without type")
    qtype, klass = struct.unpack_from("!HH", data, offset)
    offset += 4
    question = data[12:offset]
    size, edns = PLAIN_SIZE, False
    # An OPT record has the root name: 0x00, type, UDP size, TTL, length.
    if additionals and data[offset : offset + 3] == b"\x00\x00\x29" and offset + 11 <= len(data):
        size = max(PLAIN_SIZE, min(OUR_SIZE, struct.unpack_from("!H", data, offset + 3)[0]))
        edns = True
    return Query(ident, flags, name, qtype, klass, question, size, edns)


def answer(
    query: Query,
    records: Sequence[Record] = (),
    *,
    code: int = NOERROR,
    negative_ttl: int = 1,
    limit: int | None = None,
) -> bytes:
    """Return an authoritative answer; without records it carries an SOA.

    ``limit`` is the size of a UDP answer (None = TCP, unlimited): what does not fit is
    left out and the truncation bit says so.
    """
    flags = QR | AA | RA | (query.flags & RD) | code
    body = bytearray()
    count = 0
    room = (limit or 65535) - 12 - len(query.question) - (11 if query.edns else 0)
    for kind, ttl, data in records:
        record = struct.pack("!HHHIH", 0xC00C, kind, IN, ttl, len(data)) + data
        if len(body) + len(record) > room:
            flags |= TC
            break
        body += record
        count += 1
    authority = b""
    if not records and code in (NOERROR, NXDOMAIN):
        soa = _soa(negative_ttl)
        if len(soa) <= room:
            authority = soa
    header = struct.pack("!6H", query.id, flags, 1, count, int(bool(authority)), int(query.edns))
    return header + query.question + bytes(body) + authority + (_OPT if query.edns else b"")


_OPT = struct.pack("!BHHIH", 0, OPT, OUR_SIZE, 0, 0)


def _soa(ttl: int) -> bytes:
    # The owner is the question's name itself: names of containers have no zone above them
    # that a resolver would know, and a stub only looks at the TTL.
    data = b"\x00\x00" + struct.pack("!5I", 1, 60, 60, 60, ttl)
    return struct.pack("!HHHIH", 0xC00C, SOA, IN, ttl, len(data)) + data


def refusal(data: bytes, code: int) -> bytes | None:
    """Return a bare answer to a message we could not read; None when it has no id."""
    if len(data) < 12:
        return None
    ident, flags = struct.unpack_from("!HH", data)
    return struct.pack("!6H", ident, QR | (flags & (RD | _OPCODE)) | code, 0, 0, 0, 0)


def failure(query: Query, code: int) -> bytes:
    """Return an answer that says only what went wrong."""
    flags = QR | RA | (query.flags & RD) | code
    header = struct.pack("!6H", query.id, flags, 1, 0, 0, int(query.edns))
    return header + query.question + (_OPT if query.edns else b"")


def write_name(name: str) -> bytes:
    """Return a name on the wire; labels over 63 bytes raise Malformed."""
    out = bytearray()
    for label in name.rstrip(".").split(".") if name.rstrip(".") else ():
        raw = label.encode()
        if not 0 < len(raw) <= 63:
            raise Malformed(f"bad label {label!r}")
        out += bytes([len(raw)]) + raw
    return bytes(out) + b"\0"


def reverse_address(name: str) -> str | None:
    """Return the IPv4 address an in-addr.arpa name asks for; None when it is none."""
    labels = name.split(".")
    if len(labels) != 6 or labels[4:] != ["in-addr", "arpa"]:
        return None
    if not all(part.isascii() and part.isdigit() and int(part) < 256 for part in labels[:4]):
        return None
    return ".".join(reversed(labels[:4]))


def truncated(data: bytes) -> bool:
    """Say whether an answer has the truncation bit."""
    return len(data) >= 4 and bool(struct.unpack_from("!H", data, 2)[0] & TC)


def matches(reply: bytes, ident: int, question: bytes) -> bool:
    """Say whether a server's reply belongs to what we asked (id and question, RFC 5452)."""
    if len(reply) < 12 + len(question):
        return False
    found, flags, questions = struct.unpack_from("!3H", reply)
    same = reply[12 : 12 + len(question)].lower() == question.lower()
    return bool(found == ident and flags & QR and questions == 1 and same)
