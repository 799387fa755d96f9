"""Where a plan somebody agreed to has the replicas of its release: they are held to that.

Asked by ``placement``. What is planned is decided by the same planner, over the same cluster; but
which of two services is a second ahead of the other is not, and may decide between two nodes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from scheduler.view import Only

if TYPE_CHECKING:
    from orchestrator.control.planning.passes import Pass
    from scheduler.view import Pending
    from specs.task import Task

HELD = 8.0  # seconds; less than NOWHERE, after which people are told that no node takes it


def held_to(pass_: Pass, task: Task, need: Pending) -> Pending:
    """Return a need for the node of the plan that the task's release was made from, if for any.

    It is held to that for a while, in which what the plan had go by then goes; a second try, and
    one whose node does not take anything new, goes where it can.
    """
    release = pass_.cluster.releases.get((task.stack, task.release))
    if release is None or not release.places or task.attempt:
        return need
    node = release.places.get(f"{task.service}.{task.slot}")
    view = pass_.view(node)
    if node is None or view is None or view.status != "ready" or view.availability != "active":
        return need
    need = replace(need, prefers=node)
    if pass_.wall - task.created_at > HELD:
        return need
    return replace(need, only=(*need.only, Only("the place that the plan has", frozenset({node}))))
