"""Fill a store that is older than what runs from what nodes hold. Pure: mirror and sets in.

``orchestrator/control/state.py`` calls it when somebody decided so (``corral state adopt``). What
a node holds wins: its tasks as they are, release by release, with the specs they were made from,
addresses, volumes and contents. Nothing is begun by it and nothing of what runs ends: a task
that no node has any more is forgotten, and a stack that runs nowhere is kept, but stopped. What
is on nodes that are not there is left as the store has it. Nodes that the store does not know any
more are found again by what their peers keep of them (:func:`forgotten`).
"""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from orchestrator.control.mirror.draft import Draft
from orchestrator.control.mirror.effective import has_own
from orchestrator.control.mirror.records import (
    CONTENTS,
    LEASES,
    NETWORKS,
    NODES,
    RELEASES,
    STACKS,
    VIP,
    VOLUMES,
    Lease,
    NetworkRecord,
    StoredContent,
    Vip,
    Volume,
    fingerprint_of,
)
from orchestrator.store import keys
from specs import shares
from specs.api import Stack
from specs.node import Node
from specs.oneoff import KeptOneOff, OneOff
from specs.stack import NetworkSpec, ServiceSpec, VolumeSpec
from specs.states import FINAL, RELEASE_MOVES, WANTED, ReleaseState
from specs.task import Task, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from orchestrator.contracts import Sealer
    from orchestrator.control.mirror.cluster import Cluster
    from specs.api import Release
    from specs.stack import StackSpec
    from specs.wire import Assignment, HeldSet, KeptRelease, NetworkState

RESTORED = "taken over from the nodes that run it"


@dataclass
class Adoption:
    """What is to be written, and what people are told of it."""

    draft: Draft
    said: list[str] = field(default_factory=list)


def forgotten(cluster: Cluster, helds: Mapping[str, HeldSet], *, wall: float) -> dict[str, Node]:
    """Return the nodes that only their peers know of, with how they are reached; by id.

    Their labels, and whether they were closed for tasks, nobody else knew.
    """
    here = {node.address for node in cluster.nodes.values()}
    return {
        peer.node: Node(
            id=peer.node,
            name=peer.name,
            address=peer.address,
            host_key=peer.host_key,
            underlay=peer.underlay,
            mtu=peer.mtu,
            overlay=peer.overlay,
            joined_at=wall,
        )
        for held in helds.values()
        for peer in held.objects.peers.values()
        if peer.node not in cluster.nodes and peer.host_key and peer.address not in here
    }


def stopped_by_discard(cluster: Cluster, helds: Mapping[str, HeldSet]) -> list[str]:
    """Return the containers that would end if the store were believed, by name and node."""
    found = []
    for node, held in helds.items():
        name = cluster.nodes[node].name if node in cluster.nodes else node
        for task, assignment in held.objects.tasks.items():
            one = cluster.oneoffs.get(task)
            known = one.task if one is not None else cluster.tasks.get(task)
            kept = known is not None and known.node == node and known.desired in WANTED
            if not kept and assignment.desired in WANTED and not _over(held, task):
                found.append(f"{assignment.name} on {name}")
    return sorted(found)


def _over(held: HeldSet, task: str) -> bool:
    status = held.tasks.get(task)
    return status is not None and status.state in FINAL


def adopt(
    cluster: Cluster,
    helds: Mapping[str, HeldSet],
    sealer: Sealer,
    *,
    wall: float,
    found: Mapping[str, Node] = MappingProxyType({}),
) -> Adoption:
    """Return the writes that make the store what the nodes hold.

    ``found``: forgotten nodes that answered, with what they hold among ``helds``.
    """
    made = Adoption(Draft(cluster))
    _nodes(made, cluster, helds, found)
    newest = _newest(helds.values())
    _stacks(made, cluster, helds, newest, wall)
    _tasks(made, cluster, helds, newest, {**cluster.nodes, **found})
    _networks(made, cluster, helds)
    _volumes(made, cluster, helds, wall)
    _contents(made, cluster, helds, sealer, wall)
    return made


def _nodes(
    made: Adoption, cluster: Cluster, helds: Mapping[str, HeldSet], found: Mapping[str, Node]
) -> None:
    for node in sorted(found.values(), key=lambda n: n.name):
        made.draft.put(NODES, node)
        made.said.append(f"node {node.name}: known again; its labels are not, nor a pause or drain")
    for node_id, held in helds.items():
        known, overlay = cluster.nodes.get(node_id), held.me.overlay if held.me else ""
        if known is not None and overlay and overlay != known.overlay:
            # Given anew, it may be another one's: what runs goes by the one there was.
            made.draft.put(NODES, known.model_copy(update={"overlay": overlay}))


def _newest(helds: Iterable[HeldSet]) -> dict[str, Stack]:
    newest: dict[str, Stack] = {}
    for held in helds:
        for name, stack in held.objects.stacks.items():
            if name not in newest or stack.stamp > newest[name].stamp:
                newest[name] = stack
    return newest


def _stacks(
    made: Adoption,
    cluster: Cluster,
    helds: Mapping[str, HeldSet],
    newest: Mapping[str, Stack],
    wall: float,
) -> None:
    releases: dict[tuple[str, int], KeptRelease] = {}
    for held in helds.values():
        for kept in held.objects.releases.values():
            releases[(kept.release.stack, kept.release.number)] = kept
    for name, stack in sorted(newest.items()):
        here = cluster.stacks.get(name)
        if here is not None and here.stamp >= stack.stamp:
            continue
        numbers = [number for owner, number in releases if owner == name]
        numbers += list(cluster.stack_releases.get(name, {}))
        # A release of which no node has a task was not sent to any: what runs is the newest.
        newest_number = max((n for n in numbers if n <= stack.release), default=stack.release)
        running = max((n for n in numbers if n <= stack.running), default=0)
        taken = stack.model_copy(
            update={"release": newest_number, "running": running, "spec": None}
        )
        # With the stamp it has there: it is no change of ours.
        made.draft.put_key(keys.stack(name), taken)
        what = "brought up to date" if here is not None else "taken over"
        made.said.append(f"stack {name}: {what}, release {newest_number}, {stack.desired}")
    for (name, _), kept in sorted(releases.items()):
        owner = newest.get(name) or cluster.stacks.get(name)
        if owner is not None:
            _release(made, cluster, kept, owner, wall, newest=name in newest)
    for name, stack in sorted(cluster.stacks.items()):
        if name not in newest and stack.desired == "up" and _all_there(cluster, name, helds):
            made.draft.put(STACKS, stack.stopped(None))
            made.said.append(
                f"stack {name}: runs on no node any more; kept, but stopped"
                f" (corral -p {name} up starts it, corral -p {name} down removes it)"
            )


def _all_there(cluster: Cluster, stack: str, helds: Mapping[str, HeldSet]) -> bool:
    """Say whether the stack had tasks, and every node that had one has answered."""
    nodes = {task.node for task in cluster.by_stack.get(stack, {}).values()} - {None}
    return bool(nodes) and all(node in helds for node in nodes)


def _release(
    made: Adoption,
    cluster: Cluster,
    kept: KeptRelease,
    stack: Stack,
    wall: float,
    *,
    newest: bool,
) -> None:
    release, known = kept.release, cluster.releases.get((stack.name, kept.release.number))
    if known is not None and (not newest or (known.spec == release.spec and known.over)):
        return
    made.draft.put(RELEASES, _settled(release, stack, wall))
    if release.spec not in cluster.parts:
        made.draft.put_key(keys.part(release.spec), kept.spec)


def _settled(release: Release, stack: Stack, wall: float) -> Release:
    """Return a release as it ended, where the stack's record knows that and its own does not."""
    ended = release.number <= stack.running
    if not ended or ReleaseState.DEPLOYED not in RELEASE_MOVES[release.state]:
        return release
    return release.moved(ReleaseState.DEPLOYED, reason=RESTORED, finished_at=wall)


def _tasks(
    made: Adoption,
    cluster: Cluster,
    helds: Mapping[str, HeldSet],
    newest: Mapping[str, Stack],
    nodes: Mapping[str, Node],
) -> None:
    draft, beside = made.draft, _beside(helds)
    stacks = cluster.stacks.keys() | newest.keys()
    for node, held in sorted(helds.items()):
        new = 0
        for task, assignment in sorted(held.objects.tasks.items()):
            if assignment.stack not in stacks or not assignment.spec_hash:
                continue  # of an agent that did not say: the store's own word is all there is
            status = held.tasks.get(task)
            known = cluster.tasks.get(task)
            turn = {"turn": "beside"} if known is None and task in beside else {}
            draft.put_task(_task(assignment, node, known, status).model_copy(update=turn))
            new += known is None
        gone = [t for t in cluster.by_node.get(node, {}).values() if t.id not in held.objects.tasks]
        for task_record in gone:
            draft.delete_task(task_record)
        if new or gone:
            name = nodes[node].name
            made.said.append(f"node {name}: {new} tasks taken over, {len(gone)} forgotten")
    for task_id in sorted(cluster.unplaced):
        draft.delete_task(cluster.tasks[task_id])
    _oneoffs(made, cluster, helds, stacks)


def _beside(helds: Mapping[str, HeldSet]) -> set[str]:
    """Return the tasks that run beside those of an earlier release: canaries, whole new sets.

    No assignment says so; of two tasks in a slot it is the newer, where the file asks for it.
    """
    slots: dict[tuple[str, str, int], list[Assignment]] = {}
    releases: dict[str, KeptRelease] = {}
    for held in helds.values():
        releases.update(held.objects.releases)
        for one in held.objects.tasks.values():
            if one.desired in WANTED and one.spec_hash and one.oneoff is None:
                slots.setdefault((one.stack, one.service, one.slot), []).append(one)
    found = set()
    for (stack, name, _), tasks in slots.items():
        new = max(tasks, key=lambda one: one.release)
        kept = releases.get(f"{stack}/{new.release}")
        service = kept.spec.services.get(name) if kept is not None else None
        if kept is None or service is None or {one.spec_hash for one in tasks} == {new.spec_hash}:
            continue
        canary = service.update.canary is not None and name not in kept.release.promoted
        if canary or service.update.blue_green:
            found.add(new.id)
    return found


def _oneoffs(
    made: Adoption, cluster: Cluster, helds: Mapping[str, HeldSet], stacks: Collection[str]
) -> None:
    """Take what nodes say of one-offs; one the store knows and no node has was there once."""
    for one in cluster.oneoffs.values():
        held, name = helds.get(one.task.node or ""), one.task.name
        if one.gone_at or (one.task.node is not None and held is None):
            continue
        if held is None or one.id not in held.objects.tasks:
            made.draft.delete_oneoff(one)
            made.said.append(f"one-off {name}: forgotten, no node has it any more")
        elif (status := held.tasks.get(one.id)) is not None:
            made.draft.put_oneoff(one.with_task(one.task.with_status(status)))
    for node, held in sorted(helds.items()):
        for task, assignment in sorted(held.objects.tasks.items()):
            if not is_oneoff(assignment) or task in cluster.oneoffs or task in cluster.tasks:
                continue
            made.draft.put_oneoff(_oneoff(assignment, node, held))
            if assignment.stack not in stacks:
                made.draft.put(STACKS, Stack(name=assignment.stack, desired="up"))
            goes = "it has ended" if _over(held, task) else "it runs to its end"
            made.said.append(f"one-off {assignment.name}: taken over, {goes}")


def is_oneoff(assignment: Assignment) -> bool:
    """Say whether `run` made it; an agent may have kept it of a controller that did not say.

    An agent one release older keeps of no task of which release and spec it is; but to its node a
    one-off is a service of its own name.
    """
    if assignment.oneoff is not None:
        return True
    unknown = not (assignment.spec_hash or assignment.release)
    return unknown and assignment.service == assignment.name


def _oneoff(assignment: Assignment, node: str, held: HeldSet) -> OneOff:
    """Return a one-off as its node has it. Its image, ports and mounts are in its spec, pinned."""
    kept = assignment.oneoff or _guessed(assignment, held)
    task = _task(assignment, node, None, held.tasks.get(assignment.id))
    own = {"service": kept.service, "slot": 0, "created_at": kept.created_at}
    return OneOff(
        task=task.model_copy(update=own),
        service=ServiceSpec(name=kept.service, task=assignment.spec),
        key=kept.key,
        networks=kept.networks,
        volumes=kept.volumes,
        client=kept.client,
        remove=kept.remove,
        aliases=kept.aliases,
        attach=assignment.attach,
    )


def _guessed(assignment: Assignment, held: HeldSet) -> KeptOneOff:
    """Return what can be known of a one-off of which only the assignment was kept.

    Its networks are those it is on. Whether it was to be removed at its end nobody knows: it
    stays until somebody does.
    """
    there = {one.network for one in assignment.networks}
    networks = {
        state.key: NetworkSpec(name=state.name, internal=state.internal, encrypted=state.encrypted)
        for state in held.objects.networks.values()
        if state.id in there
    }
    volumes = {key: VolumeSpec(name=name) for key, name in assignment.volumes.items()}
    name = assignment.name.removeprefix(f"{assignment.stack}-")
    return KeptOneOff(service=name.partition("-run-")[0], networks=networks, volumes=volumes)


def _task(assignment: Assignment, node: str, known: Task | None, status: TaskStatus | None) -> Task:
    ports = {
        f"{port.target}/{port.protocol}": port.published
        for port in assignment.host_ports
        if port.published is not None
    }
    fallback = known.status if known is not None else TaskStatus()
    return Task(
        id=assignment.id,
        stack=assignment.stack,
        service=assignment.service,
        slot=assignment.slot,
        name=assignment.name,
        release=assignment.release,
        spec_hash=assignment.spec_hash,
        node=node,
        desired=assignment.desired,
        restart=assignment.restart,
        paused=assignment.paused,
        leaving=assignment.desired not in WANTED,
        grace=assignment.grace,
        admitted=assignment.admitted,
        partner=assignment.partner,
        addresses={one.network: one.address for one in assignment.networks},
        host_ports=ports,
        created_at=known.created_at if known is not None else 0.0,
        turn=known.turn if known is not None else "",
        asked=known.asked if known is not None else 0,
        attempt=known.attempt if known is not None else 0,
        status=status or fallback,
    )


def _networks(made: Adoption, cluster: Cluster, helds: Mapping[str, HeldSet]) -> None:
    draft = made.draft
    found: dict[str, NetworkState] = {}
    for held in helds.values():
        found.update(held.objects.networks)
        for service in held.objects.services.values():
            known = cluster.vips.get(service.network, {}).get((service.stack, service.service))
            if service.vip and (known is None or known.address != service.vip):
                vip = Vip(
                    network=service.network,
                    stack=service.stack,
                    service=service.service,
                    address=service.vip,
                )
                draft.put(VIP, vip)
    specs = {k: v.spec for held in helds.values() for k, v in held.objects.releases.items()}
    taken = [ipaddress.ip_network(pool) for state in found.values() for pool in state.pools]
    for network in cluster.networks.values():
        pools = [ipaddress.ip_network(pool) for pool in network.pools]
        if network.id not in found and any(p.overlaps(other) for p in pools for other in taken):
            _forget_network(draft, cluster, network)
    for state in found.values():
        known_network = cluster.networks.get(state.id)
        if known_network is None or known_network.pools != state.pools:
            draft.put(NETWORKS, _network(state, specs))
        for block in state.blocks:
            draft.put(LEASES, Lease(network=state.id, cidr=block.cidr, node=block.node))


def _forget_network(draft: Draft, cluster: Cluster, network: NetworkRecord) -> None:
    """Drop a network whose addresses were given to another one since."""
    draft.delete(NETWORKS, network)
    for lease in cluster.leases.get(network.id, {}).values():
        draft.delete(LEASES, lease)
    for vip in cluster.vips.get(network.id, {}).values():
        draft.delete(VIP, vip)


def _network(state: NetworkState, specs: Mapping[str, StackSpec]) -> NetworkRecord:
    wanted = [
        spec.networks[state.key]
        for key, spec in specs.items()
        if key.startswith(f"{state.stack}/") and state.key in spec.networks
    ]
    return NetworkRecord(
        id=state.id,
        name=state.name,
        stack=state.stack,
        key=state.key,
        pool=state.pool,
        grown=state.more_pools,
        subnets=wanted[-1].subnets if wanted else (),
        internal=state.internal,
        mtu=state.mtu,
        encrypted=state.encrypted,
        attachable=wanted[-1].attachable if wanted else False,
    )


def _volumes(made: Adoption, cluster: Cluster, helds: Mapping[str, HeldSet], wall: float) -> None:
    for node, held in sorted(helds.items()):
        for assignment in held.objects.tasks.values():
            if assignment.desired not in WANTED:
                continue
            for key, name in assignment.volumes.items():
                known = made.draft.get(keys.volume(name), cluster.volumes.get(name))
                kept = held.objects.releases.get(f"{assignment.stack}/{assignment.release}")
                meant = kept.spec.seen_by(assignment.service).volumes if kept else {}
                if assignment.oneoff is not None:
                    meant = assignment.oneoff.volumes
                if known is None:
                    # What a file calls external is nobody's: no `down -v` may take it.
                    # Nor is that of what nobody knows the file of.
                    unknown = kept is None and key not in meant
                    theirs = unknown or (key in meant and meant[key].external)
                    owner = "" if theirs else assignment.stack
                    known = Volume(name=name, stack=owner, key=key, created_at=wall)
                service = kept.spec.services.get(assignment.service) if kept else None
                shared = shares.is_shared(assignment.volume_options.get(key, {}))
                if service is not None and has_own(service, meant.get(key)) and not shared:
                    own = {"options": assignment.volume_options.get(key, {}), "everywhere": True}
                    made.draft.put(VOLUMES, known.model_copy(update=own))
                elif known.node != node:
                    options = assignment.volume_options.get(key, {})
                    home = "" if shared else node
                    here = cluster.nodes.get(home)
                    called = here.name if here is not None else ""
                    update = {"node": home, "options": options, "home": called}
                    made.draft.put(VOLUMES, known.model_copy(update=update))


def _contents(
    made: Adoption, cluster: Cluster, helds: Mapping[str, HeldSet], sealer: Sealer, wall: float
) -> None:
    owners: dict[str, tuple[str, str]] = {}
    for held in helds.values():
        for kept in held.objects.releases.values():
            for item in (*kept.spec.secrets.values(), *kept.spec.configs.values()):
                owners[item.content] = ("" if item.external else kept.release.stack, item.name)
    for held in helds.values():
        for content in held.objects.contents.values():
            if content.id in cluster.contents or not content.data:
                continue
            data = base64.b64decode(content.data)
            stack, name = owners.get(content.id, ("", content.id))
            made.draft.put(
                CONTENTS,
                StoredContent(
                    id=content.id,
                    name=name,
                    stack=stack,
                    secret=content.secret,
                    fingerprint=fingerprint_of(sealer, data, secret=content.secret),
                    sealed=base64.b64encode(sealer.seal(data)).decode(),
                    size=len(data),
                    created_at=wall,
                ),
            )
