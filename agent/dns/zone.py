"""What each container may know: names by network, looked up through the container's view. Pure.

The agent sends what exists (agent.network.records): once whole, then the
services that changed. A view is a task's list of networks; a name is found only
in those, so one project's names do not exist for another. Stdlib only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any

VIP_TTL, TASK_TTL = 5, 2

# (service key, stack, addresses, ttl); a name has one for each service that uses it
Entry = tuple[str, str, tuple[str, ...], int]


@dataclass(frozen=True, slots=True)
class NameFound:
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
    links: dict[str, str] = field(default_factory=dict)  # names only this task knows -> names


@dataclass(slots=True)
class NetworkNames:
    """Names and addresses of one network."""

    name: str = ""
    names: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    reverse: dict[str, str] = field(default_factory=dict)


class Zones:
    """Everything the resolver knows."""

    def __init__(self) -> None:
        self.views: dict[str, View] = {}
        self._networks: dict[str, NetworkNames] = {}
        self._pools: tuple[IPv4Network, ...] = ()
        # What a service added, so that it can be taken out again: network, names, addresses.
        self._added: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {}

    def load(self, data: dict[str, Any]) -> None:
        """Take a snapshot (everything else is forgotten) or, with "patch", the changes to one."""
        if not data.get("patch"):
            self._networks, self._added = {}, {}
        self._pools = tuple(IPv4Network(pool, strict=False) for pool in data["pools"])
        self.views = {
            task: View(
                tuple(view["networks"]),
                view["stack"],
                bool(view["forward"]),
                tuple(view["upstreams"]),
                dict(view.get("links", {})),  # who sends may be older
            )
            for task, view in data["views"].items()
        }
        for key, part in data["services"].items():
            self._remove(key)
            if part is not None:
                self._add(key, part)
        for key in self._networks.keys() - data["networks"].keys():
            del self._networks[key]
        for key, name in data["networks"].items():
            self._networks.setdefault(key, NetworkNames()).name = name

    def _add(self, key: str, part: dict[str, Any]) -> None:
        network = self._networks.setdefault(part["network"], NetworkNames())
        for name, (addresses, ttl) in part["names"].items():
            entry = (key, part["stack"], tuple(addresses), int(ttl))
            network.names[name] = (*network.names.get(name, ()), entry)
        network.reverse.update(part["reverse"])
        self._added[key] = (part["network"], tuple(part["names"]), tuple(part["reverse"]))

    def _remove(self, key: str) -> None:
        where, names, addresses = self._added.pop(key, ("", (), ()))
        network = self._networks.get(where)
        if network is None:
            return
        for name in names:
            left = tuple(entry for entry in network.names.get(name, ()) if entry[0] != key)
            if left:
                network.names[name] = left
            else:
                network.names.pop(name, None)
        for address in addresses:
            network.reverse.pop(address, None)

    def lookup(self, task: str, name: str) -> NameFound | None:
        """Return the addresses of a name for a task; None when the name is not ours.

        The first of the task's networks that has the name decides. Its own stack's
        meaning of a name comes before other stacks' on a shared network.
        """
        view = self.views.get(task)
        if view is None:
            return None
        name = view.links.get(name, name)
        for key in view.networks:
            network = self._networks.get(key)
            if network is None:
                continue
            entries = network.names.get(name)
            if entries is None and name.endswith("." + network.name):
                entries = network.names.get(name[: -len(network.name) - 1])
            if entries is None:
                continue
            own = [entry for entry in entries if entry[1] == view.stack] or entries
            merged = dict.fromkeys(address for entry in own for address in entry[2])
            return NameFound(tuple(merged), min(entry[3] for entry in own))
        return None

    def reverse(self, task: str, address: str) -> str | None:
        """Return the name of an address in the task's networks."""
        view = self.views.get(task)
        for key in view.networks if view else ():
            network = self._networks.get(key)
            if network and address in network.reverse:
                return f"{network.reverse[address]}.{network.name}"
        return None

    def is_ours(self, address: str) -> bool:
        """Say whether the address lies in a pool: nobody upstream may be asked about it."""
        return any(IPv4Address(address) in pool for pool in self._pools)

    def is_secret(self, name: str) -> bool:
        """Say whether the name exists, but for other containers."""
        return any(name in network.names for network in self._networks.values())
