"""Keep what could not be read, as it was found, sealed like all that the journal writes.

``agent/tasks/journal.py`` puts it here. It is evidence for people, decides nothing, and goes
with what it is of: a record's with its task, the others with a stack that may be in them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import zlib
from typing import TYPE_CHECKING

from agent.sealing import is_sealed
from specs.kit.disk import make_folder, write_file

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from agent.sealing import NodeSeal

log = logging.getLogger(__name__)

UNREAD_KEPT = 50  # files; the oldest go


class UnreadFiles:
    """The folder of what could not be read; a file's name begins with the task it is of."""

    def __init__(self, folder: Path, seal: NodeSeal) -> None:
        self._folder = folder
        self._seal = seal
        make_folder(folder)

    def keep(self, path: Path, task: str = "") -> None:
        """Keep a copy; a folder in a file's place is moved here."""
        name = task or path.name
        try:
            if path.is_dir():
                path.rename(self._folder / f"{name}-{os.urandom(4).hex()}")
                return
            data = path.read_bytes()
            kept = self._folder / f"{name}-{zlib.crc32(data):08x}"
            if not kept.exists():
                write_file(kept, self._sealed(data))
            files = sorted(self._folder.iterdir(), key=lambda file: file.stat().st_mtime)
            for old in files[:-UNREAD_KEPT]:
                if old.is_file():
                    old.unlink()
        except OSError as error:
            log.warning("what cannot be read cannot be kept", extra={"why": str(error)})

    def seal_all(self) -> None:
        """Seal what an earlier version kept in the clear."""
        for path in self._files():
            with contextlib.suppress(OSError):
                if path.is_file() and not is_sealed(data := path.read_bytes()):
                    write_file(path, self._sealed(data))

    def forget(self, task: str) -> None:
        """Delete what there is of one task."""
        for path in self._files():
            if _of(path) == task:
                _remove(path)

    def forget_all_but(self, tasks: Container[str]) -> None:
        """Delete everything that is not of one of these tasks."""
        for path in self._files():
            if _of(path) not in tasks:
                _remove(path)

    def _files(self) -> list[Path]:
        try:
            return sorted(self._folder.iterdir())
        except OSError:
            return []

    def _sealed(self, data: bytes) -> bytes:
        return data if is_sealed(data) else self._seal.seal(data)


def _of(path: Path) -> str:
    return path.name.rpartition("-")[0]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()
