"""Services scaled by what their tasks use (``x-corral.autoscale``), beside the control loop.

Every ``INTERVAL`` seconds the nodes of such a service are asked what its tasks use, as `stats`
asks them; ``scheduler.autoscale`` decides, and the number becomes the stack's override as if
somebody had typed `scale`. Which number was its own is in the stack's record, so that one that
somebody typed is known as his. What is remembered between two looks is in memory only: a
controller that begins waits for a cool-down first.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from orchestrator.control.mirror.records import STACKS
from orchestrator.control.mirror.released import spec_in_force
from orchestrator.control.mirror.serving import copies, is_leaving, is_ready
from orchestrator.errors import RequestError
from scheduler.autoscale import Measured, Remembered, decide

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from orchestrator.contracts import Agents
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.planning.passes import Pass
    from specs.api import Stack
    from specs.autoscale import AutoscaleSpec
    from specs.inside import TaskUsage
    from specs.kit.clock import Clock
    from specs.stack import ServiceSpec
    from specs.task import Task

log = logging.getLogger(__name__)

INTERVAL = 15.0  # seconds between two looks
ANSWER = 5.0  # seconds a node has to say what its tasks use
SHORTEST = 1.0  # seconds between two figures that make a rate


class _Service(NamedTuple):
    stack: Stack
    service: ServiceSpec
    spec: AutoscaleSpec
    tasks: list[Task]


class Autoscaling:
    """Looks at the services that are scaled by themselves, and scales them."""

    def __init__(
        self,
        cluster: Cluster,
        agents: Agents,
        clock: Clock,
        write: Callable[[Callable[[Pass], None]], Awaitable[None]],
        tell: Callable[[str, str, str, str], None],
    ) -> None:
        """``write``: decide and write; ``tell``: kind, text, stack and service of an event."""
        self._cluster = cluster
        self._agents = agents
        self._clock = clock
        self._write = write
        self._tell = tell
        self._known: dict[tuple[str, str], Remembered] = {}
        self._before: dict[str, TaskUsage] = {}  # by task: what it had used at the last look
        self._rates: dict[str, float] = {}  # by task: CPUs it used between the last two looks
        self._usage: dict[str, TaskUsage] = {}

    async def run(self) -> NoReturn:
        """Look every ``INTERVAL`` seconds until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self._look()
            except Exception:
                log.exception("services could not be scaled by what they use")
        raise AssertionError("the loop has no end")

    async def _look(self) -> None:
        found = list(self._services())
        self._known = {key: self._known.get(key, self._anew()) for key in map(_key, found)}
        if not found:
            self._before, self._rates, self._usage = {}, {}, {}
            return
        await self._measure(found)
        for one in found:
            seen = self._seen(one)
            verdict, after = decide(one.spec, seen, self._known[_key(one)], self._now())
            self._known[_key(one)] = after
            if verdict.count is not None:
                await self._scale(one, seen.count, verdict.count, verdict.why)

    def _now(self) -> float:
        return self._clock.monotonic()

    def _anew(self) -> Remembered:
        """Return what is remembered of a service that was not looked at yet: it cools down."""
        return Remembered(changed=self._now())

    def _services(self) -> Iterable[_Service]:
        for stack in self._cluster.stacks.values():
            spec = spec_in_force(self._cluster, stack) if stack.desired == "up" else None
            for name, service in spec.services.items() if spec is not None else ():
                if service.autoscale is None or name in stack.stopped_services:
                    continue
                tasks = self._cluster.tasks_of(stack.name)
                mine = [task for task in tasks if task.service == name and not is_leaving(task)]
                yield _Service(stack, service, service.autoscale, mine)

    # figures

    async def _measure(self, found: list[_Service]) -> None:
        """Ask the nodes; a node that does not answer in time has said nothing."""
        asked = {
            (task.node, one.stack.name)
            for one in found
            for task in one.tasks
            if task.node is not None
        }
        async with asyncio.TaskGroup() as group:
            said = [
                group.create_task(self._ask(node, stack), name=f"usage of {stack} on {node}")
                for node, stack in sorted(asked)
            ]
        self._usage = {task: usage for part in said for task, usage in part.result().items()}
        self._rates = {}
        for task, usage in self._usage.items():
            before = self._before.get(task)
            if before is not None and usage.at - before.at >= SHORTEST and usage.cpu >= before.cpu:
                self._rates[task] = (usage.cpu - before.cpu) / (usage.at - before.at)
        self._before = dict(self._usage)

    async def _ask(self, node: str, stack: str) -> dict[str, TaskUsage]:
        try:
            async with asyncio.timeout(ANSWER):
                return (await self._agents.usage(node, stack)).tasks
        except (RequestError, TimeoutError) as error:
            log.info("a node does not say what its tasks use", extra={"node": node, "why": error})
            return {}

    def _seen(self, one: _Service) -> Measured:
        ready = [task for task in one.tasks if task.live and is_ready(self._cluster, task)]
        shares = [found for task in ready if (found := self._share(one, task)) is not None]
        used = {
            figure: sum(share[figure] for share in shares) / len(shares)
            for figure in (shares[0] if shares else ())
        }
        name, stack = one.service.name, one.stack
        release = self._cluster.releases.get((stack.name, stack.release))
        count = copies(stack, one.service)
        own = stack.autoscaled.get(name, one.service.replicas)
        return Measured(
            count=count,
            ready=len({task.slot for task in ready}),
            tasks=len(shares),
            used=used,
            by_hand=name in stack.overrides and count != own,
            updating=release is None or not release.over,
        )

    def _share(self, one: _Service, task: Task) -> dict[str, float] | None:
        """Return what a task uses of what it may, by figure; None where that is not known."""
        usage, rate = self._usage.get(task.id), self._rates.get(task.id)
        resources = one.service.task.resources
        share: dict[str, float] = {}
        if one.spec.cpu is not None:
            if rate is None:
                return None
            share["cpu"] = rate / (resources.limits.cpus or resources.reservations.cpus or 1.0)
        if one.spec.memory is not None:
            whole = resources.limits.memory or resources.reservations.memory
            if usage is None or not whole:
                return None
            share["memory"] = usage.memory / whole
        return share

    # scaling

    async def _scale(self, one: _Service, before: int, count: int, why: str) -> None:
        """Set the number, if nobody set another one meanwhile."""
        name, seen, done = one.service.name, one.stack, False

        def change(pass_: Pass) -> None:
            nonlocal done
            stack = pass_.cluster.stacks.get(seen.name)
            same = stack is not None and stack.overrides.get(name) == seen.overrides.get(name)
            done = stack is not None and same and stack.desired == "up"
            if stack is not None and done:
                pass_.draft.put(STACKS, stack.with_autoscaled(name, count))

        await self._write(change)
        if done:
            text = f"{name}: {before} -> {count} tasks: {why}"
            self._tell("service.autoscaled", text, seen.name, name)


def _key(one: _Service) -> tuple[str, str]:
    return one.stack.name, one.service.name
