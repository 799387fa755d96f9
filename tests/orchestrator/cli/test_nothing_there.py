"""What commands say where there is nothing: no stack of that name, or none of it runs.

Who asks for what is so already (`stop`, `down`, `ps`) gets 0 and a word; who asks for
something to be done with what is not there gets 1 and is told what makes it.
"""

from __future__ import annotations

import pytest
from fake import Problem

ABSENT = {
    "type": "not-found",
    "title": "Not found",
    "status": 404,
    "detail": "there is no stack shop",
    "hint": "corral ls shows the stacks there are; corral up -d makes the one of this folder",
}

# command -> exit code, what is said
NO_STACK = {
    ("stop",): (0, "no stack shop: nothing to stop"),
    ("stop", "web"): (0, "no stack shop: nothing to stop"),
    ("stop", "-t", "0"): (0, "no stack shop: nothing to stop"),
    ("down",): (0, "no such stack, nothing to remove"),
    ("down", "-v"): (0, "no such stack, nothing to remove"),
    ("ps",): (0, "there is no stack shop"),
    ("ps", "-a", "-q"): (0, "there is no stack shop"),
    ("ps", "web"): (1, "there is no stack shop"),
    ("start",): (1, "corral up -d makes"),
    ("start", "web"): (1, "corral up -d makes"),
    ("restart",): (1, "corral up -d makes"),
    ("scale", "web=2"): (1, "corral up -d makes"),
    ("logs",): (1, "corral up -d makes"),
}


@pytest.mark.parametrize("words", NO_STACK, ids=" ".join)
def test_a_stack_that_is_not_there(fake, corral, words):
    def absent(_request, *_groups):
        raise Problem(404, ABSENT)

    for method in ("GET", "POST", "DELETE"):
        fake.on(method, "/v1/stacks/shop(/.*)?", absent)
    code, said = NO_STACK[words]
    done = corral("-p", "shop", *words)
    assert done.code == code, done.err
    assert said in done.err
    assert "shop" in done.err
    if words[0] != "ps":
        assert not done.out


WHY = "web: nosuch/image:1 cannot be found"
# how the stack is -> what `ps` says of it when it has nothing to list; "" = nothing
NOTHING_RUNS = {
    ("pending", "", 0): "release 3 of shop is being prepared (images); nothing runs yet",
    ("deploying", "", 0): "release 3 of shop is being deployed; nothing runs yet",
    ("failed", WHY, 0): f"release 3 of shop failed, and nothing runs: {WHY}",
    (
        "failed",
        f"{WHY}\n  RUN make\n  no rule",
        0,
    ): f"release 3 of shop failed, and nothing runs: {WHY}",
    ("failed", "", 0): "release 3 of shop failed, and nothing runs",
    ("stopped", "the stack was stopped", 2): "shop is stopped (ps -a shows what ended)",
    ("removing", "", 2): "shop is being removed",
    ("degraded", "", 0): "",
    ("running", "", 0): "",  # scaled to 0: as asked
}


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("case", NOTHING_RUNS, ids=lambda case: f"{case[0]} {case[1]}")
def test_ps_says_why_it_lists_nothing(fake, corral, case, quiet):
    status, reason, running = case
    detail = {"name": "shop", "status": status, "release": 3, "running": running}
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": []})
    fake.on("GET", "/v1/stacks/shop", {**detail, "reason": reason, "services": []})
    done = corral("-p", "shop", "ps", *(["-q"] if quiet else []))
    assert done.code == 0
    said = NOTHING_RUNS[case]
    assert done.err == (f"corral: {said}\n" if said else "")


def test_ps_of_a_service_of_what_failed_says_why_too(fake, corral):
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": []})
    detail = {"name": "shop", "status": "failed", "release": 1, "running": 0, "reason": WHY}
    fake.on("GET", "/v1/stacks/shop", detail)
    done = corral("-p", "shop", "ps", "web")
    assert done.code == 1
    assert f"release 1 of shop failed, and nothing runs: {WHY}" in done.err


def test_what_runs_is_not_talked_about(fake, corral):
    row = {"id": "t1", "name": "shop-web-1", "service": "web", "state": "running"}
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": [row]})
    done = corral("-p", "shop", "ps", "-q")
    assert (done.code, done.out, done.err) == (0, "t1\n", "")
    assert not fake.asked("GET", "/v1/stacks/shop"), "one request is enough"
