"""GET /v1/stacks/{stack}/logs: every task's lines from its node, merged by time.

With follow, tasks that appear later join in until nothing more can come by itself, and a
source whose agent restarts is taken up again after its last line, without gaps or doubles.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.api import named, streams
from orchestrator.api.logmerge import LogMerge
from orchestrator.api.routes import flag, number
from orchestrator.contracts import LogQuery
from orchestrator.control.mirror import times
from orchestrator.control.mirror.following import goes_on
from orchestrator.control.mirror.serving import was_replaced
from orchestrator.errors import NotFound, RequestError, Unavailable
from orchestrator.store import keys
from orchestrator.store.base import Compacted
from specs.api import StackLogLine
from specs.kit import called
from specs.states import FINAL, TaskState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from specs.task import Task
    from specs.wire import LogLine

BATCH = 128  # lines on their way to the reader at most
RETRY = 0.5  # seconds before a lost source is asked again
GIVE_UP = 60.0  # seconds a source may be lost while following
_NOT_YET = frozenset({TaskState.NEW, TaskState.PENDING, TaskState.ASSIGNED})


async def logs(parts: ApiParts, request: web.Request, _: None) -> web.StreamResponse:
    """Stream the logs; repeated ``service`` parameters narrow them down."""
    stack = request.match_info["stack"]
    if stack not in parts.cluster.stacks:
        raise NotFound(f"there is no stack {stack}", hint="corral ls")
    tail, follow = number(request, "tail"), flag(request, "follow")
    query = LogQuery(
        follow=follow, tail=int(tail) if tail is not None else None, since=number(request, "since")
    )
    words = request.query.getall("service", ())
    services, ids = named.present(parts.cluster, stack, words)
    wanted = StackLogs(parts, stack, services, query, named=ids, words=words)
    return await streams.respond(request, wanted.lines(), patient=True)


class StackLogs:
    """The lines of one stack's tasks."""

    def __init__(
        self,
        parts: ApiParts,
        stack: str,
        services: frozenset[str],
        query: LogQuery,
        *,
        named: Mapping[str, str] | None = None,
        words: Sequence[str] = (),
    ) -> None:
        """``named``: single containers' names, each with its service; a follower has it, too.

        ``words``: as they were given. A follower has what stands by after others took its traffic
        only by its id, or once it serves again.
        """
        self._words = tuple(word for word in words if len(word) >= called.SHORTEST)
        self._parts = parts
        self._stack = stack
        self._services = services
        self._query = query
        self._named = named or {}
        self._followed = services | frozenset(self._named.values())
        self._seen: set[str] = set()

    async def lines(self) -> AsyncGenerator[list[StackLogLine], None]:
        """Yield merged lines, what is there in one go, until they end or the reader leaves."""
        # Owned by a task of their own: a generator must not hold a TaskGroup over a yield.
        out: asyncio.Queue[StackLogLine | None] = asyncio.Queue(maxsize=BATCH)
        producer = asyncio.create_task(self._produce(out), name=f"logs-{self._stack}")
        try:
            while True:
                found = [await out.get()]
                while not out.empty():
                    found.append(out.get_nowait())
                lines = [line for line in found if line is not None]
                if lines:
                    yield lines
                if found[-1] is None:
                    await producer
                    return
        finally:
            producer.cancel()
            await asyncio.wait({producer})

    async def _produce(self, out: asyncio.Queue[StackLogLine | None]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                merge = LogMerge(group, self._parts.clock, follow=self._query.follow)
                self._add_tasks(merge)
                if self._query.follow:
                    group.create_task(self._follow_tasks(merge), name="logs-tasks")
                async for line in merge.lines():
                    await out.put(line)
        except asyncio.CancelledError:
            raise  # the reader has left: nobody empties the queue any more
        except BaseException:
            await out.put(None)
            raise
        await out.put(None)

    def _add_tasks(self, merge: LogMerge) -> None:
        for task in list(self._parts.cluster.tasks.values()):
            if (
                task.stack == self._stack
                and task.id not in self._seen
                and task.node is not None
                and task.state not in _NOT_YET
                and not self._stands_aside(task)
                and (
                    not self._followed or task.service in self._services or task.name in self._named
                )
            ):
                self._seen.add(task.id)
                merge.add(self._of_task(task), name=task.id)
        iterations = {
            iteration.task
            for record in self._parts.cluster.schedules.values()
            if record.stack == self._stack
            for iteration in record.iterations
        }
        for one in list(self._parts.cluster.oneoffs.values()):
            # As in Compose not among a service's, by its name it is to be had; an iteration of a
            # schedule is what its service runs.
            mine = one.stack == self._stack and (
                one.task.name in {*self._services, *self._named}
                or (
                    one.id in iterations
                    and one.shown
                    and one.task.state not in _NOT_YET
                    and (not self._followed or one.task.service in self._services)
                )
            )
            if mine and one.id not in self._seen and one.task.node is not None:
                self._seen.add(one.id)
                merge.add(self._of_task(one.task), name=one.id)

    def _stands_aside(self, task: Task) -> bool:
        aside = self._query.follow and was_replaced(self._parts.cluster, task)
        return aside and not task.id.startswith(self._words or ("\0",))

    async def _follow_tasks(self, merge: LogMerge) -> None:
        """Add tasks as they appear; end when no more will, or the stack is gone."""
        cluster = self._parts.cluster
        mine = (
            *(f"{kind}{self._stack}/" for kind in (keys.TASKS, keys.ONEOFFS, keys.SCHEDULES)),
            keys.STACKS,
            keys.RELEASES,
        )
        while goes_on(cluster, self._stack, self._followed):
            try:
                self._add_tasks(merge)
                async for batch in self._parts.store.watch("/", cluster.revision):
                    if any(c.key.startswith(mine) for c in batch.changes):
                        await cluster.reached(batch.revision)
                        self._add_tasks(merge)
                        if not goes_on(cluster, self._stack, self._followed):
                            break
            except Compacted:
                continue  # the mirror reads everything anew as well
        merge.finish()

    async def _of_task(self, task: Task) -> AsyncGenerator[StackLogLine, None]:
        """Yield one task's lines; while following, over the restarts of its agent."""
        query, place = self._query, (0, 0, 0)
        lost_at: float | None = None
        while True:
            try:
                async with contextlib.aclosing(self._read(task, query)) as lines:
                    async for line in lines:
                        lost_at = None
                        place = line.place
                        yield _stack_line(task, line)
                # The agent says "no more" a moment before the controller knows the end.
                if not self._query.follow or self._ended(task):
                    return
            except NotFound:
                return
            except RequestError as exc:
                now = self._parts.clock.monotonic()
                lost_at = lost_at if lost_at is not None else now
                if not self._query.follow or now - lost_at > GIVE_UP:
                    yield _note(task, exc.detail, self._parts.clock.wall())
                    return
            await asyncio.sleep(RETRY)
            if self._removed(task) and lost_at is None:
                return
            if any(place):
                query = replace(self._query, tail=None, after=place)

    def _read(self, task: Task, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        if task.node is None:
            raise Unavailable("the task has no node")
        if query.since is not None:
            # Lines carry the time of their node's clock; who asks means the hour it is.
            off = times.ahead(self._parts.cluster.conditions, task.node)
            query = replace(query, since=query.since + off)
        return self._parts.agents.logs(task.node, task.id, query)

    def _removed(self, task: Task) -> bool:
        return task.id not in self._parts.cluster.tasks

    def _ended(self, task: Task) -> bool:
        now = self._parts.cluster.tasks.get(task.id)
        return now is None or now.state in FINAL


def _shown(task: Task) -> str:
    """Return the container's name without the stack's, as Compose's prefix."""
    return task.name.removeprefix(f"{task.stack}-")


def _stack_line(task: Task, line: LogLine) -> StackLogLine:
    return StackLogLine(
        task=task.id,
        name=_shown(task),
        service=task.service,
        slot=task.slot,
        stream=line.stream,
        time=line.time,
        line=line.line,
        place=line.place,
    )


def _note(task: Task, detail: str, now: float) -> StackLogLine:
    """Return a line in the log's place, so that a reader knows that something is missing."""
    return StackLogLine(
        task=task.id,
        name=_shown(task),
        service=task.service,
        slot=task.slot,
        stream="stderr",
        time=now,
        line=f"corral: no log: {detail}",
    )
