"""What `plan` says is what `up` does: the same tasks, on the same nodes, in the same order."""

from __future__ import annotations

import pytest

from orchestrator.errors import Conflict
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime


def did(rig, before):
    """Return what became of every slot: (service, slot) -> what `up` did, and the node."""
    old = {(t.service, t.slot): t for t in before}
    new = {(t.service, t.slot): t for t in rig.tasks() if t.live or t.state == "complete"}
    found = {}
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        if now is None:
            found[key] = ("remove", was.node)
        elif was is None:
            found[key] = ("create", now.node)
        elif was.id == now.id:
            found[key] = ("keep", now.node)
        else:
            moved = was.spec_hash == now.spec_hash and was.node != now.node
            found[key] = ("move" if moved else "replace", now.node)
    return found


def said(rig, plan):
    ids = {node.name: node.id for node in rig.cluster.nodes.values()}
    return {
        (service.name, task.slot): (task.does, ids[task.node or task.before])
        for service in plan.services
        for task in service.tasks
    }


async def compared(rig, file, **more):
    """Plan, then do it: both are the same."""
    writes = rig.cluster.revision
    plan = await rig.plan(file, **more)
    assert rig.cluster.revision == writes, "law: a plan writes nothing"
    assert not plan.fails, plan.fails
    before = [t for t in rig.tasks() if t.live or t.state == "complete"]
    await rig.up(file, **more)
    await rig.deployed()
    await rig.until(lambda: all(t.desired != "removed" for t in rig.tasks()))
    if not plan.unchanged:
        assert said(rig, plan) == did(rig, before)
    else:
        assert {t.id for t in before} == {
            t.id for t in rig.tasks() if t.live or t.state == "complete"
        }
    return plan


async def test_first_again_changed_and_scaled():
    async with Rig(nodes=3) as rig:
        rig.how["db"] = Behaviour(healthy=0.5)
        file = project(
            db=CHECK,
            api=replicas(3) | after("service_healthy", "db"),
            web=after("service_started", "api"),
        )
        plan = await compared(rig, file)
        assert [s.sign for s in plan.services] == ["+", "+", "+"]
        assert plan.order == (("db",), ("api",), ("web",))
        plan = await compared(rig, file)
        assert plan.unchanged
        file = project(
            db=CHECK,
            api=replicas(2, environment={"A": "1"}) | after("service_healthy", "db"),
            web=after("service_started", "api"),
        )
        plan = await compared(rig, file)
        signs = {s.name: s.sign for s in plan.services}
        assert signs == {"db": "=", "api": "~", "web": "="}


@pytest.mark.parametrize("mode", ["global", "global-job"])
async def test_what_is_on_every_node_is_said_to_be_there_for_that(mode):
    async with Rig(nodes=2) as rig:
        plan = await rig.plan(project(work={"deploy": {"mode": mode}}))
        assert [t.why for t in plan.services[0].tasks] == ["one on each node"] * 2


async def test_a_glance_is_cut_short_and_says_so():
    async with Rig(nodes=2) as rig:
        request = rig.request(project(web=replicas(3)))
        plan = await rig.control.plan("app", request, within=0.0)
        assert plan.cut
        assert not plan.fails


async def test_a_plan_is_held_to_the_release_it_was_made_after():
    async with Rig(nodes=2) as rig:
        plan = await rig.plan(project(web={}))
        await rig.up(project(web={}))
        await rig.deployed()
        with pytest.raises(Conflict, match="after release 0, and there is release 1 by now"):
            await rig.up(project(web={"image": "web:2"}), planned_after=plan.release)
        assert rig.cluster.stacks["app"].release == 1


async def test_a_release_is_held_to_the_places_of_its_plan_while_they_are_free():
    async with Rig(nodes=3) as rig:
        places = {f"web.{slot}": "n3" for slot in (1, 2, 3)}
        await rig.up(project(web=replicas(3)), planned_after=0, places=places)
        await rig.deployed()
        assert {task.node for task in rig.tasks("web")} == {"n3"}, "it would spread them"
        node = rig.cluster.nodes["n2"]
        await rig.put_node(node.model_copy(update={"availability": "pause"}))
        await rig.until(lambda: rig.cluster.nodes["n2"].availability == "pause")
        places = {"web.1": "n2", "web.2": "n2", "web.3": "gone"}
        await rig.up(project(web=replicas(3, image="web:2")), planned_after=1, places=places)
        await rig.deployed()
        assert "n2" not in {task.node for task in rig.live("web")}
