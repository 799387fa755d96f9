"""Ranges no network can have, on whatever machine; and the free one that is proposed."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from specs import subnets
from specs.names import SUBNET
from specs.subnets import Taken

RANGES = {
    "127.0.0.0/24": "loopback",
    "127.3.0.0/16": "loopback",
    "126.0.0.0/7": "loopback",
    "169.254.7.0/24": "link-local",
    "224.0.0.0/24": "multicast",
    "239.1.2.0/24": "multicast",
    "0.0.0.0/24": "no host can have",
    "0.0.0.0/0": "whole of IPv4",
    "240.0.0.0/24": "reserved",
    "255.255.255.0/24": "reserved",
    "10.99.0.0/24": "",
    "172.30.0.0/16": "",
    "192.168.5.0/28": "",
    "100.64.0.0/24": "",
    "fd00::/64": "",
}


@pytest.mark.parametrize("text", RANGES)
def test_what_a_range_means_everywhere(text):
    why = SUBNET.fault(text)
    assert bool(why) == bool(RANGES[text])
    assert RANGES[text] in why


@pytest.mark.parametrize(
    ("asked", "held", "free"),
    [
        ("10.77.0.0/24", ["10.77.0.0/24"], "10.99.0.0/24"),
        ("10.99.0.0/24", ["10.99.0.0/24"], "10.99.1.0/24"),
        ("10.99.0.0/24", ["10.0.0.0/8"], "172.16.0.0/24"),
        ("10.0.0.0/8", ["10.99.0.0/16"], "172.16.0.0/16"),
        ("10.99.0.0/28", ["10.99.0.0/25", "10.99.0.128/28"], "10.99.0.144/28"),
        ("10.0.0.0/9", ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], ""),
    ],
)
def test_the_range_proposed_is_as_large_and_nobodys(asked, held, free):
    taken = [Taken(IPv4Network(one), "") for one in held]
    assert subnets.free(IPv4Network(asked), taken) == free


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.0/24 eth0", "192.0.2.0/24"),
        ("0.0.0.0/0 eth0", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_routes_as_agents_report_them(text, network):
    found = subnets.route(text)
    assert (str(found.network) if found else None) == network
