"""Control groups of lab hosts, on v1, v2 and hybrid machines.

A host's processes are all under ``corral-lab/LAB/HOST`` in every hierarchy. That is how a lab is
taken down without any record: whoever is in there belongs to it. Called by ``lab.py`` and
``host.py``; never touches a group outside ``corral-lab``.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from orchestrator.lab.layout import CGROUP, LabError

ATTEMPTS = 20
LEAF = "init"  # v2: a group with controllers for its children may hold no process itself


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup hierarchy of the machine. ``options``: as a host mounts it again."""

    mount: Path
    options: str
    v2: bool

    @property
    def whole(self) -> bool:
        """True for the one and only tree of a v2 machine."""
        return self.v2 and self.mount == Path("/sys/fs/cgroup")


_NOT_CONTROLLERS = {"rw", "ro", "clone_children", "nsdelegate", "memory_recursiveprot", "xattr"}


def parse(mountinfo: str) -> list[Hierarchy]:
    """Return the hierarchies in /proc/self/mountinfo, each once."""
    found: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        mount = Path(left.split(" ")[4])
        keep = [
            "none," + word if word.startswith("name=") else word
            for word in options.split(",")
            if word not in _NOT_CONTROLLERS and not word.startswith("release_agent=")
        ]
        text = "" if kind == "cgroup2" else ",".join(keep)
        found.setdefault(f"{kind} {text}", Hierarchy(mount, text, kind == "cgroup2"))
    return list(found.values())


def hierarchies() -> list[Hierarchy]:
    """Return the machine's hierarchies."""
    found = parse(Path("/proc/self/mountinfo").read_text())
    if not found:
        raise LabError("no cgroup hierarchy is mounted on this machine")
    return found


def create(path: str) -> list[Path]:
    """Make ``path`` in every hierarchy and return its directories there."""
    return [_create_in(hierarchy, path) for hierarchy in hierarchies()]


def _create_in(hierarchy: Hierarchy, path: str) -> Path:
    for attempt in range(ATTEMPTS):
        try:
            return _create_once(hierarchy, path)
        except OSError as error:
            # The end of another lab, the only other one, took the common parent away: again.
            if error.errno not in (errno.ENOENT, errno.ENODEV) or attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def _create_once(hierarchy: Hierarchy, path: str) -> Path:
    here = hierarchy.mount
    for part in Path(path).parts:
        if hierarchy.whole:
            _delegate(here)
        here /= part
        here.mkdir(exist_ok=True)
        if not hierarchy.v2:
            _fill_cpuset(here)
    if hierarchy.whole:
        (here / LEAF).mkdir(exist_ok=True)
    return here


def _delegate(group: Path) -> None:
    controllers = (group / "cgroup.controllers").read_text().split()
    for controller in controllers:
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:  # one the machine keeps for itself; hosts do without
            continue


def _fill_cpuset(group: Path) -> None:
    """Give a v1 cpuset its parent's processors: an empty one accepts no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = group / name
        if file.exists() and not file.read_text().strip():
            file.write_text((group.parent / name).read_text())
    inherit = group / "cgroup.clone_children"
    if (group / "cpuset.cpus").exists() and inherit.exists():
        inherit.write_text("1")


def directories(path: str) -> list[Path]:
    """Return where ``path`` exists."""
    assert path.split("/", maxsplit=1)[0] == CGROUP, path
    return [d for h in hierarchies() if (d := h.mount / path).is_dir()]


def processes(path: str) -> set[int]:
    """Return the machine-wide pids of everything under ``path``."""
    found: set[int] = set()
    for directory in directories(path):
        for group, _, _ in os.walk(directory):
            try:
                found.update(map(int, Path(group, "cgroup.procs").read_text().split()))
            except OSError:  # the group went while we looked
                continue
    return found - {0}


def freeze(path: str, *, frozen: bool) -> None:
    """Stop or continue every process under ``path`` at once."""
    for directory in directories(path):
        # A group frozen by itself stays so when its parent thaws.
        groups = [directory] if frozen else [Path(group) for group, _, _ in os.walk(directory)]
        for group in groups:
            v1, v2 = group / "freezer.state", group / "cgroup.freeze"
            if v1.exists():
                v1.write_text("FROZEN" if frozen else "THAWED")
            elif v2.exists():
                v2.write_text("1" if frozen else "0")


def frozen(path: str) -> bool:
    """Tell whether ``freeze`` is in force."""
    return any(
        file.exists() and file.read_text().strip() in ("FROZEN", "1")
        for directory in directories(path)
        for file in (directory / "freezer.state", directory / "cgroup.freeze")
    )


def kill(path: str, *, timeout: float = 60.0) -> None:
    """End every process under ``path`` and wait until none is left."""
    deadline = time.monotonic() + timeout
    freeze(path, frozen=False)  # a v1 group that is frozen keeps even SIGKILL waiting
    while True:
        left = {pid for pid in processes(path) if _alive(pid)}
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise LabError(f"processes of {path} do not end: {sorted(left)}")
        time.sleep(0.005)


def _alive(pid: int) -> bool:
    """Tell whether the process can still do something; a zombie waits for its parent only."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def remove(path: str, *, timeout: float = 60.0) -> None:
    """Delete the empty groups under and including ``path``, in every hierarchy."""
    deadline = time.monotonic() + timeout
    for directory in directories(path):
        while directory.is_dir():
            for group, _, _ in os.walk(directory, topdown=False):
                try:
                    Path(group).rmdir()
                except OSError:
                    continue
            if directory.is_dir():
                if time.monotonic() > deadline:
                    raise LabError(f"control group {directory} cannot be removed")
                time.sleep(0.005)  # the kernel lets go of a dead process's group a moment later


def remove_if_empty() -> None:
    """Delete the common parent of all labs when this was the last one."""
    for directory in directories(CGROUP):
        try:
            directory.rmdir()
        except OSError:
            continue
