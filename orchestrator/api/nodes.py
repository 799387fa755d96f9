"""Nodes over HTTP. Adding a machine by SSH is a part of its own that is handed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.api import rows, streams
from orchestrator.api.answers import NodeRows
from orchestrator.api.routes import flag
from orchestrator.errors import Unavailable
from specs.api import ClusterRanges

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from specs.api import AddNode, ExtendCluster, NodeDetail, NodeRow, PatchNode, Upgrade

CONTACT = 15.0  # seconds: a host key to be confirmed is a question, not a stream that ended


async def nodes(parts: ApiParts, _request: web.Request, _: None) -> NodeRows:
    now = parts.clock.wall()
    found = [rows.node_row(parts.cluster, node, now=now) for node in parts.cluster.nodes.values()]
    found.sort(key=lambda row: row.name)
    why = parts.superseded()
    return NodeRows(nodes=tuple(found), undecided=why, warnings=parts.warnings)


async def node(parts: ApiParts, request: web.Request, _: None) -> NodeDetail:
    return rows.node_detail(
        parts.cluster, parts.nodes.find(request.match_info["name"]), now=parts.clock.wall()
    )


async def add(parts: ApiParts, request: web.Request, body: AddNode) -> web.StreamResponse:
    if parts.add_node is None:
        raise Unavailable(
            "this controller cannot add machines: it was started without SSH",
            hint="corral version shows what it can do",
        )
    return await streams.respond(request, parts.add_node(body), detached=True, first=CONTACT)


async def upgrade(parts: ApiParts, request: web.Request, body: Upgrade) -> web.StreamResponse:
    if parts.upgrade is None:
        raise Unavailable("this controller cannot upgrade machines: it was started without SSH")
    # Not detached: who stops the command has no further node touched. The one under way ends by
    # itself, as the old or as the new version.
    return await streams.respond(request, parts.upgrade(body), first=CONTACT)


async def patch(parts: ApiParts, request: web.Request, body: PatchNode) -> NodeRow:
    changed = await parts.nodes.update(
        request.match_info["name"],
        labels=body.labels,
        availability=body.availability,
        underlay=body.underlay,
    )
    return rows.node_row(parts.cluster, changed, now=parts.clock.wall())


async def extend(parts: ApiParts, _request: web.Request, body: ExtendCluster) -> ClusterRanges:
    return ClusterRanges(ranges=await parts.control.extend(body.range))


async def remove(parts: ApiParts, request: web.Request, _: None) -> web.StreamResponse:
    found = parts.nodes.find(request.match_info["name"])
    take_out = parts.remove_node or parts.nodes.remove
    source = take_out(found.name, force=flag(request, "force"))
    return await streams.respond(request, source, detached=True)
