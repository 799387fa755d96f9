"""What a person who waits for `up` is told: at once that it works, in the end that it is no use."""

from __future__ import annotations

import threading
import time

import pytest
from fake import PULSE, Hold, Lines

from orchestrator.cli.show.board import Board, nowhere
from orchestrator.cli.show.meanwhile import Meanwhile

NOBODY = {
    "kind": "homeless",
    "service": "web",
    "message": "no node takes web-2 (1 of 2 have one)",
    "nodes": ["n1, n2: is draining"],
    "hint": "corral node activate n1",
}
TOLD = """\
warning: web: no node takes web-2 (1 of 2 have one)
  n1, n2: is draining
  to do: corral node activate n1"""
END = {"kind": "end", "state": "deployed", "ok": True}


@pytest.fixture
def shop(fake, clean_environment):
    (clean_environment.work / "compose.yaml").write_text("services: {web: {image: busybox}}\n")
    row = {"stack": "shop", "number": 3, "state": "pending"}
    fake.on("POST", "/v1/stacks/shop/releases", row)
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": []})  # nothing is sick: `--wait` asks
    return fake


def progress(shop, *lines):
    shop.on("GET", "/v1/stacks/shop/progress", Lines(lines))


def test_up_ends_with_1_when_only_a_node_is_waited_for(shop, corral):
    progress(shop, NOBODY, {**NOBODY, "stalled": True}, Hold())
    done = corral("-p", "shop", "up", "-d")
    assert done.code == 1
    assert done.err.count("warning:") == 1, "the same is not told twice"
    assert TOLD in done.err
    assert "release 3 of shop waits for a node, and nothing else of it is under way" in done.err
    assert "it goes on in the background, at once when a node fits: corral -p shop ps" in done.err


@pytest.mark.parametrize("flags", [("--deadline", "600"), ("--wait", "--wait-timeout", "60")])
def test_who_says_how_long_waits_that_long(shop, corral, flags):
    progress(shop, {**NOBODY, "stalled": True}, END)
    done = corral("-p", "shop", "up", "-d", *flags)
    assert done.code == 0
    assert TOLD in done.err


def test_the_pulses_of_a_silent_stream_do_not_make_the_wait_longer(shop, corral):
    progress(shop, *[item for _ in range(1600) for item in (0.05, PULSE)], END)
    done = corral("-p", "shop", "up", "-d", "--wait", "--wait-timeout", "0.5")
    assert (done.code, "is not up after 0.5 s" in done.err) == (1, True)


def test_what_else_is_under_way_is_waited_for(shop, corral):
    progress(shop, NOBODY, END)
    assert corral("-p", "shop", "up", "-d").code == 0


def test_a_node_that_comes_in_time_is_no_failure(shop, corral):
    progress(shop, NOBODY, {"kind": "homeless", "service": "web"}, END)
    assert corral("-p", "shop", "up", "-d").code == 0


def test_the_paragraph_names_every_service():
    board = Board("shop", "release 3")
    board.apply(NOBODY)
    board.apply({**NOBODY, "service": "db", "stalled": True})
    assert board.stalled
    assert nowhere(board).count("n1, n2: is draining") == 2
    board.apply({"kind": "homeless", "service": "db"})
    assert not board.stalled


def test_what_takes_long_is_named_once_and_what_is_quick_not_at_all():
    said, told = [], threading.Event()
    meanwhile = Meanwhile(lambda text: (said.append(text), told.set()), moment=0.05)
    with meanwhile._next:  # between these two there is no time
        meanwhile("a quick step")
        meanwhile("a slow step")
    assert told.wait(300)
    time.sleep(0.2)
    with meanwhile._next:
        meanwhile("another quick step")
        meanwhile._turn(None)
    meanwhile.close()
    assert said == ["corral: a slow step"]


def test_a_slow_controller_is_named(shop, corral):
    def slow(_request):
        time.sleep(1.0)
        return {"stack": "shop", "number": 3, "state": "pending"}

    shop.on("POST", "/v1/stacks/shop/releases", slow)
    progress(shop, END)
    assert "corral: handing over the release\n" in corral("-p", "shop", "up", "-d").err
