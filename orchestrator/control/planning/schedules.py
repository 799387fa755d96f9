"""Services that run by a schedule: each due time begins one one-off, and what came of it is kept.

What is due ``scheduler.schedule`` says; here it becomes records. The one-off is made in the same
draft as the schedule's record, and written before it: whoever is killed between two transactions
finds it again by its key, which names the due time, so that none begins twice. Whatever happened
meanwhile (a stop, a pause, a change of the times) begins anew from now: nothing of it was missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.records import SCHEDULES
from orchestrator.control.mirror.released import spec_of
from orchestrator.control.planning import releases
from orchestrator.control.planning.passes import earliest
from orchestrator.errors import Conflict, NotFound
from scheduler.schedule import due
from specs.oneoff import OneOff
from specs.schedule import Iteration, Schedule
from specs.states import BROKEN, Desired, TaskState
from specs.task import Task

if TYPE_CHECKING:
    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from specs.api import Release, Stack
    from specs.schedule import ActOnSchedule, Outcome, ScheduleSpec
    from specs.stack import StackSpec

HEAR = 1.0  # seconds until a node that was not heard is asked about again
LOOK = 30.0  # seconds after which it is looked at again anyway: wall clocks are put
TIMES = ("cron", "timezone", "paused", "jitter")  # a change of these begins anew
FAILED: frozenset[Outcome] = frozenset({"failed", "late", "lost"})


def plan(pass_: Pass, stack: Stack) -> float | None:
    """Move the stack's schedules on; return when to look again."""
    known = {record.service: record for record in pass_.draft.schedules(stack.name)}
    release = _release(pass_, stack) if stack.desired == "up" else None
    spec = spec_of(pass_.cluster, release)
    wanted: dict[str, ScheduleSpec] = {}
    for name, service in spec.services.items() if spec is not None else ():
        if service.schedule is not None:
            wanted[name] = service.schedule
    at: float | None = None
    for name in sorted({*known, *wanted}):
        record = known.get(name)
        if stack.desired == "up" and spec is not None and name not in wanted:
            _forget(pass_, known[name])
            continue
        idle = spec is None or name in stack.stopped_services or name in stack.created
        if idle or release is None or spec is None:
            if record is not None:
                _rest(pass_, stack, record)
            continue
        begun = _begun(pass_, record, stack.name, name, wanted[name])
        after, wake = _look(pass_, begun, release, spec)
        if after != record:
            pass_.draft.put(SCHEDULES, after)
        at = earliest(at, wake)
    return at


def _release(pass_: Pass, stack: Stack) -> Release | None:
    """Return the release whose services run by schedules: what was deployed last, or is now."""
    found = releases.target(pass_, stack)
    if found is not None:
        return found.release
    return pass_.cluster.releases.get((stack.name, stack.running))


def _begun(
    pass_: Pass, record: Schedule | None, stack: str, service: str, spec: ScheduleSpec
) -> Schedule:
    """Return the record as it is wanted now; what was no time of its before is not missed."""
    if record is None:
        return Schedule(stack=stack, service=service, spec=spec, since=pass_.wall)
    anew = record.resting or any(getattr(record.spec, k) != getattr(spec, k) for k in TIMES)
    update: dict[str, object] = {"spec": spec, "resting": False}
    if anew:
        update["since"] = pass_.wall
    return record.model_copy(update=update)


def _forget(pass_: Pass, record: Schedule) -> None:
    """Let go of the schedule of a service that has none any more."""
    for one in _oneoffs(pass_, record).values():
        pass_.draft.put_oneoff(one.removed())
    pass_.draft.delete(SCHEDULES, record)


def _rest(pass_: Pass, stack: Stack, record: Schedule) -> None:
    """Have nothing begin, and stop what goes on: the stack or the service is stopped."""
    after = _followed(pass_, record)
    for one in after.going:
        after = _end(pass_, after, one, "stopped", "", grace=stack.stop_timeout)
    after = after.model_copy(update={"resting": True})
    if after != record:
        pass_.draft.put(SCHEDULES, after)


def _look(
    pass_: Pass, record: Schedule, release: Release, spec: StackSpec
) -> tuple[Schedule, float | None]:
    """Return the record as it is after this look, and when to look again."""
    record = _followed(pass_, record)
    record, at = _deadlines(pass_, record)
    if record.spec.paused or record.held:
        return _trimmed(pass_, record.model_copy(update={"problem": ""})), at
    try:
        found = due(record.spec, record.salt, record.since, pass_.wall, going=len(record.going))
    except ValueError as error:  # this machine's zone data went, or it was another machine's
        return record.model_copy(update={"problem": str(error)}), pass_.now + LOOK
    if found.since > record.since and record.spec.overlap != "allow" and _unheard(pass_, record):
        return record, pass_.now + HEAR
    update: dict[str, object] = {"since": found.since, "problem": found.note}
    if found.skipped:
        update["skipped"] = record.skipped + found.skipped
        update["skipped_at"] = pass_.wall
        update["skipped_why"] = found.why
        text = f"{record.service}: {found.skipped} due times passed without an iteration"
        if found.skipped == 1:
            text = f"{record.service}: a due time passed without an iteration"
        pass_.notes.append(("schedule.skipped", record.stack, f"{text}: {found.why}"))
    record = record.model_copy(update=update)
    if found.replaces:
        record = _replaced(pass_, record)
    if found.begin is not None:
        record, _ = _begin(pass_, record, release, spec, at=found.begin)
    soon = min(pass_.now + LOOK, _at(pass_, found.wake)) if found.wake is not None else None
    return _trimmed(pass_, record), earliest(at, soon)


def _unheard(pass_: Pass, record: Schedule) -> bool:
    """Say whether nobody knows if an iteration still goes on: its node has not said yet.

    So it is when a controller begins; a node that stays silent is down soon, and blocks nothing.
    """
    ones = (pass_.draft.oneoff(known.task) for known in record.going)
    nodes = {one.task.node for one in ones if one is not None and one.task.node is not None}
    return any(pass_.node_status(node) == "unknown" for node in nodes)


def _at(pass_: Pass, wall: float) -> float:
    return pass_.now + max(0.0, wall - pass_.wall)


# what became of those that were begun


def _followed(pass_: Pass, record: Schedule) -> Schedule:
    """Return the record with its iterations as their one-offs are."""
    ones = _oneoffs(pass_, record)
    for known in record.iterations:
        if known.outcome in ("", "lost"):
            now = _as_it_is(pass_, known, ones.get(known.task))
            if now != known:
                record = record.with_iteration(now)
                record = _counted(pass_, record, known, now)
    return record


def _oneoffs(pass_: Pass, record: Schedule) -> dict[str, OneOff]:
    """Return the one-offs of the record's iterations that are there, by the id of their task."""
    found = (pass_.draft.oneoff(known.task) for known in record.iterations)
    return {one.id: one for one in found if one is not None}


def _as_it_is(pass_: Pass, known: Iteration, one: OneOff | None) -> Iteration:
    if one is None:
        ended = {"outcome": known.outcome or "lost", "ended_at": known.ended_at or pass_.wall}
        return known.model_copy(
            update={**ended, "reason": known.reason or "nobody has it any more"}
        )
    task, run = one.task, one.task.status.run
    node = pass_.cluster.nodes.get(task.node or "")
    update: dict[str, object] = {
        "node": node.name if node is not None else known.node,
        "started_at": run.started_at if run is not None else None,
    }
    if not one.over:
        lost = task.node is not None and pass_.node_status(task.node) == "down"
        update["outcome"] = "lost" if lost else ""
        asked = known.reason if known.ends else ""
        update["reason"] = f"node {update['node']} does not answer" if lost else asked
        return known.model_copy(update=update)
    update["outcome"] = _outcome(one, known)
    update["reason"] = known.reason if known.ends else task.status.reason
    update["exit_code"] = run.exit_code if run is not None else None
    update["ended_at"] = run.finished_at if run is not None and run.finished_at else pass_.wall
    return known.model_copy(update=update)


def _outcome(one: OneOff, known: Iteration) -> Outcome:
    if one.task.state is TaskState.COMPLETE:
        return "complete"
    if known.ends:
        return known.ends
    if one.task.state is TaskState.ORPHANED:
        return "lost"
    never = one.task.node is None and one.task.status.reason
    return "failed" if one.task.state in BROKEN or never else "stopped"


def _counted(pass_: Pass, record: Schedule, before: Iteration, now: Iteration) -> Schedule:
    """Count an end, and say it; what was lost and comes to an end after all fails only once."""
    if not now.outcome or now.outcome == before.outcome:
        return record
    name = f"{record.service} iteration {now.number}"
    if now.outcome == "complete":
        at = now.ended_at or pass_.wall
        pass_.notes.append(("schedule.complete", record.stack, f"{name} completed"))
        update = {"succeeded": record.succeeded + 1, "succeeded_at": max(at, record.succeeded_at)}
        return record.model_copy(update=update)
    code = f" with exit code {now.exit_code}" if now.exit_code is not None else ""
    reason = f": {now.reason}" if now.reason else ""
    text = f"{name} ended as {now.outcome}{code}{reason}"
    pass_.notes.append((f"schedule.{now.outcome}", record.stack, text))
    if now.outcome in FAILED and not before.outcome:
        return record.model_copy(update={"failed": record.failed + 1})
    return record


def _deadlines(pass_: Pass, record: Schedule) -> tuple[Schedule, float | None]:
    """End what takes too long; return when the next one will."""
    at: float | None = None
    limit = record.spec.deadline
    if limit is None:
        return record, at
    for one in record.going:
        until = one.begun_at + limit
        if until <= pass_.wall:
            record = _end(pass_, record, one, "late", f"it took longer than its {limit:g} s")
        else:
            at = earliest(at, _at(pass_, until))
    return record, at


def _replaced(pass_: Pass, record: Schedule) -> Schedule:
    """Have what goes on stop for the next iteration."""
    for one in record.going:
        why = f"iteration {record.number + 1} took its place"
        record = _end(pass_, record, one, "replaced", why)
    return record


def _end(
    pass_: Pass,
    record: Schedule,
    known: Iteration,
    ends: Outcome,
    why: str,
    *,
    grace: float | None = None,
) -> Schedule:
    """Have an iteration stop; its end is called ``ends``, unless it completes all the same."""
    one = pass_.draft.oneoff(known.task)
    if known.ends or one is None or one.over:
        return record
    pass_.draft.put_oneoff(one.stopped(grace))
    return record.with_iteration(known.model_copy(update={"ends": ends, "reason": why}))


def _trimmed(pass_: Pass, record: Schedule) -> Schedule:
    """Return the record without what is more than is to be kept; its logs go."""
    ended = [one for one in record.iterations if one.outcome]
    for old in ended[: max(0, len(record.iterations) - record.spec.keep)]:
        one = pass_.draft.oneoff(old.task)
        if one is not None and one.shown:
            pass_.draft.put_oneoff(one.removed())
        left = tuple(known for known in record.iterations if known.number != old.number)
        record = record.model_copy(update={"iterations": left})
    return record


# beginning one


def _begin(
    pass_: Pass, record: Schedule, release: Release, spec: StackSpec, *, at: float
) -> tuple[Schedule, Iteration]:
    """Begin the iteration of a due time, 0 = by hand; return it, and the record with it."""
    number = record.number + 1
    key = f"schedule/{record.stack}/{record.service}/{at:.0f}/{number if not at else ''}"
    mine = pass_.draft.oneoffs(record.stack)
    one = next((one for one in mine if at and one.key == key), None)
    if one is None:
        names = {other.task.name for other in mine}
        names |= {task.name for task in pass_.draft.tasks(record.stack).values()}
        while f"{record.stack}-{record.service}-{number}" in names:
            number += 1  # of what the service was before it had a schedule
        one = _oneoff(pass_, record, release, spec, number, key)
        pass_.draft.put_oneoff(one)
    else:  # made before whoever made it was killed
        number = int(one.task.name.rpartition("-")[2])
    made = Iteration(
        number=number,
        task=one.id,
        name=one.task.name,
        due=at,
        begun_at=pass_.wall,
        release=release.number,
    )
    text = f"{record.service} iteration {number} begins" + ("" if at else ", as somebody asked")
    pass_.notes.append(("schedule.begun", record.stack, text))
    return record.with_iteration(made).model_copy(update={"number": number}), made


def _oneoff(
    pass_: Pass, record: Schedule, release: Release, spec: StackSpec, number: int, key: str
) -> OneOff:
    effective: Effective = pass_.specs.under(release, spec, record.service)
    task = effective.task.model_copy(update={"on_reboot": "keep", "exclusive": False})
    used = {attachment.network for attachment in task.networks}
    mounted = {mount.source for mount in task.mounts if mount.type == "volume"}
    return OneOff(
        task=Task(
            id=pass_.new_id("t"),
            stack=record.stack,
            service=record.service,
            slot=0,
            name=f"{record.stack}-{record.service}-{number}",
            release=0,
            spec_hash="",
            desired=Desired.RUNNING,
            created_at=pass_.made_at(record.stack),
        ),
        service=effective.service.model_copy(
            update={"task": task, "replicas": 1, "schedule": None}
        ),
        key=key,
        networks={key: net for key, net in effective.spec.networks.items() if key in used},
        volumes={key: vol for key, vol in effective.spec.volumes.items() if key in mounted},
        client=effective.client,
    )


# what somebody asks


def act(pass_: Pass, name: str, service: str, request: ActOnSchedule) -> int:
    """Do what somebody asks; return the iteration begun, 0 = none. Raises NotFound, Conflict."""
    stack = pass_.cluster.stacks.get(name)
    if stack is None or stack.desired == "removed":
        raise NotFound(f"there is no stack {name}", hint="corral ls shows what there is")
    if request.action == "run":
        return run_now(pass_, stack, service)
    hold(pass_, stack, service, held=request.action == "pause")
    return 0


def run_now(pass_: Pass, stack: Stack, service: str) -> int:
    """Begin an iteration by hand; return its number. Raises NotFound, Conflict."""
    record = _known(pass_, stack, service)
    release = _release(pass_, stack)
    spec = spec_of(pass_.cluster, release)
    if release is None or spec is None or record.resting or service not in spec.services:
        raise Conflict(f"{service} is stopped", hint=f"corral -p {stack.name} start {service}")
    record = _followed(pass_, record)
    if record.going and record.spec.overlap == "forbid":
        going = record.going[-1]
        raise Conflict(
            f"iteration {going.number} of {service} is going on, and its schedule says overlap: "
            "forbid",
            hint=f"corral -p {stack.name} wait {going.name}, or stop {going.name}",
        )
    if record.spec.overlap == "replace":
        record = _replaced(pass_, record)
    record, made = _begin(pass_, record, release, spec, at=0.0)
    pass_.draft.put(SCHEDULES, _trimmed(pass_, record))
    return made.number


def hold(pass_: Pass, stack: Stack, service: str, *, held: bool) -> None:
    """Have nothing begin by itself any more, or again from now on. Raises NotFound, Conflict."""
    record = _known(pass_, stack, service)
    if not held and record.spec.paused:
        raise Conflict(
            f"{service} is paused by its file", hint="leave `paused` out there, and corral up -d"
        )
    update: dict[str, object] = {"held": held}
    if not held:
        update["since"] = pass_.wall
    pass_.draft.put(SCHEDULES, record.model_copy(update=update))


def _known(pass_: Pass, stack: Stack, service: str) -> Schedule:
    found = {record.service: record for record in pass_.draft.schedules(stack.name)}
    if service not in found:
        names = ", ".join(sorted(found)) or "none"
        raise NotFound(
            f"there is no schedule {service} in stack {stack.name}",
            hint=f"services with schedules: {names}",
        )
    return found[service]
