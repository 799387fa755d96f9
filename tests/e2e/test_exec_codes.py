"""`corral exec` gives the command's exit code, whatever becomes of its input and output.

As Compose does for stdin and stdout; where the reader of the output has gone, Compose dies of it
and corral tells the command instead, as a pipeline on one machine does.
"""

from __future__ import annotations

import json
import sys
import time

import pytest

from orchestrator.lab.host import CHECKOUT

pytestmark = pytest.mark.real

STACK = """
services:
  web:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
"""
UNWELL = """
services:
  sick:
    image: busybox
    command:
      - sh
      - -c
      - "trap 'touch /tmp/asked' TERM; rm -f /tmp/end; until test -e /tmp/end; do sleep 0.1; done"
    stop_grace_period: 60s
    healthcheck: {test: "exit 1", interval: 300ms, start_period: 1h}
"""
# Runs every cell of the table on the host, some at a time: [stdin, stdout, code] in, what came out.
DRIVER = r"""
import json, os, pty, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

PROGRAM = [sys.executable, "-m", "orchestrator.cli.main", "exec", "web", "sh", "-c"]
SCRIPT = {"drained": "cat > /dev/null; ", "not drained": "", "closed": "cat; ", "tty": ""}

def run(cell):
    kind, out, code = cell
    argv = [*PROGRAM, f"{SCRIPT[kind]}echo word; exit {code}"]
    close = (" <&-" if kind == "closed" else "") + (" >&-" if out == "closed" else "")
    ours = theirs = -1
    options = {"stdin": subprocess.DEVNULL}
    if kind in ("drained", "not drained"):
        options["stdin"] = subprocess.PIPE
    elif kind == "tty":
        ours, theirs = pty.openpty()
        options["stdin"] = theirs
    read, write = os.pipe()
    if out == "broken pipe":
        os.close(read)
    options["stdout"] = theirs if kind == "tty" and out == "open" else write
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@"{close}', "sh", *argv], stderr=subprocess.PIPE, **options
    )
    os.close(write)
    _, errors = process.communicate(bytes(3_000_000) if process.stdin else None, timeout=60)
    said = b""
    if kind == "tty" and out == "open":
        said = os.read(ours, 100)
    elif out == "open":
        said = os.read(read, 100)
    for fd in (ours, theirs, read if out != "broken pipe" else -1):
        if fd >= 0:
            os.close(fd)
    return [process.returncode, said.decode().strip(), errors.decode()]

cells = json.load(sys.stdin)
with ThreadPoolExecutor(3) as pool:
    print(json.dumps(list(pool.map(run, cells))))
"""


@pytest.fixture
def app(corral):
    corral.compose(STACK)
    corral("up", "-d")
    return corral


def shell(app, script):
    """Run a line in a shell of the host in which $C is `corral exec web sh -c`."""
    program = f"{sys.executable} -m orchestrator.cli.main exec web sh -c"
    return app.host.run(
        ["bash", "-c", f"C='{program}'; {script}"],
        cwd=app.folder,
        env={"PYTHONPATH": str(CHECKOUT)},
        check=False,
    )


@pytest.mark.timeout(600)
def test_the_exit_code_is_the_commands(app):
    cells = [
        (kind, out, code)
        for kind in ("drained", "not drained", "closed", "tty")
        for out in ("open", "closed", "broken pipe")
        for code in ((0, 5) if kind == "not drained" else (5,))
    ]
    app.host.write(f"{app.folder}/driver.py", DRIVER)
    done = app.host.run(
        [sys.executable, f"{app.folder}/driver.py"],
        stdin=json.dumps(cells),
        cwd=app.folder,
        env={"PYTHONPATH": str(CHECKOUT)},
        timeout=180,
    )
    found = dict(zip(cells, json.loads(done.stdout), strict=True))
    expected = {(k, o, c): [c, "word" if o == "open" else "", ""] for k, o, c in cells}
    assert found == expected


# Each line prints the exit codes of its pipeline last.
PIPELINES = [
    ("$C 'yes' < /dev/null | head -1", "y\n141 0"),
    # It is the command that is told, when it writes after the reader has gone; soon or late.
    ("$C 'for i in $(seq 600); do echo a; sleep 0.1; done; exit 5' < /dev/null | true", "141 0"),
    ("$C 'echo a; sleep 0.3; exit 5' < /dev/null | true", "5 0"),
    ("$C 'trap \"\" PIPE; yes 2>/dev/null; exit 6' < /dev/null | head -1", "y\n6 0"),
    ("$C 'yes >&2' 2>&1 < /dev/null | head -1", "y\n141 0"),
    # Output somebody reads late: all of it.
    ("$C 'head -c 3000000 /dev/zero; exit 5' < /dev/null | (sleep 2; wc -c)", "3000000\n5 0"),
    # What a command leaves behind is not waited for, whether it is silent or not.
    ("$C 'sleep 100 & exit 5' < /dev/null | cat", "5 0"),
    ("$C 'yes & exit 5' < /dev/null | wc -l | grep -c .", "1\n5 0 0"),
    # Input that is none.
    ("$C 'cat; exit 5' 0> /dev/null | cat", "5 0"),
    ("$C 'cat; exit 5' <&- >&- 2>&- | cat", "5 0"),
    ("$C 'echo a >&2; exit 5' 2>&- < /dev/null | cat", "5 0"),
]


@pytest.mark.timeout(600)
def test_pipelines(app):
    for script, said in PIPELINES:
        done = shell(app, f"{script}; echo ${{PIPESTATUS[@]}}")
        assert (done.stdout.strip(), done.stderr) == (said, ""), script


def test_a_container_that_was_never_healthy(corral):
    corral.compose(UNWELL)
    waiting = corral.popen("up", "-d")
    try:
        corral.until("a stack", lambda: corral.get("/v1/stacks")["stacks"])
        corral.until("a process", lambda: corral.rows() and corral.rows()[0]["started_at"])
        (row,) = corral.rows()
        assert (row["state"], row["ready"]) == ("starting", False)
        assert corral("exec", "-T", "sick", "echo", "inside").stdout == "inside\n"
        assert corral("exec", "-T", "sick", "sh", "-c", "exit 5", code=5)
        before = corral.processes()
        corral("restart", "-t", "0", "sick")
        after = corral.processes()
        assert after.keys() == before.keys()
        assert after != before
        assert corral("exec", "-T", "sick", "echo", "again").stdout == "again\n"
        # It is asked to end and does not yet: its process runs, so it can be entered.
        corral("exec", "-T", "sick", "rm", "-f", "/tmp/asked")
        ((pid, _),) = after.values()
        going = corral.popen("restart", "-t", "300", "sick")
        seen = f"ls /proc/{pid}/root/tmp/asked 2>/dev/null || true"
        corral.until("the stop signal", lambda: corral.sh(seen))
        assert corral("exec", "-T", "sick", "echo", "still").stdout == "still\n"
        corral("exec", "-T", "sick", "touch", "/tmp/end")
        assert going.finish()[0] == 0
    finally:
        waiting.signal("INT")
        waiting.finish()


# What is started -> its exit code when it is started, and what it says into /tmp/said later.
DETACHED = [
    (["sh", "-c", "sleep 1; echo late > /tmp/said; sleep 100"], 0, "late"),
    (["sh", "-c", "echo quick > /tmp/said"], 0, "quick"),
    (["sh", "-c", "echo failed > /tmp/said; exit 5"], 0, "failed"),
    (["sh", "-c", "yes; echo flooded > /tmp/said"], 0, ""),
    (["no-such-command"], 127, ""),
]


@pytest.mark.timeout(600)
def test_a_detached_command_runs_on_and_is_not_waited_for(app):
    inside = lambda *words: app("exec", "-T", "web", *words).stdout  # noqa: E731 - short
    for command, code, said in DETACHED:
        inside("rm", "-f", "/tmp/said")
        began = time.monotonic()
        done = app("exec", "-d", "web", *command, code=code, timeout=60)
        if command[-1].endswith("sleep 100"):
            assert time.monotonic() - began < 50, "it is not waited for"
        assert done.stdout == ""
        assert ("no-such-command" in done.stderr) == (code == 127)
        if said:
            app.until(said, lambda said=said: said in inside("sh", "-c", "cat /tmp/said || :"))
    assert "sleep 100" in inside("ps"), "it runs on"
    options = ["-u", "1000:1000", "-w", "/tmp", "-e", "A=b"]
    app("exec", "-d", *options, "web", "sh", "-c", "echo $A > env; sleep 99")
    app("exec", "-dt", "web", "sh", "-c", "test -t 0 || echo no terminal > /tmp/said")
    app.until("no terminal", lambda: "no" in inside("sh", "-c", "cat /tmp/said || :"))
    app.until("its environment", lambda: inside("sh", "-c", "cat /tmp/env || :") == "b\n")
    assert "1000" in next(line for line in inside("ps").splitlines() if "sleep 99" in line)
    app("restart", "-t", "0", "web")
    assert "sleep 99" not in inside("ps"), "it ends with its container"
