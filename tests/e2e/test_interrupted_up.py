"""An `up` that is cut short: Ctrl-C, SIGKILL; `down` afterwards leaves nothing (the fixture)."""

from __future__ import annotations

import subprocess
import time

import pytest

pytestmark = pytest.mark.real

SLOW = """
services:
  db:
    image: busybox
    command: [sh, -c, "trap 'echo bye; exit 0' TERM; echo db says hello; sleep inf & wait"]
    healthcheck: {test: [CMD, test, -e, /tmp/never], interval: 200ms, retries: 1000, start_period: 60s}
    volumes: [data:/data]
    networks: [back]
  web:
    image: busybox
    command: [sleep, inf]
    depends_on: {db: {condition: service_healthy}}
    networks: [back]
    ports: ["8081:80"]
volumes: {data: {}}
networks: {back: {}}
"""  # noqa: E501
QUICK = """
services:
  db:
    image: busybox
    command: [sh, -c, "trap 'echo bye; exit 0' TERM; echo db says hello; sleep inf & wait"]
"""
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def begin(corral, *words, moment=None):
    command = corral.popen("up", *words, **PIPES)
    if moment is None:
        corral.until(
            "db runs",
            lambda: any(
                row["state"] in ("starting", "running")
                for stack in corral.get("/v1/stacks")["stacks"]
                for row in corral.rows(stack["name"], "db")
            ),
        )
    else:
        time.sleep(moment)
    return command


def follows(command):
    """Wait until the command tells of the release: the cluster is quicker than its answer."""
    lines = []
    while "waits for db" not in "".join(lines):
        lines.append(command.process.stderr.readline())
        assert lines[-1], f"it ended:\n{''.join(lines)}"


def test_an_interrupted_detached_up_goes_on(corral):
    corral.compose(SLOW)
    command = begin(corral, "-d")
    follows(command)
    command.signal("INT")
    code, _, err = command.finish(90)
    assert code == 130
    assert "goes on in the background" in err
    assert "corral down" in err
    assert corral.rows("app", "db")[0]["state"] in ("starting", "running")
    corral("down", "-v")


def test_an_interrupted_update_offers_what_undoes_it_and_no_more(corral):
    corral.compose(QUICK)
    corral("up", "-d")
    before = corral.row("db-1")["release"]
    corral.compose(SLOW)
    command = corral.popen("up", "-d", **PIPES)
    corral.until("the update is under way", lambda: corral.rows("app", "web"))
    follows(command)
    command.signal("INT")
    code, _, err = command.finish(90)
    assert code == 130
    assert f"Release {before} is what ran before" in err
    assert "to undo this one, corral rollback" in err
    assert "corral down would remove the whole stack" in err
    corral.compose(QUICK)
    corral("up", "-d", "--remove-orphans")
    assert [(row["service"], row["ready"]) for row in corral.rows()] == [("db", True)]


@pytest.mark.parametrize("moment", [0.1, 0.25, 0.4, 0.6])
def test_a_killed_up_is_cleaned_by_down(corral, moment):
    corral.compose(SLOW)
    command = begin(corral, moment=moment)
    command.signal("KILL")
    command.finish(90)
    corral("down", "-v")
    assert corral.get("/v1/stacks")["stacks"] == []


def test_ctrl_c_while_it_starts_stops_the_stack(corral):
    corral.compose(SLOW)
    command = begin(corral)
    command.signal("INT")
    code, _, _ = command.finish(90)
    assert code in (0, 130)
    corral.until("stopped", lambda: not corral.processes())


def test_ctrl_c_stops_what_was_named_and_not_what_others_use(corral):
    web = "\n  web: {image: busybox, command: [sh, -c, 'echo web up; sleep inf'], "
    corral.compose(QUICK + web.lstrip("\n") + "depends_on: [db], stop_grace_period: 0s}\n")
    command = corral.popen("up", "web", **PIPES)
    assert "web up" in command.process.stdout.readline()
    command.signal("INT")
    code, _, err = command.finish(90)
    assert code == 130, err
    assert [(row["service"], row["state"]) for row in corral.rows()] == [("db", "running")]


def test_ctrl_c_in_an_attached_up_stops_the_stack(corral):
    corral.compose(QUICK)
    command = begin(corral)
    lines = []
    while "db says hello" not in "".join(lines):
        lines.append(command.process.stdout.readline())
        assert lines[-1], "the container's output is shown"
    command.signal("INT")
    code, out, err = command.finish(90)
    assert code in (0, 130), err
    assert "bye" in out, "what it prints while it stops is shown, too"
    (row,) = corral.rows(ended=True)
    assert row["state"] == "shutdown"
    assert row["exit_code"] == 0
    assert not corral.processes()
