"""`corral rollout`: what each action asks for, prints and ends with."""

from __future__ import annotations

import time

import pytest
from fake import Lines, Problem

from orchestrator.cli import main

AT = time.mktime((2026, 11, 28, 12, 30, 0, 0, 0, -1))
PATH = "/v1/stacks/shop/rollout"


def service(name, **more):
    row = {"service": name, "way": "rolling", "state": "going", "updated": 2, "total": 6}
    return {**row, "unavailable": 1, "under_way": [], "waits": "", "until": 0.0, "kept": [], **more}


def status(*services, **more):
    head = {"stack": "shop", "release": 7, "state": "deploying", "reason": "", "running": 6}
    return {**head, "back": "", "back_reason": "", "services": list(services), **more}


GOLDEN = {
    "under way": (
        status(service("web", under_way=["shop-web-3"])),
        """
shop: release 7 is deploying
SERVICE   WAY       STATE   UPDATED   MISSING   WHAT IT WAITS FOR
web       rolling   going   2/6       1         under way: shop-web-3
""",
    ),
    "paused, a canary, one kept": (
        status(
            service("api", state="paused", waits="it is paused", unavailable=0),
            service("db", way="canary", state="canary", waits="watched for 600 s", until=AT),
            service("web", way="blue-green", state="done", kept=["a", "b"], kept_until=AT),
        ),
        """
shop: release 7 is deploying
SERVICE   WAY          STATE    UPDATED   MISSING   WHAT IT WAITS FOR
api       rolling      paused   2/6       0         it is paused
db        canary       canary   2/6       1         watched for 600 s, until 12:30:00
web       blue-green   done     2/6       1         2 old tasks are kept until 12:30:00
""",
    ),
    "rolled back": (
        status(state="rolled_back", reason="it was aborted", back="done"),
        """
shop: release 7 is rolled back: it was aborted
release 6 runs again
""",
    ),
    "a way back that failed": (
        status(state="rolled_back", back="failed", back_reason="web: exited with code 1"),
        """
shop: release 7 is rolled back
going back failed: web: exited with code 1
""",
    ),
}


@pytest.fixture
def corral(fake, clean_environment, capsys):
    def run(*words):
        code = main.main(["-p", "shop", "rollout", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.parametrize("case", GOLDEN)
def test_how_far_it_is(corral, fake, case):
    answer, text = GOLDEN[case]
    fake.on("GET", PATH, answer)
    assert corral("status") == (0, text.lstrip("\n"), "")


def test_only_some_services(corral, fake):
    fake.on("GET", PATH, status(service("api"), service("web")))
    assert "api" not in corral("status", "web")[1]


@pytest.mark.parametrize("action", ["pause", "resume", "promote"])
def test_what_is_asked_for(corral, fake, action):
    fake.on("POST", PATH, {"release": 7, "services": ["web"], "message": "release 7 goes on"})
    fake.on("GET", "/v1/stacks/shop/progress", lambda _: Lines([{"kind": "end", "ok": True}]))
    code, out, err = corral(action, "web")
    assert (code, out) == (0, "")
    assert err.startswith("shop: release 7 goes on\n")
    (asked,) = [r.body for r in fake.requests if r.method == "POST"]
    assert (asked["action"], asked["services"]) == (action, ["web"])
    followed = [r for r in fake.requests if r.path.endswith("/progress")]
    assert bool(followed) == (action != "pause")


@pytest.mark.parametrize(
    ("back", "reason", "code", "words"),
    [("done", "", 0, "shop: release 6 runs again"), ("failed", "no", 1, "going back failed: no")],
)
def test_an_abort_waits_until_what_ran_runs_again(corral, fake, back, reason, code, words):
    fake.on("POST", PATH, {"release": None, "services": [], "message": "release 7 is aborted"})
    looks = [status(state="rolled_back", back="going")]
    ended = status(state="rolled_back", back=back, back_reason=reason)
    fake.on("GET", PATH, lambda _: looks.pop() if looks else ended)
    ended_with, _, err = corral("abort")
    assert (ended_with, words in err) == (code, True)


def test_what_cannot_be_is_said(corral, fake):
    def refuse(*_):
        problem = {"type": "conflict", "title": "Conflict", "status": 409}
        raise Problem(409, {**problem, "detail": "there is nothing to pause", "hint": "look"})

    fake.on("POST", PATH, refuse)
    code, _, err = corral("pause")
    assert code == 1
    assert "there is nothing to pause" in err
