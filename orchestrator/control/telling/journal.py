"""The journal: events written beside what they tell of, bounded, and read again.

A draft shows it every change before that is written (mirror/told.py): what comes of it goes
into the same transaction, one record for each stack. What belongs to no record (a node fell
silent) waits for the next transaction. Bounded: ``A_STACK`` events of a stack and ``BYTES`` in
all, the oldest go first; of one moment more than ``ALIKE`` events of one service are one; and
what goes on happening to one slot or node is counted in one record after ``SINGLE`` times.
Nothing here decides anything, and what it keeps in memory is made anew by ``load``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Protocol

from orchestrator.control.mirror.told import Recorded, there
from orchestrator.control.telling.news import of_record
from orchestrator.store import keys
from orchestrator.store.base import Delete, Put
from specs import skew
from specs.events import Event, EventBatch, matches, spans
from specs.kit import masking
from specs.kit.amounts import some
from specs.kit.log import ASKED_BY
from specs.task import Task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from orchestrator.contracts import EventQuery
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.telling.news import News
    from orchestrator.control.telling.progress import Streams
    from orchestrator.store.base import Store
    from specs.base import Model
    from specs.kit.clock import Clock
    from specs.node import Node

log = logging.getLogger(__name__)

A_STACK = 1000  # events kept of one stack, and as many that belong to none (nodes)
BYTES = 4 * 1024 * 1024  # of all of them in the store
ALIKE = 5  # of one moment: more than so many of a service and kind are told as one
SINGLE = 3  # times that something happens within WINDOW before it is only counted
WINDOW = 900.0  # seconds; more than the longest back-off between two runs of an agent
LONGEST = 600  # characters of a message
WAITING = 1000  # events that wait for a transaction while the store cannot be written
READ = 64  # records read before others get their turn
NAMED = 16  # nodes named in one event

Slot = tuple[object, ...]
# For several alike: what is said behind "12 tasks of web".
_MANY = {
    "task.assigned": "are placed",
    "task.running": "are running",
    "task.stopping": "are stopped",
    "task.new": "are made",
    "image.pulling": "wait for their image",
    "task.shutdown": "have stopped",
    "restart.asked": "are to be restarted",
    "health.healthy": "are healthy",
    "health.unhealthy": "are unhealthy",
}


class Readers(Protocol):
    """Whoever follows what happens."""

    @property
    def some(self) -> bool:
        """Whether there are any."""
        ...

    def event(self, event: Event, revision: int) -> None:
        """Tell them of an event of the store's revision."""
        ...


class EventJournal:
    """See the module; made by the control loop, given to the mirror as ``Cluster.journal``."""

    def __init__(self, store: Store, cluster: Cluster, clock: Clock, readers: Readers) -> None:
        self._store = store
        self._cluster = cluster
        self._clock = clock
        self._readers = readers
        self._waiting: deque[Event] = deque(maxlen=WAITING)
        self._last = 0  # microseconds: of two records the later one has the greater id
        self._kept: OrderedDict[str, tuple[str, int, int]] = OrderedDict()  # key: stack, count, B
        self._bytes = 0
        self._counts: dict[str, int] = {}  # stack -> events
        # What happened lately -> how often, the record that counts it, as it is.
        self._folds: OrderedDict[Slot, tuple[int, str, Event]] = OrderedDict()
        self._loading = asyncio.Lock()
        self._loaded = False
        cluster.journal = self

    @property
    def waits(self) -> bool:
        """Whether something is to be written that belongs to no record's change."""
        return bool(self._waiting)

    async def stacks(self) -> frozenset[str]:
        """Return the stacks of which something is kept, gone ones too. Raises StoreError."""
        await self.load()
        return frozenset(stack for stack, count in self._counts.items() if stack and count > 0)

    async def load(self) -> None:
        """Take note, once, of what an earlier controller left. Raises StoreError."""
        async with self._loading:
            if not self._loaded:
                await self._load()
                self._loaded = True

    async def _load(self) -> None:
        found = (await self._store.list(keys.EVENTS)).entries
        fresh = self._kept
        self._kept, self._bytes, self._counts = OrderedDict(), 0, {}
        for entry in sorted(found, key=lambda one: keys.event_id(one.key)):
            self._add(entry.key, len(entry.value))
        for key, (_, _, size) in fresh.items():  # written while we read
            if key not in self._kept:
                self._add(key, size)

    def _add(self, key: str, size: int) -> None:
        stack, at, count = keys.event_parts(key)
        if (known := self._kept.get(key)) is not None:
            self._bytes -= known[2]
            self._counts[stack] -= known[1]
        self._kept[key] = (stack, count, size)
        self._bytes += size
        self._counts[stack] = self._counts.get(stack, 0) + count
        self._last = max(self._last, at)

    # Writing.

    def add(self, event: Event) -> None:
        """Have an event written that belongs to no record's change."""
        self._waiting.append(_shown(event))

    def record(
        self,
        changes: Iterable[tuple[Model | None, Model | None]],
        because: Mapping[str, str],
        notes: Sequence[Event],
        *,
        room: int,
    ) -> Recorded:
        """Return what is to be written beside these changes, in at most ``room`` operations."""
        done = Recorded(taken=len(self._waiting))
        kept: dict[str, list[Event]] = {}
        for event, stays in self._all(changes, because, notes):
            done.live.append(event)
            if stays:
                kept.setdefault(event.stack, []).append(event)
        if not kept and not self._over():
            return done
        for stack, events in kept.items():
            if len(done.writes) >= room:
                break  # a change of more stacks than a transaction has room for is told in part
            self._put(done, stack, list(_together(events)), room)
        self._trim(done, room)
        return done

    def of_nodes(self, old: Node | None, new: Node | None) -> Recorded:
        """Return what is to be written for a node's change, in somebody else's transaction."""
        return self.record(((old, new),), {}, (), room=8)

    def written(self, recorded: Recorded, revision: int) -> None:
        """Take note that this was written, and tell it to whoever follows."""
        for write in recorded.writes:
            if isinstance(write, Delete):
                stack, count, size = self._kept.pop(write.key, ("", 0, 0))
                self._bytes -= size
                self._counts[stack] = self._counts.get(stack, 0) - count
        for key, size in recorded.added:
            self._add(key, size)
        for slot, fold in recorded.folds.items():
            self._folds[slot] = fold
            self._folds.move_to_end(slot)
        self._forget_folds()
        for _ in range(min(recorded.taken, len(self._waiting))):
            self._waiting.popleft()
        for event in recorded.live:
            self._readers.event(event, revision)

    def _all(
        self,
        changes: Iterable[tuple[Model | None, Model | None]],
        because: Mapping[str, str],
        notes: Sequence[Event],
    ) -> Iterator[tuple[Event, bool]]:
        """Yield every event with whether it is kept."""
        for event in self._waiting:
            yield event, True
        by, followed = ASKED_BY.get(), self._readers.some
        groups: dict[tuple[object, ...], list[tuple[News, Task]]] = {}
        for old, new in changes:
            record = new if new is not None else old
            if not isinstance(record, Task):
                for news in of_record(old, new, why="", where=self._node):
                    yield self._event(news, record, by), news.kept
                continue
            why = because.get(record.id, "") if because else ""
            chosen = because.get(there(record.id), "") if because else ""
            for news in of_record(old, new, why=why, where=self._node, there=chosen):
                if followed:
                    yield self._event(news, record, by), news.kept
                elif news.kept:
                    more = news.more
                    key = (record.stack, record.service, record.release, news.kind)
                    alike = (*key, more.get("reason"), more.get("exit_code"))
                    groups.setdefault(alike, []).append((news, record))
        for group in groups.values():
            first = self._event(*group[0], by)
            if len(group) > ALIKE:
                nodes = {task.node for _, task in group if task.node is not None}
                slots = [task.slot for _, task in group]
                yield _as_one(first, len(group), slots, [self._node(n) for n in nodes]), True
                continue
            yield first, True
            for news, task in group[1:]:
                yield self._event(news, task, by), True
        for note in notes:
            yield _shown(note), True

    def _event(self, news: News, record: Model | None, by: str) -> Event:
        values = {"stack": getattr(record, "stack", "") or "", **news.more}
        if isinstance(record, Task):
            values |= {
                "service": record.service,
                "task": record.id,
                "name": record.name,
                "slot": record.slot,
                "node": self._node(record.node),
                "release": record.release,
            }
        elif not values["stack"] and news.kind.startswith(("stack.", "service.")):
            values["stack"] = getattr(record, "name", "")
        wall, text = self._clock.wall(), _words(news.text)
        return Event(time=wall, kind=news.kind, message=text, by=by, **values)

    def _node(self, node: str | None) -> str:
        known = self._cluster.nodes.get(node or "")
        return known.name if known is not None else node or ""

    def _id(self) -> int:
        self._last = max(self._last + 1, int(self._clock.wall() * 1e6))
        return self._last

    def _put(self, done: Recorded, stack: str, events: list[Event], room: int) -> None:
        """Add the writes for one stack's events: those that repeat are counted in one record."""
        fresh: list[Event] = []
        for event in events:
            slot = _slot(event)
            if slot is None:
                fresh.append(event)
                continue
            times, key, known = done.folds.get(slot) or self._folds.get(slot) or (0, "", event)
            if event.time - known.until > WINDOW:
                times, key, known = 0, "", event
            if times < SINGLE:
                fresh.append(event)
                done.folds[slot] = (times + 1, "", event)
                continue
            if key and (key in self._kept or any(key == other for other, _ in done.added)):
                update = {"count": known.count + 1, "time": known.time, "last": event.time}
                counted = event.model_copy(update=update)
            elif len(done.writes) + 2 > room:
                continue  # it goes on, and is counted the next time
            else:
                key, counted = keys.event(stack, self._id(), 1), event
            self._write(done, key, [counted])
            done.folds[slot] = (times + 1, key, counted)
        if fresh and len(done.writes) < room:
            self._write(done, keys.event(stack, self._id(), len(fresh)), fresh)

    def _write(self, done: Recorded, key: str, events: list[Event]) -> None:
        value = EventBatch(events=tuple(events)).encode()
        done.writes = [w for w in done.writes if w.key != key]
        done.added = [one for one in done.added if one[0] != key]
        done.writes.append(Put(key, value))
        done.added.append((key, len(value)))

    def _over(self) -> bool:
        return self._bytes > BYTES or any(n > A_STACK for n in self._counts.values())

    def _trim(self, done: Recorded, room: int) -> None:
        """Add deletions of the oldest, while there are too many."""
        size, counts = self._bytes, dict(self._counts)
        for key, length in done.added:
            stack, _, count = keys.event_parts(key)
            known = self._kept.get(key)
            size += length - (known[2] if known is not None else 0)
            counts[stack] = counts.get(stack, 0) + (0 if known is not None else count)
        crowded = {stack for stack, count in counts.items() if count > A_STACK}
        written = {write.key for write in done.writes}
        for key, (stack, count, length) in self._kept.items():
            if len(done.writes) >= room or not (crowded or size > BYTES):
                return
            if key in written or not (size > BYTES or stack in crowded):
                continue
            done.writes.append(Delete(key))
            size -= length
            counts[stack] -= count
            if counts[stack] <= A_STACK:
                crowded.discard(stack)

    def _forget_folds(self) -> None:
        now = self._clock.wall()
        while self._folds:
            slot = next(iter(self._folds))
            if now - self._folds[slot][2].until <= WINDOW and len(self._folds) <= WAITING * 5:
                return
            del self._folds[slot]

    # Reading.

    async def read(self, query: EventQuery) -> tuple[list[Event], dict[str, int]]:
        """Return what is kept of what is asked for, oldest first; stack -> the revision read at.

        With a stack come those that belong to none: how its nodes fared. Who asks before the
        control loop runs, as it does not until nodes were heard, has all of it too.
        """
        await self.load()
        stacks = sorted({query.stack, ""} if query.stack is not None else {*self._counts, ""})
        found: list[Event] = []
        revisions: dict[str, int] = {}
        for stack in stacks:
            snapshot = await self._store.list(keys.events(stack))
            revisions[stack] = snapshot.revision
            for number, entry in enumerate(snapshot.entries, 1):
                found += (e for e in _events(entry.key, entry.value) if _asked(e, query))
                if not number % READ:
                    await asyncio.sleep(0)
        found.sort(key=lambda event: (event.until, event.id))
        if query.tail is not None:
            found = found[-query.tail :] if query.tail else []
        return found, revisions


async def told(journal: EventJournal, streams: Streams, query: EventQuery) -> AsyncIterator[Event]:
    """Yield what is kept and asked for, then what happens: nothing twice, nothing missed."""
    with streams.following(query.stack) as feed:
        read: dict[str, int] = {}
        if query.history:
            found, read = await journal.read(query)
            for event in found:
                yield event
        while query.follow:
            feed.changed.clear()
            while feed.events:
                event, revision = feed.events.popleft()
                # What was written before it was read is among that.
                if _asked(event, query) and not 0 < revision <= read.get(event.stack, 0):
                    yield event
            if not feed.changed.is_set():
                await feed.changed.wait()


def _asked(event: Event, query: EventQuery) -> bool:
    if query.since is not None and event.until < query.since:
        return False
    if query.until is not None and event.time > query.until:
        return False
    return matches(event, query.filters)


def _events(key: str, value: bytes) -> tuple[Event, ...]:
    """Return the events of a record, with their ids; none of one that cannot be read."""
    try:
        batch = skew.decode(EventBatch, value).value
    except skew.Unreadable as exc:
        log.warning("a record of events cannot be read", extra={"key": key, "why": str(exc)})
        return ()
    name = keys.event_id(key)
    return tuple(
        event.model_copy(update={"id": f"{name}-{number}"})
        for number, event in enumerate(batch.events)
    )


def _words(message: str) -> str:
    """Return words as they may be kept: no secret among them, and not too many."""
    said = masking.text(message)
    return said if len(said) <= LONGEST else f"{said[: LONGEST - 3]}..."


def _shown(event: Event) -> Event:
    """Return the event as it may be kept."""
    said = _words(event.message)
    return event if said == event.message else event.model_copy(update={"message": said})


def _slot(event: Event) -> Slot | None:
    """Return what must be the same for an event to be another of the same."""
    if event.count > 1 or event.by:
        return None  # several at once are few already, and who asked is worth a line each time
    what = (event.stack, event.service, event.kind, event.reason)
    if event.slot:
        return (*what, event.slot, event.exit_code)
    if event.node:
        return (*what, event.node)
    return (*what, event.release, event.message)


def _together(events: list[Event]) -> Iterator[Event]:
    """Yield the events of one moment, those of one service and kind as one if they are many."""
    groups: dict[tuple[object, ...], list[Event]] = {}
    for event in events:
        owner = (event.service, event.release) if event.slot else ("", 0)
        named = bool(event.slot or event.node) and event.count == 1
        key = (*owner, event.kind, event.reason, event.exit_code) if named else (id(event),)
        groups.setdefault(key, []).append(event)
    for group in groups.values():
        if len(group) <= ALIKE:
            yield from group
        else:
            yield _as_one(
                group[0],
                len(group),
                [event.slot for event in group if event.slot],
                [event.node for event in group if event.node],
            )


def _as_one(first: Event, count: int, slots: list[int], where: list[str]) -> Event:
    """Return one event for ``count`` alike, of these slots, on these nodes."""
    nodes = sorted(set(where))
    if first.slot:
        words = _MANY.get(first.kind, f"like {first.name}: {first.message}")
        places = f" on {some(nodes, 3)}" if nodes else ""
        text = f"{count} tasks of {first.service} {words}{places}"
    else:
        word = first.kind.partition(".")[2]
        text = f"{count} nodes are {word}: {some(nodes, 3)}"
    return first.model_copy(
        update={
            "task": "",
            "name": "",
            "slot": 0,
            "node": nodes[0] if len(nodes) == 1 else "",
            "message": text[:LONGEST],
            "count": count,
            "slots": spans(slots),
            "nodes": tuple(nodes[:NAMED]),
        }
    )
