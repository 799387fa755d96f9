"""top, stats, port, kill and wait against a scripted controller."""

from __future__ import annotations

import json
import time

import pytest
from fake import Problem

from orchestrator.cli.commands import stats, top
from tests.orchestrator.cli.test_reading import row

NOW = 1_800_000_000.0
MIB = 1 << 20


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setattr(stats, "FIRST", 0.0)


def used(**changes):
    base = {"at": 100.0, "cpu": 10.0, "memory": 64 * MIB, "memory_limit": 256 * MIB, "processes": 3}
    return {**base, "received": 1450, "sent": 0, "read": 4_000_000, "written": 12, **changes}


def inside(name, service, *, node="alpha", **more):
    slot = int(name.rpartition("-")[2])
    return {"id": f"t-{name}", "name": f"shop-{name}", "service": service, "slot": slot,
            "node": node, "reason": "", "usage": None, "processes": [], **more}  # fmt: skip


@pytest.fixture
def shop(fake):
    looks = []

    def usage(request):
        looks.append(request)
        later = {"at": 101.0, "cpu": 10.25} if len(looks) > 1 else {}
        away = inside("web-2", "web", node="beta", reason="node beta is not reached")
        return {"tasks": [inside("web-1", "web", usage=used(**later)), away]}

    process = {"pid": 4242, "parent": 4200, "user": "root", "cpu": 3725.0, "started": NOW - 7450,
               "terminal": True, "command": "nginx: master \x1b[31m"}  # fmt: skip
    fake.on("GET", "/v1/stacks/shop/usage", usage)
    fake.on(
        "GET",
        "/v1/stacks/shop/processes",
        {"tasks": [inside("web-1", "web", processes=[process])]},
    )
    return fake


def test_stats_is_dockers_table_with_the_node(shop, corral):
    done = corral("-p", "shop", "stats", "--no-stream")
    assert done.code == 1, "one node did not answer"
    assert "shop-web-2 on beta: node beta is not reached" in done.err
    lines = [line.split("   ") for line in done.out.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[0] == list(stats.HEADERS)
    assert cells[1] == [
        *("shop-web-1", "alpha", "25.00%", "64MiB / 256MiB", "25.00%"),
        *("1.45kB / 0B", "4MB / 12B", "3"),
    ]
    assert cells[2][:3] == ["shop-web-2", "beta", "--"]


def test_stats_for_programs_has_dockers_keys(shop, corral):
    done = corral("-p", "shop", "stats", "--no-stream", "--format", "json", "web")
    first, second = map(json.loads, done.out.splitlines())
    assert first["CPUPerc"] == "25.00%"
    assert first["usage"]["memory"] == 64 * MIB
    assert {"BlockIO", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs"} <= set(
        second
    )
    assert second["reason"]
    assert shop.requests[-1].query["service"] == ["web"]


@pytest.mark.parametrize(
    ("before", "now", "share"),
    [
        (None, used(), 0.0),
        (used(), used(at=102.0, cpu=13.0), 150.0),
        (used(), used(), 0.0),  # no time has passed
        (used(), used(at=101.0, cpu=0.5), 0.0),  # a new run: its sum begins anew
    ],
)
def test_share_of_a_processor(before, now, share):
    assert stats.share(before, now) == share


@pytest.mark.parametrize(
    ("count", "binary", "decimal"),
    [
        (0, "0B", "0B"),
        (999, "999B", "999B"),
        (1450, "1.416KiB", "1.45kB"),
        (64 * MIB, "64MiB", "67.11MB"),
        (3 << 30, "3GiB", "3.221GB"),
        (5 << 50, "5120TiB", "5629TB"),
    ],
)
def test_amounts_as_docker_writes_them(count, binary, decimal):
    assert (stats.binary(count), stats.decimal(count)) == (binary, decimal)


def test_top_has_the_columns_of_ps_and_nothing_steers_the_terminal(shop, corral):
    done = corral("-p", "shop", "top")
    head, line = done.out.splitlines()
    assert head.split() == list(top.HEADERS)
    assert "\x1b" not in done.out
    cells = line.split()
    assert cells[:7] == ["web", "1", "alpha", "root", "4242", "4200", "50"]
    assert cells[8:10] == ["pts", "01:02:05"]


def test_top_for_programs(shop, corral):
    (found,) = map(json.loads, corral("-p", "shop", "top", "--format", "json").out.splitlines())
    assert (found["Name"], found["pid"]) == ("shop-web-1", 4242)


PORTS = [
    "0.0.0.0:8080->80/tcp",
    "[::1]:5353->53/udp",
    "0.0.0.0:9000-9002->7000-7002/tcp",
    "443/tcp",
]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["80"], "0.0.0.0:8080"),
        (["80/tcp"], "0.0.0.0:8080"),
        (["53/udp"], "[::1]:5353"),
        (["53", "--protocol", "udp"], "[::1]:5353"),
        (["7001"], "0.0.0.0:9001"),
    ],
)
def test_port(fake, corral, words, said):
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": [row("web-1", "web", ports=PORTS)]})
    assert corral("-p", "shop", "port", "web", *words).out == f"{said}\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["web", "53"], 1, "no port 53/tcp"),
        (["web", "443"], 1, "no port 443/tcp"),
        (["web", "http"], 2, "not a port"),
        (["web", "80/sctp"], 2, "not a port"),
        (["wbe", "80"], 1, "no service 'wbe'"),
        (["web", "80", "--index", "3"], 1, "replica 3"),
    ],
)
def test_port_refusals(fake, corral, words, code, said):
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": [row("web-1", "web", ports=PORTS)]})
    done = corral("-p", "shop", "port", *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


@pytest.mark.parametrize("word", ["HUP", "SIGHUP", "hup", "1"])
def test_kill_delivers_a_signal(fake, corral, word):
    answer = {"tasks": ["shop-web-1"], "missed": {}, "stopping": []}
    fake.on("POST", "/v1/stacks/shop/signal", answer)
    done = corral("-p", "shop", "kill", "-s", word, "web")
    assert done.code == 0
    assert "shop-web-1" in done.out
    assert fake.requests[-1].body == {"number": 1, "services": ["web"]}


def test_kill_without_a_word_stops_at_once(fake, corral):
    fake.on("POST", "/v1/stacks/shop/stop", {"name": "shop"})
    ended = row("web-1", "web", state="shutdown", finished_at=NOW)
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": [ended]})
    assert corral("-p", "shop", "kill", "web").code == 0
    stop = next(r for r in fake.requests if r.path.endswith("/stop"))
    assert stop.body == {"timeout": 0.0, "services": ["web"]}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"tasks": [], "missed": {"shop-web-1": "node beta is not reached"}}, "not reached"),
        ({"tasks": [], "missed": {}}, "nothing of shop runs"),
    ],
)
def test_kill_that_reached_nobody_ends_with_1(fake, corral, answer, said):
    fake.on("POST", "/v1/stacks/shop/signal", {"stopping": [], **answer})
    done = corral("-p", "shop", "kill", "-s", "USR1")
    assert done.code == 1
    assert said in done.err


def test_kill_with_no_signal_that_exists(fake, corral):
    done = corral("-p", "shop", "kill", "-s", "SIGNOPE")
    assert done.code == 2
    assert "SIGNOPE" in done.err
    assert fake.requests == []


def paused_rows(fake, *looks):
    left = list(looks)
    fake.on("POST", "/v1/stacks/shop/pause", {"tasks": ["t-web-1", "t-web-2"]})
    fake.on(
        "GET",
        "/v1/stacks/shop/tasks",
        lambda _: {"tasks": left.pop(0) if len(left) > 1 else left[0]},
    )


@pytest.mark.parametrize(("verb", "paused"), [("pause", True), ("unpause", False)])
def test_pause_waits_until_every_node_has_done_it(fake, corral, verb, paused):
    one, two = row("web-1", "web", paused=not paused), row("web-2", "web", paused=not paused)
    done = {"paused": paused}
    paused_rows(fake, [one, two], [{**one, **done}, two], [{**one, **done}, {**two, **done}])
    found = corral("-p", "shop", verb, "web")
    assert found.code == 0
    assert [line.split()[0] for line in found.out.splitlines()] == ["shop-web-1", "shop-web-2"]
    asked = next(r for r in fake.requests if r.method == "POST")
    assert asked.body == {"paused": paused, "services": ["web"]}


def test_pause_of_what_ends_meanwhile_is_done_and_of_a_silent_node_is_not(fake, corral):
    ended_ = row("web-1", "web", finished_at=NOW)
    silent = row("web-2", "web", node="beta", node_status="down", status="unknown: beta is silent")
    paused_rows(fake, [ended_, silent])
    found = corral("-p", "shop", "pause")
    assert found.code == 1
    assert "shop-web-2 on beta: not yet" in found.err


def test_pause_of_nothing_that_runs(fake, corral):
    fake.on("POST", "/v1/stacks/shop/pause", {"tasks": []})
    found = corral("-p", "shop", "pause", "web")
    assert (found.code, "nothing of web runs" in found.err) == (1, True)


@pytest.mark.parametrize(
    ("verb", "services", "were", "code", "out", "err"),
    [
        # web-1 and db-1 were paused (P) or not (-)
        ("unpause", ["web"], "-P", 1, [], ["shop-web-1 is not paused"]),
        ("pause", ["web"], "P-", 1, [], ["shop-web-1 is already paused"]),
        ("unpause", ["web", "db"], "-P", 1, ["shop-db-1 goes on"], ["shop-web-1 is not paused"]),
        ("pause", ["web", "db"], "P-", 1, ["shop-db-1 paused"], ["shop-web-1 is already paused"]),
        ("unpause", [], "-P", 0, ["shop-db-1 goes on"], []),
        ("unpause", [], "--", 0, [], ["nothing of shop is paused"]),
        ("pause", [], "PP", 0, [], ["all of shop is already paused"]),
        ("pause", [], "P-", 0, ["shop-db-1 paused"], []),
        ("unpause", ["web"], "P-", 0, ["shop-web-1 goes on"], []),
    ],
)
def test_what_is_so_already_is_said(fake, corral, verb, services, were, code, out, err):
    rows = [
        row(f"{name}-1", name, paused=was == "P")
        for name, was in zip(("web", "db"), were, strict=True)
    ]

    def pause(request):
        mine = [one for one in rows if not services or one["service"] in services]
        for one in mine:
            one["paused"] = request.body["paused"]
        return {"tasks": [one["id"] for one in mine]}

    fake.on("POST", "/v1/stacks/shop/pause", pause)
    fake.on("GET", "/v1/stacks/shop/tasks", lambda _: {"tasks": rows})
    done = corral("-p", "shop", verb, *services)
    assert (done.code, done.out.splitlines()) == (code, out), done.err
    assert [line.removeprefix("corral: ") for line in done.err.splitlines()] == err


def test_some_replicas_of_a_service_come_to_it_and_no_more_is_said(fake, corral):
    one, two = row("web-1", "web", paused=True), row("web-2", "web")
    paused_rows(fake, [one, two], [one, two], [one, {**two, "paused": True}])
    done = corral("-p", "shop", "pause", "web")
    assert (done.code, done.out, done.err) == (0, "shop-web-2 paused\n", "")


def waiting(fake, *looks):
    """The stack's tasks as each look finds them; the last for ever."""
    left = list(looks)

    def tasks(_request):
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, Problem):
            raise found
        return {"tasks": found}

    fake.on("GET", "/v1/stacks/shop/tasks", tasks)


def ended(name, code, at, **more):
    state = "failed" if code else "complete"
    return row(name, "job", state=state, exit_code=code, finished_at=at, **more)


def test_wait_ends_with_the_code_of_the_last(fake, corral):
    runs = row("job-2", "job")
    waiting(
        fake,
        [row("job-1", "job"), runs],
        [ended("job-1", 3, NOW), runs],
        [ended("job-1", 3, NOW), ended("job-2", 7, NOW + 1)],
    )
    done = corral("-p", "shop", "wait", "job")
    assert done.code == 7
    assert done.out.splitlines() == [
        "container 'shop-job-1' exited with status code 3",
        "container 'shop-job-2' exited with status code 7",
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"state": "failed"}, "container 'shop-job-1' ended, its exit code is unknown"),
        ({"state": "shutdown"}, "container 'shop-job-1' ended, its exit code is unknown"),
        ({"state": "rejected", "started_at": None}, "container 'shop-job-1' never began"),
    ],
)
def test_wait_says_where_there_is_no_code_to_say(fake, corral, more, said):
    gone = row("job-1", "job", **{"exit_code": None, "finished_at": NOW, "started_at": 1.0, **more})
    waiting(fake, [gone])
    done = corral("-p", "shop", "wait", "job")
    assert (done.code, done.out) == (1, f"{said}\n"), done.err


def test_wait_for_what_an_older_attempt_left_waits_for_the_new_one(fake, corral):
    old = ended("job-1", 1, NOW - 50, id="old", created_at=NOW - 1000)
    waiting(fake, [old, row("job-1", "job")], [old, ended("job-1", 0, NOW)])
    done = corral("-p", "shop", "wait", "job")
    assert (done.code, len(done.out.splitlines())) == (0, 1)


@pytest.mark.parametrize("last", [False, True])
def test_wait_for_a_run_that_is_removed_when_it_ends(fake, corral, last):
    """Its row goes with its end; its record, remembered for a while, has the code."""
    once = row("once", "web", oneoff=True)
    others = [] if last else [row("web-1", "web")]
    gone = Problem(404, {"type": "not-found", "title": "", "status": 404, "detail": "no stack"})
    waiting(fake, [once, *others], gone if last else others)
    status = {"runs": [{"started_at": NOW, "finished_at": NOW, "exit_code": 7}]}
    fake.on("GET", f"/v1/tasks/{once['id']}", {"state": "failed", "status": status})
    done = corral("-p", "shop", "wait", once["name"])
    assert (done.code, done.out.endswith("status code 7\n")) == (7, True), done.err


def test_wait_for_nobody(fake, corral):
    waiting(fake, [row("web-1", "web")])
    done = corral("-p", "shop", "wait", "job", "web")
    assert done.code == 1
    assert "no containers of job" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["port", "once", "80"], "0.0.0.0:9999\n"),
        (["port", "web", "80"], "0.0.0.0:8080\n"),
        (["pause", "once"], "shop-once paused\n"),
        (["pause", "web"], "shop-web-1 paused\n"),
    ],
)
def test_what_run_made_is_meant_by_its_name(fake, corral, words, said):
    once = row("once", "web", oneoff=True, ports=["0.0.0.0:9999->80/tcp"])
    rows = [row("web-1", "web", ports=["0.0.0.0:8080->80/tcp"]), once]
    rows[1]["name"] = "once"

    def tasks(request):
        wanted = request.query.get("all") == ["1"] and request.query.get("oneoffs") == ["1"]
        return {"tasks": rows if wanted else rows[:1]}

    fake.on("GET", "/v1/stacks/shop/tasks", tasks)
    meant = rows[1] if words[1] == "once" else rows[0]

    def pause(_):
        meant["paused"] = True
        return {"tasks": [meant["id"]]}

    fake.on("POST", "/v1/stacks/shop/pause", pause)
    done = corral("-p", "shop", *words)
    assert (done.code, done.out) == (0, said.replace("shop-once", "once")), done.err
