"""Rollouts that stand: a service that was paused, and one whose canary is not promoted yet.

What a standing rollout has not begun is wanted as it is: each such slot keeps the spec of its
task, and what is lost of it comes back so. Asked by ``services`` before tasks are decided about,
and by ``releases``, which lets no release end while one stands, nor holds it to its deadline.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.control.mirror.records import RELEASES
from orchestrator.control.mirror.released import spec_at
from orchestrator.control.mirror.serving import copies
from orchestrator.control.planning import gates, stopping
from orchestrator.control.planning.passes import earliest
from scheduler.replicas import best_first, by_slot
from specs.kit.amounts import as_set
from specs.states import ReleaseState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from orchestrator.control.planning.service_state import ReleaseTarget, ServiceState
    from scheduler.reconcile import WantedService
    from scheduler.replicas import Replica
    from specs.api import Release, Stack
    from specs.stack import Canary


@dataclass(frozen=True, slots=True)
class Standing:
    """What is wanted of a service meanwhile; ``slots`` are those that keep their own ``specs``."""

    wanted: WantedService
    specs: Mapping[int, Effective] = field(default_factory=dict)
    slots: frozenset[int] = frozenset()
    canary: Canary | None = None
    unmade: int = 0  # slots that are new with it: they have no task until it goes on


def hold(
    pass_: Pass,
    stack: Stack,
    target: ReleaseTarget,
    effective: Effective,
    wanted: WantedService,
    replicas: Iterable[Replica],
) -> Standing:
    """Return what is wanted while the rollout stands; where it does not, all that was."""
    name, release = effective.service.name, target.release
    if not target.deploys or name not in (release.updates or ()):
        return Standing(wanted)
    canary = effective.service.update.canary
    if name in release.promoted:
        canary = None
    if canary is None and name not in release.paused:
        return Standing(wanted)
    found = by_slot(replicas)
    first = sorted(wanted.slots)[: canary.replicas] if canary is not None else []
    begins = () if name in release.paused else first
    stays = [
        slot
        for slot, target_hash in wanted.slots.items()
        if slot not in begins and not _begun(found.get(slot, []), target_hash)
    ]
    slots, specs = dict(wanted.slots), {}
    for slot in stays:
        own = _own(pass_, stack, effective, slot, found.get(slot, []))
        if own is None:
            del slots[slot]  # nothing was there: it is made when the rollout goes on
        else:
            slots[slot], specs[slot] = own.hash, own
    goes_first = first if canary is not None else wanted.beside
    beside = frozenset(slot for slot in goes_first if slot not in specs and slot in slots)
    unmade = len(wanted.slots) - len(slots)
    wanted = replace(wanted, slots=slots, beside=beside)
    return Standing(wanted, specs, frozenset(stays), canary, unmade)


def without_abandoned(
    pass_: Pass, stack: Stack, effective: Effective, replicas: list[Replica]
) -> list[Replica]:
    """Have canaries go that a newer release does not want; return the replicas as they are then.

    Beside one of them the task that was deployed serves: that one keeps the slot.
    """
    deployed = pass_.specs.of(stack.name, stack.running, effective.service.name)
    if deployed is None or deployed.hash == effective.hash:
        return replicas
    going: set[str] = set()
    for found in by_slot(replicas).values():
        old = [t for t in found if t.live and t.spec_hash != effective.hash]
        if len(old) > 1 and any(t.ready and t.spec_hash == deployed.hash for t in old):
            going |= {t.id for t in old if t.spec_hash != deployed.hash}
    for task_id in sorted(going):
        task = pass_.draft.task(task_id)
        if task is not None:
            stopping.begin(pass_, task)
    return [replace(t, leaving=True) if t.id in going else t for t in replicas]


def _begun(tasks: Sequence[Replica], target: str) -> bool:
    """Say whether the slot has a task of the new spec, or one that makes room for it."""
    if any(t.spec_hash == target and (t.live or t.ended) and not t.going for t in tasks):
        return True
    return any(t.going and not t.ended for t in tasks) and not any(t.live for t in tasks)


def _own(
    pass_: Pass, stack: Stack, effective: Effective, slot: int, tasks: Sequence[Replica]
) -> Effective | None:
    """Return the service as a slot has it, or had it last; None where it had nothing."""
    name = effective.service.name
    live = best_first(t for t in tasks if t.live)
    ended = [t for t in tasks if t.ended]
    if live or ended:
        return pass_.specs.of(stack.name, (live or ended[::-1])[0].release, name)
    spec = spec_at(pass_.cluster, stack.name, stack.running)
    before = spec.services.get(name) if spec is not None else None
    if before is None or before.per_node or slot > copies(stack, before):
        return None
    return pass_.specs.of(stack.name, stack.running, name)


def judge(pass_: Pass, state: ServiceState, release: Release, held: Standing) -> None:
    """Note in ``state`` why its rollout stands, and until when where time decides."""
    if release.state is not ReleaseState.DEPLOYING or state.carried:
        return
    if state.name in release.paused and (held.slots or held.wanted.beside):
        state.held = "it is paused" + (f": {_more(held)} when it goes on" if held.unmade else "")
        state.stands = True
        return
    if held.canary is None:
        return
    state.held = "its canary is watched"
    new = {
        t.slot: t
        for t in gates.current(state)
        if t.slot in held.wanted.beside and t.ready and t.ready_since is not None
    }
    if len(new) < len(held.wanted.beside) or not new:
        return
    state.stands, canary = True, held.canary
    count = "1 canary" if len(new) == 1 else f"{len(new)} canaries"
    weight = f" with {canary.weight} % of connections" if canary.weight else ""
    serves = f"{count} of {len(held.wanted.slots)} beside the old tasks{weight}"
    then = f"; {_more(held)} then" if held.unmade else ""
    if canary.promote == "manual":
        state.held, state.by_hand = f"{serves}, to be promoted or aborted{then}", True
        return
    # What has a check is not known to have served before this controller met it.
    sinces = {t.id: t.ready_since or 0.0 for t in new.values()}
    if canary.promote != "healthy":
        marks = {task_id: pass_.observed.mark(task_id) for task_id in sinces}
        sinces = {
            i: sinces[i] if m.served_since is None else m.served_since for i, m in marks.items()
        }
    at = max(sinces.values()) + canary.seconds
    state.held = f"{serves}, watched for {as_set(canary.seconds)}{then}"
    state.until = at
    state.look_at = earliest(state.look_at, at if at > pass_.now else None)


def _more(held: Standing) -> str:
    return "1 replica more is made" if held.unmade == 1 else f"{held.unmade} replicas more are made"


def promote(pass_: Pass, release: Release, judged: Iterable[ServiceState]) -> Release:
    """Promote what was watched for long enough; return the release as it is then."""
    due = [s.name for s in judged if s.stands and s.until is not None and s.until <= pass_.now]
    if not due:
        return release
    for name in due:
        text = f"{name}: its canary was good for as long as the file asks; the others follow"
        pass_.notes.append(("rollout.promoted", release.stack, text))
    release = release.with_promoted(due)
    pass_.draft.put(RELEASES, release)
    return release
