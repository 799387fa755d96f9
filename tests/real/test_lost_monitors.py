"""A container's monitor (conmon) is killed or hangs while the container lives: what becomes of it.

Nobody reads its output any more and nobody will know its exit code, so the run is ended and told
with that reason; what follows is the restart policy's. Law: the next run begins when no process of
the last one is left, whenever it happened.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from specs.stack import RestartPolicy
from specs.states import Desired
from tests.real.agent_host import AgentHost, assignment, until

pytestmark = pytest.mark.real

# A process that outlives its run sees the mark of the next one.
WRITER = (
    "id=$(cat /proc/sys/kernel/random/uuid); echo $id > /tmp/who; echo alone; "
    "(while :; do [ $(cat /tmp/who) = $id ] || echo two >> /tmp/two; sleep 0.02; done) & wait"
)
LOST = "its monitor (conmon) was lost, so the exit code is unknown"


@pytest.fixture
async def host():
    made = AgentHost()
    try:
        await made.start()
        yield made
        if made.agent.poll() is not None:
            await made.start()
        await made.remove()
        assert await made.left() == [], "a removed task leaves nothing"
    finally:
        await made.stop()


def monitor_of(host, task="t1"):
    return int((host.run / f"agent/tasks/{task}/conmon.pid").read_text())


def gone(pid):
    """Say whether a process has ended, fetched by its parent or not yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def printed(host, runs):
    async with asyncio.timeout(60):
        while [line.line for line in await host.logs("t1")] != ["alone"] * runs:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("victims", "agent", "code", "why"),
    [
        (("monitor",), "alive", None, LOST),
        (("monitor",), "dead", None, LOST),
        (("monitor", "container"), "alive", None, LOST),
        (("monitor", "container"), "dead", None, LOST),
        (("container", "monitor"), "dead", None, LOST),
        (("container",), "dead", 137, ""),  # it is there and tells the truth
    ],
)
async def test_a_run_without_its_monitor_is_ended_with_the_reason_and_followed_by_one_alone(
    host, victims, agent, code, why
):
    await host.put(assignment("t1", WRITER, restart=RestartPolicy(condition="any")))
    (status,) = await host.ready("t1")
    await printed(host, 1)
    pids = {"monitor": monitor_of(host), "container": status.run.pid}
    if agent == "dead":
        host.kill()
    if len(victims) == 2:  # at once: neither may tell of the other
        os.kill(pids["monitor"], signal.SIGSTOP)
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
    else:
        os.kill(pids[victims[0]], signal.SIGKILL)
    if agent == "dead":
        until(lambda: gone(pids[victims[0]]), "its end")
        await host.start()
    again = await host.until(
        lambda seen: (
            "t1" in seen and seen["t1"].ready and seen["t1"].run.number == 2 and seen["t1"]
        ),
        "another run",
    )
    assert again.runs[0].exit_code == code
    assert why in again.runs[0].reason
    assert gone(pids["container"])
    assert again.run.pid != status.run.pid
    await printed(host, 2)  # what was printed before is kept
    await asyncio.sleep(0.2)
    _, out, _ = await host.exec("t1", "ls", "/tmp")
    assert out.split() == ["who"], "law: never two at once"


async def test_without_a_restart_policy_it_has_failed_with_that_reason(host):
    await host.put(assignment("t1", WRITER, restart=RestartPolicy(condition="none")))
    (status,) = await host.ready("t1")
    os.kill(monitor_of(host), signal.SIGKILL)
    ended = await host.state_of("t1", "failed")
    assert LOST in ended.reason
    assert gone(status.run.pid)


@pytest.mark.parametrize("agent", ["alive", "dead"])
async def test_a_monitor_that_hangs_while_its_container_ends_is_not_waited_for(host, agent):
    await host.put(assignment("t1", WRITER, restart=RestartPolicy(condition="any")))
    (status,) = await host.ready("t1")
    monitor = monitor_of(host)
    os.kill(monitor, signal.SIGSTOP)
    if agent == "dead":
        host.kill()
    os.kill(status.run.pid, signal.SIGKILL)
    if agent == "dead":
        await host.start()
    again = await host.until(
        lambda seen: (
            "t1" in seen and seen["t1"].ready and seen["t1"].run.number == 2 and seen["t1"]
        ),
        "another run",
    )
    assert again.runs[0].exit_code is None
    assert LOST in again.runs[0].reason
    assert gone(monitor)


async def test_a_monitor_lost_while_its_task_is_stopped_changes_nothing_about_the_stop(host):
    deaf = assignment("t1", f"trap '' TERM; {WRITER}; wait", stop_grace=30.0)
    await host.put(deaf)
    (status,) = await host.ready("t1")
    await host.put(deaf.model_copy(update={"desired": Desired.SHUTDOWN}))
    await asyncio.sleep(0.2)
    os.kill(monitor_of(host), signal.SIGKILL)
    ended = await host.state_of("t1", "shutdown")
    assert ended.run.number == 1
    assert gone(status.run.pid)
