"""What the kernel's error numbers mean to a person: one sentence for each that users meet.

``strerror`` is written for programmers ("Too many levels of symbolic links"); a wait reason says
what is the matter and, where it can, what to do. Standard library only.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from specs.kit.room import measure

_WORDS: Final = {
    errno.ELOOP: "a symbolic link in it leads round in a circle",
    errno.ENOENT: "it is not there",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "something else is already there: a file, or a link that leads nowhere",
    errno.ENOTEMPTY: "the folder is not empty",
    errno.EACCES: "access is denied, to root too: a network share or a protected folder?",
    errno.EPERM: "the node's kernel does not permit it, to root either",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "no space is left on the disk: free some",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "it is larger than the file system takes",
    errno.ENAMETOOLONG: "a name in it is longer than the file system takes",
    errno.EIO: "the disk reports an error: dmesg on the node says more",
    errno.ESTALE: "the network share was lost: mount it again on the node",
    errno.ENOTCONN: "what serves this file system is gone: mount it again on the node",
    errno.ETIMEDOUT: "no answer in time",
    errno.EBUSY: "it is in use",
    errno.ETXTBSY: "it is being written to while it should run",
    errno.E2BIG: "command and environment are longer than the kernel takes",
    errno.ENOEXEC: "it is no program of this machine: another architecture, or no #! line?",
    errno.ENOMEM: "the node has no memory left",
    errno.EAGAIN: "the node has no room for more processes",
    errno.EMFILE: "too many files are open in the agent",
    errno.ENFILE: "too many files are open on the node",
    errno.ENODEV: "the node's kernel has no such device or file system",
    errno.ENXIO: "there is no such device",
    errno.ENOSYS: "the node's kernel does not know how",
    errno.EOPNOTSUPP: "the file system cannot do that",
    errno.EINVAL: "the node's kernel refuses it as it is",
    errno.EXDEV: "it leads out of where it must stay",
}


def in_words(error: OSError) -> str:
    """Return what is the matter, without the path: the caller names it."""
    if error.errno is None:
        return str(error) or type(error).__name__
    usual = os.strerror(error.errno)
    if error.strerror and error.strerror != usual:
        return error.strerror  # words of our own, as of specs.kit.reading
    if error.errno == errno.ENOSPC and _no_inodes(error.filename):
        return "no inode is left on the disk (df -i): delete some files"
    return _WORDS.get(error.errno) or usual.lower()


def _no_inodes(filename: object) -> bool:
    """Say whether it is names, not bytes, that do not fit where a file is or would be."""
    room = measure(Path(filename)) if isinstance(filename, str) else None
    return room is not None and room.files > 0 and not room.free_files
