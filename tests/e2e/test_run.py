"""`corral run` and `corral attach` on real containers: what goes through, and what is left."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time

import pytest

pytestmark = pytest.mark.real

STACK = """
services:
  web:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
    environment: {COLOUR: green}
    working_dir: /tmp
    restart: always
    ports: ["8099:80"]
    depends_on: [db]
  db:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
  echo:
    image: busybox
    command: [sh, -c, "echo ready; while read line; do echo got $$line; done; echo over; sleep inf"]
    stdin_open: true
    profiles: [tools]
"""


@pytest.fixture
def app(corral):
    corral.compose(STACK)
    return corral


def oneoffs(app, stack="app"):
    found = app.get(f"/v1/stacks/{stack}/tasks", all=True, oneoffs=True)["tasks"]
    return [row for row in found if row.get("oneoff")]


def test_a_command_once(app):
    """Its output, input, code and place; what it needs is there, and it is no replica."""
    done = app("run", "--rm", "web", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert done.stdout == "out\n"
    assert done.stderr.endswith("err\n")
    assert {row["service"] for row in app.rows()} == {"db"}, "dependencies, not the service itself"
    app.until("it is gone", lambda: not oneoffs(app))
    release = app.get("/v1/stacks/app")["release"]

    big = "x" * 300_000
    assert app("run", "--rm", "-T", "web", "cat", stdin=big).stdout == big
    done = app("run", "--rm", "-e", "COLOUR=red", "-w", "/", "-u", "65534:65534", "web",
               "sh", "-c", "echo $COLOUR; pwd; id -u; cat /etc/hostname | wc -l")  # fmt: skip
    assert done.stdout == "red\n/\n65534\n1\n"
    much = "head -c 2000000 /dev/zero"
    assert len(app("run", "--rm", "web", "sh", "-c", much).stdout) == 2_000_000
    assert app("run", "--rm", "web", "nosuch", code=127).stderr
    assert "no such service" in app("run", "wbe", "true", code=1).stderr
    assert app.get("/v1/stacks/app")["release"] == release, "law: a run is no release"

    # a name of its own, kept without --rm; seen by `ps -a` only
    app("run", "--name", "once", "--no-deps", "web", "sh", "-c", "echo kept")
    assert "once" not in app("ps").stdout
    assert "once" in app("ps", "-a").stdout
    assert "in use" in app("run", "--name", "once", "web", "true", code=1).stderr

    # -d: the name once it runs
    name = app("run", "-d", "web", "sleep", "inf").stdout.strip()
    assert re.fullmatch(r"app-web-run-[0-9a-f]{12}", name)
    (row,) = [row for row in oneoffs(app) if row["name"] == name]
    assert (row["state"], row["ports"]) == ("running", [])
    assert app("run", "--rm", "db", "sh", "-c", f"ping -c1 -W5 {name} >/dev/null && echo found"
               ).stdout == "found\n"  # fmt: skip
    assert app("run", "-d", "web", "nosuch", code=127).stderr

    # by its name: what it printed, a signal, its end; the service's own are left alone
    assert app("logs", "--no-log-prefix", "once").stdout == "kept\n"
    app("stop", "-t", "0", name)
    assert app("wait", name, code=137).stdout.endswith("status code 137\n")
    assert f"{name} removed" in app("rm", "-f", "web").stdout
    assert not [row for row in oneoffs(app) if row["name"] == name]


def test_a_terminal_and_who_goes(app):
    """A terminal, the keys that leave, Ctrl-C, and a command line that is killed."""
    app("run", "--no-deps", "--rm", "web", "true")
    ours, theirs = pty.openpty()
    command = app.popen("run", "--rm", "--no-deps", "web", "sh",
                        stdin=theirs, stdout=theirs, stderr=theirs)  # fmt: skip
    os.close(theirs)
    try:
        os.write(ours, b"tty; stty -a | head -1; echo a$((40+2))b\n")
        seen = until_seen(ours, b"a42b")
        assert b"/dev/pts/" in seen or b"/dev/console" in seen, seen
        os.write(ours, b"\x10\x11")
        assert command.process.wait(60) == 0
        (row,) = oneoffs(app)
        # What it prints may be here before it is told that it runs.
        app.until("it runs", lambda: oneoffs(app)[0]["state"] == "running")
    finally:
        os.close(ours)
        command.process.kill()
        command.process.wait(60)
    ours, theirs = pty.openpty()
    command = app.popen("attach", row["name"], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        os.write(ours, b"echo b$((1+1))c\n")
        until_seen(ours, b"b2c")
        os.write(ours, b"exit 5\n")
        assert command.process.wait(60) == 5
    finally:
        os.close(ours)
        command.process.kill()
        command.process.wait(60)
    app.until("it is gone", lambda: not oneoffs(app))

    # Killed: what it started goes on to its end, and is removed then.
    command = app.popen("run", "--rm", "-T", "--no-deps", "web", "sh", "-c",
                        "echo begun; while ! [ -e /tmp/go ]; do sleep 0.1; done",
                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert command.process.stdout.readline() == "begun\n"
    command.signal("KILL")
    command.finish()
    # What it prints is heard before its node has told how far it is.
    app.until("it runs", lambda: [row["state"] for row in oneoffs(app)] == ["running"])
    (row,) = oneoffs(app)
    app("exec", "-T", row["name"], "touch", "/tmp/go")
    app.until("it is gone", lambda: not oneoffs(app))

    # Ctrl-C: to the command; the second one stops it.
    script = "trap 'echo caught' INT; echo begun; while :; do sleep 0.1; done"
    command = app.popen("run", "--rm", "-T", "--no-deps", "web", "sh", "-c", script,
                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert command.process.stdout.readline() == "begun\n"
    command.signal("INT")
    assert command.process.stdout.readline() == "caught\n"
    command.signal("INT")
    assert command.finish()[0] == 137
    app.until("it is gone", lambda: not oneoffs(app))

    # Other signals: to the command, as often as they come. A closed terminal: it ends with it.
    script = "trap 'echo hup' HUP; trap 'exit 14' USR1; echo begun; while :; do sleep 0.1; done"
    command = app.popen("run", "--rm", "-T", "--no-deps", "web", "sh", "-c", script,
                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert command.process.stdout.readline() == "begun\n"
    for _ in range(2):
        command.signal("HUP")
        assert command.process.stdout.readline() == "hup\n"
    command.signal("USR1")
    assert command.finish()[0] == 14
    ours, theirs = pty.openpty()
    script = "trap '' HUP; trap 'exit 0' TERM; echo a$((40+2))b; while :; do sleep 0.1; done"
    command = app.popen("run", "--rm", "--no-deps", "web", "sh", "-c", script,
                        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))  # fmt: skip
    os.close(theirs)
    try:
        until_seen(ours, b"a42b")
    finally:
        os.close(ours)
    command.process.wait(60)  # with whatever brought it onto the host
    app.until("it is gone", lambda: not oneoffs(app))


def test_daemons_that_go_meanwhile(app):
    """The controller, then the agent, are killed under a run: it goes on, and its code comes."""
    app("run", "--no-deps", "--rm", "web", "true")
    for daemon in ("controller", "agent"):
        script = "echo begun; while ! [ -e /tmp/go ]; do sleep 0.1; done; echo over; exit 3"
        command = app.popen("run", "--name", f"r-{daemon}", "-T", "--no-deps", "web", "sh", "-c",
                            script, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip
        assert command.process.stdout.readline() == "begun\n"
        app.kill(daemon)
        app.until("it is heard of", lambda: oneoffs(app)[-1]["started_at"])
        enter = ("exec", "-T", f"r-{daemon}", "touch", "/tmp/go")
        try:
            app.until("its node is reached", lambda: app(*enter, code=None).returncode == 0)  # noqa: B023 - called here
        except BaseException:
            command.signal("KILL")
            command.finish()
            raise
        code, out, err = command.finish()
        assert code == 3, (out, err)
        assert "connection was lost" in err
        app.until("its end is known", lambda: oneoffs(app)[-1]["state"] in ("complete", "failed"))
        app("rm", "-f", f"r-{daemon}")
    assert not oneoffs(app)


def test_attach(app):
    """A service's own process: what it prints from now on, and its input."""
    app("--profile", "tools", "up", "-d", "echo")
    app.until("it is ready", lambda: "ready" in app("logs", "echo").stdout)
    command = app.popen("attach", "echo", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    command.process.stdin.write("one\ntwo\n")
    command.process.stdin.flush()
    assert command.process.stdout.readline() == "got one\n"
    assert command.process.stdout.readline() == "got two\n"
    command.signal("KILL")
    command.finish()
    (row,) = app.rows(service="echo")
    assert row["state"] == "running", "whoever listens and goes leaves it as it is"
    assert "web" in app("attach", "web", code=1).stderr


def until_seen(fd, wanted, within=60.0):
    seen, deadline = b"", time.monotonic() + within
    while wanted not in seen and time.monotonic() < deadline:
        if select.select([fd], [], [], 0.2)[0]:
            seen += os.read(fd, 4096)
    assert wanted in seen, seen
    return seen
