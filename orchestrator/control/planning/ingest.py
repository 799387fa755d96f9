"""What nodes report becomes task records: legal moves only, gone tasks forgotten.

Reports wait in an inbox until the next pass, so that many become one transaction.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from orchestrator.control.mirror.records import NODES
from orchestrator.control.planning import homes, oneoffs
from orchestrator.store import keys
from specs.states import FINAL, Desired, may_move
from specs.underlay import readdressed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.planning.passes import Pass
    from specs.node import Node, NodeFacts
    from specs.task import Task, TaskStatus
    from specs.wire import Hello, Report

log = logging.getLogger(__name__)


def greeted(pass_: Pass, hellos: Mapping[str, Hello]) -> None:
    """Write what nodes whose session began say of their machines."""
    for node, hello in hellos.items():
        record = pass_.cluster.nodes.get(node)
        if record is not None and record.facts != hello.facts:
            look_at_machine(pass_, record, hello.facts)


def take(pass_: Pass, node: str, report: Report) -> None:
    """Write one report into the draft."""
    if node not in pass_.cluster.nodes:
        return
    for task_id, status in report.tasks.items():
        if oneoffs.take_status(pass_, node, task_id, status):
            continue
        task = pass_.draft.task(task_id)
        # A task that is not this node's may not be moved by it.
        if task is None or task.node != node:
            continue
        _take_status(pass_, task, status)
    for task_id in report.gone:
        oneoffs.take_gone(pass_, node, task_id)
        task = pass_.draft.task(task_id)
        if task is not None and task.node == node and task.desired is Desired.REMOVED:
            pass_.draft.delete_task(task)
    if report.full:
        _forgotten(pass_, node, report)
    if report.volumes is not None:
        homes.hear(pass_, node, report.volumes)
    elif report.full:  # an agent of an earlier version does not say
        pass_.observed.volumes.setdefault(node, frozenset())
    if report.facts is not None:
        record = pass_.draft.get(keys.node(node), pass_.cluster.nodes.get(node))
        if record is not None and record.facts != report.facts:
            look_at_machine(pass_, record, report.facts)
    look_at_mtu(pass_, node, report.mtu)


def look_at_mtu(pass_: Pass, node_id: str, mtu: int) -> None:
    """Write the MTU a node has towards its peers; they keep to the smallest."""
    record = pass_.draft.get(keys.node(node_id), pass_.cluster.nodes.get(node_id))
    if record is not None and mtu and record.mtu != mtu:
        pass_.draft.put(NODES, record.with_mtu(mtu))


def look_at_machine(pass_: Pass, node: Node, facts: NodeFacts) -> None:
    """Write what a node's machine is now; its peers hear of an address that changed."""
    seen = node.with_facts(facts)
    known = readdressed(seen, facts, pass_.cluster.record.ranges)
    if known.underlay != node.underlay:
        pass_.notes.append(
            (
                "node.readdressed",
                "",
                f"node {node.name} is reached at {known.underlay} now, {node.underlay} is gone",
            )
        )
    pass_.draft.put(NODES, known)


def _take_status(pass_: Pass, task: Task, status: TaskStatus) -> None:
    if status == task.status:
        return
    if not may_move(task.state, status.state, by="agent"):
        log.debug(
            "a report moves a task backwards: not taken",
            extra={"task": task.id, "state": task.state, "reported": status.state},
        )
        return
    taken = task.with_status(status)
    stack = pass_.cluster.stacks.get(task.stack)
    if task.live and status.state in FINAL and stack is not None:
        taken = taken.with_asked(stack.asked.get(task.service, 0))
    pass_.draft.put_task(taken)


def _forgotten(pass_: Pass, node: str, report: Report) -> None:
    """Forget removed tasks the node knows nothing of although it was told to remove them."""
    acknowledged = pass_.observed.acknowledged.get(node, 0)
    known = set(report.tasks)
    for one in pass_.draft.oneoffs():
        told = pass_.cluster.version(keys.oneoff(one.stack, one.id)) <= acknowledged
        if told and one.id not in known:
            oneoffs.take_gone(pass_, node, one.id)
    for task in list(pass_.cluster.by_node.get(node, {}).values()):
        if task.desired is not Desired.REMOVED or task.id in known:
            continue
        if pass_.draft.task(task.id) is None:
            continue
        if pass_.cluster.version(keys.task(task.stack, task.id)) <= acknowledged:
            pass_.draft.delete_task(task)
