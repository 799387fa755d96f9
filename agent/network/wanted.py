"""The whole state one node's network should be in, as the controller last told it. Pure.

The agent's worker makes one for every change; plan.py, rules.py and records.py derive
from it what kernel and resolver should hold, and read nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.network import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from specs.wire import Assignment, NetworkState, NodeSelf, Peer, ServiceEndpoints


@dataclass(frozen=True)
class Wanted:
    """Everything one apply() was given: the only input of every decision.

    ``assignments`` are the node's tasks that have, or are about to have, something of ours: a
    task whose process is ending is one of them until that has ended.
    """

    me: NodeSelf
    networks: Mapping[str, NetworkState]
    services: Mapping[str, ServiceEndpoints]
    peers: Mapping[str, Peer]
    assignments: Mapping[str, Assignment]
    ready: Mapping[str, bool]
    unreachable: frozenset[str] = frozenset()  # peers, by what this node found out itself
    silent: bool = False  # peers get no echo: the node is just back (returning.py)

    @property
    def idle(self) -> bool:
        """Say whether nothing is wanted: no task, no network, no place among other nodes."""
        busy = self.networks or self.services or self.assignments
        return not busy and not self.in_overlay

    @property
    def in_overlay(self) -> bool:
        """Say whether the node has a place in an overlay of several nodes."""
        return bool(self.me.overlay and self.me.underlay)

    @property
    def gateway(self) -> str:
        """Return the address this node shows to containers where it must hide a source.

        A node that is not in an overlay uses the address nobody owns: connection
        tracking translates the answer back before routing looks at it.
        """
        return self.me.overlay or names.GATEWAY
