"""The in-memory mirror of the store: typed records and the indexes the loops need.

``Cluster`` is the controller's only reader of the store. It follows the watch, and
the control loops apply their own commits to it at once (``applied``), so that they
and the API read their own writes. It also holds what is observed and never stored:
node conditions. It decides nothing and writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from posixpath import normpath
from typing import TYPE_CHECKING, Any, Self, cast

from orchestrator.control.mirror.fixed import FixedAddresses
from orchestrator.control.mirror.records import (
    BOUND_PATHS,
    IDEMPOTENCY,
    LEASES,
    NETWORKS,
    NODES,
    ONEOFFS,
    PARTS,
    RELEASES,
    RESTING,
    SCHEDULES,
    STACKS,
    TASKS,
    VIP,
    VOLUMES,
    BoundPath,
    Idempotency,
    Kind,
    Lease,
    NetworkRecord,
    Resting,
    StoredContent,
    Vip,
    Volume,
    kind_of,
)
from orchestrator.control.mirror.told import Silent
from orchestrator.keys.identity import ClusterRecord, decode
from orchestrator.store import keys
from orchestrator.store.base import Change, Compacted, Damaged, Store
from specs import skew
from specs.states import FINAL

if TYPE_CHECKING:
    from orchestrator.control.mirror.told import EventKeeper
    from specs.api import Release, Stack
    from specs.base import Model
    from specs.kit.clock import Clock
    from specs.node import Node, NodeCondition
    from specs.oneoff import OneOff
    from specs.schedule import Schedule
    from specs.stack import StackSpec
    from specs.task import Task

log = logging.getLogger(__name__)

WHO_CAN = "nothing was changed; start the version of corral that wrote it"
OPENING = 256  # records read before others get their turn
# What a fork has of its own.
_OWN = frozenset(
    ("_store", "_clock", "_listeners", "_held", "_released", "_moved", "_nodes_changed")
)
Listener = Callable[[Kind, "Model | None", "Model | None"], None]  # kind, old, new


class Cluster:
    """Everything the store holds, decoded; see the module's docstring."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.record = ClusterRecord()
        self.revision = 0
        self.changes = 0  # how many records changed in this mirror: the same number, the same state
        self.stacks: dict[str, Stack] = {}
        self.releases: dict[tuple[str, int], Release] = {}
        self.parts: dict[str, StackSpec] = {}
        self.tasks: dict[str, Task] = {}
        self.oneoffs: dict[str, OneOff] = {}  # by the id of their task
        self.schedules: dict[tuple[str, str], Schedule] = {}  # by stack and service
        self.stack_schedules: dict[str, dict[str, Schedule]] = defaultdict(dict)
        self.nodes: dict[str, Node] = {}
        self.networks: dict[str, NetworkRecord] = {}
        self.leases: dict[str, dict[str, Lease]] = defaultdict(dict)  # network -> cidr
        self.vips: dict[str, dict[tuple[str, str], Vip]] = defaultdict(dict)  # network
        self.resting: dict[str, dict[str, Resting]] = defaultdict(dict)  # network -> address
        self.contents: dict[str, StoredContent] = {}
        self.volumes: dict[str, Volume] = {}
        self.bound_paths: dict[tuple[str, str], BoundPath] = {}
        self.requests: dict[str, Idempotency] = {}  # Deploy.key -> what it made
        self.conditions: dict[str, NodeCondition] = {}
        self.by_stack: dict[str, dict[str, Task]] = defaultdict(dict)
        self.by_node: dict[str, dict[str, Task]] = defaultdict(dict)
        self.unplaced: set[str] = set()  # tasks that wait for a node
        self.leaving: set[str] = set()  # tasks whose endpoints are withdrawn
        self.misplaced: set[str] = set()  # tasks on nodes that break their constraints
        # network -> how often anything of it moved: its leases, VIPs, addresses, what rests
        self.network_moves: dict[str, int] = defaultdict(int)
        # network: address -> task or one-off
        self.by_network: dict[str, dict[str, str]] = defaultdict(dict)
        # network -> node -> how many tasks and one-offs there are on it
        self.nodes_on: dict[str, dict[str, int]] = defaultdict(dict)
        self.stack_releases: dict[str, dict[int, Release]] = defaultdict(dict)
        self.fixed = FixedAddresses(self)
        self._versions: dict[str, int] = {}
        self._deleted: dict[str, int] = {}
        self._models: dict[str, Model] = {}
        self._listeners: list[Listener] = []
        self.journal: EventKeeper = Silent()  # who tells what is written
        self._followed = 0
        self._held = 0  # decisions under way that read the mirror
        self._released = asyncio.Event()
        self._moved = asyncio.Event()
        self._nodes_changed = asyncio.Event()

    @classmethod
    async def open(cls, store: Store, clock: Clock) -> Self:
        """Read the whole store; ``follow`` keeps it current from there."""
        cluster = cls(store, clock)
        await cluster._load(opening=True)
        return cluster

    def forked(self, clock: Clock) -> Cluster:
        """Return the mirror as it is now, apart: what is applied there is in no store.

        Records are shared, as nobody changes one. Nobody listens to it, nor does it follow.
        """
        made = Cluster(self._store, clock)
        for name, value in vars(self).items():
            if name not in _OWN:
                setattr(made, name, copied(value))
        return made

    def releases_of(self, stack: str) -> Collection[Release]:
        """Return the kept releases of a stack, also after its `down`; no others are looked at."""
        return self.stack_releases.get(stack, {}).values()

    def tasks_of(self, stack: str) -> Collection[Task]:
        """Return the tasks of a stack; of others nothing is looked at."""
        return self.by_stack.get(stack, {}).values()

    def tasks_on(self, node: str) -> Collection[Task]:
        """Return the tasks a node has, by its id; of others nothing is looked at."""
        return self.by_node.get(node, {}).values()

    def network_name(self, network: str) -> str:
        """Return what the network with this id is called; the id itself once its record is gone."""
        known = self.networks.get(network)
        return known.name if known is not None else network

    def path_home(self, stack: str, path: str) -> str | None:
        """Return the node with a stack's data at a path of nodes; "" = every one, None = none."""
        found = self.bound_paths.get((stack, normpath(path)))
        return found.node if found is not None else None

    async def _load(self, *, opening: bool = False) -> None:
        snapshot = await self._store.list("/")
        await self._free()
        present = {entry.key for entry in snapshot.entries}
        for key in [key for key in self._models if key not in present]:
            self._apply(key, None, snapshot.revision)
        for number, entry in enumerate(snapshot.entries, 1):
            self._apply(entry.key, entry.value, entry.version)
            if opening and not number % OPENING:
                await asyncio.sleep(0)
        self._followed = max(self._followed, snapshot.revision)
        self._advance(snapshot.revision)

    async def follow(self) -> None:
        """Apply every change of the store until cancelled."""
        while True:
            try:
                async for batch in self._store.watch("/", self._followed):
                    await self._free()
                    self._follow(batch.revision, batch.changes)
            except Compacted:
                log.warning("the store's history was compacted under the mirror: reading it anew")
                await self._load()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold others' changes back while somebody decides in several turns."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._released.set()

    async def _free(self) -> None:
        """Return when nobody holds the mirror; whoever is woken too late waits again."""
        while self._held:
            self._released.clear()
            await self._released.wait()

    def _follow(self, revision: int, changes: Iterable[Change]) -> None:
        for change in changes:
            self._apply(change.key, change.value, change.version)
        self._followed = revision
        self._deleted = {k: r for k, r in self._deleted.items() if r > revision}
        self._advance(revision)

    def applied(self, revision: int, writes: Iterable[tuple[str, Model | None]]) -> None:
        """Apply what this process just committed, without waiting for the watch."""
        for key, model in writes:
            if revision > self._known(key):
                self._set(key, model, revision)
        # Others' commits before this one may still be on their way, so ``reached`` does not
        # count this; whoever asks which of *our* removals a node has seen must.
        self._advance(revision)

    async def refresh(self, key: str) -> None:
        """Read one key anew: somebody changed it and the watch has not told yet."""
        entry = await self._store.get(key)
        if entry is not None:
            self._apply(key, entry.value, entry.version)
        elif key in self._models:
            self._apply(key, None, (await self._store.list(key)).revision)

    def _known(self, key: str) -> int:
        return max(self._versions.get(key, 0), self._deleted.get(key, 0))

    def _advance(self, revision: int) -> None:
        self.revision = max(self.revision, revision)
        self._moved.set()
        self._moved = asyncio.Event()

    async def reached(self, revision: int) -> None:
        """Return when the mirror contains ``revision`` and everything before it."""
        while self._followed < revision:
            await self._moved.wait()

    def nodes_changed(self) -> asyncio.Event:
        """Return the event that is set whenever a node record changes; the dispatcher clears it."""
        return self._nodes_changed

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` after every record's change."""
        self._listeners.append(listener)

    @property
    def ranges(self) -> tuple[str, ...]:
        """Return the ranges that networks' pools are cut from."""
        return self.record.ranges

    @property
    def chosen(self) -> dict[str, str]:
        """Return the ranges that files chose themselves, with the names of their networks."""
        return {
            pool: network.name
            for network in self.networks.values()
            if network.subnets and not network.retired
            for pool in network.pools
        }

    def present(self, key: str) -> Model | None:
        """Return the record of that key, or None."""
        return self._models.get(key)

    def version(self, key: str) -> int:
        """Return the revision of the key's last change, 0 when it does not exist."""
        return self._versions.get(key, 0)

    def _apply(self, key: str, value: bytes | None, version: int) -> None:
        if version <= self._known(key):
            return
        if key == keys.CLUSTER:
            self._versions[key] = version
            self.changes += 1
            if value is not None:
                self.record = decode(value)
            return
        kind = kind_of(key)
        if kind is None:
            return
        model = None if value is None else _read(kind, key, value)
        self._set(key, model, version)

    def _set(self, key: str, model: Model | None, version: int) -> None:
        kind = kind_of(key)
        if kind is None:
            return
        old = self._models.get(key)
        self.changes += 1
        if model is None:
            self._models.pop(key, None)
            self._versions.pop(key, None)
            self._deleted[key] = version
        else:
            self._models[key] = model.to_keep()
            self._versions[key] = version
            self._deleted.pop(key, None)
        self._index(kind, key, old, model)
        for listener in self._listeners:
            listener(kind, old, model)

    def _index(self, kind: Kind, key: str, old: Model | None, new: Model | None) -> None:
        if kind is TASKS:
            self._index_task(cast("Task | None", old), cast("Task | None", new))
            return
        if kind is ONEOFFS:
            self._index_oneoff(cast("OneOff | None", old), cast("OneOff | None", new))
            return
        if kind is PARTS:
            digest = key.removeprefix(keys.PARTS)
            _put(self.parts, digest, cast("StackSpec | None", new))
            return
        if kind is IDEMPOTENCY:
            _put(self.requests, key.removeprefix(keys.IDEMPOTENCY), new)
            return
        record: Any = new if new is not None else old
        if record is not None:
            self._index_record(kind, record, gone=new is None)
        if new is None and record is not None:
            self._forget(kind, record)

    def _index_record(self, kind: Kind, record: Any, *, gone: bool) -> None:
        where: dict[Any, Any]
        if kind is STACKS:
            where, key = self.stacks, record.name
        elif kind is RELEASES:
            _put(self.releases, (record.stack, record.number), None if gone else record)
            where, key = self.stack_releases[record.stack], record.number
        elif kind is NODES:
            where, key = self.nodes, record.id
            if gone:
                self.conditions.pop(record.id, None)
            self._nodes_changed.set()
        elif kind is LEASES:
            where, key = self.leases[record.network], record.cidr
        elif kind is VIP:
            where, key = self.vips[record.network], (record.stack, record.service)
        elif kind is RESTING:
            where, key = self.resting[record.network], record.address
        elif kind is VOLUMES:
            where, key = self.volumes, record.name
        elif kind is SCHEDULES:
            _put(self.schedules, (record.stack, record.service), None if gone else record)
            where, key = self.stack_schedules[record.stack], record.service
        elif kind is BOUND_PATHS:
            where, key = self.bound_paths, (record.stack, record.path)
        else:
            where = self.networks if kind is NETWORKS else self.contents
            key = record.id
        _put(where, key, None if gone else record)
        if kind in (LEASES, VIP, RESTING):
            self.network_moves[record.network] += 1

    def _index_task(self, old: Task | None, new: Task | None) -> None:
        if old is not None:
            self.tasks.pop(old.id, None)
            self.by_stack[old.stack].pop(old.id, None)
            self.unplaced.discard(old.id)
            self.leaving.discard(old.id)
            self.misplaced.discard(old.id)
            if old.node is not None:
                self.by_node[old.node].pop(old.id, None)
            self._let_go(old, old.node)
        if new is not None:
            self.tasks[new.id] = new
            self.by_stack[new.stack][new.id] = new
            if new.leaving:
                self.leaving.add(new.id)
            if new.misplaced:
                self.misplaced.add(new.id)
            if new.node is not None:
                self.by_node[new.node][new.id] = new
            elif new.state not in FINAL:
                self.unplaced.add(new.id)
            self._settle(new.id, new.node, new.addresses)
        before, now = (task.addresses if task is not None else {} for task in (old, new))
        if before != now:
            for network in before.keys() | now.keys():
                self.network_moves[network] += 1
        if old is not None and new is None:
            for network in old.addresses:
                self._forget_network(network)
            self._forget_stack(old.stack)

    def _index_oneoff(self, old: OneOff | None, new: OneOff | None) -> None:
        if old is not None:
            self.oneoffs.pop(old.id, None)
            self._let_go(old, old.task.node)
        if new is not None:
            self.oneoffs[new.id] = new
            self._settle(new.id, new.task.node, new.addresses)
        for one in (old, new):
            for network in one.addresses if one is not None else ():
                self.network_moves[network] += 1
        if old is not None and new is None:
            for network in old.addresses:
                self._forget_network(network)

    def _settle(self, task: str, node: str | None, addresses: Mapping[str, str]) -> None:
        for network, address in addresses.items():
            self.by_network[network][address] = task
            if node is not None:
                nodes = self.nodes_on[network]
                nodes[node] = nodes.get(node, 0) + 1

    def _let_go(self, old: Task | OneOff, node: str | None) -> None:
        for network, address in old.addresses.items():
            if self.by_network[network].get(address) == old.id:
                del self.by_network[network][address]
            nodes = self.nodes_on[network]
            left = nodes.get(node or "", 0) - 1
            if left > 0:
                nodes[node or ""] = left
            else:
                nodes.pop(node or "", None)

    def _forget(self, kind: Kind, record: Any) -> None:
        """Keep no empty mappings of what is no more."""
        if kind in (NETWORKS, LEASES, VIP, RESTING):
            self._forget_network(record.id if kind is NETWORKS else record.network)
        elif kind in (STACKS, RELEASES):
            self._forget_stack(record.name if kind is STACKS else record.stack)
        elif kind is NODES and not self.by_node.get(record.id):
            self.by_node.pop(record.id, None)

    def _forget_network(self, network: str) -> None:
        """Keep nothing of a network of which nothing is left: they come and go for years."""
        held = (self.leases, self.vips, self.resting, self.by_network)
        if network not in self.networks and not any(where.get(network) for where in held):
            for where in (*held, self.nodes_on, self.network_moves):
                where.pop(network, None)

    def _forget_stack(self, stack: str) -> None:
        if stack not in self.stacks and not self.stack_releases.get(stack):
            self.stack_releases.pop(stack, None)
            if not self.by_stack.get(stack):
                self.by_stack.pop(stack, None)


def copied(value: Any) -> Any:
    """Return a container, and those in it, to be changed apart from this one; others as they are.

    What is in a mapping is all of one kind, so its first value tells whether it has containers.
    """
    if not isinstance(value, dict | set):
        return value
    made = copy.copy(value)
    if isinstance(value, dict) and isinstance(next(iter(value.values()), None), dict | set):
        made.update((key, copy.copy(inner)) for key, inner in value.items())
    return made


def _read(kind: Kind, key: str, value: bytes) -> Model:
    """Return a record. Raises Damaged: what cannot be read is neither left out nor changed."""
    try:
        read = skew.decode(kind.model, value)
    except skew.Unreadable as exc:
        raise Damaged(f"the store's record {key} cannot be read: {exc}; {WHO_CAN}") from exc
    if kind is PARTS and not read.whole:
        # A spec to execute: half of it would be another one.
        raise Damaged(f"the store's record {key} has {read.notes()[0]}; {WHO_CAN}")
    if not read.whole:
        log.warning("a record is of a newer version", extra={"key": key, "why": read.notes()[:5]})
    return read.value


def _put(where: dict[Any, Any], key: object, value: object | None) -> None:
    if value is None:
        where.pop(key, None)
    else:
        where[key] = value
