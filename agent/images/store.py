"""The node's images: the store the runner and the agent's API talk to (agent.seams.Images).

An image is complete when its record is written, which happens last: manifest, config and
layers are all there, every digest checked. ``ensure`` of a complete image touches no
registry; a damaged one is repaired from its own blobs or fetched again. The order is always
blobs, layers, record, name, so that a kill at any instant leaves nothing half made in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from agent.images.build import Builder
from agent.images.collect import collect
from agent.images.content import Content, Record, Ref, hash_file
from agent.images.layers import DamagedBlob, Layers, Limits
from agent.images.manifest import (
    MAX_CONFIG,
    MAX_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Blob,
    Config,
    Index,
    Manifest,
    host_platform,
    parse_config,
    parse_manifest,
)
from agent.images.pull import Registry
from agent.images.reference import Reference, check_digest, parse
from agent.images.rootfs import RootFs
from agent.seams import ImageConfig, Later, Refusal
from specs.base import canonical_json
from specs.wire import ImageInfo, ResolvedImage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from specs.wire import BuildEvent, BuildImage, ResolveImage

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
_PACKED: Final = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}
_ATTEMPTS: Final = 2  # a damaged blob is fetched once more before giving up


class ImageStore:
    """Content-addressed images of this node and the root file systems made of them."""

    def __init__(
        self,
        state_dir: Path,
        run_dir: Path,
        *,
        limits: Limits | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.content = Content(state_dir / "images")
        self.layers = Layers(self.content, limits or Limits())
        self.rootfs = RootFs(self.content, self.layers, run_dir)
        self.environment = dict(os.environ if environment is None else environment)
        self.registry = Registry(self.environment)
        self._threads = ThreadPoolExecutor(4, "images")
        self._locks: dict[str, asyncio.Lock] = {}
        self._known: dict[str, ImageConfig] = {}
        self.content.clean_staging()

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
        return Builder(self).build(request)

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
        return await self._call(collect, self.content, self.layers, self.rootfs, keep, named)

    # adding images

    async def add(self, name: str, archive: Path, config: Mapping[str, object]) -> str:
        """Make a one-layer image of a root file system's tar archive and name it."""
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
            full = dict(config) | {"rootfs": {"type": "layers", "diff_ids": [diff_id]}}
            manifest = self.content.put_blob(self._manifest(full, layers))
            await self._finish(manifest, manifest)
            self.content.set_ref(Ref(reference.name, manifest, "imported"))
        return manifest

    async def has(self, name: str, labels: Mapping[str, str]) -> bool:
        """Say whether a name stands for a complete image with these labels."""
        digest = self._local(parse(name))
        if not digest or not self._complete(digest):
            return False
        return labels.items() <= self._config(digest).labels.items()

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

    async def adopt(self, directory: Path, name: str, source: str) -> str:
        """Take over an image in skopeo's ``dir:`` layout and name it; returns its digest."""
        manifest = (directory / "manifest.json").read_bytes()
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        with self.content.using():
            self.content.put_blob(manifest)
            await self._finish(digest, digest, directory)
            self.content.set_ref(Ref(parse(name).name, digest, source))
        return digest

    # inside

    def _local(self, reference: Reference) -> str:
        """Return the digest a reference means on this node, or ""."""
        if reference.digest:
            return reference.digest
        ref = self.content.ref(reference.name)
        return ref.digest if ref else ""

    def _complete(self, digest: str) -> Record | None:
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
        if not lock.locked():
            self._locks.pop(digest, None)

    async def _assemble(self, reference: Reference, digest: str, manifest: bytes) -> None:
        data = await self._manifest_bytes(reference, digest, manifest)
        parsed, own = parse_manifest(data), digest
        if isinstance(parsed, Index):
            own = parsed.choose(host_platform()).digest
            parsed = parse_manifest(await self._manifest_bytes(reference, own))
        if isinstance(parsed, Index):
            raise Refusal(f"image {reference.familiar}: an index inside an index is not supported")
        with self.content.stage() as stage:
            wanted = {parsed.config.digest, *(layer.digest for layer in parsed.layers)}
            missing = [item for item in wanted if not self.content.has_blob(item)]
            if missing:
                for item in wanted.difference(missing):  # skopeo fetches only what is not there
                    (stage / item.removeprefix("sha256:")).hardlink_to(self.content.blob(item))
                await self.registry.fetch(reference, own, stage)
            await self._finish(digest, own, stage)

    async def _manifest_bytes(self, reference: Reference, digest: str, given: bytes = b"") -> bytes:
        data = self.content.read_blob(digest, MAX_MANIFEST)
        if data is None:
            data = given or await self.registry.manifest(reference, digest)
            if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
                raise Later(f"the registry {reference.host} sent another manifest than asked for")
            parse_manifest(data)  # refuse before keeping it
            self.content.put_blob(data)
        return data

    async def _finish(self, digest: str, own: str, directory: Path | None = None) -> None:
        """Verify and unpack everything the manifest ``own`` names, then write the record.

        Blobs come from ``directory`` (hex names) or are in the store already.
        """
        data = self.content.read_blob(own, MAX_MANIFEST)
        parsed = parse_manifest(data) if data else None
        if not isinstance(parsed, Manifest):
            raise DamagedBlob(own)
        config = self._stored_config(parsed, own, directory)
        jobs = list(zip(parsed.layers, config.diff_ids, strict=True))
        try:
            async with asyncio.TaskGroup() as group:
                for blob, diff_id in dict.fromkeys(jobs):
                    group.create_task(self._layer(blob, diff_id, directory))
        except ExceptionGroup as errors:
            raise _first(errors) from None
        self.rootfs.check(config.diff_ids)
        done = [self.layers.done(diff_id) for diff_id in set(config.diff_ids)]
        self.content.set_record(
            Record(
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

    def _stored_config(self, manifest: Manifest, own: str, directory: Path | None) -> Config:
        blob = manifest.config
        data = self.content.read_blob(blob.digest, MAX_CONFIG)
        if data is None and directory is not None:
            with contextlib.suppress(FileNotFoundError):
                path = directory / blob.digest.removeprefix("sha256:")
                if path.stat().st_size > MAX_CONFIG:
                    raise Refusal(f"the image's config is larger than {MAX_CONFIG} bytes")
                data = path.read_bytes()
                if f"sha256:{hashlib.sha256(data).hexdigest()}" != blob.digest:
                    raise DamagedBlob(blob.digest)
                self.content.put_blob(data)
        if data is None:
            raise DamagedBlob(blob.digest)
        return parse_config(data, own, len(manifest.layers))

    async def _layer(self, blob: Blob, diff_id: str, directory: Path | None) -> None:
        """Make one layer usable and its blob verified and stored, hashing each byte once."""
        stored = self.content.blob(blob.digest)
        staged = directory / stored.name if directory else stored
        fresh = staged.exists() and not stored.exists()
        path = staged if fresh else stored
        try:
            if path.stat().st_size != blob.size:
                raise DamagedBlob(blob.digest)
            if not self.layers.done(diff_id):
                await self.layers.unpack(path, blob.digest, diff_id)
            elif fresh and await self._call(hash_file, path) != blob.digest:
                raise DamagedBlob(blob.digest)
            if fresh:
                self.content.adopt_blob(path, blob.digest)
        except FileNotFoundError:
            raise DamagedBlob(blob.digest) from None
        except DamagedBlob:
            path.unlink(missing_ok=True)
            raise

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
