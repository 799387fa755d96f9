"""Make and remove one task's namespace, links, routes and resolver sockets.

Runs in the network thread, between two awaits of agent.network.node: nothing
here waits for anything but the kernel. Every function may be repeated at any
point of a previous, interrupted run.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent.network import messages, names, namespaces, netlink, nft
from agent.network.objects import Neighbour, Route
from agent.network.plan import DEVICE_CONF, LinkPlan, TaskPlan, container_routes
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.linux.netlink import Message
    from specs.stack import TaskSpec

# Resolved in the calling thread's network namespace.
_DISABLE_IPV6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


def attach(plan: TaskPlan, path: Path, *, home: int, host: netlink.Netlink, source: str) -> None:
    """Bring the task's namespace to ``plan``; ``source`` is the node's own overlay address."""
    namespace = namespaces.open_kept(path)
    fresh = namespace is None
    if namespace is None:
        namespace = namespaces.create(path, home)
        reached("net.after_netns")
    try:
        with namespaces.inside(namespace, home):
            present = _prepare(fresh=fresh)
        _make_links(plan, namespace, host, present=present, source=source)
        reached("net.after_veth")
        if plan.links:
            with namespaces.inside(namespace, home), netlink.Netlink() as inner:
                _configure_inside(plan, inner)
        reached("net.after_addr")
    finally:
        os.close(namespace)


def _prepare(*, fresh: bool) -> set[str]:
    """Bring lo up, switch IPv6 off on what comes after it, and return the devices inside."""
    if fresh:
        # Before any link exists: eth0 must never get a link-local address (nothing filters it
        # but our drop rule). lo keeps ::1, which many programs bind to.
        with suppress(OSError):  # a kernel without IPv6 has nothing to switch off
            _DISABLE_IPV6.write_text("1")
    with netlink.Netlink() as inner:
        inner.run([messages.up(index=1)])
        return set() if fresh else set(inner.links())


def _make_links(
    plan: TaskPlan, namespace: int, host: netlink.Netlink, *, present: set[str], source: str
) -> None:
    there = host.links() if present else {}
    batch: list[Message] = []
    for link in plan.links:
        if link.name in present and link.host in there:
            if there[link.host].mtu != link.mtu:
                batch.append(messages.resize(link.host, link.mtu))
            if not there[link.host].up:
                batch.append(messages.up(link.host))
            continue
        # Half a pair from an interrupted attach, or a pair into a namespace that is gone.
        batch.append(messages.delete_link(link.host))
        batch.append(_veth(link, namespace))
        batch.append(messages.configure(link.host, DEVICE_CONF, alias=_alias(plan, link)))
        batch.append(messages.silent(link.host))
        batch.append(messages.up(link.host))
    host.run(batch)
    batch = []
    for link in plan.links:
        index = socket.if_nametoindex(link.host)
        neighbour = Neighbour(link.host, link.address, link.mac)
        route = Route(f"{link.address}/32", dev=link.host, source=source)
        batch.append(messages.neighbour(neighbour, index))
        batch.append(messages.route(route, index, protocol=names.PROTOCOL))
    host.run(batch)


def _veth(link: LinkPlan, namespace: int) -> Message:
    return messages.veth(
        name=link.host,
        mac=names.HOST_MAC,
        mtu=link.mtu,
        peer=link.name,
        peer_mac=link.mac,
        peer_ns=namespace,
    )


def _alias(plan: TaskPlan, link: LinkPlan) -> str:
    return f"corral task {plan.task} network {link.network}"


def _configure_inside(plan: TaskPlan, inner: netlink.Netlink) -> None:
    index = {link.name: socket.if_nametoindex(link.name) for link in plan.links}
    batch = []
    for link in plan.links:
        dev = index[link.name]
        gateway = Neighbour(link.name, names.GATEWAY, names.HOST_MAC)
        batch.append(messages.resize(link.name, link.mtu))
        batch.append(messages.up(index=dev))
        batch.append(messages.address(dev, f"{link.address}/32"))
        batch.append(messages.neighbour(gateway, dev))
    batch += [
        messages.route(route, index[route.dev], protocol=0) for route in container_routes(plan)
    ]
    inner.run(batch)


# Stateless on purpose: NAT would put all of the container's traffic under connection tracking.
_ASIDE = f"""
table ip corral {{}}
delete table ip corral
table ip corral {{
  chain out {{
    type filter hook output priority raw; policy accept;
    ip daddr {names.RESOLVER} udp dport 53 udp dport set {names.RESOLVER_ASIDE}
    ip daddr {names.RESOLVER} tcp dport 53 tcp dport set {names.RESOLVER_ASIDE}
    ip saddr {names.RESOLVER} udp sport {names.RESOLVER_ASIDE} udp sport set 53
    ip saddr {names.RESOLVER} tcp sport {names.RESOLVER_ASIDE} tcp sport set 53
  }}
}}
"""


def serves_names(spec: TaskSpec) -> bool:
    """Say whether the container is a name server itself and wants port 53 of all addresses."""
    return any(port.target == 53 for port in (*spec.ports, *spec.expose))


def resolver_sockets(
    path: Path, *, home: int, aside: bool = False
) -> tuple[socket.socket, socket.socket] | None:
    """Return (UDP, listening TCP) sockets on 127.0.0.11:53 of the namespace kept at ``path``.

    With ``aside`` they are on another port and 53 is rewritten to it inside the namespace, so
    that the container can bind 0.0.0.0:53. None when something holds the port already.
    """
    port = names.RESOLVER_ASIDE if aside else 53
    namespace = namespaces.open_kept(path)
    if namespace is None:
        return None
    udp = tcp = None
    try:
        with namespaces.inside(namespace, home):
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            if aside:
                nft.run("-f", "-", script=_ASIDE)  # a child is in its parent thread's namespace
        # The sockets belong to the namespace they were made in, wherever we are by now.
        udp.bind((names.RESOLVER, port))
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((names.RESOLVER, port))
        tcp.listen(64)
    except OSError as error:
        for made in (udp, tcp):
            if made is not None:
                made.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    finally:
        os.close(namespace)
    return udp, tcp


NET = Path("/proc/thread-self/net")
# linux/tcp_states.h: the process has closed, and what it sent last may be on its way.
_CLOSING = frozenset({"04", "09", "0B"})  # FIN_WAIT1, LAST_ACK, CLOSING


def unsent(path: Path, *, home: int) -> bool:
    """Say whether sockets in the namespace still have data that nobody has taken."""
    namespace = namespaces.open_kept(path)
    if namespace is None:
        return False
    try:
        if os.path.sameopenfile(namespace, home):
            return False  # the node's own: it stays
        with namespaces.inside(namespace, home):
            # A table takes 5 ms of processor time on a machine of 24 GB, whatever is in it.
            tables = [(NET / name).read_text() for name in ("tcp", "tcp6") if in_use(NET, name)]
    except OSError:
        return False
    finally:
        os.close(namespace)
    return any(left_behind(table) for table in tables)


def in_use(net: Path, table: str) -> bool:
    """Say whether the namespace has sockets of a kind ("tcp", "tcp6"), closing ones too."""
    try:
        counts = (net / table.replace("tcp", "sockstat")).read_text()
    except OSError:
        return True  # who cannot say so is asked for the table
    for line in counts.splitlines():
        words = line.split()
        if words[:2] == [f"{table.upper()}:", "inuse"] and len(words) > 2:
            return words[2] != "0"
    return True


def left_behind(table: str) -> bool:
    """Say whether a table of TCP sockets has a closed one with data. Pure."""
    for line in table.splitlines()[1:]:
        words = line.split()
        # The last byte is the FIN: a peer that vanished never takes it, and need not be waited for.
        if len(words) > 4 and words[3] in _CLOSING and int(words[4].partition(":")[0], 16) > 1:
            return True
    return False


def keep_host(path: Path) -> None:
    """Make ``path`` stand for the node's own namespace (network_mode: host)."""
    descriptor = namespaces.open_kept(path)
    if descriptor is not None:
        os.close(descriptor)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o444)
    namespaces.keep(path)


def detach(tasks: Mapping[str, Path], *, host: netlink.Netlink) -> dict[str, OSError]:
    """Remove the tasks' links and forget their namespaces; return what went wrong by task.

    All links go in one request: removing a device waits for every CPU to have
    stopped looking at it (30 ms here), and that wait is shared.
    """
    prefixes = {names.task_prefix(task) for task in tasks}
    width = len(names.VETH_PREFIX) + 7
    mine = [name for _, name in socket.if_nameindex() if name[:width] in prefixes]
    failed: dict[str, OSError] = {}
    if mine:
        host.run([messages.doom(name, names.DOOMED_GROUP) for name in mine])
        host.run([messages.delete_group(names.DOOMED_GROUP)])
    for task, path in tasks.items():
        try:
            namespaces.drop(path)
        except OSError as error:
            failed[task] = error
    return failed
