"""Whether a machine can be a node: what is wrong, in words, with the command that helps (pure).

Called by ``join.py`` with what ``probe.py`` read. All errors are found in one go, so that the
operator goes to the machine once.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from specs.kit import room

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.nodes.bootstrap.probe import Machine, Python

OUR_ROUTES = " proto 98 "  # as agent.network marks them; they stay after a forced removal
VXLAN_PORT = 4789
SKEW = 30.0  # seconds between two clocks that logs merged by time still make sense with
DISK = 2 * 1024 * 1024  # KiB below which images will not fit for long

# tool -> package, where it is not the tool's own name; by family of distributions
_UTIL_LINUX = ("nsenter", "unshare", "setsid", "flock", "mount")
_FAMILIES = {  # what iproute2 and the shadow tools are called
    "debian": ("iproute2", "passwd"),
    "fedora": ("iproute", "shadow-utils"),
    "suse": ("iproute2", "shadow"),
    "arch": ("iproute2", "shadow"),
}
_PACKAGES = {
    family: {
        "nft": "nftables",
        "ip": iproute,
        "useradd": shadow,
        "groupadd": shadow,
        **dict.fromkeys(_UTIL_LINUX, "util-linux"),
    }
    for family, (iproute, shadow) in _FAMILIES.items()
}
_INSTALL = {
    "debian": "apt-get install -y",
    "fedora": "dnf install -y",
    "suse": "zypper install -y",
    "arch": "pacman -S --noconfirm",
}


@dataclass(frozen=True)
class Finding:
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Expected:
    """What the controller needs a machine to be."""

    cluster: str
    ranges: tuple[str, ...]
    python: str  # "3.11": the compiled parts of the agent are for this one
    arch: str
    now: float
    glibc: tuple[int, int] | None = None  # None: this controller's own libc is not glibc
    node_ids: frozenset[str] = frozenset()  # members at present
    underlay: str | None = None  # asked for with --underlay-addr
    chosen: Mapping[str, str] = field(default_factory=dict)  # subnet of a file -> its network


@dataclass
class Suitability:
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    python: Python | None = None

    @property
    def ok(self) -> bool:
        return not self.errors


def judge(machine: Machine, expected: Expected, hello: str = "") -> Suitability:
    """Return everything that speaks against, or should be known about, this machine."""
    verdict = Suitability(python=_choose_python(machine, expected))
    verdict.errors += _membership(machine, expected, hello)
    if verdict.errors:
        return verdict  # what a cluster made there is no defect of the machine
    verdict.errors += _platform(machine, expected)
    if verdict.python is None:
        verdict.errors.append(_no_python(machine, expected))
    verdict.errors += _tools(machine)
    verdict.errors += [
        Finding(f"the kernel {machine.get('kernel')} cannot do {text}", "see what it says there")
        for text in machine.all("cannot")
        if not _explained_by_missing_tool(machine, text)
    ]
    verdict.errors += _addresses(machine, expected)
    verdict.errors += _sshd(machine)
    verdict.warnings += _firewalls(machine)
    verdict.warnings += _oddities(machine, expected)
    return verdict


def judge_again(machine: Machine, expected: Expected) -> Suitability:
    """Return what speaks against another version of the agent on a machine that is a node."""
    verdict = Suitability(python=_choose_python(machine, expected))
    verdict.errors += _membership_elsewhere(machine, expected)
    verdict.errors += _platform(machine, expected)
    if verdict.python is None:
        verdict.errors.append(_no_python(machine, expected))
    verdict.errors += _tools(machine)
    return verdict


def _membership_elsewhere(machine: Machine, expected: Expected) -> Iterator[Finding]:
    cluster, _ = member_of(machine)
    if cluster != expected.cluster:
        yield Finding(
            f"this machine is a node of another cluster ({cluster})"
            if cluster
            else "this machine is no node any more",
            "corral node rm --force forgets it",
        )


# ---- membership ---------------------------------------------------------------------------------


def _membership(machine: Machine, expected: Expected, hello: str) -> Iterator[Finding]:
    cluster, node = member_of(machine, hello)
    if cluster == expected.cluster and node in expected.node_ids:
        yield Finding(f"this machine is already a node of this cluster ({node})", "corral node ls")
    elif machine.get("controller"):
        yield Finding(
            "this machine runs a controller of its own"
            + (f" (cluster {cluster})" if cluster else ""),
            "add nodes from there, or end that cluster first: corral down its stacks, then corral"
            " controller stop and remove /var/lib/corral",
        )
    elif cluster and cluster != expected.cluster:
        yield Finding(
            f"this machine is a node of another cluster ({cluster})",
            "take it out there first: corral node rm. If that cluster is gone, run"
            " /opt/corral/uninstall on this machine",
        )
    elif cluster and (stacks := stacks_of(hello)):
        yield Finding(
            f"this machine runs {', '.join(stacks)} for this cluster, which does not know it any"
            " more; to add it would end that",
            _BEFORE_ADDING,
        )
    elif running := machine.all("running"):
        count = "a container" if len(running) == 1 else f"{len(running)} containers"
        yield Finding(
            f"this machine runs {count} for"
            + (" this cluster, which does not know it any more" if cluster else " a cluster")
            + ("" if hello else ", and its agent does not answer")
            + f"; to add it would end {'that' if len(running) == 1 else 'those'}",
            _BEFORE_ADDING,
        )


_BEFORE_ADDING = (
    "where the cluster's state was lost, corral state adopt finds its nodes again; else run"
    " /opt/corral/uninstall on this machine first (named volumes stay)"
)


def stacks_of(hello: str) -> list[str]:
    """Return the stacks that an agent has tasks of, by its greeting."""
    try:
        said = json.loads(hello)
    except ValueError:
        return []
    stacks = said.get("stacks") if isinstance(said, dict) else None
    return sorted(map(str, stacks)) if isinstance(stacks, dict) else []


def member_of(machine: Machine, hello: str = "") -> tuple[str, str]:
    """Return the cluster and node id a machine has, from its agent or from its disk."""
    cluster = node = ""
    for text in (machine.get("member"), hello):
        try:
            said = json.loads(text)
        except ValueError:
            continue
        if isinstance(said, dict):
            stamp = said.get("stamp") if isinstance(said.get("stamp"), dict) else said
            cluster = str((stamp or {}).get("cluster") or cluster)
            node = str(said.get("node") or node)
    return cluster, node


# ---- what it is ---------------------------------------------------------------------------------


def _platform(machine: Machine, expected: Expected) -> Iterator[Finding]:
    if machine.get("system") != "Linux":
        yield Finding(f"this machine runs {machine.get('system') or 'no known system'}, not Linux")
        return
    if machine.get("arch") != expected.arch:
        yield Finding(
            f"this machine is {machine.get('arch')}, the controller {expected.arch}: it has no"
            " agent for it",
            "run the controller on a machine of that architecture, or use another node",
        )
    glibc = glibc_version(machine.get("libc"))
    if expected.glibc is not None and glibc is None:
        yield Finding(
            "this machine's C library is not glibc, which the agent's compiled parts need",
            "use a distribution with glibc (Debian, Ubuntu, Fedora, SUSE, Arch ...)",
        )
    elif expected.glibc is not None and glibc is not None and glibc < expected.glibc:
        yield Finding(
            f"this machine has glibc {glibc[0]}.{glibc[1]}; the agent's compiled parts need"
            f" {expected.glibc[0]}.{expected.glibc[1]}",
            "use a newer release of the distribution",
        )


def glibc_version(text: str) -> tuple[int, int] | None:
    """Return the version in getconf's ``glibc 2.36``."""
    try:
        major, minor = text.removeprefix("glibc ").split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        return None


def _choose_python(machine: Machine, expected: Expected) -> Python | None:
    fitting = [
        p
        for p in machine.pythons
        if p.minor == expected.python and p.implementation == "cpython" and not p.lacks
    ]
    # The distribution's own before one that somebody built and may remove.
    return min(fitting, key=lambda p: not p.path.startswith("/usr/bin/"), default=None)


def _no_python(machine: Machine, expected: Expected) -> Finding:
    needed = f"Python {expected.python}"
    for python in machine.pythons:
        if python.minor == expected.python and python.lacks:
            return Finding(
                f"{python.path} lacks the standard library's {python.lacks}",
                _install(machine, [f"python{expected.python}"]),
            )
    found = sorted({".".join(map(str, p.version)) for p in machine.pythons})
    said = f"it has {', '.join(found)}" if found else "it has none"
    return Finding(
        f"this machine needs {needed}, the controller's own version; {said}",
        _install(machine, [f"python{expected.python}"])
        + ", or run the controller with a Python this machine has",
    )


def _tools(machine: Machine) -> Iterator[Finding]:
    have = set(machine.all("tool"))
    needed = ("conmon", "nft", "ip", "tar", "gzip", "skopeo", "useradd", "groupadd", "setsid",
              "nsenter", "unshare", "mount", "flock")  # fmt: skip
    missing = [tool for tool in needed if tool not in have]
    if not have & {"crun", "runc"}:
        missing.append("crun")
    if missing:
        yield Finding(f"missing on this machine: {', '.join(missing)}", _install(machine, missing))


def _install(machine: Machine, tools: list[str]) -> str:
    names = (machine.get("os"), *machine.get("like").split())
    aliases = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora", "opensuse": "suse"}
    family = next((aliases.get(n, n) for n in names if aliases.get(n, n) in _INSTALL), "")
    packages = sorted({_PACKAGES.get(family, {}).get(tool, tool) for tool in tools})
    if not family:
        return f"install there: {' '.join(packages)}"
    return f"on the machine: {_INSTALL[family]} {' '.join(packages)}"


def _explained_by_missing_tool(machine: Machine, text: str) -> bool:
    needs = {"network": "unshare", "veth": "ip", "VXLAN": "ip", "nftables": "nft"}
    tools = set(machine.all("tool"))
    return (
        "unshare" not in tools or needs.get(text.split(" ", maxsplit=1)[0], "unshare") not in tools
    )


# ---- its network --------------------------------------------------------------------------------


def _addresses(machine: Machine, expected: Expected) -> Iterator[Finding]:
    ranges = [ipaddress.IPv4Network(one) for one in expected.ranges]
    chosen = {ipaddress.IPv4Network(one): name for one, name in expected.chosen.items()}
    for network, device in routes(machine):
        foreign = network.prefixlen > 0 and not device.startswith("cr")
        covered = next((own for own in chosen if foreign and network.overlaps(own)), None)
        if covered is not None:
            yield Finding(
                f"this machine routes {network} to {device}, which overlaps {covered}, the subnet"
                f" of network {chosen[covered]}",
                "one of the two could not be reached from there. Remove that route, or give the"
                " network another subnet in its file",
            )
        hit = next((own for own in ranges if network.overlaps(own)), None)
        if hit is not None and network.prefixlen > 0 and not device.startswith("cr"):
            yield Finding(
                f"this machine routes {network} to {device}, which overlaps the cluster's range"
                f" {hit}",
                "containers there could not be reached. Remove that route, or make the cluster"
                " with another range",
            )
    for line in machine.all("vxlan"):
        if f"dstport {VXLAN_PORT}" in line and " cr-" not in line:
            yield Finding(
                f"another VXLAN device uses UDP port {VXLAN_PORT}: {line.split(':')[1].strip()}",
                "it belongs to another overlay (Docker Swarm, flannel ...), which has to go first",
            )
    own = addresses(machine)
    if expected.underlay is not None and expected.underlay not in own:
        yield Finding(
            f"--underlay-addr {expected.underlay} is not an address of this machine",
            f"it has {', '.join(own) or 'none'}",
        )


def routes(machine: Machine) -> Iterator[tuple[ipaddress.IPv4Network, str]]:
    """Yield the machine's IPv4 routes and their devices, but not those of an agent."""
    for line in machine.all("route"):
        if OUR_ROUTES in line:
            continue
        words = line.split()
        kind = words[0] in ("local", "broadcast", "blackhole", "unreachable", "multicast", "throw")
        target = words[1] if kind and len(words) > 1 else words[0]
        device = words[words.index("dev") + 1] if "dev" in words[:-1] else words[0]
        try:
            yield ipaddress.IPv4Network("0.0.0.0/0" if target == "default" else target), device
        except ValueError:
            continue


def addresses(machine: Machine) -> list[str]:
    """Return the machine's own addresses other machines may reach."""
    found = [text.split()[-1].split("/")[0] for text in machine.all("address")]
    return [a for a in found if not ipaddress.ip_address(a).is_loopback]


def _sshd(machine: Machine) -> Iterator[Finding]:
    said = {line.split(" ")[0]: line.partition(" ")[2] for line in machine.all("sshd")}
    where = "in /etc/ssh/sshd_config on the machine, then reload sshd"
    if said.get("disableforwarding") == "yes" or said.get("allowstreamlocalforwarding") in (
        "no",
        "remote",
    ):
        yield Finding(
            "sshd there does not forward unix sockets, which is how the agent is reached",
            f"set AllowStreamLocalForwarding local and DisableForwarding no {where}",
        )
    if said.get("pubkeyauthentication") == "no":
        yield Finding("sshd there accepts no keys", f"set PubkeyAuthentication yes {where}")
    if "allowusers" in said and "corral" not in said["allowusers"].split():
        yield Finding(
            f"sshd there lets only {said['allowusers']} in", f"add corral to AllowUsers {where}"
        )
    if "allowgroups" in said and "corral" not in said["allowgroups"].split():
        yield Finding(
            f"sshd there lets only groups {said['allowgroups']} in",
            f"add corral to AllowGroups {where}",
        )
    files = said.get("authorizedkeysfile", ".ssh/authorized_keys").split()
    if ".ssh/authorized_keys" not in files:
        yield Finding(
            f"sshd there reads keys from {' '.join(files)} only",
            f"add .ssh/authorized_keys to AuthorizedKeysFile {where}",
        )


def _firewalls(machine: Machine) -> Iterator[Finding]:
    tools = set(machine.all("firewall"))
    drops = foreign_drops(machine)
    if "firewalld" in tools:
        yield Finding(
            "firewalld is active: it may drop what other nodes and published ports send",
            f"firewall-cmd --permanent --add-port={VXLAN_PORT}/udp; firewall-cmd --permanent"
            " --zone=trusted --add-interface=cr-vxlan; firewall-cmd --reload",
        )
    elif "ufw" in tools:
        yield Finding(
            "ufw is active: it may drop what other nodes and published ports send",
            f"ufw allow {VXLAN_PORT}/udp; ufw default allow routed",
        )
    elif drops:
        who = " (Docker's)" if "docker" in tools else ""
        yield Finding(
            f"another firewall{who} drops by default: {'; '.join(drops)}",
            f"allow UDP port {VXLAN_PORT} from the other nodes, and forwarding to and from our"
            " devices (cr*)",
        )


def foreign_drops(machine: Machine) -> list[str]:
    """Return others' base chains on the way of forwarded or incoming packets that drop."""
    table, found = "", []
    for line in machine.all("nft"):
        if line.startswith("table "):
            table = line.removeprefix("table ").rstrip(" {")
        elif "policy drop" in line and not table.startswith(("inet corral", "bridge corral")):
            hook = line.split("hook ")[1].split(" ")[0]
            found.append(f"table {table}, hook {hook}")
    return found


def _oddities(machine: Machine, expected: Expected) -> Iterator[Finding]:
    try:
        skew = float(machine.get("clock")) - expected.now
    except ValueError:
        skew = 0.0
    if abs(skew) > SKEW:
        yield Finding(
            f"this machine's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}",
            "let it follow a time server: logs are merged by time",
        )
    if machine.get("disk").isdigit() and int(machine.get("disk")) < DISK:
        free = int(machine.get("disk")) // 1024
        least = room.IMAGES >> 20
        fit = "no image fits" if free < least else "few images fit"
        yield Finding(
            f"only {free} MiB are free for /var/lib/corral: {fit}",
            f"give it a larger disk, or free some: {least} MiB stay free beside every image",
        )
    if "buildah" not in machine.all("tool"):
        yield Finding("buildah is missing: images cannot be built on this node",
                      _install(machine, ["buildah"]))  # fmt: skip
