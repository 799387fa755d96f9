"""What a container is told without asking anybody else. Pure but for the order of addresses.

agent.dns.server asks here first; None means that the question goes to the node's
name servers. What must not leave the node ends here: names of other containers,
addresses of our pools, every question of a container that has internal networks only.
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from agent.dns import message

if TYPE_CHECKING:
    import random

    from agent.dns.zone import Zones

_PTR_TTL = 5


def own_answer(
    zones: Zones, task: str, query: message.Query, limit: int | None, order: random.Random
) -> tuple[bytes | None, bool]:
    """Return our own answer and whether it may be repeated; (None, ...) = ask upstream."""
    found = zones.lookup(task, query.name)
    if found is not None:
        addresses = list(found.addresses)
        if query.type not in (message.A, message.ANY):
            addresses = []
        order.shuffle(addresses)
        records = [(message.A, found.ttl, IPv4Address(address).packed) for address in addresses]
        return message.answer(query, records, limit=limit), len(records) < 2
    address = message.reverse_address(query.name)
    if address is not None:
        return _reverse(zones, task, query, address, limit)
    view = zones.views.get(task)
    if view is None or not view.forward or zones.is_secret(query.name):
        return message.answer(query, code=message.NXDOMAIN, limit=limit), True
    return None, False


def _reverse(
    zones: Zones, task: str, query: message.Query, address: str, limit: int | None
) -> tuple[bytes | None, bool]:
    name = zones.reverse(task, address)
    if name is not None:
        records = []
        if query.type in (message.PTR, message.ANY):
            with suppress(message.Malformed):
                records.append((message.PTR, _PTR_TTL, message.write_name(name)))
        return message.answer(query, records, limit=limit), True
    view = zones.views.get(task)
    if view is None or not view.forward or zones.is_ours(address):
        return message.answer(query, code=message.NXDOMAIN, limit=limit), True
    return None, False
