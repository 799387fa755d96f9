"""Which address other nodes reach a node by, also when its machine gets other ones. Pure.

A node that joined gets the address the controller reached it at, or the one somebody named.
Where the machine has that address no more and nobody named it, another one of the machine takes
its place, if one is like it (the same /16): a device that is away for a moment must not move the
node to a bridge of its own. Else, and where somebody named it, the node says that it is missing.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from specs.node import Node, NodeFacts


ALIKE = 16  # bits at the end in which the new address may differ


def candidates(facts: NodeFacts, ranges: Sequence[str]) -> list[str]:
    """Return the machine's own IPv4 addresses that others could reach, none of the cluster's."""
    ours = [IPv4Network(one) for one in ranges]
    found = []
    for text in facts.addresses:
        address = ip_address(text.split("/")[0])
        if not isinstance(address, IPv4Address) or address.is_loopback or address.is_link_local:
            continue
        if not any(address in one for one in ours):
            found.append(str(address))
    return found


def readdressed(node: Node, facts: NodeFacts, ranges: Sequence[str]) -> Node:
    """Return the node as its peers should know it, given what its machine is now."""
    there = {text.split("/")[0] for text in facts.addresses}
    if node.underlay_asked or not node.underlay or not there or node.underlay in there:
        return node
    if ":" in node.underlay:
        return node  # which of several IPv6 addresses stays is not to be guessed
    others = sorted(_far(node.underlay, address) for address in candidates(facts, ranges))
    if not others or others[0][0] > ALIKE:
        return node
    return node.with_underlay(others[0][1], asked=False)


def _far(old: str, new: str) -> tuple[int, str]:
    """Return how unlike two addresses are: how many of the last bits it takes to differ."""
    return (int(IPv4Address(old)) ^ int(IPv4Address(new))).bit_length(), new


def refusal(node: Node, address: str) -> str:
    """Return why the node's peers cannot reach it at this address; "" when they may."""
    try:
        ip_address(address)
    except ValueError:
        return f"{address!r} is not an IP address"
    there = [text.split("/")[0] for text in node.facts.addresses]
    if there and address not in there:
        return f"{address} is not an address of {node.name}; it has {', '.join(there)}"
    return ""
