"""A container's name has one owner in the cluster, whichever stack it is of.

Docker refuses to make a second container of a name; here the release is refused before
anything changes. A removed stack's names are free as soon as it is told to go. Called by
``release``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.released import spec_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.control.deploy.deployment import Deployment
    from orchestrator.control.mirror.cluster import Cluster
    from specs.api import Stack
    from specs.stack import ServiceSpec, StackSpec


def check_names(deployment: Deployment, spec: StackSpec) -> None:
    """Refuse names that containers of other stacks have, and those of the stack's one-offs."""
    for one in deployment.cluster.oneoffs.values():
        name = one.task.name
        same = one.stack == spec.name and name in {
            *(spec.services.keys() - spec.carried.keys()),
            *(s.container_name for s in spec.services.values()),
        }
        if same and not one.gone_at:
            text = f"{name} is the name of a container that `run` made"
            hint = f"corral -p {spec.name} rm {name}, once it has ended"
            deployment.error(f"services.{name}", text, code="in-use", hint=hint)
    others = [
        stack
        for stack in deployment.cluster.stacks.values()
        if stack.name != spec.name and stack.desired != "removed"
    ]
    asked = [service for name, service in spec.services.items() if name not in spec.carried]
    for stack in sorted(others, key=lambda s: s.name):
        for theirs in _services(deployment.cluster, stack):
            for service in asked:
                name = _shared(spec.name, service, stack.name, theirs)
                if name:
                    _refuse(
                        deployment, service, name, f"{theirs.name} of stack {stack.name}", stack
                    )


def _refuse(
    deployment: Deployment, service: ServiceSpec, name: str, owner: str, stack: Stack
) -> None:
    path = ".container_name" if service.container_name else ""
    deployment.error(
        f"services.{service.name}{path}",
        f"the container name {name} belongs to service {owner}",
        code="in-use",
        hint="leave container_name out (containers are then named STACK-SERVICE-NUMBER), or "
        f"remove the other stack: corral -p {stack.name} down",
    )


def _services(cluster: Cluster, stack: Stack) -> Iterator[ServiceSpec]:
    """Yield the stack's services as its newest release has them, or else as the one that runs."""
    newest = spec_at(cluster, stack.name, stack.release)
    before = spec_at(cluster, stack.name, stack.running)
    found: dict[str, ServiceSpec] = {}
    for spec in (before, newest):
        found.update(spec.services if spec is not None else {})
    yield from found.values()


def _shared(stack: str, mine: ServiceSpec, other: str, theirs: ServiceSpec) -> str:
    """Return a name both services' containers have, or ""; made ones differ by their stack."""
    if mine.container_name:
        taken = mine.container_name in (theirs.container_name, *_made(other, theirs, mine))
        return mine.container_name if taken else ""
    if theirs.container_name and theirs.container_name in _made(stack, mine, theirs):
        return theirs.container_name
    return ""


def _made(stack: str, service: ServiceSpec, like: ServiceSpec) -> tuple[str, ...]:
    """Return ``like``'s own name where a copy of the service has it, made as STACK-SERVICE-SLOT."""
    name = like.container_name or ""
    front, _, slot = name.rpartition("-")
    made = service.container_name is None and front == f"{stack}-{service.name}"
    return (name,) if made and slot.isdecimal() and slot[0] != "0" else ()
