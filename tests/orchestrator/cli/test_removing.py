"""rm and `down SERVICE` against a scripted controller."""

from __future__ import annotations

import os

import pytest

from tests.orchestrator.cli.test_reading import row

ENDED = row("web-1", "web", state="shutdown", finished_at=1.0)
ROWS = [ENDED, row("db-1", "db"), row("db-0", "db", state="failed", finished_at=1.0)]


@pytest.fixture
def shop(fake):
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": ROWS})
    fake.on("POST", "/v1/stacks/shop/stop", {"name": "shop"})
    fake.on("POST", "/v1/stacks/shop/forget", {"tasks": ["shop-web-1"], "running": ["db"]})
    return fake


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
