"""Volumes that are mounts: shares of a server and memory, mounted while a task has them.

One mount for each volume and its options below the run directory, and beside it a file for each
task that has it: the last one to go takes the mount along. Both are of the run directory, so a
reboot leaves neither. What a volume is, says ``specs.shares``; a share is mounted by a child that
can be killed, because a server that does not answer holds up whoever asks.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

from agent.errors import Later, Refusal
from agent.linux import calls as kernel
from agent.linux import mounts
from specs.kit.errnos import in_words

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from specs.shares import Share

ANSWERS: Final = 20.0  # seconds a server may take
_FLAGS: Final = {
    "ro": kernel.MS_RDONLY,
    "noexec": kernel.MS_NOEXEC,
    "sync": 16,
    "dirsync": 128,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
}
# A volume is data: nothing in it is a device, or makes root of who runs it.
_ALWAYS: Final = kernel.MS_NOSUID | kernel.MS_NODEV
_CHILD: Final = """
import ctypes, json, os, sys
source, target, kind, flags, data = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
done = libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(),
                  ctypes.c_ulong(flags), os.fsencode(data))
sys.exit(ctypes.get_errno() if done else 0)
"""
# What trying again does not help: the kernel, or the words of the file.
_FOR_GOOD: Final = frozenset({errno.ENODEV, errno.EINVAL, errno.ENOTBLK, errno.EPERM})


class MountedVolumes:
    """The mounts below one folder. Blocking; callers choose the thread."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder.resolve()
        self._locks: dict[str, threading.Lock] = {}

    def take(self, task: str, name: str, share: Share, fill: Callable[[Path], object]) -> Path:
        """Return the volume's directory, mounted for a task; a fresh empty one is filled.

        Raises Refusal and Later.
        """
        key = _key(name, share)
        place = self._folder / key
        data, users = place / "data", place / "users"
        with self._lock(key):
            users.mkdir(parents=True, exist_ok=True, mode=0o700)
            data.mkdir(exist_ok=True)
            (users / task).touch()
            if mounts.is_mounted(str(data)):
                return data
            try:
                _mount(name, share, data)
                if "ro" not in share.flags and not any(data.iterdir()):
                    fill(data)
            except OSError as error:
                self._drop(place, task)
                raise Later(f"cannot fill volume {name}: {in_words(error)}") from None
            except (Refusal, Later):
                self._drop(place, task)
                raise
        return data

    def release(self, task: str) -> None:
        """Give up what a task had; what nobody has any more is unmounted."""
        for place in self._places():
            if (place / "users" / task).exists():
                with self._lock(place.name):
                    self._drop(place, task)

    def tasks(self) -> set[str]:
        """Return the tasks that have anything."""
        return {user.name for user in self._folder.glob("*/users/*")}

    def of_server(self, task: str) -> bool:
        """Say whether a task has a share: letting go may take as long as its server."""
        return any(
            not place.name.startswith("tmpfs-") and (place / "users" / task).exists()
            for place in self._places()
        )

    def _places(self) -> list[Path]:
        """Return what is mounted; nothing when somebody emptied /run, where a mount would stay."""
        try:
            return list(self._folder.iterdir())
        except FileNotFoundError:
            return []

    def _drop(self, place: Path, task: str) -> None:
        users, data = place / "users", place / "data"
        with contextlib.suppress(FileNotFoundError):
            if any(user.name != task for user in users.iterdir()):
                (users / task).unlink()
                return
            while mounts.is_mounted(str(data)):
                # At once, also where its server is dead; the kernel frees it with its last user.
                kernel.unmount(str(data), kernel.MNT_DETACH | kernel.UMOUNT_NOFOLLOW)
            # The user's file goes last: an agent that is killed here finds the mount by it.
            data.rmdir()
            (users / task).unlink(missing_ok=True)
            users.rmdir()
            place.rmdir()

    def _lock(self, key: str) -> threading.Lock:
        return self._locks.setdefault(key, threading.Lock())


def _key(name: str, share: Share) -> str:
    told = json.dumps([name, share.source, share.flags, share.data])
    return f"{share.kind}-{hashlib.sha256(told.encode()).hexdigest()[:32]}"


def _mount(name: str, share: Share, target: Path) -> None:
    flags = _ALWAYS
    for word in share.flags:
        flags |= _FLAGS[word]
    data = ",".join(key + (f"={value}" if value else "") for key, value in _data(name, share))
    try:
        if share.network:
            _by_child(share.source, str(target), share.kind, flags, data)
        else:
            kernel.mount(share.source, str(target), share.kind, flags, data)
    except OSError as error:
        raise _failed(name, share, error) from None


def _by_child(source: str, target: str, kind: str, flags: int, data: str) -> None:
    asked = json.dumps([source, target, kind, flags, data])
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CHILD],
            input=asked,
            text=True,
            capture_output=True,
            timeout=ANSWERS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
    if done.returncode:
        number = done.returncode if done.returncode > 0 else errno.EINTR
        raise OSError(number, os.strerror(number))


def _data(name: str, share: Share) -> tuple[tuple[str, str], ...]:
    """Return the options with the server's address: the kernel looks up no names."""
    if not share.network:
        return share.data
    try:
        found = socket.getaddrinfo(share.host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Later(
            f"volume {name}: this node does not find {share.host}: {in_words(error)}"
        ) from None
    key = "addr" if share.kind in ("nfs", "nfs4") else "ip"
    rest = tuple(pair for pair in share.data if pair[0] not in ("addr", "ip"))
    return ((key, str(found[0][4][0])), *rest)


def _failed(name: str, share: Share, error: OSError) -> Refusal | Later:
    """Return the kernel's refusal in words, with what helps."""
    said = f"cannot mount {share.kind} {share.source} for volume {name}: {in_words(error)}"
    match error.errno:
        case errno.ENODEV:
            package = "cifs-utils" if share.kind in ("cifs", "smb3") else "nfs-common"
            hint = f"this node's kernel has no {share.kind}: modprobe {share.kind}, or {package}"
        case errno.EINVAL:
            hint = "the kernel does not take these options: look at o: in the file"
        case errno.EACCES | errno.EPERM:
            hint = f"{share.host or 'the kernel'} does not let this node: look at its exports"
        case errno.ENOENT | errno.ENXIO:
            hint = f"{share.host} has no such share: look at device:"
        case errno.ETIMEDOUT | errno.EHOSTUNREACH | errno.ECONNREFUSED | errno.ENETUNREACH:
            hint = f"{share.host} does not answer this node: is it on, and its firewall open"
        case _:
            hint = "dmesg on the node may say more"
    kind = Refusal if error.errno in _FOR_GOOD else Later
    return kind(f"{said}; {hint}")
