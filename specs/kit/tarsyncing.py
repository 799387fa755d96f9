"""Bring a folder to what somebody else's has become: the writing half of `corral watch`.

As specs.kit.tarplacing, with four laws of its own. An entry of the kind GONE says that nothing is
to be there: it goes with all below it, but what is mounted on its own stays, for it is no copy of
anybody's. What is new belongs to whom it replaces, else to whom its folder belongs: the numbers of
the machine it comes from mean nothing here. What is there in another shape makes room; but a name
that an entry of the kind ALONE gave before is no folder's over there, and no folder makes room for
it: what the folder holds came with the image or was made there, not brought.

What one name cannot have is no reason to leave the others out: all that can be done is done, and
then all that was not is said.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from specs.kit.copyrules import CopyRefused, Landing
from specs.kit.errnos import in_words
from specs.kit.tarplacing import Archive, Placer, shown

if TYPE_CHECKING:
    from specs.kit.tarstream import TarEntry

GONE: Final = b"Z"  # of the letters that tar leaves to others; who does not know it refuses it
ALONE: Final = b"Y"
_DEEPEST: Final = 512
# Not of one name: what has no room now has it later, so whoever asked is to ask again.
_LATER: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_TOLD: Final = 5  # refusals in one answer
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SyncPlacer(Placer):
    """Writes and removes below the folder ``base``; ``own`` as of tarpacking.descriptors()."""

    def __init__(self, base: int, *, own: int) -> None:
        super().__init__(base, Landing(inside=True), own=own, owners=True)
        self._refused: list[str] = []
        self._for_now: OSError | None = None
        self._alone: set[bytes] = set()

    def place(self, stream: Archive) -> None:
        """Do all that can be done. Raises CopyRefused for what was not, BadArchive, OSError.

        An OSError is of what may work when it is asked for again.
        """
        super().place(stream)
        if self._for_now is not None:
            raise self._for_now
        if self._refused:
            more = len(self._refused) - _TOLD
            shown_ = "; ".join(self._refused[:_TOLD])
            raise CopyRefused(f"{shown_}; and {more} more" if more > 0 else shown_)

    def _add(self, entry: TarEntry, stream: Archive) -> None:
        try:
            self._bring(entry, stream)
        except CopyRefused as refused:
            self._refused.append(_about(entry.name, str(refused)))
        except OSError as error:
            if error.errno in _LATER:
                self._for_now = self._for_now or error
            else:
                self._refused.append(f"{shown(entry.name)}: {in_words(error)}")

    def _bring(self, entry: TarEntry, stream: Archive) -> None:
        parts = self._there(entry.name)
        if not parts:
            return
        if entry.kind == ALONE[0]:
            self._alone.add(b"/".join(parts))
            return
        if self._stays(entry, parts):
            raise CopyRefused(f"{shown(entry.name)} is a folder there and stays as it is")
        if entry.kind == GONE[0]:
            self._gone(parts)
            return
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder = self._folder(parts[:-1], make=False)
            self._make_room(entry, folder, parts[-1])
        super()._add(entry, stream)

    def _stays(self, entry: TarEntry, parts: list[bytes]) -> bool:
        """Say whether a folder is there that a single file would take away."""
        if entry.kind == 0x35 or b"/".join(parts) not in self._alone:
            return False
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, CopyRefused):
            folder = self._folder(parts[:-1], make=False)
            there = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            return stat.S_ISDIR(there.st_mode)
        return False

    def _gone(self, parts: list[bytes]) -> None:
        self.files += 1
        try:
            folder = self._folder(parts[:-1], make=False)
        except (FileNotFoundError, CopyRefused):
            return  # not even its folder is there
        remove(folder, parts[-1], own=self._own)

    def _make_room(self, entry: TarEntry, folder: int, name: bytes) -> None:
        """Take away what has the name and is of another kind; who it belonged to is kept."""
        owner = os.fstat(folder)
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode) != (entry.kind == 0x35):
                if stat.S_ISLNK(there.st_mode):
                    raise CopyRefused(f"{shown(name)} is a link there and is no folder")
                remove(folder, name, own=self._own)
            owner = there
        entry.uid, entry.gid = owner.st_uid, owner.st_gid


def _about(name: bytes, why: str) -> str:
    """Return why a name was refused: with the name, where the reason is another one's."""
    what = shown(name.rstrip(b"/"))
    return why if why.startswith((f"{what} ", "the archive ")) else f"{what}: {why}"


def remove(folder: int, name: bytes, *, own: int, depth: int = 0) -> None:
    """Remove what has the name in the folder, and all below. Raises CopyRefused, OSError."""
    if depth > _DEEPEST:
        raise CopyRefused("there are folders in folders beyond all bounds")
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _mounted(name) from None
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
    else:
        return
    inner = os.open(name, _FOLDER, dir_fd=folder)
    try:
        if _mount(inner, own) != _mount(folder, own):
            raise _mounted(name)
        with os.scandir(inner) as entries:
            names = [os.fsencode(entry.name) for entry in entries]
        for each in names:
            remove(inner, each, own=own, depth=depth + 1)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=folder)


def _mounted(name: bytes) -> CopyRefused:
    return CopyRefused(f"{shown(name)} is mounted there on its own and stays")


def _mount(fd: int, own: int) -> bytes:
    """Return which mount a descriptor of this process lies in."""
    notes = os.open(f"../fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=own)
    try:
        lines = os.read(notes, 4096).splitlines()
    finally:
        os.close(notes)
    return next(line for line in lines if line.startswith(b"mnt_id:"))
