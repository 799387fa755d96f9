"""What became of a stack's releases over HTTP: their list, and what differs between two.

Answered for a stack that `down` took away, too: its releases are kept until `down -v`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.api.routes import number
from orchestrator.control.mirror.released import spec_of
from orchestrator.control.telling import history as telling
from orchestrator.errors import NotFound
from specs.history import Diff, HistoryRow, ReleaseHistory
from specs.kit.amounts import runs

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from specs.api import Release


async def history(parts: ApiParts, request: web.Request, _: None) -> ReleaseHistory:
    releases = kept(parts, request)
    stack = request.match_info["stack"]
    service = request.query.get("service", "")
    if service:
        telling.check_known(parts.cluster, stack, releases, (service,))
    limit = number(request, "limit")
    found: list[HistoryRow] = []
    for row in telling.rows(parts.cluster, stack, service):
        if limit is not None and len(found) >= limit:
            break
        found.append(row)
        await asyncio.sleep(0)  # each is a turn of its own
    return ReleaseHistory(releases=tuple(found), stack=stack, present=stack in parts.cluster.stacks)


async def diff(parts: ApiParts, request: web.Request, _: None) -> Diff:
    """Compare ``before`` with ``after``; with what runs, where only one is named; else the last."""
    releases = kept(parts, request)
    stack = request.match_info["stack"]
    first, second = number(request, "before"), number(request, "after")
    record = parts.cluster.stacks.get(stack)
    if first is None:
        if len(releases) < 2:
            raise NotFound(
                f"there is only release {releases[0].number} of {stack}: nothing to compare it with"
            )
        return await compared(parts, releases[1], releases[0])
    before = release(parts, stack, int(first))
    running = record.running if record is not None else 0
    after = release(parts, stack, int(second or running or releases[0].number))
    return await compared(parts, before, after)


async def compared(parts: ApiParts, before: Release, after: Release) -> Diff:
    """Compare beside the loop: of a large stack that takes a tenth of a second."""
    return await asyncio.to_thread(telling.diff, parts.cluster, before, after)


def kept(parts: ApiParts, request: web.Request) -> list[Release]:
    """Return the releases of the stack the path names, the newest first. Raises NotFound."""
    name = request.match_info["stack"]
    found = telling.releases_of(parts.cluster, name)
    if not found:
        hint = "corral ls shows the stacks there are; corral up -d makes the one of this folder"
        raise NotFound(f"there is no stack {name}", hint=hint)
    return found


def release(parts: ApiParts, stack: str, wanted: int) -> Release:
    """Return a release whose spec is there. Raises NotFound."""
    found = parts.cluster.releases.get((stack, wanted))
    if found is None or spec_of(parts.cluster, found) is None:
        numbers = runs(r.number for r in telling.releases_of(parts.cluster, stack))
        spans = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in numbers)
        raise NotFound(
            f"there is no release {wanted} of {stack}",
            hint=f"kept are {spans}: corral history",
        )
    return found
