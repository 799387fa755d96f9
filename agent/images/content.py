"""The image store's directory: blobs by digest, refs by name, records of complete images.

Everything below ``images/`` is written to a private place first and renamed when whole, so
that a kill or a power cut at any instant leaves only files that are complete or ignored.
Small files that are trusted after a crash (refs, records) are fsynced; blobs are not: their
name is their digest, and they are hashed again before use. Only this package writes here;
several processes may (an import beside the agent).
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import logging
import os
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agent.errors import Later
from agent.images.reference import DIGEST, check_digest, digest_of
from specs.kit import disk
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)
T = TypeVar("T")
_CHUNK: Final = 1 << 20
LEFTOVERS: Final = 3  # large trees that wait to be deleted before more are begun


@dataclass(frozen=True, slots=True)
class Ref:
    """What a name means on this node; ``source`` is pulled, built or imported."""

    name: str
    digest: str
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A complete image. ``digest`` is what it is pinned by, maybe an index's; ``manifest`` ours."""

    digest: str
    manifest: str
    config: str
    blobs: tuple[str, ...]  # compressed layers, base first
    diff_ids: tuple[str, ...]
    created: str
    size: int  # unpacked bytes


def hash_file(path: Path) -> str:
    """Return the digest of a file's content."""
    with path.open("rb", buffering=0) as file:
        digest = hashlib.file_digest(file, "sha256")
    return f"sha256:{digest.hexdigest()}"


def _read(path: Path, make: Callable[[dict[str, Any]], T]) -> T | None:
    """Return what a small file says; nothing where it is missing or makes no sense."""
    try:
        return make(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        log.warning("an unreadable image name or record was ignored", extra={"path": str(path)})
        return None


def _record(value: dict[str, Any]) -> ImageRecord:
    lists = {key: tuple(value[key]) for key in ("blobs", "diff_ids")}
    return ImageRecord(**{**value, **lists})


def _new_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _new_folder(path: Path) -> int:
    path.mkdir(mode=0o700)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


class ImageFiles:
    """Paths and atomic writes of one image store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.layers = root / "layers"
        self.short = root / "l"
        self.writable = root / "writable"
        self._refs = root / "refs"
        self._records = root / "complete"
        self._staging = root / "staging"
        self._remover = disk.Remover()
        for path in (
            root,
            self.blobs,
            self.layers,
            self.short,
            self.writable,
            self._refs,
            self._records,
            self._staging,
            root / "empty",
        ):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def blob(self, digest: str) -> Path:
        return self.blobs / check_digest(digest).removeprefix("sha256:")

    def has_blob(self, digest: str) -> bool:
        return self.blob(digest).exists()

    def put_blob(self, data: bytes) -> str:
        """Store bytes under their digest."""
        digest = digest_of(data)
        path = self.blob(digest)
        if not path.exists():
            self._write_blob(path, data)
        return digest

    def _write_blob(self, path: Path, data: bytes) -> None:
        # What a kill leaves half done lies where the leftovers of the dead are found.
        passing, fd = self._staged(_new_file)
        try:
            disk.write_all(fd, data)
            os.fsync(fd)
            reached("image.before_rename")
            passing.rename(path)
        except BaseException:
            passing.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        disk.sync(path.parent)

    def read_blob(self, digest: str, limit: int) -> bytes | None:
        """Return a small blob after hashing it again; a damaged one is deleted."""
        path = self.blob(digest)
        try:
            if path.stat().st_size > limit:
                return None
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if digest_of(data) != digest:
            log.warning("a damaged blob was deleted", extra={"digest": digest})
            path.unlink(missing_ok=True)
            return None
        return data

    def adopt_blob(self, path: Path, digest: str) -> None:
        """Move a file whose digest the caller has verified into the store."""
        path.chmod(0o600)
        reached("image.before_rename")
        path.rename(self.blob(digest))

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """Give a private directory on the store's file system; it goes afterwards.

        Its lock tells other processes that its owner lives, so that only leftovers of the
        dead are cleaned. What is still in it at the end, maybe a refused image's hundreds of
        thousands of files, is deleted beside us: this never blocks for long.
        """
        # At a start the programs of a killed owner may still be dying, and hold its lock.
        self.clean_staging()
        path, fd = self._staged(_new_folder)
        try:
            yield path
        finally:
            self._remover.remove(path, functools.partial(os.close, fd))

    def _staged(self, make: Callable[[Path], int]) -> tuple[Path, int]:
        """Make something that is only ours and say so by its lock; give its path and descriptor."""
        while True:
            path = self._staging / f"{os.getpid()}-{secrets.token_hex(6)}"
            with contextlib.suppress(FileNotFoundError):
                fd = make(path)
                fcntl.flock(fd, fcntl.LOCK_SH)
                if os.fstat(fd).st_nlink:
                    return path, fd
                os.close(fd)  # taken for a leftover before it had its lock

    def leave_to_remover(self, path: Path) -> None:
        """Delete a directory of ours beside us; a kill in between leaves it to the next start."""
        gone = self._staging / f"{os.getpid()}-{secrets.token_hex(6)}"
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
                path.rename(gone)
            except BaseException:
                os.close(fd)
                raise
            self._remover.remove(gone, functools.partial(os.close, fd))

    def crowded(self) -> bool:
        """Say whether so much waits to be deleted that nothing large should be begun."""
        return self._remover.pending > LEFTOVERS

    def emptied(self, timeout: float) -> bool:
        """Wait until what was left over is deleted. Blocks."""
        return self._remover.wait(timeout)

    def clean_staging(self) -> None:
        """Have what dead processes left half done deleted."""
        for path in self._staging.iterdir():
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(fd)  # its owner lives
                    continue
                self._remover.remove(path, functools.partial(os.close, fd))

    @contextlib.contextmanager
    def using(self, *, alone: bool = False) -> Iterator[None]:
        """Hold the store's lock: many may add at once, only one may collect garbage."""
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Later(
                    "images are being added or removed on this node right now; try again"
                ) from None
            yield
        finally:
            os.close(fd)

    # refs

    def _ref_path(self, name: str) -> Path:
        return self._refs / f"{hashlib.sha256(name.encode()).hexdigest()[:40]}.json"

    def ref(self, name: str) -> Ref | None:
        """Return what the canonical ``name`` means here."""
        return self._read_ref(self._ref_path(name))

    @staticmethod
    def _read_ref(path: Path) -> Ref | None:
        ref = _read(path, lambda value: Ref(**value))
        return ref if ref and DIGEST.fullmatch(ref.digest) else None

    def set_ref(self, ref: Ref) -> None:
        if self.ref(ref.name) != ref:
            reached("image.before_name")
            disk.write_file(self._ref_path(ref.name), json.dumps(asdict(ref)).encode())

    def remove_ref(self, name: str) -> None:
        self._ref_path(name).unlink(missing_ok=True)

    def refs(self) -> list[Ref]:
        found = (self._read_ref(path) for path in self._refs.glob("*.json"))
        return sorted((ref for ref in found if ref), key=lambda ref: ref.name)

    # records of complete images

    def _record_path(self, digest: str) -> Path:
        return self._records / f"{check_digest(digest).removeprefix('sha256:')}.json"

    def record(self, digest: str) -> ImageRecord | None:
        """Return the record of a complete image; it says nothing about damage since."""
        return _read(self._record_path(digest), _record)

    def set_record(self, record: ImageRecord) -> None:
        if self.record(record.digest) != record:
            reached("image.before_record")
            disk.write_file(self._record_path(record.digest), json.dumps(asdict(record)).encode())

    def remove_record(self, digest: str) -> None:
        self._record_path(digest).unlink(missing_ok=True)

    def records(self) -> list[ImageRecord]:
        found = (_read(path, _record) for path in sorted(self._records.glob("*.json")))
        return [record for record in found if record]
