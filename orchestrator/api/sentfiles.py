"""Keep files that a machine outside the cluster sends, as folders on the controller's own.

To everything else they are files of the machine the command ran on, which is this one then. The
folder is root's alone; what containers get are mounts below it. Nothing that arrives is trusted
with a path: a tree is made anew below a fresh folder, and a link is never gone through.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from orchestrator.api.problems import BadRequest
from specs.api import ApiProblem
from specs.kit import disk
from specs.sent import DIGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from specs.sent import SentEntry, SentTree

KEPT = 7 * 24 * 3600.0  # seconds that what nothing uses is kept for the next time
STALE = 3600.0  # seconds after which a draft is what a kill left


class SentFiles:
    """The chunks and trees below one folder."""

    def __init__(self, folder: Path, *, wall: Callable[[], float]) -> None:
        self.chunks = folder / "chunks"
        self.trees = folder / "trees"
        self._wall = wall

    def missing(self, digests: Iterable[str]) -> tuple[str, ...]:
        """Return the chunks that are not here; those that are count as used now."""
        found = []
        for digest in dict.fromkeys(digests):
            _digest(digest)
            path = self.chunks / digest
            if path.is_file():
                path.touch()
            else:
                found.append(digest)
        return tuple(found)

    def put(self, chunks: dict[str, str]) -> None:
        """Keep chunks. Raises BadRequest where one is not what its digest says."""
        disk.make_folder(self.chunks.parent)
        disk.make_folder(self.chunks)
        for digest, text in chunks.items():
            _digest(digest)
            try:
                data = base64.b64decode(text, validate=True)
            except binascii.Error:
                raise refusal(f"chunk {digest[:12]} is no base64") from None
            if hashlib.sha256(data).hexdigest() != digest:
                raise refusal(f"chunk {digest[:12]} is not what its digest says")
            disk.write_file(self.chunks / digest, data)

    def tree(self, tree: SentTree) -> Path:
        """Return the tree's folder, made now if it is not here. Raises BadRequest."""
        name = hashlib.sha256(tree.model_dump_json().encode()).hexdigest()[:32]
        place = self.trees / name
        if place.is_dir():
            place.touch()
            return place
        _check(tree.entries)
        disk.make_folder(self.trees.parent)
        disk.make_folder(self.trees)
        # A name for each call: two may send the same tree at once.
        draft = self.trees / f"{name}.{os.urandom(8).hex()}.new"
        try:
            draft.mkdir()
            draft.chmod(0o755)  # whatever the umask: containers of any user go through it
            self._fill(draft, tree)
            disk.sync_tree(draft)
            try:
                draft.rename(place)
            except OSError:
                if not place.is_dir():  # else another request made the same one meanwhile
                    raise
            disk.sync(self.trees)
        except FileNotFoundError:
            raise refusal("a chunk of the tree is not here: send it again") from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return place

    def _fill(self, draft: Path, tree: SentTree) -> None:
        for entry in sorted(tree.entries, key=lambda entry: entry.path):
            path = draft / entry.path
            _make_above(path)
            if entry.kind == "folder":
                path.mkdir(exist_ok=True)
            elif entry.kind == "link":
                path.symlink_to(entry.target)
            else:
                with path.open("xb") as file:
                    for digest in entry.chunks:
                        file.write(self._chunk(digest))
        for entry in sorted(tree.entries, key=lambda entry: entry.path, reverse=True):
            if entry.kind != "link":
                (draft / entry.path).chmod(entry.mode)

    def _chunk(self, digest: str) -> bytes:
        """Return a chunk; one that the disk has spoilt is gone then. Raises FileNotFoundError."""
        path = self.chunks / digest
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            path.unlink(missing_ok=True)
            raise FileNotFoundError(digest)
        return data

    def sweep(self, used: frozenset[str]) -> None:
        """Remove what has not been asked for in a week and no spec names."""
        now = self._wall()
        for folder in (self.trees, self.chunks):
            for path in folder.iterdir() if folder.is_dir() else ():
                with suppress(OSError):
                    draft = path.name.startswith(".") or path.name.endswith(".new")
                    limit = now - (STALE if draft else KEPT)
                    if path.stat().st_mtime >= limit or path.name in used:
                        continue
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()


def _make_above(path: Path) -> None:
    if not path.parent.exists():
        _make_above(path.parent)
        path.parent.mkdir()
        path.parent.chmod(0o755)  # whatever the umask


def _digest(text: str) -> None:
    if not re.match(DIGEST, text) or len(text) != 64:
        raise refusal(f"{text[:70]!r} is no SHA-256")


def _check(entries: Iterable[SentEntry]) -> None:
    """Refuse a tree that would leave its folder, or go through a link. Raises BadRequest."""
    kinds: dict[str, str] = {}
    for entry in entries:
        path = PurePosixPath(entry.path)
        plain = str(path) == entry.path and not path.is_absolute() and "\0" not in entry.path
        if not plain or ".." in path.parts or entry.path == ".":
            raise refusal(f"{entry.path[:80]!r} is no path below a folder")
        if entry.path in kinds:
            raise refusal(f"{entry.path[:80]!r} is there twice")
        if entry.kind == "link" and (not entry.target or "\0" in entry.target):
            raise refusal(f"{entry.path[:80]!r} is a link to nowhere")
        for digest in entry.chunks:
            _digest(digest)
        kinds[entry.path] = entry.kind
    for name in kinds:
        for above in PurePosixPath(name).parents:
            if kinds.get(str(above), "folder") != "folder":
                raise refusal(f"{name[:80]!r} is below what is no folder")


def refusal(detail: str) -> BadRequest:
    """Return the answer to what cannot be kept: 422 with the reason."""
    return BadRequest(
        ApiProblem(type="invalid", title="Invalid request", status=422, detail=detail)
    )
