"""Requests of a machine outside the cluster that sends its files; sentfiles.py keeps them."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.api.sentfiles import refusal
from specs.api import ClientMachine
from specs.sent import MissingChunks, SentFolder

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from orchestrator.api.sentfiles import SentFiles
    from specs.sent import AskChunks, PutChunks, SentTree


def _files(parts: ApiParts) -> SentFiles:
    if parts.sent is None:
        raise refusal("this controller keeps no files of other machines")
    return parts.sent


def this_machine() -> ClientMachine:
    """Return the controller's machine as a command on it says who it is."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return ClientMachine(hostname=socket.gethostname(), boot_id=boot)
    return ClientMachine(hostname=socket.gethostname())


async def missing(parts: ApiParts, _request: web.Request, body: AskChunks) -> MissingChunks:
    found = await asyncio.to_thread(_files(parts).missing, body.chunks)
    return MissingChunks(missing=found)


async def put(parts: ApiParts, _request: web.Request, body: PutChunks) -> MissingChunks:
    await asyncio.to_thread(_files(parts).put, body.chunks)
    return MissingChunks(missing=())


async def tree(parts: ApiParts, _request: web.Request, body: SentTree) -> SentFolder:
    files = _files(parts)
    used = frozenset(
        part
        for spec in parts.cluster.parts.values()
        for service in spec.services.values()
        for mount in service.task.mounts
        for part in (mount.source or "").split("/")
        if mount.relative
    )
    path = await asyncio.to_thread(files.tree, body)
    await asyncio.to_thread(files.sweep, used | {path.name})
    return SentFolder(path=str(path), client=this_machine())
