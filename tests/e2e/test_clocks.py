"""The daemons' wall clocks jump by a year, forth and back, and apart: containers and waits do not.

There is no namespace for the wall clock, and libfaketime breaks Python's sleep: both daemons have
a module that adds to it as many seconds as a file says. The monotonic clock is the machine's.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

SHOWN = """
import os, time
_right, _file = time.time, os.environ["TEST_CLOCK"]
def _shown():
    try:
        with open(_file) as file:
            return _right() + float(file.read() or 0)
    except OSError:
        return _right()
time.time = _shown
"""
STACK = """
services:
  web:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; while :; do echo tick; sleep 0.3; done"]
    init: false
    restart: always
    deploy: {replicas: 2}
    stop_grace_period: 1s
    healthcheck: {test: [CMD, "true"], interval: 1s, timeout: 60s, start_interval: 200ms,
      start_period: 30s}
  once: {image: busybox, command: ["true"], restart: "no"}
"""
YEAR, HOUR = 365 * 86400, 3600
JUMPS = [YEAR, -YEAR, 0, -2 * HOUR, 2 * HOUR, 0]


class Clocks:
    """Both daemons again, as they were, but for their clocks: a file each."""

    def __init__(self, corral):
        self.corral, self.started = corral, []
        corral.host.write("/root/clocks/sitecustomize.py", SHOWN)
        corral.unsupervised()
        for name in ("controller", "agent"):
            self.show(name, 0)
            pid = corral.daemon(name)
            folder = Path(f"/proc/{corral.host.pid}/root/proc/{pid}")
            argv = (folder / "cmdline").read_text().rstrip("\0").split("\0")
            lines = (folder / "environ").read_text().rstrip("\0").split("\0")
            env = dict(line.split("=", 1) for line in lines)
            env.pop("CORRAL_SUPERVISOR", None)  # it would be started again, and start others
            path = [env.get("PYTHONPATH", ""), "/root/clocks"]
            env |= {
                "TEST_CLOCK": f"/root/clocks/{name}",
                "PYTHONPATH": ":".join(filter(None, path)),
            }
            corral.kill(name)
            self.started.append(corral.host.popen(argv, env=env, stderr=subprocess.DEVNULL))
        corral.until("both serve", lambda: corral("node", "ls", code=None).returncode == 0)
        corral.until("the node is ready", lambda: self.node()["status"] == "ready")

    def show(self, name, seconds):
        self.corral.host.write(f"/root/clocks/{name}", str(seconds))

    def node(self):
        (node,) = self.corral.get("/v1/nodes")["nodes"]
        return node

    def end(self):
        self.corral.kill("controller", "agent")
        for process in self.started:
            process.wait(60)
        self.corral.sh("rm -rf /root/clocks")


@pytest.fixture
def clocks(corral):
    corral.compose(STACK)
    corral("up", "-d")
    found = Clocks(corral)
    yield found
    found.end()


@pytest.mark.timeout(400)
def test_nothing_ends_or_waits_when_the_hour_is_another(corral, clocks):
    before = corral.processes()
    assert len(before) == 2
    for jump in JUMPS:
        for name in ("controller", "agent"):
            clocks.show(name, jump)
        # Each of these waits for something that counts time.
        corral("exec", "-T", "web", "true")
        corral("ps")
        assert "tick" in corral("logs", "--tail", "5", "web").stdout
        corral("scale", "web=3")
        corral.until("a third", lambda: sum(row["ready"] for row in corral.rows()) == 3)
        corral("scale", "web=2")
        corral.until("two", lambda: len(corral.rows(service="web")) == 2)
        assert corral.processes() == before, f"the clocks went {jump} s away"
    rows = corral.rows(service="web")
    assert [(row["restarts"], row["health"]) for row in rows] == [(0, "healthy")] * 2
    assert clocks.node()["status"] == "ready"


@pytest.mark.timeout(300)
def test_a_clock_that_is_not_the_controllers_is_told(corral, clocks):
    before = corral.processes()
    clocks.show("agent", 3 * HOUR + 60)
    words = "its clock is 3 h ahead of the controller's"
    corral.until("it is seen", lambda: clocks.node()["reason"].startswith(words))
    assert clocks.node()["status"] == "ready"
    assert words in corral("node", "ls").stdout
    assert words in corral("node", "inspect", clocks.node()["name"]).stdout
    assert corral.processes() == before
    clocks.show("agent", 0)
    corral.until("it is put right", lambda: not clocks.node()["reason"])
