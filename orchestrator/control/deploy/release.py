"""A Deploy request becomes a release: compiled, checked against the cluster, stored.

``make_release`` writes everything into one draft: the spec part, the release, the
stack, the sealed contents, the idempotency record. Nothing is started here; the
control loops find the release pending and go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.deploy import creating
from orchestrator.control.deploy.carrying import carry, check_clashes
from orchestrator.control.deploy.compiling import compiled_as_asked
from orchestrator.control.deploy.contents import with_contents
from orchestrator.control.deploy.external import check_external
from orchestrator.control.deploy.host_ports import check_host_ports
from orchestrator.control.deploy.ports import check_ports, with_ports
from orchestrator.control.deploy.subnets import check_subnets
from orchestrator.control.deploy.taken_names import check_names
from orchestrator.control.mirror.dependencies import Cycle, Dependencies
from orchestrator.control.mirror.records import RELEASES, STACKS, Idempotency
from orchestrator.control.mirror.released import newest_spec, supersede
from orchestrator.store import keys
from orchestrator.store.base import MAX_VALUE
from scheduler import constraints
from specs import bounds, skew
from specs.api import Release, Stack
from specs.base import canonical_json, content_hash
from specs.ids import new_id
from specs.kit.amounts import size
from specs.pins import pins, sentence
from specs.problems import Problem
from specs.shares import is_shared
from specs.stack import Condition
from specs.states import ReleaseState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.deploy.deployment import Deployment
    from specs.stack import StackSpec


def make_release(deployment: Deployment) -> tuple[Release, list[Problem]]:
    """Put a new release into the draft; return it with the warnings. Raises Invalid."""
    name = deployment.stack
    present = deployment.cluster.stacks.get(name)
    if deployment.request.no_start:
        narrowed = creating.narrowed(deployment, present)
        if narrowed is None and present is not None:
            newest = deployment.cluster.releases[(name, present.release)]
            return newest, deployment.findings.warnings
        deployment = narrowed or deployment
    spec = compiled_as_asked(deployment)
    _check_order(deployment, spec)
    _check_constraints(deployment, spec)
    deployment.check()
    check_external(deployment, spec)
    spec = with_contents(deployment, spec)
    release, _ = finished(deployment, spec, present)
    return release, deployment.findings.warnings


def finished(
    deployment: Deployment, spec: StackSpec, present: Stack | None
) -> tuple[Release, StackSpec]:
    """Put a release of a spec whose contents are there into the draft, with what goes on beside.

    Return it with its whole spec. Raises Invalid.
    """
    request = deployment.request
    before = newest_spec(deployment.cluster, present)
    spec = carry(deployment, spec, present)
    spec = with_ports(deployment, spec, before)
    check_ports(deployment, spec)
    check_clashes(deployment, spec)
    check_names(deployment, spec)
    check_subnets(deployment, spec)
    overrides = _overrides(deployment, spec, present, before)
    check_host_ports(deployment, spec, overrides)
    _check_health(deployment, spec, overrides)
    _check_weights(deployment, spec)
    _check_fixed(deployment, spec)
    _check_scale(deployment, spec)
    _check_bounds(deployment, spec, overrides)
    _check_size(deployment, spec)
    deployment.check()
    if request.deadline is not None:
        spec = spec.model_copy(update={"deadline": request.deadline})
    return _store(deployment, spec, present, before, overrides), spec


def _check_order(deployment: Deployment, spec: StackSpec) -> None:
    for name, service in spec.services.items():
        for other, edge in service.depends_on.items() if not deployment.request.no_deps else ():
            if other in spec.services:
                continue
            path = f"services.{name}.depends_on.{other}"
            if edge.required:
                deployment.error(path, f"there is no service {other}")
            else:
                deployment.warn(
                    path, f"{other} is not active; {name} goes on without it (required: false)"
                )
    try:
        Dependencies(spec)
    except Cycle as exc:
        deployment.error(f"services.{exc.path[0]}.depends_on", str(exc), code="cycle")


def _check_constraints(deployment: Deployment, spec: StackSpec) -> None:
    for name, service in spec.services.items():
        where = f"services.{name}.deploy.placement"
        for number, text in enumerate(service.placement.constraints):
            try:
                constraints.parse(text)
            except ValueError as exc:
                deployment.error(f"{where}.constraints[{number}]", str(exc), code="bad-constraint")
        for number, text in enumerate(service.placement.preferences):
            try:
                constraints.check_key(text.removeprefix("spread:").removeprefix("spread=").strip())
            except ValueError as exc:
                deployment.error(f"{where}.preferences[{number}]", str(exc), code="bad-preference")


def _check_health(deployment: Deployment, spec: StackSpec, overrides: Mapping[str, int]) -> None:
    """Refuse to wait for a health that the file itself switches off.

    Where neither file nor image has a check that shows when it runs, see ``planning.gates``.
    """
    for name in sorted(_asked(spec)) if not deployment.request.no_deps else ():
        for other, edge in spec.services[name].depends_on.items():
            service = spec.services.get(other)
            if service is None or not edge.required or edge.condition is not Condition.HEALTHY:
                continue
            check = service.task.healthcheck
            runs = service.per_node or overrides.get(other, service.replicas) > 0
            if runs and check is not None and check.disabled:
                deployment.error(
                    f"services.{name}.depends_on.{other}",
                    f"{name} waits for {other} to be healthy, but its health check is disabled",
                    code="no-healthcheck",
                    hint=f"give {other} a healthcheck, or write condition: service_started",
                )


def _check_weights(deployment: Deployment, spec: StackSpec) -> None:
    """Refuse a share of connections where a node would give each task as many.

    Every node chooses for its own clients.
    """
    canaries = {name: spec.services[name].update.canary for name in sorted(_asked(spec))}
    weighted = [name for name, canary in canaries.items() if canary is not None and canary.weight]
    since = skew.SINCE["Endpoint"]["share"]
    nodes = deployment.cluster.nodes.values()
    old = sorted(node.name for node in nodes if node.facts.wire < since)
    for name in weighted if old else ():
        deployment.error(
            f"services.{name}.x-corral.canary.weight",
            f"{', '.join(old)}: corral is older there and knows no weights",
            code="old-node",
            hint="corral upgrade, or leave weight out: each task then gets as many connections",
        )


def _check_fixed(deployment: Deployment, spec: StackSpec) -> None:
    """Refuse what can exist only once for several replicas."""
    for name, service in spec.services.items():
        if name in spec.carried:
            continue
        count = deployment.request.scale.get(name, service.replicas)
        if service.autoscale is not None:
            count = max(count, service.autoscale.most)
        several = service.per_node or count > 1
        if several and any(a.ipv4_address for a in service.task.networks):
            deployment.error(
                f"services.{name}.networks",
                "a fixed ipv4_address is possible for one replica only",
                code="not-scalable",
            )
        if several and service.container_name:
            deployment.error(
                f"services.{name}.container_name",
                f"a container_name is possible for one replica only, not for {count}",
                code="not-scalable",
                hint="leave container_name out; replicas are named STACK-SERVICE-NUMBER",
            )


def _check_scale(deployment: Deployment, spec: StackSpec) -> None:
    for name, count in _scales(deployment, spec).items():
        problem = scale_problem(spec, name, count)
        if problem:
            deployment.error(f"services.{name}", problem, code="bad-scale")


def _check_bounds(deployment: Deployment, spec: StackSpec, overrides: Mapping[str, int]) -> None:
    """Refuse a whole that is too much: with what was scaled, and what goes on beside the files."""
    beside = "corral up --remove-orphans removes the orphans" if spec.orphans else ""
    for counts, most, what, hint in (
        (bounds.copies(spec, overrides), bounds.MOST_TASKS, "replicas", "ask for fewer"),
        (bounds.ports(spec), bounds.MOST_PORTS, "published ports", "publish fewer"),
    ):
        if why := bounds.excess(counts, most, what):
            deployment.error(
                f"services.{bounds.beyond(counts, most)}", why, code="too-many", hint=beside or hint
            )


def _check_size(deployment: Deployment, spec: StackSpec) -> None:
    """Refuse what the store takes of no stack, at the longest texts of it."""
    total = len(spec.encode())
    if total <= MAX_VALUE:
        return
    sizes = {
        (name, key): len(canonical_json(getattr(service.task, key)))
        for name, service in spec.services.items()
        for key in ("environment", "command", "entrypoint", "labels", "annotations")
        if getattr(service.task, key)
    }
    name, key = max(sizes, key=sizes.__getitem__, default=("", ""))
    longest = f"; {size(sizes[name, key])} of it are here" if name else ""
    deployment.error(
        f"services.{name}.{key}" if name else "services",
        f"a stack can have {size(MAX_VALUE)} of texts, this one has {size(total)}{longest}",
        code="too-large",
        hint="put what is long into configs: or secrets:, or split the stack",
    )


def _scales(deployment: Deployment, spec: StackSpec) -> dict[str, int]:
    """Return the numbers asked for, but for services of the file that `up` does not name."""
    asked, request = deployment.request.scale, deployment.request
    files = request.project.get("services") or {}
    return {n: count for n, count in asked.items() if n not in files or n in _asked(spec)}


def _asked(spec: StackSpec) -> set[str]:
    return set(spec.services) - set(spec.carried)


def scale_problem(spec: StackSpec, name: str, count: int) -> str:
    """Return why a service cannot have that many replicas, or ""."""
    service = spec.services.get(name)
    if service is None:
        known = ", ".join(sorted(spec.services)) or "none"
        return f"there is no service {name} in stack {spec.name} (services: {known})"
    if count < 0:
        return f"{name} cannot have {count} replicas"
    if service.schedule is not None or service.per_node:
        timed = "runs by a schedule: nothing of it stands by, so it cannot be scaled"
        every = "is global: it runs once on every node and cannot be scaled"
        return f"{name} {timed if service.schedule is not None else every}"
    if count > 1 and service.task.exclusive:
        return f"{name} is exclusive (x-corral.exclusive): it has one copy, not {count}"
    single = service.container_name or any(a.ipv4_address for a in service.task.networks)
    if count > 1 and single:
        return f"{name} has a fixed name or address and cannot have {count} replicas"
    return ""


def shared_problem(spec: StackSpec, name: str, *, before: int, count: int) -> Problem | None:
    """Return the warning that copies of a service will write to one volume; once, at the second."""
    if not before <= 1 < count:
        return None
    shared = sorted(
        volume.name
        for mount in spec.services[name].task.mounts
        if mount.type == "volume" and mount.source is not None and not mount.read_only
        if (volume := spec.volumes.get(mount.source)) is not None
        if not volume.per_slot and not volume.per_node
        if not is_shared(volume.options)
    )
    if not shared:
        return None
    several = "volumes" if len(shared) > 1 else "volume"
    return Problem(
        f"the {count} copies of {name} share the {several} {', '.join(shared)}, on one node",
        "shared-volume",
        f"services.{name}",
        hint="x-corral: {per_slot: true} at the volume gives each copy its own",
        severity="warning",
    )


# the records


def _overrides(
    deployment: Deployment, spec: StackSpec, present: Stack | None, before: StackSpec | None
) -> dict[str, int]:
    """Return scale's numbers that survive: those whose number in the file did not change."""
    kept = {}
    for name, count in _scaled(deployment, present).items():
        old = before.services.get(name) if before is not None else None
        new = spec.services.get(name)
        if new is not None and old is not None and new.replicas == old.replicas:
            kept[name] = count
    kept.update(_scales(deployment, spec))
    return kept


def _scaled(deployment: Deployment, present: Stack | None) -> Mapping[str, int]:
    """Return the numbers scale set so far, those of a release that waits for images included."""
    if present is None or present.desired == "removed":
        return {}  # `down` forgets them, whether all of it is gone yet or a node is still away
    newest = deployment.cluster.releases.get((present.name, present.release))
    pending = newest is not None and newest.state is ReleaseState.PENDING
    if newest is not None and newest.overrides is not None and pending:
        return newest.overrides
    return present.overrides


def _starts(deployment: Deployment, spec: StackSpec, present: Stack | None) -> tuple[str, ...]:
    """Return the services the request asks to run: those that ended are started again.

    They are once the images are there, see ``ControlLoop``: a release that comes to nothing
    before that starts nothing. What goes on beside them comes back after `stop` only.
    """
    stopped = present is not None and present.desired == "stopped"
    if deployment.request.no_start:
        return ()
    whole = stopped and not deployment.request.services
    return tuple(sorted(name for name in spec.services if whole or name not in spec.carried))


def _tell_scaled(deployment: Deployment, spec: StackSpec, overrides: Mapping[str, int]) -> None:
    """Say which services keep a number that `scale` gave them once, and not the file's."""
    for name, count in sorted(overrides.items()):
        service = spec.services[name]
        asked = name in deployment.request.scale
        by_itself = service.autoscale is not None
        if asked or by_itself or name in spec.carried or count == service.replicas:
            continue
        copies = "replica" if count == 1 else "replicas"
        deployment.warn(
            f"services.{name}",
            f"{name} keeps the {count} {copies} it was scaled to; the file says {service.replicas}",
            hint=f"corral scale {name}={service.replicas}",
        )


def _tell_shared(
    deployment: Deployment,
    spec: StackSpec,
    overrides: Mapping[str, int],
    present: Stack | None,
    before: StackSpec | None,
) -> None:
    scaled = _scaled(deployment, present)
    for name in sorted(_asked(spec)):
        old = before.services.get(name) if before is not None else None
        had = scaled.get(name, old.replicas) if old is not None else 0
        count = overrides.get(name, spec.services[name].replicas)
        found = shared_problem(spec, name, before=had, count=count)
        if found is not None:
            deployment.findings.add(found)


def _tell_pinned(deployment: Deployment, spec: StackSpec, before: StackSpec | None) -> None:
    """Say what keeps services on one node, where there are others; once, while it is the same."""
    known = pins(before) if before is not None else {}
    asked = _asked(spec)
    news = {n: what for n, what in pins(spec).items() if n in asked and known.get(n) != what}
    if news and len(deployment.cluster.nodes) > 1:
        text = f"stays on one node, where its data is: {sentence(news)}"
        deployment.findings.add(Problem(text, code="pinned", severity="note"))


def _stopped(spec: StackSpec, present: Stack | None, before: StackSpec | None) -> tuple[str, ...]:
    """Return what stays down until it is asked for: all of a stopped stack, for the time being.

    What the release starts is asked for once its images are there.
    """
    if present is None or present.desired == "removed":
        return ()
    names = {*spec.services, *(before.services if before is not None else ())}
    return tuple(
        sorted(names if present.desired == "stopped" else names & {*present.stopped_services})
    )


def _store(
    deployment: Deployment,
    spec: StackSpec,
    present: Stack | None,
    before: StackSpec | None,
    overrides: dict[str, int],
) -> Release:
    request, name = deployment.request, deployment.stack
    digest = content_hash(spec)
    known = deployment.cluster.stack_releases.get(name, {})
    number = max([*known, present.release if present is not None else 0], default=0) + 1
    starts = _starts(deployment, spec, present)
    release = Release(
        stack=name,
        number=number,
        spec=digest,
        key=request.key,
        created_at=deployment.wall,
        client=request.client,
        build=request.build,
        pull=request.pull,
        services=request.services,
        starts=starts,
        again=tuple(sorted({*request.again} & {*starts})),
        grace=request.timeout,
        remove_orphans=request.remove_orphans,
        no_deps=request.no_deps,
        recreates=_recreates(deployment, spec, known),
        overrides=overrides,
        renew_volumes=request.renew_volumes,
        keeps=_keeps(deployment, spec, present),
        places=request.places,
        by=request.by,
    )
    if digest not in deployment.cluster.parts:
        deployment.draft.put_key(keys.part(digest), spec)
    supersede(deployment.draft, known.values(), release, at=deployment.wall)
    deployment.draft.put(RELEASES, release)
    _tell_scaled(deployment, spec, overrides)
    _tell_shared(deployment, spec, overrides, present, before)
    _tell_pinned(deployment, spec, before)
    created = creating.created(deployment, spec, present)
    down = _stopped(spec, present, before)
    if request.no_start:
        # What `rm` took away is made again; what was stopped and is there stays so.
        there = creating.existing(deployment, present)
        down = tuple(n for n in down if n in there or n not in created)
    deployment.draft.put(
        STACKS,
        Stack(
            name=name,
            desired="up",
            release=number,
            running=present.running if present is not None and present.desired != "removed" else 0,
            overrides=present.overrides if present is not None else {},
            stopped_services=down,
            created=created,
            asked=present.asked if present is not None else {},
            asked_again=present.asked_again if present is not None else {},
            standby=present.standby if present is not None else {},
            config_files=request.config_files,
        ),
    )
    deployment.draft.put_key(
        keys.idempotency(request.key), Idempotency(stack=name, number=number, at=deployment.wall)
    )
    return release


def _keeps(deployment: Deployment, spec: StackSpec, present: Stack | None) -> tuple[str, ...]:
    if not deployment.request.no_recreate:
        return ()
    return tuple(sorted(creating.existing(deployment, present) & _asked(spec)))


def _recreates(
    deployment: Deployment, spec: StackSpec, known: dict[int, Release]
) -> dict[str, str]:
    """Return the tokens mixed into hashes: new ones on demand, else the last one's.

    Without inheriting them the release after a forced one would replace everything again.
    A carried service has the token of the release it comes from.
    """
    request, found = deployment.request, dict(deployment.tokens)
    fresh = ""
    if request.force_recreate or request.always_recreate_deps:
        fresh = new_id("r", now=deployment.wall, rng=deployment.rng)
    last = known[max(known)] if known else None
    for name in _asked(spec):
        named = not request.services or name in request.services
        token = last.recreates.get(name, last.recreate) if last is not None else ""
        if request.force_recreate if named else request.always_recreate_deps:
            token = fresh
        if token:
            found[name] = token
    return found
