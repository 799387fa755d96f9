"""Run the hooks of a task beside its runner: at most one at a time, in the file's order.

``runner.py`` begins them after a start and before a stop signal, and ends them with the run;
``hooks.py`` says what becomes of the record.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from agent.errors import Refusal
from agent.runtime.failure import RuntimeFailure
from agent.tasks import hooks, probes
from agent.tasks.record import Phase
from specs.kit.errnos import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from agent.tasks.effects import HookRunner
    from agent.tasks.hooks import HookKind
    from agent.tasks.record import Record
    from specs.stack import Hook

log = logging.getLogger(__name__)

# A hook dies with its container: then the container's end says more than the hook's.
FIRST = 0.2  # seconds
AGAIN, SELDOM = 0.5, 10.0  # seconds between two tries at a hook the node cannot run


class HookPump:
    """The hooks of one task. ``record`` returns the newest record, ``save`` takes the next."""

    def __init__(
        self, effects: HookRunner, record: Callable[[], Record], save: Callable[[Record], None]
    ) -> None:
        self._effects = effects
        self._record = record
        self._save = save
        self._running: asyncio.Task[None] | None = None

    def after_start(self, group: asyncio.TaskGroup) -> None:
        """Begin the post_start hooks that the run has not had; the group waits for them."""
        record = self._record()
        if record.hooks_left and not record.hook_failed:
            self._begin(group, self._after_start(record.number), "post_start")

    def before_stop(self, group: asyncio.TaskGroup) -> None:
        """Begin the pre_stop hooks of a run."""
        self._begin(group, self._before_stop(self._record().number), "pre_stop")

    def _begin(
        self, group: asyncio.TaskGroup, work: Coroutine[None, None, None], kind: str
    ) -> None:
        self.end()
        self._running = group.create_task(work, name=f"{kind} of {self._record().id}")

    def end(self) -> None:
        """End what is under way."""
        if self._running is not None:
            self._running.cancel()
            self._running = None

    def _here(self, number: int) -> bool:
        record = self._record()
        return record.phase is Phase.RUNNING and record.number == number

    async def _after_start(self, number: int) -> None:
        await self._sweep()
        while self._here(number) and (left := self._record().hooks_left):
            self._save(hooks.begun(self._record(), left[0]))
            why = await self._run(number, left[0], "post_start", hooks.LONGEST)
            if why:
                await asyncio.sleep(FIRST)
            if not self._here(number):
                return
            record = self._record()
            self._save(hooks.failed(record, why) if why else hooks.hooked(record))
            if why:
                return

    async def _before_stop(self, number: int) -> None:
        await self._sweep()
        record = self._record()
        for hook in record.assignment.spec.pre_stop:
            # What all of them have together is the runner's to watch: it ends them.
            why = await self._run(number, hook, "pre_stop", hooks.LONGEST)
            if why:
                log.warning("a pre_stop hook failed", extra={"task": record.id, "why": why})
        if self._here(number):
            self._save(hooks.left(self._record()))

    async def _sweep(self) -> None:
        try:
            await self._effects.sweep(self._record().id)
        except (RuntimeFailure, OSError) as error:
            log.warning("what is left of a hook cannot be ended", extra={"why": str(error)})

    async def _run(self, number: int, hook: Hook, kind: HookKind, timeout: float) -> str:
        """Return why a hook failed; empty = it did not.

        One that the node cannot run says nothing of the task: after a start it is tried again.
        A stop does not wait for it.
        """
        waited, pause = 0.0, AGAIN
        while True:
            try:
                return await self._effects.run(self._record().id, number, hook, kind, timeout)
            except (RuntimeFailure, Refusal, OSError) as error:
                why = in_words(error) if isinstance(error, OSError) else str(error)
                tries = kind == "post_start" and probes.could_not_be_run(error)
                if not tries or waited >= timeout or not self._here(number):
                    return why
            record = self._record()
            said = f"{hooks.named(kind, hook)} cannot be run yet: {why}"
            if record.reason != said:
                self._save(record.having(reason=said))
            await asyncio.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, SELDOM)
