"""What each node should hold: assignments, networks, endpoints, peers, contents.

Pure: mirror in, ``specs.wire.Objects`` out, for the dispatcher to compare with what
the node has. Objects are cached by what they were made of, so an unchanged one is the
same object and a change costs its own service only.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from orchestrator.control.endpoints import Endpoints
from orchestrator.control.mirror.dependencies import waits_for
from orchestrator.control.mirror.effective import gateway_key, of_oneoff
from orchestrator.control.mirror.placed import made_elsewhere, spec_there
from orchestrator.control.mirror.records import (
    PARTS,
    RELEASES,
    STACKS,
    VIPS,
    Kind,
    NetworkRecord,
)
from orchestrator.control.mirror.released import spec_at, spec_of
from orchestrator.control.mirror.serving import copies
from specs.kit.layers import Layers, Without
from specs.wire import (
    EVERY_NODE,
    Assignment,
    Block,
    Content,
    KeptRelease,
    NetworkState,
    NodeSelf,
    Objects,
    Peer,
    StackSlots,
    TaskNetwork,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.contracts import Sealer
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.effective import Effective, Specs
    from orchestrator.control.mirror.exclusive import ExclusiveTasks
    from specs.api import Stack
    from specs.node import Node
    from specs.oneoff import OneOff
    from specs.stack import StackSpec
    from specs.task import Task

LOCAL_RESTARTS = 10  # crashes in a row before another node is tried, where there is another


class Outgoing:
    """Builds and caches the objects for nodes."""

    def __init__(
        self, cluster: Cluster, specs: Specs, sealer: Sealer, exclusive: ExclusiveTasks
    ) -> None:
        self._exclusive = exclusive
        self._cluster = cluster
        self._specs = specs
        self._sealer = sealer
        self._assignments: dict[str, tuple[tuple[object, ...], Assignment]] = {}
        self._endpoints = Endpoints(cluster, specs)
        self._known_published: tuple[int, frozenset[str]] = (-1, frozenset())
        self._through: dict[str, frozenset[str]] = {}  # stack -> networks its ports are reached by
        self._networks: dict[str, NetworkState] = {}
        self._contents: dict[str, Content] = {}
        self._kept: dict[str, KeptRelease] = {}
        self._slots: dict[str, tuple[Stack, StackSpec, StackSlots]] = {}
        self._peer: dict[str, Peer] = {}  # every node, as others are told of it
        self._peer_before: dict[str, Peer] = {}  # and were told of it last
        self._peers: dict[str, Without[Peer]] = {}  # node -> the others
        self._holding: dict[str, frozenset[str]] = {}  # node -> networks of its newest set
        self._slots_now: dict[str, StackSlots] | None = None  # of all stacks, until one changes

    # what changed

    def forget_service(self, stack: str, service: str, networks: Iterable[str]) -> None:
        """Drop cached endpoints of a service one of whose tasks, on ``networks``, changed."""
        self._endpoints.forget_service(stack, service, networks)
        self._through.pop(stack, None)

    def forget_stack(self, stack: str) -> None:
        """Drop through which networks a stack's ports are reached: its releases changed."""
        self._through.pop(stack, None)

    def read_anew(self, kind: Kind) -> None:
        """Drop what is made of all stacks' specs, where a record of that kind may change it."""
        if kind in (STACKS, RELEASES, PARTS):
            self._slots_now = None

    def forget_network(self, network: str) -> None:
        """Drop what was made of a network's record and leases: one of them changed."""
        self._networks.pop(network, None)

    def forget_networks(self, name: str) -> None:
        """Drop what was made of networks of a name: one came, went or is another's now."""
        self._endpoints.forget_networks(name)
        self._through.clear()

    def forget_peers(self) -> None:
        """Drop what nodes are told of each other: one came or went, or is reached otherwise."""
        self._peer_before, self._peer = {**self._peer_before, **self._peer}, {}
        self._peers.clear()

    def forget_all(self) -> None:
        """Drop cached endpoints of everything: a node came or went, or most are doubted."""
        self._endpoints.forget_all()
        self._through.clear()

    # who needs what

    def interested(self, networks: Iterable[str]) -> dict[str, set[str]]:
        """Return, for each network, the nodes that are told about it."""
        result = {}
        published = self._published()
        for network in networks:
            if network in published:
                result[network] = set(self._cluster.nodes)
                continue
            result[network] = set(self._cluster.nodes_on.get(network, ()))
        return result

    def holders(self, networks: Iterable[str]) -> set[str]:
        """Return the nodes whose newest set has one of these networks, needed or not any more."""
        wanted = set(networks)
        return {n for n, held in self._holding.items() if held & wanted} & set(self._cluster.nodes)

    def _published(self) -> frozenset[str]:
        """Return networks on which published ports are delivered: every node needs those.

        Asked once for every node, so kept until any record changes.
        """
        at, known = self._known_published
        if at != self._cluster.changes:
            known = frozenset(self._find_published())
            self._known_published = (self._cluster.changes, known)
        return known

    def _find_published(self) -> set[str]:
        found: set[str] = set()
        for stack in self._cluster.stacks:
            if (known := self._through.get(stack)) is None:
                known = self._through[stack] = frozenset(self._find_through(stack))
            found |= known
        for one in self._cluster.oneoffs.values():
            gateway = self._endpoints.gateway(of_oneoff(one)) if one.service.task.ports else None
            if gateway is not None and not one.over and one.task.node is not None:
                found.add(gateway.id)
        return found

    def _find_through(self, stack: str) -> Iterable[str]:
        for effective in self._effectives(stack):
            if any(port.mode == "ingress" for port in effective.task.ports):
                gateway = self._endpoints.gateway(effective)
                if gateway is not None:
                    yield gateway.id

    def _effectives(self, stack: str) -> Iterable[Effective]:
        seen: dict[str, Effective] = {}
        for task in self._cluster.by_stack.get(stack, {}).values():
            known = seen.get(task.service)
            if known is None or known.release < task.release:
                effective = self._specs.of(stack, task.release, task.service)
                if effective is not None:
                    seen[task.service] = effective
        return seen.values()

    # the sets

    def me(self, node_id: str) -> NodeSelf:
        """Return the node's own place."""
        node = self._cluster.nodes.get(node_id)
        return NodeSelf(
            node=node_id,
            name=node.name if node is not None else "",
            underlay=node.underlay if node is not None else "",
            overlay=node.overlay if node is not None else "",
            cluster_pool=self._cluster.record.pool,
            more_ranges=self._cluster.record.more,
            home=node is not None and not node.address,
        )

    def objects(self, node_id: str) -> Objects:
        """Return everything the node should hold; what others hold, too, in shared mappings."""
        tasks = self._cluster.by_node.get(node_id, {})
        assignments = {}
        stacks: dict[str, Stack] = {}
        releases: dict[str, KeptRelease] = {}
        networks = set(self._published())
        for task in tasks.values():
            made = self._assignment(task)
            if made is None:
                continue
            assignments[task.id] = made
            self._keep_with(task, stacks, releases)
            networks.update(task.addresses)
        for one in self._cluster.oneoffs.values():
            if one.task.node != node_id:
                continue
            assignments[one.id] = made = self._oneoff(one)
            if (stack_record := self._cluster.stacks.get(one.stack)) is not None:
                stacks[one.stack] = stack_record
            networks.update(one.addresses)
        contents = self._contents_of(assignments.values())
        self._holding[node_id] = frozenset(networks)
        condition = self._cluster.conditions.get(node_id)
        doubting = condition is not None and condition.doubted
        services = Layers({n: self._endpoints.on(n, doubting=doubting) for n in sorted(networks)})
        states = {n: s for n in sorted(networks) if (s := self._network(n)) is not None}
        shared: dict[str, Any] = {"services": services, "peers": self._peers_of(node_id)}
        return Objects.model_construct(
            tasks=assignments,
            networks=states,
            contents=contents,
            stacks=stacks,
            releases=releases,
            slots=self._all_slots(),
            **shared,
        )

    def _peers_of(self, node_id: str) -> Without[Peer]:
        """Return the other nodes, as every node is told them: the very same until one moves."""
        found = self._peers.get(node_id)
        if found is None:
            if not self._peer:
                nodes = self._cluster.nodes.values()
                made = {n.id: _peer(n).to_keep() for n in nodes if n.underlay}
                # The very same where nothing of it moved: each node compares its own with them.
                before, self._peer_before = self._peer_before, {}
                self._peer = {n: before[n] if before.get(n) == p else p for n, p in made.items()}
            found = self._peers[node_id] = Without(self._peer, node_id)
        return found

    def _contents_of(self, assignments: Iterable[Assignment]) -> dict[str, Content]:
        refs = (ref for a in assignments for ref in (*a.spec.secrets, *a.spec.configs))
        found = (self._content(ref.content) for ref in refs)
        return {content.id: content for content in found if content is not None}

    def _all_slots(self) -> dict[str, StackSlots]:
        """Return how many tasks the services of each stack are to have, stopped ones too.

        By the newest release: what that leaves out of its file is not to come back. The very
        same until a stack or a release changes.
        """
        if self._slots_now is None:
            self._slots_now = self._find_slots()
        return self._slots_now

    def _find_slots(self) -> dict[str, StackSlots]:
        found = {}
        for name, stack in self._cluster.stacks.items():
            if stack.desired == "removed":
                continue
            spec = spec_at(self._cluster, name, stack.release)
            if spec is None:
                continue
            known = self._slots.get(name)
            if known is None or known[0] is not stack or known[1] is not spec:
                counts = {
                    key: EVERY_NODE if service.per_node else copies(stack, service)
                    for key, service in spec.services.items()
                }
                known = self._slots[name] = (stack, spec, StackSlots(services=counts))
            found[name] = known[2]
        for name in [n for n in self._slots if n not in found]:
            del self._slots[name]
        return found

    def _keep_with(
        self, task: Task, stacks: dict[str, Stack], releases: dict[str, KeptRelease]
    ) -> None:
        """Have the node keep what a store that lost it would be filled from."""
        stack = self._cluster.stacks.get(task.stack)
        if stack is not None:
            stacks[task.stack] = stack
        key = f"{task.stack}/{task.release}"
        if key in releases:
            return
        release = self._cluster.releases.get((task.stack, task.release))
        spec = spec_of(self._cluster, release)
        if release is None or spec is None:
            return
        known = self._kept.get(key)
        if known is None or known.release is not release or known.spec is not spec:
            if len(self._kept) > 2 * len(self._cluster.releases) + 64:
                self._kept.clear()
            known = self._kept[key] = KeptRelease(release=release, spec=spec)
        releases[key] = known

    def _network(self, network_id: str) -> NetworkState | None:
        record = self._cluster.networks.get(network_id)
        if record is None:
            return None
        known = self._networks.get(network_id)
        if known is None:
            known = self._networks[network_id] = self._make_network(network_id, record)
        fenced = self._exclusive.fenced().get(network_id, ())
        if known.fenced != fenced:
            known = self._networks[network_id] = known.fencing(fenced)
        return known

    def _make_network(self, network_id: str, record: NetworkRecord) -> NetworkState:
        blocks = tuple(
            Block(cidr=lease.cidr, node=lease.node)
            for _, lease in sorted(self._cluster.leases.get(network_id, {}).items())
            if lease.node != VIPS
        )
        return NetworkState(
            id=record.id,
            name=record.name,
            stack=record.stack,
            key=record.key,
            pool=record.pool,
            more_pools=record.grown,
            internal=record.internal,
            mtu=record.mtu,
            encrypted=record.encrypted,
            blocks=blocks,
        )

    def _content(self, content_id: str) -> Content | None:
        found = self._contents.get(content_id)
        if found is not None:
            return found
        stored = self._cluster.contents.get(content_id)
        if stored is None:
            return None
        data = self._sealer.open(base64.b64decode(stored.sealed))
        found = Content(id=content_id, data=base64.b64encode(data).decode(), secret=stored.secret)
        if not stored.secret:
            self._contents[content_id] = found  # secrets are opened anew, never kept open
        return found

    def _assignment(self, task: Task) -> Assignment | None:
        single = len(self._cluster.nodes) <= 1
        key = (
            *(task.desired, task.restart, task.grace, task.admitted, task.paused),
            *(single, task.release, task.spec_hash),
        )
        known = self._assignments.get(task.id)
        if known is not None and known[0] == key:
            return known[1]
        effective = self._specs.of(task.stack, task.release, task.service)
        if effective is None:
            return None
        made = self._make_assignment(task, effective, single=single).to_keep()
        if len(self._assignments) > 2 * len(self._cluster.tasks) + 64:
            self._assignments = {
                k: v
                for k, v in self._assignments.items()
                if k in self._cluster.tasks or k in self._cluster.oneoffs
            }
        self._assignments[task.id] = (key, made)
        return made

    def _oneoff(self, one: OneOff) -> Assignment:
        """Return a one-off's assignment: to its node it is the one task of a service of its own."""
        task = one.task
        known = self._assignments.get(task.id)
        key = (task.desired, task.grace, task.paused)
        if known is not None and known[0] == key:
            return known[1]
        made = self._make_assignment(task, of_oneoff(one), single=True).model_copy(
            update={
                "service": task.name,
                "slot": 1,
                "after": (),
                "attach": one.attach,
                "oneoff": one.kept,
            }
        )
        self._assignments[task.id] = (key, made)
        return made

    def _make_assignment(self, task: Task, effective: Effective, *, single: bool) -> Assignment:
        spec = spec_there(self._cluster, task, effective)
        ports = tuple(
            p.model_copy(update={"published": task.host_ports.get(f"{p.target}/{p.protocol}")})
            for p in spec.ports
            if p.mode == "host"
        )
        node = self._cluster.nodes.get(task.node or "")
        volumes = effective.volume_names(spec, task.slot, node)
        return Assignment(
            id=task.id,
            stack=task.stack,
            service=task.service,
            slot=task.slot,
            name=task.name,
            spec=spec,
            desired=task.desired,
            restart=task.restart,
            grace=task.grace,
            local_restarts=None if single else LOCAL_RESTARTS,
            networks=self._attachments(task, effective),
            host_ports=ports,
            volumes=volumes,
            elsewhere=made_elsewhere(self._cluster, task, effective),
            volume_options=effective.all_options(volumes, self._cluster.volumes),
            after=waits_for(effective.service, effective.spec.services),
            admitted=task.admitted,
            paused=task.paused,
            fresh_volumes=task.fresh_volumes,
            release=task.release,
            spec_hash=task.spec_hash,
            partner=task.partner,
        )

    def _attachments(self, task: Task, effective: Effective) -> tuple[TaskNetwork, ...]:
        gateway = gateway_key(effective)
        result: list[TaskNetwork] = []
        ordered = sorted(effective.task.networks, key=lambda a: (-a.priority, a.network))
        for attachment in ordered:
            network = self._endpoints.network_of(effective, attachment.network)
            if network is None or network.id not in task.addresses:
                continue
            result.append(
                TaskNetwork(
                    network=network.id,
                    address=task.addresses[network.id],
                    aliases=attachment.aliases,
                    interface=f"eth{len(result)}",
                    gateway=attachment.network == gateway,
                )
            )
        return tuple(result)


def _peer(node: Node) -> Peer:
    return Peer(
        node=node.id,
        name=node.name,
        underlay=node.underlay,
        overlay=node.overlay,
        mtu=node.mtu,
        address=node.address,
        host_key=node.host_key,
    )
