"""Networks and VIPs a stack needs: made when a release deploys, retired when unused.

``stacks`` has networks made on every pass of a deploying stack, ``services`` its VIPs;
repeating both is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from orchestrator.control.mirror.network_names import name_holder, network_behind
from orchestrator.control.mirror.records import (
    LEASES,
    NETWORKS,
    RESTING,
    VIP,
    NetworkRecord,
    Resting,
)
from orchestrator.control.mirror.users import users
from orchestrator.control.planning.addresses import cut_pool, exhausted, networks_ready, usable
from orchestrator.control.planning.passes import earliest
from scheduler.steps import STEP
from specs.names import subnet_fault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.control.mirror.draft import Draft
    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from scheduler.steps import Steps
    from specs.stack import NetworkSpec, StackSpec

REST = 60.0  # seconds a freed address stays unused
SHORT_REST = 5.0  # at the least, where few are left: as long as names are remembered
FEW = 4  # at most this part (1/4) of the addresses unused is few


def ensure_networks(pass_: Pass, stack: str, spec: StackSpec, *, change: bool = True) -> str:
    """Make the spec's networks exist; return "" or the sentence why one cannot."""
    used = {a.network for s in spec.services.values() for a in s.task.networks}
    for key, wanted in spec.all_networks():
        if key not in used:
            continue
        if spec.networks.get(key) != wanted and _left(pass_, stack, wanted):
            continue
        problem = _ensure(pass_, stack, key, wanted, change=change)
        if problem:
            return problem
    return ""


def _left(pass_: Pass, stack: str, wanted: NetworkSpec) -> bool:
    """Whether a carried service is on it, and its file calls it external by now: nobody's."""
    found = find_network(pass_, stack, wanted)
    return found is not None and not found.stack and not found.retired


def _ensure(pass_: Pass, stack: str, key: str, wanted: NetworkSpec, *, change: bool) -> str:
    found = find_network(pass_, stack, wanted)
    if wanted.external:
        return (
            ""
            if found is not None
            else (
                f"external network {wanted.name} does not exist: corral network create "
                f"{wanted.name}, or deploy the stack that has it first"
            )
        )
    other = name_holder(networks_ready(pass_.draft), stack, wanted.name)
    if other is not None and (found is None or found == other):
        owner = f"belongs to stack {other.stack}" if other.stack else "was made by hand"
        return f"network {wanted.name} {owner}; declare it external or give it another name"
    if found is not None:
        changed = found.asked(key, wanted)
        if changed != found and (change or found.retired):
            pass_.draft.put(NETWORKS, changed)
        return ""
    pool = pool_for(pass_.draft, wanted)
    if not pool[0]:
        return pool[1]
    fresh = NetworkRecord(
        id=pass_.new_id("n"),
        name=wanted.name,
        stack=stack,
        key=key,
        pool=pool[0],
        subnets=wanted.subnets,
        created_at=pass_.wall,
    )
    pass_.draft.put(NETWORKS, fresh.asked(key, wanted))
    return ""


def find_network(pass_: Pass, stack: str, wanted: NetworkSpec) -> NetworkRecord | None:
    """Return the record behind a network of a spec, this pass's changes included."""
    return network_behind(networks_ready(pass_.draft), stack, wanted)


def network_of(pass_: Pass, effective: Effective, key: str) -> NetworkRecord | None:
    """Return the record behind a network key of the service's file."""
    wanted = effective.spec.networks.get(key)
    return find_network(pass_, effective.stack, wanted) if wanted is not None else None


def pool_for(draft: Draft, wanted: NetworkSpec) -> tuple[str, str]:
    """Return the first pool of a new network, or "" and why there is none."""
    present = networks_ready(draft)
    ranges = draft.cluster.record.ranges
    taken = [pool for network in present for pool in network.pools]
    subnet = next((s for s in wanted.subnets if ":" not in s), None)
    if subnet is None:
        pool = cut_pool(ranges, taken)
        if pool is None:
            return "", f"network {wanted.name}: {exhausted(ranges, present)}"
        return pool, ""
    if why := subnet_fault(subnet):
        # By an earlier version, which took it: a pass goes on for all others.
        return "", f"network {wanted.name}: {why}; correct it in the file and run `corral up`"
    asked = IPv4Network(subnet, strict=False)
    for other in present:
        hit = next((pool for pool in other.pools if asked.overlaps(IPv4Network(pool))), None)
        if hit is not None:
            rest = " (its addresses are still resting)" if other.retired else ""
            return "", (
                f"network {wanted.name}: subnet {asked} overlaps {hit} "
                f"of network {other.name}{rest}"
            )
    return str(asked), ""


def ensure_vips(pass_: Pass, effective: Effective) -> str:
    """Give the service a VIP on each of its networks; return "" or why that is not possible."""
    service = effective.service
    vip = service.endpoint_mode == "vip" and not service.is_job
    if not vip or effective.task.network_mode != "overlay":
        return ""
    for attachment in effective.task.networks:
        network = network_of(pass_, effective, attachment.network)
        if network is None:
            continue
        given = pass_.addresses.for_service(network, effective.stack, effective.service.name)
        if given.refused:
            return given.refused
    return ""


def drop_vips(pass_: Pass, stack: str, keep: set[str]) -> None:
    """Free the VIPs of services that are no more; they rest like any address."""
    for network_id, vips in list(pass_.cluster.vips.items()):
        for (owner, service), vip in list(vips.items()):
            if owner == stack and service not in keep:
                pass_.draft.delete(VIP, vip)
                pass_.draft.put(RESTING, Resting(network=network_id, address=vip.address))


def retire_networks(pass_: Pass, stack: str, keep: set[str]) -> None:
    """Mark networks of the stack that neither a spec nor any task uses."""
    mine = [
        network
        for network in networks_ready(pass_.draft)
        if network.stack == stack and not network.retired and network.id not in keep
    ]
    if not mine:
        return
    used = {n for task in pass_.draft.all_tasks() for n in task.addresses}
    for one in pass_.draft.oneoffs():
        used |= {*one.addresses}
        if one.stack == stack and not one.over:  # also one that waits for a node
            wanted = [find_network(pass_, stack, spec) for spec in one.networks.values()]
            used |= {found.id for found in wanted if found is not None}
    meant = users(pass_.cluster).networks
    for network in mine:
        if network.id not in used and meant.get(network.id, set()) <= {stack}:
            pass_.draft.put(NETWORKS, network.let_go())


def retire_left(pass_: Pass) -> None:
    """Mark networks whose stack is gone, which stayed for others, once nobody means them."""
    left = [
        network
        for network in pass_.cluster.networks.values()
        if network.stack and not network.retired and network.stack not in pass_.cluster.stacks
    ]
    if not left:
        return
    meant = users(pass_.cluster).networks
    for network in left:
        if not meant.get(network.id) and not pass_.cluster.by_network.get(network.id):
            pass_.draft.put(NETWORKS, network.let_go())


@dataclass(frozen=True, slots=True)
class Rest:
    """An address that somebody had."""

    address: str
    since: float
    fixed: bool = False  # a service asks for this very one: it has one owner, which waits for it
    let_go: bool = True  # every node that is ready took notice that it was removed


def rested(resting: Iterable[Rest], now: float, *, early: int = 0) -> tuple[set[str], float | None]:
    """Return the addresses that may be given out again, and when to look at the others.

    ``early`` of them need not rest to the end because the network has few left: those that
    rest longest, and no more than that (docs/adr/0017).
    """
    free: set[str] = set()
    due: float | None = None
    for one in sorted(resting, key=lambda rest: rest.since):
        until = one.since + (SHORT_REST if early > 0 else REST)
        if now < until and not one.fixed:
            due = earliest(due, until)
        elif one.let_go:
            free.add(one.address)
            early -= not one.fixed
    return free, due


def rest_over(pass_: Pass, interested: dict[str, set[str]]) -> Steps[float | None]:
    """Free addresses that rested and that every node concerned let go; then drop empty networks.

    Return when to look again.
    """
    due: float | None = None
    for network_id, resting in list(pass_.cluster.resting.items()):
        if not resting:
            continue
        nodes = interested.get(network_id, set())
        if (later := _none_rested(pass_, network_id, len(resting))) is not None:
            due = earliest(due, later)
            continue
        told = [pass_.observed.acknowledged.get(n, 0) for n in nodes if _ready(pass_, n)]
        slowest = min(told, default=None)
        found = []
        for number, (address, record) in enumerate(resting.items(), 1):
            if not number % STEP:
                yield STEP
            version = pass_.cluster.version(RESTING.key_of(record))
            found.append(
                Rest(
                    address,
                    pass_.observed.resting_on.get(network_id, {}).get(address, pass_.now),
                    fixed=pass_.addresses.is_fixed(network_id, address),
                    let_go=slowest is None or slowest >= version,
                )
            )
        free, then = rested(found, pass_.now, early=_missing(pass_, network_id, nodes))
        due = earliest(due, then)
        yield len(resting)
        for address in free:
            pass_.draft.delete(RESTING, resting[address])
            due = pass_.now  # what it kept from going may go now
        yield len(resting)
    for network in list(pass_.cluster.networks.values()):
        if not network.retired or pass_.cluster.resting.get(network.id):
            continue
        if pass_.cluster.by_network.get(network.id) or pass_.cluster.vips.get(network.id):
            continue
        pass_.draft.delete(NETWORKS, network)
        for lease in pass_.cluster.leases.get(network.id, {}).values():
            pass_.draft.delete(LEASES, lease)
    return due


def _none_rested(pass_: Pass, network_id: str, count: int) -> float | None:
    """Return when to look at a network's resting addresses where none can be free by now.

    Most are looked at in every pass and rest for a minute: that must not cost each of them, and
    each node of the network.
    """
    if pass_.addresses.fixed(network_id):
        return None
    since = pass_.observed.resting_on.get(network_id, {})
    if len(since) != count:
        return None  # of some it is not known
    longest = next(iter(since.values()))  # they are in the order in which they were freed
    if pass_.now < longest + SHORT_REST:
        return longest + SHORT_REST
    network = pass_.cluster.networks.get(network_id)
    if network is not None and not network.retired:
        total = sum(usable(pool) for pool in network.pools)
        if pass_.addresses.room(network) <= total // FEW:
            return None  # it may have few left
    return longest + REST if pass_.now < longest + REST else None


def _ready(pass_: Pass, node: str) -> bool:
    return pass_.node_status(node) == "ready"


def _missing(pass_: Pass, network_id: str, nodes: Iterable[str]) -> int:
    """Return how many more addresses a network should have unused that cannot get more."""
    network = pass_.cluster.networks.get(network_id)
    if network is None or network.retired:
        return 0
    total = sum(usable(pool) for pool in network.pools)
    unused = total - len(pass_.addresses.held(network_id) | pass_.addresses.fixed(network_id))
    missing = total // FEW + 1 - unused
    if missing <= 0:
        return 0
    if any(pass_.node_status(node) == "unknown" for node in nodes):
        return 0  # it may still send to whoever had them, and may be back at any moment
    if not network.may_grow:
        return missing
    taken = [pool for other in networks_ready(pass_.draft) for pool in other.pools]
    grows = cut_pool(pass_.cluster.record.ranges, taken, have=len(network.pools)) is not None
    return 0 if grows else missing
