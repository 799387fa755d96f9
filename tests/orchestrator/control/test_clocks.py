"""Wall clocks that are wrong, and that jump: nothing is killed, replaced or waited for by them.

One day of a stack is lived with right clocks and with each way of wrong ones; both must be the
same to the last start and end of a container (what happens in one moment has no order), and take
the same (virtual) time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest

from orchestrator.api import rows
from orchestrator.control.mirror import times
from specs.node import NodeCondition
from specs.states import Health, TaskState
from specs.task import Run, Task, TaskStatus
from specs.wire import HEARTBEAT
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

HOUR, DAY = 3600.0, 86400.0
LONG = 400 * DAY

# controller's clock, host1's (the same machine: the same clock), host2's, host3's; at each step
WRONG = {
    "controller an hour ahead": [(HOUR, 0, 0)],
    "controller 400 days behind": [(-LONG, 0, 0)],
    "one node ahead": [(0, LONG, 0)],
    "one node behind": [(0, -LONG, 0)],
    "each another": [(DAY, -LONG, 7 * HOUR)],
    "controller jumps ahead and back": [(0, 0, 0), (LONG, 0, 0)],
    "controller jumps behind and back": [(0, 0, 0), (-LONG, 0, 0)],
    "a node jumps ahead and back": [(0, 0, 0), (0, LONG, 0)],
    "a node jumps behind and back": [(0, 0, 0), (0, -DAY, 0)],
    "all jump about": [(0, 0, 0), (-LONG, DAY, HOUR), (LONG, -LONG, -HOUR), (-DAY, 0, LONG)],
    "seconds": [(0, 0, 0), (3, -3, 30), (-30, 3, 0)],
}
UPDATE = {"parallelism": 1, "monitor": "5s", "failure_action": "rollback"}


async def a_day(wrong):
    """Return what became of a stack's containers, and when each step was done."""
    clocks = itertools.cycle(wrong)
    done = []
    async with Rig(nodes=3) as rig:
        begun = rig.clock.monotonic()

        def step(name):
            done.append((name, rig.clock.monotonic() - begun))
            rig.clock.off, host2, host3 = next(clocks)
            rig.nodes["n1"].agent.clock.off = rig.clock.off
            rig.nodes["n2"].agent.clock.off = host2
            rig.nodes["n3"].agent.clock.off = host3

        rig.how["flaky"] = Behaviour(exit_code=1, runs_for=2.0, crashes=4)
        rig.how["slow"] = Behaviour(healthy=8.0)
        rig.how["web:bad"] = Behaviour(exit_code=1, again=True, runs_for=0.5)
        rig.how["job"] = Behaviour(exit_code=0, runs_for=1.0)

        def file(web="web:1"):
            return project(
                web=replicas(4, image=web, update=UPDATE, restart="always"),
                slow={**replicas(2, restart="always"), **CHECK},
                flaky=replicas(1, restart="always"),
                job={"restart": "no"},
                late={**after("service_completed_successfully", "job")},
            )

        step("begin")
        await rig.up(file())
        await rig.until(lambda: len(rig.ready("web")) == 4)
        step("web serves")
        await rig.end_of()
        step("deployed")
        await asyncio.sleep(120)
        step("quiet")
        await asyncio.sleep(120)
        step("updated")
        await rig.up(file("web:2"))
        await rig.end_of()
        step("quiet")
        await asyncio.sleep(60)
        step("a bad update")
        await rig.up(file("web:bad"))
        await rig.end_of(within=300)
        step("scaled")
        await rig.control.scale("app", {"web": 6})
        await rig.until(lambda: len(rig.ready("web")) == 6, within=120)
        step("controller again")
        await rig.restart_controller()
        await asyncio.sleep(60)
        step("cut for a moment")
        await rig.nodes["n2"].cut()
        await asyncio.sleep(3)
        step("back")
        await rig.nodes["n2"].connect()
        await asyncio.sleep(30)
        step("lost")
        await rig.nodes["n3"].crash(remembers=True)
        gone = {"n3"}
        await rig.until(lambda: len([t for t in rig.ready("web") if t.node not in gone]) == 6)
        step("back")
        await rig.nodes["n3"].connect()
        await asyncio.sleep(60)
        step("stopped")
        await rig.control.stop("app", None)
        await rig.until(lambda: not rig.live())
        step("started")
        await rig.start()
        await rig.end_of()
        await asyncio.sleep(60)
        step("end")
        left = sorted((t.name, t.release, t.state.value, t.status.ready) for t in rig.tasks())
        return Counter(rig.history), done, left


_RIGHT: list = []


async def right():
    if not _RIGHT:
        _RIGHT.append(await a_day([(0, 0, 0)]))
    return _RIGHT[0]


@pytest.mark.parametrize("how", WRONG)
async def test_a_day_is_the_same_whatever_the_clocks_show(how):
    """Law: a wall clock kills and replaces nothing, and no wait counts by it."""
    history, done, left = await right()
    assert history.total() > 60, "something happened"
    history_wrong, done_wrong, left_wrong = await a_day(WRONG[how])
    assert [name for name, _ in done_wrong] == [name for name, _ in done]
    for (name, at), (_, at_wrong) in zip(done, done_wrong, strict=True):
        assert at_wrong == pytest.approx(at, abs=2.0), name
    assert history_wrong == history
    assert left_wrong == left


async def test_right_clocks_twice_are_the_same():
    """What the law above compares with is no accident."""
    history, _, left = await right()
    again, _, left_again = await a_day([(0, 0, 0)])
    assert (again, left_again) == (history, left)


@pytest.mark.parametrize(
    ("controller", "node", "words"),
    [
        (0, 0, ""),
        (0, 1, ""),
        (0, 5, ""),
        (0, 3 * HOUR + 1, "its clock is 3 h ahead of the controller's"),
        (0, -12 * DAY, "its clock is 12 days behind the controller's"),
        (2 * HOUR, 0, "its clock is 2 h behind the controller's"),
        (2 * HOUR, 2 * HOUR, ""),  # both wrong, and alike
    ],
)
async def test_a_node_whose_clock_differs_is_told_with_what_to_do(controller, node, words):
    async with Rig(nodes=2) as rig:
        await asyncio.sleep(2 * HEARTBEAT)
        rig.clock.off = rig.nodes["n1"].agent.clock.off = controller
        rig.nodes["n2"].agent.clock.off = node
        await asyncio.sleep(5 * HEARTBEAT)
        row = rows.node_row(rig.cluster, rig.cluster.nodes["n2"], now=rig.clock.wall())
        assert row.status == "ready", "it is no worse for that"
        assert row.reason.startswith(words)
        assert bool(row.reason) is bool(words)
        assert [w for w in row.warnings if "clock" in w] == ([row.reason] if words else [])
        assert ("time server" in row.reason) is bool(words)
        own = rows.node_row(rig.cluster, rig.cluster.nodes["n1"], now=rig.clock.wall())
        assert not own.reason
        # It is put right while all runs.
        rig.clock.off = rig.nodes["n1"].agent.clock.off = rig.nodes["n2"].agent.clock.off = 0
        await asyncio.sleep(5 * HEARTBEAT)
        assert not rows.node_row(rig.cluster, rig.cluster.nodes["n2"], now=0.0).reason


async def test_lines_that_come_late_are_no_wrong_clock():
    """A frozen or slow node's reports arrive in a heap."""
    async with Rig(nodes=2) as rig:
        await asyncio.sleep(2 * HEARTBEAT)
        for late in (40.0, 35.0, 0.1):
            rig.control.shows("n2", rig.nodes["n2"].agent.clock.wall() - late)
        assert rig.cluster.conditions["n2"].ahead == 0.0


@pytest.mark.parametrize("off", [0.0, 5 * HOUR, -5 * HOUR])
async def test_how_long_a_task_has_run_is_told_by_its_nodes_clock(off):
    async with Rig(nodes=2) as rig:
        for fake in rig.nodes.values():
            fake.agent.clock.off = off
        await rig.up(project(web=replicas(1)))
        await rig.deployed()
        await asyncio.sleep(130)
        (task,) = rig.ready("web")
        assert "2 min" in rows.task_row(rig.cluster, task, now=rig.clock.wall()).status


NEW = {"stack": "app", "service": "web", "slot": 1, "name": "app-web-1", "release": 1}


@pytest.mark.parametrize(
    ("ahead", "created", "started", "wall", "ran"),
    [
        (0.0, 100.0, 110.0, 150.0, 40.0),
        (1000.0, 100.0, 1110.0, 150.0, 40.0),
        (-1000.0, 100.0, -890.0, 150.0, 40.0),
        (0.0, 100.0, 5000.0, 150.0, 0.0),  # its clock is not known to be ahead
        (0.0, 100.0, -5000.0, 150.0, 50.0),  # or behind: not longer than there is the task
        (0.0, 100.0, 110.0, 50.0, 0.0),  # ours was put back
    ],
)
def test_how_long_a_run_has_run(ahead, created, started, wall, ran):
    run = Run(number=1, started_at=started)
    status = TaskStatus(state=TaskState.RUNNING, runs=(run,), health=Health.NONE)
    task = Task(id="t1", node="n1", created_at=created, spec_hash="x", status=status, **NEW)
    assert times.ran({"n1": NodeCondition(ahead=ahead)}, task, wall) == ran


@pytest.mark.parametrize(("back", "grows"), [(0.0, True), (-LONG, True), (LONG, True)])
async def test_what_is_made_later_is_newer_also_where_the_clock_was_put_back(back, grows):
    async with Rig() as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        old = max(t.created_at for t in rig.live("web"))
        rig.clock.off = back
        await rig.up(project(web=replicas(3, image="web:2")))
        await rig.deployed()
        made = [t.created_at for t in rig.live("web")]
        assert all(at > old for at in made) is grows
