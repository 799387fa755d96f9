"""Volumes of this node: named, anonymous, binds, tmpfs, and the files of agent.volumes.secretfs.

Called by the runner before a task is created and after it is gone (agent.tasks.effects.Volumes).
A new volume is filled from the image in a private place and renamed when complete, so it
is either there with all its content or not there. What a container wrote (links, deep
trees) is hostile input here: paths inside images and volumes are resolved by openat2 and
never leave them. It never touches what a bind mount points to, beyond creating the path.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import hashlib
import logging
import os
import re
import secrets
import stat
import subprocess
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, Self, TypeVar

from agent.errors import Later, Refusal
from agent.linux import calls as kernel
from agent.vocabulary import BoundMount
from agent.volumes.anonymous import AnonymousVolumes
from agent.volumes.binds import BindSources
from agent.volumes.secretfs import SecretFs
from specs import names
from specs.kit import disk
from specs.kit.errnos import in_words
from specs.stack import Mount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from agent.vocabulary import ImageConfig
    from specs.paths import PathState
    from specs.wire import Assignment, Content

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_TASK: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,127}")
_PROPAGATION: Final = frozenset(
    {"private", "rprivate", "shared", "rshared", "slave", "rslave"},
)
_TMPFS_MODE: Final = 0o1777
_COPY_SECONDS: Final = 600
# Volumes hold data: what a container puts there is no device and no way to become root
# for others that mount it.
_DATA: Final = ("rbind", "rprivate", "nosuid", "nodev")


def _none(_slot: str) -> bool:
    return False


class VolumeStore:
    """The volumes below one state directory."""

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._named = state_dir / "volumes"
        self._anonymous = state_dir / "anonymous"
        self._subpaths = run_dir / "subpaths"
        for path in (self._named, self._anonymous):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._subpaths.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._unnamed = AnonymousVolumes(self._anonymous)
        self._binds = BindSources(state_dir / "binds.json")
        self._files = SecretFs(run_dir)
        self._threads = ThreadPoolExecutor(4, "volumes")
        self._locks: weakref.WeakValueDictionary[Path, asyncio.Lock] = weakref.WeakValueDictionary()
        self._clean()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End the threads; volumes and mounts stay."""
        self._threads.shutdown()

    def _clean(self) -> None:
        """Remove volumes that were never finished or were being deleted."""
        for parent in (self._named, self._anonymous):
            for path in parent.glob(".new-*"):
                try:
                    disk.remove_tree(path)
                except (OSError, subprocess.CalledProcessError) as error:
                    log.warning(
                        "a leftover cannot be removed",
                        extra={"path": str(path), "error": str(error)},
                    )

    # what the runner asks

    async def prepare(
        self,
        assignment: Assignment,
        image: ImageConfig,
        root: Path,
        contents: Mapping[str, Content],
        owner: tuple[int, int],
    ) -> tuple[BoundMount, ...]:
        """Make every source of the task's mounts exist and return them in mount order."""
        _check_task(assignment.id)
        spec = assignment.spec
        mounts = []
        wanted = _all_mounts(spec.mounts, image.volumes)
        places = [mount.target for mount in wanted]
        places += [file.target for file in (*spec.secrets, *spec.configs)]
        places.append(spec.working_dir or image.working_dir or "/")
        for number, mount in enumerate(wanted):
            mounts.append(await self._prepare(assignment, mount, number, root, places))
        mounts += await self._call(
            self._files.place, assignment.id, spec.secrets, spec.configs, contents, owner
        )
        # A mount below another must come after it; equal depth keeps the file's order.
        return tuple(sorted(mounts, key=lambda mount: len(Path(mount.target).parts)))

    async def enter(self, assignment: Assignment) -> None:
        """Find the subpaths of volumes that a run mounts. Raises Refusal where one is missing."""
        _check_task(assignment.id)
        for number, mount in enumerate(assignment.spec.mounts):
            if mount.type == "volume" and mount.subpath:
                data = self._data(assignment, mount)
                await self._call(self._subpath, assignment.id, number, data, mount.subpath)

    async def take(self, task: str, slot: str) -> None:
        """Give a task that is being prepared the anonymous volumes its slot has."""
        _check_task(task)
        await self._call(self._unnamed.take, task, slot)

    async def claim(self, task: str, slot: str) -> None:
        """Make the anonymous volumes of a task the slot's: its first run begins."""
        _check_task(task)
        await self._call(self._unnamed.claim, task, slot)

    def owns(self, task: str) -> bool:
        """Say whether the task has anonymous volumes."""
        return self._unnamed.owns(task)

    async def release(self, task: str, kept: Callable[[str], bool] = _none) -> None:
        """Remove what belongs to the task alone; its anonymous volumes stay where ``kept``."""
        _check_task(task)
        await self._call(self._release, task, kept)

    async def sweep(self, kept: Callable[[str], bool]) -> None:
        """Remove the anonymous volumes of slots that are not wanted any more."""
        await self._call(self._unnamed.sweep, kept)

    async def remove(self, name: str) -> None:
        """Delete a named volume and its data; unknown names are fine."""
        path = self._named / _check_name(name)
        async with self._lock(path):
            await self._call(disk.take_away, path)

    async def list(self) -> list[str]:
        """Return the names of the volumes that exist."""
        return sorted(path.name for path in self._named.iterdir() if path.name[0] != ".")

    async def look(self, sources: Sequence[str]) -> dict[str, PathState]:
        """Say of paths of the node whether they are there, and whether corral made them."""
        return await self._call(self._binds.look, sources)

    async def adopt(self, tasks: set[str], kept: Callable[[str], bool] = _none) -> None:
        """After a restart: remove what tasks that are no more had for themselves."""
        for task in await self._call(self._owners):
            if task not in tasks:
                await self._call(self._release, task, kept)
        await self._call(self._unnamed.sweep, kept)

    # one mount

    async def _prepare(
        self,
        assignment: Assignment,
        mount: Mount,
        number: int,
        root: Path,
        places: Sequence[str],
    ) -> BoundMount:
        _check_target(mount.target)
        if mount.type == "tmpfs":
            return _tmpfs(mount)
        read_only = ("ro",) if mount.read_only else ()
        if mount.type == "bind":
            source = await self._call(self._binds.source, mount, assignment.elsewhere)
            propagation = _propagation(mount.propagation)
            below = "bind" if mount.recursive == "disabled" else "rbind"
            deep = ("rro",) if read_only and mount.recursive == "readonly" else ()
            options = (below, propagation, *read_only, *deep)
            return BoundMount(source, mount.target, "bind", options)
        source = str(await self._volume(assignment, mount, root))
        if mount.subpath:
            # Who makes it may be what the task waits for: it is looked up when its run begins.
            source = str(self._subpaths / assignment.id / str(number))
            if any(_below(place, mount.target) for place in places):
                # Links in it decide where that lands, which is looked at now.
                data = self._data(assignment, mount)
                await self._call(self._subpath, assignment.id, number, data, mount.subpath)
        return BoundMount(source, mount.target, "bind", _DATA + read_only)

    def _data(self, assignment: Assignment, mount: Mount) -> Path:
        """Return the data directory of a named or anonymous volume."""
        if mount.source is None:
            home = self._unnamed.home(assignment.id)
            return home / hashlib.sha256(mount.target.encode()).hexdigest()[:32] / "_data"
        name = assignment.volumes.get(mount.source)
        if name is None:
            raise Refusal(f"volume {mount.source!r} has no name on this node")
        return self._named / _check_name(name) / "_data"

    async def _volume(self, assignment: Assignment, mount: Mount, root: Path) -> Path:
        """Return the data directory of a volume, made when missing."""
        data = self._data(assignment, mount)
        path = data.parent
        if not data.is_dir():
            async with self._lock(path):
                if not data.is_dir():
                    origin = None if mount.nocopy or mount.subpath else mount.target
                    await self._call(self._create, path, root, origin)
        return data

    def _create(self, path: Path, root: Path, origin: str | None) -> None:
        """Make a volume, filled from the image's directory ``origin``, all at once."""
        new = path.parent / f".new-{secrets.token_hex(8)}"
        data = new / "_data"
        try:
            new.mkdir(mode=0o701)
            data.mkdir(mode=0o755)
            data.chmod(0o755)
            if origin is not None and _fill(data, root, origin):
                with _opened(data) as fd:
                    kernel.syncfs(fd)
            disk.sync(new)
            if path.exists():  # a removal was interrupted between data and directory
                disk.remove_tree(path)
            new.rename(path)
            disk.sync(path.parent)
        except OSError as error:
            raise Later(f"cannot make volume {path.name}: {in_words(error)}") from None
        finally:
            disk.remove_tree(new)

    def _subpath(self, task: str, number: int, data: Path, subpath: str) -> str:
        """Bind a directory inside a volume to a place that the container cannot exchange."""
        point = self._subpaths / task / str(number)
        point.parent.mkdir(exist_ok=True, mode=0o700)
        with _opened(data) as root:
            try:
                inside = kernel.open_inside(root, subpath, os.O_PATH)
            except OSError as error:
                raise Refusal(
                    f"subpath {subpath!r} of volume {data.parent.name}: {in_words(error)}"
                ) from None
            try:
                if stat.S_ISDIR(os.fstat(inside).st_mode):
                    point.mkdir(exist_ok=True)
                else:
                    point.touch()
                if not _is_mount_point(point):
                    kernel.mount(f"/proc/self/fd/{inside}", str(point), None, kernel.MS_BIND)
            finally:
                os.close(inside)
        return str(point)

    # the end of a task

    def _release(self, task: str, kept: Callable[[str], bool]) -> None:
        self._files.remove(task)
        points = self._subpaths / task
        with contextlib.suppress(FileNotFoundError):
            for point in points.iterdir():
                while _is_mount_point(point):
                    kernel.unmount(str(point), kernel.MNT_DETACH | kernel.UMOUNT_NOFOLLOW)
                if point.is_dir():
                    point.rmdir()
                else:
                    point.unlink()
            points.rmdir()
        self._unnamed.release(task, kept)

    def _owners(self) -> set[str]:
        points = {path.name for path in self._subpaths.iterdir()}
        return self._files.tasks() | points | self._unnamed.tasks()

    def _lock(self, path: Path) -> asyncio.Lock:
        return self._locks.setdefault(path, asyncio.Lock())

    async def _call(self, function: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
        call = functools.partial(function, *arguments, **more)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _all_mounts(mounts: tuple[Mount, ...], volumes: tuple[str, ...]) -> list[Mount]:
    """Return the task's mounts, and an anonymous volume for each of the image's left over."""
    taken = {os.path.normpath(mount.target) for mount in mounts}
    extra = [
        Mount(type="volume", target=target)
        for target in volumes
        if target.startswith("/") and os.path.normpath(target) not in taken | {"/"}
    ]
    return [*mounts, *extra]


def _below(place: str, target: str) -> bool:
    return os.path.normpath(place).startswith(f"{os.path.normpath(target)}/")


def _check_task(task: str) -> None:
    if not _TASK.fullmatch(task):
        raise Refusal(f"{task!r} is not a task id")


def _check_name(name: str) -> str:
    if why := names.NAME.fault(name):
        raise Refusal(f"volume: {why}; {names.NAME.hint}")
    return name


def _check_target(target: str) -> None:
    if why := names.target_fault(target):
        raise Refusal(f"mount target: {why}")


def _propagation(name: str) -> str:
    if name not in _PROPAGATION:
        raise Refusal(f"mount propagation {name!r} is none of {', '.join(sorted(_PROPAGATION))}")
    return name


def _tmpfs(mount: Mount) -> BoundMount:
    mode = _TMPFS_MODE if mount.tmpfs_mode is None else mount.tmpfs_mode
    # An option of the file's comes last: `exec` undoes what every tmpfs has here.
    off = [f"no{flag}" for flag in ("exec", "suid", "dev") if flag not in mount.tmpfs_options]
    options = [*off, *mount.tmpfs_options, f"mode={mode:o}"]
    if mount.tmpfs_size:
        options.append(f"size={mount.tmpfs_size}")
    if mount.read_only:
        options.append("ro")
    return BoundMount("tmpfs", mount.target, "tmpfs", tuple(options))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_mount_point(path: Path) -> bool:
    """Say whether something is mounted here, also of the same file system."""
    try:
        return _mount_id(path) != _mount_id(path.parent)
    except FileNotFoundError:
        return False


def _mount_id(path: Path) -> str:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
            if line.startswith("mnt_id:"):
                return line
        return ""
    finally:
        os.close(fd)


def _fill(data: Path, root: Path, origin: str) -> bool:
    """Copy the image's directory ``origin`` into a new volume; False when it has none."""
    with _opened(root) as base:
        try:
            inside = kernel.open_inside(base, origin.lstrip("/"), os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise
    try:
        # cp -a never follows a link it meets, keeps owners, links, holes and attributes;
        # the start is our open directory, which no link can redirect.
        result = subprocess.run(
            [
                # It must not go on writing when the agent is killed and cleans up anew.
                *("setpriv", "--pdeathsig", "KILL", "cp", "-a", "--reflink=auto"),
                *(f"/proc/self/fd/{inside}/.", f"{data}/"),
            ],
            pass_fds=(inside,),
            capture_output=True,
            timeout=_COPY_SECONDS,
            check=False,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise Later(f"filling a volume took more than {_COPY_SECONDS} s") from None
    finally:
        os.close(inside)
    if result.returncode:
        words = result.stderr.decode(errors="replace").strip().splitlines()
        raise Later(f"cannot fill volume {data.parent.name}: {words[-1] if words else 'cp failed'}")
    return True
