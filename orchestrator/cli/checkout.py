"""Which commit a folder is at, read from .git itself: no process, and a few milliseconds at most.

``up`` tells it to the controller, for `corral history`. What cannot be read in time, or by us
(another hash than SHA-1, a split index), is left out: it is a remark, and nothing depends on it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BUDGET = 0.008  # seconds: `up` must not be slower for it
LARGEST = 4 << 20  # bytes of an index, and of a file that is hashed
_NAMES = 24  # folders up to the root


class _Unknown(Exception):
    """It is not known, or not in time."""


def found(directory: str) -> dict[str, Any]:
    """Return ``branch``, ``commit`` and ``dirty`` of the checkout a folder is in, as far as known.

    ``dirty`` is what `git describe --dirty` says: a file that git knows is not as committed.
    """
    until = time.perf_counter() + BUDGET
    try:
        top, git = _git_dir(directory)
        common = _common(git)
        branch, commit = _head(git, common)
    except (OSError, ValueError, _Unknown):
        return {}
    told: dict[str, Any] = {"commit": commit}
    if branch:
        told["branch"] = branch
    with contextlib.suppress(OSError, ValueError, IndexError, _Unknown):
        told["dirty"] = _dirty(top, git, common, commit, until)
    return told


def _bytes(path: str | bytes, most: int) -> bytes:
    """Return what a file begins with; what is none is not waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _Unknown
        return file.read(most)


def _text(path: str, most: int = 65536) -> str:
    return _bytes(path, most).decode("utf-8", "replace")


def _git_dir(directory: str) -> tuple[str, str]:
    """Return the top folder of the checkout and the folder git keeps its own things in."""
    at = os.path.abspath(directory or ".")
    for _ in range(_NAMES):
        place = os.path.join(at, ".git")
        try:
            mode = os.stat(place).st_mode
        except OSError:
            mode = 0
        if stat.S_ISDIR(mode):
            return at, place
        if stat.S_ISREG(mode):  # a worktree or submodule
            word, _, path = _text(place).partition(":")
            if word != "gitdir":
                raise _Unknown
            return at, os.path.join(at, path.strip())
        above = os.path.dirname(at)
        if above == at:
            break
        at = above
    raise _Unknown


def _common(git: str) -> str:
    try:
        return os.path.join(git, _text(os.path.join(git, "commondir")).strip())
    except OSError:
        return git


def _head(git: str, common: str) -> tuple[str, str]:
    """Return branch ("" = none) and commit."""
    head = _text(os.path.join(git, "HEAD")).strip()
    if not head.startswith("ref:"):
        return "", _sha(head)
    ref = head[4:].strip()
    branch = ref.removeprefix("refs/heads/")
    for folder in (git, common):
        try:
            return branch, _sha(_text(os.path.join(folder, ref)).strip())
        except OSError:
            continue
    for line in _text(os.path.join(common, "packed-refs"), LARGEST).splitlines():
        sha, _, name = line.partition(" ")
        if name == ref:
            return branch, _sha(sha)
    raise _Unknown


def _sha(text: str) -> str:
    if len(text) not in (40, 64) or not set(text) <= set("0123456789abcdef"):
        raise _Unknown
    return text


def _dirty(top: str, git: str, common: str, commit: str, until: float) -> bool:
    """Say whether a file that git knows is not as the commit has it. Raises _Unknown."""
    path = os.path.join(git, "index")
    if len(commit) != 40 or os.path.getsize(path) > LARGEST:
        raise _Unknown
    index = _bytes(path, LARGEST)
    version = int.from_bytes(index[4:8], "big")
    if index[:4] != b"DIRC" or version not in (2, 3):
        raise _Unknown
    at, changed = 12, False
    for number in range(int.from_bytes(index[8:12], "big")):
        if number % 32 == 0 and time.perf_counter() > until:
            raise _Unknown
        flags = int.from_bytes(index[at + 60 : at + 62], "big")
        names = at + (64 if flags & 0x4000 else 62)
        end = index.index(b"\0", names)
        if not changed:
            changed = _differs(top, index, at, index[names:end], flags, until)
        at += ((end - at) // 8 + 1) * 8
    return changed or _staged(index, at, common, commit)


def _differs(top: str, index: bytes, at: int, name: bytes, flags: int, until: float) -> bool:
    """Say whether a file is not as its entry has it; one that was only touched is read."""
    if flags & 0x3000:
        return True  # a merge that is not over
    if flags & 0x4000 and index[at + 62] & 0x40:
        raise _Unknown  # a sparse checkout has no such file
    words = [int.from_bytes(index[at + i : at + i + 4], "big") for i in (8, 12, 24, 36)]
    seconds, nanoseconds, mode, size = words
    if mode >> 12 == 0o16:
        return False  # a submodule is its own
    path = os.path.join(os.fsencode(top), name)
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return True
    runs = mode >> 12 == 0o10 and bool(there.st_mode & 0o100) != bool(mode & 0o100)
    kind = stat.S_IFMT(there.st_mode) != mode & 0o170000
    # Git notes no size where a file may have changed in the moment it was looked at.
    if runs or kind or (size and there.st_size & 0xFFFFFFFF != size):
        return True
    if there.st_size == size and there.st_mtime_ns == seconds * 10**9 + nanoseconds:
        return False
    if there.st_size > LARGEST or time.perf_counter() > until:
        raise _Unknown
    from hashlib import sha1  # only where a file was touched

    link = stat.S_ISLNK(there.st_mode)
    data = os.readlink(path) if link else _bytes(path, LARGEST)
    blob = sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return blob.digest() != index[at + 40 : at + 60]


def _staged(index: bytes, at: int, common: str, commit: str) -> bool:
    """Say whether the index has another tree than the commit: by the tree git noted in it."""
    while at + 8 <= len(index) - 20:
        kind = index[at : at + 4]
        size = int.from_bytes(index[at + 4 : at + 8], "big")
        body = index[at + 8 : at + 8 + size]
        if kind == b"link":
            raise _Unknown  # the entries are in another file
        if kind == b"TREE":
            _, _, rest = body.partition(b"\0")  # the root has no name
            count, _, rest = rest.partition(b" ")
            if count.startswith(b"-"):
                return True  # something was staged since
            _, _, rest = rest.partition(b"\n")
            return _tree_of(common, commit) not in ("", rest[:20].hex())
        at += 8 + size
    raise _Unknown


def _tree_of(common: str, commit: str) -> str:
    """Return the tree of a commit that is not packed yet, or ""."""
    import zlib

    try:
        text = zlib.decompress(
            _bytes(os.path.join(common, "objects", commit[:2], commit[2:]), LARGEST)
        )
    except (OSError, zlib.error, _Unknown):
        return ""
    _, _, body = text.partition(b"\0")
    return body[5:45].decode("ascii", "replace") if body.startswith(b"tree ") else ""
