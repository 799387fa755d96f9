"""What is free: the cluster as the scheduler sees it, with what tasks have reserved of each node.

Also what is kept for those of a pair that are missing just now (see pairs).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import node_view
from orchestrator.control.mirror.ports import held_host_ports, published
from orchestrator.control.mirror.released import task_spec
from orchestrator.control.planning import pairs
from scheduler.steps import STEP, whole
from scheduler.view import Fleet, HostPort, NodeUse
from specs.states import FINAL, Desired, TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.planning.passes import Pass
    from scheduler.steps import Steps
    from specs.task import Task

MANY, FEW = 50, 4  # tasks that cost as much as one replica that is decided about
FAILURE_MEMORY = 300.0  # seconds a failure on a node counts against it


def reserved(pass_: Pass, task: Task) -> tuple[float, int]:
    """Return the CPUs and memory that a task has for itself."""
    effective = pass_.specs.of(task.stack, task.release, task.service)
    return effective.reserved if effective is not None else (0.0, 0)


def fleet(pass_: Pass) -> Fleet:
    """Return the scheduler's view: nodes with what is reserved on them, O(tasks + nodes)."""
    return whole(fleet_in_steps(pass_))


def fleet_in_steps(pass_: Pass) -> Steps[Fleet]:
    """Make the same in steps."""
    cpus: dict[str, float] = defaultdict(float)
    memory: dict[str, int] = defaultdict(int)
    services: dict[str, Counter[str]] = defaultdict(Counter)
    hashes: dict[str, Counter[str]] = defaultdict(Counter)
    ports: dict[str, set[HostPort]] = defaultdict(set)
    failures: dict[str, Counter[str]] = defaultdict(Counter)
    crowded: dict[str, set[str]] = defaultdict(set)
    pair = pairs.present(pass_)
    yield len(pass_.cluster.tasks) // MANY
    for number, task in enumerate(pass_.draft.all_tasks(), 1):
        if not number % STEP:
            yield STEP // FEW
        node = task.node
        if node is None:
            continue
        if task.state in FINAL:
            ended = pass_.observed.mark(task.id).ended_at
            recent = ended is None or pass_.now - ended < FAILURE_MEMORY
            if recent and task.state in (TaskState.FAILED, TaskState.REJECTED):
                failures[node][task.spec_hash] += 1
            continue
        if task.status.crowded:
            crowded[node].add(task.spec_hash)
        used = reserved(pass_, task)
        kept = pairs.set_aside(pass_, task, pair)
        cpus[node] += used[0] + kept[0]
        memory[node] += used[1] + kept[1]
        if task.desired in (Desired.PREPARED, Desired.RUNNING):
            services[node][f"{task.stack}/{task.service}"] += 1
            hashes[node][task.spec_hash] += 1
        if task.host_ports:
            ports[node].update(held_host_ports(task_spec(pass_.cluster, task), task.host_ports))
    uses = _Taken(cpus, memory, services, hashes, ports)
    uses.add_oneoffs(pass_)
    ingress = frozenset(port for _, _, port in published(pass_.cluster))
    nodes = {}
    for number, (node_id, record) in enumerate(pass_.cluster.nodes.items(), 1):
        if not number % STEP:
            yield STEP // 2
        nodes[node_id] = node_view(
            pass_.cluster,
            record,
            failures=failures[node_id],
            crowded=frozenset(crowded[node_id]),
            use=uses.of(node_id, ingress),
        )
    return Fleet(nodes)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What tasks take, by node."""

    cpus: dict[str, float]
    memory: dict[str, int]
    services: Mapping[str, Counter[str]]
    hashes: Mapping[str, Counter[str]]
    ports: Mapping[str, set[HostPort]]

    def add_oneoffs(self, pass_: Pass) -> None:
        for one in pass_.draft.oneoffs():
            if one.task.node is not None and not one.over:
                own = one.service.task.resources.reservations
                self.cpus[one.task.node] += own.cpus
                self.memory[one.task.node] += own.memory
                self.services[one.task.node][f"{one.stack}/{one.task.name}"] += 1
                self.ports[one.task.node].update(
                    held_host_ports(one.service.task, one.task.host_ports)
                )

    def of(self, node: str, everywhere: frozenset[HostPort]) -> NodeUse:
        services = self.services[node]
        return NodeUse(
            cpus=self.cpus[node],
            memory=self.memory[node],
            tasks=services.total(),
            services=services,
            specs=self.hashes[node],
            ports=everywhere | self.ports[node],
        )
