"""Who must look again after a record changed: stacks, nodes, readers of streams.

Listens to the mirror. Collecting is cheap and happens per record; working out which
nodes are concerned happens once per burst, because it costs O(tasks on a network).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.control.mirror.records import (
    LEASES,
    NETWORKS,
    NODES,
    ONEOFFS,
    RELEASES,
    RESTING,
    STACKS,
    TASKS,
    VIP,
    VOLUMES,
    Kind,
    NetworkRecord,
    Vip,
    Volume,
)
from orchestrator.control.mirror.released import newest_spec
from orchestrator.control.mirror.serving import SHOWN, is_leaving
from specs.api import Release, Stack
from specs.node import Node
from specs.oneoff import OneOff
from specs.states import FINAL
from specs.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.telling.progress import Streams
    from orchestrator.control.wanted import Outgoing
    from specs.base import Model


class Notices:
    """Turns changes into wake-ups."""

    def __init__(
        self,
        cluster: Cluster,
        out: Outgoing,
        streams: Streams,
        wake: asyncio.Event,
        happened: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        self._cluster = cluster
        self._out = out
        self._streams = streams
        self._happened = happened  # has it kept how nodes fare
        self._wake = wake
        self._stacks: set[str] = set(cluster.stacks) | set(cluster.by_stack)
        self._stacks |= {one.stack for one in cluster.oneoffs.values()}
        self._nodes: set[str] = set()
        self._networks: set[str] = set()
        self._flushing = False
        self._events: dict[str, asyncio.Event] = {}
        cluster.listen(self._changed)

    # stacks

    def take(self) -> set[str]:
        """Return the stacks to look at, and start collecting anew."""
        found, self._stacks = self._stacks, set()
        return found

    def again(self, stacks: set[str]) -> None:
        """Have these looked at at once."""
        self._stacks |= stacks
        self._wake.set()

    def everything(self) -> None:
        """Have every stack looked at."""
        self.again(set(self._cluster.stacks) | {s for s, t in self._cluster.by_stack.items() if t})

    def awaited(self) -> bool:
        """Say whether anybody waits for acknowledgements; have those stacks looked at."""
        waiting = {self._cluster.tasks[task].stack for task in self._cluster.leaving}
        if any(self._cluster.resting.values()):
            waiting |= self._unplaced()
        self._stacks |= waiting
        return bool(waiting)

    def _unplaced(self) -> set[str]:
        """Return stacks with tasks that wait for a node or an address."""
        return {self._cluster.tasks[t].stack for t in self._cluster.unplaced}

    # nodes

    def event_of(self, node: str) -> asyncio.Event:
        """Return the node's event; the dispatcher clears it."""
        found = self._events.get(node)
        if found is None:
            found = self._events[node] = asyncio.Event()
        return found

    def nodes_moved(self, moved: Iterable[tuple[str, str, str]]) -> None:
        """Take note of nodes (id, before, now) that are ready, unready, unknown or down now.

        That is news to whoever has tasks there, and to what waits for any node.
        """
        stacks: set[str] = set()
        for node, _, status in moved:
            record = self._cluster.nodes.get(node)
            name = record.name if record is not None else node
            condition = self._cluster.conditions.get(node)
            reason = condition.reason if condition is not None else ""
            text = f"node {name} is {status}" + (f": {reason}" if reason else "")
            self._happened(f"node.{status}", text, node=name)
            for task in self._cluster.by_node.get(node, {}).values():
                stacks.add(task.stack)
                self._out.forget_service(task.stack, task.service, task.addresses)
                self._networks |= task.addresses.keys()
            for one in self._cluster.oneoffs.values():
                if one.task.node == node:
                    stacks.add(one.stack)
                    self._forget_oneoff(one)
            self._nodes.add(node)
        if self._nodes:
            self.again(stacks | self._awaiting_nodes())
            self._schedule()
            self._streams.moved(None)

    def _awaiting_nodes(self) -> set[str]:
        """Return stacks for which it may matter how a node is that has none of their tasks."""
        cluster = self._cluster
        found = {
            cluster.tasks[task].stack
            for task in (*cluster.unplaced, *cluster.leaving, *cluster.misplaced)
        }
        found |= {one.stack for one in cluster.oneoffs.values() if one.task.node is None}
        for name, stack in cluster.stacks.items():
            release = cluster.releases.get((name, stack.release))
            spec = newest_spec(cluster, stack)
            settled = release is not None and release.over and stack.desired == "up"
            services = spec.services.values() if spec is not None else ()
            if not settled or any(service.per_node for service in services):
                found.add(name)
        return found

    def everywhere(self) -> None:
        """Have every stack looked at and every node told: something of the cluster's changed."""
        self.everything()
        self._all_nodes()

    def _all_nodes(self) -> None:
        self._nodes |= set(self._cluster.nodes)
        self._schedule()

    # changes

    def _changed(self, kind: Kind, old: Model | None, new: Model | None) -> None:
        model = new if new is not None else old
        if kind is TASKS:
            self._task(old if isinstance(old, Task) else None, new)
        elif kind is ONEOFFS and isinstance(model, OneOff):
            self._oneoff(model, old if isinstance(old, OneOff) else None)
        elif kind is STACKS and isinstance(model, Stack):
            self.again({model.name})
            self._nodes |= self._holders(model, old)
            self._changed_over(model, old)
            if self._nodes:
                self._schedule()
            self._tell_stack(model, gone=new is None)
        elif kind is RELEASES and isinstance(model, Release):
            self._release(model)
        elif kind is NODES:
            self._node(old, new)
        elif kind in (NETWORKS, LEASES, VIP):
            network = str(getattr(model, "id", "") or getattr(model, "network", ""))
            self._networks.add(network)
            self._out.forget_network(network)
            if isinstance(model, Vip):
                self._out.forget_service(model.stack, model.service, (network,))
            elif isinstance(model, NetworkRecord):
                self._out.forget_networks(model.name)
            self._schedule()
        elif kind is RESTING and new is None:
            self.again(self._unplaced())
        elif kind is VOLUMES:
            self._volume(old, new)
        self._out.read_anew(kind)
        self._tell_dropped(old, new)

    def _volume(self, old: Model | None, new: Model | None) -> None:
        stack = str(getattr(new if new is not None else old, "stack", ""))
        self.again(self._unplaced() | ({stack} & self._cluster.stacks.keys()))
        if getattr(old, "move", None) != getattr(new, "move", None):
            self.everything()  # whoever has it stops, or goes on

    def _tell_stack(self, stack: Stack, *, gone: bool) -> None:
        if gone:
            self._streams.gone(stack.name)
        elif stack.desired == "up":
            self._streams.begun_anew(stack.name)
        self._streams.moved(stack.name)

    def _tell_dropped(self, old: Model | None, new: Model | None) -> None:
        """Tell which volume or network nobody has any more."""
        if isinstance(new, NetworkRecord) and new.retired and not _retired(old):
            self._streams.dropped(new.stack, "network", new.name)
        elif isinstance(old, Volume) and new is None:
            self._streams.dropped(old.stack, "volume", old.name)

    def _holders(self, stack: Stack, old: Model | None) -> set[str]:
        """Return the nodes with anything of a stack that changed."""
        if stack.desired == "removed" and isinstance(old, Stack) and old.desired != "removed":
            return set(self._cluster.nodes)  # any may have what its tasks left
        tasks = self._cluster.by_stack.get(stack.name, {}).values()
        return {task.node for task in tasks if task.node is not None}

    def _changed_over(self, stack: Stack, old: Model | None) -> None:
        """Have all that see a service told where its traffic goes to other tasks."""
        before = old.standby if isinstance(old, Stack) else {}
        moved = {n for n in {*before, *stack.standby} if before.get(n) != stack.standby.get(n)}
        for task in self._cluster.by_stack.get(stack.name, {}).values() if moved else ():
            if task.service in moved:
                self._out.forget_service(task.stack, task.service, task.addresses)
                self._networks |= task.addresses.keys()

    def _release(self, release: Release) -> None:
        if release.stack in self._cluster.stacks:
            self.again({release.stack})
        for task in self._cluster.by_stack.get(release.stack, {}).values():
            if task.turn == "beside":  # a canary, whose share may be another now
                self._out.forget_service(task.stack, task.service, task.addresses)
                self._networks |= task.addresses.keys()
        if self._networks:
            self._schedule()
        self._out.forget_stack(release.stack)
        self._streams.moved(release.stack)

    def _node(self, old: Model | None, new: Model | None) -> None:
        before = old if isinstance(old, Node) else None
        after = new if isinstance(new, Node) else None
        if before is not None and after is not None and _same_place(before, after):
            # Only its facts moved: images, listening ports. Matters to what waits for a node.
            self.again(self._unplaced())
            return
        self._out.forget_peers()
        self._out.forget_all()
        self.everything()
        self._all_nodes()

    def _task(self, old: Task | None, new: Model | None) -> None:
        task = new if isinstance(new, Task) else old
        if task is None:
            return
        after = new if isinstance(new, Task) else None
        self.again({task.stack})
        self._streams.moved(task.stack)
        if task.node is not None:
            self._nodes.add(task.node)
        if _seen_by_others(old) != _seen_by_others(after):
            networks = {*task.addresses, *(old.addresses if old is not None else ())}
            self._out.forget_service(task.stack, task.service, networks)
            self._networks |= networks
        elif task.node is None:
            return
        self._schedule()

    def _oneoff(self, one: OneOff, old: OneOff | None) -> None:
        self.again({one.stack})
        self._streams.moved(one.stack)
        for found in (one, old):
            if found is not None and found.task.node is not None:
                self._nodes.add(found.task.node)
                self._networks |= {*found.addresses}
                self._forget_oneoff(found)
        self._forget_oneoff(one)
        self._schedule()

    def _forget_oneoff(self, one: OneOff) -> None:
        for name in (one.task.name, one.service.name):
            self._out.forget_service(one.stack, name, one.addresses)
        self._networks |= one.addresses.keys()

    def _schedule(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Tell the nodes concerned."""
        self._flushing = False
        # Who needs a network no more must hear of it too: else it would keep it until something
        # else changes there.
        self._nodes |= self._out.holders(self._networks)
        for nodes in self._out.interested(self._networks).values():
            self._nodes |= nodes
        for node in sorted(self._nodes):  # the same order whatever the hashes
            self.event_of(node).set()
        self._nodes = set()
        self._networks = set()
        for node in [n for n in self._events if n not in self._cluster.nodes]:
            del self._events[node]


def _same_place(old: Node, new: Node) -> bool:
    """Say whether nothing but the facts changed."""
    return old.with_facts(new.facts) == new


def _seen_by_others(task: Task | None) -> object:
    """Return what other nodes are told of a task: not how far its start or its end is."""
    if task is None:
        return None
    return (
        task.status.ready,
        is_leaving(task),
        task.desired,  # with being over: what of an exclusive service is fenced off
        task.state in SHOWN,
        task.state in FINAL,
        task.node,
        tuple(sorted(task.addresses.items())),
        task.release,
    )


def _retired(network: Model | None) -> bool:
    return isinstance(network, NetworkRecord) and network.retired
