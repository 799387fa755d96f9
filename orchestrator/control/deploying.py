"""A Deploy request becomes a release: compiled, checked against the cluster, stored.

``make_release`` writes everything into one draft: the spec part, the release, the
stack, the sealed contents, the idempotency record. Nothing is started here; the
control loops find the release pending and go on.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.control.dependencies import Cycle, Dependencies
from orchestrator.control.records import CONTENTS, RELEASES, STACKS, Idempotency, StoredContent
from orchestrator.errors import Invalid
from orchestrator.store import keys
from orchestrator.store.base import MAX_VALUE
from scheduler import constraints
from scheduler.filters import RESERVED_PORTS
from specs.api import Deploy, Release, ReleaseState, Stack
from specs.base import content_hash
from specs.compile import compile_stack
from specs.ids import new_id
from specs.problems import Position, Problem, SpecError
from specs.stack import ContentSpec, FileRef, Port, ServiceSpec, StackSpec

if TYPE_CHECKING:
    import random

    from orchestrator.control.draft import Draft
    from orchestrator.control.state import Cluster
    from orchestrator.seams import Sealer

FREE_PORTS = range(30000, 32768)  # published ports the file leaves to us
LARGEST_CONTENT = MAX_VALUE // 2  # base64 twice and the record's own keys must fit a value


@dataclass
class Making:
    """What the steps of one deploy share."""

    cluster: Cluster
    draft: Draft
    sealer: Sealer
    rng: random.Random
    wall: float
    stack: str
    request: Deploy
    problems: list[Problem] = field(default_factory=list)

    def error(self, path: str, message: str, *, code: str = "invalid", hint: str = "") -> None:
        """Note a refusal at a path of the file."""
        self.problems.append(
            Problem(message, code, path, position_of(self.request.origins, path), hint)
        )

    def warn(self, path: str, message: str, *, hint: str = "") -> None:
        """Note something that does not stop the release."""
        self.problems.append(
            Problem(
                message,
                "warning",
                path,
                position_of(self.request.origins, path),
                hint,
                "warning",
            )
        )

    def check(self) -> None:
        """Raise Invalid when there were refusals."""
        if any(p.severity == "error" for p in self.problems):
            raise Invalid(self.problems)


def position_of(origins: dict[str, str], path: str) -> Position | None:
    """Return where a path, or the nearest one around it, is in the user's files."""
    while path:
        text = origins.get(path)
        if text is not None:
            file, _, rest = text.rpartition(":")
            file, _, line = file.rpartition(":")
            if line.isdigit() and rest.isdigit():
                return Position(file, int(line), int(rest))
            return None
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return None


def make_release(making: Making) -> tuple[Release, list[Problem]]:
    """Put a new release into the draft; return it with the warnings. Raises Invalid."""
    request, name = making.request, making.stack
    try:
        compiled, warnings = compile_stack(request.project, request.origins, name)
    except SpecError as exc:
        raise Invalid(exc.problems) from exc
    making.problems += warnings
    present = making.cluster.stacks.get(name)
    before = _spec_before(making.cluster, present)
    spec = _selected(making, compiled, before)
    _check_order(making, spec)
    _check_constraints(making, spec)
    making.check()
    spec = _with_contents(making, spec)
    spec = _with_ports(making, spec, before)
    _check_ports(making, spec)
    _check_fixed(making, spec)
    _check_scale(making, spec)
    making.check()
    if request.deadline is not None:
        spec = spec.model_copy(update={"deadline": request.deadline})
    release = _store(making, spec, present, before)
    return release, [p for p in making.problems if p.severity == "warning"]


def _spec_before(cluster: Cluster, stack: Stack | None) -> StackSpec | None:
    release = cluster.releases.get((stack.name, stack.release)) if stack is not None else None
    return cluster.spec_of(release) if release is not None else None


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
        raise Invalid(making.problems) from exc


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


# contents


def _with_contents(making: Making, spec: StackSpec) -> StackSpec:
    """Store new versions of secrets and configs and put their ids where they are used."""
    known = {(c.secret, c.fingerprint): c.id for c in making.cluster.contents.values()}
    versions: dict[tuple[bool, str], str] = {}
    sections: dict[str, dict[str, ContentSpec]] = {}
    for kind, secret in (("secrets", True), ("configs", False)):
        section = dict(getattr(spec, kind))
        for key, item in section.items():
            content = _version(making, kind, key, item, known, secret=secret)
            versions[(secret, key)] = content
            section[key] = item.model_copy(update={"content": content})
        sections[kind] = section
    services = {
        name: service.model_copy(
            update={
                "task": service.task.model_copy(
                    update={
                        "secrets": _filled(service.task.secrets, versions, secret=True),
                        "configs": _filled(service.task.configs, versions, secret=False),
                    }
                )
            }
        )
        for name, service in spec.services.items()
    }
    return spec.model_copy(update={**sections, "services": services})


def _filled(
    refs: tuple[FileRef, ...], versions: dict[tuple[bool, str], str], *, secret: bool
) -> tuple[FileRef, ...]:
    return tuple(
        ref.model_copy(update={"content": versions.get((secret, ref.source), ref.content)})
        for ref in refs
    )


def _version(
    making: Making,
    kind: str,
    key: str,
    item: ContentSpec,
    known: dict[tuple[bool, str], str],
    *,
    secret: bool,
) -> str:
    encoded = making.request.contents.get(f"{kind}.{key}")
    what = "secret" if secret else "config"
    if encoded is None:
        return _existing(making, kind, key, item, secret=secret)
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        making.error(f"{kind}.{key}", f"the contents of {what} {key} are not base64")
        return ""
    if len(data) > LARGEST_CONTENT:
        making.error(
            f"{kind}.{key}",
            f"{what} {key} is {len(data)} bytes; at most {LARGEST_CONTENT} are possible",
            hint="keep large files in an image or a volume",
        )
        return ""
    # The kind is part of what is compared: a config equal to a secret must not tell so.
    fingerprint = making.sealer.fingerprint(what.encode() + b"\0" + data)
    found = known.get((secret, fingerprint))
    if found is not None:
        return found
    content_id = new_id("s" if secret else "c", now=making.wall, rng=making.rng)
    making.draft.put(
        CONTENTS,
        StoredContent(
            id=content_id,
            name=item.name,
            stack=making.stack,
            secret=secret,
            fingerprint=fingerprint,
            sealed=base64.b64encode(making.sealer.seal(data)).decode(),
            size=len(data),
            created_at=making.wall,
        ),
    )
    known[(secret, fingerprint)] = content_id
    return content_id


def _existing(making: Making, kind: str, key: str, item: ContentSpec, *, secret: bool) -> str:
    """Return the newest stored version: of an external one, or of one the request left out."""
    found = [
        c
        for c in making.cluster.contents.values()
        if c.name == item.name and c.secret == secret and (item.external or c.stack == making.stack)
    ]
    if found:
        return max(found, key=lambda c: (c.created_at, c.id)).id
    what = "secret" if secret else "config"
    if item.external:
        making.error(f"{kind}.{key}", f"external {what} {item.name} does not exist")
    else:
        making.error(f"{kind}.{key}", f"the contents of {what} {key} were not sent")
    return ""


# ports


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
        spec = _spec_before(cluster, other)
        if spec is not None:
            found += _published(other.name, spec)
    return found


def _with_ports(making: Making, spec: StackSpec, before: StackSpec | None) -> StackSpec:
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


def _check_ports(making: Making, spec: StackSpec) -> None:
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
        release = making.cluster.releases.get((making.stack, number))
        spec = making.cluster.spec_of(release) if release is not None else None
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
            path, text, code="port-in-use", hint="stop that process or publish another port"
        )
    else:
        making.warn(path, f"{text}: the service will not answer there", hint="stop that process")


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
        if old.state in (ReleaseState.PENDING, ReleaseState.DEPLOYING):
            making.draft.put(
                RELEASES,
                old.model_copy(
                    update={
                        "state": ReleaseState.SUPERSEDED,
                        "reason": f"release {number} took its place",
                        "finished_at": making.wall,
                    }
                ),
            )
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


def as_api(problem: Problem) -> dict[str, object]:
    """Return a problem as the API's model takes it."""
    return replace(problem).as_json()
