"""Which cluster this is, and which controller of it: the ``/cluster`` record.

The id is made once, at first start. The epoch rises at every start above anything
any reachable agent has seen, so that of two controllers the older one notices; it
is the caller's (dispatch/dispatcher.py) to stop when an agent has seen a higher one later.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from orchestrator.store import keys
from orchestrator.store.base import Compare, Put, StoreUnavailable
from specs.ids import new_id
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from orchestrator.store.base import Store
    from specs.kit.clock import Clock

FIRST_POOL = "10.210.0.0/16"
# Tried in this order where the first overlaps a route of the machine.
POOLS = (FIRST_POOL, *(f"10.{n}.0.0/16" for n in (*range(211, 256), *range(64, 210))))
EPOCHS_KEPT = 200
NODES_BITS = 20  # the first /20 of the pool: the nodes' own addresses


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """The record at ``/cluster``; without arguments what a store has before it is made."""

    id: str = ""
    epoch: int = 0
    pool: str = FIRST_POOL
    created_at: float = 0.0
    trusted: int = 0  # what agents learned in earlier epochs does not count: `state discard`
    ended: dict[int, int] = field(default_factory=dict)  # epoch -> its last revision
    more: tuple[str, ...] = ()  # ranges it was extended by

    @property
    def ranges(self) -> tuple[str, ...]:
        """Return every range that networks' pools are cut from."""
        return (self.pool, *self.more)


async def load(
    store: Store,
    *,
    clock: Clock,
    rng: random.Random,
    routes: Iterable[str],
    lost: Callable[[], Awaitable[ClusterRecord | None]] | None = None,
) -> ClusterRecord:
    """Return the cluster of this store, making it at first start.

    ``routes`` are the machine's own networks, which the cluster's range must not overlap.
    ``lost`` tells of the cluster that this machine was the home of, where its store is gone.
    """
    entry = await store.get(keys.CLUSTER)
    if entry is not None:
        return decode(entry.value)
    now = clock.wall()
    cluster = await lost() if lost is not None else None
    if cluster is None:
        cluster = ClusterRecord(new_id("c", now=now, rng=rng), 0, choose_pool(routes), now)
    await store.txn((Compare(keys.CLUSTER, 0),), (Put(keys.CLUSTER, encode(cluster)),))
    return cluster


async def take_epoch(
    store: Store,
    cluster: ClusterRecord,
    seen: Iterable[int],
    *,
    revision: int = 0,
    taken: Mapping[int, int] = MappingProxyType({}),
    trust: bool = False,
) -> ClusterRecord:
    """Return the cluster with an epoch higher than the stored and every seen one, durably.

    ``revision`` is the last one of the epoch before; ``taken``: epoch -> the last revision that was
    taken over from agents, of whichever epochs they had heard; ``trust``: from now on the store is
    right, whatever agents learned before.
    """
    entry = await store.get(keys.CLUSTER)
    if entry is None or (stored := decode(entry.value)).id != cluster.id:
        raise StoreUnavailable("the store holds another cluster than a moment ago")
    epoch = max((stored.epoch, *seen)) + 1
    ended = {**stored.ended, stored.epoch: revision}
    ended |= {one: max(last, ended.get(one, 0)) for one, last in taken.items()}
    ended = dict(sorted(ended.items())[-EPOCHS_KEPT:])
    risen = replace(stored, epoch=epoch, ended=ended, trusted=epoch if trust else stored.trusted)
    reached("epoch.before_write")
    result = await store.txn(
        (Compare(keys.CLUSTER, entry.version),), (Put(keys.CLUSTER, encode(risen)),)
    )
    if not result.ok:
        raise StoreUnavailable("another controller took an epoch at the same moment")
    reached("epoch.after_write")
    return risen


def choose_pool(routes: Iterable[str]) -> str:
    """Return the first of POOLS that overlaps no route; the first of all when every one does."""
    taken = [ipaddress.ip_network(route) for route in routes]
    taken = [network for network in taken if network.prefixlen > 0]
    for pool in POOLS:
        if not any(ipaddress.ip_network(pool).overlaps(network) for network in taken):
            return pool
    return FIRST_POOL


def node_network(pool: str) -> ipaddress.IPv4Network:
    """Return the part of the cluster's range that nodes' own overlay addresses come from."""
    network = ipaddress.IPv4Network(pool)
    if network.prefixlen >= NODES_BITS:
        return network
    return next(network.subnets(new_prefix=NODES_BITS))


def encode(cluster: ClusterRecord) -> bytes:
    fields = asdict(cluster)
    if not fields["more"]:
        del fields["more"]  # so that the release before reads what was never extended
    return json.dumps(fields).encode()


def decode(value: bytes) -> ClusterRecord:
    found = json.loads(value)
    known = {each.name for each in fields(ClusterRecord)}
    ended = {int(epoch): last for epoch, last in found.pop("ended", {}).items()}
    more = tuple(found.pop("more", ()))
    kept = {key: one for key, one in found.items() if key in known}
    return ClusterRecord(**kept, ended=ended, more=more)
