"""Tar archives as data: members written byte by byte, well formed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK = 512


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def header(
    name: bytes,
    *,
    kind: bytes = b"0",
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    raw: dict[int, bytes] | None = None,
    checksum: bool = True,
) -> bytes:
    """Return one header block; ``raw`` overwrites bytes at offsets before the checksum."""
    block = bytearray(BLOCK)
    block[0:100] = name.ljust(100, b"\0")[:100]
    block[100:108] = octal(mode, 8)
    block[108:116] = octal(uid, 8)
    block[116:124] = octal(gid, 8)
    if size < 8**11:
        block[124:136] = octal(size, 12)
    else:
        block[124:136] = b"\x80" + size.to_bytes(11, "big")
    block[136:148] = octal(mtime, 12)
    block[156:157] = kind
    block[157:257] = link.ljust(100, b"\0")[:100]
    block[257:265] = b"ustar\00000"
    block[329:337] = octal(device[0], 8)
    block[337:345] = octal(device[1], 8)
    block[345:500] = prefix.ljust(155, b"\0")[:155]
    for at, data in (raw or {}).items():
        block[at : at + len(data)] = data
    block[148:156] = b" " * 8
    total = sum(block) + (0 if checksum else 1)
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def extended(kind: bytes, data: bytes) -> bytes:
    """Return a pax or GNU long-name member."""
    return header(b"extended", kind=kind, size=len(data)) + padded(data)


def pax(records: Iterable[tuple[str, bytes]]) -> bytes:
    lines = b""
    for key, value in records:
        rest = b" " + key.encode() + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(b"%d" % length) + len(rest) != length:
            length += 1
        lines += b"%d" % length + rest
    return extended(b"x", lines)


def file(name: bytes, data: bytes = b"", **more: object) -> bytes:
    return header(name, size=len(data), **more) + padded(data)  # type: ignore[arg-type]


def directory(name: bytes, mode: int = 0o755, **more: object) -> bytes:
    return header(name, kind=b"5", mode=mode, **more)  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes) -> bytes:
    if len(target) > 100 or len(name) > 100:
        long = pax([("path", name), ("linkpath", target)])
        return long + header(name, kind=b"2", link=target)
    return header(name, kind=b"2", link=target, mode=0o777)


def hardlink(name: bytes, target: bytes) -> bytes:
    return header(name, kind=b"1", link=target)


def device(name: bytes, kind: bytes, major: int, minor: int) -> bytes:
    return header(name, kind=kind, device=(major, minor))


END = bytes(2 * BLOCK)


def archive(*members: bytes) -> bytes:
    return b"".join(members) + END
