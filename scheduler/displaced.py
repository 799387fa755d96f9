"""Tasks whose node no longer satisfies their constraints: which go elsewhere, which stay and why.

A label was taken from the node, or a new release asks for another one. Asked by
``orchestrator.control.planning.misplaced`` for one service; ``scheduler.rollout`` moves what
goes, as an update would. Preferences, free room and failures move nothing. What must leave its
node for another reason and cannot exist twice (``Settled.leaves``) moves the same way: its end
comes first, so there must be a place for its successor.

Laws (tests/laws/test_displaced.py): what satisfies its constraints does not move; what does not
is among those that move or among those that stay with a reason, never in both; nothing moves
that is tied to its node, that cannot be heard, or while the brake is on; who moves has a place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scheduler import constraints
from scheduler.place import place
from specs.states import HEARD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scheduler.view import Fleet, NodeView, Pending

SHORT = 10.0  # seconds a place may still be found in
LONG = 30.0  # seconds in which a silent node is back, or what it had is lost


@dataclass(frozen=True, slots=True)
class Settled:
    """A task that has a node, and what it would need of another one (``wants``)."""

    wants: Pending
    node: str
    succeeded: bool = False  # another task takes its place already, where that may be
    leaves: str = ""  # why it must leave its node, whatever its constraints say


@dataclass(frozen=True, slots=True)
class Stay:
    """Why a task stays where it should not be; ``patience``: seconds in which that may pass.

    ``broken``: it is not where the file asks for it to be.
    """

    reason: str
    patience: float = 0.0
    broken: bool = True


@dataclass(frozen=True, slots=True)
class Displaced:
    """Task ids: those that go elsewhere, and those that stay for now."""

    moves: frozenset[str] = frozenset()
    stays: Mapping[str, Stay] = field(default_factory=dict)


def displaced(view: Fleet, tasks: Iterable[Settled], *, brake: bool) -> Displaced:
    """Return what is to become of these tasks."""
    moves: set[str] = set()
    stays: dict[str, Stay] = {}
    homeless: dict[str, tuple[Pending, str, bool]] = {}
    for task in tasks:
        node = view.nodes.get(task.node)
        rule = constraints.broken(task.wants.constraints, node) if node is not None else None
        if node is None or (rule is None and not task.leaves):
            continue
        broken = rule is not None
        said = task.leaves
        if rule is not None:
            said = f"{node.name} does not satisfy {rule.text.strip()!r}"
        tied = held(task, node, brake=brake)
        if tied is not None:
            stays[task.wants.task] = Stay(f"{said}; {tied.reason}", tied.patience, broken)
        elif task.succeeded:
            moves.add(task.wants.task)
        else:
            homeless[task.wants.task] = (task.wants, said, broken)
    found = place(view, [wants for wants, _, _ in homeless.values()])
    moves.update(found.assigned)
    for name, reason in found.refused.items():
        _, said, broken = homeless[name]
        stays[name] = Stay(f"{said}, and {reason}", SHORT, broken)
    return Displaced(frozenset(moves), stays)


def held(task: Settled, node: NodeView, *, brake: bool) -> Stay | None:
    """Return what keeps a task where it is, whatever room there is elsewhere."""
    if task.wants.homes:
        return Stay(f"it stays with {task.wants.homes[0].what}")
    if node.status not in HEARD:
        return Stay("it is not moved while its node does not answer", LONG)
    if brake:
        return Stay("nothing is moved while so many nodes are down", LONG)
    return None
