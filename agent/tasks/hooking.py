"""Run the hooks of a task beside its runner: at most one at a time, in the file's order.

``runner.py`` begins them after a start and before a stop signal, and ends them with the run;
``hooks.py`` says what becomes of the record. Nothing runs in a frozen container: after a start
no hook is begun while the task is paused or is to be, and the deadline of one that was frozen
with the rest stands still. Before a stop the task is thawed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from agent.errors import Refusal
from agent.runtime.failure import RuntimeFailure
from agent.tasks import hooks, lifecycle, probes
from agent.tasks.record import Phase
from specs.kit.errnos import in_words
from specs.kit.patience import Patience

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
    """The hooks of one task. ``record`` returns the newest record, ``save`` takes the next.

    ``ending`` says whether the agent was told to end: so may a hook have been, with the machine;
    ``now`` is monotonic, in seconds.
    """

    def __init__(
        self,
        effects: HookRunner,
        record: Callable[[], Record],
        save: Callable[[Record], None],
        ending: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self._effects = effects
        self._record = record
        self._save = save
        self._ending = ending
        self._now = now
        self._running: asyncio.Task[None] | None = None
        self._patience: Patience | None = None  # of the hook under way
        self._freezes = 0
        self._changed = asyncio.Event()

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

    def look(self) -> None:
        """Look again whether the task is to be paused."""
        self._changed.set()

    def frozen(self, *, paused: bool) -> None:
        """Take note that the run was frozen, a hook under way with it, or goes on."""
        self._freezes += 1
        if self._patience is not None:
            if paused:
                self._patience.stop()
            else:
                self._patience.go()
        self.look()

    @property
    def _paused(self) -> bool:
        record = self._record()
        return record.paused or record.assignment.paused

    async def _thawed(self, number: int) -> None:
        """Wait until the run is not paused, nor to be."""
        while self._here(number):
            if not self._paused:
                return
            record = self._record()
            if record.reason != hooks.PAUSED:
                self._save(record.having(reason=hooks.PAUSED))
            self._changed.clear()
            await self._changed.wait()

    def _here(self, number: int) -> bool:
        record = self._record()
        return record.phase is Phase.RUNNING and record.number == number

    async def _after_start(self, number: int) -> None:
        await self._sweep()
        while True:
            await self._thawed(number)
            left = self._record().hooks_left
            if not left or self._ending() or not self._here(number):
                return
            self._save(hooks.begun(self._record(), left[0]))
            why = await self._run(number, left[0], "post_start", hooks.LONGEST)
            if why:
                await asyncio.sleep(FIRST)
            if not self._here(number) or (why and self._ending()):
                return
            record = self._record()
            over = hooks.failed(record, why) if why else hooks.hooked(record, self._now())
            self._save(over)
            if why:
                return

    async def _before_stop(self, number: int) -> None:
        await self._sweep()
        record = self._record()
        for hook in record.assignment.spec.pre_stop:
            # What all of them have together is less, and the runner's to watch: it ends them.
            patience = lifecycle.grace(record.assignment)
            why = await self._run(number, hook, "pre_stop", patience)
            if why:
                log.warning("a pre_stop hook failed", extra={"task": record.id, "why": why})
        if self._here(number) and not self._ending():
            self._save(hooks.left(self._record()))

    async def _sweep(self) -> None:
        try:
            await self._effects.sweep(self._record().id)
        except (RuntimeFailure, OSError) as error:
            log.warning("what is left of a hook cannot be ended", extra={"why": str(error)})

    async def _run(self, number: int, hook: Hook, kind: HookKind, timeout: float) -> str:
        """Return why a hook failed; empty = it did not.

        One that the node cannot run says nothing of the task: after a start it is tried again.
        So is one whose container was frozen at that moment. A stop does not wait for it.
        """
        waited, pause = 0.0, AGAIN
        while True:
            freezes, self._patience = self._freezes, Patience(timeout)
            try:
                return await self._effects.run(
                    self._record().id, number, hook, kind, self._patience
                )
            except (RuntimeFailure, Refusal, OSError) as error:
                why = in_words(error) if isinstance(error, OSError) else str(error)
                frozen = freezes != self._freezes or self._paused
                tries = kind == "post_start" and (frozen or probes.could_not_be_run(error))
                if self._ending() or not tries or waited >= timeout or not self._here(number):
                    return why
            finally:
                self._patience = None
            record = self._record()
            said = f"{hooks.named(kind, hook)} cannot be run yet: {why}"
            if record.reason != said:
                self._save(record.having(reason=said))
            await asyncio.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, SELDOM)
            if kind == "post_start":
                await self._thawed(number)
