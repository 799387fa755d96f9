"""The resolv.conf and hosts file of a container. Pure but for :func:`own_address`, :func:`read`."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from agent.network import names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from specs.wire import Assignment


def nameservers(resolv_conf: str) -> tuple[str, ...]:
    """Return the name servers a resolv.conf lists."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) >= 2 and words[0] == "nameserver":
            found.append(words[1])
    return tuple(dict.fromkeys(found))


def search_domains(resolv_conf: str) -> tuple[str, ...]:
    """Return the search list a resolv.conf ends with (the last line of either kind wins)."""
    found: tuple[str, ...] = ()
    for line in resolv_conf.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) >= 2 and words[0] in ("search", "domain"):
            found = tuple(words[1:])
    return found


def resolv_conf(assignment: Assignment, node: str) -> str:
    """Return the container's resolv.conf; ``node`` is the node's own.

    On a network of ours only our resolver is named: it asks the servers of ``dns:``
    (or the node's) itself. Without one, ``dns:`` servers are written as they are.
    """
    spec = assignment.spec
    search: Sequence[str] = spec.dns_search or search_domains(node)
    if list(search) == ["."]:
        search = ()
    if spec.network_mode == "overlay":
        servers: Sequence[str] = (names.RESOLVER,)
        # ndots:0 as Docker: a service's one-label name is asked as it is, first.
        options = tuple(o for o in ("ndots:0",) if not _sets_ndots(spec.dns_opt)) + spec.dns_opt
    else:
        if not (spec.dns or spec.dns_search or spec.dns_opt):
            return node
        servers = spec.dns or nameservers(node)
        options = spec.dns_opt
    lines = [f"nameserver {server}" for server in servers]
    if search:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"


def _sets_ndots(options: Sequence[str]) -> bool:
    return any(option.startswith("ndots:") for option in options)


def own_address() -> str:
    """Return the address this machine has towards others; empty where it has no way out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # only the way there is asked for: nothing is sent
            return str(asked.getsockname()[0])
        except OSError:
            return ""


def hosts(assignment: Assignment, *, host_gateway: str) -> str:
    """Return the container's /etc/hosts."""
    spec = assignment.spec
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
    ]
    own = list(dict.fromkeys(name for name in _own_names(assignment) if name))
    if spec.network_mode == "overlay":
        first = sorted(assignment.networks, key=lambda n: (not n.gateway, n.interface))
        lines += [f"{place.address}\t{' '.join(own)}" for place in first]
    elif own:
        lines.append(f"127.0.1.1\t{' '.join(own)}")
    for name, address in spec.extra_hosts:
        lines.append(f"{host_gateway if address == 'host-gateway' else address}\t{name}")
    return "\n".join(lines) + "\n"


def _own_names(assignment: Assignment) -> list[str]:
    spec = assignment.spec
    full = f"{spec.hostname}.{spec.domainname}" if spec.hostname and spec.domainname else ""
    return [full, spec.hostname or "", assignment.name, assignment.id]


def read(path: Path) -> str:
    """Return a file's text; "" where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
