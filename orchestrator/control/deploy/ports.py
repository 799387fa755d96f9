"""Published ports of a release: numbers for open ones, conflicts refused by name.

An ingress port belongs to one service of the cluster, because every node answers it.
Called by ``release``; pure but for the problems it notes and for ``listening_now``. What is
taken and what is free is ``orchestrator.control.mirror.ports``' to say.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING

from orchestrator.control.deploy.carrying import held_by, way_out
from orchestrator.control.mirror.ports import (
    FREE_PORTS,
    free_port,
    ingress_ports,
    numbers_taken,
    published,
)
from orchestrator.control.mirror.released import spec_at
from orchestrator.errors import RequestError
from scheduler.filters import RESERVED_PORTS
from specs.kit.amounts import some

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.contracts import Agents
    from orchestrator.control.deploy.deployment import Deployment
    from orchestrator.control.mirror.cluster import Cluster
    from scheduler.view import HostPort
    from specs.api import Deploy
    from specs.stack import Port, ServiceSpec, StackSpec

ASKED_FOR = 2.0  # seconds a node may take to say which ports are held


async def listening_now(
    cluster: Cluster, agents: Agents, request: Deploy
) -> dict[str, tuple[str, ...]]:
    """Ask every node that answers soon which ports its processes hold, where that matters.

    What the nodes report by themselves may be some seconds old: long enough to refuse a port
    that was given free, or to take one that is held.
    """
    services = request.project.get("services") or {}
    if not any((service or {}).get("ports") for service in services.values()):
        return {}

    found: dict[str, tuple[str, ...]] = {}

    async def ask(node: str) -> None:
        with contextlib.suppress(TimeoutError, RequestError):  # its last report has to do
            async with asyncio.timeout(ASKED_FOR):
                found[node] = await agents.listening(node)

    async with asyncio.TaskGroup() as group:
        for node, condition in cluster.conditions.items():
            if condition.status == "ready" and node in cluster.nodes:
                group.create_task(ask(node), name=f"ports of {node}")
    return found


def _published_by_others(deployment: Deployment) -> list[tuple[str, HostPort]]:
    """Return who (stack/service) publishes what, of all stacks but this one."""
    return [
        (f"{stack}/{service}", port)
        for stack, service, port in published(deployment.cluster)
        if stack != deployment.stack
    ]


def with_ports(deployment: Deployment, spec: StackSpec, before: StackSpec | None) -> StackSpec:
    """Give numbers to published ports the file leaves open; a service keeps what it had."""
    others = [port for _, port in _published_by_others(deployment)]
    ours = [port for _, port in ingress_ports(spec)]
    listening = [
        text for node in deployment.cluster.nodes.values() for text in deployment.listening(node)
    ]
    taken = numbers_taken([*others, *ours], listening)
    services = {}
    for name, service in spec.services.items():
        old = before.services.get(name) if before is not None else None
        ports = tuple(_numbered(port, old, taken) for port in service.task.ports)
        if ports != service.task.ports:
            task = service.task.model_copy(update={"ports": ports})
            service = service.model_copy(update={"task": task})  # noqa: PLW2901  the same, numbered
        services[name] = service
    return spec.model_copy(update={"services": services})


def _numbered(port: Port, old: ServiceSpec | None, taken: set[int]) -> Port:
    if port.mode != "ingress" or port.published:
        return port
    for known in old.task.ports if old is not None else ():
        same = (known.target, known.protocol, known.mode, known.host_ip) == (
            port.target,
            port.protocol,
            port.mode,
            port.host_ip,
        )
        if same and known.published in FREE_PORTS:
            return known
    return port.model_copy(update={"published": free_port(taken)})


def check_ports(deployment: Deployment, spec: StackSpec) -> None:
    """Refuse ports that are published already, here or in another stack, or held by a node."""
    others = _by_number(_published_by_others(deployment))
    # What is carried is there already; whoever wants its ports is refused.
    seen = _by_number((name, port) for name, port in ingress_ports(spec) if name in spec.carried)
    ours = {(port.port, port.protocol) for port in _ours_before(deployment)}
    for service, port in ingress_ports(spec):
        if service in spec.carried:
            continue
        path = f"services.{service}.ports"
        label = f"{port.port}/{port.protocol}"
        if label in RESERVED_PORTS:
            deployment.error(
                path, f"port {label} is reserved for the node itself", code="port-in-use"
            )
        holder = next((who for who, other in others[port.port] if other.clashes(port)), None)
        if holder is not None:
            deployment.error(
                path,
                f"port {label} is already published by service {holder}",
                code="port-in-use",
                hint="publish another port, or take that stack down",
            )
        twin = next((who for who, o in seen[port.port] if o.clashes(port) and who != service), None)
        if twin is not None:
            deployment.error(
                path,
                f"port {label} is also published by {held_by(spec, twin)}",
                code="port-in-use",
                hint=way_out(spec, [twin]) if twin in spec.carried else "",
            )
        seen[port.port].append((service, port))
        if (port.port, port.protocol) not in ours:
            _check_host(deployment, path, label)


def _by_number(
    ports: Iterable[tuple[str, HostPort]],
) -> defaultdict[int, list[tuple[str, HostPort]]]:
    """Return who has which port by its number: two of different numbers never clash."""
    found: defaultdict[int, list[tuple[str, HostPort]]] = defaultdict(list)
    for who, port in ports:
        found[port.port].append((who, port))
    return found


def _ours_before(deployment: Deployment) -> list[HostPort]:
    """Return what releases of this stack publish that still have tasks."""
    found: list[HostPort] = []
    for number in {
        t.release for t in deployment.cluster.by_stack.get(deployment.stack, {}).values()
    }:
        spec = spec_at(deployment.cluster, deployment.stack, number)
        if spec is not None:
            found += [port for _, port in ingress_ports(spec)]
    return found


def _check_host(deployment: Deployment, path: str, label: str) -> None:
    """Refuse a port that host processes hold on every node; warn where it is some of them."""
    nodes = list(deployment.cluster.nodes.values())
    holding = [n.name for n in nodes if label in deployment.listening(n)]
    if not holding:
        return
    text = f"port {label} is held by a process on {some(holding, 3)}"
    if len(holding) == len(nodes):
        deployment.error(
            path,
            text,
            code="port-in-use",
            hint="stop that process or publish another port",
        )
    else:
        deployment.warn(
            path, f"{text}: the service will not answer there", hint="stop that process"
        )
