"""A request to run a service once becomes a one-off: compiled, checked, stored.

In three steps, because its image may take minutes and the writer's lock is not held that long:
``compiled`` (what is wrong is said at once), the image beside the loop (``images``), ``make``.
Its dependencies are the caller's to bring up: ``behind`` says which are not as the file wants them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.deploy.compiling import compiled_as_asked
from orchestrator.control.deploy.contents import with_contents
from orchestrator.control.deploy.external import check_external
from orchestrator.control.deploy.ports import with_ports
from orchestrator.control.mirror.node_view import node_of_client
from orchestrator.control.mirror.ports import free_port, ingress_ports, numbers_taken, published
from orchestrator.control.mirror.records import STACKS
from orchestrator.control.mirror.released import newest_spec
from orchestrator.control.mirror.serving import serving, wanted_count
from orchestrator.errors import Conflict, Invalid, NotFound
from scheduler import constraints
from scheduler.filters import RESERVED_PORTS
from specs.api import Release, Stack
from specs.ids import new_id
from specs.names import NAME
from specs.oneoff import ActedOn, OneOff
from specs.stack import RestartPolicy, ServiceSpec, StackSpec
from specs.states import FINAL, Desired
from specs.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.control.deploy.deployment import Deployment
    from orchestrator.control.mirror.draft import Draft
    from specs.oneoff import ActOnOneOffs, StartOneOff
    from specs.stack import Mount, Port


def compiled(deployment: Deployment, asked: StartOneOff) -> StackSpec:
    """Return the service, and what it depends on, as the request has them. Raises Invalid."""
    present = deployment.cluster.stacks.get(deployment.stack)
    if present is not None and present.desired == "removed":
        raise Conflict(
            f"stack {deployment.stack} is being removed", hint="try again when it is gone"
        )
    if asked.name and (why := NAME.fault(asked.name)):
        raise Invalid(detail=f"--name {asked.name}: {why}")
    spec = compiled_as_asked(deployment)
    service = spec.services[asked.service]
    for number, text in enumerate(service.placement.constraints):
        try:
            constraints.parse(text)
        except ValueError as exc:
            where = f"services.{asked.service}.deploy.placement.constraints[{number}]"
            deployment.error(where, str(exc), code="bad-constraint")
    check_external(deployment, spec)
    deployment.check()
    return with_contents(deployment, spec)


def behind(deployment: Deployment, spec: StackSpec, service: str) -> tuple[str, ...]:
    """Return which of the services it depends on are not there, or not as the request has them."""
    cluster, names = deployment.cluster, sorted(set(spec.services) - {service})
    present = cluster.stacks.get(deployment.stack)
    newest = newest_spec(cluster, present)
    if present is None or newest is None or present.desired != "up":
        return tuple(names)
    numbered = with_ports(deployment, spec, newest)
    tasks = cluster.by_stack.get(deployment.stack, {}).values()
    found = []
    for name in names:
        mine = [task for task in tasks if task.service == name]
        known, wanted = newest.services.get(name), numbered.services[name]
        changed = known is None or _unpinned(known) != _unpinned(wanted)
        down = name in present.stopped_services
        count = 0 if down else wanted_count(cluster, present, wanted, mine)
        if changed or down or serving(cluster, mine) < count:
            found.append(name)
    return tuple(found)


def _unpinned(service: ServiceSpec) -> ServiceSpec:
    """Return a service without what a release that carries it has pinned."""
    task = service.task.model_copy(update={"image_digest": ""})
    return service.model_copy(update={"task": task})


def image_of(deployment: Deployment, spec: StackSpec, service: str) -> tuple[Release, StackSpec]:
    """Return the work of finding its image, as that of a release of this service alone."""
    request = deployment.request
    release = Release(
        stack=deployment.stack,
        number=0,
        spec="",
        client=request.client,
        build=request.build,
        pull=request.pull,
        services=(service,),
    )
    return release, spec.model_copy(update={"services": {service: spec.services[service]}})


def make(
    deployment: Deployment, asked: StartOneOff, spec: StackSpec, images: Mapping[str, str]
) -> OneOff:
    """Put the one-off into the draft, and its stack where there was none. Raises Conflict."""
    draft, service = deployment.draft, spec.services[asked.service]
    name = asked.name or (
        f"{deployment.stack}-{asked.service}-run-{deployment.rng.getrandbits(48):012x}"
    )
    _check_name(deployment, name)
    task = service.task.model_copy(
        update={
            "image_digest": images.get(asked.service, service.task.image_digest),
            "restart": RestartPolicy(condition="none"),
            "on_unhealthy": "keep",
            "on_reboot": "keep",
            "exclusive": False,  # it is no copy of the service's
            "ports": _ports(deployment, asked.service, service),
            "mounts": _mounts(deployment, asked.here, service),
        }
    )
    update: dict[str, object] = {
        "task": task,
        "container_name": None,
        "replicas": 1,
        "mode": "replicated",
        "schedule": None,
    }
    if asked.deploy.no_deps:
        update["depends_on"] = {}
    used = {attachment.network for attachment in task.networks}
    mounted = {mount.source for mount in task.mounts if mount.type == "volume"}
    one = OneOff(
        task=Task(
            id=new_id("t", now=deployment.wall, rng=deployment.rng),
            stack=deployment.stack,
            service=asked.service,
            slot=0,
            name=name,
            release=0,
            spec_hash="",
            desired=Desired.RUNNING,
            created_at=deployment.wall,
        ),
        service=service.model_copy(update=update),
        key=deployment.request.key,
        networks={key: net for key, net in spec.networks.items() if key in used},
        volumes={key: volume for key, volume in spec.volumes.items() if key in mounted},
        client=deployment.request.client,
        remove=asked.remove,
        aliases=asked.aliases,
        attach=asked.attach,
    )
    deployment.check()
    if deployment.stack not in deployment.cluster.stacks:
        draft.put(STACKS, Stack(name=deployment.stack, desired="up"))
    draft.put_oneoff(one)
    return one


def _mounts(deployment: Deployment, here: Sequence[str], service: ServiceSpec) -> tuple[Mount, ...]:
    """Return its mounts; what was named by a path of the client's machine is had there.

    Where that is no node nobody knows whose path is meant: it is said that it is the node's.
    """
    cluster, client = deployment.cluster, deployment.request.client
    known = node_of_client(cluster.nodes, client.boot_id) is not None
    found = []
    for mount in service.task.mounts:
        typed = mount.type == "bind" and mount.target in here and not mount.relative
        if typed and not known and len(cluster.nodes) > 1:
            host = client.hostname or "this machine"
            deployment.warn(
                f"services.{service.name}.volumes",
                f"-v {mount.source}: {host} is no node of the cluster, so it is that path of the "
                "node it runs on, whichever that is",
                hint="placement constraints (node.hostname == NAME) in the file choose one",
            )
        found.append(mount.model_copy(update={"relative": True}) if typed and known else mount)
    return tuple(found)


def act(draft: Draft, stack: str, asked: ActOnOneOffs) -> ActedOn:
    """Stop those that run, or remove those that have ended. Raises NotFound."""
    shown = [one for one in draft.oneoffs(stack) if one.shown]
    # Whoever was a moment quicker, a --rm say: what was asked for is done.
    unknown = sorted({*asked.names} - {one.task.name for one in draft.oneoffs(stack)})
    if unknown:
        raise NotFound(f"there is no one-off {', '.join(unknown)}", hint="corral ps -a")
    everything = not asked.names and not asked.services
    mine = [
        one
        for one in shown
        if everything or one.task.name in asked.names or one.service.name in asked.services
    ]
    if asked.action == "remove":
        mine = [one for one in mine if one.over]
        for one in mine:
            draft.put_oneoff(one.removed())
    else:
        mine = [one for one in mine if not one.over]
        for one in mine:
            draft.put_oneoff(one.stopped(asked.timeout))
    return ActedOn(names=tuple(sorted(one.task.name for one in mine)))


def _check_name(deployment: Deployment, name: str) -> None:
    cluster = deployment.cluster
    newest = newest_spec(cluster, cluster.stacks.get(deployment.stack))
    services = {*(deployment.request.project.get("services") or ())}
    services |= {*(newest.services if newest is not None else ())}
    services |= {task.service for task in cluster.by_stack.get(deployment.stack, {}).values()}
    if name in services:  # to its node a one-off is a service of its name, with that one's slot
        raise Conflict(f"{name} is a service of the stack", hint="another --name")
    # What was stopped keeps its name as long as it is there: `start` makes it again.
    there = (t for t in cluster.tasks.values() if t.name == name)
    task = next(
        (t for t in there if t.state not in FINAL or t.desired is not Desired.REMOVED), None
    )
    owner, word = (task.stack, task.service) if task is not None else (None, name)
    for one in cluster.oneoffs.values():
        if one.task.name == name and not one.gone_at:
            owner, word = one.stack, name
    if owner is not None:
        raise Conflict(
            f"the container name {name} is in use in stack {owner}",
            hint=f"another --name, or remove that one: corral -p {owner} rm {word}",
        )


def _ports(deployment: Deployment, name: str, service: ServiceSpec) -> tuple[Port, ...]:
    """Return its published ports with numbers; refuse those that somebody publishes already."""
    others = [(f"{stack}/{who}", port) for stack, who, port in published(deployment.cluster)]
    listening = [
        text for node in deployment.cluster.nodes.values() for text in deployment.listening(node)
    ]
    alone = StackSpec(name=deployment.stack, services={name: service})
    for _, port in ingress_ports(alone):
        label = f"{port.port}/{port.protocol}"
        holder = next((who for who, other in others if other.clashes(port)), None)
        if label in RESERVED_PORTS:
            deployment.error(f"services.{name}.ports", f"port {label} is reserved for the node")
        elif holder is not None:
            deployment.error(
                f"services.{name}.ports",
                f"port {label} is already published by {holder}",
                code="port-in-use",
                hint="publish another one: -p",
            )
    taken = numbers_taken([other for _, other in others], listening)
    found: list[Port] = []
    for wanted in service.task.ports:
        if wanted.mode == "ingress" and not wanted.published:
            found.append(wanted.model_copy(update={"published": free_port(taken)}))
        else:
            found.append(wanted)
    return tuple(found)
