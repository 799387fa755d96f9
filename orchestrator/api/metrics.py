"""Figures over HTTP, as Prometheus reads them: the controller's own, and each node's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.errors import Unavailable
from specs.kit import metrics

if TYPE_CHECKING:
    from orchestrator.api.routes import ApiParts


async def own(parts: ApiParts, _request: web.Request, _: None) -> web.Response:
    return _answer(metrics.text([*parts.figures(), *metrics.process()]))


async def node(parts: ApiParts, request: web.Request, _: None) -> web.Response:
    """Pass on what a node's agent says; the time is ours beside its own, to compare clocks."""
    member = parts.nodes.find(request.match_info["name"])
    if parts.node_figures is None:
        raise Unavailable("this controller has no agents to ask")
    began = parts.clock.wall()
    said = await parts.node_figures(member.id)
    middle = (began + parts.clock.wall()) / 2
    ours = metrics.gauge("corral_asked_seconds", "The controller's clock meanwhile", middle)
    return _answer(said + metrics.text([ours]))


def _answer(text: str) -> web.Response:
    return web.Response(body=text.encode(), headers={"Content-Type": metrics.CONTENT_TYPE})
