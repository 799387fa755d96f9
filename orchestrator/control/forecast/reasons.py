"""Why a task goes where it goes, asked in the pass that placed it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import availability
from orchestrator.control.mirror.serving import is_leaving
from orchestrator.control.planning.placement import homes, needs
from scheduler import constraints
from scheduler.refusals import no_place
from scheduler.view import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from specs.node import Node
    from specs.task import Task


def why(pass_: Pass, task: Task, before: Iterable[Task], view: Callable[[], Fleet]) -> str:
    """Return why a task that was just placed is on its node, the strongest reason.

    ``before``: the tasks that were there before all of it; ``view`` makes the pass's fleet.
    """
    effective = pass_.specs.of(task.stack, task.release, task.service)
    if effective is None:
        return ""
    return next(filter(None, _reasons(pass_, task, effective, before, view)), "")


def _reasons(
    pass_: Pass,
    task: Task,
    effective: Effective,
    before: Iterable[Task],
    view: Callable[[], Fleet],
) -> Iterator[str]:
    for home in homes(pass_, effective, task.slot):
        what = home.what.partition(" (")[0]
        made = what.startswith("volume ") and what[7:] not in pass_.cluster.volumes
        yield f"{what} will be there" if made else f"{what} is there"
    if effective.service.per_node:
        yield "one on each node"
    if task.partner:
        yield f"beside {effective.task.partner}, whose {effective.task.lent} it shares"
    mine = [t for t in before if (t.service, t.slot) == (task.service, task.slot)]
    held = [t for t in mine if t.node is not None and not is_leaving(t)]
    if held:
        same = held[-1].node == task.node
        yield "where it was" if same else _left(pass_, task, effective, held[-1].node or "", view)
    yield _among(pass_, effective)


def _among(pass_: Pass, effective: Effective) -> str:
    """Return between which nodes there was a choice."""
    rules = effective.service.placement.constraints
    views = [view for node in pass_.cluster.nodes if (view := pass_.view(node)) is not None]
    fits = [view for view in views if constraints.broken(rules, view) is None]
    if rules and len(fits) < len(views):
        rule = rules[0].strip()
        return rule if len(fits) == 1 else f"one of {len(fits)} with {rule}"
    return "the least loaded" if len(views) > 1 else ""


def _left(
    pass_: Pass, task: Task, effective: Effective, old: str, view: Callable[[], Fleet]
) -> str:
    """Return why a task does not go where the one before it is."""
    record = pass_.cluster.nodes.get(old)
    if record is None:
        return "its node left the cluster"
    return _not_ready(pass_, record) or _refused(pass_, task, effective, record, view)


def _not_ready(pass_: Pass, node: Node) -> str:
    if availability(node) == "drain":
        return f"{node.name} is drained"
    status = pass_.node_status(node.id)
    return f"{node.name} is {status}" if status != "ready" else ""


def _refused(
    pass_: Pass, task: Task, effective: Effective, node: Node, view: Callable[[], Fleet]
) -> str:
    there = Fleet({node.id: view().nodes[node.id]})
    found = no_place(there, needs(pass_, task, effective))
    if found.nodes:
        return found.nodes[0].replace(": ", " ", 1)
    return f"more is on {node.name}"
