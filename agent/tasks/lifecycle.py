"""Decide the next move for one task on this node (pure).

``agent/tasks/runner.py`` calls :func:`next_step` after every observation, performs what
it returns, and folds the result back with one of the transitions below. Nothing
here touches the node, a clock or chance. States only move forward
(``specs.states.LEGAL``): a restart in place stays *running*.

``now`` is monotonic seconds, ``wall`` seconds since the epoch (for people).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.tasks import hooks, leased
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
from agent.vocabulary import Exit
from specs.kit import backoff
from specs.states import FINAL, Desired, Health, TaskState
from specs.task import RESTART_ASKED, START_HOOK, Run

if TYPE_CHECKING:
    from agent.vocabulary import ImageConfig, Process
    from specs.stack import Healthcheck
    from specs.wire import Assignment

ALIVE_ENOUGH = 10.0  # seconds (healthy) after which a crash is a first crash again
BACKOFF_MAX = 60.0
PREPARE_FIRST = 0.5  # seconds before a failed preparation is tried again, doubling
PREPARE_MAX = 30.0

KILLED = 137  # by SIGKILL, as whoever is in a process namespace when its first process ends

LEAVING = frozenset({Desired.SHUTDOWN, Desired.REMOVED})
_DOWNWARDS = {desired: place for place, desired in enumerate(Desired)}


def next_step(record: Record, now: float) -> Step:
    """Return the one thing to do next."""
    if record.erased:
        return Gone()
    desired = record.assignment.desired
    match record.phase:
        case Phase.CREATING:
            return Undo()
        case Phase.CREATED:
            return Resume(undo=desired in LEAVING)
        case Phase.RUNNING:
            return _while_running(record, now)
        case Phase.ENDED:
            return Clear()
        case Phase.NONE:
            return _without_process(record, now)


def _while_running(record: Record, now: float) -> Step:
    why = record.stopping or _reason_to_stop(record)
    if not why:
        paused = record.assignment.paused
        return Wait() if paused == record.paused else Freeze(paused)
    return _while_stopping(record, why, now)


def _while_stopping(record: Record, why: str, now: float) -> Step:  # noqa: PLR0911 - a table of cases
    patience = grace(record.assignment)
    if leased.over(record):
        return leased.kill(record, why)
    if not record.stopping and hooks.first(record) and patience > 0:
        return Freeze(paused=False) if record.paused else BeforeStop(why)
    if record.stopping and record.pre_stop == "running" and patience > 0:
        until = record.stop_at + hooks.patience(patience)
        return Signal(why) if now >= until else Wait(until)
    if not record.stopping or record.pre_stop in ("running", "over"):
        return Signal(why, kill=patience <= 0)
    if record.paused:
        return Freeze(paused=False)  # what is frozen takes no signal, not even SIGKILL everywhere
    if record.killed:
        # SIGKILL is not repeated: a process in uninterruptible sleep ignores the second one too.
        return Wait()
    deadline = record.stop_at + patience
    return Signal(why, kill=True) if now >= deadline else Wait(deadline)


def _reason_to_stop(record: Record) -> str:
    assignment = record.assignment
    if assignment.desired in LEAVING:
        return "shutdown"
    if assignment.restart > record.restart_done:
        return "restart"
    if record.alone:
        return "partner"
    if not leased.begins(record):
        return leased.WHY
    if record.health is Health.UNHEALTHY and assignment.spec.restarts_unhealthy:
        return "unhealthy"
    return "post_start" if record.hook_failed else ""


def _without_process(record: Record, now: float) -> Step:  # noqa: PLR0911 - a table of cases
    assignment = record.assignment
    if assignment.desired is Desired.REMOVED:
        return Wait(record.next_at) if now < record.next_at else Erase()
    if record.state in FINAL:
        if record.tidied:
            return Wait()
        return Wait(record.next_at) if now < record.next_at else Tidy()
    if assignment.desired is Desired.SHUTDOWN:
        return Settle(TaskState.SHUTDOWN, "stopped as asked")
    requested = assignment.restart > record.restart_done and bool(record.runs)
    if now < record.next_at and not requested:
        return Wait(record.next_at)
    if not record.prepared:
        # Half a spec is not executed: whoever knows the rest of it sends it, or upgrades us.
        return Wait() if record.unread else Prepare()
    if assignment.desired is Desired.PREPARED:
        return Wait()
    if not leased.begins(record):
        return Wait()
    if now < record.held_until and not record.admitted and not requested:
        return Wait(record.held_until)
    return Launch(record.number + 1)


def holds_network(record: Record) -> bool:
    """Say whether the task's addresses, filters and ports stay in force.

    From before its first packet until its process has ended for good and its links are gone: a
    process that was asked to stop serves the requests it has, and the end of an answer may still
    be on its way when it has ended. New connections go elsewhere because it is not ready any more.
    """
    if record.erased or record.tidied:
        return False
    return record.touched or record.assignment.desired not in LEAVING


def grace(assignment: Assignment) -> float:
    """Return how long the task has between the stop signal and SIGKILL."""
    return assignment.spec.stop_grace if assignment.grace is None else assignment.grace


def check_of(record: Record) -> Healthcheck | None:
    """Return the check in force: the spec's, filled with the image's test; None = no check."""
    check = record.assignment.spec.healthcheck
    offered = record.image.healthcheck if record.image else None
    if check is None:
        check = offered
    elif not check.test and not check.disabled:
        check = check.with_test(offered.test) if offered else None
    if check is None or not check.test or check.disabled:
        return None
    return check


# Transitions: what the record becomes after something was asked, done or seen.


def fresh(assignment: Assignment, boot: str) -> Record:
    """Return the record of a task never seen before."""
    # A restart asked for before the first run is fulfilled by that run.
    return Record(
        id=assignment.id, assignment=assignment, boot=boot, restart_done=assignment.restart
    )


def assigned(record: Record, assignment: Assignment) -> Record:
    """Take a newer assignment; ``desired`` only moves downwards, ``restart`` only up."""
    old = record.assignment
    if _DOWNWARDS[assignment.desired] < _DOWNWARDS[old.desired]:
        assignment = assignment.with_desired(old.desired)
    if assignment.restart < old.restart:
        assignment = assignment.with_restart(old.restart)
    # What the controller sends we know whole.
    record = record.having(assignment=assignment, unread=())
    if assignment.desired in LEAVING and old.desired not in LEAVING:
        record = record.having(next_at=0.0)
    if not record.runs:
        record = record.having(restart_done=assignment.restart)
    return record


def preparing(record: Record, reason: str = "") -> Record:
    """Begin the preparation: effects may exist from now on."""
    state = TaskState.PREPARING if record.state is TaskState.ASSIGNED else record.state
    return record.moved(state).having(touched=True, reason=reason or record.reason)


def prepared(record: Record, image: ImageConfig) -> Record:
    """Everything is there; the command could be started."""
    early = record.state in (TaskState.ASSIGNED, TaskState.PREPARING)
    return record.moved(TaskState.PREPARED if early else record.state).having(
        prepared=True,
        crowded=False,
        image=image,
        reason=record.hold_reason,
        next_at=0.0 if early else record.next_at,
        backoff=0.0 if early else record.backoff,
    )


def postponed(record: Record, reason: str, now: float, *, crowded: bool = False) -> Record:
    """Note that a step did not work now; it is tried again with back-off."""
    delay = backoff.grown(record.backoff, first=PREPARE_FIRST, longest=PREPARE_MAX)
    return record.having(reason=reason, backoff=delay, next_at=now + delay, crowded=crowded)


def refused(record: Record, reason: str) -> Record:
    """Give up: it can never work as asked. Rejected, or failed where it has run before."""
    ran = record.state is TaskState.RUNNING
    return record.moved(TaskState.FAILED if ran else TaskState.REJECTED).having(
        reason=reason,
        next_at=0.0,
        backoff=0.0,
    )


def launch_failed(record: Record, reason: str, code: int | None, now: float, wall: float) -> Record:
    """End a run that could not be started. ``code`` 126, 127: it never will (as in a shell)."""
    if code is None:
        record = ended(record, Exit(None, reason=reason), now, wall)
        return record.having(run_started_at=now)
    run = _newest(record).with_end(wall, code, reason)
    record = record.having(phase=Phase.ENDED, process=None, monitor=None, runs=record.with_run(run))
    return refused(record, reason)


def creating(record: Record, number: int, beside: Process | None = None) -> Record:
    """Write the intent of run ``number``."""
    state = record.state if record.state is TaskState.RUNNING else TaskState.STARTING
    checked = check_of(record) is not None
    return record.moved(state).having(
        phase=Phase.CREATING,
        runs=record.with_run(Run(number=number)),
        process=None,
        monitor=None,
        health=Health.STARTING if checked else Health.NONE,
        health_output="",
        unasked="",
        failing=0,
        healthy_at=None,
        stopping="",
        stop_at=0.0,
        killed=False,
        paused=False,
        beside=beside,
        alone=False,
        hooked=0,
        hook_failed="",
        hooked_at=0.0,
        pre_stop="",
    )


def created(record: Record, process: Process, monitor: Process) -> Record:
    """Both processes exist; the command has not been started."""
    run = _newest(record).with_pid(process.pid)
    return record.having(
        phase=Phase.CREATED, process=process, monitor=monitor, runs=record.with_run(run)
    )


def started(record: Record, now: float, wall: float) -> Record:
    """Note that the command runs."""
    run = _newest(record).with_start(wall, record.unawaited)
    checked = check_of(record) is not None
    waits = checked or bool(record.hooks_left)
    return record.moved(record.state if waits else TaskState.RUNNING).having(
        phase=Phase.RUNNING,
        reason="waits for its first healthy check" if checked and not _ran(record) else "",
        runs=record.with_run(run),
        run_started_at=now,
        held_until=0.0,
        restart_done=max(record.restart_done, record.assignment.restart),
    )


def recalled(record: Record, image: ImageConfig) -> Record:
    """Know the image again of a run that was taken over without its record."""
    record = record.having(image=image)
    unchecked = record.health is Health.NONE and check_of(record) is not None
    return record.having(health=Health.STARTING) if unchecked else record


def undone(record: Record) -> Record:
    """Forget a half-made run as if it had never been begun."""
    return record.having(phase=Phase.NONE, process=None, monitor=None, runs=tuple(record.runs[:-1]))


def stopping(record: Record, step: Signal, now: float) -> Record:
    """Note that a signal was sent."""
    return record.having(
        stopping=step.why,
        stop_at=record.stop_at if record.stopping else now,
        killed=record.killed or step.kill,
        pre_stop="sent",
    )


def frozen(record: Record, step: Freeze) -> Record:
    """Note that the run's processes were frozen, or go on."""
    reason = "" if record.next_at else record.reason  # why it did not work before
    return record.having(paused=step.paused, reason=reason, next_at=0.0, backoff=0.0)


def unasked(record: Record, why: str) -> Record:
    """Note that the present run's check could not be run: its health is what it was."""
    return record.having(unasked=why)


def probed(record: Record, *, healthy: bool, output: str, counts: bool, now: float) -> Record:
    """Judge a health probe of the present run; ``counts`` = its failure counts."""
    if record.phase is not Phase.RUNNING:
        return record
    record = record.having(unasked="") if record.unasked else record
    if healthy:
        return record.moved(record.state if record.hooks_left else TaskState.RUNNING).having(
            health=Health.HEALTHY,
            health_output="",
            failing=0,
            healthy_at=now if record.healthy_at is None else record.healthy_at,
            reason=record.reason if record.hooks_left else "",
        )
    check = check_of(record)
    failing = record.failing + 1 if counts else record.failing
    unhealthy = check is not None and failing >= max(check.retries, 1)
    return record.having(
        failing=failing,
        health_output=output,
        health=Health.UNHEALTHY if unhealthy else record.health,
        reason=f"unhealthy: {failing} failed checks in a row" if unhealthy else record.reason,
    )


def ended(record: Record, seen: Exit, now: float, wall: float) -> Record:
    """Judge the end of a run by the restart policy."""
    reason = seen.reason or _how(record, seen)
    run = _newest(record).with_end(wall, seen.code, reason, oom=seen.oom)
    record = record.having(
        phase=Phase.ENDED,
        process=None,
        monitor=None,
        runs=record.with_run(run),
        reason=reason,
        paused=False,
    )
    if record.assignment.desired in LEAVING:
        by_itself = not record.stopping and _well(record, seen)
        done = by_itself and record.assignment.spec.restart.condition != "any"
        return record.moved(TaskState.COMPLETE if done else TaskState.SHUTDOWN)
    if record.stopping == "restart" or _with_partner(record, seen) or leased.ended_by(record, seen):
        return record.having(restarts=record.restarts + 1, next_at=0.0, crashes=0, backoff=0.0)
    return _by_policy(record, seen, reason, now)


def _with_partner(record: Record, seen: Exit) -> bool:
    """Say whether the run ended because its partner did: no end of its own, so it runs again."""
    return record.stopping == "partner" or (record.alone and seen.code == KILLED)


def _by_policy(record: Record, seen: Exit, reason: str, now: float) -> Record:
    policy = record.assignment.spec.restart
    sick = record.stopping == "unhealthy"
    well = _well(record, seen) and not sick
    # An unhealthy one was stopped to be restarted: where no policy says so, the service does.
    if (policy.condition == "none" and not sick) or (policy.condition == "on-failure" and well):
        return _final(record, reason, well=well)
    attempts = tuple(at for at in record.attempts if policy.window <= 0 or now - at < policy.window)
    if policy.max_attempts is not None and len(attempts) >= policy.max_attempts:
        return _final(record, f"{reason}; restarted {len(attempts)} times, the limit", well=well)
    fresh_start = _long_enough(record, now)
    crashes = (0 if fresh_start else record.crashes) + (0 if well else 1)
    local = record.assignment.local_restarts
    if local is not None and crashes > local:
        return _final(record, f"{reason}; {crashes} crashes in a row here", well=False)
    previous = 0.0 if fresh_start else record.backoff
    delay = backoff.grown(previous, first=policy.delay, longest=BACKOFF_MAX)
    # Only the last ones matter; the bound keeps an endless crash loop's record small.
    kept = attempts[-(policy.max_attempts or 0) :] if policy.max_attempts else ()
    return record.having(
        reason=reason,
        restarts=record.restarts + 1,
        crashes=crashes,
        backoff=delay,
        attempts=(*kept, now) if policy.max_attempts is not None else (),
        next_at=now + delay,
    )


def _well(record: Record, seen: Exit) -> bool:
    """Say whether a run ended as it should: its start was over, and its command is content."""
    return seen.code == 0 and not record.hooks_left


def _final(record: Record, reason: str, *, well: bool) -> Record:
    state = TaskState.COMPLETE if well else TaskState.FAILED
    return record.moved(state).having(reason=reason, next_at=0.0)


def _long_enough(record: Record, now: float) -> bool:
    if record.hooks_left or record.hook_failed:
        return False  # its start was not over: the time its hooks took is no healthy spell
    since = record.run_started_at if check_of(record) is None else record.healthy_at
    return since is not None and now - max(since, record.hooked_at) >= ALIVE_ENOUGH


def cleared(record: Record) -> Record:
    """Nothing is left of the run but its logs."""
    return record.having(phase=Phase.NONE, stopping="", killed=False, stop_at=0.0)


def settled(record: Record, step: Settle) -> Record:
    """Make the task final without anything to do on the node."""
    return record.moved(step.state).having(reason=step.reason)


def tidied(record: Record) -> Record:
    """Only logs and the writable layer are left."""
    return record.having(tidied=True, prepared=False, next_at=0.0, backoff=0.0)


def erased(record: Record) -> Record:
    """Nothing is left."""
    state = record.state if record.state in FINAL else TaskState.SHUTDOWN
    return record.moved(state).having(erased=True, prepared=False)


def adopted(record: Record) -> Record:
    """Take over a record of this boot after the agent was restarted."""
    # The signal may have been recorded and not sent, or sent and not recorded: send it again.
    # Hooks that were under way are begun anew; those that were over are not.
    over = record.pre_stop in ("over", "sent")
    record = record.having(pre_stop="over" if over else "")
    return record.having(stopping="", killed=False, stop_at=0.0)


def _newest(record: Record) -> Run:
    run = record.run
    assert run is not None, "a run is recorded before it is made"
    return run


def _ran(record: Record) -> bool:
    return record.state is TaskState.RUNNING


def _how(record: Record, seen: Exit) -> str:
    if record.stopping == "post_start":
        return record.hook_failed
    if not record.stopping and record.hooks_left:
        return f"{_cause(record, seen)} before its {START_HOOK}s were over"
    return _cause(record, seen)


def _cause(record: Record, seen: Exit) -> str:  # noqa: PLR0911 - a table of cases
    if _with_partner(record, seen):
        spec = record.assignment.spec
        return f"ended with {spec.partner}, whose {spec.lent} it shares"
    if leased.ended_by(record, seen):
        return leased.ENDED
    if record.stopping:
        asked = {"unhealthy": "stopped because it was unhealthy", "restart": RESTART_ASKED}
        return asked.get(record.stopping, f"stopped ({record.stopping})")
    if seen.oom:
        return "killed: out of memory (its limit)"
    if seen.code is None:
        return "its exit code is unknown"
    if seen.code > 128:
        return f"ended by signal {seen.code - 128} (exit code {seen.code})"
    return f"exited with {seen.code}"
