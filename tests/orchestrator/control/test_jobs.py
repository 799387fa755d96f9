"""Jobs: what completed is done, what failed is tried again, and how many run at a time."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.api.rows import stack_row
from orchestrator.control.telling.words import job_words
from orchestrator.errors import Invalid
from specs.states import FINAL, TaskState
from tests.orchestrator.control.builders import after, project
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime


def job(count=1, *, at_once=None, **more):
    mode = {"deploy": {"mode": "replicated-job", "replicas": count, **more.pop("deploy", {})}}
    return {**mode, **({"x-corral": {"max_concurrent": at_once}} if at_once else {}), **more}


def done(rig, service="work"):
    return [t for t in rig.tasks(service) if t.state is TaskState.COMPLETE]


def running(rig, service="work"):
    return [t for t in rig.tasks(service) if t.state is TaskState.RUNNING]


def told(rig):
    return job_words(rig.cluster, rig.cluster.stacks["app"], rig.tasks())


def finish(rig, task, code=0):
    rig.fake_of(task).end(task.id, code)


async def test_five_completions_two_at_a_time():
    """Never more than two run; each slot completes once; `up` is deployed while others wait."""
    async with Rig(nodes=3) as rig:
        await rig.up(project(work=job(5, at_once=2)))
        await rig.deployed()
        assert told(rig) == ("work: complete 0/5 (2 running, 3 queued)",)
        release = rig.release().number
        assert await rig.up(project(work=job(5, at_once=2))) == release  # unchanged: no release
        names = set()
        most = 0
        while len(done(rig)) < 5:
            await rig.until(lambda: running(rig) or len(done(rig)) == 5)
            now = running(rig)
            most = max(most, len([t for t in rig.tasks("work") if t.state not in FINAL]))
            for task in now[:1]:
                names.add(task.name)
                finish(rig, task)
                await rig.until(lambda t=task: rig.cluster.tasks[t.id].state is TaskState.COMPLETE)
        assert most == 2
        assert names == {f"app-work-{n}" for n in range(1, 6)}
        assert len(rig.tasks("work")) == 5
        assert told(rig) == ()


async def test_why_says_of_a_stack_whose_completions_wait_their_turn_what_ls_says():
    async with Rig(nodes=3) as rig:
        await rig.up(project(work=job(5, at_once=2)))
        await rig.deployed()
        await rig.until(lambda: len(running(rig)) == 2)
        assert stack_row(rig.cluster, rig.cluster.stacks["app"]).status == "running"
        found = await rig.control.why("stack/app", "app")
        assert found.answer == "stack app is running"
        assert "work of app: complete 0/5 (2 running, 3 queued)" in found.because


async def test_the_same_file_runs_it_no_more_and_another_one_does():
    async with Rig(nodes=2) as rig:
        rig.how["work"] = Behaviour(exit_code=0)
        await rig.up(project(work=job(3)))
        await rig.until(lambda: len(done(rig)) == 3)
        first = {t.id for t in rig.tasks("work")}
        await rig.up(project(work=job(3), other={}))
        await rig.deployed()
        await asyncio.sleep(30)
        assert {t.id for t in rig.tasks("work")} == first
        await rig.up(project(work=job(3, environment={"A": "2"}), other={}))
        await rig.deployed()
        await rig.until(lambda: len(done(rig)) == 3 and len(rig.tasks("work")) == 3)
        assert not first & {t.id for t in rig.tasks("work")}


async def test_a_changed_job_ends_what_runs_of_the_old_iteration():
    async with Rig(nodes=2) as rig:
        await rig.up(project(work=job(4, at_once=2)))
        await rig.until(lambda: len(running(rig)) == 2)
        finish(rig, running(rig)[0])
        await rig.until(lambda: len(done(rig)) == 1 and len(running(rig)) == 2)
        await rig.up(project(work=job(4, at_once=2, environment={"A": "2"})))
        await rig.deployed()
        await rig.until(lambda: all(t.release == 2 for t in rig.tasks("work")))
        assert not done(rig)
        for _ in range(4):
            await rig.until(lambda: running(rig))
            finish(rig, running(rig)[0])
            await asyncio.sleep(1)
        await rig.until(lambda: len(done(rig)) == 4)


async def test_a_lost_node_takes_no_completion_along_and_what_ran_there_runs_elsewhere():
    async with Rig(nodes=3) as rig:
        await rig.up(project(work=job(5, at_once=2)))
        await rig.until(lambda: len(running(rig)) == 2)
        first, second = running(rig)
        finish(rig, first)
        await rig.until(lambda: len(done(rig)) == 1 and len(running(rig)) == 2)
        victim = rig.fake_of(second)
        await victim.crash()
        await rig.until(
            lambda: any(t.slot == second.slot and t.node != second.node for t in running(rig))
        )
        assert len({t.slot for t in running(rig)}) <= 2
        while len({t.slot for t in done(rig)}) < 5:
            await rig.until(lambda: [t for t in running(rig) if t.node != second.node])
            finish(rig, next(t for t in running(rig) if t.node != second.node))
            await asyncio.sleep(1)
        ended = {t.slot: t.id for t in done(rig)}
        assert ended[first.slot] == first.id
        await rig.remove_node(second.node)
        await asyncio.sleep(60)
        assert {t.slot for t in done(rig)} == {1, 2, 3, 4, 5}
        assert not running(rig)


@pytest.mark.parametrize(
    ("policy", "fails", "ends"),
    [
        # restart, how often a run fails before one does not -> what becomes of the task
        ("no", 1, "failed"),
        ("on-failure:2", 2, "complete"),
        ("on-failure:2", 9, "failed"),
        ("always", 1, "complete"),
    ],
)
async def test_what_fails_is_tried_again_as_its_policy_says(policy, fails, ends):
    async with Rig() as rig:
        rig.how["work"] = Behaviour(exit_code=3 if ends == "failed" else 0, crashes=fails)
        await rig.up(project(work=job(1, restart=policy)))
        await rig.until(lambda: [t.state.value for t in rig.tasks("work")] == [ends])
        await asyncio.sleep(120)
        assert [t.state.value for t in rig.tasks("work")] == [ends]


async def test_a_job_that_failed_fails_the_release_and_is_run_again_by_the_next_up():
    async with Rig() as rig:
        rig.how["work"] = Behaviour(exit_code=3)
        await rig.up(project(work=job(2)))
        end = await rig.end_of()
        assert not end.ok
        assert "exited with code 3" in end.message
        rig.how["work"] = Behaviour(exit_code=0)
        await rig.up(project(work=job(2)))
        await rig.deployed()
        await rig.until(lambda: len(done(rig)) == 2)


# service, how its run ends, seconds waited once it is deployed -> what `ls` and `ps` say
SAID = {
    "it runs": (job(2), 0, 5, "", ("work: complete 0/2 (2 running)",)),
    "it completed": (job(2), 0, 60, "", ()),
    "one at a time, the first failed": (
        job(3, at_once=1), 3, 30, "app-work-1 failed: exit code 3",
        ("work: complete 0/3 (1 running, 1 queued, 1 failed)",),
    ),
    "all failed": (
        job(3), 3, 60, "app-work-1 failed: exit code 3, and 2 more",
        ("work: complete 0/3 (3 failed)",),
    ),
    "on each node": (
        {"deploy": {"mode": "global-job"}}, 3, 60, "app-work-1 failed: exit code 3, and 1 more",
        ("work: complete 0/2 (2 failed)",),
    ),
    "a service that is not restarted": (
        {"restart": "no"}, 3, 60, "app-work-1 failed: exit code 3", (),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
async def test_what_fails_once_it_is_deployed_is_said_until_it_is_run_again(case):
    service, code, waits, reason, words = SAID[case]
    async with Rig(nodes=2) as rig:
        rig.how["work"] = Behaviour(exit_code=code, runs_for=20)
        await rig.up(project(work=service))
        await rig.deployed()
        await asyncio.sleep(waits)
        row = stack_row(rig.cluster, rig.cluster.stacks["app"])
        assert (row.reason, told(rig)) == (reason, words)
        if not reason:
            return
        assert row.status == "degraded"
        assert "exit code 3" in "\n".join((await rig.control.why("app", "app")).because)
        rig.how["work"] = Behaviour(exit_code=0, runs_for=20)
        for _ in range(2):  # what ran at the first one fails after it
            await rig.up(project(work=service))
            await asyncio.sleep(120)
        assert stack_row(rig.cluster, rig.cluster.stacks["app"]).reason == ""
        await rig.control.stop("app", 0)
        assert stack_row(rig.cluster, rig.cluster.stacks["app"]).reason == ""


async def test_who_depends_on_it_waits_for_all_completions():
    async with Rig(nodes=2) as rig:
        await rig.up(
            project(work=job(3, at_once=1), web=after("service_completed_successfully", "work"))
        )
        for count in range(3):
            await rig.until(lambda: running(rig))
            assert not running(rig, "web"), count
            finish(rig, running(rig)[0])
            await asyncio.sleep(2)
        await rig.deployed()
        assert running(rig, "web")


async def test_a_controller_killed_in_the_middle_repeats_nothing():
    async with Rig(nodes=2) as rig:
        await rig.up(project(work=job(3, at_once=1)))
        for _ in range(3):
            await rig.until(lambda: running(rig))
            task = running(rig)[0]
            await rig.restart_controller()
            await rig.until(lambda t=task: t.id in {x.id for x in running(rig)})
            finish(rig, task)
            await rig.restart_controller()
            await rig.until(lambda t=task: t.id in {x.id for x in done(rig)})
        await asyncio.sleep(30)
        assert len(rig.tasks("work")) == len(done(rig)) == 3


async def test_a_global_job_runs_once_on_each_node_also_on_those_that_come_later():
    async with Rig(nodes=2) as rig:
        rig.how["work"] = Behaviour(exit_code=0)
        await rig.up(project(work={"deploy": {"mode": "global-job"}}))
        await rig.until(lambda: len(done(rig)) == 2)
        await rig.deployed()
        node = await rig.add_node(3)
        await rig.until(lambda: node.id in rig.cluster.nodes)
        await rig.nodes[node.id].connect()
        await rig.until(lambda: {t.node for t in done(rig)} == {"n1", "n2", "n3"})
        known = {t.id for t in rig.tasks("work")}
        # Drained and used again: done is done.
        drained = rig.cluster.nodes["n2"]
        await rig.put_node(drained.model_copy(update={"availability": "drain"}))
        await asyncio.sleep(30)
        await rig.put_node(drained)
        await asyncio.sleep(30)
        assert {t.id for t in rig.tasks("work")} == known


async def test_a_job_serves_nobody():
    """It has no virtual address, and nothing is sent to its tasks."""
    async with Rig() as rig:
        await rig.up(project(work=job(1), web={}))
        await rig.deployed()
        told = rig.nodes["n1"].wanted.services
        mine = [s for s in told.values() if s.service == "work"]
        assert all(s.vip is None and not any(e.ready for e in s.endpoints) for s in mine)
        assert {s for _, s in next(iter(rig.cluster.vips.values()))} == {"web"}


async def test_scaling_says_how_often_it_is_to_complete():
    async with Rig() as rig:
        rig.how["work"] = Behaviour(exit_code=0)
        await rig.up(project(work=job(2)))
        await rig.until(lambda: len(done(rig)) == 2)
        known = {t.id for t in done(rig)}
        await rig.control.scale("app", {"work": 4})
        await rig.until(lambda: len(done(rig)) == 4)
        assert known < {t.id for t in done(rig)}
        await rig.control.scale("app", {"work": 1})
        await rig.until(lambda: len(rig.tasks("work")) == 1)


async def test_down_leaves_nothing():
    async with Rig() as rig:
        await rig.up(project(work=job(4, at_once=2)))
        await rig.until(lambda: len(running(rig)) == 2)
        finish(rig, running(rig)[0])
        await rig.until(lambda: done(rig))
        await rig.control.remove("app", volumes=False, timeout=1)
        await rig.until(lambda: "app" not in rig.cluster.stacks and not rig.tasks())


async def test_an_update_of_a_job_is_refused():
    async with Rig() as rig:
        with pytest.raises(Invalid) as told:
            await rig.up(project(work=job(1, deploy={"update_config": {"parallelism": 2}})))
        assert "services.work.deploy.update_config" in str(told.value.problems)


@pytest.mark.parametrize("keep", [False, True])
async def test_what_the_end_of_the_machine_interrupted(keep):
    """It runs again, and what completed does not; with on_reboot: keep it has failed."""
    async with Rig() as rig:
        extension = {"x-corral": {"on_reboot": "keep"}} if keep else {}
        await rig.up(project(work=job(2, **extension)))
        await rig.until(lambda: len(running(rig)) == 2)
        first, second = running(rig)
        finish(rig, first)
        await rig.until(lambda: len(done(rig)) == 1)
        await rig.nodes["n1"].reboot()
        await rig.nodes["n1"].connect()
        if keep:
            await rig.until(lambda: rig.cluster.tasks[second.id].state is TaskState.FAILED)
        else:
            await rig.until(lambda: [t.slot for t in running(rig)] == [second.slot])
        await asyncio.sleep(30)
        assert [t.id for t in done(rig)] == [first.id]
        assert len(rig.tasks("work")) == 2


async def test_restart_runs_all_of_it_again():
    async with Rig() as rig:
        rig.how["work"] = Behaviour(exit_code=0)
        await rig.up(project(work=job(2)))
        await rig.until(lambda: len(done(rig)) == 2)
        known = {t.id for t in done(rig)}
        await rig.restart("work")
        await rig.until(lambda: len(done(rig)) == 2 and not known & {t.id for t in done(rig)})


async def test_one_that_fails_keeps_no_other_from_its_turn():
    """The release has failed, and says so at once; what was queued is done all the same."""
    async with Rig() as rig:
        await rig.up(project(work=job(3, at_once=1)))
        await rig.until(lambda: running(rig))
        finish(rig, running(rig)[0], code=3)
        end = await rig.end_of()
        assert end.ok or "exited with code 3" in end.message
        for _ in range(2):
            await rig.until(lambda: running(rig))
            assert len(running(rig)) == 1
            finish(rig, running(rig)[0])
            await asyncio.sleep(5)
        await rig.until(lambda: len(done(rig)) == 2)
        await asyncio.sleep(60)
        assert len(rig.tasks("work")) == 3
        await rig.up(project(work=job(3, at_once=1)))
        await rig.until(lambda: running(rig))
        assert [t.slot for t in running(rig)] == [1]


@pytest.mark.parametrize("changed", [False, True])
async def test_another_service_that_fails_keeps_none_from_its_turn(changed):
    """Its release failed half way, so the stack is kept as it is; the job's own goes on."""
    async with Rig() as rig:
        rig.how["web:2"] = Behaviour(exit_code=1)
        await rig.up(project(work=job(4, at_once=1), web={}))
        await rig.deployed()
        more = {"environment": {"A": "2"}} if changed else {}
        await rig.up(project(work=job(4, at_once=1, **more), web={"image": "web:2"}))
        assert not (await rig.end_of()).ok
        iteration = 2 if changed else 1
        for _ in range(4):
            await rig.until(lambda: running(rig))
            assert {t.release for t in running(rig)} == {iteration} or not changed
            finish(rig, running(rig)[0])
            await asyncio.sleep(5)
        await rig.until(lambda: {t.slot for t in done(rig)} == {1, 2, 3, 4})
        assert len({t.spec_hash for t in done(rig)}) == 1


async def test_plan_says_where_a_job_begins_and_that_a_schedule_makes_nothing():
    async with Rig(nodes=3) as rig:
        timed = {"x-corral": {"schedule": "* * * * *"}}
        model = project(work=job(5, at_once=2), report=timed)
        found = {one.name: one for one in (await rig.plan(model)).services}
        assert not found["report"].tasks
        await rig.up(model)
        await rig.deployed()
        said = {task.name: task.node for task in found["work"].tasks}
        assert said == {t.name: rig.cluster.nodes[t.node].name for t in rig.tasks("work")}
        assert (await rig.plan(model)).unchanged
