"""Give the cluster another range of addresses, when the first one is used up.

:func:`refusal` is pure; :func:`extend` writes the ``/cluster`` record, which no pass writes.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError, ip_address
from typing import TYPE_CHECKING

from orchestrator.control.planning.addresses import POOL_SIZES
from orchestrator.errors import Conflict, Invalid
from orchestrator.keys.identity import decode, encode
from orchestrator.store import keys
from orchestrator.store.base import Compare, Put

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.records import NetworkRecord
    from orchestrator.keys.identity import ClusterRecord
    from orchestrator.store.base import Store
    from specs.node import Node

LARGEST = 8
TRIES = 5


def refusal(
    text: str, record: ClusterRecord, networks: Iterable[NetworkRecord], nodes: Iterable[Node]
) -> str:
    """Return why the cluster cannot have this range; "" when it can."""
    try:
        wanted = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        return f"{text!r} is not an IPv4 range such as 10.211.0.0/16: {error}"
    if not LARGEST <= wanted.prefixlen <= min(POOL_SIZES):
        return f"{wanted} is not between a /{LARGEST} and a /{min(POOL_SIZES)}"
    if not wanted.is_private or wanted.is_loopback or wanted.is_link_local:
        return f"{wanted} is not a private range; use a part of 10.0.0.0/8 that nothing else uses"
    return _in_use(wanted, record, networks, nodes)


def _in_use(
    wanted: IPv4Network,
    record: ClusterRecord,
    networks: Iterable[NetworkRecord],
    nodes: Iterable[Node],
) -> str:
    for own in record.ranges:
        if wanted.overlaps(IPv4Network(own)):
            return f"{wanted} overlaps {own}, which the cluster has already"
    for network in networks:
        for pool in network.pools:
            if wanted.overlaps(IPv4Network(pool)):
                return f"{wanted} overlaps {pool} of network {network.name}"
    for node in nodes:
        for address in (*node.facts.addresses, node.underlay):
            if address and ":" not in address and ip_address(address.split("/")[0]) in wanted:
                return f"{wanted} has {address} in it, an address of node {node.name}"
    return ""


async def extend(store: Store, cluster: Cluster, text: str) -> tuple[str, ...]:
    """Add the range, durably; return all the cluster has. Raises Invalid, Conflict."""
    for _ in range(TRIES):
        entry = await store.get(keys.CLUSTER)
        record = decode(entry.value) if entry is not None else cluster.record
        why = refusal(text, record, cluster.networks.values(), cluster.nodes.values())
        if why:
            raise Invalid(detail=why, hint="corral controller extend 10.211.0.0/16, for example")
        taken = replace(record, more=(*record.more, str(IPv4Network(text))))
        result = await store.txn(
            (Compare(keys.CLUSTER, entry.version if entry is not None else 0),),
            (Put(keys.CLUSTER, encode(taken)),),
        )
        if result.ok:
            await cluster.reached(result.revision)
            return taken.ranges
    raise Conflict("the cluster's record changes all the time; try again")
