"""Seal what the agent keeps on disk of tasks: their environment must not be read from a copy of it.

``agent/tasks/journal.py`` puts everything through here that names a spec. The key is the node's
own, made at its first use, in a file that only root reads: after a reboot the node starts what it
held without a controller. AES-256-GCM; each life of the agent derives a key of its own and
counts its nonces, so that no number of records makes one of them come twice.

Sealed text is one line of ASCII beginning with a mark that no JSON and no checksum begins with;
what an earlier version wrote in the clear is returned as it is. People read a kept file by
``python -m agent.sealing FILE``.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import itertools
import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.config import from_environment
from specs.kit import disk

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

log = logging.getLogger(__name__)

MARK: Final = b"~1"
_KEY: Final = 32
_SALT: Final = 16
_NONCE: Final = 12
_LIVES: Final = 8  # keys derived for reading that are remembered


class Unopened(ValueError):
    """What is sealed cannot be read; the message says why, for people."""


class NodeSeal:
    """``seal`` and ``open`` under the node's key; safe to call from any thread."""

    def __init__(self, key: Path) -> None:
        self._path = key
        self._key = b""
        self._salt = os.urandom(_SALT)
        self._count = itertools.count()
        self._boxes: dict[bytes, AESGCM] = {}
        self._lock = threading.Lock()

    def seal(self, data: bytes) -> bytes:
        """Return the data as one sealed line without its end. Raises OSError without a key."""
        with self._lock:
            number = next(self._count)
            box = self._box(self._salt, self._loaded() or self._made())
        nonce = number.to_bytes(_NONCE, "big")
        return MARK + base64.b64encode(self._salt + nonce + box.encrypt(nonce, data, MARK))

    def open(self, data: bytes) -> bytes:
        """Return what was sealed; what is not sealed as it is. Raises Unopened."""
        if not is_sealed(data):
            return data
        try:
            raw = base64.b64decode(data[len(MARK) :].rstrip(b"\n"), validate=True)
        except binascii.Error:
            raise Unopened("it is sealed, and damaged") from None
        salt, nonce, sealed = raw[:_SALT], raw[_SALT : _SALT + _NONCE], raw[_SALT + _NONCE :]
        try:
            with self._lock:
                key = self._loaded()
                box = self._box(salt, key) if key else None
        except OSError as error:
            raise Unopened(f"the node's key {self._path}: {error.strerror or error}") from None
        if box is None:
            raise Unopened(f"it is sealed, and the node's key {self._path} is gone")
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - 8 MB, once there is a task

        try:
            return box.decrypt(nonce, sealed, MARK)
        except (InvalidTag, ValueError):
            raise Unopened("it is sealed, and damaged or of another key than this node's") from None

    def forget(self) -> None:
        """Delete the key; what was sealed by it is nobody's any more."""
        with self._lock:
            self._path.unlink(missing_ok=True)
            self._key = b""
            self._boxes = {}

    def _box(self, salt: bytes, key: bytes) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - as above

        box = self._boxes.get(salt)
        if box is None:
            if len(self._boxes) >= _LIVES:
                self._boxes.pop(next(iter(self._boxes)))
            derived = hmac.new(key, b"corral journal" + salt, hashlib.sha256).digest()
            box = self._boxes[salt] = AESGCM(derived)
        return box

    def _loaded(self) -> bytes:
        """Return the key; empty where there is none, or none that can be one."""
        if self._key:
            return self._key
        try:
            key = self._path.read_bytes()
        except FileNotFoundError:
            return b""
        if len(key) != _KEY:
            return b""
        if self._path.stat().st_mode & 0o077:
            log.warning("the node's key could be read by others", extra={"at": str(self._path)})
            self._path.chmod(0o600)
        self._key = key
        return key

    def _made(self) -> bytes:
        """Make the node's key; what is in its place and is none is moved aside."""
        with contextlib.suppress(FileNotFoundError):
            self._path.rename(self._path.with_name(f"{self._path.name}.damaged"))
            log.warning("the node's key was damaged; made another", extra={"at": str(self._path)})
        self._boxes = {}
        disk.make_folder(self._path.parent)
        # Durable before the first line that needs it.
        disk.write_file(self._path, os.urandom(_KEY))
        return self._loaded()


def is_sealed(data: bytes) -> bool:
    """Say whether the data is one sealed text."""
    return data.startswith(MARK)


def readable(seal: NodeSeal, data: bytes) -> bytes:
    """Return a file for people: opened as a whole, else each of its lines that is sealed."""
    lines = []
    for line in seal.open(data).splitlines(keepends=True):
        check, blank, body = line.rstrip(b"\n").partition(b" ")
        text = line
        if blank and is_sealed(body):
            with contextlib.suppress(Unopened):
                text = check + blank + seal.open(body) + b"\n"
        lines.append(text)
    return b"".join(lines)


def main() -> int:
    """Print files of the agent's as people read them."""
    seal = NodeSeal(from_environment().key)
    for name in sys.argv[1:]:
        try:
            sys.stdout.buffer.write(readable(seal, Path(name).read_bytes()).rstrip(b"\n") + b"\n")
        except (OSError, Unopened) as error:
            sys.stderr.write(f"{name}: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
