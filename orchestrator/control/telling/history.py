"""A stack's releases for people: what each changed, in a phrase, and what differs between two.

Pure functions of the mirror. `history` and `diff` show them, a rollback says by them what it
brings back. Differences themselves are ``specs.changes``'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.released import spec_of
from orchestrator.errors import NotFound
from specs.changes import changes
from specs.history import Diff, DiffRow, HistoryRow
from specs.kit import masking
from specs.kit.amounts import some
from specs.stack import ContentSpec, StackSpec
from specs.states import ReleaseState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from orchestrator.contracts import Mirror
    from specs.api import Release
    from specs.changes import SpecChange
    from specs.stack import FileRef, ServiceSpec

DETAILED = 3  # services of which a phrase says the keys; the others are names
KEYS = 3  # of a service in a phrase
SHORT = 60  # characters of one change that is told in full


def releases_of(cluster: Mirror, stack: str) -> list[Release]:
    """Return the releases of a stack that are kept, the newest first; also after its `down`."""
    found = cluster.releases_of(stack)
    return sorted(found, key=lambda release: release.number, reverse=True)


def check_known(
    cluster: Mirror, stack: str, kept: Iterable[Release], services: Iterable[str]
) -> None:
    """Refuse a service that none of these releases of the stack has. Raises NotFound."""
    specs = [spec for release in kept if (spec := spec_of(cluster, release)) is not None]
    known = {name for spec in specs for name in spec.services}
    for service in services:
        if service not in known:
            names = ", ".join(sorted(known)) or "none"
            raise NotFound(f"no release of {stack} has a service {service} (services: {names})")


def rows(cluster: Mirror, stack: str, service: str = "") -> Iterator[HistoryRow]:
    """Yield the releases, the newest first; with ``service`` those that changed it.

    One at a time: to compare two large ones takes milliseconds.
    """
    found = releases_of(cluster, stack)
    record = cluster.stacks.get(stack)
    running = record.running if record is not None else 0
    for place, release in enumerate(found):
        older = found[place + 1 :]
        before = next((r for r in older if r.state is ReleaseState.DEPLOYED), None)
        names, text = _changed(cluster, before, release)
        if service and service not in names:
            continue
        yield HistoryRow(
            stack=stack,
            number=release.number,
            state=release.state,
            running=release.number == running,
            reason=masking.text(release.reason),
            created_at=release.created_at,
            finished_at=release.finished_at,
            by=release.by,
            who=release.by.who,
            changed=text,
            services=names,
        )


def diff(cluster: Mirror, before: Release, after: Release) -> Diff:
    """Return what differs between two releases whose specs are kept."""
    told = diff_rows(differences(cluster, before, after))
    return Diff(stack=after.stack, before=before.number, after=after.number, changes=told)


def diff_rows(found: Iterable[SpecChange]) -> tuple[DiffRow, ...]:
    """Return differences as they are sent."""
    return tuple(
        DiffRow(
            section=c.section,
            name=c.name,
            key=c.key,
            sign=c.sign,
            old=c.old,
            new=c.new,
            replaces=c.replaces,
        )
        for c in found
    )


def differences(
    cluster: Mirror, before: Release, after: Release, spec: StackSpec | None = None
) -> tuple[SpecChange, ...]:
    """Return what differs between two releases, ``after`` with ``spec`` where it is not stored."""
    one, other = spec_of(cluster, before), spec or spec_of(cluster, after)
    return _compared(one, images_of(before, one), other, images_of(after, other))


def images_of(release: Release, spec: StackSpec | None) -> dict[str, str]:
    """Return the digest of each service's image, as far as it is pinned."""
    found = {}
    for name, service in spec.services.items() if spec is not None else ():
        digest = release.images.get(name, service.task.image_digest)
        if digest:
            found[name] = digest
    return found


def _compared(
    one: StackSpec | None,
    its: Mapping[str, str],
    other: StackSpec | None,
    others: Mapping[str, str],
) -> tuple[SpecChange, ...]:
    if one is None or other is None:
        return changes(one, other, images=(its, others))
    mine, theirs = _plain(one, other), _plain(other, one)
    return changes(mine, theirs, images=(its, others))


def _plain(spec: StackSpec, beside: StackSpec) -> StackSpec:
    """Return the spec with what goes on beside it (``carried``) as a file would have it.

    Pinned images are compared apart; how it was built, and what the files are called that it has,
    is not in such a spec and is taken from ``beside``, where that is the same.
    """
    if not spec.carried and not beside.carried:
        return spec
    services = {}
    secrets, configs = dict(spec.secrets), dict(spec.configs)
    for name, service in spec.services.items():
        theirs = beside.services.get(name)
        if name not in spec.carried:
            services[name] = service
            continue
        task = service.task.model_copy(update={"image_digest": ""})
        build = theirs.build if theirs is not None else None
        services[name] = service.model_copy(update={"task": task, "build": build})
        add_missing(secrets, beside.secrets, service.task.secrets)
        add_missing(configs, beside.configs, service.task.configs)
    ordered = {n: services[n] for n in (*beside.services, *services) if n in services}
    return spec.model_copy(update={"services": ordered, "secrets": secrets, "configs": configs})


def add_missing(
    found: dict[str, ContentSpec], beside: Mapping[str, ContentSpec], refs: tuple[FileRef, ...]
) -> None:
    """Add what files refer to, in the version they have, as ``beside`` describes it."""
    for ref in refs:
        if ref.source not in found:
            known = beside.get(ref.source, ContentSpec(name=ref.source))
            found[ref.source] = known.model_copy(update={"content": ref.content})


# a phrase


def _changed(
    cluster: Mirror, before: Release | None, release: Release
) -> tuple[tuple[str, ...], str]:
    """Return the services that a release changed, and what it changed in a phrase."""
    spec = spec_of(cluster, release)
    if spec is None:
        return (), "its spec is not kept"
    old = spec_of(cluster, before)
    if before is None or old is None:
        names = tuple(spec.services)
        return names, f"new: {some(list(names), DETAILED)}" if names else "nothing"
    mine, theirs = _plain(old, spec), _plain(spec, old)
    its, others = images_of(before, old), images_of(release, spec)
    names = tuple(
        name
        for name in dict.fromkeys([*theirs.services, *mine.services])
        if _differs(mine.services.get(name), theirs.services.get(name), its, others)
    )
    # What is compared key by key is few; a name is enough of the others.
    few = names[:DETAILED]
    told = changes(
        _only(mine, few),
        _only(theirs, few),
        images=({n: its[n] for n in few if n in its}, {n: others[n] for n in few if n in others}),
    )
    parts = [_service_phrase(name, [c for c in told if c.name == name]) for name in few]
    parts = [part for part in parts if part]
    if len(names) > len(few):
        parts.append(f"{len(names) - len(few)} more")
    beside = [c for c in told if c.section != "services"]
    parts += [f"{c.section[:-1]} {c}" for c in _besides(beside, parts)]
    text = "; ".join(parts)
    if not text and release.recreates != before.recreates:
        text = "all anew (--force-recreate)"
    if release.by.kind == "rollback" and release.by.to:
        what = f"{', '.join(release.by.only)} " if release.by.only else ""
        head = f"{what}back to {release.by.to}"
        return names, f"{head}: {text}" if text else head
    if not text and release.only_starts:
        text = f"starts {some(list(release.services), DETAILED)}" if release.services else "starts"
    return names, text or "nothing"


def _differs(
    old: ServiceSpec | None,
    new: ServiceSpec | None,
    its: Mapping[str, str],
    others: Mapping[str, str],
) -> bool:
    if old is None or new is None or old != new:
        return True
    one, other = its.get(old.name), others.get(new.name)
    return bool(one and other and one != other)


def _only(spec: StackSpec, names: tuple[str, ...]) -> StackSpec:
    return spec.model_copy(
        update={"services": {n: s for n, s in spec.services.items() if n in names}}
    )


def _service_phrase(name: str, told: list[SpecChange]) -> str:
    if not told:
        return name
    if not told[0].key:
        return f"{'new' if told[0].sign == '+' else 'gone'}: {name}"
    if len(told) == 1 and len(str(told[0])) <= SHORT:
        return f"{name}: {told[0]}"
    keys = list(dict.fromkeys(change.key for change in told))
    return f"{name}: {some(keys, KEYS)}"


def _besides(told: list[SpecChange], parts: list[str]) -> list[SpecChange]:
    """Return what of networks, volumes and files is worth a word: where no service says it."""
    return told[:1] if not parts else []
