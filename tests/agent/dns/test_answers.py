"""What the resolver says by itself, and what it may ask upstream."""

import random

import dns.message
import dns.rcode
import pytest

from agent.dns import message
from agent.dns.answers import own_answer
from agent.dns.zone import Zones


@pytest.fixture
def zones():
    made = Zones()
    view = {"networks": ["n"], "stack": "shop", "upstreams": ["192.0.2.53"]}
    made.load(
        {
            "pools": ["10.0.0.0/16"],
            "networks": {"n": "shop_a", "m": "other"},
            "views": {"out": {**view, "forward": True}, "in": {**view, "forward": False}},
            "services": {
                "web": {
                    "network": "n",
                    "stack": "shop",
                    "names": {"web": [["10.0.0.1", "10.0.0.2"], 2], "down": [[], 2]},
                    "reverse": {"10.0.0.1": "web"},
                },
                "far": {
                    "network": "m",
                    "stack": "bank",
                    "names": {"vault": [["10.0.1.1"], 2]},
                    "reverse": {"10.0.1.1": "vault"},
                },
            },
        }
    )
    return made


def ask(zones, task, name, kind="A"):
    """Return (response code, answers) of our own; None where upstream is asked."""
    query = message.parse_query(dns.message.make_query(name, kind).to_wire())
    out, _ = own_answer(zones, task, query, None, random.Random(0))
    if out is None:
        return None
    reply = dns.message.from_wire(out)
    found = sorted(str(item) for answers in reply.answer for item in answers)
    return dns.rcode.to_text(reply.rcode()), found


@pytest.mark.parametrize(
    ("task", "name", "kind", "expected"),
    [
        ("out", "web.", "A", ("NOERROR", ["10.0.0.1", "10.0.0.2"])),
        ("out", "web.", "AAAA", ("NOERROR", [])),
        ("out", "down.", "A", ("NOERROR", [])),
        ("out", "1.0.0.10.in-addr.arpa.", "PTR", ("NOERROR", ["web.shop_a."])),
        ("out", "example.org.", "A", None),
        ("out", "1.2.0.192.in-addr.arpa.", "PTR", None),
        # What exists for others only, and what lies in our pools, is nobody's business upstream.
        ("out", "vault.", "A", ("NXDOMAIN", [])),
        ("out", "1.1.0.10.in-addr.arpa.", "PTR", ("NXDOMAIN", [])),
        ("out", "9.9.0.10.in-addr.arpa.", "PTR", ("NXDOMAIN", [])),
        # Internal networks only: not a byte goes out.
        ("in", "web.", "A", ("NOERROR", ["10.0.0.1", "10.0.0.2"])),
        ("in", "example.org.", "A", ("NXDOMAIN", [])),
        ("in", "1.2.0.192.in-addr.arpa.", "PTR", ("NXDOMAIN", [])),
        ("stranger", "web.", "A", ("NXDOMAIN", [])),
    ],
)
def test_names_are_answered_here_or_may_go_out(zones, task, name, kind, expected):
    assert ask(zones, task, name, kind) == expected


def test_only_an_answer_without_choice_is_repeated(zones):
    query = message.parse_query(dns.message.make_query("web.", "A").to_wire())
    assert not own_answer(zones, "out", query, None, random.Random(0))[1], "load is not spread"
    query = message.parse_query(dns.message.make_query("down.", "A").to_wire())
    assert own_answer(zones, "out", query, None, random.Random(0))[1]
