"""The child that enters a container to read or write files there: `corral cp`.

``python -m agent.copyjail JSON``; agent.copying starts it. Before it looks at any path it is in
the container's mount namespace (of a task that does not run: in one of its own with the task's
root and volumes), and that is all it can reach: no link of the container leads to the node's
files. Nothing is imported after that, so no code of the container ever runs here. Paths are
resolved by openat2 without magic links: /proc of a container that sees the node's processes is
no way out either.

Reading: one JSON line on stdout, then the archive. Writing: the archive on stdin, one JSON line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import stat
import sys
from typing import Any, Final, NoReturn

from agent.linux import calls as kernel
from specs.kit.copyrules import CopyRefused, Source, Spot, land, land_stream, named
from specs.kit.errnos import in_words
from specs.kit.tarpacking import Packer, TooDeep, descriptors
from specs.kit.tarplacing import Placer, shown
from specs.kit.tarstream import BadArchive, TarStream
from specs.kit.tarsyncing import SyncPlacer

# chown, dac_override, dac_read_search, fowner, fsetid, mknod, setfcap
_CAPABILITIES: Final = frozenset({0, 1, 2, 3, 4, 27, 31})
# proc, sysfs, cgroup, cgroup2, devpts, mqueue, securityfs, debugfs, tracefs, bpf, configfs
_UNREAL: Final = frozenset(
    {0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x19800202}
    | {0x73636673, 0x64626720, 0x74726163, 0xCAFE4A11, 0x62656570}
)
_LINKS: Final = 40  # as many as the kernel follows
_MEMORY: Final = 1 << 30
_HANDLE: Final = os.O_PATH | os.O_NOFOLLOW


class Missing(CopyRefused):
    """There is nothing of that name."""


def enter(asked: dict[str, Any]) -> int:
    """Leave the node behind; return a handle of the container's root."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != asked["parent"]:
        sys.exit(1)  # the agent died before the line above
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # nobody in there looks into this process
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if "namespace" in asked:
        kernel.setns(asked["namespace"], kernel.CLONE_NEWNS)
        os.chdir("/")
    else:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.place_mount(asked["root"], asked["point"])
        kernel.mount("none", asked["point"], None, kernel.MS_PRIVATE)  # a copy of a shared one
        _mount_volumes(asked["point"], asked["mounts"])
        kernel.pivot_into(asked["point"])
    sys.meta_path.clear()  # whatever would be imported now would come from the container
    os.umask(0)
    for which, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, _MEMORY)):
        resource.setrlimit(which, (value, value))
    kernel.keep_capabilities(_CAPABILITIES)
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _mount_volumes(point: str, mounts: list[tuple[str, str, bool]]) -> None:
    root = os.open(point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for source, target, read_only in mounts:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # gone meanwhile
            folder = not source or stat.S_ISDIR(os.stat(source).st_mode)
            fd = _target(root, target, folder=folder)
            place = f"/proc/self/fd/{fd}"
            if source:
                kernel.mount(source, place, None, kernel.MS_BIND | kernel.MS_REC)
            else:
                kernel.mount("none", place, "tmpfs", 0, "size=4k")
            os.close(fd)
            if read_only:
                fd = kernel.open_inside(root, target, os.O_PATH)
                flags = kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY
                kernel.mount("none", f"/proc/self/fd/{fd}", None, flags)
                os.close(fd)
    os.close(root)


def _target(root: int, target: str, *, folder: bool) -> int:
    """Return a handle of a mount's place inside the root, made as the runtime would."""
    try:
        return kernel.open_inside(root, target, os.O_PATH)
    except FileNotFoundError:
        pass
    *above, last = [part for part in target.split("/") if part not in ("", ".", "..")]
    here = "/"
    for part in [*above, last] if folder else above:
        parent = kernel.open_inside(root, here, os.O_PATH | os.O_DIRECTORY)
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, 0o755, dir_fd=parent)
        os.close(parent)
        here = f"{here}{part}/"
    if not folder:
        parent = kernel.open_inside(root, here, os.O_PATH | os.O_DIRECTORY)
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(last, flags, 0o644, dir_fd=parent))
        os.close(parent)
    return kernel.open_inside(root, target, os.O_PATH)


# Paths inside, absolute or from "/" on, as the user wrote them.


def _find(root: int, path: bytes, *, follow: bool) -> int:
    """Return a handle of what is there. Raises FileNotFoundError and other OSError."""
    flags = os.O_PATH if follow else _HANDLE
    return kernel.open_inside(root, os.fsdecode(path) or "/", flags)


def _final(root: int, path: bytes) -> bytes:
    """Return the path with its last part not a link: where writing to it would write."""
    path = path.rstrip(b"/") or b"/"
    for _ in range(_LINKS):
        try:
            handle = _find(root, path, follow=False)
        except FileNotFoundError:
            return path
        try:
            if not stat.S_ISLNK(os.fstat(handle).st_mode):
                return path
            link = os.fsencode(os.readlink("", dir_fd=handle))
        finally:
            os.close(handle)
        parent = path.rpartition(b"/")[0]
        path = (link if link.startswith(b"/") else parent + b"/" + link).rstrip(b"/") or b"/"
    raise CopyRefused(f"{shown(path)}: a symbolic link in it leads round in a circle")


def find(root: int, asked: dict[str, Any]) -> tuple[int, bytes, bool]:
    """Return a handle of what is to be read, its name in the archive, and if it is a folder."""
    path = asked["path"].encode("utf-8", "surrogateescape")
    name, contents, slash = named(path)
    try:
        handle = _find(root, path, follow=asked["follow"] or contents or slash)
    except FileNotFoundError:
        raise Missing(f"there is no {shown(path)} in the container") from None
    info = os.fstat(handle)
    folder = stat.S_ISDIR(info.st_mode)
    if (contents or slash) and not folder:
        raise CopyRefused(f"{shown(path)} is not a folder")
    if not stat.S_ISLNK(info.st_mode) and unreal(handle):
        raise CopyRefused(
            f"{shown(path)} is made up by the kernel while it is read: corral exec SERVICE cat"
        )
    return handle, name, folder


def _all(piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(1, view) :]


def take(root: int, own: int, asked: dict[str, Any]) -> dict[str, int]:
    """Put the archive on stdin where it belongs; return what came of it."""
    if asked.get("sync"):
        return _put(SyncPlacer(_made(root, asked["path"]), own=own))
    asked_path = asked["path"].encode("utf-8", "surrogateescape")
    _, nameless, slash = named(asked_path)
    path = asked_path if nameless else _final(root, asked_path)
    spot = _spot(root, path, slash=slash)
    if asked.get("source") is None:
        landing = land_stream(spot)
    else:
        source = Source(
            asked["source"].encode("utf-8", "surrogateescape"),
            directory=asked["directory"],
            contents=asked["contents"],
        )
        landing = land(source, spot, name=named(path)[0])
    base = path if landing.inside else path.rpartition(b"/")[0]
    try:
        folder = kernel.open_inside(root, os.fsdecode(base) or "/", os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(f"there is no folder {shown(base)} in the container") from None
    if unreal(folder):
        raise CopyRefused(f"{shown(base)} is made up by the kernel; nothing is stored there")
    return _put(Placer(folder, landing, own=own, owners=True, powers=True))


def _made(root: int, path: str) -> int:
    """Return a handle of the folder, made where it is missing: a watch's target."""
    folder = _target(root, path, folder=True)
    if not stat.S_ISDIR(os.fstat(folder).st_mode):
        raise CopyRefused(f"{shown(os.fsencode(path))} is not a folder")
    if unreal(folder):
        raise CopyRefused(f"{shown(os.fsencode(path))} is made up by the kernel")
    return folder


def _put(placer: Placer) -> dict[str, int]:
    placer.place(TarStream(lambda: os.read(0, 1 << 17)))
    while os.read(0, 1 << 17):
        pass  # padding at the end, so that who writes is not told of a broken pipe
    return {"files": placer.files, "bytes": placer.bytes, "left_out": placer.left_out}


def _spot(root: int, path: bytes, *, slash: bool) -> Spot:
    try:
        handle = _find(root, path, follow=True)
    except FileNotFoundError:
        return Spot(slash=slash)
    mode = os.fstat(handle).st_mode
    os.close(handle)
    folder = stat.S_ISDIR(mode)
    if not folder and not stat.S_ISREG(mode):
        raise CopyRefused(
            f"{shown(path)} is neither a file nor a folder, and would be replaced by what comes"
        )
    return Spot(directory=folder, file=not folder, slash=slash)


def unreal(handle: int) -> bool:
    """Say whether the kernel makes up what is in this folder or file."""
    return kernel.filesystem_type(handle) in _UNREAL


def answer(**fields: Any) -> None:
    """Write one line of JSON."""
    _all(json.dumps(fields).encode() + b"\n")


def explain(error: Exception) -> dict[str, str]:
    """Return what went wrong, as the agent's server tells it on."""
    match error:
        case Missing():
            return {"error": str(error), "kind": "missing"}
        case CopyRefused() | BadArchive():
            return {"error": str(error), "kind": "refused"}
        case TooDeep() | RecursionError() | MemoryError():
            return {"error": "there are folders in folders beyond all bounds", "kind": "refused"}
        case OSError():
            name = error.filename if error.filename is not None else b""
            where = shown(os.fsencode(name)) if isinstance(name, str | bytes) else ""
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
            kind = "space" if full else "refused"
            words = in_words(error)
            return {"error": f"{where}: {words}" if where and not full else words, "kind": kind}
        case _:
            return {"error": f"{type(error).__name__}: {error}", "kind": "bug"}


def main(asked: dict[str, Any]) -> NoReturn:
    own = descriptors()
    archive = None
    try:
        root = enter(asked)
        if asked["write"]:
            answer(**take(root, own, asked))
        else:
            handle, name, folder = find(root, asked)
            answer(directory=folder)
            archive = Packer(_all, own=own, unreal=unreal)
            archive.pack(handle, name)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent gets words
        # Behind the beginning of an archive they would be taken for files: it is only cut.
        if archive is None:
            with contextlib.suppress(OSError):
                answer(**explain(error))
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
