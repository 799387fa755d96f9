"""The node's images: the store the runner and the agent's API talk to (agent.tasks.effects.Images).

An image is complete when its record is written, which happens last: manifest, config and
layers are all there, every digest checked. ``ensure`` of a complete image touches no
registry; a damaged one is repaired from its own blobs or fetched again. The order is always
blobs, layers, record, name, so that a kill at any instant leaves nothing half made in use.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import os
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, ParamSpec, Self, TypeVar

from agent.errors import Later, Refusal
from agent.identity import Identity
from agent.images.build import Builder
from agent.images.collect import collect
from agent.images.content import ImageFiles, ImageRecord, Ref, hash_file
from agent.images.layers import DamagedBlob, LayerStore, UnpackLimits
from agent.images.manifest import (
    MAX_CONFIG,
    MAX_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Blob,
    BlobSource,
    ImageDocument,
    Index,
    Manifest,
    host_platform,
    parse_config,
    parse_manifest,
)
from agent.images.peers import PeerImages
from agent.images.pull import Registry
from agent.images.reference import Reference, check_digest, parse
from agent.images.rootfs import RootFs
from specs.base import canonical_json
from specs.wire import ImageInfo, ResolvedImage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from agent.vocabulary import ImageConfig
    from specs.wire import BuildEvent, BuildImage, ResolveImage

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
_EPOCH: Final = "1970-01-01T00:00:00Z"
_PACKED: Final = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}
_ATTEMPTS: Final = 2  # a damaged blob is fetched once more before giving up


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
        self.registry = Registry(self.environment)
        self.identity = Identity(state_dir / "identity")
        self.peers = PeerImages(self.content, self.identity)
        self._threads = ThreadPoolExecutor(4, "images")
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._builder = Builder(self, run_dir)
        self._known: dict[str, ImageConfig] = {}
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
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        if reference.digest and digest != reference.digest:
            raise Later(f"the registry {reference.host} sent another manifest than asked for")
        if request.platform and isinstance(parsed := parse_manifest(manifest), Index):
            digest, manifest = parsed.choose(request.platform).digest, b""
        await self._obtain(reference, digest, manifest)
        if reference.tag:
            self.content.set_ref(Ref(reference.name, digest, "pulled"))
        return self._resolved(request.image, digest)

    async def ensure(self, image: str, digest: str) -> ImageConfig:
        """Make the image present and unpacked; ``digest`` wins over the name's present meaning."""
        reference = parse(image)
        digest = check_digest(digest or self._local(reference))
        if not self._complete(digest):
            await self._obtain(reference, digest)
        if reference.tag and self.content.ref(reference.name) is None:
            self.content.set_ref(Ref(reference.name, digest, "pulled"))
        return self._config(digest)

    async def mount(self, task: str, digest: str) -> Path:
        """Return the task's merged root (overlay: shared layers + its own writable layer)."""
        record = self._complete(check_digest(digest))
        if record is None:
            raise Later(f"image {digest[:19]} is not complete on this node")
        return await self._mounting(self.rootfs.mount, task, digest, record.diff_ids)

    async def unmount(self, task: str) -> None:
        """Unmount the root; the writable layer stays."""
        await self._mounting(self.rootfs.unmount, task)

    async def discard(self, task: str) -> None:
        """Unmount and delete the writable layer."""
        await self._mounting(self.rootfs.discard, task)

    def build(self, request: BuildImage) -> AsyncIterator[BuildEvent]:
        """Build with buildah; the last event has ``digest`` or ``error``."""
        return self._builder.build(request)

    async def list(self) -> list[ImageInfo]:
        """Return the images that are complete on this node."""
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

    async def prune(self, keep: Collection[str], *, named: bool = False) -> tuple[str, ...]:
        """Delete images nobody needs and return their digests.

        Kept are ``keep``, what a task's writable layer stands on and, unless ``named``,
        every image that has a name. Raises Later while images are being added.
        """
        return await self._call(collect, self.content, self.layers, self.rootfs, keep, named=named)

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
            self.content.adopt_blob(blob, digest)
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
            manifest = self.content.put_blob(self._manifest(full, layers))
            await self._finish(manifest, manifest)
            self.content.set_ref(Ref(reference.name, manifest, "imported", note))
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

    async def adopt(self, manifest: bytes, name: str, origin: str, source: BlobSource) -> str:
        """Take over an image whose blobs ``source`` has, and name it; returns its digest."""
        with self.content.using(), self.content.stage() as stage:
            digest = self.content.put_blob(manifest)
            await self._finish(digest, digest, stage, source)
            self.content.set_ref(Ref(parse(name).name, digest, origin))
        return digest

    def name(self, name: str, digest: str, origin: str) -> None:
        """Let a name stand for a complete image."""
        self.content.set_ref(Ref(parse(name).name, digest, origin))

    def packed(self) -> dict[str, Blob]:
        """Return, by diffID, the blobs of layers as they came."""
        found: dict[str, Blob] = {}
        for record in self.content.records():
            data = self.content.read_blob(record.manifest, MAX_MANIFEST)
            parsed = parse_manifest(data) if data else None
            if isinstance(parsed, Manifest) and len(parsed.layers) == len(record.diff_ids):
                pairs = zip(record.diff_ids, parsed.layers, strict=True)
                found |= {
                    diff_id: blob for diff_id, blob in pairs if self.content.has_blob(blob.digest)
                }
        return found

    # inside

    def _local(self, reference: Reference) -> str:
        """Return the digest a reference means on this node, or ""."""
        if reference.digest:
            return reference.digest
        ref = self.content.ref(reference.name)
        return ref.digest if ref else ""

    def _complete(self, digest: str) -> ImageRecord | None:
        """Return the image's record while every one of its layers is usable."""
        record = self.content.record(digest)
        if record and all(self.layers.done(diff_id) for diff_id in record.diff_ids):
            return record
        self._known.pop(digest, None)
        return None

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

    async def _obtain(self, reference: Reference, digest: str, manifest: bytes = b"") -> None:
        """Make an image complete from our own blobs or the registry; one at a time a digest."""
        lock = self._locks.setdefault(digest, asyncio.Lock())
        async with lock:
            for attempt in range(_ATTEMPTS):
                if self._complete(digest):
                    break
                try:
                    with self.content.using():
                        await self._assemble(reference, digest, manifest)
                    break
                except DamagedBlob as damage:
                    log.warning("a damaged blob was found", extra={"digest": str(damage)})
                    if attempt + 1 == _ATTEMPTS:
                        raise Later(
                            f"image {reference.familiar}: {str(damage)[:19]} arrives damaged; "
                            "trying again later"
                        ) from None

    async def _assemble(self, reference: Reference, digest: str, manifest: bytes) -> None:
        data = await self._manifest_bytes(reference, digest, manifest)
        parsed, own = parse_manifest(data), digest
        if isinstance(parsed, Index):
            own = parsed.choose(host_platform()).digest
            parsed = parse_manifest(await self._manifest_bytes(reference, own))
        if isinstance(parsed, Index):
            raise Refusal(f"image {reference.familiar}: an index inside an index is not supported")
        with self.content.stage() as stage:
            blobs = (parsed.config, *parsed.layers)
            missing = [blob for blob in blobs if not self.content.has_blob(blob.digest)]
            if not missing:
                await self._finish(digest, own)
                return
            self._room(sum(blob.size for blob in missing))
            if (found := await self.peers.manifest(own)) is not None:
                try:
                    await self._finish(digest, own, stage, found[1])
                except (Later, DamagedBlob) as error:
                    log.info("fetching from the registry instead", extra={"error": str(error)})
                else:
                    return
            async with self.registry.source(reference, own) as source:
                await self._finish(digest, own, stage, source)

    def _room(self, wanted: int) -> None:
        """Refuse to start what cannot end: the packed blobs alone must fit."""
        free = shutil.disk_usage(self.content.root).free
        if wanted + self.layers.limits.floor > free:
            raise Later(
                f"the image needs {wanted >> 20} MiB; {self.content.root} has {free >> 20} MiB free"
            )

    async def _manifest_bytes(self, reference: Reference, digest: str, given: bytes = b"") -> bytes:
        data = self.content.read_blob(digest, MAX_MANIFEST)
        if data is None:
            data = given or await self._fetched_manifest(reference, digest)
            if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
                raise Later(f"the registry {reference.host} sent another manifest than asked for")
            parse_manifest(data)  # refuse before keeping it
            self.content.put_blob(data)
        return data

    async def _fetched_manifest(self, reference: Reference, digest: str) -> bytes:
        """Return a manifest from another node, else from the registry."""
        if (found := await self.peers.manifest(digest)) is not None:
            if f"sha256:{hashlib.sha256(found[0]).hexdigest()}" == digest:
                return found[0]
            log.warning("a node gave a wrong manifest", extra={"digest": digest})
        try:
            return await self.registry.manifest(reference, digest)
        except (Later, Refusal) as error:
            if not self.peers.known:
                raise
            raise type(error)(f"no other node gives it, and {error}") from None

    async def _finish(
        self,
        digest: str,
        own: str,
        stage: Path | None = None,
        source: BlobSource | None = None,
    ) -> None:
        """Verify and unpack everything the manifest ``own`` names, then write the record.

        Blobs that the store does not have are fetched from ``source`` by way of ``stage``.
        """
        data = self.content.read_blob(own, MAX_MANIFEST)
        parsed = parse_manifest(data) if data else None
        if not isinstance(parsed, Manifest):
            raise DamagedBlob(own)
        config = await self._stored_config(parsed, own, stage, source)
        jobs = list(zip(parsed.layers, config.diff_ids, strict=True))
        try:
            async with asyncio.TaskGroup() as group:
                for blob, diff_id in dict.fromkeys(jobs):
                    group.create_task(self._layer(blob, diff_id, stage, source))
        except ExceptionGroup as errors:
            raise _first(errors) from None
        self.rootfs.check(config.diff_ids)
        done = [self.layers.done(diff_id) for diff_id in set(config.diff_ids)]
        self.content.set_record(
            ImageRecord(
                digest=digest,
                manifest=own,
                config=parsed.config.digest,
                blobs=tuple(blob.digest for blob in parsed.layers),
                diff_ids=config.diff_ids,
                created=config.created,
                size=sum(item.bytes for item in done if item),
            )
        )
        self._threads.submit(self._make_durable, config.diff_ids)

    def _make_durable(self, diff_ids: tuple[str, ...]) -> None:
        try:
            self.layers.make_durable(diff_ids)
        except OSError as error:
            # They stay usable during this boot and are unpacked again after the next.
            log.warning("layers could not be written to disk", extra={"error": str(error)})

    async def _stored_config(
        self, manifest: Manifest, own: str, stage: Path | None, source: BlobSource | None
    ) -> ImageDocument:
        blob = manifest.config
        if blob.size > MAX_CONFIG:
            raise Refusal(f"the image's config has {blob.size} bytes; the limit is {MAX_CONFIG}")
        data = self.content.read_blob(blob.digest, MAX_CONFIG)
        if data is None and stage is not None and source is not None:
            path = stage / "config"
            await source.get(blob, path)
            data = path.read_bytes()
            if f"sha256:{hashlib.sha256(data).hexdigest()}" != blob.digest:
                raise DamagedBlob(blob.digest)
            config = parse_config(data, own, len(manifest.layers))  # refuse before keeping it
            self.content.put_blob(data)
            return config
        if data is None:
            raise DamagedBlob(blob.digest)
        return parse_config(data, own, len(manifest.layers))

    async def _layer(
        self, blob: Blob, diff_id: str, stage: Path | None, source: BlobSource | None
    ) -> None:
        """Make one layer usable and its blob verified and stored, hashing each byte once."""
        stored = self.content.blob(blob.digest)
        path = stored
        if not stored.exists() and stage is not None and source is not None:
            path = stage / stored.name
            await source.get(blob, path)
        try:
            sound = path.stat().st_size == blob.size
            if sound and not self.layers.done(diff_id):
                await self.layers.unpack(path, blob.digest, diff_id)
            elif sound and path is not stored:
                sound = await self._call(hash_file, path) == blob.digest
        except (FileNotFoundError, DamagedBlob):
            sound = False
        if not sound:
            path.unlink(missing_ok=True)
            raise DamagedBlob(blob.digest)
        if path is not stored:
            self.content.adopt_blob(path, blob.digest)

    async def _call(self, function: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
        call = functools.partial(function, *arguments, **more)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _mounting(self, function: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
        call = functools.partial(function, *arguments, **more)
        return await asyncio.get_running_loop().run_in_executor(self.rootfs.thread, call)


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """Return the one error worth telling: a refusal before a damage before the rest."""
    flat: list[Exception] = []

    def walk(group: ExceptionGroup[Exception]) -> None:
        for error in group.exceptions:
            if isinstance(error, ExceptionGroup):
                walk(error)
            else:
                flat.append(error)

    walk(errors)
    for kind in (Refusal, DamagedBlob, Later):
        for error in flat:
            if isinstance(error, kind):
                return error
    return flat[0]
