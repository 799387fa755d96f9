"""`ps` shows one container a name, and Compose's keys in JSON.

Compose: a name has one container, `ps -a` too. Here what is replaced ends for a while beside its
replacement, and what failed is kept to be seen: `ps` shows the one the name means, `ps -a` the
others marked as past.
"""

from __future__ import annotations

import json
import time

import pytest

from orchestrator.cli.show import containers
from specs import states

NOW = 1_800_000_000.0


def row(name, state="running", *, at=0, **more):
    return {
        "id": f"{name}-{at}",
        "name": f"shop-{name}",
        "service": name.rpartition("-")[0],
        "image": "web:1",
        "command": "sleep 600",
        "state": state,
        "status": state,
        "ready": state == "running",
        "health": "none",
        "created_at": NOW - 600 + at,
        "started_at": NOW - 180,
        "ports": [],
        **more,
    }


NAMES = {
    # tasks of one name, the second made later -> which of them the name means
    "one": ([row("web-1")], [0]),
    "failed, and its replacement runs": ([row("web-1", "failed"), row("web-1", at=9)], [1]),
    "failed, and its replacement starts": (
        [row("web-1", "failed"), row("web-1", "starting", at=9)],
        [1],
    ),
    "failed twice": ([row("web-1", "failed"), row("web-1", "failed", at=9)], [1]),
    "being replaced, the new one gets ready": (
        [row("web-1"), row("web-1", "prepared", at=9)],
        [0],
    ),
    "being replaced, the new one starts": (
        [row("web-1", stopping=True), row("web-1", "starting", at=9)],
        [1],
    ),
    "replaced, the old one still ends": ([row("web-1", stopping=True), row("web-1", at=9)], [1]),
    "an update that failed beside what serves": ([row("web-1"), row("web-1", "failed", at=9)], [0]),
    "unhealthy, and its replacement gets ready": (
        [row("web-1", ready=False), row("web-1", "assigned", at=9)],
        [1],
    ),
    "stopping, nothing follows": ([row("web-1", stopping=True)], [0]),
    "stopped, and one that failed before": (
        [row("web-1", "failed"), row("web-1", "shutdown", at=9)],
        [1],
    ),
    "one-off, run again": ([row("job-1", "complete"), row("job-1", "complete", at=9)], [1]),
}
ENDED = {"failed", "complete", "shutdown"}


@pytest.mark.parametrize("case", NAMES)
def test_one_container_a_name(fake, corral, monkeypatch, case):
    rows, meant = NAMES[case]
    monkeypatch.setattr(time, "time", lambda: NOW)
    other = row("db-1")

    def tasks(request):
        every = request.query.get("all") == ["1"]
        return {"tasks": [r for r in (*rows, other) if every or r["state"] not in ENDED]}

    fake.on("GET", "/v1/stacks/shop/tasks", tasks)
    ids = [rows[i]["id"] for i in meant]
    shown = corral("-p", "shop", "ps", "-q").out.split()
    live = [one for one in ids if not one.startswith("gone")]
    assert [one for one in shown if one != "db-1-0"] == [
        one for one in live if rows[meant[0]]["state"] not in ENDED
    ]
    every = corral("-p", "shop", "ps", "-a").out.splitlines()[1:]
    assert len(every) == len(rows) + 1, "law: -a hides nothing"
    assert sum("(past)" in line for line in every) == len(rows) - len(ids)
    found = map(json.loads, corral("-p", "shop", "ps", "-a", "--format", "json").out.splitlines())
    assert sorted(r["ID"] for r in found if not r["past"]) == sorted(["db-1-0", *ids])


STATES = {
    # a row -> State, Status, Health, ExitCode
    "runs": (row("web-1"), "running", "Up 3 min", "", 0),
    "healthy": (row("web-1", health="healthy"), "running", "Up 3 min (healthy)", "healthy", 0),
    "unhealthy": (
        row("web-1", ready=False, health="unhealthy"),
        "running",
        "Up 3 min (unhealthy)",
        "unhealthy",
        0,
    ),
    "not healthy yet": (
        row("web-1", "starting", health="starting"),
        "running",
        "Up 3 min (health: starting)",
        "starting",
        0,
    ),
    "no place yet": (row("web-1", "pending", started_at=None), "created", "Created", "", 0),
    "waits for another": (row("web-1", "prepared", started_at=None), "created", "Created", "", 0),
    "restarts": (
        row("web-1", "running", ready=False, exit_code=4, finished_at=NOW - 2, restarts=3),
        "restarting",
        "Restarting (4) 2 s ago",
        "",
        4,
    ),
    "failed": (
        row("web-1", "failed", exit_code=3, finished_at=NOW - 60),
        "exited",
        "Exited (3) 1 min ago",
        "",
        3,
    ),
    "completed": (
        row("web-1", "complete", exit_code=0, finished_at=NOW - 60),
        "exited",
        "Exited (0) 1 min ago",
        "",
        0,
    ),
    "never ran": (
        row("web-1", "rejected", started_at=None),
        "exited",
        "Exited (never began)",
        "",
        1,
    ),
    "stopped before it began": (
        row("web-1", "shutdown", started_at=None),
        "exited",
        "Exited (never began)",
        "",
        1,
    ),
    "nobody saw how it ended": (
        row("web-1", "failed", exit_code=None, finished_at=NOW - 60),
        "exited",
        "Exited (unknown) 1 min ago",
        "",
        1,
    ),
    "and it is restarted": (
        row("web-1", "running", ready=False, exit_code=None, finished_at=NOW - 2, restarts=3),
        "restarting",
        "Restarting (unknown) 2 s ago",
        "",
        1,
    ),
    "its node is down": (
        row("web-1", health="healthy", node_status="down", status="down: n3 does not answer"),
        "running",
        "down: n3 does not answer",
        "healthy",
        0,
    ),
    "its node is not heard": (
        row("web-1", node_status="unknown", status="unknown: n3 is silent for 5 s"),
        "running",
        "unknown: n3 is silent for 5 s",
        "",
        0,
    ),
    "ended, whatever its node": (
        row("web-1", "failed", exit_code=3, finished_at=NOW - 60, node_status="down"),
        "exited",
        "Exited (3) 1 min ago",
        "",
        3,
    ),
    "its node is not ready": (row("web-1", node_status="unready"), "running", "Up 3 min", "", 0),
}


@pytest.mark.parametrize("case", STATES)
def test_a_state_in_docker_s_words(case):
    given, *expected = STATES[case]
    found = containers.as_compose(given, project="shop", command="sleep 600", at=NOW)
    assert [found[key] for key in ("State", "Status", "Health", "ExitCode")] == expected
    assert {key: found[key] for key in given} == given, "what scripts of ours read is as it was"


def test_what_has_ended_is_what_the_states_say():
    assert {state.value for state in states.FINAL} == containers.FINAL


def test_the_keys_are_compose_s():
    found = containers.as_compose(row("web-1"), project="shop", command="sleep 600", at=NOW)
    keys = """
    Command Created CreatedAt ExitCode Health ID Image Labels LocalVolumes Mounts Name Names
    Networks Ports Project Publishers RunningFor Service Size State Status
    """
    assert {key for key in found if key[0].isupper()} == {*keys.split(), "Node"}
    assert found["Created"] == NOW - 600
    assert isinstance(found["Created"], int)
    assert found["Command"] == '"sleep 600"'


@pytest.mark.parametrize(
    ("text", "url", "published", "target", "protocol"),
    [
        ("0.0.0.0:8080->80/tcp", "0.0.0.0", 8080, 80, "tcp"),
        ("[::]:8080->80/udp", "::", 8080, 80, "udp"),
        ("127.0.0.1:53->5353/udp", "127.0.0.1", 53, 5353, "udp"),
        ("80/tcp", "", 0, 80, "tcp"),
        ("80", "", 0, 80, "tcp"),
        ("0.0.0.0:8080-8090->80/tcp", "0.0.0.0", "8080-8090", 80, "tcp"),
    ],
)
def test_a_port_is_a_publisher(text, url, published, target, protocol):
    assert containers.publisher(text) == {
        "URL": url,
        "TargetPort": target,
        "PublishedPort": published,
        "Protocol": protocol,
    }


@pytest.mark.parametrize("state", ["running", "complete", "failed", "shutdown"])
def test_what_has_ended_holds_no_port(state):
    text = "0.0.0.0:80->80/tcp"
    given = {"id": "t", "name": "web-1", "state": state, "ports": [text]}
    shown = containers.as_compose(given, project="shop", command="", at=NOW)
    assert shown["Ports"] == (text if state == "running" else "")
    assert len(shown["Publishers"]) == (state == "running")
