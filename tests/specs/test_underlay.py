"""Which address a node's peers reach it by when its machine's addresses change: a table."""

from __future__ import annotations

import pytest

from specs.node import Node, NodeFacts
from specs.underlay import readdressed, refusal

RANGES = ("10.210.0.0/16",)


@pytest.mark.parametrize(
    ("underlay", "asked", "now", "reached"),
    [
        ("192.0.2.7", False, ["192.0.2.7"], "192.0.2.7"),
        ("192.0.2.7", False, ["192.0.2.9"], "192.0.2.9"),  # a new lease
        ("192.0.2.7", False, ["192.0.2.9", "192.0.2.7"], "192.0.2.7"),  # one more
        ("192.0.2.7", False, ["192.0.9.1", "192.0.2.9"], "192.0.2.9"),  # the one most like it
        ("192.0.2.7", False, ["172.17.0.1"], "192.0.2.7"),  # a bridge of its own is no way to it
        ("192.0.2.7", False, ["10.210.0.3"], "192.0.2.7"),  # nor is the overlay
        ("192.0.2.7", False, ["169.254.7.7", "fe80::1"], "192.0.2.7"),
        ("192.0.2.7", False, [], "192.0.2.7"),  # an agent that does not tell
        ("192.0.2.7", True, ["192.0.2.9"], "192.0.2.7"),  # somebody named it
        ("2001:db8::7", False, ["192.0.2.9", "2001:db8::9"], "2001:db8::7"),
        ("", False, ["192.0.2.9"], ""),  # a node alone
    ],
)
def test_the_address_peers_use(underlay, asked, now, reached):
    node = Node(id="n", name="n", underlay=underlay, underlay_asked=asked)
    facts = NodeFacts(addresses=tuple(now))
    known = readdressed(node, facts, RANGES)
    assert known.underlay == reached
    assert known.underlay_asked is asked
    assert readdressed(known, facts, RANGES) == known, "law: looking again changes nothing"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("192.0.2.7", ""),
        ("2001:db8::7", ""),
        ("192.0.2.8", "192.0.2.8 is not an address of n; it has 192.0.2.7, 2001:db8::7"),
        ("n2", "'n2' is not an IP address"),
    ],
)
def test_an_address_the_machine_has_not_is_refused(address, says):
    facts = NodeFacts(addresses=("192.0.2.7", "2001:db8::7"))
    assert refusal(Node(id="n", name="n", facts=facts), address) == says
