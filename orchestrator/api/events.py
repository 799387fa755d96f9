"""Events over HTTP: what is kept, and what comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.api import streams
from orchestrator.api.routes import flag, number
from orchestrator.contracts import EventQuery
from orchestrator.errors import Invalid
from specs.events import FILTERS

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from specs.why import Why


async def events(parts: ApiParts, request: web.Request, _: None) -> web.StreamResponse:
    """Stream them; who asks for nothing of the past gets what comes."""
    tail = number(request, "tail")
    query = EventQuery(
        stack=request.query.get("stack"),
        history=flag(request, "history"),
        follow=flag(request, "follow") if "follow" in request.query else True,
        since=number(request, "since"),
        until=number(request, "until"),
        tail=int(tail) if tail is not None else None,
        filters=filters(request.query.getall("filter", [])),
    )
    return await streams.respond(request, parts.control.events(query))


async def why(parts: ApiParts, request: web.Request, _: None) -> Why:
    """Say why something is as it is."""
    return await parts.control.why(request.match_info["name"], request.query.get("stack", ""))


def filters(given: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the filters of a request. Raises Invalid for a word that is none."""
    found: dict[str, tuple[str, ...]] = {}
    for one in given:
        word, mark, value = one.partition("=")
        if not mark or word not in FILTERS:
            known = ", ".join(sorted(FILTERS))
            raise Invalid(
                detail=f"{one!r} is no filter of events",
                hint=f"WORD=VALUE, where WORD is one of {known}; of one word any value counts",
            )
        found[word] = (*found.get(word, ()), value)
    return found
