"""Services that run by a schedule: each due time begins one iteration, which is kept."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.control.figures import figures
from orchestrator.control.telling.schedules import schedule_rows
from orchestrator.errors import Conflict, Invalid, NotFound
from specs.kit.failpoints import watched
from specs.schedule import ActOnSchedule
from tests.orchestrator.control.builders import after, project
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime
MINUTE = {"x-corral": {"schedule": "* * * * *"}}


def timed(cron="* * * * *", more=None, **keys):
    return {**(more or {}), "x-corral": {"schedule": {"cron": cron, **keys}}}


def record(rig, service="report"):
    return rig.cluster.schedules["app", service]


def iterations(rig, service="report"):
    known = rig.cluster.schedules.get(("app", service))
    return known.iterations if known is not None else ()


def row(rig):
    return schedule_rows(rig.cluster, "app", now=rig.clock.wall())[0]


async def act(rig, action, service="report"):
    return await rig.control.act_on_schedule("app", service, ActOnSchedule(action=action))


async def until_begun(rig, number, within=400.0):
    await rig.until(
        lambda: number <= (getattr(rig.cluster.schedules.get(("app", "report")), "number", 0)),
        within=within,
    )


async def test_each_due_time_runs_it_once_and_nothing_stands_by():
    async with Rig(nodes=2) as rig:
        rig.how["report:1"] = Behaviour(exit_code=0, runs_for=2.0)
        await rig.up(project(report=timed(keep=3), web={}))
        await rig.deployed()
        assert not rig.tasks("report")
        assert row(rig).next_at % 60 == 0
        await rig.until(lambda: record(rig).succeeded == 5, within=400)
        kept = record(rig).iterations
        assert [one.number for one in kept] == [3, 4, 5]
        assert [one.due for one in kept] == [kept[0].due + 60 * n for n in range(3)]
        assert {one.outcome for one in kept} == {"complete"}
        assert {one.exit_code for one in kept} == {0}
        assert all(one.due <= one.started_at < one.due + 5 for one in kept)
        assert all(one.node in ("host1", "host2") for one in kept)
        # Its log is on its node for as long as it is kept; of the others nothing is left.
        await rig.until(
            lambda: (
                {o.task.name for o in rig.cluster.oneoffs.values() if o.shown}
                == {one.name for one in record(rig).iterations}
            )
        )
        assert not rig.tasks("report")


async def test_the_same_file_changes_nothing_and_other_times_begin_anew():
    async with Rig() as rig:
        rig.how["report:1"] = Behaviour(exit_code=0)
        await rig.up(project(report=timed("*/2 * * * *")))
        await until_begun(rig, 1)
        await rig.up(project(report=timed("*/2 * * * *"), web={}))
        await rig.deployed()
        assert record(rig).number == 1
        first = record(rig).since
        await rig.up(project(report=timed("*/3 * * * *"), web={}))
        await rig.deployed()
        assert record(rig).since > first
        await until_begun(rig, 2)
        assert iterations(rig)[-1].due % 180 == 0


@pytest.mark.parametrize(
    ("overlap", "outcomes", "skipped"),
    [
        # What becomes of the first two, and how many due times pass while one runs for 150 s.
        ("forbid", ("complete", ""), 2),
        ("allow", ("complete", ""), 0),
        ("replace", ("replaced", "replaced"), 0),
    ],
)
async def test_what_is_due_while_another_goes_on(overlap, outcomes, skipped):
    async with Rig() as rig:
        rig.how["report:1"] = Behaviour(exit_code=0, runs_for=150.0)
        await rig.up(project(report=timed(overlap=overlap)))
        await until_begun(rig, 1)
        began = iterations(rig)[0].due
        await asyncio.sleep(began + 190 - rig.clock.wall())
        found = [one.outcome for one in iterations(rig)][:2]
        assert tuple(found) == outcomes
        assert record(rig).skipped == skipped
        if overlap == "forbid":
            assert "still going on" in record(rig).skipped_why
            assert len(iterations(rig)) == 2
        if overlap == "replace":
            assert "took its place" in iterations(rig)[0].reason
            assert len(record(rig).going) == 1


async def test_a_controller_away_over_several_due_times_begins_the_newest_of_them():
    async with Rig() as rig:
        rig.how["report:1"] = Behaviour(exit_code=0)
        await rig.up(project(report=timed("*/10 * * * *", missed_within=3600)))
        await until_begun(rig, 1, within=700)
        for fake in rig.nodes.values():
            await fake.hang_up()
        await rig.halt()
        await asyncio.sleep(33 * 60)
        await rig.boot()
        for fake in rig.nodes.values():
            await fake.connect()
        await rig.until(lambda: record(rig).succeeded == 2)
        one = iterations(rig)[-1]
        assert one.due > one.begun_at - 600, "the newest"
        assert record(rig).skipped == 2
        assert "nobody was there" in record(rig).skipped_why


@pytest.mark.parametrize("moment", ["pass.decided", "pass.written"])
@pytest.mark.parametrize("time", [1, 2, 3, 4, 5])
async def test_killed_at_any_moment_it_begins_once(moment, time):
    """Killed before and after each write around a due time: one iteration, one container."""
    left = time
    begun = []

    def look(name):
        nonlocal left
        if name == moment and armed:
            left -= 1
            if left == 0:
                killed.set()
                raise asyncio.CancelledError

    async with Rig(nodes=2) as rig:
        armed, killed = False, asyncio.Event()
        rig.how["report:1"] = Behaviour(exit_code=0, runs_for=1.0)
        await rig.up(project(report=timed("*/10 * * * *")))
        await rig.deployed()
        due = row(rig).next_at
        rig.watchers.append(lambda _node, task, _what: begun.append(task))
        with watched(look):
            await asyncio.sleep(due - rig.clock.wall() - 0.5)
            armed = True
            await asyncio.wait_for(killed.wait(), 60)
        await rig.restart_controller()
        await rig.until(lambda: record(rig).succeeded == 1)
        assert [one.due for one in iterations(rig)] == [due]
        assert len(rig.cluster.oneoffs) == 1
        assert set(begun) == {iterations(rig)[0].task}


async def test_half_of_what_was_written_is_found_again():
    """The one-off was written, and whoever wrote it killed before the schedule's record."""
    async with Rig() as rig:
        rig.how["report:1"] = Behaviour(exit_code=0, runs_for=30.0)
        await rig.up(project(report=MINUTE))
        await until_begun(rig, 1)
        before = record(rig)
        one = iterations(rig)[0]
        await rig.halt()
        half = before.model_copy(update={"iterations": (), "number": 0, "since": one.due - 60})
        await _put(rig, half)
        await rig.boot()
        await until_begun(rig, 1)
        assert [found.task for found in iterations(rig)] == [one.task]
        assert len(rig.cluster.oneoffs) == 1


async def _put(rig, model):
    from orchestrator.control.mirror.records import SCHEDULES
    from orchestrator.store.base import Put

    await rig.store.txn((), (Put(SCHEDULES.key_of(model), model.encode()),))


async def test_clocks_put_forward_and_back_begin_none_twice_and_no_storm():
    async with Rig() as rig:
        rig.how["report:1"] = Behaviour(exit_code=0)
        await rig.up(project(report=MINUTE))
        await until_begun(rig, 2)
        rig.clock.off += 3 * 3600.0
        await asyncio.sleep(61)
        number = record(rig).number
        assert number <= 4
        due = [one.due for one in iterations(rig)]
        rig.clock.off -= 3 * 3600.0
        await asyncio.sleep(600)
        assert record(rig).number == number, "nothing is due before the newest time that was"
        assert "clock was put back" in row(rig).why
        assert (await act(rig, "resume")).number == 0
        await until_begun(rig, number + 1)
        found = [one.due for one in iterations(rig)]
        assert len(found) == len(set(found))
        assert set(due) & set(found)


async def test_what_fails_and_what_takes_too_long_is_said():
    async with Rig() as rig:
        rig.how["report:1"] = Behaviour(exit_code=3, runs_for=1.0)
        await rig.up(project(report=timed("*/5 * * * *", deadline=20, keep=2)))
        await rig.deployed()
        await rig.until(lambda: record(rig).failed == 1, within=400)
        assert (iterations(rig)[0].outcome, iterations(rig)[0].exit_code) == ("failed", 3)
        rig.how["report:1"] = Behaviour()
        await rig.until(lambda: record(rig).failed == 2, within=400)
        assert iterations(rig)[1].outcome == "late"
        assert "longer than its 20 s" in iterations(rig)[1].reason
        assert record(rig).succeeded_at == 0.0


async def test_its_restart_policy_is_its_node_s():
    async with Rig() as rig:
        rig.how["report:1"] = Behaviour(exit_code=0, crashes=2)
        await rig.up(project(report=timed(more={"restart": "on-failure:3"}, cron="*/5 * * * *")))
        await rig.deployed()
        await rig.until(lambda: record(rig).succeeded == 1, within=400)
        assert len(iterations(rig)) == 1


async def test_a_lost_node_s_iteration_is_lost_and_blocks_no_other():
    async with Rig(nodes=2) as rig:
        await rig.up(project(report=timed("*/5 * * * *")))
        await until_begun(rig, 1)
        await rig.until(lambda: iterations(rig)[0].started_at)
        node = next(f for f in rig.nodes.values() if f.node.name == iterations(rig)[0].node)
        await node.cut()
        await rig.until(lambda: iterations(rig)[0].outcome == "lost")
        await until_begun(rig, 2)
        await rig.until(lambda: iterations(rig)[1].started_at)
        assert iterations(rig)[1].node != iterations(rig)[0].node
        assert record(rig).failed == 1


async def test_paused_held_stopped_and_resumed():
    """What was due meanwhile was not missed: it goes on from then."""
    async with Rig() as rig:
        rig.how["report:1"] = Behaviour(exit_code=0)
        await rig.up(project(report=MINUTE, web={}))
        await until_begun(rig, 1)
        await act(rig, "pause")
        assert row(rig).why == "paused"
        await asyncio.sleep(300)
        assert record(rig).number == 1
        await act(rig, "resume")
        await until_begun(rig, 2)
        assert record(rig).skipped == 0
        await rig.control.stop("app", None, ("report",))
        await asyncio.sleep(300)
        assert record(rig).number == 2
        assert row(rig).why == "stopped"
        with pytest.raises(Conflict, match="stopped"):
            await act(rig, "run")
        await rig.start("report")
        await until_begun(rig, 3)
        await rig.control.stop("app", None)
        await asyncio.sleep(300)
        assert record(rig).number == 3
        await rig.start()
        await until_begun(rig, 4)
        assert record(rig).skipped == 0
        await rig.up(project(report=timed(paused=True), web={}))
        await rig.deployed()
        await asyncio.sleep(300)
        assert record(rig).number == 4
        assert row(rig).why == "paused by its file"
        with pytest.raises(Conflict, match="by its file"):
            await act(rig, "resume")


async def test_its_figures():
    """What to be alarmed by: when it was done last, and how often it was not."""
    async with Rig() as rig:
        rig.how["report:1"] = Behaviour(exit_code=0, runs_for=90.0)
        await rig.up(project(report=MINUTE))
        await rig.deployed()
        await rig.until(lambda: record(rig).succeeded == 1, within=400)
        rig.how["report:1"] = Behaviour(exit_code=1)
        await rig.until(lambda: record(rig).failed == 2, within=400)
        families = {f.name: f for f in figures(rig.cluster, rig.cluster.record, version="1")}
        found = {
            name.removeprefix("corral_schedule_"): sample[2]
            for name, family in families.items()
            if name.startswith("corral_schedule_")
            for sample in family.samples
        }
        assert found == {
            "last_success_timestamp_seconds": record(rig).succeeded_at,
            "failures_total": 2.0,
            "skipped_total": float(record(rig).skipped),
            "running": 0.0,
        }
        assert record(rig).skipped >= 1
        assert record(rig).succeeded_at > 0


async def test_by_hand():
    async with Rig() as rig:
        rig.how["report:1"] = Behaviour(exit_code=0, runs_for=20.0)
        await rig.up(project(report=timed("0 0 1 1 *")))
        await rig.deployed()
        assert (await act(rig, "run")).number == 1
        with pytest.raises(Conflict, match="iteration 1 of report is going on"):
            await act(rig, "run")
        await rig.until(lambda: record(rig).succeeded == 1)
        assert iterations(rig)[0].due == 0
        assert (await act(rig, "run")).number == 2
        with pytest.raises(NotFound, match="no schedule nope"):
            await act(rig, "run", "nope")


async def test_a_service_that_has_no_schedule_any_more_and_down():
    async with Rig() as rig:
        await rig.up(project(report=MINUTE, web={}))
        await until_begun(rig, 1)
        await rig.up(project(report={}, web={}))
        await rig.deployed()
        assert not rig.cluster.schedules
        assert len(rig.ready("report")) == 1
        await rig.up(project(report=MINUTE, web={}))
        await rig.deployed()
        await until_begun(rig, 1)
        assert not rig.live("report")
        await rig.control.remove("app", volumes=False, timeout=1)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        await rig.until(lambda: not rig.cluster.oneoffs and not rig.cluster.schedules)


async def test_a_failed_release_of_another_service_keeps_no_iteration_from_its_time():
    async with Rig() as rig:
        rig.how["report:1"] = Behaviour(exit_code=0)
        rig.how["web:2"] = Behaviour(exit_code=1)
        await rig.up(project(report=MINUTE, web={}))
        await rig.deployed()
        await rig.up(project(report=MINUTE, web={"image": "web:2"}))
        assert not (await rig.end_of()).ok
        number = record(rig).number
        await until_begun(rig, number + 2)


async def test_what_was_scaled_before_stands_by_no_more():
    async with Rig() as rig:
        await rig.up(project(report={}, web={}))
        await rig.deployed()
        await rig.control.scale("app", {"report": 3})
        await rig.until(lambda: len(rig.ready("report")) == 3)
        await rig.up(project(report=timed("0 0 1 1 *"), web={}))
        await rig.deployed()
        await rig.until(lambda: not rig.tasks("report"))
        with pytest.raises(Invalid, match="runs by a schedule"):
            await rig.control.scale("app", {"report": 2})


async def test_it_waits_for_what_it_depends_on():
    async with Rig() as rig:
        rig.how["report:1"] = Behaviour(exit_code=0)
        rig.how["db"] = Behaviour(healthy=100.0)
        check = {"healthcheck": {"test": ["CMD", "true"]}}
        await rig.up(project(report={**MINUTE, **after("service_healthy", "db")}, db=check))
        await until_begun(rig, 1)
        assert iterations(rig)[0].started_at is None
        await rig.until(lambda: record(rig).succeeded == 1, within=200)
        assert rig.ready("db")
