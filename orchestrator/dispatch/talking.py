"""A session's connections to one agent, and their end.

One place makes them, so that what is read of an agent always ends with them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import aiohttp

from orchestrator.dispatch.agent import AgentClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.dispatch.instructions import Spelled


@contextlib.asynccontextmanager
async def talking(
    connector: aiohttp.BaseConnector, name: str, spelled: Spelled | None = None
) -> AsyncIterator[AgentClient]:
    """Yield what talks to the agent that the connector's connections end at.

    At the end whatever is read still is broken off. The connector is the transport's to close:
    that may be a line that is cut.
    """
    async with aiohttp.ClientSession(
        "http://agent",
        connector=connector,
        connector_owner=False,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as http:
        client = AgentClient(http, name, spelled)
        try:
            yield client
        finally:
            client.end()
