"""In-memory images, volumes and network of a node; and the simplest real ones.

The fakes pass ``tests/agent/contract.py``, as the real parts do. ``PlainImages``
makes real root file systems of busybox for tests that run containers.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import Later, Refusal
from agent.vocabulary import Attachment, BoundMount, ImageConfig
from specs.images import ForgottenImages
from specs.wire import BuildEvent, BuildImage, ImageInfo, ResolvedImage, ResolveImage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from agent.network.wanted import Wanted
    from specs.images import StackImage
    from specs.paths import PathState
    from specs.stack import Mount
    from specs.wire import Assignment, Content, NodeSelf, Peer

_APPLETS = """
sh ls cat echo sleep id ps kill true false env stat touch seq head dd yes printf test grep
hostname mount mkdir rm nc tty stty wc
"""
APPLETS = tuple(_APPLETS.split())
DIGEST = "sha256:" + "a" * 64


def make_root(root: Path) -> None:
    """The directories every root has, and busybox where the machine has it."""
    for name in ("bin", "dev", "proc", "sys", "etc", "tmp", "data"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\napp:x:1000:\nwheel:x:10:app\n")
    busybox = shutil.which("busybox")
    if busybox and not (root / "bin/busybox").exists():
        shutil.copy2(busybox, root / "bin/busybox")
    for name in APPLETS:
        link = root / "bin" / name
        if not link.is_symlink():
            link.symlink_to("busybox")


@dataclass
class FakeImages:
    """Images that are always there; ``known`` maps names to digests, ``broken`` to errors."""

    base: Path
    known: dict[str, str] = field(default_factory=lambda: {"busybox": DIGEST})
    config: ImageConfig = field(
        default_factory=lambda: ImageConfig(digest=DIGEST, environment={"PATH": "/bin"})
    )
    broken: dict[str, Exception] = field(default_factory=dict)
    delay: float = 0.0
    mounted: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)

    async def resolve(self, request: ResolveImage) -> ResolvedImage:
        if request.image in self.broken:
            raise self.broken[request.image]
        if request.image not in self.known:
            raise Refusal(f"image {request.image} does not exist")
        return ResolvedImage(image=request.image, digest=self.known[request.image], size=1)

    def transfer(self, _image: str) -> tuple[int, int]:
        return 0, 0

    async def forget(self, asked: Sequence[StackImage], used: Mapping[str, str]) -> ForgottenImages:
        kept = {o.name: f"{used[d]} uses it" for o in asked for d in o.digests if d in used}
        gone = [one.name for one in asked if one.name in self.known and one.name not in kept]
        for name in gone:
            del self.known[name]
        return ForgottenImages(removed=tuple(gone), kept=kept)

    async def ensure(self, image: str, digest: str) -> ImageConfig:
        if self.delay:
            await asyncio.sleep(self.delay)
        if image in self.broken:
            raise self.broken[image]
        if image not in self.known and digest not in self.known.values():
            raise Refusal(f"image {image} does not exist")
        return self.config

    def root(self, task: str) -> Path:
        return self.base / "roots" / task

    async def mount(self, task: str, digest: str) -> Path:
        root = self.root(task)
        if task not in self.kept:
            make_root(root)
        self.mounted.add(task)
        self.kept.add(task)
        return root

    async def unmount(self, task: str) -> None:
        self.mounted.discard(task)

    async def discard(self, task: str) -> None:
        self.mounted.discard(task)
        self.kept.discard(task)
        shutil.rmtree(self.root(task), ignore_errors=True)

    async def borrow(self, task: str, digest: str) -> tuple[int, str]:
        raise Refusal(f"{task} has no root of its own here")

    async def returned(self, task: str) -> None:
        raise AssertionError(f"{task} was never lent")

    async def build(self, request: BuildImage) -> AsyncIterator[BuildEvent]:
        yield BuildEvent(line=f"STEP 1: FROM {request.build.context}")
        self.known[request.tag] = DIGEST
        yield BuildEvent(digest=DIGEST)

    async def list(self) -> list[ImageInfo]:
        return [ImageInfo(digest=digest, names=(name,)) for name, digest in self.known.items()]

    def close(self) -> None:
        pass


class NoPeers:
    """A node that is alone."""

    async def signing_request(self) -> str:
        return ""

    async def meet(self, me: NodeSelf, peers: Mapping[str, Peer]) -> None:
        pass

    async def without_controller(self, nodes) -> frozenset[str]:
        return frozenset()

    def answer_by(self, vouch) -> None:
        pass

    async def close(self) -> None:
        pass


@dataclass
class FakeVolumes:
    """Volumes that are plain directories; ``broken`` is raised by prepare."""

    base: Path
    prepared: dict[str, str] = field(default_factory=dict)  # task -> what it was given
    volumes: set[str] = field(default_factory=set)
    broken: Exception | None = None
    # Anonymous volumes, as the task that made them: who has them, since which run, whose they are.
    owners: dict[str, str] = field(default_factory=dict)
    claimed: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    async def prepare(
        self,
        assignment: Assignment,
        image: ImageConfig,
        root: Path,
        contents: Mapping[str, Content],
        owner: tuple[int, int],
    ) -> tuple[BoundMount, ...]:
        if self.broken is not None:
            raise self.broken
        references = (*assignment.spec.secrets, *assignment.spec.configs)
        for reference in references:
            if reference.content not in contents:
                raise Later(f"waits for the controller to send {reference.source}")
        self.prepared[assignment.id] = f"{owner[0]}:{owner[1]}"
        self.volumes.update(assignment.volumes.values())
        if any(m.type == "volume" and m.source is None for m in assignment.spec.mounts):
            self.owners.setdefault(assignment.id, assignment.id)
        mounts = [self._mount(assignment, mount) for mount in assignment.spec.mounts]
        for reference in references:
            path = self._own(assignment.id) / reference.content
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(contents[reference.content].data))
            mounts.append(BoundMount(str(path), reference.target))
        return tuple(mounts)

    async def present(
        self, assignment: Assignment, image: ImageConfig, slot: str
    ) -> list[tuple[str, str, bool]]:
        return []

    def _mount(self, assignment: Assignment, mount: Mount) -> BoundMount:
        if mount.type == "tmpfs":
            return BoundMount("tmpfs", mount.target, "tmpfs", ("nosuid", "nodev"))
        if mount.type == "bind":
            if not os.path.exists(mount.source or ""):
                raise Refusal(f"bind source {mount.source} does not exist on this node")
            return BoundMount(mount.source or "", mount.target)
        name = assignment.volumes.get(mount.source or "")
        place = self._named(name) if name else self._own(assignment.id) / mount.target.strip("/")
        place.mkdir(parents=True, exist_ok=True)
        return BoundMount(str(place), mount.target)

    def _named(self, name: str) -> Path:
        return self.base / "named" / name

    def _own(self, task: str) -> Path:
        return self.base / "tasks" / task

    async def enter(self, assignment: Assignment) -> None:
        pass

    async def take(self, task: str, slot: str) -> None:
        if slot in self.left:
            self.owners[task] = self.left.pop(slot)

    async def claim(self, task: str, slot: str, *, fresh: bool = False) -> None:
        if slot in self.left and task not in self.claimed:
            self.owners[task] = self.left.pop(slot)
        if task in self.owners:
            self.claimed[task] = slot

    def owns(self, task: str) -> bool:
        return task in self.owners

    async def release(self, task: str, kept: Callable[[str], bool] = lambda _slot: False) -> None:
        self.prepared.pop(task, None)
        shutil.rmtree(self._own(task), ignore_errors=True)
        slot, data = self.claimed.pop(task, None), self.owners.pop(task, None)
        if slot is not None and data is not None and kept(slot):
            self.left[slot] = data

    async def sweep(self, kept: Callable[[str], bool]) -> None:
        self.left = {slot: data for slot, data in self.left.items() if kept(slot)}

    def held(self) -> tuple[str, ...]:
        return tuple(sorted(self.volumes))

    async def look(self, sources: Sequence[str]) -> dict[str, PathState]:
        return {path: "there" if os.path.exists(path) else "absent" for path in sources}

    async def adopt(
        self, tasks: set[str], kept: Callable[[str], bool] = lambda _slot: False
    ) -> None:
        for task in (set(self.prepared) | set(self.owners)) - tasks:
            await self.release(task, kept)
        await self.sweep(kept)

    async def remove(self, name: str) -> None:
        self.volumes.discard(name)
        shutil.rmtree(self._named(name), ignore_errors=True)


@dataclass
class FakeNetwork:
    """A network that is only remembered; the runtime makes each task a namespace."""

    attached: set[str] = field(default_factory=set)
    applied: list[dict[str, bool]] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)
    adopted: set[str] | None = None
    broken: Exception | None = None
    failures: int = 0
    delay: float = 0.0  # seconds an application takes
    troubled: str = ""
    mtu: int = 0

    async def apply(self, wanted: Wanted) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(5, "nft failed")
        if self.delay:
            await asyncio.sleep(self.delay)
        self.applied.append(dict(wanted.ready))
        self.wanted.append(wanted)

    async def attach(self, assignment: Assignment) -> Attachment:
        if self.broken is not None:
            raise self.broken
        self.attached.add(assignment.id)
        # An empty path: the runtime makes a namespace that has a loopback only.
        return Attachment(Path(), "nameserver 127.0.0.11\n", "127.0.0.1 localhost\n")

    async def detach(self, task: str) -> None:
        self.attached.discard(task)

    async def adopt(self, tasks: set[str]) -> None:
        self.adopted = set(tasks)
        self.attached &= tasks

    @property
    def warnings(self) -> tuple[str, ...]:
        return ()

    @property
    def trouble(self) -> str:
        return self.troubled

    @property
    def underlay_mtu(self) -> int:
        return self.mtu

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def leave(self) -> None:
        pass

    async def close(self) -> None:
        pass
