"""Ports of the machines themselves: which are published, taken, and free to be given.

A deploy refuses and numbers ports of the whole cluster with these, placement those of
one node. Whether two can be bound at once is ``scheduler.view.HostPort.clashes``. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.released import newest_spec
from scheduler.view import HostPort

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from orchestrator.contracts import Mirror
    from specs.stack import Port, StackSpec, TaskSpec

FREE_PORTS = range(30000, 32768)  # published ports the file leaves to us


def host_port(port: Port, number: int) -> HostPort:
    """Return a port of the file as it is bound on a machine."""
    return HostPort(number, port.protocol, port.host_ip or "")


def ingress_ports(spec: StackSpec) -> Iterator[tuple[str, HostPort]]:
    """Yield service and port for what every node answers on behalf of the stack."""
    for name, service in spec.services.items():
        for port in service.task.ports:
            if port.mode == "ingress" and port.published:
                yield name, host_port(port, port.published)


def published(cluster: Mirror) -> Iterator[tuple[str, str, HostPort]]:
    """Yield stack, service and port for every ingress port of the stacks that are up."""
    for stack in cluster.stacks.values():
        spec = newest_spec(cluster, stack)
        if spec is None or stack.desired != "up":
            continue
        for service, port in ingress_ports(spec):
            yield stack.name, service, port
    for one in cluster.oneoffs.values():
        if one.shown and not one.over:
            for _, port in ingress_ports(one.spec):
                yield one.stack, one.task.name, port


def fixed_host_ports(task: TaskSpec) -> tuple[HostPort, ...]:
    """Return the ports a task must have on its node, whichever that is."""
    return tuple(
        host_port(port, port.published)
        for port in task.ports
        if port.mode == "host" and port.published
    )


def held_host_ports(task: TaskSpec | None, chosen: Mapping[str, int]) -> Iterator[HostPort]:
    """Yield what a placed task holds on its node; all addresses where its spec is not kept."""
    asked = {f"{p.target}/{p.protocol}": p for p in task.ports} if task is not None else {}
    for name, number in chosen.items():
        port = asked.get(name)
        if port is not None:
            yield host_port(port, number)
        else:
            yield HostPort(number, name.partition("/")[2])


def numbers_taken(ports: Iterable[HostPort], listening: Iterable[str]) -> set[int]:
    """Return the numbers not to give out: those of tasks, and what processes of the host hold."""
    return {port.port for port in ports} | {int(text.partition("/")[0]) for text in listening}


def free_port(taken: set[int]) -> int:
    """Give out a port that is free whatever the protocol and address, and note it as taken."""
    number = next(n for n in FREE_PORTS if n not in taken)
    taken.add(number)
    return number
