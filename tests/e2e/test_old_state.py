"""A copy of state.db put back in place: nothing stops before somebody has decided."""

from __future__ import annotations

import time

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]  # three controllers, a busy machine

SERVICE = """
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
    init: false
"""
SHOP = f"services:\n  web:{SERVICE}    environment: {{VERSION: '${{VERSION:-1}}'}}\n"
NEW = f"services:\n  api:{SERVICE}    secrets: [key]\nsecrets: {{key: {{file: key}}}}\n"
STATE, COPY = "/var/lib/corral/controller", "/root/copy"


def replace(corral, script):
    """Kill the controller, run the script, and start it again."""
    corral.unsupervised()
    corral.kill("controller")
    corral.until("no controller", lambda: not corral.daemon("controller"))
    corral.sh(script)
    corral.begin()


def alive(corral, processes):
    return {pid for pid, start in processes.values() if corral.start_time(pid) == start}


@pytest.fixture(autouse=True)
def no_copy(corral):
    yield
    corral.sh(f"rm -rf {COPY}")
    corral("state", "discard", "--yes", code=None)  # a failed test leaves the question open


def test_an_older_state_is_asked_about_and_taken_over_or_discarded(corral):
    corral.compose(SHOP, "shop")
    corral("up", "-d")
    replace(corral, f"cp -a {STATE} {COPY}")
    corral.compose(SHOP, "shop")
    corral("up", "-d", "--scale", "web=3", env={"VERSION": "2"})
    corral.compose(NEW, "new", key="secret")
    corral("up", "-d")
    before = {**corral.processes("shop"), **corral.processes("new")}
    assert len(before) == 4

    replace(corral, f"rm {STATE}/state.db*; cp -a {COPY}/state.db* {STATE}/")
    corral.until("a question", lambda: corral.get("/v1/state")["behind"])
    shown = corral("state", code=1).stdout
    for words in ("shop is older here", "new is not known here", "new-api-1 on "):
        assert words in shown
    refused = corral("-p", "shop", "scale", "web=0", code=1).stderr
    assert "Nothing is changed" in refused
    assert "state adopt" in refused
    assert "shop" in corral("ls").stdout, "reads are served"
    time.sleep(1)  # a wrong step would be taken with the first look
    pids = {pid for pid, _ in before.values()}
    assert alive(corral, before) == pids, "law: nothing stops"

    adopted = corral("state", "adopt").stdout
    assert "stack new: taken over" in adopted
    corral.until(
        "all are ready",
        lambda: (
            [row["ready"] for name in ("shop", "new") for row in corral.rows(name)] == [True] * 4
        ),
    )
    assert {**corral.processes("shop"), **corral.processes("new")} == before, "law: the same pids"
    assert "as new as what runs" in corral("state").stdout
    corral.compose(NEW, "new", key="secret")
    corral("up", "-d")
    assert corral.processes("new").items() <= before.items(), "the same file changes nothing"
    assert corral("exec", "-T", "api", "cat", "/run/secrets/key").stdout == "secret"

    replace(corral, f"rm {STATE}/state.db*; cp -a {COPY}/state.db* {STATE}/")
    corral.until("a question", lambda: corral.get("/v1/state")["behind"])
    assert "nothing was changed" in corral("state", "discard", code=1).stderr
    assert alive(corral, before) == pids
    corral("state", "discard", "--yes")
    corral.until("the newer ones go", lambda: not alive(corral, before))
    corral.until(
        "the older one runs", lambda: [row["ready"] for row in corral.rows("shop")] == [True]
    )
