"""A node leaves the cluster: what had ended there had ended, what ran there runs elsewhere."""

from __future__ import annotations

import asyncio

import pytest

from specs.states import Desired, TaskState
from tests.orchestrator.control.builders import after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

JOB = {"restart": "no", "deploy": {"placement": {"constraints": ["node.hostname == host2"]}}}
APP = {
    **after("service_completed_successfully", "job"),
    "deploy": {"placement": {"constraints": ["node.hostname == host1"]}},
}


async def goes(rig, node_id):
    """Take a node out as `node rm --force` does, and let everything settle."""
    await rig.nodes[node_id].crash()
    await rig.remove_node(node_id)
    await rig.until(lambda: node_id not in rig.cluster.nodes)
    await rig.until(lambda: node_id not in {t.node for t in rig.tasks()})
    await asyncio.sleep(30)


@pytest.mark.parametrize(
    ("ends", "then", "state", "kept"),
    [
        (0, None, "complete", True),  # a migration is not run again for it
        (0, "stop", "complete", True),  # nor by the next `start`
        (3, None, "failed", True),  # it has used up its attempt, wherever that was
        (None, None, "running", False),  # it runs elsewhere, where it may
        (None, "stop", "shutdown", False),  # nothing is left to say of it
        (0, "down", "complete", False),
    ],
)
async def test_what_is_kept_of_a_task_whose_node_leaves(ends, then, state, kept):
    async with Rig(nodes=2) as rig:
        rig.how["job"] = Behaviour(exit_code=ends)
        await rig.up(project(job=JOB, other={}))
        await rig.until(lambda: [t.state for t in rig.tasks("job")] == [
            "running" if ends is None else state
        ])  # fmt: skip
        (job,) = rig.tasks("job")
        assert job.node == "n2"
        (network,) = job.addresses
        address = job.addresses[network]
        if then == "stop":
            await rig.control.stop("app", 0)
            await rig.until(lambda: [t.state for t in rig.tasks("job")] == [state])
        if then == "down":
            await rig.nodes["n2"].crash()
            await rig.control.remove("app", volumes=False, timeout=0)
        await goes(rig, "n2")
        found = [t for t in rig.tasks("job") if t.id == job.id]
        assert bool(found) == kept
        if not kept:
            return
        (left,) = found
        assert (left.state, left.node, left.addresses) == (state, None, {})
        assert left.status.run == rig.cluster.tasks[job.id].status.run, "how it ended is known"
        assert len(rig.tasks("job")) == 1, "law: it is not run again"
        await asyncio.sleep(60)
        assert address not in rig.cluster.by_network[network]
        assert not rig.cluster.resting[network], "its address can be given again"
        assert not rig.cluster.unplaced, "it waits for nothing"
        await rig.control.remove("app", volumes=False, timeout=0)
        await rig.until(lambda: not rig.cluster.tasks)


async def test_who_depends_on_a_one_off_of_a_node_that_left_starts_without_another_run():
    async with Rig(nodes=2) as rig:
        rig.how["job"] = Behaviour(exit_code=0)
        await rig.up(project(job=JOB, app=APP))
        await rig.deployed()
        (job,) = rig.tasks("job")
        await goes(rig, "n2")
        await rig.restart_controller()
        await rig.up(project(job=JOB, app={**APP, "image": "app:2"}))
        await rig.deployed()
        assert [t.id for t in rig.tasks("job")] == [job.id], "law: not run again by an `up`"
        assert len(rig.ready("app")) == 1
        # Asked for by name it is: elsewhere, where it may.
        free = {"restart": "no"}
        await rig.up(project(job={**free, "image": "job:2"}, app={**APP, "image": "app:2"}))
        await rig.deployed()
        (again,) = rig.tasks("job")
        assert (again.state, again.node is None, again.id == job.id) == ("complete", False, False)


async def test_a_global_one_off_leaves_with_its_node():
    async with Rig(nodes=3) as rig:
        rig.how["job"] = Behaviour(exit_code=0)
        await rig.up(project(job={"restart": "no", "deploy": {"mode": "global"}}))
        await rig.until(lambda: [t.state for t in rig.tasks("job")] == ["complete"] * 3)
        await goes(rig, "n3")
        assert {t.node for t in rig.tasks("job")} <= {"n1", "n2", None}
        assert sum(t.node is not None for t in rig.tasks("job")) == 2
        await rig.add_node(4)
        await rig.nodes["n4"].connect()
        await rig.until(lambda: any(t.node == "n4" for t in rig.tasks("job")))


async def test_replicas_that_completed_are_counted_wherever_they_were():
    async with Rig(nodes=3) as rig:
        rig.how["job"] = Behaviour(exit_code=0)
        await rig.up(project(job=replicas(6, restart="no")))
        await rig.until(lambda: [t.state for t in rig.tasks("job")] == ["complete"] * 6)
        before = {t.id for t in rig.tasks("job")}
        await goes(rig, "n3")
        assert {t.id for t in rig.tasks("job")} == before
        (first, *_) = (t for t in rig.tasks("job") if t.node is None)
        assert first.state is TaskState.COMPLETE
        assert first.desired is not Desired.REMOVED
