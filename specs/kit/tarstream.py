"""Read a tar archive as a stream of entries (pure: bytes in, values out).

Own parser, because the archive is hostile and tarfile is neither bounded nor quick: ustar,
GNU long names and sparse files, pax headers. Names stay bytes. It never touches the file
system; agent.images.unpack does what a layer's entries say, specs.kit.tarplacing what those of
`corral cp` say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK: Final = 512
MAX_HEADER: Final = 1024 * 1024  # pax records of one entry
MAX_NAME: Final = 64 * 1024  # GNU long name; PATH_MAX is checked by the kernel later
MAX_SPARSE: Final = 100_000  # fragments of one sparse file
MAX_NUMBER: Final = 1 << 62
_ZERO: Final = bytes(BLOCK)
_NO_DATA: Final = frozenset(b"123456")
_XATTR: Final = b"SCHILY.xattr."


class BadArchive(Exception):
    """The bytes are not a tar archive this parser accepts; the message is for users."""


class TarEntry:
    """One member. ``kind`` is the tar type flag with every regular file as ``0``.

    ``size`` counts bytes in the archive; ``real_size`` what the file will be; they differ
    for sparse files, whose fragments are (offset, length) pairs.
    """

    __slots__ = (
        "gid",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "real_size",
        "size",
        "sparse",
        "uid",
        "xattrs",
    )

    def __init__(self, name: bytes, kind: int, size: int) -> None:
        self.name = name
        self.kind = kind
        self.size = size
        self.real_size = size
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.mtime_ns = 0
        self.link = b""
        self.major = 0
        self.minor = 0
        self.sparse: list[tuple[int, int]] | None = None
        self.xattrs: dict[str, bytes] | None = None


def _number(field: bytes) -> int:
    """Read an octal or base-256 number."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            raise BadArchive("a header holds a negative number")
    else:
        text = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
        if not text:
            return 0
        if not text.isdigit():
            raise BadArchive("a header holds a malformed number")
        try:
            value = int(text, 8)
        except ValueError:
            raise BadArchive("a header holds a malformed number") from None
    if value > MAX_NUMBER:
        raise BadArchive("a header holds a number beyond all bounds")
    return value


def _mtime(field: bytes) -> int:
    if field[0] == 0xFF:  # before 1970, base 256; nothing in a container cares
        return 0
    return _number(field)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise BadArchive("a pax header holds a malformed number")
    value = int(text)
    if value > MAX_NUMBER:
        raise BadArchive("a header holds a number beyond all bounds")
    return value


def _seconds(text: bytes) -> int:
    whole, _, part = text.partition(b".")
    if whole.startswith(b"-"):
        return 0
    fraction = part[:9].ljust(9, b"0")
    return _decimal(whole) * 1_000_000_000 + _decimal(fraction)


def parse_pax(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the records of a pax header in order; GNU sparse 0.0 repeats keys."""
    records = []
    at = 0
    while at < len(data):
        if data[at] == 0 and not data[at:].strip(b"\0"):
            break  # some writers pad
        space = data.find(b" ", at, at + 12)
        if space < 0 or not data[at:space].isdigit():
            raise BadArchive("a pax header is malformed")
        end = at + int(data[at:space])
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n":
            raise BadArchive("a pax header is malformed")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise BadArchive("a pax header is malformed")
        records.append((key, value))
        at = end
    return records


class TarStream:
    """Iterates the entries of the archive that ``more`` delivers piece by piece (b"" = end).

    After each entry, :meth:`pieces` may be read; what is left is skipped.
    """

    def __init__(self, more: Callable[[], bytes]) -> None:
        self._more = more
        self._chunk = b""
        self._at = 0
        self._left = 0  # bytes of the present entry's data not yet read
        self._pad = 0

    def __iter__(self) -> Iterator[TarEntry]:
        pax: list[tuple[bytes, bytes]] = []
        long_name = long_link = None
        while True:
            self._skip()
            block = self._take(BLOCK, optional=True)
            if not block or block == _ZERO:
                if pax or long_name is not None or long_link is not None:
                    raise BadArchive("the archive ends after an extended header")
                if not block:
                    return
                second = self._take(BLOCK, optional=True)
                if second and second != _ZERO:
                    raise BadArchive("a lone zero block inside the archive")
                return
            entry = self._header(block)
            match entry.kind:
                case 0x78 | 0x58:  # x, X
                    pax = parse_pax(self._body(entry, MAX_HEADER))
                case 0x67:  # g: for all following entries; image writers never mean it
                    self._body(entry, MAX_HEADER)
                case 0x4C:  # L
                    long_name = _text(self._body(entry, MAX_NAME))
                case 0x4B:  # K
                    long_link = _text(self._body(entry, MAX_NAME))
                case _:
                    if long_name is not None:
                        entry.name = long_name
                    if long_link is not None:
                        entry.link = long_link
                    self._finish(entry, block, pax)
                    pax, long_name, long_link = [], None, None
                    yield entry

    def pieces(self) -> Iterator[memoryview]:
        """Yield the data of the present entry; its sum is exactly ``entry.size``."""
        while self._left:
            if self._at >= len(self._chunk):
                self._refill()
            piece = memoryview(self._chunk)[self._at : self._at + self._left]
            self._at += len(piece)
            self._left -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read to the end, so that a digest over the whole stream is complete."""
        self._chunk = b""
        while self._more():
            pass

    def _refill(self) -> None:
        self._chunk = self._more()
        self._at = 0
        if not self._chunk:
            raise BadArchive("the archive is cut short")

    def _take(self, count: int, *, optional: bool = False) -> bytes:
        """Return exactly ``count`` bytes; b"" at a clean end when ``optional``."""
        end = self._at + count
        if end <= len(self._chunk):
            data = self._chunk[self._at : end]
            self._at = end
            return data
        parts = [self._chunk[self._at :]]
        have = len(parts[0])
        while have < count:
            chunk = self._more()
            if not chunk:
                if optional and not have:
                    self._chunk, self._at = b"", 0
                    return b""
                raise BadArchive("the archive is cut short")
            parts.append(chunk)
            have += len(chunk)
        last = parts[-1]
        self._at = len(last) - (have - count)
        self._chunk = last
        parts[-1] = last[: self._at]
        return b"".join(parts)

    def _skip(self) -> None:
        left = self._left + self._pad
        self._left = self._pad = 0
        while left:
            if self._at >= len(self._chunk):
                self._refill()
            step = min(left, len(self._chunk) - self._at)
            self._at += step
            left -= step

    def _body(self, entry: TarEntry, limit: int) -> bytes:
        if entry.size > limit:
            raise BadArchive(f"an extended header has {entry.size} bytes; the limit is {limit}")
        self._left = 0
        data = self._take(entry.size)
        self._pad = -entry.size % BLOCK
        return data

    def _header(self, block: bytes) -> TarEntry:
        stored = _number(block[148:156])
        rest = block[:148] + block[156:]
        if sum(rest) + 256 != stored:
            signed = sum(byte - 256 if byte > 127 else byte for byte in rest) + 256
            if signed != stored:
                raise BadArchive("a header's checksum is wrong")
        kind = block[156]
        if kind in (0, 0x37):  # NUL and 7 mean a regular file
            kind = 0x30
        entry = TarEntry(_text(block[:100]), kind, _number(block[124:136]))
        entry.mode = _number(block[100:108]) & 0o7777
        entry.uid = _number(block[108:116])
        entry.gid = _number(block[116:124])
        entry.mtime_ns = _mtime(block[136:148]) * 1_000_000_000
        entry.link = _text(block[157:257])
        if block[257:263] == b"ustar\0":
            prefix = _text(block[345:500])
            if prefix:
                entry.name = prefix + b"/" + entry.name
        if kind in (0x33, 0x34):
            entry.major, entry.minor = _number(block[329:337]), _number(block[337:345])
        return entry

    def _finish(self, entry: TarEntry, block: bytes, pax: list[tuple[bytes, bytes]]) -> None:
        """Apply pax records, settle size and sparse map, and arm the data reader."""
        sparse: dict[bytes, bytes] = {}
        offsets: list[int] = []
        lengths: list[int] = []
        for key, value in pax:
            if key == b"GNU.sparse.offset":
                offsets.append(_decimal(value))
            elif key == b"GNU.sparse.numbytes":
                lengths.append(_decimal(value))
            elif key.startswith(b"GNU.sparse."):
                sparse[key[11:]] = value
            else:
                _apply(entry, key, value)
        if entry.kind == 0x30 and entry.name.endswith(b"/"):
            entry.kind = 0x35  # the old way to say directory
        if entry.kind in _NO_DATA:
            entry.size = entry.real_size = 0
        self._left, self._pad = entry.size, -entry.size % BLOCK
        entry.real_size = entry.size
        if entry.kind == 0x53:  # S
            entry.kind = 0x30
            entry.real_size = _number(block[483:495])
            self._old_sparse(entry, block)
        elif sparse or offsets:
            self._pax_sparse(entry, sparse, list(zip(offsets, lengths, strict=False)))

    def _old_sparse(self, entry: TarEntry, block: bytes) -> None:
        fragments: list[tuple[int, int]] = []
        table, more = block[386:482], block[482]
        self._left = 0  # the extension blocks come before the data
        while True:
            for at in range(0, len(table) - 23, 24):
                if table[at] == 0:
                    break
                fragments.append((_number(table[at : at + 12]), _number(table[at + 12 : at + 24])))
            if len(fragments) > MAX_SPARSE:
                raise BadArchive("a sparse file has too many fragments")
            if not more:
                break
            block = self._take(BLOCK)
            table, more = block[:504], block[504]
        self._left = entry.size
        self._set_sparse(entry, fragments)

    def _pax_sparse(
        self, entry: TarEntry, sparse: dict[bytes, bytes], fragments: list[tuple[int, int]]
    ) -> None:
        if entry.kind != 0x30:
            raise BadArchive("a sparse map on something that is not a file")
        if b"name" in sparse:
            entry.name = sparse[b"name"]
        for key in (b"size", b"realsize"):
            if key in sparse:
                entry.real_size = _decimal(sparse[key])
        if sparse.get(b"major") == b"1":
            fragments = self._sparse_from_data(entry)
        elif b"map" in sparse:
            numbers = [_decimal(item) for item in sparse[b"map"].split(b",")]
            fragments = list(zip(numbers[::2], numbers[1::2], strict=False))
        self._set_sparse(entry, fragments)

    def _sparse_from_data(self, entry: TarEntry) -> list[tuple[int, int]]:
        """Read the map of format 1.0: decimal lines in whole blocks before the data."""
        padding, size = self._pad, entry.size
        text = b""
        wanted = 1
        while text.count(b"\n") < wanted:
            if size < BLOCK or len(text) > MAX_HEADER:
                raise BadArchive("a sparse map is malformed")
            text += self._take(BLOCK)
            size -= BLOCK
            if wanted == 1 and b"\n" in text:
                wanted = 2 * _decimal(text.partition(b"\n")[0]) + 1
                if wanted > 2 * MAX_SPARSE:
                    raise BadArchive("a sparse file has too many fragments")
        numbers = [_decimal(line) for line in text.split(b"\n")[1:wanted]]
        entry.size, self._left, self._pad = size, size, padding
        return list(zip(numbers[::2], numbers[1::2], strict=False))

    @staticmethod
    def _set_sparse(entry: TarEntry, fragments: list[tuple[int, int]]) -> None:
        end = total = 0
        for offset, length in fragments:
            if offset < end:
                raise BadArchive("a sparse map overlaps itself")
            end = offset + length
            total += length
        if total != entry.size or end > entry.real_size:
            raise BadArchive("a sparse map does not fit its data")
        entry.sparse = fragments


def _apply(entry: TarEntry, key: bytes, value: bytes) -> None:
    match key:
        case b"path":
            entry.name = _text(value)
        case b"linkpath":
            entry.link = _text(value)
        case b"size":
            entry.size = _decimal(value)
        case b"uid":
            entry.uid = _decimal(value)
        case b"gid":
            entry.gid = _decimal(value)
        case b"mtime":
            entry.mtime_ns = _seconds(value)
        case _:
            if key.startswith(_XATTR):
                name = key[len(_XATTR) :].decode("utf-8", "surrogateescape")
                entry.xattrs = {**(entry.xattrs or {}), name: value}
