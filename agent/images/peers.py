"""Nodes give each other their images: mutual TLS on the overlay address, nothing else.

A node that misses an image asks its peers before any registry, so what was built or pulled
on one node reaches the others without one. The server speaks the read half of the OCI
distribution API, by digest only, to members of the cluster only (certificates of the
cluster's authority); containers reach neither the port nor pass the handshake. Peers are
not trusted with content: every byte is hashed here, and again by the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import random
import re
import socket
import ssl
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import web

from agent.errors import Later
from agent.images.manifest import MAX_MANIFEST
from agent.images.reference import DIGEST, digest_of
from specs.kit.callers import Callers, Encrypted, answering
from specs.wire import BLOB_PORT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from pathlib import Path

    from agent.identity import Identity
    from agent.images.content import ImageFiles
    from agent.images.manifest import Blob
    from specs.wire import NodeSelf, Peer

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)

ASK_SECONDS: Final = 3.0  # for "do you have it": a peer that is gone must not hold us up
STALL_SECONDS: Final = 30.0
_ANSWER: Final = 256  # bytes, of whether a member has a controller
_CHUNK: Final = 128 << 10  # encrypted on the loop at a time: 1 MiB took it 50 ms
_MOST_CALLERS: Final = 256  # nodes that ask at once, and who pretends to
_AT_ONCE: Final = 4  # blobs served at the same time: the node has other work
_IP_FREEBIND: Final = 15
_MEDIA: Final = re.compile(r"^application/[A-Za-z0-9.+-]+$")


class PeerImages:
    """Serves this node's blobs and fetches from the other nodes."""

    def __init__(self, content: ImageFiles, identity: Identity) -> None:
        self._content = content
        self._identity = identity
        self._peers: dict[str, Peer] = {}
        self._me: NodeSelf | None = None
        self._vouch: Callable[[], bool] | None = None  # whether this node has no controller
        self._runner: web.AppRunner | None = None
        self._door: asyncio.Server | None = None
        self._session: aiohttp.ClientSession | None = None
        self._trust: ssl.SSLContext | None = None  # one until the certificate is another
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._rng = random.Random()  # noqa: S311 - spreads load, guards nothing

    async def signing_request(self) -> str:
        """Return the signing request for this node's key."""
        return await self._identity.signing_request()

    async def meet(self, me: NodeSelf, peers: Mapping[str, Peer]) -> None:
        """Take note of who is in the cluster; serve on our overlay address."""
        self._peers = dict(peers)
        renewed = False
        if self._me is None or not _same_papers(self._me, me) or not self._identity.complete:
            renewed = await asyncio.to_thread(self._identity.accept, me)  # it writes onto a disk
        if renewed:
            self._trust = None
        moved = self._me is None or self._me.overlay != me.overlay
        self._me = me
        if not self._identity.complete or not me.overlay:
            return
        if renewed or moved or self._runner is None:
            await self._serve(me.overlay)

    @property
    def known(self) -> bool:
        """Whether there is any other node."""
        return bool(self._peers)

    async def without_controller(self, nodes: Collection[str]) -> frozenset[str]:
        """Return those of these nodes that answer, and say that they have no controller."""
        peers = [peer for node in nodes if (peer := self._peers.get(node)) and peer.overlay]
        if not self._identity.complete:
            return frozenset()
        async with asyncio.TaskGroup() as group:
            asked = {
                peer.node: group.create_task(self._has_none(peer), name=f"ask-{peer.name}")
                for peer in peers
            }
        return frozenset(node for node, task in asked.items() if task.result())

    async def _has_none(self, peer: Peer) -> bool:
        try:
            async with asyncio.timeout(ASK_SECONDS), self._get(peer, "controller") as answer:
                data = await answer.content.read(_ANSWER)
                return answer.status == 200 and json.loads(data).get("none") is True
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, AttributeError):
            return False

    def answer_by(self, vouch: Callable[[], bool]) -> None:
        """Have members who ask be told whether this node has no controller."""
        self._vouch = vouch

    async def close(self) -> None:
        """End the server and the connections."""
        await self._shut()
        if self._session is not None:
            await self._session.close()
            self._session = None

    # Fetching

    async def manifest(self, digest: str) -> tuple[bytes, PeerSource] | None:
        """Return a manifest's bytes and who gives the rest; None when no peer has it.

        The first who has it decides: a peer that lost power does not hold up the others.
        """
        peers = [peer for peer in self._peers.values() if peer.overlay]
        if not peers or not self._identity.complete:
            return None
        self._rng.shuffle(peers)
        answers: asyncio.Queue[tuple[Peer, bytes | None]] = asyncio.Queue()

        async def ask(peer: Peer) -> None:
            data = None
            try:
                data = await self._asked(peer, digest)
            except Exception:  # whatever it sent, the others and the registry are there
                log.exception("a peer's answer cannot be read", extra={"node": peer.node})
            finally:
                answers.put_nowait((peer, data))

        lacking: set[str] = set()
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(ask(peer), name=f"ask-{peer.name}") for peer in peers]
            for _ in peers:
                peer, data = await answers.get()
                if data is not None:
                    for task in asking:
                        task.cancel()
                    # Who has not answered yet may have it as well, should the first break off.
                    others = [p for p in peers if p.node not in {*lacking, peer.node}]
                    return data, PeerSource(self, (peer, *others))
                lacking.add(peer.node)
        return None

    async def _asked(self, peer: Peer, digest: str) -> bytes | None:
        """Return the manifest that one peer gives; a wrong one is none."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with (
                asyncio.timeout(ASK_SECONDS),
                self._get(peer, f"manifests/{digest}") as answer,
            ):
                if answer.status != 200:
                    return None
                data = b""
                while len(data) <= MAX_MANIFEST and (more := await answer.content.read(_CHUNK)):
                    data += more  # one read gives what has arrived, not all
                if digest_of(data) == digest:
                    return data
                log.warning("a peer gave a wrong manifest", extra={"node": peer.node})
        return None

    def _get(self, peer: Peer, path: str) -> aiohttp.client._RequestContextManager:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit_per_host=3, keepalive_timeout=15.0),
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=ASK_SECONDS, sock_read=STALL_SECONDS
                ),
                auto_decompress=False,
            )
        if self._trust is None:
            # aiohttp takes a connection up again only for the same context object.
            self._trust = self._identity.context(ssl.Purpose.SERVER_AUTH)
        return self._session.get(
            f"https://{peer.overlay}:{BLOB_PORT}/v2/cluster/{path}",
            ssl=self._trust,
            server_hostname=peer.node,
        )

    async def fetch(self, peer: Peer, blob: Blob, path: Path) -> bool:
        """Write a blob to ``path``; False when this peer cannot give it."""
        try:
            async with self._get(peer, f"blobs/{blob.digest}") as answer:
                if answer.status != 200 or answer.content_length != blob.size:
                    return False
                # Hashed on the way: another peer is asked when this one's disk is damaged.
                digest = hashlib.sha256()
                with path.open("wb") as file:
                    async for chunk in answer.content.iter_chunked(_CHUNK):
                        await asyncio.to_thread(file.write, chunk)
                        digest.update(chunk)
                if f"sha256:{digest.hexdigest()}" == blob.digest:
                    return True
                log.warning("a peer gave wrong bytes", extra={"node": peer.node})
                return False
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            log.info("a peer broke off", extra={"node": peer.node, "error": str(error)})
            return False

    # Serving

    async def _serve(self, address: str) -> None:
        await self._shut()
        app = web.Application(middlewares=[self._members_only])
        app.router.add_get("/v2/", self._version)
        app.router.add_get("/v2/cluster/controller", self._controller)
        app.router.add_get("/v2/{name:.+}/manifests/{digest}", self._manifest)
        app.router.add_get("/v2/{name:.+}/blobs/{digest}", self._blob)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await runner.setup()
        door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # The address may be put on its device a moment later.
            door.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
            door.setblocking(False)  # noqa: FBT003 - the call has no other form
            door.bind((address, BLOB_PORT))
            await self._open(runner, door)
        except OSError as error:
            door.close()
            await runner.cleanup()
            log.warning("images cannot be served to other nodes", extra={"error": str(error)})
            return
        self._runner = runner

    async def _open(self, runner: web.AppRunner, door: socket.socket) -> None:
        context = self._identity.context(ssl.Purpose.CLIENT_AUTH)
        assert runner.server is not None
        callers = Callers(runner.server, most=_MOST_CALLERS, head=ASK_SECONDS)
        loop = asyncio.get_running_loop()
        self._door = await loop.create_server(lambda: Encrypted(callers, context), sock=door)

    async def _shut(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _members_only(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse whom the authority has not certified for long; strangers came not this far."""
        shown = request.transport.get_extra_info("peercert") if request.transport else None
        if why := self._identity.refuses(shown or {}):
            raise web.HTTPForbidden(text=why)
        with answering(request.protocol):
            return await handler(request)

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({})

    async def _controller(self, _request: web.Request) -> web.Response:
        return web.json_response({"none": self._vouch is not None and self._vouch()})

    async def _manifest(self, request: web.Request) -> web.Response:
        digest = request.match_info["digest"]
        data = None
        # Only complete images are offered: half of one would send a peer away from the registry.
        if DIGEST.fullmatch(digest) and self._offered(digest):
            data = await asyncio.to_thread(self._content.read_blob, digest, MAX_MANIFEST)
        if data is None:
            raise web.HTTPNotFound
        try:
            kind = str(json.loads(data).get("mediaType", ""))
        except (ValueError, AttributeError):
            kind = ""
        if not _MEDIA.fullmatch(kind):
            kind = "application/vnd.oci.image.manifest.v1+json"
        return web.Response(body=data, content_type=kind, headers={"Docker-Content-Digest": digest})

    def _offered(self, digest: str) -> bool:
        records = self._content.records()
        return any(digest in (record.digest, record.manifest) for record in records)

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        if not DIGEST.fullmatch(digest) or not self._content.has_blob(digest):
            raise web.HTTPNotFound
        path = self._content.blob(digest)
        async with self._slots:
            response = web.StreamResponse(headers={"Docker-Content-Digest": digest})
            response.content_type = "application/octet-stream"
            response.content_length = path.stat().st_size
            await response.prepare(request)
            try:
                with path.open("rb") as file:
                    while chunk := await asyncio.to_thread(file.read, _CHUNK):
                        async with asyncio.timeout(STALL_SECONDS):
                            await response.write(chunk)
            except TimeoutError:  # it takes nothing: others wait for its slot
                if request.transport is not None:
                    request.transport.abort()
            return response


class PeerSource:
    """Blobs from any of the peers that have the image (a BlobSource)."""

    def __init__(self, images: PeerImages, peers: tuple[Peer, ...]) -> None:
        self._images = images
        self._peers = peers

    async def get(self, blob: Blob, path: Path) -> None:
        """Write a blob to ``path``, whole. Raises Later when no peer gives it any more."""
        for peer in self._peers:
            if await self._images.fetch(peer, blob, path):
                return
        raise Later(f"the nodes that have {blob.digest[:19]} stopped giving it; trying again")


def _same_papers(one: NodeSelf, other: NodeSelf) -> bool:
    return (one.certificate, one.authority) == (other.certificate, other.authority)
