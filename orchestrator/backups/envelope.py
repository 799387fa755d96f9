"""The file of a backup: a head that anybody may read, and a body that only the passphrase opens.

Three parts: a line with the format's version, a line of JSON (:class:`Head`), the body. The body
has a list of what follows with sizes and SHA-256 digests, the list's own digest, and then each
piece. Unless the backup is plain, the body is encrypted in blocks of 1 MiB with AES-256-GCM under
a key of this file alone; that key is in the head, wrapped by one that scrypt makes of the
passphrase. Each block's nonce is its number and whether it is the last one, and it vouches
for the head: cut, exchanged or changed blocks, and another head, do not open.

Files are written and read in blocks; nothing here holds one whole.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

MAGIC = b"corral-backup "
FORMAT = 1
BLOCK = 1 << 20  # bytes of the body encrypted together
TAG = 16
KEY = 32
SALT = 16
LONGEST_HEAD = 64 * 1024
LONGEST_LIST = 1 << 20
MOST_PIECES = 64
COST = (1 << 15, 8, 1)  # scrypt's N, r, p: 32 MiB and a tenth of a second
DEAREST = (1 << 20, 16, 4)  # what a file may ask of us: 1 GiB


class BadBackup(Exception):
    """A file that is not a whole backup of ours, or that does not open; ``hint``: what to do."""

    def __init__(self, detail: str, *, hint: str = "") -> None:
        self.hint = hint
        super().__init__(detail)


class WrongPassphrase(BadBackup):
    """It is encrypted, and not by this passphrase."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a backup says of itself without a passphrase. Times are seconds since the epoch."""

    cluster: str = ""
    made_at: float = 0.0
    corral: str = ""  # the version that made it
    host: str = ""  # the machine of the controller
    epoch: int = 0
    revision: int = 0  # of the store
    scheduled: bool = False  # made by the schedule, which may take it away again
    lock: dict[str, Any] | None = None  # how the body is encrypted; None = it is not


@dataclass(frozen=True, slots=True)
class PassphraseKey:
    """A passphrase's key, and what scrypt needs to make it again. Holds no passphrase."""

    salt: bytes
    key: bytes = field(repr=False)
    cost: tuple[int, int, int] = COST

    @classmethod
    def derive(
        cls, passphrase: str, salt: bytes | None = None, cost: tuple[int, int, int] = COST
    ) -> PassphraseKey:
        """Return the key; takes a tenth of a second and 32 MiB. Raises BadBackup for no words."""
        if not passphrase.strip():
            raise BadBackup("the passphrase is empty", hint="--plain makes one without, readable")
        salt = salt or os.urandom(SALT)
        n, r, p = cost
        made = Scrypt(salt=salt, length=KEY, n=n, r=r, p=p).derive(passphrase.encode())
        return cls(salt, made, cost)

    def wrap(self, key: bytes) -> dict[str, Any]:
        """Return a file's key locked up, as it stands in the head."""
        nonce = os.urandom(12)
        n, r, p = self.cost
        return {
            "kdf": "scrypt",
            "n": n,
            "r": r,
            "p": p,
            "salt": _text(self.salt),
            "cipher": "AES-256-GCM",
            "block": BLOCK,
            "key": _text(nonce + AESGCM(self.key).encrypt(nonce, key, b"corral backup key")),
        }


def write(
    out: BinaryIO, head: Head, pieces: Sequence[tuple[str, Path]], key: PassphraseKey | None
) -> None:
    """Write a backup of these files. Raises OSError; the caller names and syncs the file."""
    data_key = AESGCM.generate_key(KEY * 8)
    lock = key.wrap(data_key) if key is not None else None
    told = {**asdict(head), "lock": lock}
    first = MAGIC + str(FORMAT).encode() + b"\n" + json.dumps(told).encode() + b"\n"
    out.write(first)
    rows = [{"name": name, **_digest(path)} for name, path in pieces]
    listed = json.dumps(rows).encode()
    blocks = _Blocks(out, AESGCM(data_key) if key is not None else None, _bound(first))
    blocks.put(len(listed).to_bytes(8, "big") + listed + hashlib.sha256(listed).digest())
    for _, path in pieces:
        with path.open("rb") as file:
            while part := file.read(BLOCK):
                blocks.put(part)
    blocks.end()


def peek(path: Path) -> Head:
    """Return what a backup says of itself. Raises BadBackup, OSError."""
    with path.open("rb") as file:
        return _head(file, path)[0]


def read(path: Path, passphrase: Callable[[], str], into: Path) -> Head:
    """Write the pieces of a backup into a folder, every digest checked.

    ``passphrase`` is called only where one is needed. Raises BadBackup (WrongPassphrase where it
    is that), OSError; what is in the folder then is of no use.
    """
    with path.open("rb") as file:
        head, first = _head(file, path)
        source = _Body(_plain(file, head, first, passphrase, path))
        for row in _rows(source, path):
            name, size, digest = row
            found = hashlib.sha256()
            descriptor = os.open(into / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                left = size
                while left:
                    part = source.some(min(left, BLOCK))
                    if not part:
                        raise BadBackup(f"{path} is cut: {name} misses {left} bytes", hint=_CUT)
                    found.update(part)
                    out.write(part)
                    left -= len(part)
                out.flush()
                os.fsync(out.fileno())
            if found.hexdigest() != digest:
                raise BadBackup(f"{path} is damaged: the digest of {name} is another", hint=_CUT)
        if source.some(1):
            raise BadBackup(f"{path} has more in it than it says", hint=_CUT)
        return head


_TEXTS = ("cluster", "corral", "host")  # of a head
_NUMBERS = ("epoch", "revision", "scheduled")
_CUT = "copy it again from where it was made, or take another backup: corral backup ls DIR"


def _head(file: BinaryIO, path: Path) -> tuple[Head, bytes]:
    """Return the head and the bytes it was read from."""
    first = file.readline(len(MAGIC) + 12)
    if not first.startswith(MAGIC):
        what = "is empty" if not first else "is not a backup of corral"
        raise BadBackup(f"{path} {what}", hint="corral backup makes one")
    number = first[len(MAGIC) :].strip()
    if not number.isdigit() or not first.endswith(b"\n"):
        raise BadBackup(f"{path} is not a backup of corral", hint="corral backup makes one")
    if int(number) > FORMAT:
        raise BadBackup(
            f"{path} was made by a newer corral (format {int(number)}, this one knows {FORMAT})",
            hint="use that version, or a backup of this one",
        )
    second = file.readline(LONGEST_HEAD)
    with contextlib.suppress(ValueError, TypeError):
        found = json.loads(second) if second.endswith(b"\n") else None
        known = {each.name for each in fields(Head)}
        if isinstance(found, dict) and isinstance(found.get("cluster"), str):
            told: dict[str, Any] = {name: one for name, one in found.items() if name in known}
            right = isinstance(told.get("made_at"), int | float) and math.isfinite(told["made_at"])
            right = right and all(isinstance(told.get(name, ""), str) for name in _TEXTS)
            right = right and all(isinstance(told.get(name, 0), int) for name in _NUMBERS)
            if right and isinstance(told.get("lock"), dict | None):
                return Head(**told), first + second
    raise BadBackup(f"{path} is damaged: its head cannot be read", hint=_CUT)


def _plain(
    file: BinaryIO, head: Head, first: bytes, passphrase: Callable[[], str], path: Path
) -> Iterator[bytes]:
    """Yield the body as it was before it was encrypted."""
    if head.lock is None:
        while part := file.read(BLOCK):
            yield part
        return
    cipher = AESGCM(_unwrap(head.lock, passphrase, path))
    bound, number = _bound(first), 0
    sealed = file.read(BLOCK + TAG)
    while True:
        following = file.read(BLOCK + TAG)
        try:
            yield cipher.decrypt(_nonce(number, last=not following), sealed, bound)
        except InvalidTag:
            raise BadBackup(f"{path} is cut or was changed (block {number})", hint=_CUT) from None
        if not following:
            return
        sealed, number = following, number + 1


def _unwrap(lock: dict[str, Any], passphrase: Callable[[], str], path: Path) -> bytes:
    try:
        cost = (int(lock["n"]), int(lock["r"]), int(lock["p"]))
        salt, wrapped = base64.b64decode(lock["salt"]), base64.b64decode(lock["key"])
        known = (lock["kdf"], lock["cipher"], lock["block"]) == ("scrypt", "AES-256-GCM", BLOCK)
    except (KeyError, TypeError, ValueError):
        raise BadBackup(f"{path} is damaged: its head cannot be read", hint=_CUT) from None
    if not known or any(a > b or a < 1 for a, b in zip(cost, DEAREST, strict=True)):
        raise BadBackup(f"{path} is encrypted in a way this corral does not know", hint=_CUT)
    try:
        key = PassphraseKey.derive(passphrase(), salt, cost).key
        return AESGCM(key).decrypt(wrapped[:12], wrapped[12:], b"corral backup key")
    except (InvalidTag, ValueError):
        raise WrongPassphrase(
            f"the passphrase does not open {path}",
            hint="nothing was changed; is it the one of the day it was made?",
        ) from None


def _rows(source: _Body, path: Path) -> list[tuple[str, int, str]]:
    length = int.from_bytes(source.exactly(8), "big")
    if length > LONGEST_LIST:
        raise BadBackup(f"{path} is damaged: its list cannot be read", hint=_CUT)
    listed, digest = source.exactly(length), source.exactly(32)
    if hashlib.sha256(listed).digest() != digest:
        raise BadBackup(f"{path} is cut or damaged: the digest of its list is another", hint=_CUT)
    rows = [(str(row["name"]), int(row["size"]), str(row["sha256"])) for row in json.loads(listed)]
    names = {name for name, _, _ in rows}
    if (
        len(rows) > MOST_PIECES
        or len(names) != len(rows)
        or any("/" in name or not name or name[0] == "." for name in names)
    ):
        raise BadBackup(f"{path} has names in it that no backup has")
    return rows


class _Blocks:
    """Gathers the body into blocks and writes them, encrypted where there is a key."""

    def __init__(self, out: BinaryIO, cipher: AESGCM | None, bound: bytes) -> None:
        self._out = out
        self._cipher = cipher
        self._bound = bound
        self._held = bytearray()
        self._number = 0

    def put(self, data: bytes) -> None:
        self._held += data
        while len(self._held) > BLOCK:  # a full one waits: it may be the last
            self._block(bytes(self._held[:BLOCK]), last=False)
            del self._held[:BLOCK]

    def end(self) -> None:
        self._block(bytes(self._held), last=True)

    def _block(self, data: bytes, *, last: bool) -> None:
        if self._cipher is not None:
            data = self._cipher.encrypt(_nonce(self._number, last=last), data, self._bound)
        self._out.write(data)
        self._number += 1


class _Body:
    """Reads a number of bytes from pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def some(self, most: int) -> bytes:
        """Return at least one byte and at most so many; none at the end."""
        if not self._held:
            self._held = next(self._pieces, b"")
        part, self._held = self._held[:most], self._held[most:]
        return part

    def exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            part = self.some(size - len(found))
            if not part:
                raise BadBackup("the backup is cut: its list is missing", hint=_CUT)
            found += part
        return found


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _bound(first: bytes) -> bytes:
    return hashlib.sha256(first).digest()


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": found}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
