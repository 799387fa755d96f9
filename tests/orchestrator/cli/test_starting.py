"""start and stop against a scripted controller: what is asked, shown, and the exit code."""

from __future__ import annotations

import pytest
from fake import Hold, Lines, Problem

from orchestrator.cli.show.rows import lines_of


def line(name, state, **more):
    service = name.rpartition("-")[0]
    task = {"task": f"t-{name}", "name": f"shop-{name}", "node": "alpha", "state": state}
    return {"kind": "task", "service": service, "ready": state == "running", **task, **more}


def row(name, state, **more):
    service = name.rpartition("-")[0]
    found = {"id": f"t-{name}", "name": f"shop-{name}", "service": service, "state": state}
    return {**found, "node": "alpha", "node_status": "ready", "started_at": 1.0, **more}


GOOD = [
    {"kind": "release", "state": "deploying"},
    line("db-1", "running"),
    line("web-1", "running"),
    {"kind": "service", "service": "web", "running": 1, "wanted": 1},
    {"kind": "end", "ok": True, "state": "deployed"},
]
FAILED = {
    "kind": "end",
    "ok": False,
    "service": "web",
    "task": "t-web-1",
    "message": "web-1 exited with code 3",
    "exit_code": 3,
    "log_tail": ["no such table"],
}


@pytest.fixture
def shop(fake):
    fake.on("POST", "/v1/stacks/shop/start", {"stack": "shop", "release": 4, "completed": []})
    fake.on("GET", "/v1/stacks/shop/progress", Lines(GOOD))
    return fake


@pytest.mark.parametrize("services", [[], ["web"], ["db", "web"]])
def test_start_asks_once_and_watches_the_release_it_made(shop, corral, services):
    done = corral("-p", "shop", "start", *services)
    assert done.code == 0
    (asked,) = shop.asked("POST", ".*/start")
    assert len(asked.body.pop("key")) == 32
    assert asked.body == {"services": services}
    assert shop.asked("GET", ".*/progress")[0].query == {"release": ["4"]}
    assert "web-1 on alpha: running\nshop: start done, 1/1 replicas (" in done.err


@pytest.mark.parametrize(
    ("lines", "flags", "code", "said"),
    [
        ([GOOD[0], FAILED], [], 1, "corral: start of shop failed: web-1 exited with code 3\n"),
        ([GOOD[0], FAILED], [], 1, "    | no such table\n"),
        ([line("web-1", "prepared", reason="waits for db to be healthy"), Hold()],
         ["--wait-timeout", "50"], 1, "after 50 s: web (waits for db to be healthy)"),
        ([Hold()], ["-d"], 0, ""),
        ([{**GOOD[-1], "completed": ["migrate"]}], [], 0,
         "migrate: completed before, not run again; corral -p shop restart migrate runs it again"),
    ],
)  # fmt: skip
def test_how_a_start_ends(shop, corral, over_after, lines, flags, code, said):
    if "--wait-timeout" in flags:
        over_after(lines.index(lines[-1]))
    shop.on("GET", "/v1/stacks/shop/progress", Lines(lines))
    done = corral("-p", "shop", "start", *flags)
    assert done.code == code
    assert said in done.err


def test_nothing_to_start_is_said_and_good(shop, corral):
    answer = {"stack": "shop", "release": None, "completed": ["migrate", "seed"]}
    shop.on("POST", "/v1/stacks/shop/start", answer)
    done = corral("-p", "shop", "start")
    assert done.code == 0
    assert "corral -p shop restart migrate seed runs them again" in done.err
    assert "shop: nothing to start, everything runs (" in done.err


def test_start_of_a_stack_that_is_not_there_is_an_error(fake, corral):
    assert corral("-p", "shop", "start").code == 1
    assert corral("-p", "shop", "start", "-d", "--wait").code == 2


def test_stop_ends_the_whole_stack(shop, corral):
    shop.on("POST", "/v1/stacks/shop/stop", {})
    assert corral("-p", "shop", "stop", "-t", "1").code == 0
    assert shop.asked("POST", ".*/stop")[0].body == {"timeout": 1.0}


def test_stop_of_single_services_waits_for_these_only(shop, corral):
    looks = [
        [row("db-1", "running", stopping=True, status="stopping"), row("web-1", "running")],
        [row("db-1", "shutdown", status="stopped (exit code 0)"), row("web-1", "running")],
    ]
    shop.on("POST", "/v1/stacks/shop/stop", {})

    def tasks(_request):  # the first look is for names of one-offs, before anything is stopped
        stopping = len(looks) > 1 and shop.asked("POST", ".*/stop")
        return {"tasks": looks.pop(0) if stopping else looks[0]}

    shop.on("GET", "/v1/stacks/shop/tasks", tasks)
    done = corral("-p", "shop", "stop", "db")
    assert done.code == 0
    assert shop.asked("POST", ".*/stop")[0].body == {"timeout": None, "services": ["db"]}
    assert "db-1 on alpha: " in done.err
    assert "shop: stop done (" in done.err
    assert "web" not in done.err


@pytest.mark.parametrize(
    ("state", "status", "told"),
    [
        ("shutdown", "stopped (exit code 143), 0 s ago", "stopped (exit code 143)"),
        ("shutdown", "stopped (exit code 0), 12 min ago (orphan)", "stopped (exit code 0)"),
        ("failed", "failed: exit code 3, 2 s ago", "failed: exit code 3"),
        ("complete", "completed (exit code 0), 3 days ago", "completed (exit code 0)"),
        ("rejected", "rejected: no image", "rejected: no image"),
        ("pending", "pending: no node fits", "pending: no node fits"),
        ("running", "running 3 s", ""),
    ],
)
def test_what_a_row_of_ps_says_in_progress(state, status, told):
    (line,) = lines_of({}, [{"name": "shop-web-1", "state": state, "status": status}])
    assert line["message"] == told


def test_stop_names_a_node_that_does_not_answer_and_goes_on(shop, corral):
    shop.on("POST", "/v1/stacks/shop/stop", {})
    lost = row("db-1", "running", node_status="down", stopping=True)
    shop.on("GET", "/v1/stacks/shop/tasks", {"tasks": [lost]})
    done = corral("-p", "shop", "stop", "db")
    assert done.code == 0
    assert "warning: node alpha does not answer" in done.err


def test_stop_of_an_unknown_service_is_refused(shop, corral):
    body = {"type": "not-found", "title": "Not found", "detail": "there is no service nope in shop"}

    def refuse(_request):
        raise Problem(404, {**body, "status": 404})

    shop.on("GET", "/v1/stacks/shop", {"name": "shop", "services": []})
    shop.on("POST", "/v1/stacks/shop/stop", refuse)
    done = corral("-p", "shop", "stop", "nope")
    assert done.code == 1
    assert "no service nope" in done.err


@pytest.fixture(autouse=True)
def quick(monkeypatch, clock):
    from orchestrator.cli.commands import restart as command

    monkeypatch.setattr(command, "time", clock)


def restart(shop, corral, looks, answer, *words):
    """Run `restart` against these looks at the tasks, the first of them before it asks."""
    looks = list(looks)
    tasks = lambda _r: {"tasks": looks.pop(0) if len(looks) > 1 else looks[0]}  # noqa: E731 - short
    shop.on("GET", "/v1/stacks/shop/tasks", tasks)
    shop.on("POST", "/v1/stacks/shop/restart", answer)
    return corral("-p", "shop", "restart", *words)


@pytest.mark.parametrize(
    ("looks", "answer", "code", "said"),
    [
        # In place: the same task, started anew.
        ([[row("web-1", "running")], [row("web-1", "running")],
          [row("web-1", "running", started_at=2.0)]],
         {"tasks": ["t-web-1"]}, 0, "shop-web-1: restarted\n"),
        # What had ended: another task.
        ([[row("job-1", "complete")], [row("job-1", "complete")],
          [row("job-1", "complete"), row("job-1", "starting", id="new", started_at=None)],
          [row("job-1", "complete", id="new", started_at=3.0)]],
         {"tasks": [], "started": ["job"]}, 0, "shop-job-1: restarted\n"),
        # One that cannot be prepared is an error, though others came back.
        ([[row("web-1", "running")],
          [row("web-1", "running", started_at=2.0),
           row("job-1", "rejected", id="new", started_at=None)]],
         {"tasks": ["t-web-1"], "started": ["job"]}, 1, "did not come back: shop-job-1"),
        ([[]], {"tasks": [], "started": []}, 0, "nothing runs or has run"),
        # What runs again and ends at once did not come back, as with `start`.
        ([[row("web-1", "running")], [row("web-1", "running", started_at=2.0)],
          [row("web-1", "failed", started_at=2.0, exit_code=3)]],
         {"tasks": ["t-web-1"]}, 1, "did not come back: shop-web-1 (exit code 3)"),
        # A one-off that is done did; one that crashed and then stayed, too.
        ([[row("job-1", "running")], [row("job-1", "complete", started_at=2.0, exit_code=0)]],
         {"tasks": ["t-job-1"]}, 0, "shop-job-1: restarted\n"),
        ([[row("web-1", "running")], [row("web-1", "running", started_at=2.0, exit_code=1)],
          [row("web-1", "running", started_at=3.0, restarts=1)]],
         {"tasks": ["t-web-1"]}, 0, "shop-web-1: restarted\n"),
        # What a release made meanwhile replaced is that release's: it does not come back here.
        ([[row("web-1", "running")],
          [row("web-1", "running", stopping=True), row("web-1", "starting", id="new",
                                                       created_at=9.0, started_at=None)]],
         {"tasks": ["t-web-1"]}, 0, ""),
        ([[row("web-1", "running")],
          [row("web-1", "shutdown"), row("web-1", "running", id="new", created_at=9.0)]],
         {"tasks": ["t-web-1"]}, 0, ""),
        # Stopped meanwhile, and nothing in its place: it did not.
        ([[row("web-1", "running")], [row("web-1", "shutdown")]],
         {"tasks": ["t-web-1"]}, 1, "did not come back: shop-web-1"),
        # One that crashes again and again did not.
        ([[row("web-1", "running")], [row("web-1", "running", started_at=2.0, exit_code=4)]],
         {"tasks": ["t-web-1"]}, 1, "did not come back: shop-web-1 (exit code 4)"),
    ],
)  # fmt: skip
def test_restart_waits_for_what_it_restarted(shop, corral, looks, answer, code, said):
    done = restart(shop, corral, looks, answer)
    assert done.code == code
    assert said in done.err


AWAY = {"node": "beta", "node_status": "down", "status": "down: node beta does not answer"}


@pytest.mark.parametrize(
    ("lost", "others", "code"),
    [
        (row("web-2", "running", slot=2, **AWAY), [], 1),
        # Another has taken its place, and is restarted like the rest.
        (
            row("web-2", "running", slot=2, **AWAY),
            [row("web-2", "running", id="new", slot=2, started_at=5.0)],
            0,
        ),
        (
            row("web-2", "running", slot=2, **AWAY),
            [row("web-2", "failed", id="old", slot=2)],
            1,
        ),
        # No node takes what would replace it.
        (
            row("web-2", "running", slot=2, **AWAY),
            [row("web-2", "pending", id="new", slot=2, node="", started_at=None)],
            1,
        ),
        # Silent for a moment only: it is waited for.
        (row("web-2", "running", slot=2, node_status="unknown", started_at=5.0), [], 0),
    ],
    ids=["nowhere else", "replaced", "only what ended", "no node for it", "not down"],
)
def test_a_restart_does_not_wait_for_a_node_that_is_down(shop, corral, lost, others, code):
    first = row("web-1", "running", slot=1)
    looks = [
        [first, row("web-2", "running", slot=2)],
        [row("web-1", "running", slot=1, started_at=2.0), lost, *others],
    ]
    done = restart(shop, corral, looks, {"tasks": ["t-web-1", "t-web-2", "new"]})
    assert done.code == code
    assert "shop-web-1: restarted\n" in done.err
    warning = "warning: shop-web-2: down: node beta does not answer\n"
    assert done.err.count("warning:") == done.err.count(warning) == code
    assert ("not restarted yet: shop-web-2" in done.err) == bool(code)


def test_a_restart_whose_follower_waits_in_vain_ends(shop, corral):
    status = "running 3 s (restart waits for db to be healthy)"
    before = [row("db-1", "running"), row("web-1", "running")]
    looks = [before, [row("db-1", "failed"), row("web-1", "running", status=status)]]
    done = restart(shop, corral, looks, {"tasks": ["t-db-1", "t-web-1"]}, "db", "--no-deps")
    assert done.code == 1
    assert "did not come back: shop-db-1" in done.err
    asked = shop.asked("POST", ".*/restart")[0].body
    assert asked == {"services": ["db"], "timeout": None, "no_deps": True}
