"""When to probe: Docker's meaning of the keys, plus early probes that cannot do harm."""

from __future__ import annotations

import asyncio
import errno

import pytest

from agent.errors import Refusal
from agent.runtime.failure import RuntimeFailure, from_runtime
from agent.tasks import probes
from specs.stack import Healthcheck, Hook
from specs.states import Health
from tests.agent.test_worker import Node, named

CHECK = Healthcheck(test=("CMD", "x"), interval=30, start_period=60, start_interval=5)


def ages(check, health=Health.STARTING, until=120.0):
    age, found = 0.0, []
    while age < until:
        age += probes.delay(check, health, age)
        found.append(round(age, 3))
    return found


def test_early_probes_double_up_to_the_interval():
    assert ages(CHECK)[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 11.4]
    plain = Healthcheck(test=("CMD", "x"), interval=1)
    assert ages(plain, until=3)[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.6, 3.6]


def test_once_known_the_interval_rules():
    assert probes.delay(CHECK, Health.HEALTHY, 0.2) == 30
    assert probes.delay(CHECK, Health.UNHEALTHY, 5000) == 30


@pytest.mark.parametrize(
    ("health", "begun", "counted"),
    [
        (Health.STARTING, 0.1, False),
        (Health.STARTING, 40.0, False),
        (Health.STARTING, 60.0, True),
        (Health.HEALTHY, 0.5, True),
    ],
)
def test_which_failures_count(health, begun, counted):
    assert probes.counts(CHECK, health, begun) is counted
    no_period = Healthcheck(test=("CMD", "x"), interval=30)
    assert not probes.counts(no_period, Health.STARTING, 29)
    assert probes.counts(no_period, Health.STARTING, 30)


@pytest.mark.parametrize(
    ("test", "argv"),
    [
        (("CMD", "curl", "-f", "x"), ("curl", "-f", "x")),
        (("CMD-SHELL", "a && b"), ("/bin/sh", "-c", "a && b")),
        (("NONE",), ()),
    ],
)
def test_commands(test, argv):
    assert probes.command(Healthcheck(test=test)) == argv


def test_output_is_bounded():
    assert len(probes.verdict(1, "x" * 10_000)[1]) == 4096


@pytest.mark.parametrize(
    ("error", "of_the_node"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/run/corral/agent/tasks/t1/exec-x"),
            True,
        ),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (OSError(errno.ENOENT, "No such file", "/run/corral/agent/tasks/t1/config.json"), True),
        (RuntimeFailure("cannot write status file: No space left on device"), True),
        (RuntimeFailure("write pid file: Disk quota exceeded"), True),
        (from_runtime("error: executable file `curl` not found in $PATH: No such file"), False),
        (RuntimeFailure("exec: permission denied", 126), False),
        (RuntimeFailure("fork: Resource temporarily unavailable"), False),
        (Refusal("there is no user nobody2"), False),
    ],
)
def test_what_could_not_be_run_for_reasons_of_the_node_is_no_verdict(error, of_the_node):
    assert probes.could_not_be_run(error) is of_the_node


class NoRun:
    """A node whose /run is full for a while."""

    def __init__(self, node):
        self.full, self.tried = True, 0
        self.hook, self.probe = node.hooks.run, node.probe
        node.hooks.run, node.probe = self._hook, self._probe

    def _try(self):
        self.tried += 1
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device", "/run/corral/agent/x")

    async def _hook(self, *given):
        self._try()
        return await self.hook(*given)

    async def _probe(self, *given):
        self._try()
        return await self.probe(*given)


CHECKED = Healthcheck(test=("CMD", "x"), interval=1.0, retries=2)


@pytest.mark.looptime
@pytest.mark.parametrize("before", ["healthy", "starting", "unhealthy"])
async def test_a_task_whose_check_cannot_be_run_is_as_it_was(tmp_path, before):
    node = Node(tmp_path)
    run = NoRun(node)
    run.full = before == "starting"
    node.probes["a"] = [1] if before == "unhealthy" else [0]
    keep = {"on_unhealthy": "keep"} if before == "unhealthy" else {}
    await node.put(named("a", healthcheck=CHECKED, **keep))
    if not run.full:
        await node.until(lambda: node.status("a").health == before)
    run.full, run.tried = True, 0
    await node.until(lambda: run.tried >= 10)
    status = node.status("a")
    assert status.health == before, "law: no verdict"
    assert (len(status.runs), status.restarts) == (1, 0)
    assert status.ready is (before == "healthy")
    assert "no space is left" in status.unasked
    run.full = False
    node.probes["a"] = [0]
    await node.until(lambda: node.status("a").unasked == "")
    await node.until(lambda: node.status("a").health == "healthy")
    await node.kill()


@pytest.mark.looptime
async def test_a_start_hook_that_cannot_be_run_is_tried_again_and_a_stop_does_not_wait(tmp_path):
    node = Node(tmp_path)
    run = NoRun(node)
    one = {"post_start": (Hook(command=("a1",)),), "pre_stop": (Hook(command=("z1",)),)}
    await node.put(named("a", **one))
    await node.until(lambda: run.tried >= 4)
    status = node.status("a")
    assert "post_start hook: a1 cannot be run yet: no space is left" in status.reason
    assert len(status.runs) == 1, "law: the run is not ended for it"
    run.full = False
    await node.until(lambda: node.status("a").ready)
    run.full, begun = True, asyncio.get_running_loop().time()
    await node.put(named("a", "shutdown", **one))
    await node.until(lambda: node.status("a").state == "shutdown")
    assert asyncio.get_running_loop().time() - begun < 1.0
    await node.kill()
