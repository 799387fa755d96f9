"""A carried service: what its tasks are is what it should be, whatever release made them.

A release that is not about a service neither updates nor judges it: each slot keeps the
spec its task has, an update that was half way stays where it was, and what is lost comes
back as it was. Asked by ``services`` for every service in ``StackSpec.carried``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import dependencies_of
from orchestrator.control.planning import stopping
from scheduler.replicas import best_first, by_slot
from specs.states import FINAL, Desired

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from scheduler.reconcile import WantedService
    from scheduler.replicas import Replica
    from specs.api import Stack
    from specs.stack import StackSpec
    from specs.task import Task


@dataclass(frozen=True, slots=True)
class Kept:
    """What is wanted of a carried service, and the spec of each slot that has one of its own."""

    wanted: WantedService
    specs: Mapping[int, Effective] = field(default_factory=dict)


def as_it_is(
    pass_: Pass,
    effective: Effective,
    wanted: WantedService,
    replicas: Iterable[Replica],
    *,
    stopped: bool = False,
) -> Kept:
    """Return the service with the spec each slot has now; stop what else lives in a slot.

    ``stopped``: of a slot that was stopped, the spec it had.
    """
    specs: dict[int, Effective] = {}
    slots = dict(wanted.slots)
    for slot, found in by_slot(replicas).items():
        live = best_first(t for t in found if t.live)
        ended = [t for t in found if t.ended and not t.going]
        if stopped and not ended:
            ended = [t for t in found if t.desired is Desired.SHUTDOWN]
        best = live[0] if live else ended[-1] if ended else None
        if best is None or slot not in slots:
            continue
        own = pass_.specs.of(effective.stack, best.release, effective.service.name)
        if own is None:
            continue
        slots[slot] = best.spec_hash
        if own.hash != effective.hash or effective.service.name in effective.spec.carried:
            specs[slot] = own
        for other in live[1:]:
            task = pass_.draft.task(other.id)
            if other.spec_hash != best.spec_hash and task is not None and _outdone(other, best):
                stopping.begin(pass_, task)
    return Kept(replace(wanted, slots=slots), specs)


def _outdone(other: Replica, best: Replica) -> bool:
    """Say whether the slot does without it: what nobody hears may be the one that serves."""
    return not best.unheard and (best.ready or not other.unheard)


def stop_unwanted(pass_: Pass, stack: Stack, spec: StackSpec | None) -> None:
    """Move on the stop of single services: each after what depends on it, as for a stack."""
    if not stack.stopped_services:
        return
    tasks: dict[str, list[Task]] = {name: [] for name in stack.stopped_services}
    ended: dict[str, list[Task]] = {name: [] for name in stack.stopped_services}
    for task in pass_.draft.tasks(stack.name).values():
        if task.service in tasks:
            (ended if task.state in FINAL else tasks)[task.service].append(task)
    for found in ended.values():
        stopping.trim_stopped(pass_, found)

    def over(name: str) -> bool:
        return not any(
            t.node is not None and pass_.node_status(t.node) != "down" for t in tasks.get(name, ())
        )

    graph = dependencies_of(spec) if spec is not None else None
    for name, found in tasks.items():
        if graph is not None and name in graph.graph and not graph.may_stop(name, over):
            continue
        for task in found:
            stopping.begin(
                pass_, task, graceful=False, final=Desired.SHUTDOWN, grace=stack.stop_timeout
            )
