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
import functools
import hashlib
import logging
import os
import re
import stat
import subprocess
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, Self, TypeAlias, TypeVar

from agent.errors import Later, Refusal, of_disk
from agent.linux import calls as kernel
from agent.vocabulary import BoundMount, all_mounts
from agent.volumes import replacing
from agent.volumes.anonymous import AnonymousVolumes
from agent.volumes.binds import BindSources, propagation_of, tmpfs
from agent.volumes.filling import fill_from
from agent.volumes.looking import Looks
from agent.volumes.mounted import MountedVolumes
from agent.volumes.replacing import opened
from agent.volumes.secretfs import SecretFs
from agent.volumes.shmfs import ShmFs
from specs import names, sent, shares
from specs.kit import disk
from specs.kit.errnos import in_words
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from agent.vocabulary import ImageConfig
    from specs.paths import PathState
    from specs.shares import Share
    from specs.stack import Mount
    from specs.wire import Assignment, Content

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

Places: TypeAlias = list[tuple[str, str, bool]]

_TASK: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,127}")
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
        self._mounted = MountedVolumes(run_dir / "mounted")
        self._binds = BindSources(state_dir / "binds.json")
        self._looks = Looks(self._binds.look)
        self._files = SecretFs(run_dir)
        self._shm = ShmFs(run_dir)
        self._threads = ThreadPoolExecutor(4, "volumes")
        # A server may hold these up, and no others.
        self._slow = ThreadPoolExecutor(2, "shares")
        self._paths = ThreadPoolExecutor(4, "paths")  # of the node: one may be on such a server
        self._locks: weakref.WeakValueDictionary[Path, asyncio.Lock] = weakref.WeakValueDictionary()
        self._clean()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End the threads; volumes and mounts stay."""
        self._threads.shutdown()
        self._slow.shutdown()
        self._paths.shutdown()

    def _clean(self) -> None:
        """Remove volumes that were never finished or were being deleted."""
        for parent in (self._named, self._anonymous):
            for path in (*parent.glob(".new-*"), *replacing.abandoned(parent, time.time())):
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
        if spec.ipc == "shareable":
            mounts.append(await self._call(self._shm.place, assignment.id, spec.shm_size))
        wanted = all_mounts(spec.mounts, image.volumes)
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
        """Find the subpaths of volumes that a run mounts. Raises Refusal where one is missing.

        No volume of the run gets other data meanwhile (:meth:`put`), and none afterwards where
        the caller is one of its ``users`` before it waits for anything else.
        """
        _check_task(assignment.id)
        if assignment.spec.ipc == "shareable":
            await self._call(self._shm.place, assignment.id, assignment.spec.shm_size)
        async with contextlib.AsyncExitStack() as stack:
            for name in sorted(set(assignment.volumes.values())):
                await stack.enter_async_context(self._lock(self._named / name))
            for number, mount in enumerate(assignment.spec.mounts):
                if mount.type == "volume" and mount.subpath and _share(assignment, mount) is None:
                    data = self._data(assignment, mount)
                    await self._call(self._subpath, assignment.id, number, data, mount.subpath)

    async def take(self, task: str, slot: str) -> None:
        """Give a task that is being prepared the anonymous volumes its slot has."""
        _check_task(task)
        await self._call(self._unnamed.take, task, slot)

    async def claim(self, task: str, slot: str, *, fresh: bool = False) -> None:
        """Make the anonymous volumes of a task the slot's: its first run begins."""
        _check_task(task)
        await self._call(self._unnamed.claim, task, slot, fresh=fresh)

    def owns(self, task: str) -> bool:
        """Say whether the task has anonymous volumes."""
        return self._unnamed.owns(task)

    async def present(self, assignment: Assignment, image: ImageConfig, slot: str) -> Places:
        """Return (place on the node, target, read-only) of a task's mounts; empty = not there."""
        return await _in(self._paths, self._present, assignment, image, slot)

    async def release(self, task: str, kept: Callable[[str], bool] = _none) -> None:
        """Remove what belongs to the task alone; its anonymous volumes stay where ``kept``."""
        _check_task(task)
        await self._call(self._release, task, kept)
        await self._unmount(task)

    async def _unmount(self, task: str) -> None:
        slow = await self._call(self._mounted.of_server, task)
        await _in(self._slow if slow else self._threads, self._mounted.release, task)

    async def sweep(self, kept: Callable[[str], bool]) -> None:
        """Remove the anonymous volumes of slots that are not wanted any more."""
        await self._call(self._unnamed.sweep, kept)

    async def remove(self, name: str) -> None:
        """Delete a named volume and its data; unknown names are fine."""
        path = self._named / _check_name(name)
        async with self._lock(path):
            await self._call(disk.take_away, path)

    def held(self) -> tuple[str, ...]:
        """Return the names of the named volumes that are here."""
        return tuple(sorted(path.name for path in self._named.iterdir() if path.name[0] != "."))

    async def open(self, name: str) -> int:
        """Return a descriptor of a named volume's data. Raises FileNotFoundError."""
        path = self._named / _check_name(name) / "_data"
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return await self._call(os.open, path, flags)

    def place_of(self, name: str) -> tuple[Path, asyncio.Lock]:
        """Return where a named volume is, and who holds it meanwhile. Raises Refusal."""
        path = self._named / _check_name(name)
        return path, self._lock(path)

    @contextlib.asynccontextmanager
    async def draft(self) -> AsyncIterator[Path]:
        """Yield an empty volume that nobody knows; what :meth:`put` leaves of it goes."""
        new = await self._call(replacing.begin, self._named)
        try:
            yield new
        finally:
            await asyncio.shield(self._call(replacing.discard, new))

    async def put(
        self, name: str, draft: Path, *, replace: bool, users: Callable[[], Sequence[str]]
    ) -> None:
        """Make a draft the named volume. Raises Refusal where it has data, or ``users``, Later."""
        path = self._named / _check_name(name)
        async with self._lock(path):
            replacing.check_unused(name, users())  # who begins from now on waits in ``enter``
            await self._call(replacing.place, draft, path, replace=replace)

    async def look(self, sources: Sequence[str]) -> dict[str, PathState]:
        """Say of paths of the node whether they are there, and whether corral made them."""
        return await self._looks.ask(sources)

    async def adopt(self, tasks: set[str], kept: Callable[[str], bool] = _none) -> None:
        """After a restart: remove what tasks that are no more had for themselves."""
        for task in await self._call(self._owners):
            if task not in tasks:
                await self.release(task, kept)
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
            return tmpfs(mount)
        read_only = ("ro",) if mount.read_only else ()
        if mount.type == "bind":
            source = await _in(self._paths, self._binds.source, mount, assignment.elsewhere)
            propagation = propagation_of(mount.propagation)
            below = "bind" if mount.recursive == "disabled" else "rbind"
            deep = ("rro",) if read_only and mount.recursive == "readonly" else ()
            bound = (below, propagation, *read_only, *deep)
            return BoundMount(source, mount.target, "bind", bound)
        share = _share(assignment, mount)
        if share is None:
            path = await self._volume(assignment, mount, root)
            options: tuple[str, ...] = _DATA
        else:
            path = await self._mount_of(assignment, mount, share, root)
            read_only = ("ro",) if mount.read_only or "ro" in share.flags else ()
            options = _options(share)
        source = str(path)
        if mount.subpath:
            # Who makes it may be what the task waits for: it is looked up when its run begins.
            source = str(self._subpaths / assignment.id / str(number))
            if share is not None or any(_below(place, mount.target) for place in places):
                # Links in it decide where that lands, which is looked at now.
                pool = self._threads if share is None else self._slow
                await _in(pool, self._subpath, assignment.id, number, path, mount.subpath)
        return BoundMount(source, mount.target, "bind", options + read_only)

    def _data(self, assignment: Assignment, mount: Mount) -> Path:
        """Return the data directory of a named or anonymous volume."""
        if mount.source is None:
            home = self._unnamed.home(assignment.id)
            return home / _hashed(mount.target) / "_data"
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

    def _present(self, assignment: Assignment, image: ImageConfig, slot: str) -> Places:
        found = []
        for mount in all_mounts(assignment.spec.mounts, image.volumes):
            place: Path | None = None
            if mount.type == "bind":
                source = mount.source or ""
                place = None if mount.relative and sent.leaves_tree(source) else Path(source)
            elif mount.type != "tmpfs" and mount.source is None:
                home = self._unnamed.whose(assignment.id, slot)
                place = home and home / _hashed(mount.target) / "_data"
            elif mount.type != "tmpfs" and (name := assignment.volumes.get(mount.source or "")):
                place = self._named / _check_name(name) / "_data"
            # What is not mounted now is covered, so that nothing is written below it. A subpath is
            # not looked for: a link in it could lead anywhere.
            there = place is not None and not mount.subpath and place.exists()
            found.append((str(place) if there else "", mount.target, mount.read_only or not there))
        return sorted(found, key=lambda one: len(Path(one[1]).parts))

    async def _mount_of(
        self, assignment: Assignment, mount: Mount, share: Share, root: Path
    ) -> Path:
        """Return the directory of a volume that is not a folder of ours. Raises Refusal, Later."""
        name = _check_name(assignment.volumes.get(mount.source or "", ""))
        origin = None if mount.nocopy or mount.subpath else mount.target

        def fill(data: Path) -> None:
            if origin is not None:
                fill_from(data, root, origin)

        if share.kind == "bind":
            if assignment.spec.security != "default":
                raise Refusal(f"volume {name} is a path of the node, which the level forbids")
            async with self._lock(self._named / name):
                return await _in(self._paths, _folder_of_node, name, share, fill)
        pool = self._slow if share.network else self._threads
        return await _in(pool, self._mounted.take, assignment.id, name, share, fill)

    def _create(self, path: Path, root: Path, origin: str | None) -> None:
        """Make a volume, filled from the image's directory ``origin``, all at once."""
        replacing.check_not_moved(path)
        new = replacing.begin(path.parent)
        data = new / "_data"
        try:
            if origin is not None and fill_from(data, root, origin):
                with opened(data) as fd:
                    kernel.syncfs(fd)
            disk.sync(new)
            if path.exists():  # a removal was interrupted between data and directory
                disk.remove_tree(path)
            reached("fs.before_volume")
            new.rename(path)
            reached("fs.after_volume")
            disk.sync(path.parent)
        except OSError as error:
            raise Later(f"cannot make volume {path.name}: {in_words(error)}") from None
        finally:
            disk.remove_tree(new)

    def _subpath(self, task: str, number: int, data: Path, subpath: str) -> str:
        """Bind a directory inside a volume to a place that the container cannot exchange."""
        point = self._subpaths / task / str(number)
        point.parent.mkdir(exist_ok=True, mode=0o700)
        with opened(data) as root:
            try:
                inside = kernel.open_inside(root, subpath, os.O_PATH, kernel.RESOLVE_BENEATH)
            except OSError as error:
                said = f"subpath {subpath!r} of volume {data.parent.name}: {in_words(error)}"
                raise of_disk(error, said) from None
            try:
                if _is_mount_point(point) and not os.path.samestat(os.fstat(inside), point.stat()):
                    _unbind(point)  # the volume has other data than at the last run
                if not _is_mount_point(point):
                    if stat.S_ISDIR(os.fstat(inside).st_mode):
                        point.mkdir(exist_ok=True)
                    else:
                        point.touch()
                    kernel.mount(f"/proc/self/fd/{inside}", str(point), None, kernel.MS_BIND)
            finally:
                os.close(inside)
        return str(point)

    # the end of a task

    def _release(self, task: str, kept: Callable[[str], bool]) -> None:
        self._files.remove(task)
        self._shm.remove(task)
        points = self._subpaths / task
        with contextlib.suppress(FileNotFoundError):
            for point in points.iterdir():
                _unbind(point)
            points.rmdir()
        self._unnamed.release(task, kept)

    def _owners(self) -> set[str]:
        points = {path.name for path in self._subpaths.iterdir()}
        files = self._files.tasks() | self._shm.tasks()
        return files | points | self._unnamed.tasks() | self._mounted.tasks()

    def _lock(self, path: Path) -> asyncio.Lock:
        return self._locks.setdefault(path, asyncio.Lock())

    async def _call(self, function: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
        return await _in(self._threads, function, *arguments, **more)


async def _in(
    pool: ThreadPoolExecutor, function: Callable[P, T], *arguments: P.args, **more: P.kwargs
) -> T:
    call = functools.partial(function, *arguments, **more)
    return await asyncio.get_running_loop().run_in_executor(pool, call)


def _below(place: str, target: str) -> bool:
    return os.path.normpath(place).startswith(f"{os.path.normpath(target)}/")


def _hashed(target: str) -> str:
    return hashlib.sha256(target.encode()).hexdigest()[:32]


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


def _share(assignment: Assignment, mount: Mount) -> Share | None:
    """Return what the volume is in place of a folder of ours; None = such a folder."""
    options = assignment.volume_options.get(mount.source or "", {})
    try:
        return shares.read(options)
    except shares.VolumeFault as fault:
        raise Refusal(f"volume {mount.source}: {fault}; {fault.hint}") from None


def _options(share: Share) -> tuple[str, ...]:
    """Return how a container gets the mount: flags of a bind are the container's own mount's."""
    bind = "bind" if share.kind == "bind" and not share.recursive else "rbind"
    own = tuple(flag for flag in share.flags if flag in ("noexec", "noatime", "nodiratime"))
    return (bind, *_DATA[1:], *own)


def _folder_of_node(name: str, share: Share, fill: Callable[[Path], object]) -> Path:
    """Return a folder of the node that is a volume; an empty one is filled from the image."""
    try:
        path = Path(share.source).resolve(strict=True)
        if "ro" not in share.flags and not any(path.iterdir()):
            fill(path)
    except (OSError, RuntimeError) as error:
        said = in_words(error) if isinstance(error, OSError) else "its links lead in a circle"
        raise Refusal(
            f"volume {name}: device {share.source} of this node: {said}; make the folder there, "
            "or leave driver_opts out"
        ) from None
    return path


def _unbind(point: Path) -> None:
    """Remove a place with what is bound to it."""
    while _is_mount_point(point):
        kernel.unmount(str(point), kernel.MNT_DETACH | kernel.UMOUNT_NOFOLLOW)
    if point.is_dir():
        point.rmdir()
    else:
        point.unlink()


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
