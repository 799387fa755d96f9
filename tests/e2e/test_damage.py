"""Damaged and lost memory of a real agent: the same processes serve afterwards.

Laws: what cannot be read ends nothing; one volume never has two writers for one slot.
"""

from __future__ import annotations

import sys

import pytest

from orchestrator.lab.host import CHECKOUT

pytestmark = pytest.mark.real

STACK = """
services:
  db:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; while :; do echo $$HOSTNAME >> /data/log; sleep 0.05; done"]
    init: false
    volumes: [data:/data]
    deploy: {replicas: 2}
  web:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
    init: false
    healthcheck: {test: [CMD, "true"], interval: 0.3s}
volumes: {data: {}}
"""  # noqa: E501 - one command

JOURNAL, TASKS = "/var/lib/corral/agent/journal", "/var/lib/corral/agent/tasks"
RECORDS = "/run/corral/agent/records"
EACH = f"for f in {RECORDS}/* {TASKS}/*/record.json; do"
OPENED = f"PYTHONPATH={CHECKOUT} {sys.executable} -P -m agent.sealing"
DAMAGE = {
    "first line": f"printf '\\001' | dd of={JOURNAL}/set.log bs=1 seek=60 conv=notrunc",
    "set": f"rm {JOURNAL}/set.log",
    "empty": f": > {JOURNAL}/set.log",
    "journal": f"rm -r {JOURNAL}",
    # In the clear, which is read as well.
    "records of another version": f"""{EACH} {OPENED} $f |
        sed 's/^{{/{{"colour":"red",/' > $f.new && mv $f.new $f; done""",
    "records": f"{EACH} head -c 200 /dev/zero > $f; done",
    "everything": f"rm -r {JOURNAL} {RECORDS} {TASKS}/*/record.json",
}


def test_the_same_processes_serve_whatever_the_agent_forgot(corral):
    corral.compose(STACK)
    corral("up", "-d")
    before = corral.processes()
    assert len(before) == 3
    for name, script in DAMAGE.items():
        corral.unsupervised()
        corral.kill("agent")
        corral.until(f"{name}: no agent", lambda: not corral.daemon("agent"))
        corral.sh(f"({script}) 2>/dev/null")
        corral.begin()
        corral.until(
            f"{name}: the node is ready",
            lambda: corral.get("/v1/nodes")["nodes"][0]["status"] == "ready",
        )
        corral.until(
            f"{name}: all are ready",
            lambda: [row["ready"] for row in corral.rows()] == [True] * 3,
        )
        after = corral.processes()
        assert after == before, f"{name}: law: pids and start times are the same"
        containers = corral.sh("ls /run/corral/agent/crun").split()
        assert sorted(containers) == sorted(before), f"{name}: law: no second writer"
        corral.until(
            f"{name}: nothing is unread any more",
            lambda: not corral.get("/v1/nodes")["nodes"][0].get("reason"),
        )
    # Its memory is whole again: all of it works.
    corral("scale", "web=2")
    corral("restart", "web", "-t", "0")
    corral("exec", "-T", "web", "true")
    assert {task for task in corral.processes() if task in before} == set(before)
