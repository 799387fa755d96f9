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
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lab import cgroups, faults, killing, links
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
SMALLEST_DISK = 64  # MiB
ROUTER = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv4.conf.br0.send_redirects=0",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.br0.rp_filter=0",
)


class Lab:
    """The hosts of one lab."""

    def __init__(self, layout: Layout, record: dict[str, Any]) -> None:
        self.layout = layout
        self.name = layout.name
        self.hosts = {a["host"]: LabHost(layout, HostAddress(**a)) for a in record["hosts"]}
        self._faults = faults.recorded(record)
        self.owner: str = record["owner"]

    # ---- making and finding -----------------------------------------------------------------

    @classmethod
    def up(
        cls,
        name: str,
        nodes: int = 3,
        *,
        client: bool = True,
        owner: int | None = None,
        disk: int = 0,
    ) -> Lab:
        """Make a lab; on failure nothing of it stays. ``owner``: its end makes the lab stale.

        ``disk``: MiB of a disk of its own for each node; 0 = a folder on the machine's.
        """
        if disk and disk < SMALLEST_DISK:
            raise LabError(f"a disk of {disk} MiB: use at least {SMALLEST_DISK}")
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
                return cls._make(layout, addresses(nodes, client=client), owner, disk)
            except BaseException:
                _clear(layout)
                raise

    @classmethod
    def _make(cls, layout: Layout, hosts: list[HostAddress], owner: int | None, disk: int) -> Lab:
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
        record = {"hosts": [vars(a) for a in hosts], **faults.record(()), "owner": _identity(owner)}
        lab = cls(layout, record)
        lab._make_switch()
        lab._save()
        if disk:
            for host in lab.nodes:
                host.make_disk(disk)
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
    def inflicted(self) -> set[faults.Fault]:
        """What is wrong with the lab on purpose, as recorded."""
        return set(self._faults)

    @property
    def drops(self) -> set[faults.Drop]:
        return {fault for fault in self._faults if isinstance(fault, faults.Drop)}

    def cut(self, host: str, peer: str = "", *, one_way: bool = False) -> None:
        """Lose every frame of ``host``, or only those between it and ``peer``."""
        self.host(host), self.host(peer or host)
        self._apply(self._faults | faults.cut(host, peer, one_way=one_way))

    def drop(self, drops: set[faults.Drop]) -> None:
        """Lose these frames too."""
        for host in {name for drop in drops for name in (drop.source, drop.target) if name}:
            self.host(host)
        self._apply(self._faults | drops)

    def lose(self, host: str, percent: int, peer: str = "", *, one_way: bool = False) -> None:
        """Lose ``percent`` of a host's frames, or of those between it and ``peer``."""
        self.host(host), self.host(peer or host)
        self._apply(self._faults | faults.lose(host, percent, peer, one_way=one_way))

    def slow(self, host: str, rate: int = 1000, queue: int = 400) -> None:
        """Have a host's link carry ``rate`` kbit/s each way; frames wait ``queue`` ms at most."""
        self._instead(faults.Slow(self.host(host).name, rate, queue))

    def small_mtu(self, host: str, mtu: int = 1300, *, silent: bool = False) -> None:
        """Have a host's path carry packets of ``mtu`` bytes; ``silent``: larger ones vanish."""
        self._instead(faults.SmallMtu(self.host(host).name, mtu, silent))

    def wrong_clock(self, host: str, seconds: int) -> None:
        """Have a host's clock be wrong from its next power-on; where it is already, from now."""
        self._instead(faults.WrongClock(self.host(host).name, seconds))

    def fill_disk(self, host: str) -> None:
        """Fill a host's own disk to the last block. Raises LabError: it has none of its own."""
        disk = self.host(host).disk
        if not os.path.ismount(disk):
            raise LabError(f"{host} has no disk of its own to fill: corral lab up --disk MIB")
        self._apply(self._faults | {faults.FullDisk(host)})

    def kill(self, host: str, what: str, word: str = "") -> int:
        """SIGKILL a daemon, a container's monitor or its first process; return how many."""
        return killing.kill(what, word, cgroups.processes(self.host(host).cgroup))

    def heal(self, host: str) -> None:
        """End the host's faults, but for power and frost."""
        self.host(host)
        self._apply({fault for fault in self._faults if not fault.about(host)})

    def power_off(self, host: str) -> None:
        """Take the power from a host."""
        self.host(host).power_off()

    def power_on(self, host: str) -> None:
        """Boot a host that is off."""
        self.host(host).boot()

    def _instead(self, fault: faults.Slow | faults.SmallMtu | faults.WrongClock) -> None:
        """Have this fault, in the place of one of its kind about the same host."""
        kept = {f for f in self._faults if f.kind != fault.kind or not f.about(fault.host)}
        self._apply(kept | {fault})

    def _apply(self, wanted: set[faults.Fault]) -> None:
        """Make it so, then record it; a fault that is half made is recorded, to be healed."""
        gone, new = self._faults - wanted, wanted - self._faults
        self._faults |= new
        self._save()
        self._route(gone, new)
        document = faults.table(
            wanted, [h.address for h in self.hosts.values()], self._bridge_address()
        )
        run_program(["nsenter", f"--net={self.layout.switch}", "nft", "-f", "-"], document)
        changed = gone | new
        for name, host in self.hosts.items():
            pid = host.pid
            links.set_clock(host.dir / "clock", name, wanted)
            shaped = any(isinstance(f, faults.Slow) and f.host == name for f in changed)
            if pid is not None and (shaped or faults.splits(changed)):
                links.shape(self.layout, name, pid, wanted)
            for fault in changed:
                if isinstance(fault, faults.FullDisk) and fault.host == name:
                    host.fill_disk() if fault in new else host.free_disk()
        self._faults = wanted
        self._save()

    def _route(self, gone: set[faults.Fault], new: set[faults.Fault]) -> None:
        """Have the bridge be the router that says "fragmentation needed"."""
        for changed, adds in ((gone, False), (new, True)):
            for fault in changed:
                if not isinstance(fault, faults.SmallMtu) or fault.silent:
                    continue
                both = faults.routes(fault, self.host(fault.host).address)
                for family, lines in zip(("-4", "-6"), both, strict=True):
                    words = ["nsenter", f"--net={self.layout.switch}", "ip", family]
                    for line in lines if adds else faults.undone(lines):
                        with nullcontext() if adds else suppress(LabError):
                            run_program([*words, *line.split()])

    def _bridge_address(self) -> str:
        show = ["nsenter", f"--net={self.layout.switch}", "ip", "-j", "link", "show", "br0"]
        return str(json.loads(run_program(show))[0]["address"])

    # ---- parts ------------------------------------------------------------------------------

    def _make_switch(self) -> None:
        """Make the bridge in a network namespace that is held by a file."""
        self.layout.switch.touch()
        run_program(["unshare", f"--net={self.layout.switch}", "true"])
        run_program(
            ["nsenter", f"--net={self.layout.switch}", "ip", "-batch", "-"],
            "link set lo up\n"
            "link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n"
            # Of its own, so that it stays as ports come and go.
            "link set br0 address 02:77:00:00:00:fe\n"
            f"address add {GATEWAY}/24 dev br0\n"
            f"address add {SUBNET6}:fe/{PREFIX6} dev br0 nodad\n"
            "link set br0 up\n",
        )
        # A router only for what faults send its way: hosts are next to each other.
        run_program(
            ["nsenter", f"--net={self.layout.switch}", "sysctl", "-qw", *ROUTER],
        )

    def _each(self, action: Callable[[LabHost], None]) -> None:
        with ThreadPoolExecutor(max_workers=4) as pool:
            for future in [pool.submit(action, host) for host in self.hosts.values()]:
                future.result()

    def _save(self) -> None:
        record = {
            "hosts": [vars(h.address) for h in self.hosts.values()],
            **faults.record(self._faults),
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
        lambda: _unmount_disks(layout.disks),
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


def _unmount_disks(disks: Path) -> None:
    for disk in sorted(disks.iterdir()) if disks.is_dir() else ():
        _unmount(disk)


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
