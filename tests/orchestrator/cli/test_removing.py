"""rm and `down SERVICE` against a scripted controller."""

from __future__ import annotations

import os

import pytest

from orchestrator.cli.commands import rm
from tests.orchestrator.cli.test_reading import row

ENDED = row("web-1", "web", state="shutdown", finished_at=1.0)
ROWS = [ENDED, row("db-1", "db"), row("db-0", "db", state="failed", finished_at=1.0)]


@pytest.fixture
def shop(fake):
    removing(fake, ROWS, [row for row in ROWS if row is not ENDED])
    return fake


def removing(fake, before, *looks, names=("shop-web-1",)):
    """A stack whose rows are these before somebody removes, and then as each look finds them."""
    left = [before]

    def forget(_):
        left[:] = looks
        return {"tasks": [*names], "running": ["db"]}

    fake.on(
        "GET",
        "/v1/stacks/shop/tasks",
        lambda _: {"tasks": left.pop(0) if len(left) > 1 else left[0]},
    )
    fake.on("POST", "/v1/stacks/shop/stop", {"name": "shop"})
    fake.on("POST", "/v1/stacks/shop/forget", forget)


def asked(fake):
    return [(r.path.rpartition("/")[2], r.body) for r in fake.requests if r.method == "POST"]


@pytest.mark.parametrize(
    ("answer", "goes"), [("y", True), ("YES", True), ("", False), ("n", False), (None, False)]
)
def test_rm_asks_first(shop, corral, monkeypatch, answer, goes):
    monkeypatch.setattr(os, "isatty", lambda _: answer is not None)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    done = corral("-p", "shop", "rm")
    assert (asked(shop) == [("forget", {"services": []})]) is goes
    if answer is None:
        assert (done.code, "-f" in done.err) == (2, True)
    else:
        assert done.out.splitlines()[0] == "Going to remove shop-web-1"


def test_the_end_of_input_is_no_yes(shop, corral, monkeypatch):
    def nobody(_):
        raise EOFError

    monkeypatch.setattr(os, "isatty", lambda _: True)
    monkeypatch.setattr("builtins.input", nobody)
    assert corral("-p", "shop", "rm").code == 0
    assert not asked(shop)


def test_rm_of_services_without_asking_and_stopped_first(shop, corral):
    done = corral("-p", "shop", "rm", "-fsv", "web")
    assert (done.code, done.out) == (0, "shop-web-1 removed\n")
    assert asked(shop) == [
        ("stop", {"timeout": None, "services": ["web"]}),
        ("forget", {"services": ["web"]}),
    ]


def test_rm_of_nothing(fake, corral):
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": []})
    fake.on("POST", "/v1/stacks/shop/forget", {"tasks": [], "running": []})
    done = corral("-p", "shop", "rm")
    assert (done.code, done.out, "no stopped containers" in done.err) == (0, "", True)


def test_down_of_single_services_is_stop_and_rm(shop, corral):
    done = corral("-p", "shop", "down", "-t", "3", "web")
    assert (done.code, done.out) == (0, "shop-web-1 removed\n")
    assert asked(shop) == [
        ("stop", {"timeout": 3.0, "services": ["web"]}),
        ("forget", {"services": ["web"]}),
    ]


def test_down_of_single_services_keeps_the_volumes(shop, corral):
    done = corral("-p", "shop", "down", "-v", "web")
    assert (done.code, "whole stack" in done.err) == (1, True)
    assert asked(shop) == []


@pytest.mark.parametrize("words", [("rm", "-f"), ("down", "web")])
def test_removed_is_said_when_no_list_has_it(fake, corral, words):
    removing(fake, [ENDED], [ENDED], [ENDED], [])
    done = corral("-p", "shop", *words)
    assert (done.code, done.out) == (0, "shop-web-1 removed\n")
    after = [r.method for r in fake.requests]
    assert after[len(after) - after[::-1].index("POST") :] == ["GET"] * 3


def test_what_was_made_anew_meanwhile_is_not_waited_for(fake, corral):
    newer = {**ENDED, "id": "t-newer"}
    removing(fake, [ENDED], [ENDED], [newer])
    assert corral("-p", "shop", "rm", "-f").out == "shop-web-1 removed\n"
    alive = row("web-1", "web")
    removing(fake, [ENDED], [alive])
    assert corral("-p", "shop", "rm", "-f").out == "shop-web-1 removed\n"


@pytest.mark.parametrize("silent", [True, False])
def test_what_a_node_does_not_remove_is_said_and_no_success(fake, corral, monkeypatch, silent):
    monkeypatch.setattr(rm, "PATIENCE", 60.0 if silent else 0.3)
    kept = {**ENDED, "node": "beta", **({"node_status": "down"} if silent else {})}
    other = row("web-2", "web", state="shutdown", finished_at=1.0)
    removing(fake, [kept, other], [kept, other], [kept], names=["shop-web-1", "shop-web-2"])
    done = corral("-p", "shop", "rm", "-f")
    assert (done.code, done.out) == (1, "shop-web-2 removed\n")
    assert "shop-web-1 is not removed yet: its node beta" in done.err
