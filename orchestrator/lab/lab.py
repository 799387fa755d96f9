"""A whole lab: hosts, the bridge between them, faults; made, found again and taken down.

Called by ``cli.py`` and by tests. ``down`` works from the name alone (see ``layout.py``), so it
also clears what is left of a lab whose ``up`` was killed at any instant.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lab import cgroups, faults
from orchestrator.lab.host import LabHost, run_program
from orchestrator.lab.layout import (
    CGROUP,
    DISKS,
    GATEWAY,
    NAME,
    PREFIX6,
    SUBNET6,
    HostAddress,
    LabError,
    Layout,
    addresses,
    base,
)
from specs.kit.disk import remove_tree, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOCK_TIMEOUT = 60.0


class Lab:
    """The hosts of one lab."""

    def __init__(self, layout: Layout, record: dict[str, Any]) -> None:
        self.layout = layout
        self.name = layout.name
        self.hosts = {a["host"]: LabHost(layout, HostAddress(**a)) for a in record["hosts"]}
        self._drops = {faults.Drop(**d) for d in record["drops"]}
        self.owner: str = record["owner"]

    # ---- making and finding -----------------------------------------------------------------

    @classmethod
    def up(cls, name: str, nodes: int = 3, *, client: bool = True, owner: int | None = None) -> Lab:
        """Make a lab; on failure nothing of it stays. ``owner``: its end makes the lab stale."""
        if not 1 <= nodes <= 150:
            raise LabError(f"{nodes} nodes: a lab has 1 to 150")
        if os.geteuid() != 0:
            raise LabError("a lab needs root: namespaces, mounts and control groups are made")
        layout = Layout.of(name)
        with _locked(layout):
            if _exists(layout):
                raise LabError(
                    f"lab {name} exists; take it down first: corral lab down --name {name}"
                )
            try:
                return cls._make(layout, addresses(nodes, client=client), owner)
            except BaseException:
                _clear(layout)
                raise

    @classmethod
    def _make(cls, layout: Layout, hosts: list[HostAddress], owner: int | None) -> Lab:
        layout.root.mkdir(parents=True, exist_ok=True)
        _make_below_shared(layout.disks)
        run_program(
            [
                "mount",
                "-t",
                "tmpfs",
                "-o",
                "mode=700",
                "--make-private",
                "corral-lab",
                str(layout.root),
            ]
        )
        run_program(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(layout.key)]
        )
        record = {"hosts": [vars(a) for a in hosts], "drops": [], "owner": _identity(owner)}
        lab = cls(layout, record)
        lab._make_switch()
        lab._save()
        lab._each(lambda host: host.prepare(hosts))
        lab._each(LabHost.boot)
        return lab

    @classmethod
    def open(cls, name: str) -> Lab:
        """Return a lab that stands."""
        layout = Layout.of(name)
        try:
            return cls(layout, json.loads(layout.record.read_text()))
        except (OSError, ValueError) as error:
            state = (
                "is half made; corral lab down clears it" if _exists(layout) else "does not exist"
            )
            raise LabError(f"lab {name} {state}") from error

    def down(self) -> None:
        """Take everything away."""
        down(self.name)

    def host(self, name: str) -> LabHost:
        """Return a host by name."""
        try:
            return self.hosts[name]
        except KeyError:
            raise LabError(
                f"lab {self.name} has no host {name!r}; it has {', '.join(self.hosts)}"
            ) from None

    @property
    def nodes(self) -> list[LabHost]:
        """The hosts meant for the cluster: all but the client."""
        return [h for h in self.hosts.values() if h.name != "client"]

    @property
    def client(self) -> LabHost:
        return self.host("client")

    # ---- faults -----------------------------------------------------------------------------

    @property
    def drops(self) -> set[faults.Drop]:
        return set(self._drops)

    def cut(self, host: str, peer: str = "", *, one_way: bool = False) -> None:
        """Lose every frame of ``host``, or only those between it and ``peer``."""
        self.host(host), self.host(peer or host)
        self._apply(self._drops | faults.cut(host, peer, one_way=one_way))

    def drop(self, drops: set[faults.Drop]) -> None:
        """Lose these frames too."""
        for host in {name for drop in drops for name in (drop.source, drop.target) if name}:
            self.host(host)
        self._apply(self._drops | drops)

    def lose(self, host: str, percent: int) -> None:
        """Lose ``percent`` of a host's frames in both directions."""
        name = self.host(host).name
        self._apply(self._drops | {faults.Drop(name, "", percent), faults.Drop("", name, percent)})

    def heal(self, host: str) -> None:
        """End the host's network faults."""
        self.host(host)
        self._apply({d for d in self._drops if not d.about(host)})

    def power_off(self, host: str) -> None:
        """Take the power from a host."""
        self.host(host).power_off()

    def power_on(self, host: str) -> None:
        """Boot a host that is off."""
        self.host(host).boot()

    def _apply(self, drops: set[faults.Drop]) -> None:
        run_program(
            ["nsenter", f"--net={self.layout.switch}", "nft", "-f", "-"], faults.table(drops)
        )
        self._drops = drops
        self._save()

    # ---- parts ------------------------------------------------------------------------------

    def _make_switch(self) -> None:
        """Make the bridge in a network namespace that is held by a file."""
        self.layout.switch.touch()
        run_program(["unshare", f"--net={self.layout.switch}", "true"])
        run_program(
            ["nsenter", f"--net={self.layout.switch}", "ip", "-batch", "-"],
            "link set lo up\n"
            "link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n"
            f"address add {GATEWAY}/24 dev br0\n"
            f"address add {SUBNET6}:fe/{PREFIX6} dev br0 nodad\n"
            "link set br0 up\n",
        )

    def _each(self, action: Callable[[LabHost], None]) -> None:
        with ThreadPoolExecutor(max_workers=4) as pool:
            for future in [pool.submit(action, host) for host in self.hosts.values()]:
                future.result()

    def _save(self) -> None:
        record = {
            "hosts": [vars(h.address) for h in self.hosts.values()],
            "drops": [vars(d) for d in sorted(self._drops)],
            "owner": self.owner if hasattr(self, "owner") else "",
        }
        text = json.dumps(record).encode()
        write_file(self.layout.record, text, durable=False, mode=0o644)


def names() -> list[str]:
    """Return every lab there is, half-made ones too."""
    found: set[str] = set()
    for parent in (base(), DISKS, *cgroups.directories(CGROUP)):
        with suppress(FileNotFoundError):  # went with the last lab
            found |= {p.name for p in parent.iterdir() if p.is_dir()}
    return sorted(n for n in found if NAME.fullmatch(n))


def down(name: str) -> bool:
    """Take a lab down, also a half-made one; return whether there was anything."""
    layout = Layout.of(name)
    if not _exists(layout):
        return False
    with _locked(layout):
        _clear(layout)
    return True


def down_stale() -> list[str]:
    """Take down the labs whose owning process has ended; return their names."""
    stale = []
    for name in names():
        try:
            owner = Lab.open(name).owner
        except LabError:
            continue
        pid = owner.split(" ")[0]
        if owner and _identity(int(pid)) != owner and down(name):
            stale.append(name)
    return stale


def _identity(pid: int | None) -> str:
    """Return a process's pid and start time, which no other process ever has."""
    if pid is None:
        return ""
    try:
        return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return f"{pid} ended"


def _exists(layout: Layout) -> bool:
    return (
        layout.root.exists() or layout.disks.exists() or bool(cgroups.directories(layout.cgroup()))
    )


def _clear(layout: Layout) -> None:
    """Remove all of a lab, whatever state it is in; go on after errors."""
    errors: list[Exception] = []
    steps: tuple[Callable[[], None], ...] = (
        lambda: cgroups.kill(layout.cgroup()),
        lambda: cgroups.remove(layout.cgroup()),
        lambda: _unmount(layout.root),
        lambda: remove_tree(layout.root),
        lambda: remove_tree(layout.disks),
        cgroups.remove_if_empty,
    )
    for step in steps:
        try:
            step()
        except (OSError, LabError, subprocess.SubprocessError) as error:
            errors.append(error)
    with suppress(OSError):
        DISKS.rmdir()
    if errors:
        raise LabError(f"lab {layout.name} is not all gone: {'; '.join(map(str, errors))}")


def _make_below_shared(directory: Path) -> None:
    """Make a lab's directory although the end of another lab may take the parent away."""
    while not directory.is_dir():
        with suppress(FileNotFoundError):
            directory.mkdir(parents=True, exist_ok=True)


def _unmount(root: Path) -> None:
    while os.path.ismount(root):
        run_program(["umount", "--recursive", "--lazy", str(root)])


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """Hold the lab's lock; the file goes with the last holder."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        _make_below_shared(layout.lock.parent)
        try:
            descriptor = os.open(layout.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # the end of another lab took the directory away
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LabError(f"lab {layout.name} is being changed by another process") from None
            time.sleep(0.05)
        os.close(descriptor)
    try:
        yield
    finally:
        layout.lock.unlink(missing_ok=True)
        os.close(descriptor)
        with suppress(OSError):
            layout.lock.parent.rmdir()
