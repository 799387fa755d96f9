"""What a release's images are, as far as can be known without fetching or building any.

A real `up` asks the node that is the CLI's machine, and lets it fetch; here it is asked what it
has. What it lacks, what is to be looked up anew and what would be built has no digest yet: such a
service counts as changed, by a word in the digest's place.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from orchestrator.control.deploy.orders import orders
from orchestrator.control.mirror.node_view import heard, node_of_client
from orchestrator.errors import RequestError
from specs.wire import ResolveImage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.contracts import Agents
    from orchestrator.control.deploy.orders import BuildOrder, PullOrder
    from orchestrator.control.mirror.cluster import Cluster
    from specs.api import Release
    from specs.stack import StackSpec

PATIENCE = 5.0  # seconds for all of it
UNKNOWN = "unknown:"
State = Literal["here", "pulled", "asked", "built"]


def is_known(digest: str) -> bool:
    """Say whether this is a digest, and not a word in its place."""
    return bool(digest) and not digest.startswith(UNKNOWN)


@dataclass(frozen=True)
class KnownImage:
    """One image of a release."""

    image: str
    services: tuple[str, ...]
    state: State
    digest: str


@dataclass
class KnownImages:
    """All of a release. ``missing``: why `up` could not have one, as far as is sure."""

    images: list[KnownImage] = field(default_factory=list)
    sizes: Mapping[str, int] = field(default_factory=dict)  # digest -> bytes
    missing: str = ""

    @property
    def digests(self) -> dict[str, str]:
        """Return service -> digest, or the word for one that is not known."""
        return {name: one.digest for one in self.images for name in one.services}


async def known_images(
    cluster: Cluster, agents: Agents, release: Release, spec: StackSpec
) -> KnownImages:
    """Return what is known. Raises TimeoutError where nodes take too long to say it."""
    wanted = [s for name, s in spec.services.items() if name not in spec.carried]
    pulls, builds = orders(wanted, release.pull)
    asking = _Asking(agents, _node(cluster, release), release)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for order in pulls:
            group.create_task(asking.pull(order))
        for made in builds:
            group.create_task(asking.build(made))
        sizes = group.create_task(asking.sizes())
    found = asking.found
    found.sizes = sizes.result()
    found.images.sort(key=lambda one: (one.services, one.image))
    return found


@dataclass
class _Asking:
    """Questions to one node, and what was found. ``node`` None: nobody is there to be asked."""

    agents: Agents
    node: str | None
    release: Release
    found: KnownImages = field(default_factory=KnownImages)

    async def pull(self, order: PullOrder) -> None:
        digest = await self._there(order.image)
        state: State = "here"
        if digest is None:
            state = "pulled"
            if order.policy == "never":
                self._missing(order.services[0], order.image, "pulled")
        elif order.policy == "always" and "@" not in order.image:
            state = "asked"
        self._note(order.image, order.services, state, digest)

    async def build(self, order: BuildOrder) -> None:
        for image, services in order.images.items():
            anew = _made_anew(order, services, self.release)
            digest = None if anew else await self._there(image)
            if digest is None and self.release.build == "never":
                self._missing(services[0], image, "built")
            self._note(image, services, "built" if digest is None else "here", digest)

    async def sizes(self) -> dict[str, int]:
        """Return how large images are, by digest, as the node has them."""
        if self.node is None:
            return {}
        try:
            there = await self.agents.images(self.node)
        except RequestError:
            return {}
        return {info.digest: info.size for info in there}

    def _note(
        self, image: str, services: tuple[str, ...], state: State, digest: str | None
    ) -> None:
        known = KnownImage(image, services, state, digest or f"{UNKNOWN}{image}")
        self.found.images.append(known)

    def _missing(self, service: str, image: str, what: str) -> None:
        self.found.missing = f"{service}: image {image} is not there, and may not be {what}"

    async def _there(self, image: str) -> str | None:
        if self.node is None:
            return None
        try:
            asked = ResolveImage(image=image, policy="never")
            return (await self.agents.resolve_image(self.node, asked)).digest
        except RequestError:
            return None


def _made_anew(order: BuildOrder, services: tuple[str, ...], release: Release) -> bool:
    if release.build == "never":
        return False
    named = not release.services or any(name in release.services for name in services)
    return order.forced or (release.build == "always" and named)


def _node(cluster: Cluster, release: Release) -> str | None:
    """Return the node `up` would ask: the CLI's machine, else the first that answers."""
    ready = heard(cluster)
    client = node_of_client(cluster.nodes, release.client.boot_id)
    return client if client in ready else next(iter(ready), None)
