"""Contents of an archive's files, written where the file is: whole ones, and those with holes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from specs.kit.tarstream import TarEntry


def write_all(fd: int, piece: memoryview) -> None:
    """Write all of a piece. Raises OSError."""
    while piece:
        piece = piece[os.write(fd, piece) :]


def write_sparse(entry: TarEntry, fd: int, pieces: Iterable[memoryview]) -> None:
    """Write a file of which the archive has only what is not a hole. Raises OSError."""
    os.ftruncate(fd, entry.real_size)
    fragments = iter(entry.sparse or ())
    offset = left = 0
    for whole in pieces:
        piece = whole
        while piece:
            while not left:
                offset, left = next(fragments)
            part = piece[:left]
            os.lseek(fd, offset, os.SEEK_SET)
            write_all(fd, part)
            offset, left, piece = offset + len(part), left - len(part), piece[len(part) :]
