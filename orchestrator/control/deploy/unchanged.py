"""An `up` that asks for what there is makes no release: what could be rolled back to stays.

Whether it does is known once its images are: a tag may lead elsewhere by now. So that is looked
up first, beside the loop and without building or telling anything; whatever is in doubt (an image
that is not there, a node that is slow, a replica that does not serve) is a release as ever.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.control.deploy.images import NoImage, ReleaseImages
from orchestrator.control.mirror.released import spec_of
from orchestrator.control.telling.words import is_complete
from specs.states import ReleaseState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.contracts import Agents
    from orchestrator.control.mirror.cluster import Cluster
    from specs.api import Release
    from specs.kit.clock import Clock
    from specs.problems import Problem

PATIENCE = 5.0  # seconds for its images; then it is a release, which tells how far they are


@dataclass(frozen=True)
class Same:
    """A release as a request would make it, and the one that runs and is the same so far."""

    made: Release
    last: Release
    warnings: tuple[Problem, ...]  # of the request
    revision: int  # of the mirror it was looked at in
    images: Mapping[str, str] = field(default_factory=dict)  # what its images are, once looked up

    @property
    def confirmed(self) -> bool:
        """Say whether the release that runs has the images looked up."""
        return all(self.last.images.get(name) == digest for name, digest in self.images.items())


def deployed_already(cluster: Cluster, made: Release) -> Release | None:
    """Return the release that runs, if the one just made asks for nothing else but its images."""
    present = cluster.stacks.get(made.stack)
    if present is None or present.desired != "up" or present.stopped_services or present.created:
        return None
    last = cluster.releases.get((made.stack, present.release))
    if last is None or last.state is not ReleaseState.DEPLOYED or last.number != present.running:
        return None
    if made.build == "always" or made.again or made.overrides != present.overrides:
        return None
    if last.only_starts or not {*last.keeps} <= {*made.keeps}:
        return None  # what kept its spec then (`start`, --no-recreate) is to have it now
    wishes = ("spec", "recreates", "client", "services", "no_deps")
    if any(getattr(made, wish) != getattr(last, wish) for wish in wishes):
        return None
    mine = cluster.by_stack.get(made.stack, {}).values()
    return last if is_complete(cluster, present, mine) else None


async def with_images(cluster: Cluster, agents: Agents, clock: Clock, same: Same) -> Same | None:
    """Return the same with the digests an `up` would pin now; None: not all are at hand."""
    spec = spec_of(cluster, same.last)
    if spec is None:
        return None
    work = ReleaseImages(cluster, agents, clock, same.made, spec, lambda _: None, builds=False)
    try:
        async with asyncio.timeout(PATIENCE):
            return replace(same, images=await work.images())
    except (NoImage, TimeoutError):
        return None
