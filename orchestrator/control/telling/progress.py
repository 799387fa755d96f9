"""Progress and events as streams: what a stack is doing, for the CLI.

A progress stream is level-triggered: it compares what it said last with what is, so a
slow reader misses steps in between but never the outcome, and costs bounded memory.
Build output and events are true queues, bounded; the oldest lines go first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Literal

from orchestrator.control.mirror.node_view import node_status
from orchestrator.control.mirror.observed import BY_HAND
from orchestrator.control.mirror.released import beside, completed, spec_of
from orchestrator.control.mirror.serving import is_ready
from orchestrator.control.mirror.successors import asks_the_same, successor
from orchestrator.control.telling.beside import fares, keeper
from orchestrator.control.telling.causes import explain_newest, explain_task
from orchestrator.control.telling.words import (
    failed_tasks,
    homeless_words,
    service_counts,
    words_of,
)
from orchestrator.errors import NotFound
from specs.api import Progress
from specs.states import FINAL, HEARD, OVER, ReleaseState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.telling.causes import Cause
    from specs.api import Homeless, Release
    from specs.events import Event
    from specs.kit.clock import Clock
    from specs.task import Task

REMEMBERED = 100  # stacks removed lately
LOOK_AGAIN = 1.0  # seconds, where time alone may be missing
QUEUED = 1000  # lines a reader may be behind


class Feed:
    """One reader's queue, and the event that says there is something to look at."""

    def __init__(self, stack: str | None) -> None:
        self.stack = stack
        self.lines: deque[Progress] = deque(maxlen=QUEUED)
        self.events: deque[tuple[Event, int]] = deque(maxlen=QUEUED)
        self.changed = asyncio.Event()


class Streams:
    """All readers; the control loop tells it what moved."""

    def __init__(
        self, cluster: Cluster, clock: Clock, watched: Mapping[tuple[str, int], Mapping[str, str]]
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._watched = watched  # see Observed
        self._feeds: set[Feed] = set()
        self._gone: deque[str] = deque(maxlen=REMEMBERED)
        self._dropped: dict[str, list[tuple[str, str]]] = {}  # stack -> what, name

    def dropped(self, stack: str, what: Literal["volume", "network"], name: str) -> None:
        """Remember what goes with a stack, until it is wanted up again."""
        while stack not in self._dropped and len(self._dropped) >= REMEMBERED:
            del self._dropped[next(iter(self._dropped))]
        self._dropped.setdefault(stack, []).append((what, name))
        self.moved(stack)

    def begun_anew(self, stack: str) -> None:
        """Forget what went with the stack when it was removed before."""
        self._dropped.pop(stack, None)

    def gone(self, stack: str) -> None:
        """Remember a stack that was removed: whoever asked for it may look only now."""
        self._gone.append(stack)

    def moved(self, stack: str | None) -> None:
        """Say that something of the stack (None = of anything) may look different now."""
        for feed in self._feeds:
            if stack is None or feed.stack in (None, stack):
                feed.changed.set()

    def tell(self, line: Progress) -> None:
        """Hand a line of build output or a warning to the stack's readers."""
        for feed in self._feeds:
            if feed.stack == line.stack:
                feed.lines.append(line)
                feed.changed.set()

    @property
    def some(self) -> bool:
        """Whether anybody follows."""
        return bool(self._feeds)

    def event(self, event: Event, revision: int) -> None:
        """Hand an event to all who read events, with the store's revision that has it."""
        for feed in self._feeds:
            if feed.stack is None or feed.stack == event.stack or not event.stack:
                feed.events.append((event, revision))
                feed.changed.set()

    @contextlib.contextmanager
    def following(self, stack: str | None) -> Iterator[Feed]:
        """Queue what happens from now on; of ``stack`` and what belongs to none, None = all."""
        feed = Feed(stack)
        self._feeds.add(feed)
        try:
            yield feed
        finally:
            self._feeds.discard(feed)

    async def progress(self, stack: str, release: int | None) -> AsyncIterator[Progress]:
        """Yield what happens to the stack until its release, stop or removal is over."""
        record = self._cluster.stacks.get(stack)
        dropped = self._dropped
        if record is None and stack in self._gone and release is None:
            for line in _Story(self._cluster, self._clock, stack, None, {}, dropped).news():
                yield line
            return
        if record is None:
            raise NotFound(f"there is no stack {stack}", hint="corral ls")
        if release is not None and (stack, release) not in self._cluster.releases:
            raise NotFound(f"stack {stack} has no release {release}")
        follow = record.release if release is None and record.desired == "up" else release
        feed = Feed(stack)
        self._feeds.add(feed)
        story = _Story(self._cluster, self._clock, stack, follow, self._watched, dropped)
        try:
            while True:
                feed.changed.clear()
                while feed.lines:
                    yield feed.lines.popleft()
                for line in story.news():
                    yield line
                    if line.kind == "end":
                        return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN if story.beside else None):
                        await feed.changed.wait()
        finally:
            self._feeds.discard(feed)


class _Story:
    """What one reader was told, and what is new since."""

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        stack: str,
        release: int | None,
        watched: Mapping[tuple[str, int], Mapping[str, str]],
        dropped: Mapping[str, list[tuple[str, str]]],
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._dropped = dropped
        self._dropped_told = 0
        self._stack = stack
        self._release = release  # None: the stack's removal or stop is followed
        self._tasks: dict[str, Progress] = {}
        self._seen: dict[str, tuple[Task, str, str]] = {}  # of what its line was made
        self._names: dict[str, Task] = {}
        self._services: dict[str, tuple[int, int, str]] = {}
        self._watched = watched
        self._state = ""
        self.beside = 0  # the release that took its place and keeps what it asked for
        self._homeless: dict[str, Progress] = {}
        self._warned: set[str] = set()  # notes of the release, nodes that do not answer

    def news(self) -> Iterator[Progress]:
        """Yield lines about everything that changed, the end last."""
        release = self._cluster.releases.get((self._stack, self._release or 0))
        while release is not None and (heir := self._heir(release)) is not None:
            yield self._line("release", state=heir.state.value, message=_followed(release, heir))
            self._release, release = heir.number, heir
        kept = keeper(self._cluster, release) if release is not None else None
        if release is not None and kept is not None and kept.number != self.beside:
            self.beside = kept.number
            yield self._line("release", state=kept.state.value, message=_kept(release, kept))
        if kept is None:
            self.beside = 0
        if release is not None and kept is None and release.state.value != self._state:
            self._state = release.state.value
            spec = spec_of(self._cluster, release)
            yield self._line(
                "release",
                state=self._state,
                message=release.reason,
                orphans=spec.orphans if spec is not None else (),
            )
        yield from self._task_news()
        yield from self._service_news()
        if release is not None:
            for note in release.notes:
                if note not in self._warned:
                    self._warned.add(note)
                    yield self._line("warning", message=note)
            yield from self._homeless_news(release)
            if kept is not None:
                yield from self._kept_end(release, kept)
            elif release.state in OVER:
                yield self._end(release)
            elif by_hand := self._watching(BY_HAND):
                # It goes on when somebody says so, which may be tomorrow.
                yield self._line("end", state=release.state.value, ok=True, message=by_hand)
        else:
            yield from self._gone_news()

    def _heir(self, release: Release) -> Release | None:
        """Return the release that took this one's place and asks for the same: it is followed."""
        found = successor(self._cluster, release)
        same = found is not None and asks_the_same(self._cluster, release, found)
        return found if same else None

    def _beside(self) -> Collection[str]:
        """Return the services the release is not about: how they are is not its news."""
        release = self._cluster.releases.get((self._stack, self._release or 0))
        spec = spec_of(self._cluster, release)
        return beside(spec, release) if spec is not None and release is not None else ()

    def _task_news(self) -> Iterator[Progress]:
        beside = self._beside()
        tasks = {
            key: task
            for key, task in self._cluster.by_stack.get(self._stack, {}).items()
            if task.service not in beside
        }
        for task_id in [t for t in self._tasks if t not in tasks]:
            del self._tasks[task_id]
            self._seen.pop(task_id, None)
            task = self._names.pop(task_id)
            yield self._line(
                "task", service=task.service, task=task_id, name=task.name, state="removed"
            )
        for task in sorted(tasks.values(), key=lambda t: (t.service, t.slot, t.created_at)):
            if self._the_same(task):
                continue
            line = self._line("task", **task_line(self._cluster, task))
            told = line.model_copy(update={"time": 0.0})
            if self._tasks.get(task.id) == told:
                continue
            self._tasks[task.id] = told
            self._names[task.id] = task
            yield line

    def _the_same(self, task: Task) -> bool:
        """Say whether neither the task nor its node's answering moved since it was looked at.

        What is said of a task whose node is silent depends on more.
        """
        status = node_status(self._cluster, task.node)
        node = self._cluster.nodes.get(task.node or "")
        seen = (task, status, node.name if node is not None else "")
        known = self._seen.get(task.id)
        if status in HEARD and known is not None and known[0] is task and known[1:] == seen[1:]:
            return True
        self._seen[task.id] = seen
        return False

    def _service_news(self) -> Iterator[Progress]:
        stack = self._cluster.stacks.get(self._stack)
        if self._release is None or stack is None:
            return
        tasks = self._cluster.by_stack.get(self._stack, {}).values()
        beside = self._beside()
        for service, (running, wanted) in service_counts(self._cluster, stack, tasks).items():
            told = (running, wanted, self._watching(service))
            if service not in beside and self._services.get(service) != told:
                self._services[service] = told
                yield self._line(
                    "service", service=service, running=running, wanted=wanted, message=told[2]
                )

    def _watching(self, service: str) -> str:
        """Return that a service which serves is watched for a while, where that is so."""
        key = (self._stack, self._release or 0)
        release = self._cluster.releases.get(key)
        if release is None or release.over:
            return ""
        return self._watched.get(key, {}).get(service, "")

    def _homeless_news(self, release: Release) -> Iterator[Progress]:
        """Yield what no node takes, and what now has one after all.

        That nothing else is under way comes with the last line: all is told then.
        """
        lines = [self._no_node(homeless) for homeless in release.homeless]
        if release.stalled and lines:
            lines[-1] = lines[-1].model_copy(update={"stalled": True})
        found = {line.service: line for line in lines}
        for service in [name for name in self._homeless if name not in found]:
            del self._homeless[service]
            yield self._line("homeless", service=service, stalled=release.stalled)
        for service, line in found.items():
            told = line.model_copy(update={"time": 0.0})
            if self._homeless.get(service) != told:
                self._homeless[service] = told
                yield line

    def _no_node(self, homeless: Homeless) -> Progress:
        return self._line(
            "homeless",
            service=homeless.service,
            message=homeless_words(self._stack, homeless),
            nodes=homeless.nodes or ((homeless.reason,) if homeless.reason else ()),
            hint=homeless.hint,
        )

    def _end(self, release: Release) -> Progress:
        tasks = self._cluster.by_stack.get(self._stack, {}).values()
        mine = [task for task in tasks if task.service not in self._beside()]
        done = completed(mine, before=release, conditions=self._cluster.conditions)
        if release.state is ReleaseState.DEPLOYED:
            return self._line("end", state=release.state.value, ok=True, completed=done)
        cause = self._cause(release, mine)
        superseded = release.state is ReleaseState.SUPERSEDED
        hint = ""
        if cause is not None and cause.task and not superseded:
            hint = f"corral -p {self._stack} logs {cause.service}"
        return self._line(
            "end",
            state=release.state.value,
            ok=False,
            service=cause.service if cause is not None else "",
            task=cause.task if cause is not None else "",
            message=release.reason,
            by=self._successor(release),
            hint=hint,
            exit_code=cause.exit_code if cause is not None else None,
            log_tail=cause.log_tail if cause is not None else (),
            completed=done,
        )

    def _kept_end(self, release: Release, kept: Release) -> Iterator[Progress]:
        """Yield the end of what goes on beside the release that took this one's place."""
        found = fares(self._cluster, release, kept, self._clock.wall())
        if found.ok is None:
            return
        cause = explain_task(self._cluster, found.failed, "") if found.failed else None
        hint = f"corral -p {self._stack} logs {cause.service}" if cause is not None else ""
        yield self._line(
            "end",
            state="deployed" if found.ok else "failed" if cause is not None else "superseded",
            ok=found.ok,
            service=cause.service if cause is not None else "",
            task=cause.task if cause is not None else "",
            message=cause.message if cause is not None else found.message,
            hint=hint,
            exit_code=cause.exit_code if cause is not None else None,
            log_tail=cause.log_tail if cause is not None else (),
        )

    def _cause(self, release: Release, mine: Iterable[Task]) -> Cause | None:
        """Return how the task that failed the release ended, whatever else went wrong beside it."""
        if release.culprit is None:
            return explain_newest(self._cluster, failed_tasks(mine, release.number))
        found = self._cluster.tasks.get(release.culprit)
        return explain_task(self._cluster, found, "") if found is not None else None

    def _successor(self, release: Release) -> int:
        """Return the number of the release that took this one's place, 0 if none did."""
        found = successor(self._cluster, release)
        return found.number if found is not None else 0

    def _gone_news(self) -> Iterator[Progress]:
        stack = self._cluster.stacks.get(self._stack)
        if stack is None or stack.desired == "removed":
            for what, name in self._dropped.get(self._stack, [])[self._dropped_told :]:
                self._dropped_told += 1
                yield self._line("object", doing=what, name=name, state="removed")
        if stack is None:
            yield self._line("end", state="removed", ok=True)
            return
        if stack.desired == "up":
            yield self._line(
                "end", state="up", ok=False, message="the stack was started again meanwhile"
            )
            return
        tasks = self._cluster.by_stack.get(self._stack, {}).values()
        left = [t for t in tasks if stack.desired == "removed" or t.state not in FINAL]
        silent = {
            node
            for node in {t.node for t in left}
            if node is not None and node_status(self._cluster, node) == "down"
        }
        for node in sorted(silent - self._warned):
            self._warned.add(node)
            record = self._cluster.nodes.get(node)
            name = record.name if record is not None else node
            yield self._line(
                "warning",
                node=name,
                message=f"node {name} does not answer; what runs there is stopped when it is back",
            )
        if all(t.node in silent for t in left) and (left or stack.desired == "stopped"):
            yield self._line("end", state=stack.desired, ok=True)

    def _line(self, kind: str, **fields: object) -> Progress:
        return Progress.model_validate(
            {"kind": kind, "time": self._clock.wall(), "stack": self._stack, **fields}
        )


def _kept(release: Release, kept: Release) -> str:
    return (
        f"release {kept.number}, made while this one was under way, is about something else; "
        f"what release {release.number} asked for goes on"
    )


def _followed(release: Release, heir: Release) -> str:
    return (
        f"release {heir.number}, made while this one was under way, asks for the same and "
        f"is followed instead of release {release.number}"
    )


def task_line(cluster: Cluster, task: Task) -> dict[str, object]:
    """Return the fields of a line that says how a task is."""
    words = words_of(cluster, task)
    node = cluster.nodes.get(task.node or "")
    return {
        "service": task.service,
        "task": task.id,
        "name": task.name,
        "node": node.name if node is not None else "",
        "state": task.state.value,
        "ready": is_ready(cluster, task),
        "message": words.text,
        "reason": words.reason,
        "health": task.status.health.value,
        "doing": task.status.doing,
        "stopping": words.stopping,
        "restarting": words.restarting,
        "release": task.release,
        "retries": task.status.retry_in > 0 and not words.restarting,
    }
