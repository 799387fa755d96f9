"""What each container may know: names by network, looked up through the container's view. Pure.

The agent writes a snapshot (agent.network.records), the dns process reads it.
A view is a task's list of networks; a name is found only in those, so one
project's names do not exist for another. Stdlib only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any

VIP_TTL, TASK_TTL = 5, 2


@dataclass(frozen=True, slots=True)
class Found:
    """Addresses of a name that exists here; empty = it exists and has none now."""

    addresses: tuple[str, ...]
    ttl: int = TASK_TTL


@dataclass(frozen=True, slots=True)
class View:
    """What one task sees, and where its other questions go (nowhere if not ``forward``)."""

    networks: tuple[str, ...]
    stack: str = ""
    forward: bool = False
    upstreams: tuple[str, ...] = ()


@dataclass(slots=True)
class Network:
    """Names of one network. ``names``: name -> stack -> (addresses, ttl)."""

    name: str
    names: dict[str, dict[str, tuple[tuple[str, ...], int]]] = field(default_factory=dict)
    reverse: dict[str, str] = field(default_factory=dict)


class Zones:
    """A snapshot, ready for lookups."""

    def __init__(
        self,
        networks: dict[str, Network] | None = None,
        views: dict[str, View] | None = None,
        pools: tuple[str, ...] = (),
        generation: int = 0,
    ) -> None:
        self.networks = networks or {}
        self.views = views or {}
        self.generation = generation
        self._pools = tuple(IPv4Network(pool, strict=False) for pool in pools)
        # Every name of every project, so that one outside the view is denied, not asked upstream.
        self._known = {name for network in self.networks.values() for name in network.names}

    @staticmethod
    def load(data: dict[str, Any]) -> Zones:
        """Return the zones of a snapshot."""
        networks = {
            key: Network(
                value["name"],
                {
                    name: {s: (tuple(a), int(ttl)) for s, (a, ttl) in stacks.items()}
                    for name, stacks in value["names"].items()
                },
                dict(value["reverse"]),
            )
            for key, value in data["networks"].items()
        }
        views = {
            task: View(
                tuple(value["networks"]),
                value["stack"],
                bool(value["forward"]),
                tuple(value["upstreams"]),
            )
            for task, value in data["views"].items()
        }
        return Zones(networks, views, tuple(data["pools"]), int(data["generation"]))

    def lookup(self, task: str, name: str) -> Found | None:
        """Return the addresses of a name for a task; None when the name is not ours.

        The first of the task's networks that has the name decides. Its own stack's
        meaning of a name comes before other stacks' on a shared network.
        """
        view = self.views.get(task)
        if view is None:
            return None
        for key in view.networks:
            network = self.networks.get(key)
            if network is None:
                continue
            stacks = network.names.get(name)
            if stacks is None and name.endswith("." + network.name):
                stacks = network.names.get(name[: -len(network.name) - 1])
            if stacks is None:
                continue
            if view.stack in stacks:
                addresses, ttl = stacks[view.stack]
                return Found(addresses, ttl)
            merged = [address for found, _ in stacks.values() for address in found]
            return Found(tuple(dict.fromkeys(merged)), min(ttl for _, ttl in stacks.values()))
        return None

    def reverse(self, task: str, address: str) -> str | None:
        """Return the name of an address in the task's networks."""
        view = self.views.get(task)
        for key in view.networks if view else ():
            network = self.networks.get(key)
            if network and address in network.reverse:
                return f"{network.reverse[address]}.{network.name}"
        return None

    def is_ours(self, address: str) -> bool:
        """Say whether the address lies in a pool: nobody upstream may be asked about it."""
        return any(IPv4Address(address) in pool for pool in self._pools)

    def is_secret(self, name: str) -> bool:
        """Say whether the name exists, but for other containers."""
        return name in self._known
