"""A Deploy request becomes a release: compiled, checked against the cluster, stored.

``make_release`` writes everything into one draft: the spec part, the release, the
stack, the sealed contents, the idempotency record. Nothing is started here; the
control loops find the release pending and go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.deploy.contents import with_contents
from orchestrator.control.deploy.ports import check_ports, with_ports
from orchestrator.control.mirror.dependencies import Cycle, Dependencies
from orchestrator.control.mirror.records import RELEASES, STACKS, Idempotency
from orchestrator.control.mirror.released import finish, newest_spec
from orchestrator.errors import Invalid
from orchestrator.store import keys
from scheduler import constraints
from specs.api import Release, Stack
from specs.base import content_hash
from specs.compile.stack import compile_stack
from specs.ids import new_id
from specs.problems import Problem, SpecError
from specs.states import ReleaseState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.control.deploy.request import Making
    from specs.stack import StackSpec


def make_release(making: Making) -> tuple[Release, list[Problem]]:
    """Put a new release into the draft; return it with the warnings. Raises Invalid."""
    request, name = making.request, making.stack
    try:
        compiled, warnings = compile_stack(
            request.project, request.origins, name, request.directory
        )
    except SpecError as exc:
        raise Invalid(exc.problems) from exc
    for warning in warnings:
        making.findings.add(warning)
    present = making.cluster.stacks.get(name)
    before = newest_spec(making.cluster, present)
    spec = _selected(making, compiled, before)
    _check_order(making, spec)
    _check_constraints(making, spec)
    making.check()
    spec = with_contents(making, spec)
    spec = with_ports(making, spec, before)
    check_ports(making, spec)
    _check_fixed(making, spec)
    _check_scale(making, spec)
    making.check()
    if request.deadline is not None:
        spec = spec.model_copy(update={"deadline": request.deadline})
    release = _store(making, spec, present, before)
    return release, making.findings.warnings


def _selected(making: Making, spec: StackSpec, before: StackSpec | None) -> StackSpec:
    """Return the spec with only the chosen services changed, where the request names some."""
    chosen = making.request.services
    if not chosen:
        return spec
    unknown = [name for name in chosen if name not in spec.services]
    for name in unknown:
        making.error(f"services.{name}", f"there is no service {name} in the file")
    making.check()
    wanted = _closure(making, spec, chosen)
    services = dict(before.services) if before is not None else {}
    services.update({n: s for n, s in spec.services.items() if n in wanted})
    if before is None:
        return spec.model_copy(update={"services": services})
    return spec.model_copy(
        update={
            "services": services,
            "networks": {**before.networks, **spec.networks},
            "volumes": {**before.volumes, **spec.volumes},
            "secrets": {**before.secrets, **spec.secrets},
            "configs": {**before.configs, **spec.configs},
        }
    )


def _closure(making: Making, spec: StackSpec, chosen: Iterable[str]) -> set[str]:
    try:
        return Dependencies(spec).closure(chosen)
    except Cycle as exc:
        making.error("services", str(exc), code="cycle")
        raise Invalid(making.findings.all()) from exc


def _check_order(making: Making, spec: StackSpec) -> None:
    for name, service in spec.services.items():
        for other in service.depends_on:
            if other not in spec.services and service.depends_on[other].required:
                making.error(f"services.{name}.depends_on.{other}", f"there is no service {other}")
    try:
        Dependencies(spec)
    except Cycle as exc:
        making.error(f"services.{exc.path[0]}.depends_on", str(exc), code="cycle")


def _check_constraints(making: Making, spec: StackSpec) -> None:
    for name, service in spec.services.items():
        where = f"services.{name}.deploy.placement"
        for number, text in enumerate(service.placement.constraints):
            try:
                constraints.parse(text)
            except ValueError as exc:
                making.error(f"{where}.constraints[{number}]", str(exc), code="bad-constraint")
        for number, text in enumerate(service.placement.preferences):
            try:
                constraints.check_key(text.removeprefix("spread:").removeprefix("spread=").strip())
            except ValueError as exc:
                making.error(f"{where}.preferences[{number}]", str(exc), code="bad-preference")


def _check_fixed(making: Making, spec: StackSpec) -> None:
    """Refuse what can exist only once for several replicas."""
    for name, service in spec.services.items():
        count = making.request.scale.get(name, service.replicas)
        several = service.mode == "global" or count > 1
        if several and any(a.ipv4_address for a in service.task.networks):
            making.error(
                f"services.{name}.networks",
                "a fixed ipv4_address is possible for one replica only",
                code="not-scalable",
            )
        if several and service.container_name:
            making.error(
                f"services.{name}.container_name",
                f"a container_name is possible for one replica only, not for {count}",
                code="not-scalable",
                hint="leave container_name out; replicas are named STACK-SERVICE-NUMBER",
            )


def _check_scale(making: Making, spec: StackSpec) -> None:
    for name, count in making.request.scale.items():
        problem = scale_problem(spec, name, count)
        if problem:
            making.error(f"services.{name}", problem, code="bad-scale")


def scale_problem(spec: StackSpec, name: str, count: int) -> str:
    """Return why a service cannot have that many replicas, or ""."""
    service = spec.services.get(name)
    if service is None:
        known = ", ".join(sorted(spec.services)) or "none"
        return f"there is no service {name} in stack {spec.name} (services: {known})"
    if count < 0:
        return f"{name} cannot have {count} replicas"
    if service.mode == "global":
        return f"{name} is global: it runs once on every node and cannot be scaled"
    single = service.container_name or any(a.ipv4_address for a in service.task.networks)
    if count > 1 and single:
        return f"{name} has a fixed name or address and cannot have {count} replicas"
    return ""


# the records


def _overrides(
    making: Making, spec: StackSpec, present: Stack | None, before: StackSpec | None
) -> dict[str, int]:
    """Return scale's numbers that survive: those whose number in the file did not change."""
    kept = {}
    for name, count in (present.overrides if present is not None else {}).items():
        old = before.services.get(name) if before is not None else None
        new = spec.services.get(name)
        if new is not None and old is not None and new.replicas == old.replicas:
            kept[name] = count
    kept.update(making.request.scale)
    return kept


def _store(
    making: Making, spec: StackSpec, present: Stack | None, before: StackSpec | None
) -> Release:
    request, name = making.request, making.stack
    digest = content_hash(spec)
    known = making.cluster.stack_releases.get(name, {})
    number = max([*known, present.release if present is not None else 0], default=0) + 1
    release = Release(
        stack=name,
        number=number,
        spec=digest,
        key=request.key,
        created_at=making.wall,
        client=request.client,
        build=request.build,
        pull=request.pull,
        recreate=_recreate(making, known),
        services=request.services,
        remove_orphans=request.remove_orphans,
    )
    if digest not in making.cluster.parts:
        making.draft.put_key(keys.part(digest), spec)
    for old in known.values():
        if not old.over:
            reason = f"release {number} took its place"
            finish(making.draft, old, ReleaseState.SUPERSEDED, reason, at=making.wall)
    making.draft.put(RELEASES, release)
    making.draft.put(
        STACKS,
        Stack(
            name=name,
            desired="up",
            release=number,
            running=present.running if present is not None and present.desired != "removed" else 0,
            overrides=_overrides(making, spec, present, before),
        ),
    )
    making.draft.put_key(
        keys.idempotency(request.key), Idempotency(stack=name, number=number, at=making.wall)
    )
    return release


def _recreate(making: Making, known: dict[int, Release]) -> str:
    """Return the token mixed into hashes: a new one on demand, else the last one's.

    Without inheriting it the release after a forced one would replace everything again.
    """
    if making.request.force_recreate:
        return new_id("r", now=making.wall, rng=making.rng)
    return known[max(known)].recreate if known else ""
