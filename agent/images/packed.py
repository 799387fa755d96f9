"""A layer blob as a stream of uncompressed bytes, counted, bounded and hashed.

Used inside the jailed child (agent.images.unpack) only: threads read, decompress and hash
beside the unpacking, and every byte is charged to a budget. It opens nothing itself.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import zlib
from typing import Any, Final

from specs.kit.tarstream import BadArchive

_CHUNK: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


class Halt(Exception):
    """Unpacking ends here. ``kind``: refused (the archive's fault) or space (the disk's)."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Budget:
    """Counts what the archive makes us write, and stops it at the limits."""

    def __init__(self, limits: dict[str, int]) -> None:
        self.limits = limits
        self.bytes = 0
        self.inodes = 0
        self.compressed = 0
        self.expanded = 0
        self._look_at = 0

    def inode(self) -> None:
        self.inodes += 1
        if self.inodes > self.limits["inodes"]:
            raise Halt("refused", f"it holds more than {self.limits['inodes']} files")
        if self.inodes % 4096 == 0:
            self.look()

    def data(self, count: int) -> None:
        self.bytes += count
        if self.bytes > self.limits["bytes"]:
            raise Halt("refused", f"it unpacks to more than {self.limits['bytes']} bytes")
        if self.bytes >= self._look_at:
            self._look_at = self.bytes + _CHUNK
            self.look()

    def expand(self, compressed: int, expanded: int) -> None:
        """Account for decompression; called by the reading thread."""
        self.compressed += compressed
        self.expanded += expanded
        if self.expanded > self.limits["bytes"] + self.limits["bytes"] // 8 + (1 << 30):
            raise Halt("refused", f"it expands to more than {self.limits['bytes']} bytes")
        free, ratio = self.limits["ratio_free"], self.limits["ratio"]
        if self.expanded > free and self.expanded > ratio * self.compressed:
            raise Halt("refused", f"it expands more than {ratio} times: a decompression bomb")

    def look(self) -> None:
        """Leave the node its floor of free space."""
        room = os.statvfs("/")
        if room.f_bavail * room.f_frsize < self.limits["floor"]:
            raise Halt("space", "the disk is nearly full")
        if room.f_files and room.f_favail < 1024:
            raise Halt("space", "the disk is nearly out of inodes")


class BlobStream:
    """The blob read, decompressed and hashed by two threads; the main one unpacks.

    zlib, hashlib and zstd let go of the interpreter lock for large buffers, so the three
    really run side by side.
    """

    def __init__(self, fd: int, zstd: Any, budget: Budget) -> None:
        self._fd = fd
        self._zstd = zstd
        self._budget = budget
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(maxsize=8)
        self._hashing: queue.Queue[bytes] = queue.Queue(maxsize=8)
        self._done = False
        self._plain = False
        self.blob = hashlib.sha256()
        self.content = hashlib.sha256()
        self._threads = [
            threading.Thread(target=self._read, name="read", daemon=True),
            threading.Thread(target=self._hash, name="hash", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def more(self) -> bytes:
        """Return the next uncompressed chunk; b"" at the end."""
        if self._done:
            return b""
        chunk = self._chunks.get()
        if isinstance(chunk, BaseException):
            raise chunk
        self._done = not chunk
        return chunk

    def digests(self) -> tuple[str, str]:
        """Return the digests of blob and content once everything was read."""
        for thread in self._threads:
            thread.join()
        content = self.blob if self._plain else self.content
        return f"sha256:{self.blob.hexdigest()}", f"sha256:{content.hexdigest()}"

    def _hash(self) -> None:
        while chunk := self._hashing.get():
            self.content.update(chunk)

    def _emit(self, chunk: bytes) -> None:
        if chunk:
            self._hashing.put(chunk)
            self._chunks.put(chunk)

    def _read(self) -> None:
        try:
            first = self._raw()
            if first.startswith(_GZIP):
                self._gzip(first)
            elif first.startswith(_ZSTD):
                self._zstandard(first)
            else:
                self._plain = True  # content and blob are the same bytes: hashed once
                while first:
                    self._budget.expand(len(first), len(first))
                    self._chunks.put(first)
                    first = self._raw()
        except BaseException as error:  # noqa: BLE001 - handed to the main thread whole
            self._chunks.put(error)
        else:
            self._chunks.put(b"")
        self._hashing.put(b"")

    def _raw(self) -> bytes:
        data = os.read(self._fd, _CHUNK)
        while data and len(data) < 4:  # enough to tell the compression
            rest = os.read(self._fd, _CHUNK)
            if not rest:
                break
            data += rest
        self.blob.update(data)
        return data

    def _gzip(self, data: bytes) -> None:
        stream = zlib.decompressobj(wbits=31)
        while data:
            self._budget.expand(len(data), 0)
            while data:
                try:
                    out = stream.decompress(data, _CHUNK)
                except zlib.error as error:
                    raise BadArchive(f"the gzip data is damaged ({error})") from None
                self._budget.expand(0, len(out))
                self._emit(out)
                if stream.eof:
                    data = stream.unused_data.lstrip(b"\0")  # another member, or padding
                    if data:
                        stream = zlib.decompressobj(wbits=31)
                else:
                    data = stream.unconsumed_tail
            data = self._raw()
            if stream.eof and data:
                data = data.lstrip(b"\0")
                stream = zlib.decompressobj(wbits=31) if data else stream
                if not data:
                    data = self._raw()
        if not stream.eof:
            raise BadArchive("the gzip data is cut short")

    def _zstandard(self, data: bytes) -> None:
        stream = self._zstd.ZstdDecompressor()
        while data:
            self._budget.expand(len(data), 0)
            while data or not (stream.needs_input or stream.eof):
                try:
                    out = stream.decompress(data, _CHUNK)
                except self._zstd.ZstdError as error:
                    raise BadArchive(f"the zstd data is damaged ({error})") from None
                data = b""
                self._budget.expand(0, len(out))
                self._emit(out)
                if stream.eof:
                    data = stream.unused_data
                    if not data:
                        break
                    stream = self._zstd.ZstdDecompressor()
            data = self._raw()
            if stream.eof and data:
                stream = self._zstd.ZstdDecompressor()
        if not stream.eof:
            raise BadArchive("the zstd data is cut short")
