"""Make an image complete: its blobs verified and unpacked, its record written last.

Called by the store for what a registry, another node or an archive brings, and by the
builder for what buildah made; only here is a record written. The order is always blobs,
layers, record, name, so that a kill at any instant leaves nothing half made in use. It
decides nothing about names and pull policies: that is the store's.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import shutil
import weakref
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from agent.errors import Later, NoRoom, Refusal
from agent.images.content import ImageFiles, ImageRecord, Ref, hash_file
from agent.images.layers import DamagedBlob, LayerStore
from agent.images.manifest import (
    MAX_CONFIG,
    MAX_MANIFEST,
    Blob,
    BlobSource,
    ImageDocument,
    Index,
    Manifest,
    host_platform,
    parse_config,
    parse_manifest,
)
from agent.images.reference import Reference, digest_of, parse
from specs.kit import cancelled

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from pathlib import Path

    from agent.images.peers import PeerImages
    from agent.images.pull import Registry
    from agent.images.rootfs import RootFs

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
_ATTEMPTS: Final = 2  # a damaged blob is fetched once more before giving up


class Assembly:
    """Puts images of one store together."""

    def __init__(
        self,
        content: ImageFiles,
        layers: LayerStore,
        rootfs: RootFs,
        registry: Registry,
        peers: PeerImages,
        threads: Executor,
    ) -> None:
        self.content = content
        self._layers = layers
        self._rootfs = rootfs
        self._registry = registry
        self._peers = peers
        self._threads = threads
        self._arriving: dict[str, tuple[Path, list[Blob]]] = {}  # name -> stage, what it lacks
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def adopt(self, manifest: bytes, name: str, origin: str, source: BlobSource) -> str:
        """Take over an image whose blobs ``source`` has, and name it; returns its digest."""
        with self.content.using(), self.content.stage() as stage:
            digest = await self._off(self.content.put_blob, manifest)
            await self.finish(digest, digest, stage, source)
            await self.name(name, digest, origin)
        return digest

    async def name(self, name: str, digest: str, origin: str) -> None:
        """Let a name stand for a complete image."""
        await self._off(self.content.set_ref, Ref(parse(name).name, digest, origin))

    def packed(self) -> dict[str, Blob]:
        """Return, by diffID, the blobs of layers as they came. Blocks: it reads every manifest."""
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

    def complete(self, digest: str) -> ImageRecord | None:
        """Return the image's record while every one of its layers is usable."""
        record = self.content.record(digest)
        if record and all(self._layers.done(diff_id) for diff_id in record.diff_ids):
            return record
        return None

    def transfer(self, name: str) -> tuple[int, int]:
        """Return how many bytes of an image have arrived and how many it lacked; (0, 0) = none."""
        stage, blobs = self._arriving.get(name, (None, []))
        if stage is None:
            return 0, 0
        done = 0
        for blob in blobs:
            for path in (
                stage / self.content.blob(blob.digest).name,
                self.content.blob(blob.digest),
            ):
                with contextlib.suppress(OSError):
                    done += min(path.stat().st_size, blob.size)
                    break
        return done, sum(blob.size for blob in blobs)

    async def obtain(self, reference: Reference, digest: str, manifest: bytes = b"") -> None:
        """Make an image complete from our own blobs or the registry; one at a time a digest."""
        lock = self._locks.setdefault(digest, asyncio.Lock())
        async with lock:
            for attempt in range(_ATTEMPTS):
                if self.complete(digest):
                    break
                try:
                    with self.content.using():
                        await self._assemble(reference, digest, manifest)
                    break
                except Refusal as refusal:
                    if refusal.named:
                        raise
                    raise Refusal(f"image {reference.familiar}: {refusal}", named=True) from None
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
            text = f"image {reference.familiar}: an index inside an index is not supported"
            raise Refusal(text, named=True)
        with self.content.stage() as stage:
            blobs = (parsed.config, *parsed.layers)
            missing = [blob for blob in blobs if not self.content.has_blob(blob.digest)]
            if not missing:
                await self.finish(digest, own)
                return
            self._room(sum(blob.size for blob in missing))
            self._arriving[reference.name] = (stage, missing)
            try:
                await self._fetch(reference, digest, own, stage)
            finally:
                self._arriving.pop(reference.name, None)

    async def _fetch(self, reference: Reference, digest: str, own: str, stage: Path) -> None:
        """Fetch what is missing from another node, else from the registry."""
        if (found := await self._peers.manifest(own)) is not None:
            try:
                await self.finish(digest, own, stage, found[1])
            except (Later, DamagedBlob) as error:
                log.info("fetching from the registry instead", extra={"error": str(error)})
            else:
                return
        async with self._registry.source(reference, own) as source:
            await self.finish(digest, own, stage, source)

    def _room(self, wanted: int) -> None:
        """Refuse to start what cannot end: the packed blobs alone must fit."""
        free = shutil.disk_usage(self.content.root).free
        if wanted + self._layers.limits.floor > free:
            floor = self._layers.limits.floor >> 20
            raise NoRoom(
                f"the image needs {wanted >> 20} MiB, and {floor} are left free; "
                f"{self.content.root} has {free >> 20} MiB free"
            )

    async def _manifest_bytes(self, reference: Reference, digest: str, given: bytes = b"") -> bytes:
        data = self.content.read_blob(digest, MAX_MANIFEST)
        if data is None:
            data = given or await self._fetched_manifest(reference, digest)
            if digest_of(data) != digest:
                raise Later(f"the registry {reference.host} sent another manifest than asked for")
            parse_manifest(data)  # refuse before keeping it
            await self._off(self.content.put_blob, data)
        return data

    async def _fetched_manifest(self, reference: Reference, digest: str) -> bytes:
        """Return a manifest from another node, else from the registry."""
        if (found := await self._peers.manifest(digest)) is not None:
            if digest_of(found[0]) == digest:
                return found[0]
            log.warning("a node gave a wrong manifest", extra={"digest": digest})
        try:
            return await self._registry.manifest(reference, digest)
        except (Later, Refusal) as error:
            if not self._peers.known:
                raise
            raise type(error)(f"no other node gives it, and {error}") from None

    async def finish(
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
        group = asyncio.TaskGroup()
        try:
            async with group:
                for blob, diff_id in dict.fromkeys(jobs):
                    group.create_task(self._layer(blob, diff_id, stage, source))
        except ExceptionGroup as errors:
            cancelled.settle(group)  # another source is tried next, with timeouts of its own
            raise _first(errors) from None
        self._rootfs.check(config.diff_ids)
        done = [self._layers.done(diff_id) for diff_id in set(config.diff_ids)]
        await self._off(
            self.content.set_record,
            ImageRecord(
                digest=digest,
                manifest=own,
                config=parsed.config.digest,
                blobs=tuple(blob.digest for blob in parsed.layers),
                diff_ids=config.diff_ids,
                created=config.created,
                size=sum(item.bytes for item in done if item),
            ),
        )
        self._threads.submit(self._make_durable, config.diff_ids)

    def _make_durable(self, diff_ids: tuple[str, ...]) -> None:
        try:
            self._layers.make_durable(diff_ids)
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
            if digest_of(data) != blob.digest:
                raise DamagedBlob(blob.digest)
            config = parse_config(data, own, len(manifest.layers))  # refuse before keeping it
            await self._off(self.content.put_blob, data)
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
            if sound and not self._layers.done(diff_id):
                await self._layers.unpack(path, blob.digest, diff_id)
            elif sound and path is not stored:
                sound = await self._hashed(path) == blob.digest
        except (FileNotFoundError, DamagedBlob):
            sound = False
        if not sound:
            path.unlink(missing_ok=True)
            raise DamagedBlob(blob.digest)
        if path is not stored:
            await self._off(self.content.adopt_blob, path, blob.digest)

    async def _hashed(self, path: Path) -> str:
        return await self._off(hash_file, path)

    async def _off(self, function: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
        """Call what waits for the disk (an fsync may take a second) beside the event loop."""
        call = functools.partial(function, *arguments, **more)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


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
