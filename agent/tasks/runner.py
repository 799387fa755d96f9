"""Pump ``tasks/lifecycle.py`` for one task: observe, ask for the next step, do it, write it down.

``agent/tasks/worker.py`` keeps one runner per task. This is the only place where the
effects of a task are ordered; each is written to the journal as intent before and
as done after, so that a SIGKILL between any two leaves nothing unexplained. What takes a disk
is written beside the loop, and awaited before the next effect (``writing.py``). A
runner never decides and never gives up: what fails is tried again with back-off,
and the reason is part of the task's status. It stays in one piece: the order is its only law.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from agent.errors import Later, Refusal, lacks_room
from agent.runtime.failure import RuntimeFailure
from agent.runtime.signals import number_of
from agent.tasks import hooks, leased, lifecycle, probes
from agent.tasks.hooking import HookPump
from agent.tasks.listeners import Listeners
from agent.tasks.pairing import Pairing
from agent.tasks.record import Phase, Record
from agent.tasks.steps import (
    BeforeStop,
    Clear,
    Erase,
    Freeze,
    Gone,
    Launch,
    Prepare,
    Resume,
    Settle,
    Signal,
    Step,
    Tidy,
    Undo,
    Wait,
)
from agent.tasks.writing import RecordFile
from specs.kit import cancelled
from specs.kit.errnos import in_words
from specs.kit.failpoints import reached
from specs.states import FINAL, Desired, TaskState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.tasks.effects import Containers, HookRunner, Prober
    from agent.tasks.journal import Journal
    from agent.tasks.preparation import Preparation
    from agent.vocabulary import Exit
    from specs.kit.clock import Clock
    from specs.stack import Healthcheck
    from specs.task import Doing
    from specs.wire import Assignment

log = logging.getLogger(__name__)

SIGKILL = 9
NEVER = 126  # as a shell says of what it does not start; no other try follows
# States a reboot must not undo, and the first one, which says that effects exist.
_ON_DISK = frozenset({TaskState.PREPARING, TaskState.RUNNING}) | FINAL
TAIL = 10
LISTENER = 30.0  # seconds a command that is to be heard waits for who wants to hear it
# A machine that goes down without systemd tells every process at once, the agent among them: an
# end that nobody asked for is looked at that much later, so that the agent has heard of it, too.
SWEEP = 0.02  # seconds
INHERIT = 0.05  # seconds between two looks whether a predecessor is gone


@dataclass(frozen=True)
class RunnerParts:
    """What all runners share."""

    journal: Journal
    preparation: Preparation
    containers: Containers
    prober: Prober
    hooks: HookRunner
    clock: Clock
    slots: asyncio.Semaphore  # heavy steps at the same time
    changed: Callable[[Record], None]  # told after every change of a record
    settled: Callable[[], Awaitable[None]]  # waits until known endpoints answer, not for long
    listeners: Listeners = field(default_factory=Listeners)
    ending: Callable[[], bool] = lambda: False  # whether this agent was told to end
    lease: Callable[[str], tuple[str, str]] = lambda _: ("", "")  # see LeaseKeeper.stage


class Runner:
    """One task on this node."""

    def __init__(self, record: Record, parts: RunnerParts) -> None:
        self._parts = parts
        self._file = RecordFile(record, parts.journal, parts.changed)
        self._wake = asyncio.Event()
        self._seen: Exit | None = None
        self._interruptible: asyncio.Timeout | None = None
        self._followers: asyncio.TaskGroup | None = None
        self._prober: asyncio.Task[None] | None = None
        self._hooks = HookPump(
            parts.hooks, lambda: self.record, self._hook_over, parts.ending, self._now
        )
        self._pairing = Pairing(
            parts.preparation, parts.clock, lambda: self.record, partial(self._say, "")
        )
        self._freezes = 0  # how often the run was frozen or let go on

    @property
    def record(self) -> Record:
        """Return what is decided of the task; not all of it may be written yet."""
        return self._file.newest

    @property
    def told(self) -> Record:
        """Return what is written of the task, which is what others may know."""
        return self._file.told

    def assign(self, assignment: Assignment) -> None:
        """Take a newer assignment; a preparation that is not wanted any more is interrupted."""
        old = self.record.assignment
        if assignment == old:
            return
        self._save(lifecycle.assigned(self.record, assignment))
        scope = self._interruptible
        if scope is not None and self.record.assignment.desired in lifecycle.LEAVING:
            scope.reschedule(asyncio.get_running_loop().time())
        self._hooks.look()
        self._wake.set()

    async def run(self) -> None:
        """Bring the task to where it should be, until nothing of it is left."""
        async with asyncio.TaskGroup() as group:
            self._followers = group
            await self._recall()
            if self.record.phase is Phase.RUNNING:
                self._follow()
            while True:
                self._wake.clear()
                self._observe()
                step = lifecycle.next_step(self.record, self._now())
                if isinstance(step, Wait):
                    await self._pause(step)
                elif await self._file.written():
                    continue  # nothing is done before its reason is written; look again
                elif isinstance(step, Gone):
                    break
                else:
                    await self._perform(step)
            self._stop_probing()
            self._hooks.end()

    def look(self) -> None:
        """Look at the task again: something that its next step depends on is otherwise now."""
        self._wake.set()

    # Observing.

    def _observe(self) -> None:
        self._look_at_lease()
        if self._pairing.parted():
            self._save(self.record.having(alone=True))
        seen, self._seen = self._seen, None
        if seen is not None and self.record.phase in (Phase.RUNNING, Phase.CREATED):
            self._stop_probing()
            self._hooks.end()
            record = lifecycle.ended(self.record, seen, self._now(), self._wall())
            run = record.run
            log.info(
                "a run ended",
                extra={"task": record.id, "run": record.number, "why": run.reason if run else ""},
            )
            self._save(self._with_tail(record))

    def _look_at_lease(self) -> None:
        if self.record.assignment.spec.exclusive:
            record = leased.noted(self.record, *self._parts.lease(self.record.id))
            if record != self.record:
                self._save(record)

    def _may_run(self) -> bool:
        """Say whether it is still to run; of an exclusive task, whether it may."""
        self._look_at_lease()
        return leased.begins(self.record) and self.record.assignment.desired is Desired.RUNNING

    async def _pause(self, step: Wait) -> None:
        # At least a millisecond: rounding must not make a wait for "now" a busy loop.
        timeout = None if step.until is None else max(step.until - self._now(), 0.001)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pairing.until(timeout)):
                await self._wake.wait()

    async def _recall(self) -> None:
        """Ask the image again what a run has of it whose record was lost."""
        if self.record.image is None and self.record.phase in (Phase.RUNNING, Phase.CREATED):
            image = await self._parts.preparation.recall(self.record.assignment.spec)
            if image is not None:
                self._save(lifecycle.recalled(self.record, image))

    def _follow(self) -> None:
        """Watch the run's processes; and probe it, where there is a check."""
        process, monitor = self.record.process, self.record.monitor
        assert self._followers is not None
        assert process is not None
        assert monitor is not None

        async def follow() -> None:
            seen = await self._parts.containers.follow(self.record.id, process, monitor)
            if seen.code == lifecycle.KILLED and not self.record.stopping:
                await self._pairing.alone()
            if not await self._swept_away():
                self._seen = seen
                self._wake.set()

        self._followers.create_task(follow(), name=f"exit of {self.record.id}")
        self._hooks.after_start(self._followers)
        check = lifecycle.check_of(self.record)
        if check is not None and probes.command(check):
            self._prober = self._followers.create_task(
                self._probe(check), name=f"health of {self.record.id}"
            )

    def _hook_over(self, record: Record) -> None:
        """Take what became of a hook."""
        self._save(record)
        self._wake.set()

    async def _swept_away(self) -> bool:
        """Say whether the run may have ended with the machine: then the next agent judges it.

        That one knows whether the machine was restarted meanwhile: what ended was the machine
        then, and the task runs again. Else it finds how the run ended, as after any restart.
        What does not run again either way has nothing to wait for.
        """
        spec = self.record.assignment.spec
        again = spec.on_reboot != "keep" or spec.restart.condition != "none"
        if again and not self.record.stopping:
            await asyncio.sleep(SWEEP)
        return self._parts.ending()

    def _stop_probing(self) -> None:
        if self._prober is not None:
            self._prober.cancel()
            self._prober = None

    async def _probe(self, check: Healthcheck) -> None:
        number = self.record.number
        command = probes.command(check)
        while self._runs(number):
            age = self._now() - self.record.run_started_at
            await asyncio.sleep(probes.delay(check, self.record.health, age))
            begun = self._now() - self.record.run_started_at
            health, freezes = self.record.health, self._freezes
            if self.record.paused:
                continue  # as in Docker: what is frozen is not asked
            try:
                code, output = await self._parts.prober(self.record.id, command, check.timeout)
            except (RuntimeFailure, Refusal, OSError) as error:
                if probes.could_not_be_run(error):
                    self._unasked(number, _words(error))
                    continue
                code, output = 1, str(error)
            if not self._runs(number) or self._parts.ending():
                return  # a probe is told to end with the machine, too
            if self._freezes != freezes:
                continue  # it was frozen with the rest, and says nothing
            healthy, text = probes.verdict(code, output)
            reached("health.after_verdict")
            record = lifecycle.probed(
                self.record,
                healthy=healthy,
                output=text,
                counts=probes.counts(check, health, begun),
                now=self._now(),
            )
            if record != self.record:
                self._save(record)
                self._wake.set()

    def _unasked(self, number: int, why: str) -> None:
        if self._runs(number) and why != self.record.unasked:
            self._save(lifecycle.unasked(self.record, why))

    def _runs(self, number: int) -> bool:
        return self.record.phase is Phase.RUNNING and self.record.number == number

    # Acting.

    async def _perform(self, step: Step) -> None:
        try:
            match step:
                case Prepare():
                    await self._prepare()
                case Launch(number):
                    await self._launch(number)
                case Resume(undo):
                    await self._resume(undo=undo)
                case BeforeStop() | Signal():
                    await self._stop(step)
                case Freeze():
                    await self._freeze(step)
                case Clear() | Undo():
                    async with self._parts.slots:
                        await self._parts.containers.clear(self.record.id)
                    become = lifecycle.cleared if isinstance(step, Clear) else lifecycle.undone
                    self._save(become(self.record))
                case Settle():
                    self._save(lifecycle.settled(self.record, step))
                case Tidy():
                    await self._parts.preparation.tidy(self.record)
                    self._save(lifecycle.tidied(self.record))
                case Erase():
                    await self._erase()
                case Wait() | Gone():
                    pass
        except (RuntimeFailure, Later, Refusal, OSError, ExceptionGroup) as error:
            cancelled.obey()
            await self._again(_words(error), crowded=lacks_room(error))

    async def _again(self, why: str, *, crowded: bool) -> None:
        """Take note of a step that did not work; the next look tries it again, later."""
        log.warning("a step failed: %s", why, extra={"task": self.record.id})
        self._save(lifecycle.postponed(self.record, why, self._now(), crowded=crowded))
        if self.record.phase is not Phase.NONE:
            # These steps do not look at next_at: wait here, or until something changes.
            await self._pause(Wait(self.record.next_at))

    async def _prepare(self) -> None:
        await self._saved(lifecycle.preparing(self.record))
        try:
            async with asyncio.timeout(None) as scope:
                self._interruptible = scope
                try:
                    image = await self._parts.preparation.prepare(
                        self.record, self._parts.slots, self._say, self._arrived
                    )
                finally:
                    self._interruptible = None
        except TimeoutError:
            return  # not wanted any more; the next step takes away what was made
        except Refusal as refusal:
            self._save(self._with_tail(lifecycle.refused(self.record, str(refusal))))
            return
        self._save(lifecycle.prepared(self.record, image))

    def _say(self, doing: Doing, reason: str) -> None:
        """Tell what the preparation is doing."""
        if reason != self.record.reason:
            self._file.note(self.record.having(doing=doing, reason=reason))

    def _arrived(self, arrived: tuple[int, int]) -> None:
        """Tell how far the image is, when that has changed."""
        if arrived != self.record.arrived:
            self._file.note(self.record.having(arrived=arrived))

    async def _launch(self, number: int) -> None:
        containers, task = self._parts.containers, self.record.id
        await self._parts.settled()
        if number == 1:
            await self._inherit()
        partner = await self._pairing.partner()
        async with self._parts.slots:
            if not self._may_run():
                return
            try:
                await self._parts.preparation.enter(self.record.assignment)
            except Refusal as refusal:
                self._save(lifecycle.refused(self.record, str(refusal)))
                return
            await self._saved(lifecycle.creating(self.record, number, partner))
            try:
                process, monitor = await containers.create(
                    task, number, self.record.assignment.spec, once=self.record.assignment.attach
                )
            except RuntimeFailure as failure:
                if await self._pairing.alone():
                    return  # whom it was to join has ended: it is undone, and tried again
                self._launch_failed(failure)
                return
            reached("rt.before_record")
            await self._saved(lifecycle.created(self.record, process, monitor))
            if not self.record.assignment.attach:
                await self._start()
                return
        await self._start()  # waits for somebody who listens; others are made meanwhile

    async def _inherit(self) -> None:
        """Take over the anonymous volumes of the slot; who has them and is going is awaited."""
        preparation = self._parts.preparation
        while owner := preparation.awaited(self.record):
            if self.record.assignment.desired is not Desired.RUNNING:
                return
            self._say("", f"waits for the end of {owner}, whose anonymous volumes it takes over")
            await asyncio.sleep(INHERIT)
        await preparation.claim(self.record.assignment)

    async def _start(self) -> None:
        """Let the command of a created run begin; where it cannot, that is the run's end."""
        try:
            if not await self._heard():
                return  # not wanted any more; the next step takes away what was made
            await self._parts.containers.start(self.record.id)
        except RuntimeFailure as failure:
            self._launch_failed(failure)
            return
        self._started()

    async def _heard(self) -> bool:
        """Wait for somebody who listens, where nothing may be missed; False: it is to go instead.

        Raises RuntimeFailure: whoever asked for it has gone, and nobody wants what it would print.
        """
        arrived = self._parts.listeners.arrived(self.record.id)
        until = self._now() + LISTENER
        while self.record.assignment.attach and self.record.number == 1 and not arrived.is_set():
            if self.record.assignment.desired is not Desired.RUNNING:
                return False
            if self._now() >= until:
                why = "who asked for it went before it began, so it was not started"
                raise RuntimeFailure(why, NEVER)
            self._wake.clear()
            waits = [asyncio.create_task(one.wait()) for one in (arrived, self._wake)]
            left = max(until - self._now(), 0.001)  # as in _pause
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for one in waits:
                one.cancel()
        self._parts.listeners.forget(self.record.id)
        return True

    def _started(self) -> None:
        self._save(lifecycle.started(self.record, self._now(), self._wall()))
        self._follow()

    def _launch_failed(self, failure: RuntimeFailure) -> None:
        if probes.could_not_be_run(failure):
            raise failure  # of the node: no crash of the task's; tried again as any step
        record = lifecycle.launch_failed(
            self.record, str(failure), failure.code, self._now(), self._wall()
        )
        self._save(self._with_tail(record))

    async def _resume(self, *, undo: bool) -> None:
        """Find out how far a run came before the agent was restarted."""
        containers, task = self._parts.containers, self.record.id
        if await containers.state(task) != "created":
            self._started()  # running or ended by now: the followers tell which
        elif undo:
            await containers.clear(task)
            self._save(lifecycle.undone(self.record))
        else:
            await self._start()

    async def _stop(self, step: BeforeStop | Signal) -> None:
        self._hooks.end()
        if step.why in ("shutdown", "restart"):
            self._stop_probing()
        if isinstance(step, Signal):
            await self._signal(step)
            return
        assert self._followers is not None
        await self._saved(hooks.leaving(self.record, step.why, self._now()))
        self._hooks.before_stop(self._followers)

    async def _signal(self, step: Signal) -> None:
        process = self.record.process
        number = SIGKILL
        if not step.kill:
            spec, image = self.record.assignment.spec, self.record.image
            number = number_of(
                spec.stop_signal or (image.stop_signal if image else "") or "SIGTERM"
            )
        await self._saved(lifecycle.stopping(self.record, step, self._now()))
        reached("stop.before_signal")
        if process is not None:
            self._parts.containers.send(process, number)
            reached("stop.after_signal")

    async def _freeze(self, step: Freeze) -> None:
        await self._parts.containers.freeze(self.record.id, paused=step.paused)
        self._freezes += 1
        if self.record.phase is Phase.RUNNING:
            self._save(lifecycle.frozen(self.record, step))
        self._hooks.frozen(paused=step.paused)

    async def _erase(self) -> None:
        await self._parts.preparation.erase(self.record, self._parts.slots)
        reached("stop.before_forget")
        # In a thread: its logs may be large, and a busy disk takes its time to let go of them.
        await asyncio.to_thread(self._parts.journal.forget, self.record.id)
        self._file.note(lifecycle.erased(self.record))
        # Until it was known, all records may have been written anew (Journal.restore).
        self._parts.journal.forget_again(self.record.id)

    def _with_tail(self, record: Record) -> Record:
        """Add the last lines of output to a record that has just failed, or starts again."""
        again = record.next_at > 0 and record.phase is Phase.ENDED
        if again or record.state in (TaskState.FAILED, TaskState.REJECTED):
            with contextlib.suppress(OSError):
                lines = self._parts.containers.last_lines(record.id, TAIL)
                return record.having(log_tail=tuple(line[:1000] for line in lines))
        return record

    async def _saved(self, record: Record) -> None:
        """Take a record whose effect follows: that comes after it is written."""
        self._save(record)
        await self._file.written()

    def _save(self, record: Record) -> None:
        if record.erased:  # nobody would take away what were written of it now
            self._file.note(record)
            return
        old = self.record
        removing = record.assignment.desired is Desired.REMOVED
        final = record.state in FINAL and old.state not in FINAL
        moved = record.touched != old.touched or record.state != old.state
        self._file.put(
            record,
            durable=not removing and (final or record.restart_done != old.restart_done),
            disk=moved and not removing and record.state in _ON_DISK,
        )

    def rewrite(self, *, owed: bool = False) -> None:
        """Write the record anew, for a reboot too; ``owed``: if the disk had no room for it."""
        if (self._file.owed or not owed) and not self.record.erased:
            self._file.put(self.record, durable=False, disk=True)

    def _now(self) -> float:
        return self._parts.clock.monotonic()

    def _wall(self) -> float:
        return self._parts.clock.wall()


def _words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_words(one) for one in error.exceptions)
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {in_words(error)}"
    return str(error)
