"""Changes being decided in one pass, and their commit.

The planning functions of ``orchestrator.control`` read through a ``Draft`` (mirror
plus the changes made so far) and write into it; nothing leaves it before
``commit``, which is the control loop's only write to the store. Every write compares
the version it was decided on, so a change that crossed it makes the commit fail as a
whole chunk and the next pass decides anew. What gets a node is decided on that node's record, too:
one that was drained or forgotten at that moment would get a task, and a volume its home, for good.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from orchestrator.control.mirror.records import NETWORKS, ONEOFFS, RESTING, TASKS, Kind, Resting
from orchestrator.store import keys
from orchestrator.store.base import MAX_OPERATIONS, Compare, Delete, Put, Store
from specs.api import Stack
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.control.mirror.cluster import Cluster
    from specs.base import Model
    from specs.events import Event
    from specs.oneoff import OneOff
    from specs.schedule import Schedule
    from specs.task import Task

CHUNK_BYTES = 1024 * 1024
RECORDS = MAX_OPERATIONS - 28  # in one transaction: what is told of them needs room, too


class Draft:
    """One pass's changes over the mirror."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.writes: dict[str, Model | None] = {}
        self.networks: dict[str, Model | None] = {}  # of ``writes``, by key: asked for each task
        self._stacks: dict[str, dict[str, Task]] = {}
        self._tasks: dict[str, Task | None] = {}
        self._fresh: dict[str, OneOff] = {}
        self.because: dict[str, str] = {}  # task -> why it is made or stopped, see told.there
        self.notes: list[Event] = []  # what else happened

    def __bool__(self) -> bool:
        return bool(self.writes or self.notes)

    # tasks

    def task(self, task_id: str) -> Task | None:
        """Return the task as this pass left it."""
        if task_id in self._tasks:
            return self._tasks[task_id]
        return self.cluster.tasks.get(task_id)

    def tasks(self, stack: str) -> dict[str, Task]:
        """Return the stack's tasks by id, changes included. Do not change the mapping."""
        found = self._stacks.get(stack)
        if found is None:
            found = self._stacks[stack] = dict(self.cluster.by_stack.get(stack, {}))
        return found

    def all_tasks(self) -> Iterator[Task]:
        """Yield every task, changes included."""
        for task in self.cluster.tasks.values():
            if task.id not in self._tasks:
                yield task
        for changed in self._tasks.values():
            if changed is not None:
                yield changed

    def put_task(self, task: Task) -> None:
        """Create or change a task."""
        self.tasks(task.stack)[task.id] = task
        self._tasks[task.id] = task
        self.writes[keys.task(task.stack, task.id)] = task

    def delete_task(self, task: Task) -> None:
        """Forget a task of which nothing is left; its addresses rest from here on."""
        self.tasks(task.stack).pop(task.id, None)
        self._tasks[task.id] = None
        key = keys.task(task.stack, task.id)
        if self.cluster.version(key):
            self.writes[key] = None
        else:
            self.writes.pop(key, None)
        self._let_rest(task)

    def leave_node(self, task: Task) -> None:
        """Keep what is known of a task that ended when its node leaves; its addresses rest."""
        self.put_task(task.without_node())
        self._let_rest(task)

    # one-offs

    def oneoff(self, task_id: str) -> OneOff | None:
        """Return the one-off as this pass left it."""
        known = self.cluster.oneoffs.get(task_id)
        if known is None and task_id not in self._fresh:
            return None
        found = known or self._fresh[task_id]
        present: OneOff | None = self.get(ONEOFFS.key_of(found), found)
        return present

    def oneoffs(self, stack: str | None = None) -> list[OneOff]:
        """Return every one-off (of the stack), changes included."""
        ids = [*self.cluster.oneoffs, *(i for i in self._fresh if i not in self.cluster.oneoffs)]
        found = (self.oneoff(task_id) for task_id in ids)
        return [one for one in found if one is not None and stack in (None, one.stack)]

    def put_oneoff(self, one: OneOff) -> None:
        """Create or change a one-off."""
        self._fresh[one.id] = one
        self.writes[ONEOFFS.key_of(one)] = one

    def delete_oneoff(self, one: OneOff) -> None:
        """Forget a one-off of which nothing is left."""
        self.writes[ONEOFFS.key_of(one)] = None
        self._let_rest(one)

    def oneoff_gone(self, one: OneOff, at: float) -> None:
        """Remember only how a one-off ended; its addresses rest."""
        self._let_rest(one)
        self.put_oneoff(one.gone(at))

    def schedules(self, stack: str) -> list[Schedule]:
        """Return the stack's schedules, changes included."""
        prefix = keys.schedule(stack, "")
        known = self.cluster.stack_schedules.get(stack, {}).values()
        made = [key for key in self.writes if key.startswith(prefix)]
        untouched = [one for one in known if keys.schedule(stack, one.service) not in made]
        changed: list[Any] = [self.writes[key] for key in made if self.writes[key] is not None]
        return [*untouched, *changed]

    def _let_rest(self, task: Task | OneOff) -> None:
        for network, address in task.addresses.items():
            self.put(RESTING, Resting(network=network, address=address))

    # everything else

    def put(self, kind: Kind, model: Model) -> None:
        assert kind is not TASKS
        if isinstance(model, Stack):
            # Agents keep the newest one they were told: a store that is older shows by it.
            known = self.cluster.stacks.get(model.name)
            count = (known.generation if known is not None else 0) + 1
            model = model.stamped(self.cluster.record.epoch, max(count, model.generation))
        self.writes[kind.key_of(model)] = model
        if kind is NETWORKS:
            self.networks[kind.key_of(model)] = model

    def put_key(self, key: str, model: Model) -> None:
        """Write a record whose key is not in the record itself."""
        self.writes[key] = model

    def delete(self, kind: Kind, model: Model) -> None:
        self.writes[kind.key_of(model)] = None
        if kind is NETWORKS:
            self.networks[kind.key_of(model)] = None

    def get(self, key: str, present: Any) -> Any:
        """Return what this pass made of ``key``, or ``present`` where it did not touch it."""
        return self.writes.get(key, present) if key in self.writes else present

    # commit

    async def commit(self, store: Store) -> bool:
        """Write the changes, in as few transactions as the store's limits allow.

        Return whether all of it was written; what was is applied to the mirror either way.
        """
        decided_on = {key: self.cluster.version(key) for key in self.writes}
        relied_on = {key: self.cluster.version(key) for key in self._places()}
        journal, notes = self.cluster.journal, self.notes
        reached("pass.decided")
        for number, chunk in enumerate(self._chunks() if self.writes else ([],)):
            if number:
                reached("pass.mid")
                await asyncio.sleep(0)  # others' turn: an engine in memory does not wait
            # In each of them: the volumes and addresses of what is placed are written before it.
            compares = tuple(
                Compare(key, version)
                for key, version in {**relied_on, **{k: decided_on[k] for k, _, _ in chunk}}.items()
            )
            writes = tuple(
                Delete(key) if value is None else Put(key, value) for key, value, _ in chunk
            )
            changes = [(self.cluster.present(key), model) for key, _, model in chunk]
            told = journal.record(changes, self.because, notes, room=MAX_OPERATIONS - len(chunk))
            if not writes and not told.writes:
                journal.written(told, 0)
                break
            result = await store.txn(compares, (*writes, *told.writes))
            if not result.ok:
                # The watch may bring the crossing change late; without it we would lose again.
                await self.cluster.refresh(result.failed)
                return False
            self.cluster.applied(result.revision, [(key, model) for key, _, model in chunk])
            journal.written(told, result.revision)
            notes = []
            for key in relied_on.keys() & {key for key, _, _ in chunk}:
                relied_on[key] = result.revision  # written by ourselves
        reached("pass.written")
        return True

    def _places(self) -> set[str]:
        """Return the keys of the nodes that something gets in this pass."""
        found = set()
        for task in (*self._tasks.values(), *(one.task for one in self._fresh.values())):
            if task is not None and task.node is not None:
                one = self.cluster.oneoffs.get(task.id)
                known = one.task if one is not None else self.cluster.tasks.get(task.id)
                if known is None or known.node != task.node:
                    found.add(keys.node(task.node))
        return found

    def _chunks(self) -> Iterator[list[tuple[str, bytes | None, Model | None]]]:
        chunk: list[tuple[str, bytes | None, Model | None]] = []
        size = 0
        for key, model in sorted(self.writes.items(), key=lambda item: _rank(item[0])):
            value = None if model is None else model.encode()
            cost = len(key) + len(value or b"")
            if chunk and (len(chunk) == RECORDS or size + cost > CHUNK_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append((key, value, model))
            size += cost
        if chunk:
            yield chunk


# What others point at is written first: a crash between two chunks leaves a lease
# without tasks, never a task without its lease. Releases and stacks say "done" last.
_RANKS = {
    keys.PARTS: 0,
    keys.CONTENTS: 0,
    keys.NETWORKS: 1,
    keys.VOLUMES: 1,
    keys.BOUND_PATHS: 1,
    keys.BLOCKS: 2,
    keys.VIPS: 2,
    keys.TASKS: 4,
    keys.ONEOFFS: 4,
    keys.RESTING: 3,
    keys.SCHEDULES: 5,
    keys.RELEASES: 6,
    keys.STACKS: 7,
}


def _rank(key: str) -> int:
    return next((rank for prefix, rank in _RANKS.items() if key.startswith(prefix)), 8)
