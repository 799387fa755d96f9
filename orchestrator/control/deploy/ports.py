"""Published ports of a release: numbers for open ones, conflicts refused by name.

An ingress port belongs to one service of the cluster, because every node answers it.
Called by deploying.py; pure but for the problems it notes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.control.mirror.released import newest_spec, spec_at
from scheduler.filters import RESERVED_PORTS

if TYPE_CHECKING:
    from orchestrator.control.deploy.request import Making
    from orchestrator.control.mirror.cluster import Cluster
    from specs.stack import Port, ServiceSpec, StackSpec

FREE_PORTS = range(30000, 32768)  # published ports the file leaves to us


@dataclass(frozen=True)
class _Published:
    """A published port and who publishes it."""

    port: int
    protocol: str
    ip: str
    who: str

    def clashes(self, other: _Published) -> bool:
        same_ip = not self.ip or not other.ip or self.ip == other.ip
        return self.port == other.port and self.protocol == other.protocol and same_ip


def _published(stack: str, spec: StackSpec) -> list[_Published]:
    return [
        _Published(p.published, p.protocol, p.host_ip or "", f"{stack}/{name}")
        for name, service in spec.services.items()
        for p in service.task.ports
        if p.mode == "ingress" and p.published
    ]


def published_by_others(cluster: Cluster, stack: str) -> list[_Published]:
    """Return the ingress ports of all other stacks that are up."""
    found = []
    for other in cluster.stacks.values():
        if other.name == stack or other.desired != "up":
            continue
        spec = newest_spec(cluster, other)
        if spec is not None:
            found += _published(other.name, spec)
    return found


def with_ports(making: Making, spec: StackSpec, before: StackSpec | None) -> StackSpec:
    """Give numbers to published ports the file leaves open; a service keeps what it had."""
    taken = {p.port for p in published_by_others(making.cluster, making.stack)}
    taken |= {p.port for p in _published(making.stack, spec)}
    taken |= {
        int(text.partition("/")[0])
        for node in making.cluster.nodes.values()
        for text in node.facts.listening
    }
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
    number = next(n for n in FREE_PORTS if n not in taken)
    taken.add(number)
    return port.model_copy(update={"published": number})


def check_ports(making: Making, spec: StackSpec) -> None:
    others = published_by_others(making.cluster, making.stack)
    seen: list[_Published] = []
    ours = {(p.port, p.protocol) for p in _ours_before(making)}
    for port in _published(making.stack, spec):
        service = port.who.partition("/")[2]
        path = f"services.{service}.ports"
        label = f"{port.port}/{port.protocol}"
        if label in RESERVED_PORTS:
            making.error(path, f"port {label} is reserved for the node itself", code="port-in-use")
        holder = next((o for o in others if o.clashes(port)), None)
        if holder is not None:
            making.error(
                path,
                f"port {label} is already published by service {holder.who}",
                code="port-in-use",
                hint="publish another port, or take that stack down",
            )
        twin = next((o for o in seen if o.clashes(port) and o.who != port.who), None)
        if twin is not None:
            making.error(path, f"port {label} is also published by {twin.who}", code="port-in-use")
        seen.append(port)
        if (port.port, port.protocol) not in ours:
            _check_host(making, path, label)


def _ours_before(making: Making) -> list[_Published]:
    found = []
    for number in {t.release for t in making.cluster.by_stack.get(making.stack, {}).values()}:
        spec = spec_at(making.cluster, making.stack, number)
        if spec is not None:
            found += _published(making.stack, spec)
    return found


def _check_host(making: Making, path: str, label: str) -> None:
    """Refuse a port that host processes hold on every node; warn where it is some of them."""
    nodes = list(making.cluster.nodes.values())
    holding = [n.name for n in nodes if label in n.facts.listening]
    if not holding:
        return
    where = ", ".join(holding[:3]) + (f" and {len(holding) - 3} more" if len(holding) > 3 else "")
    text = f"port {label} is held by a process on {where}"
    if len(holding) == len(nodes):
        making.error(
            path,
            text,
            code="port-in-use",
            hint="stop that process (seen free within 5 s) or publish another port",
        )
    else:
        making.warn(path, f"{text}: the service will not answer there", hint="stop that process")
