"""What nodes report becomes task records: legal moves only, gone tasks forgotten.

Reports wait in an inbox until the next pass, so that many become one transaction.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from orchestrator.control.mirror.records import NODES
from orchestrator.store import keys
from specs.states import Desired, may_move

if TYPE_CHECKING:
    from orchestrator.control.planning.passes import Pass
    from specs.task import Task, TaskStatus
    from specs.wire import Report

log = logging.getLogger(__name__)


def take(run: Pass, node: str, report: Report) -> None:
    """Write one report into the draft."""
    if node not in run.cluster.nodes:
        return
    for task_id, status in report.tasks.items():
        task = run.draft.task(task_id)
        # A task that is not this node's may not be moved by it.
        if task is None or task.node != node:
            continue
        _take_status(run, task, status)
    for task_id in report.gone:
        task = run.draft.task(task_id)
        if task is not None and task.node == node and task.desired is Desired.REMOVED:
            run.draft.delete_task(task)
    if report.full:
        _forgotten(run, node, report)
    if report.facts is not None:
        record = run.draft.get(keys.node(node), run.cluster.nodes.get(node))
        if record is not None and record.facts != report.facts:
            run.draft.put(NODES, record.model_copy(update={"facts": report.facts}))


def _take_status(run: Pass, task: Task, status: TaskStatus) -> None:
    if status == task.status:
        return
    if not may_move(task.state, status.state, by="agent"):
        log.debug(
            "a report moves a task backwards: not taken",
            extra={"task": task.id, "state": task.state, "reported": status.state},
        )
        return
    run.draft.put_task(task.model_copy(update={"status": status}))


def _forgotten(run: Pass, node: str, report: Report) -> None:
    """Forget removed tasks the node knows nothing of although it was told to remove them."""
    acknowledged = run.observed.acknowledged.get(node, 0)
    known = set(report.tasks)
    for task in list(run.cluster.by_node.get(node, {}).values()):
        if task.desired is not Desired.REMOVED or task.id in known:
            continue
        if run.draft.task(task.id) is None:
            continue
        if run.cluster.version(keys.task(task.stack, task.id)) <= acknowledged:
            run.draft.delete_task(task)
