"""Which way leads to a node: the local socket for this machine, SSH for every other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import aiohttp

    from orchestrator.transport.base import Transport
    from specs.node import Node


class ByAddress:
    """The transport of a controller whose nodes are its own machine and others."""

    def __init__(self, *, local: Transport, remote: Transport) -> None:
        self._local = local
        self._remote = remote

    def connect(self, node: Node) -> AbstractAsyncContextManager[aiohttp.BaseConnector]:
        return (self._remote if node.address else self._local).connect(node)
