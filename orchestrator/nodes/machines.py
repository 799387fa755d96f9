"""Everything SSH of this controller, loaded when there is a first machine besides its own.

controller.py makes one. The dispatcher reaches agents through it as a Transport, the API adds and
removes machines through it. A cluster of one machine never loads asyncssh (7 MB, 0.1 s).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from specs.kit.loading import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp
    import asyncssh

    from orchestrator.config import ControllerConfig
    from orchestrator.contracts import Mirror
    from orchestrator.keys.identity import ClusterRecord
    from orchestrator.nodes.bootstrap.join import Bootstrap
    from orchestrator.nodes.bootstrap.upgrade import Upgrades
    from orchestrator.nodes.members import Nodes
    from orchestrator.transport.base import Transport
    from orchestrator.transport.ssh import SshTransport
    from specs.api import AddNode, Progress, Upgrade
    from specs.kit.clock import Clock
    from specs.node import Node


class Machines:
    """The controller's machine and all others: the way to each, adding and removing them."""

    def __init__(
        self,
        *,
        config: ControllerConfig,
        local: Transport,
        cluster: Mirror,
        identity: ClusterRecord,
        clock: Clock,
    ) -> None:
        self._config = config
        self._local = local
        self._cluster = cluster
        self._identity = identity
        self._clock = clock
        self._remote: SshTransport | None = None
        self._upgrades: Upgrades | None = None

    @contextlib.asynccontextmanager
    async def connect(self, node: Node) -> AsyncIterator[aiohttp.BaseConnector]:
        """Reach the node: the local socket for this machine, SSH for every other."""
        if node.address:
            await load("orchestrator.transport.ssh")
        way: Transport = self._ssh() if node.address else self._local
        async with way.connect(node) as connector:
            yield connector

    async def add_node(self, nodes: Nodes, request: AddNode) -> AsyncIterator[Progress]:
        """Make a machine a node (bootstrap/join.py)."""
        await load("orchestrator.nodes.bootstrap.join")
        async with contextlib.aclosing(self._bootstrap(nodes).add_node(request)) as said:
            async for progress in said:
                yield progress

    def remove_node(self, nodes: Nodes, name: str, *, force: bool) -> AsyncIterator[Progress]:
        """Take a node out and corral off its machine."""
        if not nodes.find(name).address:
            return nodes.remove(name, force=force)
        return self._bootstrap(nodes).remove_node(name, force=force)

    async def upgrade(self, nodes: Nodes, request: Upgrade) -> AsyncIterator[Progress]:
        """Bring agents to this controller's version (bootstrap/upgrade.py)."""
        selected = frozenset(nodes.find(name).name for name in request.nodes)
        await load("orchestrator.nodes.bootstrap.upgrade")
        if self._upgrades is None:
            self._upgrades = self._upgrader()
        async with contextlib.aclosing(self._upgrades.run(request, selected)) as said:
            async for progress in said:
                yield progress

    def _upgrader(self) -> Upgrades:
        from orchestrator.nodes.bootstrap import clusterkey, upgrade  # noqa: PLC0415 - as below

        return upgrade.Upgrades(
            cluster=self._cluster,
            cluster_id=self._identity.id,
            public_key=clusterkey.public(self._key()),
            folder=self._config.folder / "bundles",
            clock=self._clock,
        )

    def _key(self) -> asyncssh.SSHKey:
        from orchestrator.nodes.bootstrap import clusterkey  # noqa: PLC0415 - see the module docstring

        return clusterkey.load(self._config.folder / "ssh_key")

    def _ssh(self) -> SshTransport:
        if self._remote is None:
            from orchestrator.transport.ssh import SshTransport  # noqa: PLC0415 - as above

            self._remote = SshTransport(self._key())
        return self._remote

    def _bootstrap(self, nodes: Nodes) -> Bootstrap:
        from orchestrator.nodes.bootstrap.join import Bootstrap  # noqa: PLC0415 - as above

        return Bootstrap(
            members=nodes,
            cluster=self._cluster,
            cluster_id=self._identity.id,
            key=self._key(),
            transport=self._ssh(),
            folder=self._config.folder / "bundles",
            clock=self._clock,
        )
