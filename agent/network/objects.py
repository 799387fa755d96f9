"""Kernel objects as values: what plan.py wants and netlink.py reports, comparable.

Devices are named by name here; indexes exist only inside netlink.py. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAIN = 254  # the main routing table


@dataclass(frozen=True, slots=True)
class Link:
    """A device as the kernel has it. ``conf`` are its IPv4 sysctls by name."""

    index: int
    name: str
    up: bool
    mtu: int
    mac: str
    kind: str
    conf: dict[str, int] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """An IPv4 route of ours; with ``via`` the gateway is taken to be on the link."""

    destination: str
    dev: str = ""
    via: str = ""
    source: str = ""
    table: int = MAIN
    blackhole: bool = False


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent entry: an address's MAC, or with ``fdb`` the VXLAN end behind a MAC."""

    dev: str
    address: str
    mac: str
    fdb: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy rule on the packet mark: to a table, over to another rule, or a mere landing."""

    priority: int
    mark: int = 0
    mask: int = 0
    table: int = 0
    goto: int = 0


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """An address on a device of ours, with its prefix length."""

    dev: str
    cidr: str
