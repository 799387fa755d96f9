"""How a node's agent is reached. The controller always dials; agents never know its address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import aiohttp

    from specs.node import Node


class Transport(Protocol):
    """Provides connections to agents' sockets. Raises errors.Unavailable with words."""

    def connect(self, node: Node) -> AbstractAsyncContextManager[aiohttp.BaseConnector]:
        """Reach the node's machine; every HTTP connection of the connector ends at its agent.

        Leaving the context closes everything. Where there is a connection underneath
        (SSH), its loss must fail the HTTP connections at once, not by a timeout.
        """
        ...
