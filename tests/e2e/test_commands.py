"""The commands people use every day, on real containers."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time

import pytest

from tests.e2e.cluster import json_lines

pytestmark = pytest.mark.real

STACK = """
services:
  web:
    image: busybox
    command: [sh, -c, "trap 'echo bye; exit 0' TERM; echo one; echo two >&2; echo three; sleep inf & wait"]
    environment: {COLOUR: green}
    working_dir: /tmp
    deploy: {replicas: 2}
  ticker:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; i=0; while :; do echo tick $$i; i=$$((i+1)); sleep 0.2; done"]
"""  # noqa: E501


@pytest.fixture
def app(corral):
    corral.compose(STACK)
    corral("up", "-d")
    return corral


# ---- exec -----------------------------------------------------------------------------------


def test_exec_passes_input_output_and_exit_code(app):
    done = app("exec", "-T", "web", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert app("exec", "-T", "web", "wc", "-c", stdin="x" * 300_000).stdout == "300000\n"
    assert app("exec", "-T", "web", "sh", "-c", "echo $COLOUR; pwd").stdout == "green\n/tmp\n"
    done = app("exec", "-T", "-e", "COLOUR=red", "-w", "/", "-u", "65534:65534", "web",
               "sh", "-c", "echo $COLOUR; pwd; id -u; id -g")  # fmt: skip
    assert done.stdout == "red\n/\n65534\n65534\n"
    assert app("exec", "-T", "--index", "2", "web", "hostname").stdout == "app-web-2\n"
    assert app("exec", "-T", "web", "sh", "-c", "kill -TERM $$", code=143)


def test_exec_refusals(app):
    assert "nosuch" in app("exec", "-T", "web", "nosuch", code=127).stderr
    assert "no service 'nope'" in app("exec", "nope", "true", code=1).stderr
    assert "replica 9" in app("exec", "--index", "9", "web", "true", code=1).stderr


def test_exec_on_a_terminal(app):
    ours, theirs = pty.openpty()
    command = app.popen("exec", "web", "sh", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        os.write(ours, b"tty; stty -a | head -1; echo a$((40+2))b; exit 5\n")
        seen, deadline = b"", time.monotonic() + 60
        while b"a42b" not in seen and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 4096)
        assert b"a42b" in seen, seen
        assert b"/dev/pts/" in seen or b"/dev/console" in seen, seen
        assert command.process.wait(60) == 5
    finally:
        os.close(ours)
        command.process.kill()
        command.process.wait(60)


# ---- logs -----------------------------------------------------------------------------------


def test_logs_of_services_streams_and_tail(app):
    def written(done):  # to both streams: each is a pipe of its own
        return (done.stdout.count("three"), done.stderr.count("two")) == (2, 2)

    app.until("all written", lambda: written(app("logs", "web")))
    done = app("logs", "web")
    assert sorted(done.stdout.splitlines()) == sorted(
        f"web-{n}  | {word}" for n in (1, 2) for word in ("one", "three")
    )
    assert done.stderr.count("two") == 2, "a container's stderr stays stderr"
    assert app("logs", "--no-log-prefix", "--index", "1", "web").stdout == "one\nthree\n"
    done = app("logs", "--tail", "1", "--index", "2", "web")
    assert done.stdout + done.stderr in ("web-2  | three\n", "web-2  | two\n")
    lines = json_lines(app("logs", "--format", "json", "web").stdout)
    assert len(lines) == 6
    # The two streams are two pipes: only each one's own order is certain.
    mine = [line["line"] for line in lines if line["name"].endswith("web-1")]
    assert sorted(mine) == ["one", "three", "two"]
    assert mine.index("one") < mine.index("three")
    assert lines == sorted(lines, key=lambda line: line["time"])
    assert "no containers" in app("logs", "nope", code=1).stderr


def test_logs_follow_and_since(app):
    follow = app.popen("logs", "-f", "--tail", "0", "--no-log-prefix", "ticker",
                       stdout=subprocess.PIPE, text=True)  # fmt: skip
    lines = [follow.process.stdout.readline().strip() for _ in range(4)]
    follow.signal("INT")
    follow.finish(90)
    first = int(lines[0].removeprefix("tick "))
    assert lines == [f"tick {first + n}" for n in range(4)], "each line once and in order"
    whole = lambda: json_lines(app("logs", "--format", "json", "ticker").stdout)  # noqa: E731
    app.until("a fifth line", lambda: len(whole()) > 4)
    rows = whole()
    since = rows[3]["time"]
    later = json_lines(app("logs", "--format", "json", "--since", f"{since:.6f}", "ticker").stdout)
    assert later[0]["line"] in (rows[3]["line"], rows[4]["line"])
    assert later[-1]["time"] >= rows[-1]["time"]
    assert app("logs", "--since", "1h", "--tail", "1", "ticker").stdout.count("tick ") == 1


# ---- restart, stop, scale -------------------------------------------------------------------


def test_restart_keeps_tasks_and_starts_new_processes(app):
    before = app.processes()
    marks = app("exec", "-T", "web", "sh", "-c", "echo here > /tmp/mark")
    assert marks.returncode == 0
    app("restart", "web")
    after = app.processes()
    web = {row["id"] for row in app.rows("app", "web")}
    assert after.keys() == before.keys()
    assert {task for task in after if after[task] != before[task]} == web
    assert app("exec", "-T", "web", "cat", "/tmp/mark").stdout == "here\n", "files are kept"
    assert app("logs", "--index", "1", "--no-log-prefix", "web").stdout.count("bye") == 1


def test_stop_keeps_the_stack_and_up_starts_it_again(app):
    app("stop")
    assert not app.processes()
    assert [row["name"] for row in app.get("/v1/stacks")["stacks"]] == ["app"]
    app("up", "-d")
    assert len(app.processes()) == 3


def test_scale_down_to_nothing_and_up_again(app):
    ticker = {row["id"] for row in app.rows("app", "ticker")}
    app("scale", "web=0")
    assert app.processes().keys() == ticker
    app("up", "-d", "--scale", "web=3")
    assert len(app.rows("app", "web")) == 3
    assert "nope" in app("scale", "nope=1", code=1).stderr


# ---- inside running tasks -------------------------------------------------------------------


def test_what_goes_on_inside(app):
    def sleeping():
        found = json_lines(app("top", "--format", "json").stdout)
        return {p["Name"] for p in found if p["command"] == "sleep inf"}

    app.until("both shells have begun it", lambda: sleeping() == {"app-web-1", "app-web-2"})
    one = json_lines(app("top", "ticker", "--format", "json").stdout)
    assert {p["Name"] for p in one} == {"app-ticker-1"}
    rows = {
        row["Name"]: row["usage"]
        for row in json_lines(app("stats", "--no-stream", "--format", "json").stdout)
    }
    assert set(rows) == {"app-ticker-1", "app-web-1", "app-web-2"}
    assert all(0 < row["memory"] < row["memory_limit"] and row["cpu"] > 0 for row in rows.values())
    assert rows["app-web-1"]["processes"] == 2


def test_pause(app):
    before = app.processes()
    assert app("pause", "ticker").stdout == "app-ticker-1 paused\n"
    row = json_lines(app("ps", "ticker", "--format", "json").stdout)[0]
    assert (row["State"], row["paused"]) == ("paused", True)
    assert "(paused)" in app("ps").stdout
    said = app("exec", "-T", "ticker", "true", code=1).stderr
    assert "paused" in said

    def silent():  # it ticks every 0.2 s; what it had said before may still be on its way
        lines = app("logs", "ticker").stdout
        app("exec", "-T", "web", "sleep", "0.5")
        return app("logs", "ticker").stdout == lines

    app.until("it says nothing more", silent)
    lines = app("logs", "ticker").stdout
    app("unpause")
    app.until("it ticks again", lambda: app("logs", "ticker").stdout != lines)
    assert app.processes() == before
    app("pause")
    app("stop", "-t", "60")
    assert {row["exit_code"] for row in app.rows("app", ended=True)} == {0}, "it ends as asked"


def test_signals(app):
    before = app.processes()
    names = app("kill", "-s", "CONT").stdout.split()[::2]
    assert names == ["app-ticker-1", "app-web-1", "app-web-2"]
    assert app.processes() == before
    assert app("kill", "-s", "TERM", "ticker").stdout == "app-ticker-1 TERM\n"
    said = app("wait", "ticker").stdout
    assert said == "container 'app-ticker-1' exited with status code 0\n"
    app("kill", "web")
    assert {row["exit_code"] for row in app.rows("app", "web", ended=True)} == {137}
    assert "nothing of app runs" in app("kill", "-s", "HUP", code=1).stderr
    told = app("rm", "-f", "web").stdout.splitlines()  # each as it goes
    assert sorted(told) == ["app-web-1 removed", "app-web-2 removed"]
    app.until("they are gone", lambda: not app.rows("app", "web", ended=True))
    app("up", "-d")
    assert len(app.processes()) == 3


# ---- machine-readable output ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (("ps",), {"ID", "Name", "Service", "State", "ready", "Node", "Publishers", "corral"}),
        (("ps", "-a"), {"ID", "exit_code", "restarts"}),
        (("ls",), {"Name", "Status", "ConfigFiles", "release", "services", "tasks"}),
        (("node", "ls"), {"ID", "Name", "Status", "Availability", "cpus", "memory"}),
        (("version",), {"version"}),
        (("controller", "status"), {"running", "processes"}),
        (("logs", "--tail", "1"), {"name", "service", "stream", "time", "line"}),
    ],
)
def test_format_json_prints_an_object_a_line(app, words, keys):
    rows = json_lines(app(*words, "--format", "json").stdout)
    assert rows
    for row in rows:
        assert keys <= set(row)


def test_config_as_json_is_the_canonical_mapping(app):
    model = json.loads(app("config", "--format", "json").stdout)
    assert model["name"] == "app"
    assert model["services"]["web"]["environment"] == {"COLOUR": "green"}
    assert model["services"]["web"]["deploy"]["replicas"] == 2


# ---- attached -------------------------------------------------------------------------------


def test_abort_on_exit_gives_the_exit_code(corral):
    corral.compose(
        "services:\n"
        "  test: {image: busybox, command: [sh, -c, 'sleep 0.3; exit 4'], restart: 'no'}\n"
        "  db: {image: busybox, command: [sleep, inf], stop_grace_period: 0s}\n"
    )
    corral("up", "--exit-code-from", "test", code=4)
    assert not corral.processes()
