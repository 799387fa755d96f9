"""What exists on a machine, as comparable lines: the check that nothing is left behind.

``of_host(host)`` (run inside by tests/warm.py) and ``of_machine()`` take snapshots, ``difference``
compares two, ``settled`` waits for a clean state, because ends of processes and namespaces take
the kernel a moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
import subprocess
import time
from pathlib import Path
from socket import AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP
from typing import TYPE_CHECKING, Any

from agent.linux import netlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Snapshot = dict[str, list[str]]

# Everything except what legitimately stays while a node is a member.
RUNTIME = (
    "processes",
    "netns",
    "links",
    "addresses",
    "routes",
    "rules",
    "nft",
    "mounts",
    "cgroups",
    "sockets",
)
ALL = (*RUNTIME, "files", "sysctls")
VOLATILE = ("/run", "/tmp", "/var/tmp", "/dev/shm", "/var/lib/corral")
# Made by others' programs on first use (the last three by buildah and skopeo, where a machine has
# not had them yet), never removed by them, and empty.
IGNORED_FILES = re.compile(
    r"^(/run/crun|/run/runc|/run/lock|/run/netns|/run/sshd\.pid|/run/utmp|/run/mount|/run/containers"
    r"|/root/\.(ssh/known_hosts|bash_history|cache|config|local)|/var/log|/var/cache|/run/sudo"
    r"|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-|/etc/cni|/var/lib/containers/cache)(/.*)?$"
    r"|^/var/lib/containers$|__pycache__"
)
# sshd takes its own title a moment after it listens.
IGNORED_PROCESSES = re.compile(r"^(sshd: |/usr/sbin/sshd -D |.*orchestrator/lab/init\.py )")
# Listening; bound and unconnected. Asked of the kernel, which goes through its table of all
# connections for whoever reads /proc/net/tcp.
SOCKETS = (
    ("tcp", AF_INET, IPPROTO_TCP, 10),
    ("tcp6", AF_INET6, IPPROTO_TCP, 10),
    ("udp", AF_INET, IPPROTO_UDP, 7),
    ("udp6", AF_INET6, IPPROTO_UDP, 7),
)
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
SYSCTLS = ("net/ipv4", "net/ipv6", "net/netfilter", "net/bridge")


def _output(*argv: str, stdin: str = "") -> str:
    for _ in range(5):  # what goes away while it is listed makes them fail
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode == 0:
            return done.stdout
        time.sleep(0.1)
    return f"{argv[0]} failed: {done.stderr.strip()}\n"


def _ancestors() -> set[int]:
    found, pid = set(), os.getpid()
    while pid > 1:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def processes() -> list[str]:
    mine = _ancestors()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in mine:
            continue
        try:
            command = (
                (entry / "cmdline")
                .read_bytes()
                .replace(b"\0", b" ")
                .decode(errors="replace")
                .strip()
            )
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            name = command or f"[{(entry / 'comm').read_text().strip()}] state {fields[0]}"
        except OSError:
            continue
        if not command and fields[1] in ("0", "2"):  # a kernel thread
            continue
        if fields[0] == "Z":
            parent = _title(fields[1])
            if IGNORED_PROCESSES.match(parent):  # sshd takes its time to look after a login's end
                continue
            name = f"{name}, child of {parent}"
        if not IGNORED_PROCESSES.match(name):
            found.append(f"{entry.name}@{fields[19]} {name[:300]}")
    return found


def _title(pid: str) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "one that is gone"
    return command.replace(b"\0", b" ").decode(errors="replace").strip()


def netns() -> list[str]:
    """Return network namespaces that processes are in (mounted ones are among the mounts)."""
    found, own = set(), os.readlink("/proc/self/ns/net")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add(os.readlink(entry / "ns/net"))
            except OSError:
                continue
    return sorted("the machine's own" if name == own else name for name in found)


def links_and_addresses() -> Snapshot:
    shown = json.loads(_output("ip", "-j", "-d", "address") or "[]")
    return {
        "links": [
            f"{link['ifname']} {link.get('linkinfo', {}).get('info_kind', '-')}"
            f" mtu {link.get('mtu')}"
            for link in shown
        ],
        "addresses": [
            f"{link['ifname']} {a.get('local')}/{a.get('prefixlen')}"
            for link in shown
            for a in link.get("addr_info", [])
        ],
    }


def routes_and_rules() -> Snapshot:
    found: Snapshot = {"routes": [], "rules": []}
    for family in ("-4", "-6"):
        shown = _output("ip", family, "-batch", "-", stdin="route show table all\nrule\n")
        for line in shown.splitlines():
            kind = "rules" if re.match(r"\d+:\t", line) else "routes"
            # Learned and expiring ones come and go without anybody's doing.
            if kind == "rules" or "proto ra" not in line:
                found[kind].append(f"{family} {line.strip()}")
    found["routes"] = [re.sub(r" (expires|hoplimit|pref) \S+", "", r) for r in found["routes"]]
    return found


def nft() -> list[str]:
    """Return every table, chain, set, map and rule as one line each, without counters."""
    found, where = [], []
    for raw in _output("nft", "-s", "list", "ruleset").splitlines():
        line = raw.strip()
        if line.endswith("{"):
            where.append(line.rstrip(" {"))
            found.append(" / ".join(where))
        elif line == "}":
            where.pop()
        elif line:
            found.append(" / ".join([*where, line]))
    return found


def mounts() -> list[str]:
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        kind, source, _ = right.split(" ", 2)
        found.append(f"{fields[4]} {kind} {source} {fields[3]}")
    return found


def cgroups() -> list[str]:
    return [str(Path(group)) for group, _, _ in os.walk("/sys/fs/cgroup")]


def sockets() -> list[str]:
    found = []
    for name, family, protocol, state in SOCKETS:
        # family, protocol, extensions, padding, states, no socket (linux/inet_diag.h)
        question = struct.pack("=BBBBI48x", family, protocol, 0, 0, 1 << state)
        with netlink.NetlinkSocket(NETLINK_SOCK_DIAG) as link:
            for one in link.dump(SOCK_DIAG_BY_FAMILY, question):
                port, size = struct.unpack_from("!4xH", one)[0], 4 if family == AF_INET else 16
                found.append(f"{name} port {port} at {one[8 : 8 + size].hex()}")
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8:
            found.append(f"unix {fields[7]}")
    return sorted(set(found))


def files(roots: Iterable[str] = VOLATILE, strip: str = "", prefix: str = "") -> list[str]:
    """Return what is below ``roots``: path, kind, mode, owner, and a hash of small contents."""
    found = []
    for root in roots:
        for directory, names, plain in os.walk(root):
            names[:] = [n for n in names if not os.path.ismount(Path(directory, n))]
            for name in (*names, *plain):
                path = Path(directory, name)
                shown = prefix + str(path).removeprefix(strip)
                if not IGNORED_FILES.search(shown):
                    found.append(_describe(path, shown))
    return [line for line in found if line]


def _describe(path: Path, shown: str) -> str:
    try:
        info = path.lstat()
        if stat.S_ISDIR(info.st_mode):
            return f"{shown}/ {stat.S_IMODE(info.st_mode):o}"
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            return f"{shown} deleted"
        if not stat.S_ISREG(info.st_mode):
            return f"{shown} {stat.filemode(info.st_mode)}"
        digest = (
            hashlib.sha256(path.read_bytes()).hexdigest()[:8]
            if info.st_size < 1 << 20
            else info.st_size
        )
        return f"{shown} {stat.S_IMODE(info.st_mode):o} {info.st_uid}:{info.st_gid} {digest}"
    except (FileNotFoundError, NotADirectoryError):
        return ""


def sysctls() -> list[str]:
    found = []
    for part in SYSCTLS:
        for directory, _, names in os.walk(Path("/proc/sys", part)):
            for name in names:
                path = Path(directory, name)
                if "stable_secret" in name or "conntrack_count" in name:
                    continue
                try:
                    found.append(f"{path.relative_to('/proc/sys')} = {path.read_text().strip()}")
                except OSError:
                    continue
    return found


def here(kinds: Iterable[str] = ALL) -> Snapshot:
    """Return what there is of these kinds on the machine this runs on."""
    collectors: tuple[Callable[[], list[str]], ...] = (
        processes, netns, nft, mounts, cgroups, sockets, files, sysctls,
    )  # fmt: skip
    # A process for each question is half of what a snapshot costs.
    wanted = set(kinds)
    found = {c.__name__: c() for c in collectors if c.__name__ in wanted}
    for together, collect in (
        (("links", "addresses"), links_and_addresses),
        (("routes", "rules"), routes_and_rules),
    ):
        if wanted.intersection(together):
            found |= {kind: lines for kind, lines in collect().items() if kind in wanted}
    return {kind: sorted(lines) for kind, lines in found.items()}


# ---- used by tests ----------------------------------------------------------------------------


def here_of(host: Any, kinds: Iterable[str] = ALL) -> Snapshot:
    """Return what ``here`` sees inside a lab host."""
    from tests import warm

    snapshot: Snapshot = warm.snapshot(host, list(kinds))
    return snapshot


def of_host(host: Any, kinds: Iterable[str] = ALL) -> Snapshot:
    """Return everything about a lab host, its changes to the machine's files included."""
    snapshot = here_of(host, kinds)
    upper = str(host.upper)
    changed = [line for line in files([upper], strip=upper) if not _as_on_machine(line)]
    snapshot["files"] = sorted({*snapshot["files"], *changed})
    return snapshot


def _as_on_machine(line: str) -> bool:
    """Tell whether overlayfs only copied the file up, or the place is walked elsewhere."""
    shown = line.split(" ", maxsplit=1)[0]
    return f"{shown}/".startswith(tuple(f"{root}/" for root in VOLATILE)) or line == _describe(
        Path(shown), shown.rstrip("/")
    )


OURS = re.compile(r"corral(?!-lab)|^cr-|\bcr-vxlan\b|/conmon|/crun |agent\.dns|python -m agent")


def of_machine() -> Snapshot:
    """Return what on the machine itself could be ours; labs are found by name and do not count."""
    snapshot = {
        kind: here_lines
        for kind, here_lines in here().items()
        if kind not in ("sysctls", "files", "netns")
    }
    labs = re.compile(r"corral-lab")
    kept = {
        kind: [line for line in lines if OURS.search(line) and not labs.search(line)]
        for kind, lines in snapshot.items()
        if kind != "processes"
    }
    kept["addresses"], kept["rules"] = snapshot["addresses"], snapshot["rules"]
    return kept


def difference(
    before: Snapshot, after: Snapshot, kinds: Iterable[str] = ALL, allow: Iterable[str] = ()
) -> list[str]:
    """Return what ``after`` has and ``before`` had not (+) or the reverse (-), one line each."""
    allowed = [re.compile(pattern) for pattern in allow]
    lines = []
    for kind in kinds:
        old, new = set(before.get(kind, ())), set(after.get(kind, ()))
        changes = [("+", line) for line in sorted(new - old)] + [
            ("-", line) for line in sorted(old - new)
        ]
        lines += [
            f"{sign} {kind}: {line}"
            for sign, line in changes
            if not any(pattern.search(f"{kind}: {line}") for pattern in allowed)
        ]
    return lines


def at_rest(take: Callable[[], Snapshot], *, timeout: float = 60.0) -> Snapshot:
    """Return what is there for a second: a ``before`` without what daemons run for a moment."""
    deadline = time.monotonic() + timeout
    found = take()
    while True:
        time.sleep(1.0)
        again = take()
        if not difference(found, again) or time.monotonic() > deadline:
            return again
        found = again


def settled(
    take: Callable[[], Snapshot],
    before: Snapshot,
    *,
    kinds: Iterable[str] = ALL,
    allow: Iterable[str] = (),
    timeout: float = 60.0,
) -> list[str]:
    """Return what differs from ``before`` after waiting up to ``timeout`` for nothing to differ."""
    kinds, allow = tuple(kinds), tuple(allow)
    deadline = time.monotonic() + timeout
    while True:
        left = difference(before, take(), kinds, allow)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)
