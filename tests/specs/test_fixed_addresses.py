"""Fixed addresses and gateways are inside their network's subnet, or refused by place."""

from __future__ import annotations

import pytest

from specs.compile.stack import compile_stack
from specs.problems import SpecError

CASES = [
    ({"subnet": "10.9.0.0/24"}, "10.9.0.7", ""),
    ({"subnet": "10.9.0.0/24"}, "10.9.1.7", "services.a.networks.n.ipv4_address"),
    ({"subnet": "10.9.0.0/24"}, "10.9.0.0", "services.a.networks.n.ipv4_address"),
    ({"subnet": "10.9.0.0/24"}, "10.9.0.255", "services.a.networks.n.ipv4_address"),
    ({"subnet": "10.9.0.0/31"}, "10.9.0.0", ""),
    ({}, "10.9.0.7", ""),
    ({"subnet": "10.9.0.0/24", "gateway": "10.9.0.1"}, None, ""),
    ({"subnet": "10.9.0.0/24", "gateway": "10.9.1.1"}, None, "networks.n.ipam.config[0].gateway"),
    ({"subnet": "10.9.0.0/24", "ip_range": "10.9.0.0/25"}, None, ""),
    ({"subnet": "10.9.0.0/24", "ip_range": "10.8.0.0/25"}, None, "networks.n.ipam.config[0].ip_r"),
    ({"subnet": "127.0.0.0/24"}, None, "networks.n.ipam.config[0].subnet"),
    ({"subnet": "fd00::/64"}, None, ""),
]


@pytest.mark.parametrize(("pool", "fixed", "place"), CASES)
def test_addresses_are_inside(pool, fixed, place):
    project = {
        "services": {"a": {"image": "i", "networks": {"n": {"ipv4_address": fixed}}}},
        "networks": {"n": {"ipam": {"config": [pool]}}},
    }
    try:
        _, problems = compile_stack(project, {}, "app")
    except SpecError as refused:
        problems = refused.problems
    errors = [p.path for p in problems if p.severity == "error"]
    assert len(errors) == bool(place)
    assert "".join(errors).startswith(place)
