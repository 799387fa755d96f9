"""Who gets which address: network pools, blocks leased to nodes, VIPs, fixed addresses.

The plan (docs/architecture.md, Addresses): the cluster's ranges are cut into pools; the
first /20 is the nodes' own. A network starts with a small pool and gets a larger one
each time it is full, unless its file says which subnet it has. Blocks of a pool (a /26
of a large one, a /29 of a small one) are leased to nodes on demand, a network's very
first block is for VIPs; where no whole block is left, and in pools too small for blocks,
single addresses are leased as /32. An address is given to one holder at a time: a
task record, a VIP record or a resting record holds it, and only the control loop,
one pass at a time, gives any out.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv4Network
from socket import inet_aton
from typing import TYPE_CHECKING

from orchestrator.control.mirror.network_names import network_behind
from orchestrator.control.mirror.records import (
    LEASES,
    NETWORKS,
    VIP,
    VIPS,
    Lease,
    NetworkRecord,
    Vip,
)
from orchestrator.keys.identity import node_network
from orchestrator.store import keys
from specs.names import ipv4_fault

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from orchestrator.control.mirror.draft import Draft
    from specs.stack import NetworkSpec

# Prefix lengths of a network's first pool, its second, and so on; the last for all further ones.
# A thousand networks fit into a /16, and a large one takes few pools.
POOL_SIZES = (26, 24, 22, 20)
# Blocks by pool: of a /26 in pools of a /24 and more, of a /29 in those of a /26 and more.
BLOCKS = ((24, 26), (26, 29))


@dataclass(frozen=True, slots=True)
class Given:
    """An address, or ``refused``: the sentence that says why there is none."""

    address: str = ""
    refused: str = ""


def cut_pool(ranges: Iterable[str], taken: Iterable[str], *, have: int = 0) -> str | None:
    """Return a free pool of the cluster's ranges, or None when they are used up.

    ``have`` is how many pools the network has; where there is no room for as large a pool as it
    should get next, it gets a smaller one.
    """
    used = [_parsed(pool) for pool in taken]
    wholes = [_parsed(one) for one in ranges]
    for whole in wholes[:1]:
        nodes = node_network(str(whole))
        if nodes != whole:  # a range that small has nothing beside the nodes' part
            used.append(nodes)
    wished = POOL_SIZES[min(have, len(POOL_SIZES) - 1)]
    for prefix in sorted(size for size in POOL_SIZES if size >= wished):
        for whole in wholes:
            found = _gap(whole, used, prefix)
            if found is not None:
                return found
    return None


# A cluster has a thousand, and looks at all of them for every new network.
_parsed = lru_cache(4096)(IPv4Network)


def _gap(whole: IPv4Network, used: Iterable[IPv4Network], prefix: int) -> str | None:
    """Return the first free network of this size in the range."""
    if prefix <= whole.prefixlen:
        return None
    inside = sorted((u for u in used if u.overlaps(whole)), key=lambda n: int(n.network_address))
    at, end, step = int(whole.network_address), int(whole.broadcast_address), 1 << 32 - prefix
    for taken in [*inside, None]:
        until = int(taken.network_address) if taken is not None else end + 1
        start = -(-at // step) * step
        if start + step <= until:
            return f"{IPv4Address(start)}/{prefix}"
        if taken is not None:
            at = max(at, int(taken.broadcast_address) + 1)
    return None


def exhausted(ranges: Iterable[str], networks: Iterable[NetworkRecord]) -> str:
    """Return the words for ranges that are used up, with the way out."""
    there = list(networks)
    gone = sum(network.retired for network in there)
    resting = f", {gone} of them removed and resting up to a minute" if gone else ""
    ours = list(ranges)
    return (
        f"no addresses are left in the cluster's {'range' if len(ours) == 1 else 'ranges'} "
        f"{', '.join(ours)} ({len(there)} networks use them{resting}); "
        "give it another range: corral controller extend 10.X.0.0/16"
    )


class Addresses:
    """Gives out addresses within one pass; reads and writes through the pass's draft."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._held: dict[str, set[int]] = {}
        self._leases: dict[str, dict[str, Lease]] = {}
        self._fixed: dict[str, set[int]] = {}
        self._leased: dict[str, _Leased] = {}
        # Of (network, node, block): everything before it is taken.
        self._looked_to: dict[tuple[str, str, IPv4Network], int] = {}

    def fixed(self, network: str) -> set[int]:
        """Return the addresses services ask for by number: nobody else gets those."""
        found = self._fixed.get(network)
        if found is None:
            found = self._fixed[network] = {
                _number(address)
                for stack, wanted, address in self._asked_for
                if (record := network_behind(networks_ready(self._draft), stack, wanted))
                is not None
                and record.id == network
            }
        return found

    def is_fixed(self, network: str, address: str) -> bool:
        """Say whether a service asked for this very address."""
        return _number(address) in self.fixed(network)

    @cached_property
    def _asked_for(self) -> list[tuple[str, NetworkSpec, str]]:
        """Return (stack, network, address) for every fixed address of a newest release."""
        return self._draft.cluster.fixed.all()

    def room(self, network: NetworkRecord) -> int:
        """Return how many of its addresses are certainly unused, without looking at each."""
        cluster, name = self._draft.cluster, network.id
        held = sum(
            len(w.get(name, ())) for w in (cluster.by_network, cluster.resting, cluster.vips)
        )
        taken = held + len(self.fixed(name)) + len(self._draft.writes)
        return sum(usable(pool) for pool in network.pools) - taken

    def held(self, network: str) -> set[int]:
        """Return every address of the network that somebody holds or that rests."""
        found = self._held.get(network)
        if found is None:
            cluster = self._draft.cluster
            found = {_number(a) for a in cluster.by_network.get(network, ())}
            found |= {_number(a) for a in cluster.resting.get(network, ())}
            found |= {_number(v.address) for v in cluster.vips.get(network, {}).values()}
            for model in self._draft.writes.values():
                given = getattr(model, "addresses", None)
                if given and network in given:
                    found.add(_number(given[network]))
                elif isinstance(model, Vip) and model.network == network:
                    found.add(_number(model.address))
            self._held[network] = found
        return found

    def leases(self, network: str) -> dict[str, Lease]:
        """Return the network's leases by CIDR, this pass's included."""
        found = self._leases.get(network)
        if found is None:
            found = self._leases[network] = dict(self._draft.cluster.leases.get(network, {}))
        return found

    def for_task(self, network: NetworkRecord, node: str, fixed: str | None = None) -> Given:
        """Give an address for a task on ``node``; ``fixed`` is the one the file asks for."""
        if fixed is not None:
            return self._give_fixed(network, node, fixed)
        return self._give(network, node)

    def for_service(self, network: NetworkRecord, stack: str, service: str) -> Given:
        """Give the service's VIP, the one it has if it has one."""
        key = keys.vip(network.id, stack, service)
        present = self._draft.get(
            key, self._draft.cluster.vips.get(network.id, {}).get((stack, service))
        )
        if present is not None:
            return Given(present.address)
        given = self._give(network, VIPS)
        if given.address:
            self._draft.put(
                VIP,
                Vip(network=network.id, stack=stack, service=service, address=given.address),
            )
        return given

    def _give(self, network: NetworkRecord, node: str) -> Given:
        network = self._newest(network)
        while True:
            given = self._give_within(network, node)
            if given is not None:
                return given
            if not network.may_grow:
                return Given(refused=self._full(network))
            present = networks_ready(self._draft)
            ranges = self._draft.cluster.record.ranges
            taken = [pool for other in present for pool in other.pools]
            pool = cut_pool(ranges, taken, have=len(network.pools))
            if pool is None:
                why = exhausted(ranges, present)
                return Given(refused=f"network {network.name} is full, and {why}")
            network = network.with_pool(pool)
            self._draft.put(NETWORKS, network)

    def _newest(self, network: NetworkRecord) -> NetworkRecord:
        """Return the network as this pass left it: it may have grown."""
        present = self._draft.cluster.networks.get(network.id, network)
        return self._draft.get(NETWORKS.key_of(network), present) or network

    def _full(self, network: NetworkRecord) -> str:
        resting = len(self._draft.cluster.resting.get(network.id, ()))
        rest = f"; {resting} are free again after a rest" if resting else ""
        return (
            f"network {network.name} has no free address left in {network.pool}, the subnet its "
            f"file gives it{rest}; a larger subnet helps, or none: then it grows by itself"
        )

    def _give_within(self, network: NetworkRecord, node: str) -> Given | None:
        """Give an address of the pools the network has; None when they are full."""
        pools = [_network(pool) for pool in network.pools]
        special = set().union(*(_unusable(pool) for pool in pools))
        avoid = (self.held(network.id), self.fixed(network.id), special)
        index = self._index(network.id)
        # A /32 of another node inside our block would carry the traffic there.
        foreign = (*avoid, index.singles_beside(node))
        for block in index.blocks.get(node, ()):
            found = self._next_free(network, node, block, foreign)
            if found is not None:
                return self._take(network, found)
        for pool in pools:
            fresh = self._new_block(network, pool, node)
            found = self._next_free(network, node, fresh, foreign) if fresh is not None else None
            if fresh is not None and found is not None:
                self._lease(network, str(fresh), node)
                return self._take(network, found)
            found = self._next_free(network, "", pool, avoid)
            if found is not None:
                self._lease(network, f"{IPv4Address(found)}/32", node)
                return self._take(network, found)
        return None

    def _give_fixed(self, network: NetworkRecord, node: str, fixed: str) -> Given:
        if why := ipv4_fault(fixed):
            return Given(refused=f"{why}; correct it in the file and run `corral up`")
        address = int(IPv4Address(fixed))
        network = self._newest(network)
        if not any(IPv4Address(address) in IPv4Network(pool) for pool in network.pools):
            pools = ", ".join(network.pools)
            return Given(refused=f"address {fixed} is not in network {network.name} ({pools})")
        if address in self.held(network.id):
            holder = self._draft.cluster.by_network.get(network.id, {}).get(fixed)
            task = self._draft.task(holder) if holder is not None else None
            who = f"held by {task.name}" if task is not None else "still resting after its last use"
            return Given(refused=f"address {fixed} of network {network.name} is {who}")
        cidr = f"{fixed}/32"
        lease = self.leases(network.id).get(cidr)
        if lease is None or lease.node != node:
            self._lease(network, cidr, node)
        return self._take(network, address)

    def _new_block(
        self, network: NetworkRecord, pool: IPv4Network, node: str
    ) -> IPv4Network | None:
        size = next((block for most, block in BLOCKS if pool.prefixlen <= most), None)
        if size is None:
            return None
        leased = self.leases(network.id)
        blocks = pool.subnets(new_prefix=size)
        if str(pool) == str(IPv4Network(network.pool)):
            first = next(blocks)
            if node == VIPS and str(first) not in leased:
                return first
        return next((b for b in blocks if str(b) not in leased), None)

    def _lease(self, network: NetworkRecord, cidr: str, node: str) -> None:
        lease = Lease(network=network.id, cidr=cidr, node=node)
        self._index(network.id).drop(cidr)
        self.leases(network.id)[cidr] = lease
        self._index(network.id).add(lease)
        self._draft.put(LEASES, lease)

    def _index(self, network: str) -> _Leased:
        found = self._leased.get(network)
        if found is None:
            found = self._leased[network] = _Leased()
            for lease in self.leases(network).values():
                found.add(lease)
        return found

    def _next_free(
        self, network: NetworkRecord, node: str, block: IPv4Network, avoid: Iterable[Container[int]]
    ) -> int | None:
        """Return the first free address of a block; what was taken is not looked at again.

        Within a pass addresses are given and never taken back.
        """
        key = (network.id, node, block)
        begin = self._looked_to.get(key, int(block.network_address))
        end = int(block.network_address) + block.num_addresses
        found = next((a for a in range(begin, end) if not any(a in taken for taken in avoid)), None)
        self._looked_to[key] = end if found is None else found
        return found

    def _take(self, network: NetworkRecord, address: int) -> Given:
        self.held(network.id).add(address)
        return Given(str(IPv4Address(address)))


class _Leased:
    """Leases of one network as an address is looked for: by node, and single addresses apart."""

    def __init__(self) -> None:
        self.blocks: dict[str, list[IPv4Network]] = defaultdict(list)  # largest first
        self._singles: dict[str, set[int]] = defaultdict(set)  # node -> addresses
        self._node: dict[str, str] = {}  # cidr -> node

    def add(self, lease: Lease) -> None:
        block = _network(lease.cidr)
        self._node[lease.cidr] = lease.node
        insort(self.blocks[lease.node], block, key=_largest_first)
        if block.prefixlen == 32:
            self._singles[lease.node].add(int(block.network_address))

    def drop(self, cidr: str) -> None:
        node = self._node.pop(cidr, None)
        if node is not None:
            block = _network(cidr)
            self.blocks[node].remove(block)
            self._singles[node].discard(int(block.network_address))

    def singles_beside(self, node: str) -> _Beside:
        return _Beside([found for other, found in self._singles.items() if other != node])


class _Beside:
    """Single addresses of the other nodes, without a copy."""

    def __init__(self, sets: list[set[int]]) -> None:
        self._sets = sets

    def __contains__(self, address: object) -> bool:
        return any(address in found for found in self._sets)


def _largest_first(block: IPv4Network) -> tuple[int, int]:
    return block.prefixlen, int(block.network_address)


@lru_cache(maxsize=4096)
def usable(pool: str) -> int:
    """Return how many addresses of a pool can be given out."""
    network = IPv4Network(pool)
    return network.num_addresses - len(_unusable(network))


def _unusable(pool: IPv4Network) -> set[int]:
    """Return the addresses people and programs expect to be special: network, first, broadcast."""
    base = int(pool.network_address)
    if pool.prefixlen >= 31:
        return set()
    return {base, base + 1, int(pool.broadcast_address)}


_network = lru_cache(maxsize=4096)(IPv4Network)


@lru_cache(maxsize=65536)
def _number(address: str) -> int:
    # Every address, every pass: ten times as fast as by ipaddress. All were checked when given.
    return int.from_bytes(inet_aton(address), "big")


def _ends(cidr: str) -> tuple[int, int]:
    # Some 200 a network, each time anything of it moves: more than a cache may hold.
    address, _, prefix = cidr.partition("/")
    begin = int.from_bytes(inet_aton(address), "big")
    return begin, begin + (1 << 32 - int(prefix)) - 1


def empty_leases(draft: Draft, known: dict[str, int]) -> None:
    """Return blocks nobody holds an address of; resting addresses count as held.

    ``known``: networks of which all are held, until anything of them moves; kept by who asks.
    """
    cluster = draft.cluster
    for gone in known.keys() - cluster.leases.keys():
        del known[gone]
    for network, leases in cluster.leases.items():
        moves = cluster.network_moves.get(network, 0)
        if known.get(network) == moves:
            continue
        known[network] = moves
        held = [_number(a) for a in cluster.by_network.get(network, ())]
        held += [_number(a) for a in cluster.resting.get(network, ())]
        held += [_number(v.address) for v in cluster.vips.get(network, {}).values()]
        held.sort()
        for cidr, lease in leases.items():
            begin, end = _ends(cidr)
            first = bisect_left(held, begin)
            if first == len(held) or held[first] > end:
                draft.delete(LEASES, lease)
                known.pop(network, None)


def networks_ready(draft: Draft) -> list[NetworkRecord]:
    """Return every network, this pass's changes included."""
    found = dict(draft.cluster.networks)
    for key, model in draft.networks.items():
        if isinstance(model, NetworkRecord):
            found[model.id] = model
        else:
            found.pop(key.removeprefix(NETWORKS.prefix), None)
    return list(found.values())
