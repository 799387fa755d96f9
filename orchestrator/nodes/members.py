"""Members of the cluster: joining, describing and removing nodes, as store transactions.

The API and controller.py call this. What runs on a node is the control loops'
business; here a node only becomes a member, gets its name, labels, availability and
its own address in the overlay, and in the end stops being one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.errors import Conflict, Invalid, NotFound, RequestError, Unavailable
from orchestrator.keys.identity import node_network
from orchestrator.store import keys
from orchestrator.store.base import Compare, Delete, Put, StoreUnavailable
from specs.api import Progress
from specs.ids import new_id
from specs.node import Node, NodeCondition
from specs.states import FINAL, NodeStatus
from specs.underlay import candidates, refusal

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

    from orchestrator.contracts import Agents, Mirror
    from orchestrator.store.base import Result, Store
    from specs.kit.clock import Clock
    from specs.node import NodeFacts

AVAILABILITIES = ("active", "pause", "drain")
AGAIN = "when there is room again, corral node rm"
ROOM = 30.0  # seconds for the store to take that a node is gone which has left
DRAIN = 120.0  # seconds a node has to become empty before `node rm` gives up
_LABEL = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,126}[a-zA-Z0-9])?")


class NodeTeller(Protocol):
    """Who keeps what happened (control/telling/journal.py)."""

    def of_nodes(self, old: Node | None, new: Node | None) -> ToldOfNode:
        """Return what is to be written beside a node's change, by the same transaction."""
        ...

    def written(self, recorded: Any, revision: int) -> None:
        """Take note that it was written."""
        ...


class ToldOfNode(Protocol):
    """What the journal has written for an event."""

    @property
    def writes(self) -> Sequence[Put | Delete]: ...


class Nodes:
    """Changes of node records; every one is durable and in the mirror when a call returns."""

    def __init__(
        self,
        *,
        store: Store,
        cluster: Mirror,
        agents: Agents,
        pool: str,
        clock: Clock,
        rng: random.Random,
        journal: NodeTeller | None = None,
    ) -> None:
        self._store = store
        self._journal = journal
        self._cluster = cluster
        self._agents = agents
        self._pool = pool
        self._clock = clock
        self._rng = rng
        self._one_at_a_time = asyncio.Lock()  # names and addresses are chosen from what is there
        self._going: Counter[str] = Counter()  # nodes somebody is removing right now

    def find(self, name: str) -> Node:
        """Return the node of that name or id. Raises NotFound."""
        for node in self._cluster.nodes.values():
            if name in (node.name, node.id):
                return node
        known = ", ".join(sorted(node.name for node in self._cluster.nodes.values()))
        raise NotFound(
            f"there is no node {name}", hint=f"nodes are: {known}" if known else "corral node add"
        )

    async def join(
        self,
        facts: NodeFacts,
        *,
        name: str,
        address: str = "",
        host_key: str = "",
        underlay: str = "",
        asked: bool = False,
        labels: Mapping[str, str] | None = None,
        node_id: str = "",
        replaces: str = "",
    ) -> Node:
        """Make a member; its session starts as soon as the mirror shows it.

        ``node_id``: who it was already, in a cluster that forgot it. ``replaces``: the node that
        is lost, forgotten by the same write; the new one has its name, its labels, whether it
        takes tasks, and what was tied to it (``Node.replaces``). Raises Conflict when that is
        not so any more.
        """
        check_labels(labels or {})
        async with self._one_at_a_time:
            lost = self.lost(replaces) if replaces else None
            nodes = [node for node in self._cluster.nodes.values() if node != lost]
            for other in nodes:
                if other.address == address:
                    raise Conflict(f"{address or 'this machine'} is already node {other.name}")
            # The address of a machine that may yet run is not given to another.
            taken = {other.overlay for other in self._cluster.nodes.values()}
            node = Node(
                id=node_id or new_id("n", now=self._clock.wall(), rng=self._rng),
                name=free_name(name, {other.name for other in nodes}),
                address=address,
                host_key=host_key,
                underlay=underlay or next(iter(candidates(facts, self._cluster.ranges)), ""),
                underlay_asked=asked,
                overlay=free_address(self._pool, taken),
                labels=dict(labels or {}),
                facts=facts,
                joined_at=self._clock.wall(),
            )
            if lost is not None:
                node = node.instead_of(lost)
            await self._write(Compare(keys.node(node.id), 0), node, lost=lost)
        return node

    def lost(self, name: str) -> Node:
        """Return a node that another machine may replace.

        Raises NotFound, and Conflict for one that answers, or may yet, or is the controller's own.
        """
        node = self.find(name)
        if not node.address:
            raise Conflict(
                f"{node.name} is the controller's own machine",
                hint="its state comes back with what was saved of it, not by a new node",
            )
        condition = self._cluster.conditions.get(node.id, NodeCondition())
        if condition.status != NodeStatus.DOWN:
            why = f" ({condition.reason})" if condition.reason else ""
            hint = f"corral node rm {node.name} moves its tasks away first"
            if condition.status == NodeStatus.UNKNOWN:
                hint = "it is lost when corral node ls says down"
            raise Conflict(
                f"node {node.name} is {condition.status}{why}: only a lost one is replaced",
                hint=hint,
            )
        return node

    async def update(
        self,
        name: str,
        *,
        labels: Mapping[str, str | None],
        availability: str | None,
        underlay: str | None = None,
    ) -> Node:
        """Set labels (None removes one), availability, and how other nodes reach it.

        Who says what a node takes wants it to stay: one whose removal nobody goes on with (its
        command was interrupted, or the controller killed) does. Raises Conflict where one is
        under way.
        """
        check_labels({key: value for key, value in labels.items() if value is not None})
        if availability is not None and availability not in AVAILABILITIES:
            raise Invalid(
                detail=f"availability {availability!r} is not known",
                hint=f"write one of {', '.join(AVAILABILITIES)}",
            )
        node_id = self.find(name).id
        if availability is not None and self._going[node_id]:
            raise Conflict(
                f"node {name} is being removed",
                hint=f"what is in the way of that shows within {DRAIN:g} s; then ask again",
            )
        if underlay is not None:
            why = refusal(self.find(name), underlay)
            if why:
                raise Invalid(detail=why, hint=f"corral node inspect {name} shows what it has")

        def change(node: Node) -> Node:
            changed = node.with_labels(labels)
            if availability is not None:
                changed = changed.with_availability(availability).with_removing(removing=False)
            if underlay is not None:
                changed = changed.with_underlay(underlay, asked=True)
            return changed

        return await self._change(node_id, change)

    async def remove(self, name: str, *, force: bool) -> AsyncIterator[Progress]:
        """Empty the node, take corral off it, forget it. With ``force`` without asking it."""
        node = self.find(name)
        self._going[node.id] += 1
        try:
            async with contextlib.aclosing(self._remove(node, force=force)) as lines:
                async for line in lines:
                    yield line
        finally:
            self._going[node.id] -= 1

    async def _remove(self, node: Node, *, force: bool) -> AsyncGenerator[Progress, None]:
        await self._change(node.id, lambda n: n.with_removing(removing=True))
        yield self._step(node, "draining")
        try:
            if not force:
                await self._drained(node)
            # It forgets us for good: not before it is seen that we can forget it.
            await self._change(node.id, lambda n: n.with_removing(removing=True))
            yield self._step(node, "leaving")
            await self._agents.leave(node.id)
        except (RequestError, StoreUnavailable) as exc:
            why = exc.detail if isinstance(exc, RequestError) else str(exc)
            if not force or isinstance(exc, StoreUnavailable):
                yield await self._stays(node, why)
                return
            yield self._step(node, f"not cleaned up: {why}")
        yield self._end(node, *await self._forgotten(node))

    async def _stays(self, node: Node, why: str) -> Progress:
        """Keep a node that was to be removed; say why it stays."""
        hint = f"corral node rm --force {node.name} forgets it without asking it"
        try:
            await self._change(node.id, lambda n: n.with_removing(removing=False))
        except StoreUnavailable as exc:
            why = str(exc)
            hint = f"it stays marked as leaving, so nothing new comes to it: {AGAIN} {node.name}"
        return self._end(node, why, hint=hint)

    async def _forgotten(self, node: Node) -> tuple[str, str]:
        """Drop the record of a node that has left; return what is in the way of it, and a hint."""
        until = self._clock.monotonic() + ROOM
        while True:
            try:
                result = await self._txn((), (Delete(keys.node(node.id)),), node, None)
            except StoreUnavailable as exc:
                if self._clock.monotonic() >= until:
                    why = f"{node.name} has left, and its record cannot be dropped: {exc}"
                    return why, f"{AGAIN} --force {node.name}"
                await asyncio.sleep(1.0)
            else:
                await self._cluster.reached(result.revision)
                return "", ""

    async def _drained(self, node: Node) -> None:
        try:
            async with asyncio.timeout(DRAIN):
                while self._tasks_on(node):
                    await asyncio.sleep(0.2)
        except TimeoutError:
            left = ", ".join(sorted(self._tasks_on(node))[:5])
            raise Unavailable(
                f"node {node.name} still runs {left} after {DRAIN:g} s"
                " (a task with a volume there cannot move)"
            ) from None

    def _tasks_on(self, node: Node) -> list[str]:
        oneoffs = (one.task for one in self._cluster.oneoffs.values())
        return [
            task.name
            for task in (*self._cluster.tasks.values(), *oneoffs)
            if task.node == node.id and task.state not in FINAL
        ]

    async def _change(self, node_id: str, change: Callable[[Node], Node]) -> Node:
        """Apply ``change`` to the stored record, again when somebody else was faster."""
        for _ in range(16):
            entry = await self._store.get(keys.node(node_id))
            if entry is None:
                break
            known = Node.model_validate_json(entry.value)
            node = change(known)
            before = Compare(entry.key, entry.version)
            if await self._write(before, node, must=False, known=known):
                return node
        raise Conflict(f"node {node_id} is gone, or changes all the time; try again")

    async def _write(
        self,
        compare: Compare,
        node: Node,
        *,
        must: bool = True,
        lost: Node | None = None,
        known: Node | None = None,
    ) -> bool:
        """Write a node, and forget the ``lost`` one with it; say whether that was done."""
        gone = (Delete(keys.node(lost.id)),) if lost is not None else ()
        put = Put(keys.node(node.id), node.encode())
        result = await self._txn((compare,), (*gone, put), known, node)
        if not result.ok:
            if must:
                raise Conflict(f"node {node.name} was made at the same moment; try again")
            return False
        await self._cluster.reached(result.revision)
        return True

    async def _txn(
        self,
        compares: tuple[Compare, ...],
        writes: tuple[Put | Delete, ...],
        old: Node | None,
        new: Node | None,
    ) -> Result:
        """Write, and with it what is told of the change."""
        told = self._journal.of_nodes(old, new) if self._journal is not None else None
        result = await self._store.txn(compares, (*writes, *(told.writes if told else ())))
        if self._journal is not None and result.ok:
            self._journal.written(told, result.revision)
        return result

    def _step(self, node: Node, message: str) -> Progress:
        return Progress(kind="step", time=self._clock.wall(), node=node.name, message=message)

    def _end(self, node: Node, message: str, hint: str = "") -> Progress:
        return Progress(
            kind="end",
            time=self._clock.wall(),
            node=node.name,
            ok=not message,
            message=message,
            hint=hint,
        )


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that placement constraints could not name."""
    for key, value in labels.items():
        if not _LABEL.fullmatch(key):
            raise Invalid(
                detail=f"{key!r} is not a label name",
                hint="letters, digits, and . _ / - between them, at most 128",
            )
        if len(value) > 1024:
            raise Invalid(detail=f"the value of label {key} is longer than 1024 characters")


def free_name(wanted: str, taken: set[str]) -> str:
    """Return the wanted name made fit for DNS, with a number where it is taken."""
    base = re.sub(r"[^a-z0-9-]+", "-", wanted.lower().split(".")[0]).strip("-")[:50] or "node"
    if base not in taken:
        return base
    return next(f"{base}-{n}" for n in range(2, len(taken) + 3) if f"{base}-{n}" not in taken)


def free_address(pool: str, taken: set[str]) -> str:
    """Return the lowest overlay address no node has."""
    for address in node_network(pool).hosts():
        if str(address) not in taken:
            return str(address)
    raise Unavailable(f"every node address of {pool} is taken")
