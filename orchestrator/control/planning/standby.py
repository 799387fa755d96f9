"""Blue-green: a whole set of new tasks beside the old one, and traffic for one of them.

Who gets none is written into the stack, by the hash of the spec (``Stack.standby``): one record,
so the change over is one write, and every node is told of it in one piece. First that is the new
set, until all of it came to stay; then the old one, which runs on for a while to go back to. What
is asked for that stands by already (`rollback`, `rollout abort`) needs no more than that write.

``look`` is asked before the tasks of a service are decided about, ``change_over`` after it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.control.mirror.records import STACKS
from orchestrator.control.planning import gates, stopping
from orchestrator.control.planning.passes import earliest
from orchestrator.store import keys
from specs.api import Standby
from specs.states import ReleaseState

if TYPE_CHECKING:
    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from orchestrator.control.planning.service_state import ReleaseTarget, ServiceState
    from scheduler.reconcile import WantedService
    from scheduler.replicas import Replica
    from specs.api import Stack

COMES = "its new tasks come up beside the old ones, without traffic"


def record_of(pass_: Pass, name: str) -> Stack:
    """Return the stack's record as this pass has it so far."""
    found: Stack = pass_.draft.get(keys.stack(name), pass_.cluster.stacks[name])
    return found


def look(
    pass_: Pass,
    stack: Stack,
    target: ReleaseTarget,
    effective: Effective,
    wanted: WantedService,
    replicas: list[Replica],
) -> tuple[WantedService, list[Replica]]:
    """Return the service without what only stands by; begin a blue-green update of it.

    What stands by and is kept is no replica of anything; what is not kept any more goes.
    """
    name = effective.service.name
    standby = record_of(pass_, stack.name).standby.get(name)
    if _begins(target, effective, standby, replicas):
        hashes = (*(standby.hashes if standby is not None else ()), effective.hash)
        standby = Standby(hashes=hashes)
        record = record_of(pass_, stack.name)
        pass_.draft.put(STACKS, record.with_standby(name, standby))
    if standby is None:
        return wanted, replicas
    coming = bool({*wanted.slots.values()} & {*standby.hashes})
    aside = {
        t.id: t
        for t in replicas
        if t.live and t.spec_hash in standby.hashes and t.spec_hash != wanted.slots.get(t.slot)
    }
    in_time = standby.since > 0 and pass_.wall < standby.until
    kept = in_time and not coming and not target.rollback and not _superseded(target, name, standby)
    going = {t.id for t in aside.values() if not kept or t.evicted or t.lost}
    for task_id in sorted(going):
        task = pass_.draft.task(task_id)
        if task is not None:
            stopping.begin(pass_, task, grace=target.grace)
    left = [
        replace(t, leaving=True) if t.id in going else t
        for t in replicas
        if t.id in going or t.id not in aside
    ]
    if coming:
        wanted = replace(wanted, beside=frozenset(wanted.slots))
    return wanted, left


def serving(stack: Stack, service: str, replicas: list[Replica]) -> list[Replica]:
    """Return the replicas but for those that stand by; all of them where no other lives."""
    standby = stack.standby.get(service)
    if standby is None:
        return replicas
    others = [t for t in replicas if t.spec_hash not in standby.hashes]
    return others if any(t.live for t in others) else replicas


def _superseded(target: ReleaseTarget, name: str, standby: Standby) -> bool:
    """Say whether another update began since: what was kept before that is no way back any more."""
    release = target.release
    deploys = release.state is ReleaseState.DEPLOYING and name in (release.updates or ())
    return deploys and standby.since < release.created_at


def _begins(
    target: ReleaseTarget, effective: Effective, standby: Standby | None, replicas: list[Replica]
) -> bool:
    """Say whether the new set is to come up beside one that serves, and nothing of it is there."""
    release, name = target.release, effective.service.name
    if not (
        target.deploys and effective.service.update.blue_green and name in (release.updates or ())
    ):
        return False
    known = standby.hashes if standby is not None else ()
    if effective.hash in known:
        return False
    if any(t.live and t.spec_hash == effective.hash for t in replicas):
        return False
    return any(t.live and t.ready and t.spec_hash not in known for t in replicas)


def change_over(pass_: Pass, stack: Stack, target: ReleaseTarget, state: ServiceState) -> None:
    """Give the traffic to what is wanted once all of it came to stay; note when what is kept goes.

    It does so at once where nothing else serves: then nothing is lost.
    """
    record = record_of(pass_, stack.name)
    standby = record.standby.get(state.name)
    if standby is None:
        return
    goal = {*state.wanted.slots.values()}
    tasks = [t for t in pass_.draft.tasks(stack.name).values() if t.service == state.name]
    live = [t for t in tasks if t.live]
    if not goal & {*standby.hashes}:
        if not any(t.spec_hash in standby.hashes for t in live):
            if target.release.state is not ReleaseState.DEPLOYING:
                pass_.draft.put(STACKS, record.with_standby(state.name, None))
        elif pass_.wall < standby.until:
            state.look_at = earliest(state.look_at, pass_.now + standby.until - pass_.wall)
        return
    serves = [t for t in live if t.status.ready and t.spec_hash not in standby.hashes]
    if serves and state.name in target.release.paused and not target.rollback:
        state.held, state.stands = "it is paused", True
        return
    state.held = COMES
    if serves and state.steady < len(state.wanted.slots):
        return
    if not serves and not any(t.ready for t in gates.current(state)):
        return
    old = tuple(sorted({t.spec_hash for t in live} - goal))
    update = state.effective.service.update
    keep = update.keep_old if target.deploys and update.blue_green else 0.0
    now = pass_.wall
    made = Standby(hashes=old, since=now, until=now + keep) if old else None
    pass_.draft.put(STACKS, record.with_standby(state.name, made))
    text = f"{state.name}: release {state.effective.release} gets the traffic"
    if old and keep:
        text += f"; the {len(serves)} tasks before it are kept, to go back to"
    pass_.notes.append(("rollout.changed-over", stack.name, text))
    state.look_at = earliest(state.look_at, pass_.now)
