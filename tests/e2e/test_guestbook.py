"""The example's life on one machine: the steps of the demo, held as laws."""

from __future__ import annotations

import json

import pytest

from orchestrator.lab.host import CHECKOUT
from tests.e2e.cluster import FOLDER, json_lines, names

pytestmark = pytest.mark.real

STACK = "guestbook"


@pytest.fixture
def guestbook(corral):
    corral.folder = f"{FOLDER}/guestbook"
    corral.host.copy_in(CHECKOUT / "examples/guestbook", corral.folder)
    corral.env = {"GUESTBOOK_BASE": "corral/debian-base:12", "GUESTBOOK_PORT": "8080"}
    return corral


def page(corral, path="/api", data=""):
    words = ["curl", "-sS", "--fail", "--max-time", "60", *(["--data", data] if data else [])]
    return corral.host.run([*words, f"http://127.0.0.1:8080{path}"]).stdout


def served(corral):
    """Wait for the page: `up` ends when tasks are ready, and nodes hear of it a moment later."""
    words = ["curl", "-sS", "--fail", "--max-time", "8", "http://127.0.0.1:8080/api"]
    corral.until("the page", lambda: corral.host.run(words, check=False).returncode == 0)


def run_of(corral, name):
    return corral.task(corral.row(name, STACK))["status"]["runs"][-1]


def test_the_whole_life(guestbook):
    corral = guestbook
    done = corral("up", "-d", timeout=240)
    assert "release 1 done" in done.stderr

    # Order: each started after what it depends on was ready.
    migrate, redis, proxy = (run_of(corral, name) for name in ("migrate-1", "redis-1", "proxy-1"))
    webs = [run_of(corral, f"web-{n}") for n in (1, 2, 3)]
    assert redis["started_at"] < migrate["started_at"]
    assert migrate["exit_code"] == 0
    for web in webs:
        assert migrate["finished_at"] <= web["started_at"], "migration finished before web started"
        assert web["started_at"] < proxy["started_at"], "proxy started after web"
    said = [line for line in done.stderr.splitlines() if "running (healthy)" in line]
    assert "redis-1" in said[0]
    assert "proxy-1" in said[-1], "web was healthy before proxy"

    # ps
    rows = json_lines(corral("ps", "--format", "json").stdout)
    assert names(row["corral"] for row in rows) == ["proxy-1", "redis-1", "web-1", "web-2", "web-3"]
    assert all(row["State"] == "running" and row["ready"] for row in rows)
    table = corral("ps").stdout
    assert "guestbook-web-3" in table
    assert "0.0.0.0:8080->8080/tcp" in table
    assert "completed" in corral("ps", "-a").stdout or "complete (0)" in corral("ps", "-a").stdout

    # The page, and an entry that must survive everything below.
    served(corral)
    first = json.loads(page(corral))
    assert [entry["text"] for entry in first["entries"]] == ["Welcome!"]
    page(corral, data='{"name": "e2e", "text": "stays"}')
    assert "<b>e2e</b>: stays" in page(corral, "/")
    seen = {json.loads(page(corral))["task"] for _ in range(30)}
    assert seen == {f"guestbook-web-{n}" for n in (1, 2, 3)}, "every replica gets its share"

    # An unchanged up touches nothing.
    before = corral.processes(STACK)
    assert len(before) == 5
    corral("up", "-d")
    assert corral.processes(STACK) == before
    assert run_of(corral, "migrate-1") == migrate, "a completed one-off is not run again"

    # Scale
    corral("scale", "web=6")
    assert names(r for r in corral.rows(STACK, "web") if r["ready"]) == [
        f"web-{n}" for n in range(1, 7)
    ]
    assert before.items() <= corral.processes(STACK).items(), "scaling touches no other container"

    # Crash
    before = corral.processes(STACK)
    victims = {name: corral.row(name, STACK) for name in ("web-2", "redis-1")}
    pids = [str(run_of(corral, name)["pid"]) for name in victims]
    corral.host.run(["kill", "-9", *pids])
    corral.until(
        "both restarted and ready",
        lambda: all(
            row["restarts"] == 1 and row["ready"]
            for row in (corral.row(name, STACK) for name in victims)
        ),
    )
    after = corral.processes(STACK)
    hurt = {row["id"] for row in victims.values()}
    assert after.keys() == before.keys(), "a restart in place keeps the task"
    changed = {task for task in after if after[task] != before[task]}
    # On a busy machine a web that finds no redis may be unhealthy for long enough.
    sick = {
        row["id"]
        for row in corral.rows(STACK, "web")
        if any("unhealthy" in run["reason"] for run in corral.task(row)["status"]["runs"])
    }
    assert hurt <= changed <= hurt | sick
    corral.until("ready again", lambda: all(row["ready"] for row in corral.rows(STACK)))
    served(corral)
    assert "stays" in [entry["text"] for entry in json.loads(page(corral))["entries"]]
    assert corral.task(corral.row("web-2", STACK))["status"]["runs"][-2]["exit_code"] == 137

    # A changed version is rolled out to web only, and what scale set stays.
    before = corral.processes(STACK)
    keep = {corral.row(name, STACK)["id"] for name in ("redis-1", "proxy-1")}
    corral.env["GUESTBOOK_VERSION"] = "2"
    corral("up", "-d", timeout=240)
    assert {json.loads(page(corral))["version"] for _ in range(12)} == {"2"}
    after = corral.processes(STACK)
    assert {task for task in after if after[task] == before.get(task)} == keep
    assert len(corral.rows(STACK, "web")) == 6
    assert "stays" in page(corral)

    # Down, in reverse order, and nothing is left (the fixture looks, too).
    done = corral("down", "-v")
    stopped = [line.split()[0] for line in done.stderr.splitlines() if "stopped (" in line]
    assert stopped[0] == "proxy-1"
    assert stopped[-1] == "redis-1"
    assert set(stopped[1:-1]) == {f"web-{n}" for n in range(1, 7)}
    assert "guestbook" not in corral("ls").stdout
    refused = corral.host.run(["curl", "-sS", "http://127.0.0.1:8080/"], check=False)
    assert refused.returncode == 7, "nothing listens any more"
    assert corral.sh("ls /var/lib/corral/agent/volumes 2>/dev/null || true") == ""
