"""`up` when no node takes a task: told with the reason and what would help, in ten seconds."""

from __future__ import annotations

import subprocess
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
  big:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    deploy: {placement: {constraints: [node.labels.disk == gold]}}
"""


def state(corral):
    """Return how the newest release is; those of an earlier stack of that name may follow it."""
    return corral.get("/v1/stacks/app/releases")["releases"][0]["state"]


def test_a_task_that_no_node_takes_is_said_and_up_ends(corral):
    corral.compose(STACK)
    node = corral.get("/v1/nodes")["nodes"][0]["name"]
    began = time.monotonic()
    done = corral("up", "-d", code=1)
    took = time.monotonic() - began
    assert 10 <= took < 100, "ten seconds without a node, and not the ten minutes of the release"
    reason = f"{node}: does not satisfy 'node.labels.disk == gold' (it has no label disk)"
    assert f"big: no node takes big-1\n  {reason}" in done.stderr
    assert f"corral node label {node} disk=gold" in done.stderr
    assert "waits for a node, and nothing else of it is under way" in done.stderr
    assert "no node fits" in corral("ps").stdout, "ps shows the reason"
    assert corral.row("web-1")["ready"]
    assert state(corral) == "deploying", "the release goes on"
    # What was advised helps, and the same release ends well.
    corral("node", "label", node, "disk=gold")
    try:
        corral.until("big runs", lambda: corral.row("big-1")["ready"])
        corral.until(
            "deployed",
            lambda: state(corral) == "deployed",
        )
    finally:
        corral("node", "label", node, "disk-")
    # It is volume-free, but there is nowhere else: it stays, and says that it is misplaced.
    row = corral.until(
        "marked", lambda: next((r for r in corral.rows(service="big") if r["misplaced"]), None)
    )
    assert row["ready"]
    assert "misplaced" in corral("ps").stdout


def test_who_says_how_long_waits_that_long(corral):
    corral.compose(STACK)
    began = time.monotonic()
    done = corral("up", "-d", "--wait", "--wait-timeout", "13", code=1)
    assert time.monotonic() - began >= 13
    assert "is not up after 13 s" in done.stderr


def test_the_first_up_on_an_empty_machine_says_something_at_once(lab_pool, capsys):
    lab = lab_pool.make(1, client=False)
    (host,) = lab.nodes
    try:
        host.write("/root/app/compose.yaml", "services: {web: {image: busybox}}\n")
        argv = [sys.executable, "-m", "orchestrator.cli.main", "up", "-d"]
        began = time.monotonic()
        process = host.popen(
            argv,
            cwd="/root/app",
            env={"PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        first = process.stderr.readline().decode()
        first_at = time.monotonic() - began
        process.communicate(timeout=120)
        whole = time.monotonic() - began
        host.corral("controller", "stop", check=False)
    finally:
        lab.down()
    with capsys.disabled():
        print(f"\ncold up: {first.strip()!r} after {first_at:.2f} s, all of it {whole:.1f} s")
    assert first.startswith("corral: ")
    # A second where nothing else runs; a busy machine is as slow with all that comes after it.
    assert first_at < whole / 2
