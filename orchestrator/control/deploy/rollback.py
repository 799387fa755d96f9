"""`corral rollback`: what a kept release asked for is asked for again, by a new release.

``choose`` says to which one, ``roll_back`` makes the release: services, networks, configs, secrets
and images as they were. Images must be had before anything stops: ``images`` looks for the very
digests (``Release.pinned``). Data is never taken back, and numbers that `scale` set stay where
the file's own number is the same (as with `up`). Services that came later run on as orphans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.control.deploy.external import check_external
from orchestrator.control.deploy.release import finished
from orchestrator.control.mirror.effective import Specs
from orchestrator.control.mirror.records import RELEASES
from orchestrator.control.mirror.released import spec_of
from orchestrator.control.telling import history
from orchestrator.errors import Conflict, NotFound
from specs.api import Deploy
from specs.problems import Problem
from specs.stack import StackSpec, TaskSpec
from specs.states import ReleaseState

if TYPE_CHECKING:
    from orchestrator.control.deploy.deployment import Deployment
    from orchestrator.control.mirror.cluster import Cluster
    from specs.api import Release, Rollback, Stack
    from specs.stack import ServiceSpec

S = ReleaseState


# which release


def choose(cluster: Cluster, name: str, asked: Rollback) -> Release:
    """Return the release to bring back. Raises NotFound, Conflict.

    Without a number that is the last one deployed before what runs that asked for something
    else; where the newest did not come to an end, or failed, the one deployed before it. What was
    brought back counts as what it is: going back again goes further back.
    """
    present = cluster.stacks.get(name)
    kept = history.releases_of(cluster, name)
    if not kept:
        raise NotFound(f"there is no stack {name}", hint="corral ls shows the stacks there are")
    if present is not None and present.desired == "removed":
        raise Conflict(f"stack {name} is being removed", hint="corral rollback N, once it is gone")
    if asked.to is not None:
        return _named(cluster, name, asked, kept)
    if present is None:
        raise NotFound(
            f"stack {name} was taken down: nothing of it runs",
            hint="corral rollback N brings release N back; corral history lists them",
        )
    history.check_known(cluster, name, kept, asked.services)
    newest = cluster.releases[name, present.release]
    if newest.state is S.ROLLED_BACK:
        raise Conflict(
            f"release {newest.number} was rolled back by itself: release {present.running} runs",
            hint="corral rollback N goes to another one; corral history lists them",
        )
    if newest.state is not S.DEPLOYED and not asked.services:
        before = cluster.releases.get((name, present.running))
        if before is None:
            raise Conflict(
                f"nothing ran well before release {newest.number}",
                hint="corral down removes what there is of it",
            )
        return before
    return _before(cluster, newest, asked, kept)


def _named(cluster: Cluster, name: str, asked: Rollback, kept: list[Release]) -> Release:
    found = next((release for release in kept if release.number == asked.to), None)
    spec = spec_of(cluster, found)
    if found is None or spec is None:
        numbers = ", ".join(str(release.number) for release in reversed(kept))
        raise NotFound(f"there is no release {asked.to} of {name}", hint=f"kept are {numbers}")
    if found.state is not S.DEPLOYED:
        word = found.state.value.replace("_", " ")
        why = f": {found.reason}" if found.reason else ""
        raise Conflict(
            f"release {found.number} never ran well: it is {word}{why}",
            hint="corral history lists those that were deployed",
        )
    _check_services(name, asked, found, spec)
    return found


def _check_services(name: str, asked: Rollback, found: Release, spec: StackSpec) -> None:
    for service in asked.services:
        if service not in spec.services:
            known = ", ".join(sorted(spec.services)) or "none"
            raise NotFound(
                f"release {found.number} of {name} has no service {service} (services: {known})"
            )


def _before(cluster: Cluster, newest: Release, asked: Rollback, kept: list[Release]) -> Release:
    content = _content(cluster, newest, asked)
    origin = _origin(cluster, newest, asked)
    for release in kept:
        if release.state is not S.DEPLOYED or release.number >= origin.number:
            continue
        if release.only_starts or spec_of(cluster, release) is None:
            continue
        found = _content(cluster, release, asked)
        if found != content and (not asked.services or all(s is not None for s in found)):
            return release
    what = f"{', '.join(asked.services)} of " if asked.services else ""
    hint = "corral history lists the releases, corral rollback N goes to one"
    if origin.number != newest.number:
        hint = f"corral rollback {newest.number - 1} undoes the last rollback; {hint}"
    raise Conflict(
        f"{what}release {origin.number} is what ran first: nothing is before it", hint=hint
    )


def _origin(cluster: Cluster, release: Release, asked: Rollback) -> Release:
    """Return the release whose services run: of a rollback the one it brought back."""
    seen: set[int] = set()
    while release.rollback_to and release.number not in seen:
        seen.add(release.number)
        if release.services and not {*asked.services} & {*release.services}:
            break
        before = cluster.releases.get((release.stack, release.rollback_to))
        if before is None:
            break
        release = before
    return release


def _content(cluster: Cluster, release: Release, asked: Rollback) -> tuple[object, ...]:
    """Return what tells two releases apart: of the services asked about, or of all."""
    spec = spec_of(cluster, release)
    if spec is None:
        return ()
    images = history.images_of(release, spec)
    names = asked.services or tuple(sorted(spec.services))
    found: list[object] = []
    for name in names:
        service = spec.services.get(name)
        if service is None:
            found.append(None)
            continue
        task = service.task.model_copy(update={"image_digest": ""})
        plain = service.model_copy(update={"task": task, "build": None})
        found.append((name, plain, images.get(name, "")))
    if not asked.services:
        found += [spec.networks, spec.volumes, spec.secrets, spec.configs]
    return tuple(found)


# the release


@dataclass(frozen=True)
class Back:
    """A release that brings another one back, in the draft and not written yet."""

    release: Release
    spec: StackSpec
    same: bool  # that runs already


def request_of(cluster: Cluster, name: str, asked: Rollback, to: Release) -> Deploy:
    """Return the `up` that a rollback is, but for its file."""
    present = cluster.stacks.get(name)
    spec = spec_of(cluster, to) or StackSpec(name=name)
    files = {n for n in spec.services if n not in spec.orphans}
    newest = cluster.releases.get((name, present.release)) if present is not None else None
    now = spec_of(cluster, newest)
    if asked.services and now is not None:
        files |= {n for n in now.services if n not in now.orphans} | {*asked.services}
    known = tuple(n for n, carried in spec.carried.items() if carried.why == "off")
    return Deploy(
        key=asked.key,
        project={"services": {n: _with_ports(spec, n) for n in sorted(files)}},
        client=to.client,
        services=asked.services,
        known=known,
        no_deps=bool(asked.services),
        remove_orphans=asked.remove_orphans,
        timeout=asked.timeout,
        config_files=present.config_files if present is not None else (),
        by=asked.by.model_copy(update={"to": to.number, "only": asked.services}),
    )


def _with_ports(spec: StackSpec, name: str) -> dict[str, object]:
    """Return of a service what is asked of a file: whether it publishes anything."""
    service = spec.services.get(name)
    return {"ports": [p.target for p in service.task.ports]} if service is not None else {}


def roll_back(deployment: Deployment, to: Release) -> Back:
    """Put a release with what ``to`` asked for into the draft. Raises Invalid."""
    cluster, name = deployment.cluster, deployment.stack
    present = cluster.stacks.get(name)
    target = spec_of(cluster, to)
    assert target is not None, "choose looked"
    spec, images, tokens = _as_it_was(deployment, to, target)
    deployment.check()
    check_external(deployment, spec)
    _check_contents(deployment, spec, to)
    release, whole = finished(deployment, spec, present)
    names = {n for n in spec.services if n not in whole.carried}
    update = {
        "pinned": {n: digest for n, digest in images.items() if n in names},
        "rollback_to": to.number,
        "promoted": tuple(sorted(names)),  # it ran: nothing is tried on a few first
        "build": "never",
        "recreates": _tokens(deployment, release, whole, images, tokens),
    }
    made = release.model_copy(update=update)
    deployment.draft.put(RELEASES, made)
    _tell(deployment, whole, present)
    return Back(made, whole, _same(cluster, present, made, whole))


def _as_it_was(
    deployment: Deployment, to: Release, target: StackSpec
) -> tuple[StackSpec, dict[str, str], dict[str, str]]:
    """Return spec, images and tokens of the services to bring back.

    What the release was not about itself (``carried``) it found running: it is brought back as
    the release made it that was about it, unless it runs so now.
    """
    wanted = deployment.request.services or tuple(target.services)
    images = {n: d for n, d in to.images.items() if n in target.services}
    tokens = {n: to.recreates.get(n, to.recreate) for n in target.services}
    services: dict[str, ServiceSpec] = {}
    secrets, configs = dict(target.secrets), dict(target.configs)
    for name in wanted:
        carried = target.carried.get(name)
        if carried is None:
            services[name] = target.services[name]
            continue
        if carried.hash in _hashes(deployment, name):
            continue  # goes on as it is
        if carried.networks or carried.volumes:
            deployment.warn(
                f"services.{name}",
                f"{name} is left as it is: in release {to.number} it ran on with networks or "
                "volumes of an earlier file",
            )
            continue
        source, token = _maker(deployment, to, name, carried.hash)
        spec = spec_of(deployment.cluster, source) or target
        services[name] = service = spec.services[name]
        images[name] = source.images.get(name, service.task.image_digest)
        tokens[name] = token
        history.add_missing(secrets, spec.secrets, service.task.secrets)
        history.add_missing(configs, spec.configs, service.task.configs)
    whole = target.model_copy(
        update={"services": services, "secrets": secrets, "configs": configs, "carried": {}}
    )
    return _used_only(whole) if deployment.request.services else whole, images, tokens


def _used_only(spec: StackSpec) -> StackSpec:
    """Return the spec without what none of its services uses."""
    tasks = [service.task for service in spec.services.values()]
    networks = {a.network for task in tasks for a in task.networks}
    volumes = {m.source for task in tasks for m in task.mounts if m.type == "volume"}
    secrets = {r.source for task in tasks for r in task.secrets}
    configs = {r.source for task in tasks for r in task.configs}
    return spec.model_copy(
        update={
            "networks": {k: v for k, v in spec.networks.items() if k in networks},
            "volumes": {k: v for k, v in spec.volumes.items() if k in volumes},
            "secrets": {k: v for k, v in spec.secrets.items() if k in secrets},
            "configs": {k: v for k, v in spec.configs.items() if k in configs},
        }
    )


def _hashes(deployment: Deployment, service: str) -> set[str]:
    """Return the specs that tasks of a service have now."""
    tasks = deployment.cluster.by_stack.get(deployment.stack, {}).values()
    return {t.spec_hash for t in tasks if t.service == service and t.live}


def _maker(deployment: Deployment, to: Release, name: str, wanted: str) -> tuple[Release, str]:
    """Return the release that made a service as it ran on beside ``to``, and its token."""
    specs = Specs(deployment.cluster)
    for release in history.releases_of(deployment.cluster, to.stack):
        spec = spec_of(deployment.cluster, release)
        if spec is None or name not in spec.services or name in spec.carried:
            continue
        if release.number < to.number and specs.under(release, spec, name).hash == wanted:
            return release, release.recreates.get(name, release.recreate)
    return to, to.recreates.get(name, to.recreate)


def _tokens(
    deployment: Deployment,
    release: Release,
    spec: StackSpec,
    images: dict[str, str],
    tokens: dict[str, str],
) -> dict[str, str]:
    """Return the tokens mixed into hashes: those by which most of what runs stays as it is."""
    names = [n for n in spec.services if n not in spec.carried]
    now = {n: release.recreates.get(n, "") for n in names}
    then = {n: tokens.get(n, "") for n in names}
    chosen = {n: t for n, t in release.recreates.items() if n in spec.carried}
    with_images = release.model_copy(update={"images": images})
    fits = {}
    for word, found in (("then", then), ("now", now)):
        specs = Specs(deployment.cluster)
        tried = with_images.model_copy(update={"recreates": {**chosen, **found}})
        fits[word] = {
            n for n in names if specs.under(tried, spec, n).hash in _hashes(deployment, n)
        }
    for name in names:
        token = now[name] if name in fits["now"] - fits["then"] else then[name]
        if token:
            chosen[name] = token
    return chosen


def _check_contents(deployment: Deployment, spec: StackSpec, to: Release) -> None:
    """Refuse what somebody took away by hand: another value is not what ran then."""
    there = deployment.cluster.contents
    for kind, what, section in (
        ("secrets", "secret", spec.secrets),
        ("configs", "config", spec.configs),
    ):
        used = {
            ref.source: ref.content
            for service in spec.services.values()
            for ref in getattr(service.task, kind)
        }
        for key, content in sorted(used.items()):
            if content and content not in there:
                item = section.get(key)
                deployment.error(
                    f"{kind}.{key}",
                    f"{what} {item.name if item is not None else key} was removed since release "
                    f"{to.number}: the version it had is gone",
                    code="missing",
                    hint=f"corral {what} create makes another; corral up with the file of "
                    f"release {to.number} takes that",
                )
    deployment.check()


def _tell(deployment: Deployment, spec: StackSpec, present: Stack | None) -> None:
    """Say in a rollback's words what goes on beside it."""
    found = deployment.findings
    found.warnings[:] = [w for w in found.warnings if w.code not in ("orphans", "pinned")]
    if present is None or not spec.orphans:
        return
    several = len(spec.orphans) > 1
    text = (
        f"{', '.join(spec.orphans)} {'were' if several else 'was'} not there then and "
        f"{'run' if several else 'runs'} on (orphan{'s' if several else ''})"
    )
    hint = "corral rollback --remove-orphans removes what that release did not have"
    found.add(Problem(text, code="orphans", hint=hint, severity="warning"))


def _same(cluster: Cluster, present: Stack | None, made: Release, spec: StackSpec) -> bool:
    """Say whether what is to be brought back runs already."""
    if present is None or present.desired != "up" or present.stopped_services or present.created:
        return False
    newest = cluster.releases.get((made.stack, present.release))
    now = spec_of(cluster, newest)
    if newest is None or now is None or newest.state is not S.DEPLOYED:
        return False
    pinned = with_pinned(made)
    sections = ("networks", "volumes", "secrets", "configs")
    plain = all(getattr(now, section) == getattr(spec, section) for section in sections)
    beside = all(
        _beside(now.services[n]) == _beside(s)
        for n, s in spec.services.items()
        if n in now.services
    )
    specs = Specs(cluster)
    hashes = all(
        specs.under(pinned, spec, n).hash == specs.under(newest, now, n).hash
        for n in spec.services
        if n in now.services
    )
    return plain and beside and hashes and {*spec.services} == {*now.services}


def _beside(service: ServiceSpec) -> ServiceSpec:
    """Return what of a service no hash of its tasks covers."""
    return service.model_copy(update={"task": TaskSpec(image=""), "build": None})


def with_pinned(release: Release) -> Release:
    """Return the release as it will be once its images were found."""
    return release.model_copy(update={"images": {**release.pinned}})
