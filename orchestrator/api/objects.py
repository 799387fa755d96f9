"""Networks, volumes, secrets and configs over HTTP: lists, one of them, make, remove."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

from orchestrator.errors import Conflict, NotFound

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from specs.objects import (
        ContentRow,
        ContentRows,
        CreateContent,
        CreateNetwork,
        CreateVolume,
        DroppedObject,
        MadeObject,
        MoveVolume,
        NetworkRow,
        NetworkRows,
        VolumeRow,
        VolumeRows,
    )

GOING = 10.0  # seconds a volume's data may take to go before its record says that it is going
LOOK = 0.05


async def networks(parts: ApiParts, _request: web.Request, _: None) -> NetworkRows:
    return parts.control.networks()


async def network(parts: ApiParts, request: web.Request, _: None) -> NetworkRow:
    name = request.match_info["name"]
    for row in parts.control.networks().networks:
        if name in (row.name, row.id):
            return row
    raise NotFound(f"there is no network {name}", hint="corral network ls shows what there is")


async def make_network(parts: ApiParts, _request: web.Request, body: CreateNetwork) -> MadeObject:
    return await parts.control.make(body)


async def drop_network(parts: ApiParts, request: web.Request, _: None) -> DroppedObject:
    return await parts.control.drop("network", request.match_info["name"])


async def volumes(parts: ApiParts, _request: web.Request, _: None) -> VolumeRows:
    return parts.control.volumes()


async def volume(parts: ApiParts, request: web.Request, _: None) -> VolumeRow:
    name = request.match_info["name"]
    row = volume_row(parts, name)
    if row is None:
        raise NotFound(f"there is no volume {name}", hint="corral volume ls shows what there is")
    return row


def volume_row(parts: ApiParts, name: str) -> VolumeRow | None:
    """Return a volume as lists have it, or None."""
    return next((row for row in parts.control.volumes().volumes if row.name == name), None)


async def make_volume(parts: ApiParts, _request: web.Request, body: CreateVolume) -> MadeObject:
    return await parts.control.make(body)


async def drop_volume(parts: ApiParts, request: web.Request, _: None) -> DroppedObject:
    """Have a volume go; answer when its data has, or why it has not yet."""
    dropped = await parts.control.drop("volume", request.match_info["name"])
    left = None
    for _look in range(round(GOING / LOOK)):
        left = volume_row(parts, dropped.name)
        if left is None or not left.removing:
            return dropped
        if "does not answer" in left.reason:
            break
        await asyncio.sleep(LOOK)
    return dropped.model_copy(update={"left": left.reason if left is not None else ""})


async def move_volume(parts: ApiParts, request: web.Request, body: MoveVolume) -> VolumeRow:
    """Begin, take back or confirm a volume's move, or go back; answer with how it is then."""
    await parts.control.move(request.match_info["name"], body)
    return await volume(parts, request, None)


async def secrets(parts: ApiParts, _request: web.Request, _: None) -> ContentRows:
    return parts.control.contents(secret=True)


async def configs(parts: ApiParts, _request: web.Request, _: None) -> ContentRows:
    return parts.control.contents(secret=False)


async def secret(parts: ApiParts, request: web.Request, _: None) -> ContentRow:
    return _content(parts, request, secret=True)


async def config(parts: ApiParts, request: web.Request, _: None) -> ContentRow:
    row = _content(parts, request, secret=False)
    data = base64.b64encode(parts.control.config_data(row.id)).decode()
    return row.model_copy(update={"data": data})


def _content(parts: ApiParts, request: web.Request, *, secret: bool) -> ContentRow:
    name, what = request.match_info["name"], "secret" if secret else "config"
    rows = parts.control.contents(secret=secret).contents
    found = [row for row in rows if name in (row.name, row.id)]
    if not found:
        raise NotFound(f"there is no {what} {name}", hint=f"corral {what} ls shows what there is")
    return min(found, key=lambda row: bool(row.stack))  # what was made by hand comes first


async def make_secret(parts: ApiParts, _request: web.Request, body: CreateContent) -> MadeObject:
    return await _make_content(parts, body, secret=True)


async def make_config(parts: ApiParts, _request: web.Request, body: CreateContent) -> MadeObject:
    return await _make_content(parts, body, secret=False)


async def _make_content(parts: ApiParts, body: CreateContent, *, secret: bool) -> MadeObject:
    if body.secret is not secret:
        raise Conflict("the body says the other kind than the path")
    return await parts.control.make(body)


async def drop_secret(parts: ApiParts, request: web.Request, _: None) -> DroppedObject:
    return await parts.control.drop("secret", request.match_info["name"])


async def drop_config(parts: ApiParts, request: web.Request, _: None) -> DroppedObject:
    return await parts.control.drop("config", request.match_info["name"])
