"""Ports of the machine (``mode: host``) that a release asks for, where others hold them already.

Placement finds a node where the port is free, task by task. What is certain before that is said
when the release is made: that no node which would do has it free, and who holds it. Called by
``release``; pure but for the problems it notes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import availability, node_view
from orchestrator.control.mirror.ports import fixed_host_ports, held_host_ports, published
from orchestrator.control.mirror.released import task_spec
from scheduler import constraints
from scheduler.filters import RESERVED_PORTS
from specs.kit.amounts import some
from specs.states import FINAL, WANTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.deploy.deployment import Deployment
    from scheduler.view import HostPort
    from specs.node import Node
    from specs.stack import ServiceSpec, StackSpec

SHOWN = 3  # holders named in one sentence


def check_host_ports(deployment: Deployment, spec: StackSpec, overrides: Mapping[str, int]) -> None:
    """Refuse what no node has free; warn where it is too few nodes for the copies."""
    held: dict[str, list[tuple[str, HostPort]]] | None = None  # asked for by hardly any file
    seen: list[tuple[str, HostPort, set[str]]] = []
    for name, service in spec.services.items():
        count = overrides.get(name, service.replicas)
        if name in spec.carried or (not service.per_node and not count):
            continue
        for port in fixed_host_ports(service.task):
            path, label = f"services.{name}.ports", f"{port.port}/{port.protocol}"
            if label in RESERVED_PORTS:
                text = f"port {label} is reserved for the node itself"
                deployment.error(path, text, code="port-in-use")
                continue
            held = _held(deployment, spec) if held is None else held
            nodes = _fitting(deployment, service)
            taken = {n.id: who for n in nodes if (who := _holder(deployment, n, port, held[n.id]))}
            free = {node.id for node in nodes} - taken.keys()
            twin = next(
                (
                    t
                    for t, its, its_nodes in seen
                    if its.clashes(port) and free == its_nodes and len(free) == 1
                ),
                "",
            )
            if nodes and not free:
                _refuse(deployment, path, label, taken)
            elif twin:
                deployment.error(
                    path,
                    f"port {label} of the machine is also asked for by {twin}, and one node only "
                    "has it free",
                    code="port-in-use",
                    hint="publish another port, or another address of the machine",
                )
            elif taken and not service.per_node and count > len(free):
                deployment.warn(
                    path,
                    f"port {label} is free on {len(free)} of {len(nodes)} nodes, which is too few "
                    f"for the {count} copies of {name}: it is held by {_named(deployment, taken)}",
                )
            seen.append((name, port, free))


def _fitting(deployment: Deployment, service: ServiceSpec) -> list[Node]:
    """Return the nodes that would do but for the port."""
    asked, cluster = service.placement.constraints, deployment.cluster
    return [
        node
        for node in cluster.nodes.values()
        if availability(node) == "active"
        and (not asked or constraints.broken(asked, node_view(cluster, node)) is None)
    ]


def _held(deployment: Deployment, spec: StackSpec) -> dict[str, list[tuple[str, HostPort]]]:
    """Return, for each node, who holds what there and goes on to: what is replaced does not."""
    cluster = deployment.cluster
    # On a single node a carried service's ports are ``carrying.check_clashes``' to refuse.
    beside = spec.carried if len(cluster.nodes) > 1 else ()
    everywhere = [
        (f"{stack}/{service}", port)
        for stack, service, port in published(cluster)
        if stack != deployment.stack
    ]
    held = {node: list(everywhere) for node in cluster.nodes}
    for task in cluster.tasks.values():
        record = cluster.stacks.get(task.stack)
        stays = record is not None and record.desired == "up" and task.desired in WANTED
        replaced = task.stack == deployment.stack and task.service not in beside
        if task.node not in held or not stays or replaced or task.state in FINAL:
            continue
        for port in held_host_ports(task_spec(cluster, task), task.host_ports):
            held[task.node].append((f"{task.stack}/{task.service}", port))
    return held


def _holder(
    deployment: Deployment, node: Node, port: HostPort, held: list[tuple[str, HostPort]]
) -> str:
    who = next((who for who, other in held if other.clashes(port)), "")
    if who or f"{port.port}/{port.protocol}" not in deployment.listening(node):
        return who
    ours = any(
        port in held_host_ports(task_spec(deployment.cluster, task), task.host_ports)
        for task in deployment.cluster.by_stack.get(deployment.stack, {}).values()
        if task.node == node.id
    )
    return "" if ours else "a process"


def _refuse(deployment: Deployment, path: str, label: str, taken: Mapping[str, str]) -> None:
    by_process = set(taken.values()) == {"a process"}
    deployment.error(
        path,
        f"port {label} of the machine is already held by {_named(deployment, taken)}",
        code="port-in-use",
        hint="publish another port, or "
        + ("stop that process" if by_process else "take down what holds it"),
    )


def _named(deployment: Deployment, taken: Mapping[str, str]) -> str:
    """Return ``blog/web on n1, a process on n2 and 3 more``."""
    nodes = deployment.cluster.nodes
    return some([f"{who} on {nodes[node].name}" for node, who in taken.items()], SHOWN)
