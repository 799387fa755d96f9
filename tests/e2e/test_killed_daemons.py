"""Containers outlive us: daemons are killed at random moments of a stack's life.

Laws, after every kill: containers the command does not replace keep pid and start time; the
command itself ends well; the wanted state is reached; what was acknowledged is there.
"""

from __future__ import annotations

import random
import subprocess
import time

import pytest

from tests.e2e.kills import SERVICE

pytestmark = pytest.mark.real

STACK = f"""
services:
  keep:{SERVICE}    deploy: {{replicas: 2}}
  roll:{SERVICE}    environment: {{VERSION: "${{VERSION}}"}}
    deploy: {{replicas: 2}}
    depends_on: [keep]
"""
OTHER = f"""
services:
  still:{SERVICE}
"""
VICTIMS = (("controller",), ("agent",), ("dns",), ("controller", "agent", "dns"))
# In this order each leads to the next one's start; the last two begin again.
COMMANDS = ("up", "change", "scale", "again", "down")


class Life:
    """Two stacks: one lives through commands and kills, the other must not notice."""

    def __init__(self, corral, seed):
        self.corral = corral
        self.random = random.Random(seed)
        self.version = 0
        self.rolls = 2
        self.releases = 0
        corral.compose(OTHER, "other")
        corral("up", "-d")
        self.other = corral.processes("other")
        corral.compose(STACK)
        corral.env["VERSION"] = "0"

    def words(self, command):
        if command == "change":
            self.version += 1
            self.corral.env["VERSION"] = str(self.version)
        if command == "scale":
            self.rolls = self.random.choice([n for n in (1, 2, 3, 4) if n != self.rolls])
            return ("scale", f"roll={self.rolls}")
        if command == "down":
            return ("down", "-t", "2")
        return ("up", "-d")

    def round(self, command, victims):
        corral = self.corral
        before = corral.processes() if command != "up" else {}
        rows = {r["id"]: r["service"] for r in corral.rows()} if before else {}
        kept = {
            task: process
            for task, process in before.items()
            if rows[task] == "keep" or command == "again"
        }
        moment = self.random.uniform(0.0, 0.7)
        told = f"{command}, {'+'.join(victims)} killed after {moment:.2f} s"
        under_way = corral.popen(*self.words(command), stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)  # fmt: skip
        time.sleep(moment)
        corral.kill(*victims)
        code, out, err = under_way.finish(90)
        assert code == 0, f"{told}: exit code {code}\n{out}{err}"
        assert "Traceback" not in err, f"{told}\n{err}"
        if command == "down":
            corral.until(f"{told}: gone", lambda: not corral.get("/v1/stacks")["stacks"][1:])
            self.rolls = 2
        else:
            self.reached(told)
            after = corral.processes()
            same = {task: after.get(task) for task in kept}
            assert same == kept, f"{told}: a container was touched"
        if command in ("up", "change", "again"):
            releases = corral.get("/v1/stacks/app/releases")["releases"]
            newest = max(row["number"] for row in releases)
            # History outlives `down`, and an earlier test's may be there, too.
            expected = {self.releases + 1} if self.releases else {newest}
            if command == "again":  # what serves already needs no other
                expected.add(self.releases)
            assert newest in expected, f"{told}: the release is there, once: {releases}"
            self.releases = newest
        assert corral.processes("other") == self.other, f"{told}: the other stack noticed"
        corral.new_supervisor()

    def reached(self, told):
        def wanted():
            rows = self.corral.rows()
            count = {name: sum(r["service"] == name and r["ready"] for r in rows)
                     for name in ("keep", "roll")}  # fmt: skip
            return count == {"keep": 2, "roll": self.rolls} and len(rows) == 2 + self.rolls

        self.corral.until(f"{told}: the wanted state", wanted)
        for row in self.corral.rows("app", "roll"):
            pid = self.corral.task(row)["status"]["runs"][-1]["pid"]
            environ = self.corral.host.read(f"/proc/{pid}/environ")
            assert f"VERSION={self.version}\0" in environ, f"{told}: an old version runs"


def live(corral, *, seed, rounds):
    life = Life(corral, seed)
    for number in range(rounds):
        life.round(COMMANDS[number % len(COMMANDS)], VICTIMS[number * 3 % len(VICTIMS)])
    # Names resolve through whatever dns process there is now.
    life.words("up")
    corral("up", "-d")
    corral.until(
        "names resolve",
        lambda: "10.210." in corral("exec", "-T", "roll", "nslookup", "keep", code=None).stdout,
    )
    assert corral.processes("other") == life.other


def test_killed_daemons_touch_no_container(corral):
    live(corral, seed=20261123, rounds=len(COMMANDS))  # every command and every victim once


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", range(8))
def test_killed_daemons_touch_no_container_many_times(corral, seed):
    live(corral, seed=seed, rounds=40)


def test_a_stopped_controller_leaves_containers_and_takes_them_over(corral):
    corral.compose(OTHER, "other")
    corral("up", "-d")
    before = corral.processes("other")
    done = corral("controller", "stop")
    assert "containers that keep running: 1" in done.stderr
    assert corral.daemon("controller") == corral.daemon("agent") == 0
    (process,) = before.values()
    assert corral.start_time(process[0]) == process[1]
    assert "no controller" in corral("ps", code=1).stderr.lower()
    corral("up", "-d")
    assert corral.processes("other") == before
