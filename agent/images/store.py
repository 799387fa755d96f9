"""The node's images: the store the runner and the agent's API talk to (agent.tasks.effects.Images).

This part knows names and pull policies: what a reference means here, and whether a registry
is to be asked. An image is complete when its record is written, which agent.images.assemble
does last of all. ``ensure`` of a complete image touches no registry; a damaged one is
repaired from its own blobs or fetched again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, ParamSpec, Self, TypeVar

from agent.errors import Later, Refusal, lacks_room
from agent.identity import Identity
from agent.images.assemble import Assembly
from agent.images.build import Builder
from agent.images.collect import collect, forget, forget_halves
from agent.images.content import ImageFiles, ImageRecord, Ref, hash_file
from agent.images.layers import LayerStore, UnpackLimits
from agent.images.manifest import (
    MAX_CONFIG,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Index,
    host_platform,
    parse_config,
    parse_manifest,
)
from agent.images.naming import follow
from agent.images.peers import PeerImages
from agent.images.pull import Registry
from agent.images.reference import Reference, check_digest, digest_of, parse
from agent.images.rootfs import RootFs
from specs.base import canonical_json
from specs.wire import ImageInfo, ResolvedImage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from agent.vocabulary import ImageConfig
    from specs.images import ForgottenImages, StackImage
    from specs.wire import BuildEvent, BuildImage, ResolveImage

P = ParamSpec("P")
T = TypeVar("T")
PATIENCE: Final = 50  # looks whether no image is being added any more
PAUSE: Final = 0.1  # seconds between them
_EPOCH: Final = "1970-01-01T00:00:00Z"
_PACKED: Final = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}


class ImageStore:
    """Content-addressed images of this node and the root file systems made of them."""

    def __init__(
        self,
        state_dir: Path,
        run_dir: Path,
        *,
        limits: UnpackLimits | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.content = ImageFiles(state_dir / "images")
        self.layers = LayerStore(self.content, limits or UnpackLimits())
        self.rootfs = RootFs(self.content, self.layers, run_dir)
        self.environment = dict(os.environ if environment is None else environment)
        self.registry = Registry(self.environment, self.content.stage)
        self.identity = Identity(state_dir / "identity")
        self.peers = PeerImages(self.content, self.identity)
        self._threads = ThreadPoolExecutor(4, "images")
        self._assembly = Assembly(
            self.content, self.layers, self.rootfs, self.registry, self.peers, self._threads
        )
        self._builder = Builder(self._assembly, self.resolve, self.environment, run_dir)
        self._known: dict[str, ImageConfig] = {}
        self._halves = False  # an image did not fit: what came of it is nobody's
        self.content.clean_staging()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End the threads; mounts stay, they belong to tasks."""
        self.rootfs.close()
        self._threads.shutdown()

    # what the runner asks

    async def resolve(self, request: ResolveImage) -> ResolvedImage:
        """Pin a reference to a digest, pulling as the policy says. Raises Refusal, Later."""
        reference = parse(request.image)
        digest = "" if request.policy == "always" else self._local(reference)
        if digest and self._complete(digest):
            return self._resolved(request.image, digest)
        if request.policy == "never":
            raise Refusal(
                f"image {reference.familiar} is not on this node and its pull policy is never"
            )
        if reference.digest and self._complete(reference.digest):
            return self._resolved(request.image, reference.digest)  # always means the same bytes
        manifest = await self.registry.manifest(reference)
        digest = digest_of(manifest)
        if reference.digest and digest != reference.digest:
            raise Later(f"the registry {reference.host} sent another manifest than asked for")
        if request.platform and isinstance(parsed := parse_manifest(manifest), Index):
            digest, manifest = parsed.choose(request.platform).digest, b""
        await self._obtain(reference, digest, manifest)
        if reference.tag:
            await self._call(self.content.set_ref, Ref(reference.name, digest, "pulled"))
        return self._resolved(request.image, digest)

    def transfer(self, image: str) -> tuple[int, int]:
        """Return (bytes arrived, bytes wanted) of an image that is being fetched, else (0, 0)."""
        return self._assembly.transfer(parse(image).name)

    async def ensure(self, image: str, digest: str) -> ImageConfig:
        """Make the image present and unpacked; ``digest`` wins over the name's present meaning."""
        reference = parse(image)
        digest = check_digest(digest or self._local(reference))
        came = not self._complete(digest)
        if came:
            await self._obtain(reference, digest)
        known = self.content.ref(reference.name) if reference.tag else None
        if reference.tag and (known is None or known.digest != digest):
            await self._call(follow, self.content, reference.name, digest, came=came)
        return self._config(digest)

    async def mount(self, task: str, digest: str) -> Path:
        """Return the task's merged root (overlay: shared layers + its own writable layer)."""
        record = self._complete(check_digest(digest))
        if record is None:
            raise Later(f"image {digest[:19]} is not complete on this node")
        return await self._mounting(self.rootfs.mount, task, digest, record.diff_ids)

    async def borrow(self, task: str, digest: str) -> tuple[int, str]:
        """Return a copy of the mount of a task's root, and a place for it in another namespace."""
        record = self._complete(check_digest(digest))
        if record is None:
            raise Later(f"image {digest[:19]} is not complete on this node")
        lending = asyncio.create_task(
            self._mounting(self.rootfs.borrow, task, digest, record.diff_ids)
        )
        try:
            return await asyncio.shield(lending)
        except asyncio.CancelledError:  # who asked has left: nobody else would say "returned"
            copy, _ = await lending
            os.close(copy)
            await self.returned(task)
            raise

    async def returned(self, task: str) -> None:
        """Note that who borrowed the task's root has ended."""
        await self._mounting(self.rootfs.returned, task)

    async def unmount(self, task: str) -> None:
        """Unmount the root; the writable layer stays."""
        await self._mounting(self.rootfs.unmount, task)

    async def discard(self, task: str) -> None:
        """Unmount and delete the writable layer, and the half of an image that did not fit.

        For as long as a task waits for room the half stays: what has come need not come again.
        """
        await self._mounting(self.rootfs.discard, task)
        if self._halves:
            with contextlib.suppress(Later):
                await self._call(forget_halves, self.content, self.layers, self.rootfs)
                self._halves = False

    def build(self, request: BuildImage) -> AsyncIterator[BuildEvent]:
        """Build with buildah; the last event has ``digest`` or ``error``."""
        return self._builder.build(request)

    async def list(self) -> list[ImageInfo]:
        """Return the images that are complete on this node."""
        return [*await self._call(self._listed)]

    async def prune(self, keep: Collection[str], *, named: bool = False) -> tuple[str, ...]:
        """Delete images nobody needs and return their digests.

        Kept are ``keep``, what a task's writable layer stands on and, unless ``named``,
        every image that has a name. Raises Later while images are being added.
        """
        return await self._call(collect, self.content, self.layers, self.rootfs, keep, named=named)

    async def forget(self, asked: Sequence[StackImage], used: Mapping[str, str]) -> ForgottenImages:
        """Remove these images unless they are used; ``used``: digest -> by whom.

        Raises Later where images are being added all the time.
        """
        content, layers, rootfs = self.content, self.layers, self.rootfs
        for _ in range(PATIENCE - 1):
            with contextlib.suppress(Later):
                return await self._call(forget, content, layers, rootfs, asked, used)
            await asyncio.sleep(PAUSE)
        return await self._call(forget, content, layers, rootfs, asked, used)

    # adding images

    async def add(
        self, name: str, archive: Path, config: Mapping[str, object], note: str = ""
    ) -> str:
        """Make a one-layer image of a root file system's tar archive and name it.

        ``config`` holds fields of the OCI image config; ``note`` is kept with the name.
        """
        reference = parse(name)
        with self.content.using(), self.content.stage() as stage:
            blob = stage / "blob"
            await self._call(shutil.copyfile, archive, blob)
            digest = await self._call(hash_file, blob)
            diff_id = await self.layers.unpack(blob, digest, None)
            size = blob.stat().st_size
            await self._call(self.content.adopt_blob, blob, digest)
            with self.content.blob(digest).open("rb") as file:
                packed = _PACKED.get(file.read(2), "")
            layers = [{"mediaType": f"{OCI_LAYER}{packed}", "digest": digest, "size": size}]
            full = dict(config) | {
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
                # buildah counts layers by history and refuses to build on an image without.
                # Without a time its layer cache never matches.
                "created": _EPOCH,
                "history": [{"created": _EPOCH, "created_by": "corral image import"}],
            }
            data = await self._call(self._manifest, full, layers)
            manifest = await self._call(self.content.put_blob, data)
            await self._assembly.finish(manifest, manifest)
            await self._call(self.content.set_ref, Ref(reference.name, manifest, "imported", note))
        return manifest

    def has(self, name: str, note: str) -> bool:
        """Say whether ``name`` stands for the complete image that was added with ``note``."""
        ref = self.content.ref(parse(name).name)
        return ref is not None and ref.note == note and self._complete(ref.digest) is not None

    def _manifest(self, config: Mapping[str, object], layers: Sequence[object]) -> bytes:
        """Store an image config and return the manifest that joins it with ``layers``."""
        architecture = host_platform().split("/")[1]
        data = canonical_json({"os": "linux", "architecture": architecture, **config})
        return canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {
                    "mediaType": OCI_CONFIG,
                    "digest": self.content.put_blob(data),
                    "size": len(data),
                },
                "layers": layers,
            }
        )

    # inside

    def _listed(self) -> Sequence[ImageInfo]:
        # In a thread: a file for each name, each image and each of its layers.
        names: dict[str, list[str]] = {}
        for ref in self.content.refs():
            names.setdefault(ref.digest, []).append(parse(ref.name).familiar)
        return [
            ImageInfo(
                digest=record.digest,
                names=tuple(names.get(record.digest, ())),
                size=record.size,
                created=record.created,
            )
            for record in self.content.records()
            if self._complete(record.digest)
        ]

    def _local(self, reference: Reference) -> str:
        """Return the digest a reference means on this node, or ""."""
        if reference.digest:
            return reference.digest
        ref = self.content.ref(reference.name)
        return ref.digest if ref else ""

    async def _obtain(self, reference: Reference, digest: str, manifest: bytes = b"") -> None:
        try:
            await self._assembly.obtain(reference, digest, manifest)
        except (Later, OSError) as error:
            self._halves = self._halves or lacks_room(error)
            raise

    def _complete(self, digest: str) -> ImageRecord | None:
        record = self._assembly.complete(digest)
        if record is None:
            self._known.pop(digest, None)
        return record

    def _config(self, digest: str) -> ImageConfig:
        known = self._known.get(digest)
        if known is None:
            record = self.content.record(digest)
            if record is None:
                raise Later(f"image {digest[:19]} was removed from this node meanwhile")
            data = self.content.read_blob(record.config, MAX_CONFIG)
            if data is None:
                self.content.remove_record(digest)
                raise Later(f"image {digest[:19]} is damaged on this node; it is fetched again")
            known = parse_config(data, digest, len(record.diff_ids)).image
            self._known[digest] = known
        return known

    def _resolved(self, image: str, digest: str) -> ResolvedImage:
        record = self.content.record(digest)
        if record is None:
            raise Later(f"image {digest[:19]} was removed from this node meanwhile")
        return ResolvedImage(image=image, digest=digest, size=record.size, created=record.created)

    async def _call(self, function: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
        call = functools.partial(function, *arguments, **more)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _mounting(self, function: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
        call = functools.partial(function, *arguments, **more)
        return await asyncio.get_running_loop().run_in_executor(self.rootfs.thread, call)
