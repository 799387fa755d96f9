"""What this machine is and can do: probed at start, sent with the hello.

Everything missing is said in a sentence with what to do about it. Only reads.
"""

from __future__ import annotations

import itertools
import os
import platform
import resource
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agent.linux import sockets
from agent.linux.boot import boot_id
from agent.network.names import DEVICES
from agent.runtime.bundle import NodeTraits
from agent.runtime.capabilities import grantable_capabilities
from agent.runtime.seccomp import machine
from specs import subnets
from specs.kit import programs, versions
from specs.node import NodeFacts
from specs.wire import PROTOCOL

if TYPE_CHECKING:
    from agent.config import AgentConfig

_INITS = ("/usr/bin/tini-static", "/usr/bin/catatonit", "/usr/libexec/podman/catatonit")
_TOOLS = {
    "conmon": "containers cannot be run; install Debian's conmon package",
    "nft": "networks cannot be made; install Debian's nftables package",
    "skopeo": "images cannot be pulled; install Debian's skopeo package",
    "buildah": "images cannot be built here; install Debian's buildah package",
}
_ROUTES = 512  # a router may know a million
_LISTEN, _UDP_UNCONNECTED = "0A", "07"
_TABLES = (
    ("tcp", socket.AF_INET, socket.IPPROTO_TCP),
    ("tcp6", socket.AF_INET6, socket.IPPROTO_TCP),
    ("udp", socket.AF_INET, socket.IPPROTO_UDP),
    ("udp6", socket.AF_INET6, socket.IPPROTO_UDP),
)

Cgroups = Literal["v1", "v2", "hybrid"]


def cgroups_mode() -> Cgroups:
    """Return which cgroup hierarchies this machine has."""
    mounts = _cgroup_mounts()
    if "cgroup" not in mounts.values():
        return "v2"
    return "hybrid" if "cgroup2" in mounts.values() else "v1"


def _cgroup_mounts() -> dict[str, str]:
    found = {}
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="replace") as table:
        for line in table:
            left, _, right = line.partition(" - ")
            kind = right.split(" ", 1)[0]
            if kind in ("cgroup", "cgroup2"):
                found[left.split(" ")[4]] = kind
    return found


def traits(config: AgentConfig, runtime: str, apparmor: str = "") -> NodeTraits:
    """Return what a bundle needs to know of this node."""
    grantable = grantable_capabilities()
    limits = None if "CAP_SYS_RESOURCE" in grantable else _hard_limits()
    return NodeTraits(
        arch=machine(),
        cgroups=cgroups_mode(),
        grantable=grantable,
        runtime=runtime,
        init=next((path for path in _INITS if os.access(path, os.X_OK)), None),
        rlimits=limits,
        cgroup_parent=config.cgroup,
        apparmor=apparmor,
        swap=_counts_swap(),
        cpus=os.cpu_count() or 0,
        all_groups=_all_groups(),
    )


def _counts_swap() -> bool:
    """Say whether cgroups have a limit of memory and swap together."""
    old = Path("/sys/fs/cgroup/memory")
    if old.is_dir():
        return (old / "memory.memsw.limit_in_bytes").exists()
    found = Path("/sys/fs/cgroup").glob("*/memory.swap.max")
    return next(found, None) is not None


def _all_groups() -> bool:
    """Say whether this process's user namespace knows every group; the first one does."""
    try:
        return int(Path("/proc/self/gid_map").read_text().split()[2]) >= 2**31
    except (OSError, IndexError, ValueError):
        return True


def _hard_limits() -> dict[str, int]:
    found = {}
    for name in dir(resource):
        if name.startswith("RLIMIT_"):
            hard = resource.getrlimit(getattr(resource, name))[1]
            if hard != resource.RLIM_INFINITY:
                found[name.removeprefix("RLIMIT_").lower()] = hard
    return found


def own_sockets() -> frozenset[str]:
    """Return inodes of the sockets this process holds (published ports it keeps for services)."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return frozenset(found)


def listening(own: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return ports that local processes other than ours hold, as ``80/tcp``."""
    found: set[tuple[int, str]] = set()
    for name, family, protocol in _TABLES:
        try:
            held = sockets.held(family, protocol)
        except OSError:  # a kernel that cannot be asked so
            held = table_of(Path("/proc/self/net", name))
        found |= {(port, name.removesuffix("6")) for port, inode in held if inode not in own}
    return tuple(f"{port}/{protocol}" for port, protocol in sorted(found))


def table_of(path: Path) -> list[tuple[int, str]]:
    """Return port and inode of the sockets in a table of /proc that anybody may send to."""
    state = _LISTEN if path.name.startswith("tcp") else _UDP_UNCONNECTED
    try:
        lines = [line.split() for line in path.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [
        (int(words[1].rpartition(":")[2], 16), words[9])
        for words in lines
        if len(words) > 9 and words[3] == state
    ]


def addresses() -> tuple[str, ...]:
    """Return the machine's own addresses, loopback aside."""
    found = set()
    try:
        lines = Path("/proc/self/net/fib_trie").read_text().splitlines()
        for before, line in itertools.pairwise(lines):
            if "/32 host LOCAL" in line:
                found.add(before.split()[-1])
        for line in Path("/proc/self/net/if_inet6").read_text().splitlines():
            raw = line.split()[0]
            found.add(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(raw)))
    except OSError:
        pass
    return tuple(sorted(a for a in found if not a.startswith("127.") and a != "::1"))


def routes(table: Path = Path("/proc/self/net/route")) -> tuple[str, ...]:
    """Return the machine's own IPv4 networks and their devices; defaults and ours aside."""
    try:
        known = subnets.routes(table.read_text())
    except OSError:
        return ()
    found = {
        route
        for route in known
        # Ours and those to nowhere are not the machine's own.
        if route.network.prefixlen and not route.whose.startswith(DEVICES) and route.whose != "*"
    }
    widest = sorted(found, key=lambda route: (route.network.prefixlen, route))[:_ROUTES]
    return tuple(f"{network} {device}" for network, device in sorted(widest))


def _memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def probe(
    runtime: str,
    runtime_version: str,
    images: frozenset[str],
    known: tuple[str, ...] = (),
    cramped: str = "",
) -> NodeFacts:
    """Return what this machine is; ``images`` are the digests complete on it.

    ``known`` are warnings of what was found out before; ``cramped``: why no image fits.
    """
    missing = [
        f"{tool} is missing: {why}" for tool, why in _TOOLS.items() if not programs.find(tool)
    ]
    warnings = list(known)
    if not runtime:
        missing.append("crun is missing: containers cannot be run; install Debian's crun package")
    elif runtime != "crun":
        warnings.append("crun is missing; runc is used, which starts containers three times slower")
    numbers = [
        int(part) for part in runtime_version.rsplit(maxsplit=1)[-1].split(".") if part.isdigit()
    ]
    if runtime == "crun" and numbers < [1, 28]:
        warnings.append(
            f"{runtime_version} is older than 1.28, which fixed CVE-2026-47766; "
            "images whose /dev is not a directory are refused instead"
        )
    if not any(os.access(path, os.X_OK) for path in _INITS):
        warnings.append(
            "no static init program: services with init: true are refused; install tini"
        )
    if cgroups_mode() == "hybrid":
        warnings.append("cgroups are hybrid: limits are set in the v1 hierarchies")
    if "CAP_SYS_RESOURCE" not in grantable_capabilities():
        warnings.append("no CAP_SYS_RESOURCE here: ulimits and oom_score_adj are clamped")
    return NodeFacts(
        hostname=socket.gethostname(),
        boot_id=boot_id(),
        arch=machine(),
        kernel=platform.release(),
        cpus=float(len(os.sched_getaffinity(0))),
        memory=_memory(),
        agent_version=versions.installed(),
        build=versions.build_of(Path(__file__).parent),
        python=".".join(map(str, sys.version_info[:3])),
        runtime=runtime_version,
        wire=PROTOCOL,
        cgroups=cgroups_mode(),
        missing=tuple(missing),
        warnings=tuple(warnings),
        images=tuple(sorted(images)),
        cramped=cramped,
        addresses=addresses(),
        listening=listening(own=own_sockets()),
        routes=routes(),
    )
