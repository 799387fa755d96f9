"""`node set` and `controller extend`: what is sent, what is said."""

from __future__ import annotations

import os

import pytest

from specs.made_by import MadeBy


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


@pytest.mark.parametrize(
    ("environ", "login"),
    [
        ({"USER": "anna"}, "anna"),
        ({"USER": "root", "SUDO_USER": "anna"}, "anna"),
        ({"USER": "a@b c\r\nX-Evil: 1"}, "a@b c  X-Evil: 1"),
        ({"USER": "jürgen"}, "jürgen"),
        ({"USER": "x" * 10_000}, "x" * 128),
        ({}, ""),
    ],
)
def test_what_changes_something_says_who_asks(fake, corral, monkeypatch, environ, login):
    for name in ("USER", "LOGNAME", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    corral("-p", "shop", "down")
    (removal,) = fake.asked("DELETE", "/v1/stacks/shop")
    assert "x-evil" not in removal.headers
    said = MadeBy.asker(removal.headers["corral-by"], "", None)
    assert (said.login, said.host) == (login, os.uname().nodename)
    assert all("corral-by" not in r.headers for r in fake.requests if r.method == "GET")
