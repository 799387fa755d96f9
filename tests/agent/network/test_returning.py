"""A node that booted is silent while peers may take its tasks for ready that are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.network import reach
from agent.network.chains import base
from agent.network.endpoints import see
from agent.network.reach import History
from agent.network.returning import HOLD, Return
from tests.agent.network.test_rules import shop, wanted

DROP = "icmp type echo-request counter drop"


def booted(**ready):
    """Return what n2 knows after its boot: the controller's last word, and its own."""
    state = wanted(shop(), "n2")
    return replace(state, ready={**state.ready, **ready})


def told_unready(state):
    services = {
        key: service.model_copy(
            update={
                "endpoints": tuple(e.model_copy(update={"ready": False}) for e in service.endpoints)
            }
        )
        for key, service in state.services.items()
    }
    return replace(state, services=services)


@pytest.mark.parametrize(
    ("what", "state", "silent"),
    [
        ("its task is not ready, and was said to be", booted(w2=False), True),
        ("its task's network is not made yet", replace(booted(), assignments={}), True),
        ("its task is ready", booted(w2=True), False),
        ("the controller has said that it is not", told_unready(booted(w2=False)), False),
        ("a peer's task is not ready", booted(w1=False), False),
        ("it has no task", replace(booted(w2=False), services={}), False),
    ],
)
def test_when_a_node_that_booted_is_silent(tmp_path, what, state, silent):
    assert Return(tmp_path / "returned").silent(state, 100.0) is silent, what


@pytest.mark.parametrize("by", ["its task", "the controller", "time"])
def test_it_comes_back_once(tmp_path, by):
    path = tmp_path / "network" / "returned"
    node, waits = Return(path), booted(w2=False)
    assert node.silent(waits, 100.0)
    assert node.silent(waits, 100.0 + HOLD - 1)
    assert not path.exists()
    back = {"its task": booted(w2=True), "the controller": told_unready(waits), "time": waits}[by]
    assert not node.silent(back, 100.0 + HOLD)
    # What falls ill later is told by the controller, as ever; also after the agent's restart.
    assert not node.silent(waits, 101.0 + HOLD)
    assert not Return(path).silent(waits, 102.0 + HOLD)


def test_an_agent_that_ends_meanwhile_leaves_it_silent(tmp_path):
    assert Return(tmp_path / "returned").silent(booted(w2=False), 100.0)
    assert Return(tmp_path / "returned").silent(booted(w2=False), 101.0)


def test_before_it_knows_its_place_nothing_is_decided(tmp_path):
    node, waits = Return(tmp_path / "returned"), booted(w2=False)
    nowhere = replace(waits, me=waits.me.model_copy(update={"overlay": ""}), services={})
    assert not node.silent(nowhere, 100.0)
    assert node.silent(waits, 101.0)


def test_echoes_are_dropped_before_what_is_established():
    lines = [line.strip() for line in base(booted()).splitlines()]
    assert DROP not in lines
    lines = [line.strip() for line in base(replace(booted(), silent=True)).splitlines()]
    start = lines.index("chain input_overlay {")
    assert lines[start + 1] == DROP
    assert lines.count(DROP) == 1


@pytest.mark.parametrize("boots", [True, False])
def test_a_peer_sends_to_a_host_that_booted_only_when_its_tasks_are_ready(tmp_path, boots):
    """Virtual time, no controller: n2 has no power from 10 s to 20 s, its task listens at 50 s."""
    path = tmp_path / "returned"
    node, history, echo = Return(path), History(), False
    assert not node.silent(booted(), 0.0)
    used = {}
    for tick in range(600):
        now = tick / 10
        if boots and now == 20.0:
            path.unlink()  # a tmpfs
            node = Return(path)
        if echo:
            history = reach.answered(history, now)
        history = reach.judged(history, now)
        echo = False
        if reach.due({"n2": history}, now):
            history = reach.sent(history, now)
            up = not 10 <= now < 20
            echo = up and not node.silent(booted(w2=not boots or not 20 <= now < 50), now)
        view = replace(wanted(shop()), unreachable=reach.unreachable({"n2": history}))
        (key,) = view.services
        used[now] = any(e.node == "n2" for e in see(view, key, view.services[key]).ready)
    assert used[9.0]
    assert not used[15.0]
    assert used[25.0] is used[45.0] is (not boots)
    assert used[55.0]
