"""What tasks ask of the node: images, volumes, network and containers, as protocols.

The runner (``runner.py``) orders these effects and knows nothing else of who performs them; tests
give it in-memory fakes that pass the same contract tests as the real parts. Every
method is idempotent: repeating it, also after a kill at any instant, is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from agent.network.wanted import Wanted
    from agent.vocabulary import Attachment, BoundMount, Exit, FoundRun, ImageConfig, Process
    from specs.images import ForgottenImages, StackImage
    from specs.kit.patience import Patience
    from specs.paths import PathState
    from specs.stack import Hook, TaskSpec
    from specs.wire import (
        Assignment,
        BuildEvent,
        BuildImage,
        Content,
        ImageInfo,
        NodeSelf,
        Peer,
        ResolvedImage,
        ResolveImage,
    )


class Images(Protocol):
    """Content-addressed images of this node and the root file systems made of them."""

    async def resolve(self, request: ResolveImage) -> ResolvedImage:
        """Pin a reference to a digest, pulling as the policy says. Raises Refusal, Later."""
        ...

    def transfer(self, image: str) -> tuple[int, int]:
        """Return (bytes arrived, bytes wanted) of an image that is being fetched, else (0, 0)."""
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

    async def borrow(self, task: str, digest: str) -> tuple[int, str]:
        """Return a descriptor of a mount of the task's root, and where it may be mounted.

        It is a copy: what mounts or unmounts the root itself meanwhile does not touch it.
        ``returned`` follows when who got it has ended. Raises Refusal, Later.
        """
        ...

    async def returned(self, task: str) -> None:
        """Note that who borrowed the task's root has ended."""
        ...

    def build(self, request: BuildImage) -> AsyncIterator[BuildEvent]:
        """Build with buildah; the last event has ``digest`` or ``error``."""
        ...

    async def list(self) -> list[ImageInfo]:
        """Return the images that are complete on this node."""
        ...

    async def forget(self, asked: Sequence[StackImage], used: Mapping[str, str]) -> ForgottenImages:
        """Remove these images unless they are used; ``used``: digest -> by whom. Raises Later."""
        ...

    def close(self) -> None:
        """Let go of threads; mounts stay, they belong to tasks."""
        ...


class Peers(Protocol):
    """The other nodes: who they are, and by what they know this one."""

    async def signing_request(self) -> str:
        """Return the signing request for this node's own key; empty = it needs no certificate."""
        ...

    async def meet(self, me: NodeSelf, peers: Mapping[str, Peer]) -> None:
        """Take note of who is in the cluster."""
        ...

    async def without_controller(self, nodes: Collection[str]) -> frozenset[str]:
        """Return those of these nodes that answer, and say that they have no controller."""
        ...

    def answer_by(self, vouch: Callable[[], bool]) -> None:
        """Have others who ask be told whether this node has no controller."""
        ...

    async def close(self) -> None:
        """Part with them."""
        ...


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
        (owner and modes too), unless nocopy. Secrets go to tmpfs, 0444 and owned by ``owner``
        (the container's resolved uid, gid) unless the FileRef says otherwise.
        Raises Refusal (bind source missing, ...), Later (no space).
        """
        ...

    async def open(self, name: str) -> int:
        """Return a descriptor of a named volume's data. Raises FileNotFoundError."""
        ...

    def place_of(self, name: str) -> tuple[Path, asyncio.Lock]:
        """Return where a named volume is, and who holds it meanwhile. Raises Refusal."""
        ...

    def draft(self) -> AbstractAsyncContextManager[Path]:
        """Return an empty volume that nobody knows; what :meth:`put` leaves of it goes."""
        ...

    async def put(
        self, name: str, draft: Path, *, replace: bool, users: Callable[[], Sequence[str]]
    ) -> None:
        """Make a draft the named volume. Raises Refusal where it has data, or ``users``, Later."""
        ...

    async def enter(self, assignment: Assignment) -> None:
        """Find the subpaths of volumes that a run mounts. Raises Refusal where one is missing."""
        ...

    async def take(self, task: str, slot: str) -> None:
        """Give a task that is being prepared the anonymous volumes its slot has."""
        ...

    async def claim(self, task: str, slot: str, *, fresh: bool = False) -> None:
        """Make the anonymous volumes of a task the slot's: its first run begins.

        Those that its predecessor left take the place of what was made for it ahead; of a task
        that begins with ``fresh`` ones they go.
        """
        ...

    def owns(self, task: str) -> bool:
        """Say whether the task has anonymous volumes."""
        ...

    async def present(
        self, assignment: Assignment, image: ImageConfig, slot: str
    ) -> list[tuple[str, str, bool]]:
        """Return (place on the node, target, read-only) of a task's mounts, in mount order.

        For a task that does not run: nothing is made, and a place is empty where none is there.
        """
        ...

    async def release(self, task: str, kept: Callable[[str], bool]) -> None:
        """Remove what belongs to the task alone: its secrets, configs, anonymous volumes.

        The last stay for the next task of the slot where that is ``kept`` and the task ran.
        """
        ...

    async def sweep(self, kept: Callable[[str], bool]) -> None:
        """Remove the anonymous volumes of slots that are not wanted any more."""
        ...

    async def remove(self, name: str) -> None:
        """Delete a named volume and its data; unknown names are fine."""
        ...

    def held(self) -> tuple[str, ...]:
        """Return the names of the named volumes that are here."""
        ...

    async def look(self, sources: Sequence[str]) -> dict[str, PathState]:
        """Say of paths of the node whether they are there, and whether corral made them."""
        ...

    async def adopt(self, tasks: set[str], kept: Callable[[str], bool]) -> None:
        """After a restart: remove what tasks other than these had for themselves."""
        ...


class Networking(Protocol):
    """Everything between tasks: namespaces, veths, overlay, nft, VIPs, ports, DNS."""

    async def apply(self, wanted: Wanted) -> None:
        """Bring kernel and DNS to this whole state, in as few transactions as possible.

        ``wanted.ready`` is what this agent itself sees of its local tasks: an endpoint of a local
        task that is not ready here gets no traffic even while the controller does not know
        yet. When this returns the state is in force (what Report.applied acknowledges).
        """
        ...

    async def attach(self, assignment: Assignment) -> Attachment:
        """Make namespace, veths, addresses, routes and resolver. Raises Refusal, Later."""
        ...

    async def detach(self, task: str) -> None:
        """Remove everything attach made."""
        ...

    async def adopt(self, tasks: set[str]) -> None:
        """After a restart: keep what belongs to these tasks, remove every other object of ours."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what people should know now."""
        ...

    @property
    def trouble(self) -> str:
        """Return why the node's network is not as it should be; "" when it is."""
        ...

    @property
    def underlay_mtu(self) -> int:
        """Return the MTU of the device other nodes reach this one by; 0 where there is none."""
        ...

    async def run(self) -> None:
        """Repair what others break, until cancelled."""
        ...

    async def leave(self) -> None:
        """Remove everything of ours from the machine."""
        ...

    async def close(self) -> None:
        """Let go of threads and sockets; what containers use stays."""
        ...


class Containers(Protocol):
    """What the runner asks of the runtime. Every method may be repeated."""

    def write(self, task: str, config: dict[str, Any]) -> None:
        """Write the task's bundle."""
        ...

    def config(self, task: str) -> dict[str, Any]:
        """Return what the task's bundle says. Raises RuntimeFailure."""
        ...

    async def create(
        self, task: str, run: int, spec: TaskSpec, *, once: bool = False
    ) -> tuple[Process, Process]:
        """Create the container; the command does not run yet. Raises RuntimeFailure.

        ``once``: its input, where it is no terminal, ends with the first who gave it some.
        """
        ...

    async def start(self, task: str) -> None:
        """Let the command run. Raises RuntimeFailure."""
        ...

    async def state(self, task: str) -> str | None:
        """Return created, running, stopped; None = the runtime knows no such container."""
        ...

    async def find(self, task: str) -> FoundRun | None:
        """Return the task's run by what conmon and the runtime left; None = there is none."""
        ...

    async def follow(self, task: str, process: Process, monitor: Process) -> Exit:
        """Wait for the run's end."""
        ...

    def send(self, process: Process, number: int) -> bool:
        """Send a signal; False when the process is gone."""
        ...

    async def freeze(self, task: str, *, paused: bool) -> None:
        """Freeze the task's processes, or let them go on. Raises RuntimeFailure."""
        ...

    async def clear(self, task: str) -> None:
        """Delete the container and every process of it; the bundle stays. Raises RuntimeFailure."""
        ...

    async def erase(self, task: str) -> None:
        """Delete everything, the bundle too. Raises RuntimeFailure."""
        ...

    def last_lines(self, task: str, count: int) -> list[str]:
        """Return the end of the task's output."""
        ...

    def known(self) -> set[str]:
        """Return ids of all tasks that left anything of the runtime's on this node."""
        ...


class Prober(Protocol):
    """Runs one health probe."""

    async def __call__(
        self, task: str, command: tuple[str, ...], timeout: float
    ) -> tuple[int, str]:
        """Return exit code and output. Raises RuntimeFailure."""
        ...


class HookRunner(Protocol):
    """Runs commands of a task's file inside its container."""

    async def run(self, task: str, run: int, hook: Hook, kind: str, patience: Patience) -> str:
        """Run one hook to its end; return why it failed, empty = it did not.

        What it prints goes to the log of ``run``, each line behind the ``kind`` of the hook; who
        waits no longer ends it. Raises RuntimeFailure, Refusal, OSError: it cannot be started.
        """
        ...

    async def sweep(self, task: str) -> None:
        """End a hook that an agent before this one began."""
        ...


@dataclass(frozen=True)
class Effects:
    """The parts of a node that change it; ``agent/daemon.py`` makes the real ones."""

    images: Images
    volumes: Volumes
    network: Networking
    peers: Peers
