"""The machine loses its power and comes back: what ran runs again, in order, as it was."""

from __future__ import annotations

import pytest

from tests.e2e.cluster import Cluster

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

LIVE = "trap 'exit 0' TERM; sleep inf & wait"
STACK = f"""
x-live: &live
  image: busybox
  command: [sh, -c, "echo $$HOSTNAME >> /data/starts; {LIVE}"]
  volumes: ["data:/data"]
services:
  db:
    <<: *live
    command: [sh, -c, "rm -f /tmp/up; sleep 0.5; echo db >> /data/starts; touch /tmp/up; {LIVE}"]
    healthcheck:
      {{test: [CMD, test, -e, /tmp/up], interval: 300ms, start_period: 20s, start_interval: 100ms}}
    secrets: [word]
  migrate:
    <<: *live
    command: [sh, -c, "echo migrate >> /data/starts"]
    depends_on: {{db: {{condition: service_healthy}}}}
  app:
    <<: *live
    command: [sh, -c, "echo mine >> /layer; echo app >> /data/starts; {LIVE}"]
    depends_on:
      db: {{condition: service_healthy}}
      migrate: {{condition: service_completed_successfully}}
    restart: always
  web:
    <<: *live
    command: [sh, -c, "echo web >> /data/starts; {LIVE}"]
    depends_on: [app]
    deploy: {{mode: global}}
  job:
    <<: *live
    command: [sh, -c, "echo job >> /data/starts; {LIVE}"]
    restart: "no"
  kept:
    <<: *live
    command: [sh, -c, "echo kept >> /data/starts; {LIVE}"]
    x-corral: {{on_reboot: keep}}
volumes: {{data: {{}}}}
secrets: {{word: {{file: ./word}}}}
"""
STOPPED = f'services: {{quiet: {{image: busybox, command: [sh, -c, "{LIVE}"], restart: always}}}}'
RUN_AGAIN = ("app", "db", "job", "web")


@pytest.fixture
def machine(fresh_lab):
    lab = fresh_lab(nodes=1)
    cluster = Cluster(lab.nodes[0])
    cluster.start()
    yield cluster
    cluster.stop()


def test_what_ran_before_runs_again_in_order(machine):
    machine.compose(STOPPED, "quiet")
    machine("up", "-d")
    machine("stop")
    machine.compose(STACK, word="hush")
    machine("up", "-d")
    before = {row["service"]: machine.task(row) for row in machine.rows(ended=True)}
    in_db = lambda *words: machine("exec", "-T", "db", *words).stdout.split()  # noqa: E731 - short
    in_db("sh", "-c", "echo mine > /layer")
    machine.until("all have started", lambda: len(in_db("cat", "/data/starts")) == len(before))

    machine.host.power_off()
    machine.host.boot()
    machine.begin()
    machine.until("all run again", lambda: running(machine) == [*RUN_AGAIN])

    after = {row["service"]: machine.task(row) for row in machine.rows(ended=True)}
    assert {s: t["id"] for s, t in after.items()} == {s: t["id"] for s, t in before.items()}
    for service in RUN_AGAIN:
        assert after[service]["addresses"] == before[service]["addresses"]
        cut, new = after[service]["status"]["runs"]
        assert cut["reason"] == "the machine was restarted"
        assert new["reason"] == "", "nobody had to start without what it waits for"
        assert after[service]["status"]["restarts"] == 0, "it is no crash"
    assert after["migrate"]["status"]["state"] == "complete"
    assert len(after["migrate"]["status"]["runs"]) == 1, "a completed one-off is not run again"
    assert after["kept"]["status"]["state"] == "failed"
    assert after["kept"]["status"]["reason"] == "the machine was restarted"
    assert machine.rows("quiet") == [], "what was stopped stays stopped"

    assert in_db("cat", "/run/secrets/word") == ["hush"]
    assert in_db("cat", "/layer") == ["mine"]
    assert machine("exec", "-T", "app", "cat", "/layer").stdout.split() == ["mine", "mine"]
    starts = in_db("cat", "/data/starts")
    first, again = starts[: len(before)], starts[len(before) :]
    assert sorted(first) == ["app", "db", "job", "kept", "migrate", "web"]
    assert sorted(again) == [*RUN_AGAIN]
    assert again.index("db") < again.index("app") < again.index("web")


def running(machine) -> list[str]:
    return sorted(row["service"] for row in machine.rows() if row["ready"])


SWEPT = f"""
x-ends: &ends
  image: busybox
  command: [sh, -c, "echo $$HOSTNAME >> /data/starts; {LIVE}"]
  volumes: ["data:/data"]
services:
  none: {{<<: *ends, restart: "no"}}
  failure: {{<<: *ends, restart: on-failure}}
  always: {{<<: *ends, restart: always}}
  deaf: {{<<: *ends, command: [sleep, inf]}}
  kept: {{<<: *ends, x-corral: {{on_reboot: keep}}}}
  done: {{<<: *ends, command: ["true"]}}
  down: {{<<: *ends}}
volumes: {{data: {{}}}}
"""
SWEPT_RUN = ["always", "deaf", "failure", "none"]


def test_a_shutdown_that_tells_every_process_is_not_the_tasks_end(machine):
    """As init does without systemd: SIGTERM to all, some seconds, then the power goes."""
    machine.compose(SWEPT)
    machine("up", "-d")
    machine("scale", "down=0")
    machine.until(
        "what was scaled down is forgotten",
        lambda: "down" not in {row["service"] for row in machine.rows(ended=True)},
    )
    before = {row["service"]: row["id"] for row in machine.rows(ended=True)}
    machine.host.run(["sh", "-c", "kill -TERM -1"], check=False)
    machine.until("the agent has ended", lambda: not machine.daemon("agent"))

    machine.host.power_off()
    machine.host.boot()
    machine.begin()
    machine.until("all run again", lambda: running(machine) == SWEPT_RUN)
    after = {row["service"]: machine.task(row) for row in machine.rows(ended=True)}
    assert {s: t["id"] for s, t in after.items()} == before, "the same tasks"
    states = {service: task["status"]["state"] for service, task in after.items()}
    assert states.pop("kept") == "failed"
    assert states.pop("done") == "complete"
    assert states == dict.fromkeys(SWEPT_RUN, "running")
    for service in SWEPT_RUN:
        assert after[service]["status"]["restarts"] == 0, "it is no crash"
