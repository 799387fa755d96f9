"""`node set` and `controller extend`: what is sent, what is said."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("argv", "method", "path", "body", "answer", "says"),
    [
        (
            ("node", "set", "alpha", "--underlay-addr", "192.0.2.8"),
            "PATCH",
            "/v1/nodes/alpha",
            {"underlay": "192.0.2.8"},
            {"name": "alpha"},
            "alpha: other nodes reach it at 192.0.2.8",
        ),
        (
            ("controller", "extend", "10.211.0.0/16"),
            "POST",
            "/v1/cluster/ranges",
            {"range": "10.211.0.0/16"},
            {"ranges": ["10.210.0.0/16", "10.211.0.0/16"]},
            "networks get addresses of 10.210.0.0/16, 10.211.0.0/16",
        ),
    ],
)
def test_what_is_asked_for(fake, corral, argv, method, path, body, answer, says):
    fake.on(method, path, answer)
    done = corral(*argv)
    assert (done.code, done.out.strip()) == (0, says)
    (asked,) = fake.asked(method, path)
    assert asked.body == body


@pytest.mark.parametrize(
    "argv",
    [
        ("node", "set", "alpha"),
        ("node", "set", "--underlay-addr", "192.0.2.8"),
        ("controller", "extend"),
        ("controller", "extend", "10.211.0.0/16", "10.212.0.0/16"),
    ],
)
def test_what_is_missing_is_said(fake, corral, argv):
    assert corral(*argv).code == 2
    assert not fake.asked("POST", ".*")
    assert not fake.asked("PATCH", ".*")
