"""Jobs and schedules on three hosts: completions two at a time while one is lost, and cron."""

from __future__ import annotations

import json
import re

import pytest

pytestmark = pytest.mark.real
STACK = """
services:
  work:
    image: busybox
    command: [sh, -c, "echo did $$HOSTNAME; exec sleep 4"]
    hostname: "{{.Task.Slot}}"
    stop_grace_period: 0s
    deploy: {mode: replicated-job, replicas: 5, placement: {max_replicas_per_node: 1}}
    x-corral: {max_concurrent: 2}
  report:
    image: busybox
    command: [sh, -c, "echo reported; exit 4"]
    x-corral: {schedule: {cron: "* * * * *", keep: 3}}
"""
RECOVERY = 120.0  # seconds until what was on a lost host runs elsewhere; twelve, alone on a machine


def work(cluster, state):
    rows = cluster.get("/v1/stacks/app/tasks", all=True)["tasks"]
    return [row for row in rows if row["service"] == "work" and row["state"] == state]


def schedule(cluster):
    (row,) = [
        json.loads(line)
        for line in cluster("schedule", "ls", "--format", "json").stdout.splitlines()
    ]
    return row


def test_a_job_and_a_schedule_while_a_host_is_lost(cluster, capsys):
    cluster.compose(STACK)
    said = cluster("up", "-d").stderr
    assert "report runs in " in said
    assert "report" not in {row["service"] for row in cluster.rows() if not row["oneoff"]}

    # A host with one of the two is lost: what it did not complete runs elsewhere.
    cluster.until("two run", lambda: len(work(cluster, "running")) == 2)
    victim = next(row for row in work(cluster, "running") if row["node"] != "n1")
    lost = victim["node"]
    cluster.lab.power_off(lost)

    # By hand meanwhile; it ends with the exit code of what it ran.
    done = cluster("schedule", "run", "report", code=4)
    (name,) = re.findall(r"(app-report-\d+) failed \(exit code 4\)", done.stdout)
    assert "reported" in cluster("logs", name).stdout

    took = cluster.until(
        "five have completed",
        lambda: {row["slot"] for row in work(cluster, "complete")} == {1, 2, 3, 4, 5},
        RECOVERY,
    )
    ended = {row["slot"]: (row["id"], row["node"]) for row in work(cluster, "complete")}
    assert ended[victim["slot"]][1] != lost
    assert "complete" not in cluster("ps").stderr, "nothing of the job is left to tell"

    cluster.lab.power_on(lost)
    cluster.until("it is ready again", lambda: cluster.nodes()[lost]["status"] == "ready", 120)
    again = {row["slot"]: (row["id"], row["node"]) for row in work(cluster, "complete")}
    assert again == ended, "what has completed is not run again"
    with capsys.disabled():
        print(f"\nfive completions with a host lost: {took:.1f} s", end="")


@pytest.mark.slow
def test_a_schedule_by_the_clock_of_its_controller(cluster):
    """Two minutes go by, and each begins one; the controller is killed between them."""
    cluster.compose(STACK)
    cluster("up", "-d")
    cluster.until("report was due", lambda: schedule(cluster)["failed"] >= 1, 90)
    cluster.kill(("n1", "orchestrator"))
    cluster.until("and again", lambda: schedule(cluster)["failed"] >= 2, 120)
    row = schedule(cluster)
    due = [one["due"] for one in row["iterations"]]
    assert due[:2] == [due[0], due[0] + 60]
    assert all(at % 60 == 0 for at in due)
    assert all(0 <= one["started_at"] - one["due"] < 30 for one in row["iterations"][:1])
    figure = 'corral_schedule_failures_total{stack="app",service="report"}'
    assert figure in cluster("metrics").stdout


BUSY = """
services:
  web:
    image: busybox
    command: [sh, -c, "while [ -e /tmp/idle ] && sleep 1 || ! [ -e /tmp/idle ]; do :; done"]
    stop_grace_period: 0s
    cpus: 0.2
    x-corral: {autoscale: {min: 1, max: 2, cpu: 50%, cooldown: 20s}}
"""


@pytest.mark.slow
def test_what_works_hard_becomes_more_and_fewer_again(cluster):
    """By the figures of real control groups: each uses all of its fifth of a processor."""
    cluster.compose(BUSY)
    cluster("up", "-d")
    cluster.until("two work", lambda: len(cluster.ready("web")) == 2, 150)
    for number in (1, 2):
        cluster("exec", "-T", "--index", str(number), "web", "touch", "/tmp/idle")
    cluster.until("one is enough", lambda: len(cluster.ready("web")) == 1, 180)
