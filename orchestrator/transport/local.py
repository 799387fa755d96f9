"""The agent on the controller's own machine: its unix socket, nothing in between."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import aiohttp

from orchestrator.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from specs.node import Node

CONNECTIONS = 512  # log followers, exec sessions and builds at once


class LocalTransport:
    """Serves nodes without an address; others need SSH (transport/ssh.py)."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    @contextlib.asynccontextmanager
    async def connect(self, node: Node) -> AsyncIterator[aiohttp.BaseConnector]:
        if node.address:
            raise Unavailable(f"node {node.name} is at {node.address}, not on this machine")
        connector = aiohttp.UnixConnector(path=str(self._socket), limit=CONNECTIONS)
        try:
            yield connector
        finally:
            await connector.close()
