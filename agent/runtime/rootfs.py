"""Look into a task's root file system without being led out of it.

An image is hostile: any path in it may be a symlink to somewhere on the node. All
lookups here resolve *inside* the root (openat2, RESOLVE_IN_ROOT) and never touch
magic links. The container is not running when these are called.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from agent.errors import Refusal, of_disk
from agent.linux.calls import open_inside
from agent.runtime.bundle import NodeDevice, User
from specs.kit.errnos import in_words
from specs.names import is_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.vocabulary import BoundMount
    from specs.stack import Device

_FILE_MAX = 1 << 20
_LINKS = 40  # as many as the kernel follows


def read_inside(root: int, path: str) -> str:
    """Return a small text file; empty when it is not there or not a regular file."""
    try:
        fd = open_inside(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return ""
        return file.read(_FILE_MAX).decode(errors="replace")


def check(root: Path, *, cwd: str, mounts: Sequence[BoundMount]) -> str:
    """Refuse a root the runtime could be led out of; return ``cwd`` as it resolves inside.

    A missing working directory is made, as Docker does.
    """
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in ("dev", "proc", "sys"):
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(info.st_mode):
                raise Refusal(f"the image's /{name} is not a directory; such an image is not run")
        sources = {os.path.normpath(mount.target): mount.source for mount in mounts}
        for mount in mounts:
            _resolve(fd, mount.target)  # refuses a way through a file, or links without end
            _check_target(root, mount.target, sources)
        return _enter(fd, cwd)
    finally:
        os.close(fd)


def _check_target(root: Path, target: str, sources: Mapping[str, str]) -> None:
    """Refuse a mount target that leads to /proc, /sys or /dev through a link."""
    place = landing(root, target, sources)
    first = PurePosixPath(place).parts[1:2]
    asked = PurePosixPath(target).parts[1:2]
    if first != asked and first in (("proc",), ("sys",), ("dev",)):
        raise Refusal(f"mount target {target} leads to {place} through a symlink")


def landing(root: Path, target: str, sources: Mapping[str, str]) -> str:
    """Return where in the container ``target`` is when its other mounts are in place.

    Walked by hand, because what is not there yet (all below /proc) is what links lead to, and
    because a link may be in a volume. ``sources``: mounted place -> directory on the node.
    """
    own = os.path.normpath(target)
    sources = {place: source for place, source in sources.items() if place != own}
    todo = [part for part in target.split("/") if part not in ("", ".")]
    done: list[str] = []
    for _ in range(_LINKS):
        here = _walk(root, todo, done, sources)
        if here is None:
            return "/" + "/".join(done)
        if here.startswith("/"):
            done.clear()
        todo[:0] = [part for part in here.split("/") if part not in ("", ".")]
    raise Refusal(f"mount target {target} leads through too many symlinks")


def _walk(root: Path, todo: list[str], done: list[str], sources: Mapping[str, str]) -> str | None:
    """Go on to the next link and return where it leads; None at the end."""
    while todo:
        part = todo.pop(0)
        if part == "..":
            done[-1:] = []
            continue
        link = _link(root, [*done, part], sources)
        if link is not None:
            return link
        done.append(part)
    return None


def _link(root: Path, parts: list[str], sources: Mapping[str, str]) -> str | None:
    """Return where the link at a place of the container leads; None where there is none."""
    if "/" + "/".join(parts) in sources:
        return None  # covered by a mount
    base, rest = str(root), parts
    for length in range(len(parts) - 1, 0, -1):
        source = sources.get("/" + "/".join(parts[:length]))
        if source is not None:
            if not source.startswith("/"):
                return None  # a new tmpfs is empty
            base, rest = source, parts[length:]
            break
    try:
        top = os.open(base, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # ``parts`` holds no link before its last, so nothing leads out; and none is followed.
        found = open_inside(top, "/".join(rest), os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    finally:
        os.close(top)
    try:
        return os.readlink("", dir_fd=found) if stat.S_ISLNK(os.fstat(found).st_mode) else None
    finally:
        os.close(found)


def _resolve(root: int, path: str) -> str | None:
    """Return where ``path`` is inside the root; None when it does not exist."""
    try:
        fd = open_inside(root, path, os.O_PATH)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise of_disk(error, f"{path} in the image cannot be used: {in_words(error)}") from None
    try:
        base = str(Path(f"/proc/self/fd/{root}").readlink())
        place = str(Path(f"/proc/self/fd/{fd}").readlink())
    finally:
        os.close(fd)
    return "/" + os.path.relpath(place, base) if place != base else "/"


def _enter(root: int, cwd: str) -> str:
    path = os.path.normpath("/" + cwd.lstrip("/"))
    place = _resolve(root, path)
    if place is None:
        _make(root, path)
        place = _resolve(root, path) or path
    # /proc/self/fd/N as a working directory is how a container gets hold of the node's files.
    if PurePosixPath(place).parts[1:2] == ("proc",) or path.startswith("/proc/"):
        raise Refusal(f"working_dir {cwd} is inside /proc; that is not allowed")
    return path


def _make(root: int, path: str) -> None:
    """Make the missing directories of ``path``, one by one, each inside the root."""
    here = ""
    for part in PurePosixPath(path).parts[1:]:
        try:
            parent = open_inside(root, here or "/", os.O_PATH | os.O_DIRECTORY)
            try:
                Path(f"/proc/self/fd/{parent}", part).mkdir(mode=0o755, exist_ok=True)
            finally:
                os.close(parent)
        except OSError as error:
            raise of_disk(error, f"working_dir {path} cannot be made: {in_words(error)}") from None
        here = f"{here}/{part}"


def resolve_user(root: Path, user: str, extra: Iterable[str] = ()) -> User:
    """Resolve ``user[:group]`` and group_add against the image's passwd and group files."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        passwd = _table(read_inside(fd, "etc/passwd"), 7)
        group = _table(read_inside(fd, "etc/group"), 4)
    finally:
        os.close(fd)
    return find_user(passwd, group, user, tuple(extra))


def _table(text: str, width: int) -> list[list[str]]:
    rows = [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]
    return [row for row in rows if len(row) >= width]


def find_user(
    passwd: list[list[str]], group: list[list[str]], user: str, extra: tuple[str, ...]
) -> User:
    """Apply Docker's rules: names must exist, numbers need not; group defaults to the user's."""
    name, colon, wanted = (user or "0").partition(":")
    row = next((r for r in passwd if r[0] == name), None) or next(
        (r for r in passwd if r[2] == name), None
    )
    if row is not None:
        uid, gid, home, login = _id(row[2], "user"), _id(row[3], "group"), row[5] or "/", row[0]
    elif is_number(name):
        uid, gid, home, login = _id(name, "user"), 0, "/", ""
    else:
        raise Refusal(f"user {name!r} is not in the image's /etc/passwd")
    groups: list[int] = []
    if colon and wanted:
        gid = _group(group, wanted)
    elif login:
        groups = [_id(r[2], "group") for r in group if login in r[3].split(",")]
    groups += [_group(group, one) for one in extra]
    unique = tuple(dict.fromkeys(g for g in groups if g != gid))
    return User(uid, gid, unique, home)


def _group(group: list[list[str]], wanted: str) -> int:
    row = next((r for r in group if r[0] == wanted), None)
    if row is not None:
        return _id(row[2], "group")
    if is_number(wanted):
        return _id(wanted, "group")
    raise Refusal(f"group {wanted!r} is not in the image's /etc/group")


def _id(text: str, what: str) -> int:
    if not is_number(text) or int(text) > 2**31 - 1:
        raise Refusal(f"{what} id {text!r} is not a number from 0 to 2147483647")
    return int(text)


def node_devices(devices: Iterable[Device]) -> list[NodeDevice]:
    """Return the node's device files a task asked for; a directory stands for all below it."""
    found: list[NodeDevice] = []
    for device in devices:
        try:
            info = Path(device.source).stat()
        except OSError as error:
            raise Refusal(f"device {device.source}: {in_words(error)} on this node") from None
        if stat.S_ISDIR(info.st_mode):
            for folder, _, names in os.walk(device.source):
                for name in sorted(names):
                    path = str(Path(folder, name))
                    below = os.path.relpath(path, device.source)
                    one = _device(path, str(Path(device.target, below)), device.permissions)
                    if one is not None:
                        found.append(one)
            continue
        one = _device(device.source, device.target, device.permissions)
        if one is None:
            raise Refusal(f"device {device.source} is not a device file on this node")
        found.append(one)
    return found


def _device(path: str, target: str, access: str) -> NodeDevice | None:
    try:
        info = Path(path).stat()
    except OSError:
        return None
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
    if not kind:
        return None
    return NodeDevice(
        path=target,
        kind=kind,
        major=os.major(info.st_rdev),
        minor=os.minor(info.st_rdev),
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        access=access,
    )
