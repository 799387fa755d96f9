"""`node drain` waits: what leaves, what stays and why, and the exit code that says which."""

from __future__ import annotations

import pytest

from orchestrator.cli.show import draining


def row(name, node="alpha", task="", **more):
    return {"id": task or f"t-{name}-{node}", "name": f"shop-{name}", "node": node, **more}


PENDING = {"node": "", "state": "pending", "reason": "no node has 8 GiB free"}


@pytest.mark.parametrize(
    ("looks", "expected", "held"),
    [
        ([[]], [[]], {}),
        (
            [[row("web-1")], [row("web-1"), row("web-1", "beta")], [row("web-1", "beta")]],
            [["shop-web-1: is leaving"], [], ["shop-web-1: left, runs on beta"]],
            {},
        ),
        (
            [[row("web-1", stopping=True)], []],
            [["shop-web-1: is leaving"], ["shop-web-1: left"]],
            {},
        ),
        (
            [[row("db-1", tied="volume shop_data")]] * 2,
            [["shop-db-1: stays: volume shop_data is there"], []],
            {"shop-db-1": "volume shop_data is there"},
        ),
        (
            [[row("web-1"), row("web-1", **PENDING)], [row("web-1"), row("web-1", "beta")]],
            [["shop-web-1: stays: no node has 8 GiB free"], ["shop-web-1: is leaving"]],
            {},
        ),
        (
            [[row("web-1", node_status="down")]],
            [["shop-web-1: stays: its node does not answer"]],
            {"shop-web-1": "its node does not answer"},
        ),
        ([[row("other-1", "beta")]], [[]], {}),
    ],
)
def test_what_leaves_and_what_stays(looks, expected, held):
    drain = draining.Draining("alpha")
    assert [drain.look(rows) for rows in looks] == expected
    assert drain.held == held


@pytest.mark.parametrize(
    ("looks", "flags", "code", "said"),
    [
        ([[row("web-1")], []], [], 0, "shop-web-1: left"),
        ([[]], [], 0, ""),
        ([[row("db-1", tied="volume d")]], [], 1, "shop-db-1 stays on alpha: volume d is there"),
        (
            [[row("web-1"), row("web-1", **PENDING)]],
            [],
            1,
            "shop-web-1 stays on alpha: no node has 8 GiB free",
        ),
        ([[row("web-1")]], ["--timeout", "0.1"], 1, "is not empty"),
        ([[row("web-1")]], ["--no-wait"], 0, ""),
        (
            [[row("db-1", tied="volume d"), row("web-1")], [row("db-1", tied="volume d")]],
            [],
            1,
            "shop-web-1: left",
        ),
    ],
)
def test_drain_waits_and_says_so(fake, corral, monkeypatch, clock, looks, flags, code, said):
    monkeypatch.setattr(draining, "time", clock)
    answers = list(looks)
    fake.on("PATCH", "/v1/nodes/alpha", {"name": "alpha"})
    fake.on("GET", "/v1/stacks", {"stacks": [{"name": "shop"}]})
    fake.on(
        "GET",
        "/v1/stacks/shop/tasks",
        lambda _request: {"tasks": answers.pop(0) if len(answers) > 1 else answers[0]},
    )
    done = corral("node", "drain", *flags, "alpha")
    assert done.code == code
    assert said in done.err
    assert ("drained" in done.out) == (code == 0 and not flags)
    assert bool(fake.asked("GET", "/v1/stacks")) == (flags != ["--no-wait"])
