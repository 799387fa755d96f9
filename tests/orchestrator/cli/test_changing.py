"""up, down, scale, stop, restart against a scripted controller.

One module, though long: the commands share the scripted stack and the progress lines below.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake import Cut, Hold, Lines, Problem, Until

from orchestrator.cli.show import board as boards

MODEL = {
    "name": "shop",
    "services": {
        "migrate": {"image": "busybox"},
        "web": {"image": "busybox", "deploy": {"replicas": 2}},
        "front": {"image": "nginx", "attach": False},
    },
    "secrets": {"key": {"content": "s3cret"}},
}


def task(name, state, service="web", **more):
    if "reason" in more:
        more.setdefault("message", f"{state}: {more['reason']}")
    return {
        "kind": "task",
        "stack": "shop",
        "service": service,
        "task": f"t-{name}",
        "name": f"shop-{name}",
        "node": "alpha",
        "state": state,
        "ready": state == "running",
        **more,
    }


def service(name, running, wanted, message=""):
    return {
        "kind": "service",
        "service": name,
        "running": running,
        "wanted": wanted,
        "message": message,
    }


GOOD = [
    {"kind": "release", "state": "pending"},
    {"kind": "release", "state": "deploying"},
    service("web", 0, 2, "waiting for migrate (completed successfully)"),
    task("migrate-1", "preparing", "migrate"),
    task("migrate-1", "running", "migrate"),
    task("migrate-1", "complete", "migrate"),
    service("web", 0, 2),
    task("web-1", "assigned"),
    task("web-1", "preparing", reason="getting image busybox", doing="image"),
    task("web-1", "preparing", reason="getting image busybox", doing="image"),
    task("web-1", "starting"),
    task("web-1", "running"),
    service("web", 1, 2),
    task("web-2", "running"),
    service("web", 2, 2),
    {"kind": "warning", "message": "init is ignored"},
    {"kind": "release", "state": "deployed"},
    {"kind": "end", "ok": True},
]
LATE = [Hold()]
BAD = [
    {"kind": "release", "state": "deploying"},
    service("web", 0, 2),
    service("front", 0, 1),
    task("web-1", "prepared", reason="waiting for migrate"),
    task("front-1", "pending", "front", reason="waiting for web"),
    task("migrate-1", "failed", "migrate", message="failed: exit code 1"),
    {
        "kind": "end",
        "ok": False,
        "service": "migrate",
        "task": "t-migrate-1",
        "message": "migrate exited with code 1",
        "exit_code": 1,
        "log_tail": [f"line {i}" for i in range(12)],
    },
]


@pytest.fixture
def project(monkeypatch):
    """The loader is tested elsewhere: here it answers with a fixed project."""
    from orchestrator.cli import project

    found = SimpleNamespace(
        name="shop",
        model=MODEL,
        origins={},
        warnings=(),
        disabled={},
        profiles=(),
        sources={"-": ""},  # nothing to come back to
        working_dir="/shop",
        files=("/shop/compose.yaml",),
        environment=os.environ,
    )
    monkeypatch.setattr(project, "load", lambda flags, services=(), **_: found)
    monkeypatch.setattr(project, "contents", lambda _project, *_, **__: {"secrets.key": "czNjcmV0"})
    return found


@pytest.fixture
def shop(fake):
    fake.on(
        "POST",
        "/v1/stacks/shop/releases",
        {"stack": "shop", "number": 3, "state": "pending", "created_at": 100.0, "warnings": []},
    )
    fake.on("GET", "/v1/stacks/shop/progress", Lines(GOOD))
    fake.on("GET", "/v1/nodes", {"nodes": [{"id": "n1", "name": "alpha", "status": "ready"}]})
    return fake


def test_up_detached_prints_a_line_per_change_and_no_more(shop, project, corral):
    done = corral("-p", "shop", "up", "-d")
    lines = done.err.splitlines()
    assert done.code == 0
    assert done.out == ""
    assert lines[:-1] == [
        "shop: release 3 pending",
        "shop: release 3 deploying",
        "web: waiting for migrate (completed successfully)",
        "migrate-1 on alpha: running",
        "migrate-1 on alpha: complete",
        "web: preparing: getting image busybox",
        "web-1 on alpha: running",
        "web-2 on alpha: running",
        "warning: init is ignored",
        "shop: release 3 deployed",
    ]
    assert lines[-1].startswith("shop: release 3 done, 2/2 replicas (")


def test_up_sends_the_whole_wish(shop, project, corral):
    corral("-p", "shop", "up", "-d", "--scale", "web=4", "--build", "--pull=always", "migrate")
    body = shop.asked("POST", ".*/releases")[0].body
    assert len(body.pop("key")) == 32
    assert "directory" in body.pop("by")
    assert body.pop("client") == {
        "hostname": os.uname().nodename,
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    }
    assert body == {
        "project": MODEL,
        "directory": "/shop",
        "origins": {},
        "contents": {"secrets.key": "czNjcmV0"},
        "services": ["migrate"],
        "scale": {"web": 4},
        "build": "always",
        "pull": "always",
        "force_recreate": False,
        "remove_orphans": False,
        "known": [],
        "no_deps": False,
        "always_recreate_deps": False,
        "config_files": ["/shop/compose.yaml"],
    }
    from specs.api import Deploy

    Deploy.model_validate({"key": "k", **body})


@pytest.mark.parametrize("words", [["-d"], ["--wait"]])
@pytest.mark.parametrize("health", ["healthy", "unhealthy"])
def test_up_of_what_runs_says_so(shop, project, corral, words, health):
    row = {"stack": "shop", "number": 3, "state": "deployed", "unchanged": True,
           "completed": ["migrate"], "created_at": 9.0}  # fmt: skip
    shop.on("POST", "/v1/stacks/shop/releases", row)
    sick = {"name": "web-1", "health": health, "status": health}
    shop.on("GET", "/v1/stacks/shop/tasks", {"tasks": [sick]})
    done = corral("-p", "shop", "up", *words)
    if words == ["--wait"] and health == "unhealthy":
        assert (done.code, "web-1: unhealthy" in done.err) == (1, True)
        return
    assert done.code == 0
    assert "unchanged, release 3 runs as the file has it" in done.err
    assert "migrate: completed before, not run again; corral -p shop restart migrate" in done.err
    assert not shop.asked("GET", ".*/progress"), "nothing is waited for"


def test_up_repeats_a_broken_request_with_the_same_key(shop, project, corral):
    answers = [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{"]
    row = {"stack": "shop", "number": 3, "state": "pending"}
    shop.on("POST", "/v1/stacks/shop/releases", lambda _r: answers.pop(0) if answers else row)
    assert corral("-p", "shop", "up", "-d").code == 0
    keys = {request.body["key"] for request in shop.asked("POST", ".*/releases")}
    assert len(shop.asked("POST", ".*/releases")) == 3
    assert len(keys) == 1


def test_a_failed_release_is_a_paragraph_and_exit_code_1(shop, project, corral):
    shop.on("GET", "/v1/stacks/shop/progress", Lines(BAD))
    done = corral("-p", "shop", "up", "-d")
    assert done.code == 1
    assert done.err.endswith(
        "corral: release 3 of shop failed: migrate exited with code 1\n"
        "  where: migrate-1 on alpha, exit code 1\n"
        "  last lines:\n"
        + "".join(f"    | line {i}\n" for i in range(2, 12))
        + "  blocked: web (waiting for migrate), front (waiting for web)\n"
        "  next: corral -p shop logs migrate\n"
    )


def test_a_reason_of_several_lines_is_its_first_and_the_last_lines(shop, project, corral):
    """As of a build nobody watched: no line end becomes a replacement character."""
    why = "web: the build of web failed: exit status 1\n  STEP 2: RUN make\n  no rule"
    lines = [{"kind": "release", "state": "failed", "message": why}, {"kind": "end", "ok": False}]
    for end in ({}, {"message": why}):
        shop.on("GET", "/v1/stacks/shop/progress", Lines([lines[0], {**lines[1], **end}]))
        err = corral("-p", "shop", "up", "-d").err
        assert "failed: web: the build of web failed: exit status 1\n" in err
        assert "\N{REPLACEMENT CHARACTER}" not in err
        assert ("    |   no rule\n" in err) is bool(end)
    rows = [{"name": "shop", "status": "failed", "reason": why, "services": 1, "tasks": "0/1"}]
    shop.on("GET", "/v1/stacks", {"stacks": rows})
    shown = corral("ls").out
    assert "exit status 1" in shown
    assert "STEP" not in shown


def test_a_failed_build_shows_the_end_of_its_output(shop, project, corral):
    build = [{"kind": "build", "service": "web", "message": f"STEP {i}\n"} for i in range(20)]
    end = {
        "kind": "end",
        "ok": False,
        "service": "web",
        "message": "build failed",
        "hint": "fix it",
    }
    shop.on("GET", "/v1/stacks/shop/progress", Lines([*build, end]))
    err = corral("-p", "shop", "up", "-d").err
    assert "    | STEP 10\n" in err
    assert "    | STEP 19\n  next: fix it\n" in err


def test_progress_survives_a_controller_that_goes_and_comes_back(shop, project, corral):
    answers = [Lines([*GOOD[:5], Cut()]), Lines(GOOD[1:6]), Lines(GOOD[1:])]
    shop.on("GET", "/v1/stacks/shop/progress", lambda _r: answers.pop(0))
    done = corral("-p", "shop", "up", "-d")
    assert done.code == 0
    assert answers == []
    assert done.err.count("migrate-1 on alpha: running\n") == 1


def test_a_progress_stream_that_never_says_how_it_ended_is_a_fault(
    shop, project, corral, monkeypatch
):
    from orchestrator.cli.show import watch

    monkeypatch.setattr(watch, "RETRY", 0.001)
    monkeypatch.setattr(watch, "HASTY", 5)
    shop.on("GET", "/v1/stacks/shop/progress", Lines(GOOD[:3]))
    done = corral("-p", "shop", "up", "-d")
    assert done.code == 1
    assert "ends again and again" in done.err


def test_wait_timeout_names_what_is_missing(shop, project, corral, over_after):
    over_after(3)
    shop.on("GET", "/v1/stacks/shop/progress", Lines([*GOOD[:3], *LATE]))
    done = corral("-p", "shop", "up", "--wait", "--wait-timeout", "50")
    assert done.code == 1
    assert "not up after 50 s: web (waiting for migrate (completed successfully))" in done.err


@pytest.mark.parametrize(
    "flags",
    [
        ["--build", "--no-build"],
        ["-d", "--abort-on-container-exit"],
        ["--wait", "--exit-code-from", "web"],
        ["--wait-timeout", "3"],
        ["--watch", "-d"],
        ["--watch", "--wait"],
        ["-w", "--no-start"],
        ["-w", "--abort-on-container-exit"],
        ["-w", "--exit-code-from", "web"],
        ["--abort-on-container-exit", "--abort-on-container-failure"],
        ["-d", "--scale", "web"],
        ["-d", "--scale", "web=-1"],
    ],
    ids=" ".join,
)
def test_contradicting_flags_are_refused_before_anything_is_sent(shop, project, corral, flags):
    assert corral("-p", "shop", "up", *flags).code == 2
    assert shop.requests == []


def test_unknown_services_are_refused_before_anything_is_sent(shop, project, corral):
    for flags in (["nope"], ["--scale", "nope=1"], ["--no-attach", "nope"]):
        done = corral("-p", "shop", "up", *flags)
        assert done.code == 1
        assert "no such service: nope" in done.err
    assert shop.requests == []


def test_down_without_a_file(shop, corral):
    shop.on("DELETE", "/v1/stacks/shop", {"name": "shop"})
    shop.on(
        "GET",
        "/v1/stacks/shop/progress",
        Lines(
            [
                task("old-1", "failed"),
                task("web-1", "running"),
                task("web-1", "running", message="stopping", stopping=True),
                task("web-1", "shutdown", message="stopped (exit code 0)"),
                task("web-1", "removed"),
                task("old-1", "removed"),
                {"kind": "end", "ok": True, "message": "removed"},
            ]
        ),
    )
    done = corral("-p", "shop", "down", "-v", "-t", "3")
    assert done.code == 0
    query = shop.asked("DELETE", ".*")[0].query
    assert query["volumes"] == ["1"]
    assert float(query["timeout"][0]) == 3
    assert done.err.startswith(
        "web-1 on alpha: stopped (exit code 0)\n"
        "web-1 on alpha: removed\n"
        "old-1 on alpha: removed\n"
        "shop: removed ("
    )


def test_down_of_nothing_is_no_error(fake, corral):
    done = corral("-p", "shop", "down")
    assert done.code == 0
    assert "nothing to remove" in done.err


def test_down_is_done_when_the_stack_is_gone_before_we_look(fake, corral):
    fake.on("DELETE", "/v1/stacks/shop", {"name": "shop"})
    assert corral("-p", "shop", "down").code == 0


def test_restart_waits_until_it_runs_again(shop, corral, monkeypatch, clock):
    from orchestrator.cli.commands import restart as command

    monkeypatch.setattr(command, "time", clock)
    rows = [
        {"id": "t1", "name": "shop-web-1", "state": "running", "started_at": 1.0},
        {"id": "t1", "name": "shop-web-1", "state": "running", "started_at": 1.0},
        {"id": "t1", "name": "shop-web-1", "state": "running", "started_at": 2.0},
    ]
    look = lambda _r: {"tasks": [rows.pop(0) if len(rows) > 1 else rows[0]]}  # noqa: E731 - short
    shop.on("GET", "/v1/stacks/shop/tasks", look)
    shop.on("POST", "/v1/stacks/shop/restart", {"tasks": ["t1"]})
    done = corral("-p", "shop", "restart", "web")
    assert (done.code, done.err) == (0, "shop-web-1: restarted\n")
    assert len(rows) == 1


# Attached

PROGRAM = f"""
import sys
from types import SimpleNamespace
from orchestrator.cli import project, main
MODEL = {MODEL!r}
project.load = lambda flags, services=(), **_: SimpleNamespace(
    name="shop", model=MODEL, origins={{}}, warnings=(), disabled={{}}, profiles=(),
    working_dir="/shop", files=(), environment={{}}, sources={{"-": ""}})
project.contents = lambda _project, *_, **__: {{}}
sys.exit(main.main(sys.argv[1:]))
"""
ROOT = Path(__file__).parents[3]


def line(name, text, when, stream="stdout"):
    return {
        "task": f"t-{name}",
        "name": name,
        "service": name.rpartition("-")[0],
        "stream": stream,
        "time": when,
        "line": text,
        "place": [1, 1, int(when * 10)],
    }


def row(name, state, code=None, restarts=0):
    return {
        "id": f"t-{name}",
        "name": f"shop-{name}",
        "service": name.rpartition("-")[0],
        "state": state,
        "exit_code": code,
        "restarts": restarts,
        "started_at": 100.0,
    }


class World:
    """A stack whose tasks the test changes while `up` is attached."""

    def __init__(self, fake):
        self.rows = [row("web-1", "running"), row("web-2", "running")]
        self.stops = []
        self.fake = fake
        self.looks = 0  # answered with what was there before a change
        fake.on("GET", "/v1/stacks/shop/tasks", self.tasks)
        self.printed = [line("web-1", "hello", 101.0), line("web-2", "oops", 101.5, "stderr")]
        fake.on("GET", "/v1/stacks/shop/logs", self.logs)
        fake.on("GET", "/v1/events", Lines([Hold()]))
        fake.on("POST", "/v1/stacks/shop/stop", self.stop)

    def logs(self, request):
        """A followed log stays behind: what came late is only in a log that is read to its end."""
        if "follow" in request.query:
            return Lines([*self.printed[:2], Hold()])
        return Lines([one for one in self.printed if one["service"] in request.query["service"]])

    def tasks(self, _request):
        rows = self.rows
        self.looks += 1
        return {"tasks": rows}

    def stop(self, request):
        self.stops.append(request.body["timeout"])
        self.services = request.body["services"]
        timeout = request.body["timeout"]
        if timeout == 0.0 or timeout is None:
            self.rows = [row("web-1", "shutdown", 143), row("web-2", "shutdown", 143)]
            self.fake.on("GET", "/v1/stacks/shop/progress", Lines([{"kind": "end", "ok": True}]))
        else:
            self.fake.on("GET", "/v1/stacks/shop/progress", Lines([Hold()]))
        return {}


@pytest.fixture
def world(shop):
    return World(shop)


class Printing:
    """A process whose output can be looked at while it runs."""

    def __init__(self, process):
        self.process = process
        self.said = {"stdout": b"", "stderr": b""}
        self._readers = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in self.said
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name):
        stream = getattr(self.process, name)
        while part := os.read(stream.fileno(), 65536):
            self.said[name] += part

    def until(self, text, stream="stdout"):
        wait_for(lambda: text.encode() in self.said[stream], f"never said {text!r}")

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def ended(self):
        """Wait for the end; return its code, output and errors."""
        code = self.process.wait(300)
        for reader in self._readers:
            reader.join(300)
        return code, self.said["stdout"].decode(), self.said["stderr"].decode()


@pytest.fixture
def up(spawn_program):
    def start(*argv):
        return Printing(spawn_program(PROGRAM, "-p", "shop", "up", *argv))

    return start


def wait_for(condition, what, seconds=300.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.01)


def test_attached_up_interleaves_logs_and_stops_on_interrupt(world, up):
    process = up()
    wait_for(lambda: world.fake.asked("GET", ".*/tasks"), "never looked at the tasks")
    process.until("hello")
    process.until("oops", "stderr")
    process.interrupt()
    code, out, err = process.ended()
    assert code == 130
    # The names are padded to the longest that is attached: migrate-1.
    assert out.splitlines()[:1] == ["web-1      | hello"]
    assert "web-2      | oops" in err
    assert "web-1 exited with code 143" in out
    assert "Gracefully stopping... (press Ctrl+C again to force)" in err
    assert world.stops == [None]
    query = world.fake.asked("GET", ".*/logs")[0].query
    assert query["service"] == ["migrate", "web"]  # not front: attach: false
    assert float(query["since"][0]) == 100.0


def test_an_interrupt_stops_what_this_up_is_about(world, up):
    aside = {**row("aside-1", "running"), "carried": "unasked"}
    world.rows = [*world.rows, aside]
    process = up("web")
    wait_for(lambda: world.looks > 1, "never looked at the tasks")
    process.interrupt()
    code, out, _ = process.ended()
    assert code == 130
    assert world.services == ["web"]
    assert "aside-1 exited" not in out


def test_a_second_interrupt_kills(world, up):
    process = up("-t", "30")
    wait_for(lambda: world.fake.asked("GET", ".*/tasks"), "never looked at the tasks")
    process.interrupt()
    wait_for(lambda: world.stops, "did not stop")
    process.interrupt()
    assert process.ended()[0] == 130
    assert world.stops == [30.0, 0.0]


def test_an_interrupt_on_several_machines_detaches(world, up):
    nodes = [{"name": "alpha", "status": "ready"}, {"name": "beta", "status": "ready"}]
    world.fake.on("GET", "/v1/nodes", {"nodes": nodes})
    process = up()
    wait_for(lambda: world.fake.asked("GET", ".*/tasks"), "never looked at the tasks")
    process.interrupt()
    code, _, err = process.ended()
    assert code == 130
    assert world.stops == []
    assert "Stop it: corral -p shop stop" in err


def test_attached_up_ends_when_no_container_is_left(world, up):
    process = up()
    wait_for(lambda: world.looks, "never looked at the tasks")
    world.rows = [row("web-1", "complete", 0), row("web-2", "failed", 3)]
    code, out, _ = process.ended()
    assert code == 0
    assert "web-1 exited with code 0\n" in out
    assert "web-2 exited with code 3\n" in out


def test_abort_on_container_exit_returns_its_code(world, up):
    process = up("--abort-on-container-exit")
    wait_for(lambda: world.looks, "never looked at the tasks")
    world.rows = [row("web-1", "running"), row("web-2", "failed", 3)]
    assert process.ended()[0] == 3
    assert world.stops == [None]


def test_every_line_is_printed_before_its_container_is_said_to_have_ended(world, up):
    process = up()
    wait_for(lambda: world.looks, "never looked at the tasks")
    process.until("hello")
    world.printed += [line("web-1", f"late {n}", 110.0 + n) for n in range(2000)]
    world.printed += [line("web-2", "no newline", 111.0)]
    world.rows = [row("web-1", "complete", 0), row("web-2", "failed", 3)]
    code, out, err = process.ended()
    lines = [text.rpartition("| ")[2] for text in out.splitlines()]
    assert lines.count("hello") == 1
    assert err.count("oops") == 1
    late = [f"late {n}" for n in range(2000)]
    assert [text for text in lines if text.startswith("late ")] == late
    assert lines.index("no newline") < lines.index("web-2 exited with code 3")
    assert lines.index("late 1999") < lines.index("web-1 exited with code 0")
    assert code == 0


LATER = {"finished_at": 200.0}
SOONER = {"finished_at": 150.0}


@pytest.mark.parametrize(
    ("flags", "rows", "expected"),
    [
        # The named service's code, whoever ends first, and whatever the release thinks of it.
        (["--exit-code-from", "web"], [row("web-1", "failed", 7)], 7),
        (["--exit-code-from", "web"], [row("web-1", "complete", 0), row("db-1", "failed", 9)], 0),
        (
            ["--exit-code-from", "web"],
            [
                {**row("db-1", "failed", 9), **SOONER},
                {**row("web-1", "shutdown", 143), **LATER},
            ],
            143,
        ),
        (["--exit-code-from", "web"], [row("web-1", "failed", None)], 1),  # nobody knows it
        (
            ["--exit-code-from", "web"],
            [{**row("web-1", "running", 5, restarts=1), "release": 3}],
            5,
        ),
        # Without a name: the code of the first that ended, by its time.
        (
            ["--abort-on-container-exit"],
            [{**row("db-1", "failed", 9), **LATER}, {**row("web-1", "complete", 0), **SOONER}],
            0,
        ),
        (
            ["--abort-on-container-failure"],
            [row("db-1", "complete", 0), {**row("web-1", "failed", 6), **LATER}],
            6,
        ),
        ([], [row("web-1", "failed", 7)], 1),  # as the release ends
        (["--exit-code-from", "web"], [], 1),  # nothing ever ran
    ],
)
@pytest.mark.parametrize("verdict", ["failed first", "containers first"])
def test_the_exit_code_is_the_containers(world, up, flags, rows, expected, verdict):
    rows = [{**one, "release": 3} for one in rows]

    def stop(_request):
        world.rows = [
            one if one["state"] != "running" else row("web-1", "shutdown", 143) for one in rows
        ]
        world.fake.on("GET", "/v1/stacks/shop/progress", Lines([{"kind": "end", "ok": True}]))
        return {}

    world.fake.on("POST", "/v1/stacks/shop/stop", stop)
    world.fake.on("GET", "/v1/tasks/.*", {"status": {"runs": []}})
    if verdict == "failed first":
        world.rows = rows
        world.fake.on("GET", "/v1/stacks/shop/progress", Lines(BAD))
        process = up(*flags)
    else:
        pause = 3.0 if flags and rows else 0.5
        world.fake.on("GET", "/v1/stacks/shop/progress", Lines([pause, *BAD]))
        world.rows = []
        process = up(*flags)
        wait_for(lambda: world.looks, "never looked at the tasks")
        world.rows = rows
    assert process.ended()[0] == expected


def test_the_last_lines_of_a_failure_are_the_containers(shop, project, corral):
    """The failing container brought none: they are asked for. What was built is no news then."""
    built = {"kind": "build", "service": "web", "message": "STEP 9: COMMIT"}
    states = [{"kind": "release", "state": state} for state in ("pending", "deploying", "failed")]
    end = {**BAD[-1], "service": "web", "task": "t-web-1", "log_tail": []}
    for last, expected in (
        ([line("web-2", "of the other", 1.0), line("web-1", "boom", 2.0)], ["    | boom"]),
        ([], []),
    ):
        shop.on("GET", ".*/progress", Lines([states[0], built, *states[1:], end]))
        shop.on("GET", ".*/logs", Lines(last))
        done = corral("-p", "shop", "up", "-d")
        assert done.code == 1
        shown = done.err.partition("failed:")[2].splitlines()
        assert [text for text in shown if text.startswith("    | ")] == expected


def test_a_failure_while_attached_shows_log_lines_first(world, up):
    shown = threading.Event()
    world.fake.on("GET", "/v1/stacks/shop/progress", Lines([Until(shown), *BAD]))
    process = up()
    process.until("hello")
    shown.set()
    code, out, err = process.ended()
    assert code == 1
    assert "hello" in out
    assert "release 3 of shop failed" in err


def test_a_reopened_log_stream_tells_nothing_twice(world, up):
    first = [line("web-1", "one", 101.0), line("web-1", "two", 102.0), Cut()]
    second = [line("web-1", "two", 102.0), line("web-1", "three", 103.0), Hold()]
    answers = [Lines(first), Lines(second)]
    world.fake.on("GET", "/v1/stacks/shop/logs", lambda _r: answers.pop(0) if answers else Lines())
    process = up()
    process.until("three")
    process.interrupt()
    _, out, _ = process.ended()
    shown = [text.rpartition("| ")[2] for text in out.splitlines() if "|" in text]
    assert shown == ["one", "two", "three"]


def test_the_live_tree_on_a_terminal(shop, project, world):
    """A pty: the tree is drawn, logs go above it, the terminal is given back."""
    import pty

    pid, master = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in the background of a script
        os.environ["TERM"] = "xterm"
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, "-p", "shop", "up"])
    seen = b""
    try:
        until = time.monotonic() + 300
        interrupted = False
        while time.monotonic() < until:
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
            if b"done" in seen and b"hello" in seen and not interrupted:
                interrupted = True
                os.write(master, b"\x03")
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(master)
    text = seen.decode()
    assert os.waitstatus_to_exitcode(status) == 130
    assert "\x1b[36mweb-1      | \x1b[0m" in text.replace(
        "\x1b[36mweb-1      | \x1b[39m", "\x1b[36mweb-1      | \x1b[0m"
    )
    assert "2/2" in text
    assert "✔" in text
    assert text.count("\x1b[?25l") <= text.count("\x1b[?25h")  # the cursor is visible again


def test_exits_are_told_once_and_old_ones_never():
    from orchestrator.cli.show.attach import Exits

    def look(*rows):
        return exits.look(rows, lambda name: name.removeprefix("shop-"), lambda r: r["exit_code"])

    exits = Exits(3)
    old = {**row("old-1", "failed", 1), "release": 2}
    quick = {**row("job-1", "complete", 0), "release": 3}
    never = {**row("x-1", "rejected"), "release": 3, "started_at": None}
    assert look(old, quick, never, row("web-1", "running")) == ["job-1 exited with code 0"]
    again = row("web-1", "running", 9, restarts=1)
    assert look(old, quick, again) == ["web-1 exited with code 9 (restarting)"]
    assert look(old, quick, again) == []
    assert look(row("web-1", "failed", 9, restarts=1)) == ["web-1 exited with code 9"]
    assert [(one.service, one.name, one.code) for one in exits.found] == [
        ("job", "job-1", 0),
        ("web", "web-1", 9),
        ("web", "web-1", 9),
    ]
    # What this release replaces ends, too: that aborts nothing, unless we stop it ourselves.
    before, after = row("old-1", "running"), row("old-1", "shutdown", 143)
    for stopping in (False, True):
        exits = Exits(3)
        exits.stopping = stopping
        assert look(before) == []
        assert look(after) == ["old-1 exited with code 143"]
        assert [one.name for one in exits.found] == ["old-1"] * stopping


def test_logs_are_json_when_asked(shop, corral):
    shop.on("GET", "/v1/stacks/shop/tasks", {"tasks": [row("web-1", "running")]})
    shop.on("GET", "/v1/stacks/shop/logs", Lines([line("web-1", "x", 1.0)]))
    done = corral("-p", "shop", "logs", "--format", "json")
    assert json.loads(done.out)["line"] == "x"


def test_a_refused_release_shows_every_problem(shop, project, corral):
    problems = [
        {
            "message": "a",
            "path": "services.web",
            "severity": "error",
            "position": {"file": "compose.yaml", "line": 3, "column": 5},
        },
        {"message": "b", "path": "services.front", "severity": "warning", "hint": "c"},
    ]

    def refuse(_request):
        raise Problem(422, {"type": "invalid", "title": "Invalid request", "problems": problems})

    shop.on("POST", "/v1/stacks/shop/releases", refuse)
    done = corral("-p", "shop", "up", "-d")
    assert done.code == 1
    assert "compose.yaml:3:5: error: services.web: a\n" in done.err
    assert "corral: 1 problem; nothing was changed\n" in done.err
    assert "warning: services.front: b\n  hint: c\n" in done.err


def test_a_crash_is_one_line_and_each_longer_wait_none():
    board = boards.Board("shop", "release 1")
    words = "restarting: exit code 3, {}"
    crash = task("web-1", "running", message=words.format("1 restart"), restarting=True)
    told = board.apply(crash)
    assert told == ["web-1 on alpha: restarting: exit code 3, 1 restart"]
    assert board.apply(crash) == []
    assert board.apply(task("web-1", "running", message="running")) == []
    again = task("web-1", "running", message=words.format("2 restarts"), restarting=True)
    assert board.apply(again) == ["web-1 on alpha: restarting: exit code 3, 2 restarts"]
    healthy = task("web-1", "running", message="running (healthy)", health="healthy")
    assert board.apply(healthy) == ["web-1 on alpha: running (healthy)"]
    why = {"reason": "getting image x: no route", "retries": True}
    text = "preparing: getting image x: no route; trying again in {} s"
    tries = [task("b-1", "preparing", "b", message=text.format(n), **why) for n in (1, 2, 4)]
    lines = [board.apply(line) for line in tries]
    assert [len(line) for line in lines] == [1, 0, 0]


@pytest.mark.parametrize(
    ("made", "more", "told"),
    [
        (2, {}, []),  # it ran before this release, which left it alone
        (2, {"health": "healthy", "message": "running (healthy)"}, []),
        (3, {}, ["web-1 on alpha: running"]),
        (0, {}, ["web-1 on alpha: running"]),  # of a controller that does not say it
        (2, {"ready": False, "message": "running (unhealthy)", "health": "unhealthy"},
         ["web-1 on alpha: running (unhealthy)"]),
    ],
)  # fmt: skip
def test_what_ran_before_the_release_is_no_news(made, more, told):
    board = boards.Board("shop", "release 3")
    board.release = 3
    running = task("web-1", "running", release=made, **more)
    assert board.apply(running) == told
    assert board.apply(running) == []
    assert board.apply(task("web-1", "failed", message="failed: exit code 1")) == [
        "web-1 on alpha: failed: exit code 1"
    ]


def test_stop_does_not_list_what_still_runs():
    board = boards.Board("shop", "stop")
    assert board.apply(task("web-1", "running", message="running (healthy)")) == []
    stopped = task("web-1", "shutdown", message="stopped (exit code 0)")
    assert board.apply(stopped) == ["web-1 on alpha: stopped (exit code 0)"]


def test_silence_is_explained_ever_more_rarely(monkeypatch, capsys, clock):
    from orchestrator.cli.show import watch

    monkeypatch.setattr(watch, "time", clock)
    board = boards.Board("shop", "down")
    board.apply(task("web-1", "running", message="stopping", stopping=True))
    view = watch.Plain()
    view._board = board

    class Passing:
        """Waiting is all that takes time; after 10 s a line comes, after 60 s it is over."""

        def wait(self, seconds):
            if clock.slept < 10 <= clock.slept + seconds:
                clock.slept = 10.0
                view.update(["web-2 on alpha: removed"])
            else:
                clock.sleep(seconds)
            return clock.slept > 60

    monkeypatch.setattr(view, "_closed", Passing())
    view._remind()
    assert capsys.readouterr().err.splitlines() == [
        "shop: after 3.0s still web-1 on alpha (stopping)",
        "shop: after 9.0s still web-1 on alpha (stopping)",
        "web-2 on alpha: removed",
        "shop: after 22.0s still web-1 on alpha (stopping)",
        "shop: after 46.0s still web-1 on alpha (stopping)",
    ]


def test_silence_is_explained(shop, corral, monkeypatch):
    from orchestrator.cli.show import watch

    monkeypatch.setattr(watch, "PAUSE", 0.1)
    explained, update = threading.Event(), watch.Plain.update

    def updated(view, lines):
        update(view, lines)
        if any("still" in line for line in lines):
            explained.set()

    monkeypatch.setattr(watch.Plain, "update", updated)
    shop.on("DELETE", "/v1/stacks/shop", {"name": "shop"})
    shop.on(
        "GET",
        "/v1/stacks/shop/progress",
        Lines(
            [
                task("web-1", "running", message="stopping", stopping=True),
                Until(explained),
                task("web-1", "removed"),
                {"kind": "end", "ok": True},
            ]
        ),
    )
    err = corral("-p", "shop", "down").err
    assert re.match(r"shop: after [\d.]+s still web-1 on alpha \(stopping\)\n", err)


def test_wait_timeout_names_the_unhealthy_task(shop, project, corral, over_after):
    over_after(3)
    sick = task("web-1", "starting", message="starting: unhealthy: 2 failed checks in a row")
    shop.on("GET", "/v1/stacks/shop/progress", Lines([*GOOD[:2], sick, *LATE]))
    done = corral("-p", "shop", "up", "--wait", "--wait-timeout", "50")
    assert "not up after 50 s: web-1 on alpha (starting: unhealthy: 2 failed" in done.err


@pytest.mark.parametrize(
    ("more", "flags", "code"),
    [
        ({"health": "unhealthy"}, ("-d",), 0),
        ({"health": "unhealthy"}, ("--wait",), 1),
        ({"health": "healthy"}, ("--wait",), 0),
        ({"health": "unhealthy", "carried": "orphan"}, ("--wait",), 0),
        ({"health": "unhealthy", "stopping": True}, ("--wait",), 0),
        ({"health": "none"}, ("--wait",), 0),
    ],
)
def test_wait_asks_for_the_health_of_what_was_there_before(
    shop, project, corral, more, flags, code
):
    row = {"id": "t1", "name": "shop-web-1", "service": "web", "state": "running"}
    row["status"] = "running 2 d (unhealthy)"
    shop.on("GET", "/v1/stacks/shop/progress", Lines(GOOD))
    shop.on("GET", "/v1/stacks/shop/tasks", {"tasks": [{**row, **more}]})
    done = corral("-p", "shop", "up", *flags)
    assert done.code == code, done.err
    assert ("failed: shop-web-1: running 2 d (unhealthy)" in done.err) == bool(code)


def test_a_superseded_release_did_not_fail(shop, project, corral):
    end = {"kind": "end", "ok": False, "state": "superseded", "message": "release 4 took its place"}
    shop.on("GET", "/v1/stacks/shop/progress", Lines([*GOOD[:2], end]))
    done = corral("-p", "shop", "up", "-d")
    assert done.code == 1
    assert done.err.endswith(
        "corral: release 3 of shop was not finished: release 4 took its place\n"
        "  next: corral -p shop ps\n"
    )


def test_the_release_that_took_its_place_is_named_with_the_time(shop, project, corral):
    at = time.mktime((2026, 1, 31, 14, 5, 9, 0, 0, -1))
    end = {"kind": "end", "ok": False, "state": "superseded", "time": at, "by": 4}
    end["message"] = "release 4 took its place"
    shop.on("GET", "/v1/stacks/shop/progress", Lines([*GOOD[:2], end]))
    done = corral("-p", "shop", "up", "-d")
    assert done.code == 1
    assert done.err.endswith(
        "corral: release 3 of shop was not finished: release 4 took its place at 14:05:09\n"
        "  next: corral -p shop ps shows what runs; if yours is to be the newest: "
        "corral -p shop up -d\n"
    )


def test_help_shows_no_placeholders(corral, capsys):
    with pytest.raises(SystemExit):
        corral("down", "--help")
    assert "SUPPRESS" not in capsys.readouterr().out


def test_the_tree_of_a_removal_shows_what_it_waits_for():
    from io import StringIO

    from rich.console import Console

    from orchestrator.cli.show.live import Tree

    board = boards.Board("shop", "down")
    board.apply(task("web-1", "running", message="stopping", stopping=True))
    board.apply(task("web-2", "running", message="stopping", stopping=True))
    board.apply(task("web-2", "removed"))
    out = StringIO()
    tree = Tree(board, Console(file=out, force_terminal=True, width=80, height=24))
    tree.close()
    assert "web-1  alpha  stopping" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "web-2" not in out.getvalue()
