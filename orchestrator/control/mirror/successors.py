"""Which release took another one's place, and whether it asks for the same.

Two people who say `up` of the same file in the same moment both get what they want: the
later release has all of the earlier, so whoever waits for that one waits for this one
(``telling.progress``). One that says ``up db`` beside somebody's ``up web`` is about something
else, and keeps web as it was asked for: then web itself is waited for (``telling.beside``).
Where the later asks for something else of the same services the earlier came to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.effective import Specs
from orchestrator.control.mirror.released import beside, spec_of
from specs.states import ReleaseState

if TYPE_CHECKING:
    from orchestrator.control.mirror.cluster import Cluster
    from specs.api import Release
    from specs.stack import ServiceSpec, StackSpec


def successor(cluster: Cluster, release: Release) -> Release | None:
    """Return the release that was made when this one ended; None if it ended otherwise."""
    if release.state is not ReleaseState.SUPERSEDED:
        return None
    later = cluster.stack_releases.get(release.stack, {}).values()
    found = [r for r in later if r.number > release.number and r.created_at == release.finished_at]
    return min(found, key=lambda r: r.number, default=None)


def keeps(cluster: Cluster, old: Release, new: Release) -> bool:
    """Say whether all that the older release was about goes on in the newer one as it is there."""
    before, after = spec_of(cluster, old), spec_of(cluster, new)
    about = about_of(cluster, old)
    if before is None or after is None or not old.images or not about <= set(after.services):
        return False
    if old.remove_orphans and not new.remove_orphans:
        return False
    specs = Specs(cluster)
    for name in about:
        there = after.carried.get(name)
        was = specs.under(old, before, name)
        if there is not None and (there.why == "orphan" or there.hash != was.hash):
            return False
        if there is None and _meaning(before, name) != _meaning(after, name):
            return False
    return True


def about_of(cluster: Cluster, release: Release) -> set[str]:
    """Return the services a release is about."""
    spec = spec_of(cluster, release)
    return set(spec.services) - set(beside(spec, release)) if spec is not None else set()


def asks_the_same(cluster: Cluster, old: Release, new: Release) -> bool:
    """Say whether all that the older release was about is in the newer one as it was there."""
    before, after = spec_of(cluster, old), spec_of(cluster, new)
    if before is None or after is None:
        return False
    about = set(before.services) - set(beside(before, old))
    if not about <= set(after.services) - set(beside(after, new)):
        return False
    if any(_meaning(before, name) != _meaning(after, name) for name in about):
        return False
    if any((old.overrides or {}).get(n) != (new.overrides or {}).get(n) for n in about):
        return False
    # What was asked for beside the file: a build, a pull, an end of what is not in it.
    prepared = bool(old.images)
    return (
        (old.build != "always" or new.build == "always" or prepared)
        and (old.pull in (None, new.pull) or prepared)
        and (new.remove_orphans or not old.remove_orphans)
        and set(old.again) <= set(new.again)
    )


def _meaning(spec: StackSpec, name: str) -> tuple[ServiceSpec, object, object]:
    """Return a service with what its networks and volumes are."""
    service = spec.services[name]
    networks = {a.network: spec.networks.get(a.network) for a in service.task.networks}
    sources = {m.source for m in service.task.mounts if m.source is not None}
    return service, networks, {source: spec.volumes.get(source) for source in sources}
