"""The seams inside the agent: what the runner asks of images, volumes and network.

The runner (agent/tasks/runner.py) orders effects and knows these protocols only; tests
give it in-memory fakes that pass the same contract tests as the real parts. Every
method is idempotent: repeating it, also after a kill at any instant, is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from specs.stack import Healthcheck
    from specs.wire import (
        Assignment,
        BuildEvent,
        BuildImage,
        Content,
        ImageInfo,
        NetworkState,
        NodeSelf,
        Peer,
        ResolvedImage,
        ResolveImage,
        ServiceEndpoints,
    )


class Refusal(Exception):
    """The task cannot be prepared as asked, and trying again will not help: rejected.

    The message is for users: what, which object, what to do.
    """


class Later(Exception):
    """It did not work now (registry down, disk full); trying again may. Message for users."""


@dataclass(frozen=True)
class ImageConfig:
    """What an image says about its containers (OCI image config)."""

    digest: str  # manifest digest
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


class Images(Protocol):
    """Content-addressed images of this node and the root file systems made of them."""

    async def resolve(self, request: ResolveImage) -> ResolvedImage:
        """Pin a reference to a digest, pulling as the policy says. Raises Refusal, Later."""
        ...

    async def ensure(self, image: str, digest: str) -> ImageConfig:
        """Make the image present and unpacked; ``digest`` wins over the name's present meaning.

        Raises Refusal, Later.
        """
        ...

    async def mount(self, task: str, digest: str) -> Path:
        """Return the task's merged root (overlay: shared layers + its own writable layer)."""
        ...

    async def unmount(self, task: str) -> None:
        """Unmount the root; the writable layer stays."""
        ...

    async def discard(self, task: str) -> None:
        """Unmount and delete the writable layer."""
        ...

    def build(self, request: BuildImage) -> AsyncIterator[BuildEvent]:
        """Build with buildah; the last event has ``digest`` or ``error``."""
        ...

    async def list(self) -> list[ImageInfo]:
        """Return the images that are complete on this node."""
        ...


@dataclass(frozen=True)
class BoundMount:
    """A mount ready to be written into config.json."""

    source: str  # absolute path on the node; "tmpfs" for a tmpfs
    target: str
    type: str = "bind"
    options: tuple[str, ...] = ("rbind", "rprivate")


class Volumes(Protocol):
    """Named volumes, binds, tmpfs, secrets and configs of this node."""

    async def prepare(
        self,
        assignment: Assignment,
        image: ImageConfig,
        root: Path,
        contents: Mapping[str, Content],
        owner: tuple[int, int],
    ) -> tuple[BoundMount, ...]:
        """Make every source of the task's mounts exist and return them in mount order.

        A new named or anonymous volume is filled from the image's directory at the target
        (owner and modes too), unless nocopy. Secrets go to tmpfs, 0400 and owned by ``owner``
        (the container's resolved uid, gid) unless the FileRef says otherwise.
        Raises Refusal (bind source missing, ...), Later (no space).
        """
        ...

    async def release(self, task: str) -> None:
        """Remove what belongs to the task alone: its secrets, configs, anonymous volumes."""
        ...

    async def remove(self, name: str) -> None:
        """Delete a named volume and its data; unknown names are fine."""
        ...

    async def adopt(self, tasks: set[str]) -> None:
        """After a restart: remove what tasks other than these had for themselves."""
        ...


@dataclass(frozen=True)
class Attached:
    """A task's network, ready for the container to be created in it."""

    netns: Path  # bind-mounted namespace file, kept over restarts of the run
    resolv_conf: str
    hosts: str


class Network(Protocol):
    """Everything between tasks: namespaces, veths, overlay, nft, VIPs, ports, DNS."""

    async def apply(
        self,
        *,
        me: NodeSelf,
        networks: Mapping[str, NetworkState],
        services: Mapping[str, ServiceEndpoints],
        peers: Mapping[str, Peer],
        assignments: Mapping[str, Assignment],
        ready: Mapping[str, bool],
    ) -> None:
        """Bring kernel and DNS to this whole state, in as few transactions as possible.

        ``ready`` is what this agent itself sees of its local tasks: an endpoint of a local
        task that is not ready here gets no traffic even while the controller does not know
        yet. When this returns the state is in force (what Report.applied acknowledges).
        """
        ...

    async def attach(self, assignment: Assignment) -> Attached:
        """Make namespace, veths, addresses, routes and resolver. Raises Refusal, Later."""
        ...

    async def detach(self, task: str) -> None:
        """Remove everything attach made."""
        ...

    async def adopt(self, tasks: set[str]) -> None:
        """After a restart: keep what belongs to these tasks, remove every other object of ours."""
        ...
