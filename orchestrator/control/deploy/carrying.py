"""What a release is not about goes on as it is: orphans, services of an off profile, unasked ones.

A file without a service, or `up web` beside others, says nothing against what runs. So
``carry`` puts those services into the new spec as their tasks have them: image, contents,
hash and the meaning of their networks and volumes are pinned, and planning leaves them
alone. What carried services hold and the file wants for another is refused by
``check_clashes``. Called by ``release``; pure but for the problems it notes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.control.mirror.dependencies import Cycle, Dependencies
from orchestrator.control.mirror.effective import Specs
from orchestrator.control.mirror.ports import fixed_host_ports
from orchestrator.control.mirror.released import newest_spec, spec_at
from orchestrator.control.mirror.serving import is_leaving
from specs.compose.project.selection import narrowed
from specs.stack import Carried
from specs.states import Desired, ReleaseState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.control.deploy.deployment import Deployment
    from orchestrator.control.mirror.effective import Effective
    from specs.api import Stack
    from specs.stack import NetworkSpec, ServiceSpec, StackSpec
    from specs.task import Task

Json = dict[str, Any]

_RUNS = (ReleaseState.DEPLOYING, ReleaseState.DEPLOYED)


# what is asked


def asked_project(deployment: Deployment) -> Json:
    """Return the file with only what the request names and what that depends on.

    Whatever else is wrong with the file is of no concern to those. Raises Invalid.
    """
    request = deployment.request
    if not request.services:
        return request.project
    known: Mapping[str, Json] = request.project.get("services") or {}
    for name in request.services:
        if name not in known:
            deployment.error(f"services.{name}", f"there is no service {name} in the file")
    deployment.check()
    return narrowed(request.project, request.services, dependencies=not request.no_deps)


# what goes on


@dataclass(frozen=True, slots=True)
class _Version:
    """A service as its tasks have it, and the token its hash was made with."""

    effective: Effective
    hash: str
    token: str


def carry(deployment: Deployment, spec: StackSpec, present: Stack | None) -> StackSpec:
    """Return the spec with what goes on beside it, and warn of orphans."""
    if present is None or present.desired == "removed":
        return spec
    request = deployment.request
    files = {*(request.project.get("services") or ()), *request.known}
    versions, services, carried = {}, {}, {}
    for name in sorted(_present(deployment, present) - set(spec.services)):
        orphan = name not in files
        if orphan and request.remove_orphans:
            continue
        found = _version(deployment, present, name)
        if found is None:
            _not_begun(deployment, present, name)
            continue
        versions[name] = found
        off = name in request.known
        carried[name] = Carried(
            why="orphan" if orphan else "off" if off else "unasked", hash=found.hash
        )
        services[name] = _pinned(found.effective)
    deployment.tokens.update({name: v.token for name, v in versions.items() if v.token})
    merged = _merged(spec, services, carried, {n: v.effective for n, v in versions.items()})
    _warn(deployment, merged)
    return merged


def _present(deployment: Deployment, present: Stack) -> set[str]:
    """Return the services the stack has: of its newest release, and those with tasks."""
    newest = deployment.cluster.releases.get((present.name, present.release))
    spec = newest_spec(deployment.cluster, present)
    if newest is not None and newest.state is ReleaseState.ROLLED_BACK:
        spec = spec_at(deployment.cluster, present.name, present.running)
    found = set(spec.services) if spec is not None else set()
    return found | {task.service for task in _tasks(deployment, present)}


def _tasks(deployment: Deployment, present: Stack) -> list[Task]:
    """Return the stack's tasks that were not told to go; those of a stopped stack are down."""
    stopped = present.desired == "stopped"
    return [
        task
        for task in deployment.cluster.by_stack.get(present.name, {}).values()
        if task.desired is not Desired.REMOVED
        and (stopped or task.desired is Desired.SHUTDOWN or not is_leaving(task))
    ]


def _version(deployment: Deployment, present: Stack, name: str) -> _Version | None:
    """Return the service as a release runs it now, else as its best task has it.

    What no hash covers (how many, where, in which order) is newest in the newest release;
    one that failed counts only where the service's tasks are of it.
    """
    cluster = deployment.cluster
    specs = Specs(cluster)
    tasks = [task for task in _tasks(deployment, present) if task.service == name]
    tasks.sort(key=lambda t: (t.live and t.status.ready, t.live, t.created_at, t.id))
    hashes = {task.spec_hash for task in tasks}
    for number in (present.release, present.running):
        release = cluster.releases.get((present.name, number))
        effective = specs.of(present.name, number, name)
        if release is None or effective is None or not effective.task.image_digest:
            continue
        failed = release.state in (ReleaseState.FAILED, ReleaseState.ROLLED_BACK)
        if effective.hash in hashes or (not failed and (not hashes or release.state in _RUNS)):
            return _Version(effective, effective.hash, _token(deployment, effective))
    for task in reversed(tasks):
        effective = specs.of(present.name, task.release, name)
        if effective is not None:
            return _Version(effective, task.spec_hash, _token(deployment, effective))
    return None


def _token(deployment: Deployment, effective: Effective) -> str:
    release = deployment.cluster.releases[(effective.stack, effective.release)]
    return release.recreates.get(effective.service.name, release.recreate)


def _not_begun(deployment: Deployment, present: Stack, name: str) -> None:
    """Tell of a service whose first release never came as far as its image."""
    release = deployment.cluster.releases.get((present.name, present.release))
    if release is not None and not release.over:
        deployment.warn(
            f"services.{name}",
            f"release {present.release} was still preparing {name}, and ends here",
            hint=f"corral up {name} starts it",
        )


def _pinned(effective: Effective) -> ServiceSpec:
    return effective.service.model_copy(update={"task": effective.task, "build": None})


def _merged(
    spec: StackSpec,
    services: dict[str, ServiceSpec],
    carried: dict[str, Carried],
    versions: Mapping[str, Effective],
) -> StackSpec:
    networks, volumes = dict(spec.networks), dict(spec.volumes)
    for name, service in services.items():
        before = versions[name].spec
        other_networks, other_volumes = {}, {}
        for attachment in service.task.networks:
            meant = before.networks.get(attachment.network)
            if meant is not None:
                here = networks.setdefault(attachment.network, meant)
                if not _same_network(here, meant):
                    other_networks[attachment.network] = meant
        for mount in service.task.mounts:
            volume = before.volumes.get(mount.source or "") if mount.type == "volume" else None
            if mount.source is None or volume is None:
                continue
            if volumes.setdefault(mount.source, volume) != volume:
                other_volumes[mount.source] = volume
        carried[name] = carried[name].model_copy(
            update={"networks": other_networks, "volumes": other_volumes}
        )
    merged = spec.model_copy(
        update={
            "services": {**services, **spec.services},
            "networks": networks,
            "volumes": volumes,
            "carried": carried,
        }
    )
    return merged if _ordered(merged) else _without_edges(merged)


def _same_network(one: NetworkSpec, other: NetworkSpec) -> bool:
    """Say whether both mean the same network, as ``mirror.network_names`` tells them apart."""
    return (one.name, one.subnets, one.external) == (other.name, other.subnets, other.external)


def _ordered(spec: StackSpec) -> bool:
    try:
        Dependencies(spec)
    except Cycle:
        return False
    return True


def _without_edges(spec: StackSpec) -> StackSpec:
    """Drop what carried services waited for: with the file's own order it became a ring."""
    services = {
        name: service.model_copy(update={"depends_on": {}}) if name in spec.carried else service
        for name, service in spec.services.items()
    }
    return spec.model_copy(update={"services": services})


def _warn(deployment: Deployment, spec: StackSpec) -> None:
    if not spec.orphans:
        return
    several = len(spec.orphans) > 1
    deployment.findings.warn(
        f"{', '.join(spec.orphans)} {'are' if several else 'is'} not in the Compose file "
        f"and {'run' if several else 'runs'} on (orphan{'s' if several else ''})",
        code="orphans",
        hint="up --remove-orphans removes what the file no longer has",
    )


# what is in the way


def check_clashes(deployment: Deployment, spec: StackSpec) -> None:
    """Refuse names, addresses and ports of the machine that a carried service has already."""
    for name, service in spec.services.items():
        if name in spec.carried:
            continue
        for other in spec.carried:
            for path, what in _shared(deployment, spec, service, spec.services[other]):
                deployment.error(
                    f"services.{name}.{path}",
                    f"{what} belongs to {held_by(spec, other)}",
                    code="in-use",
                    hint=way_out(spec, [other]),
                )


def _shared(
    deployment: Deployment, spec: StackSpec, one: ServiceSpec, other: ServiceSpec
) -> Iterable[tuple[str, str]]:
    if one.container_name and one.container_name == other.container_name:
        yield "container_name", f"the container name {one.container_name}"
    addresses = set(_addresses(spec, other))
    for network, address in _addresses(spec, one):
        if (network, address) in addresses:
            yield "networks", f"the address {address}"
    if len(deployment.cluster.nodes) == 1:
        held = fixed_host_ports(other.task)
        for port in fixed_host_ports(one.task):
            if any(port.clashes(there) for there in held):
                yield "ports", f"port {port.port}/{port.protocol}"


def _addresses(spec: StackSpec, service: ServiceSpec) -> Iterable[tuple[str, str]]:
    networks = spec.seen_by(service.name).networks
    for attachment in service.task.networks:
        wanted = networks.get(attachment.network)
        if attachment.ipv4_address is not None and wanted is not None:
            yield wanted.name, attachment.ipv4_address


def held_by(spec: StackSpec, name: str) -> str:
    """Return a carried service as a refusal names it."""
    orphan = name in spec.orphans
    return f"{spec.name}/{name}" + (", which the Compose file no longer has" if orphan else "")


def way_out(spec: StackSpec, names: Iterable[str]) -> str:
    """Return what makes room where these services are in the way."""
    if any(name in spec.orphans for name in names):
        return "up --remove-orphans takes it away"
    return "name that service, too, if it is to change: it is left as it is"
