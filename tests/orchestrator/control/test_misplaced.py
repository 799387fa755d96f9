"""Constraints and labels that change under running tasks: who moves, who stays and says so."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.api.rows import task_row
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

SSD = "node.labels.disk == ssd"
STORED = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
TOP = {"top": {"volumes": {"data": {"name": "app_data"}}}}


def asks(*rules, **placement):
    return {"placement": {"constraints": list(rules), **placement}}


async def label(rig, node, **labels):
    await rig.put_node(rig.cluster.nodes[node].with_labels(labels))


def where(rig, service="web"):
    return sorted(task.node for task in rig.ready(service))


def marks(rig, service="web"):
    return [task.misplaced for task in rig.live(service) if task.misplaced]


class Watch:
    """Counts what is under way and what serves, at every change of any task.

    As in an update, what still leaves after its successor serves takes nobody's place.
    """

    def __init__(self, rig, service="web"):
        self.rig, self.service = rig, service
        self.most, self.least = 0, 99
        rig.watchers.append(lambda *_: self.look())

    def look(self):
        tasks = self.rig.tasks(self.service)
        serve = {t.slot for t in self.rig.ready(self.service)}
        coming = {t.slot for t in tasks if t.live and not t.status.ready}
        gone = {t.slot for t in tasks} - serve
        self.most = max(self.most, len(coming | gone))
        self.least = min(self.least, len(serve))


async def start(rig, count=3, *, order="start-first", rules=(SSD,), labelled=("n1", "n2"), **more):
    """Deploy ``web`` on nodes that have the label."""
    for node in labelled:
        await label(rig, node, disk="ssd")
    update = {"order": order, "parallelism": 1, **more.pop("update", {})}
    web = replicas(count, update=update, deploy=asks(*rules), **more)
    await rig.up(project(web=web))
    await rig.deployed()
    return web


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
async def test_a_label_taken_from_a_node_moves_what_asked_for_it(order):
    async with Rig(nodes=3) as rig:
        await start(rig, 4, order=order)
        before = {t.id for t in rig.ready("web") if t.node == "n2"}
        watch = Watch(rig)
        await label(rig, "n1", disk=None)
        await rig.until(lambda: where(rig) == ["n2"] * 4 and len(rig.tasks("web")) == 4)
        assert before <= {t.id for t in rig.ready("web")}, "who is right is not touched"
        assert watch.most <= 1, "parallelism holds"
        assert watch.least >= (4 if order == "start-first" else 3)
        assert not marks(rig)
        assert rig.release().state == "deployed"


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
async def test_a_release_with_other_constraints_moves_what_does_not_satisfy_them(order):
    async with Rig(nodes=3) as rig:
        await start(rig, 2, order=order, rules=(), labelled=())
        await label(rig, "n3", disk="ssd")
        before = {t.id for t in rig.ready("web") if t.node != "n3"}
        web = replicas(2, update={"order": order}, deploy=asks(SSD))
        await rig.up(project(web=web))
        await rig.deployed()
        assert where(rig) == ["n3", "n3"]
        assert not before & {t.id for t in rig.live("web")}


async def test_a_release_whose_constraints_hold_moves_nothing():
    async with Rig(nodes=3) as rig:
        await start(rig, 2)
        before = {t.id for t in rig.ready("web")}
        await rig.up(project(web=replicas(2, deploy=asks(SSD, "node.role != nobody"))))
        await rig.deployed()
        assert before == {t.id for t in rig.ready("web")}


async def test_where_nothing_fits_tasks_stay_ready_and_say_so():
    async with Rig(nodes=2) as rig:
        await start(rig, 2, labelled=("n1",))
        before = {t.id for t in rig.ready("web")}
        await label(rig, "n1", disk=None)
        await rig.until(lambda: len(marks(rig)) == 2)
        await asyncio.sleep(30)
        assert before == {t.id for t in rig.ready("web")}
        assert marks(rig)[0].startswith(f"host1 does not satisfy '{SSD}', and no node fits")
        row = task_row(rig.cluster, rig.live("web")[0], now=rig.clock.wall())
        assert row.misplaced == marks(rig)[0]
        assert "(misplaced: host1 does not satisfy" in row.status
        # A place comes up: they go there, and the mark goes.
        await label(rig, "n2", disk="ssd")
        await rig.until(lambda: where(rig) == ["n2", "n2"])
        await rig.until(lambda: len(rig.tasks("web")) == 2)
        assert not marks(rig)


async def test_the_label_that_comes_back_takes_the_mark_away():
    async with Rig(nodes=2) as rig:
        await start(rig, 2, labelled=("n1",))
        before = {t.id for t in rig.ready("web")}
        await label(rig, "n1", disk=None)
        await rig.until(lambda: len(marks(rig)) == 2)
        await label(rig, "n1", disk="ssd")
        await rig.until(lambda: not marks(rig))
        assert before == {t.id for t in rig.ready("web")}


async def test_where_some_fit_some_move():
    async with Rig(nodes=2) as rig:
        room = {"resources": {"reservations": {"cpus": "1"}}}
        await label(rig, "n1", disk="ssd")
        other = replicas(1, deploy={**asks("node.name == host2"), "resources": {
            "reservations": {"cpus": "2"}}})  # fmt: skip
        web = replicas(3, update={"order": "start-first"}, deploy={**asks(SSD), **room})
        await rig.up(project(web=web, other=other))
        await rig.deployed()
        await label(rig, "n2", disk="ssd")
        await label(rig, "n1", disk=None)
        await rig.until(lambda: where(rig) == ["n1", "n2", "n2"] and len(marks(rig)) == 1)
        assert "lacks CPUs" in marks(rig)[0]
        await asyncio.sleep(20)
        assert where(rig) == ["n1", "n2", "n2"]


async def test_what_is_tied_to_a_volume_stays():
    async with Rig(nodes=2) as rig:
        await label(rig, "n1", disk="ssd")
        await rig.up(project(web=replicas(1, deploy=asks(SSD), **STORED), **TOP))
        await rig.deployed()
        (task,) = rig.ready("web")
        await label(rig, "n2", disk="ssd")
        await label(rig, "n1", disk=None)
        await rig.until(lambda: marks(rig))
        assert "it stays with volume app_data (its data is on host1)" in marks(rig)[0]
        await asyncio.sleep(20)
        assert [t.id for t in rig.ready("web")] == [task.id]


async def test_global_tasks_end_on_excluded_nodes_and_come_to_new_ones():
    async with Rig(nodes=3) as rig:
        await label(rig, "n1", disk="ssd")
        await label(rig, "n2", disk="ssd")
        await rig.up(project(web={"deploy": {"mode": "global", **asks(SSD)}}))
        await rig.deployed()
        assert where(rig) == ["n1", "n2"]
        await label(rig, "n1", disk=None)
        await label(rig, "n3", disk="ssd")
        await rig.until(lambda: where(rig) == ["n2", "n3"] and len(rig.tasks("web")) == 2)


async def test_preferences_move_nothing():
    async with Rig(nodes=2) as rig:
        spread = {"placement": {"preferences": [{"spread": "node.labels.zone"}]}}
        await label(rig, "n1", zone="a")
        await label(rig, "n2", zone="b")
        await rig.up(project(web=replicas(2, deploy=spread)))
        await rig.deployed()
        before = {t.id for t in rig.ready("web")}
        await label(rig, "n2", zone="a")
        await asyncio.sleep(40)
        assert before == {t.id for t in rig.tasks("web")}


async def test_a_node_that_does_not_answer_keeps_its_tasks_until_it_is_down():
    async with Rig(nodes=4) as rig:
        await start(rig, 1, labelled=("n1",))
        (task,) = rig.ready("web")
        await label(rig, "n2", disk="ssd")
        await rig.nodes["n1"].cut()
        await label(rig, "n1", disk=None)
        await rig.until(lambda: marks(rig))
        assert "not moved while its node does not answer" in marks(rig)[0]
        assert len(rig.tasks("web")) == 1
        await rig.nodes["n1"].connect()
        await rig.until(lambda: where(rig) == ["n2"])
        assert task.id not in {t.id for t in rig.live("web")}


async def test_the_brake_stops_moves():
    async with Rig(nodes=3) as rig:
        await start(rig, 2, labelled=("n1",))
        for node in ("n2", "n3"):
            await rig.nodes[node].cut()
        await rig.until(rig.control._health.brake)
        before = {t.id for t in rig.tasks("web")}
        await label(rig, "n2", disk="ssd")
        await label(rig, "n1", disk=None)
        await rig.until(lambda: len(marks(rig)) == 2)
        assert "while so many nodes are down" in marks(rig)[0]
        await asyncio.sleep(10)
        assert before == {t.id for t in rig.tasks("web")}
        for node in ("n2", "n3"):
            await rig.nodes[node].connect()
        await rig.until(lambda: where(rig) == ["n2", "n2"], within=200)


@pytest.mark.parametrize("tied", [False, True])
async def test_a_release_that_leaves_tasks_misplaced_fails_and_rolls_nothing_back(tied):
    async with Rig(nodes=2) as rig:
        stored = STORED if tied else {}
        top = TOP if tied else {}
        await rig.up(project(web=replicas(1, **stored), **top))
        await rig.deployed()
        (task,) = rig.ready("web")
        update = {"failure_action": "rollback"}
        web = replicas(1, update=update, deploy=asks(SSD), **stored)
        await rig.up(project(web=web, **top))
        end = await rig.end_of()
        assert end.state == "failed"
        assert end.message.startswith("web: 1 task is misplaced: host")
        assert "does not satisfy" in end.message
        assert [t.id for t in rig.ready("web")] == [task.id], "it serves on"
        await asyncio.sleep(10)
        assert marks(rig), "and says that it is not where it was asked to be"
        # What would help is done and said again.
        await label(rig, task.node, disk="ssd")
        await rig.up(project(web=web, **top))
        await rig.deployed()
        assert [t.id for t in rig.ready("web")] == [task.id]
        assert not marks(rig)


async def test_a_move_that_fails_leaves_what_serves():
    async with Rig(nodes=2) as rig:
        await start(rig, 1, labelled=("n1",))
        (task,) = rig.ready("web")
        rig.how["web"] = Behaviour(reject="no such device")
        await label(rig, "n2", disk="ssd")
        await label(rig, "n1", disk=None)
        await asyncio.sleep(20)
        assert [t.id for t in rig.ready("web")] == [task.id]
        tried = sum("rejected" in line for line in rig.history)
        assert tried <= 8, "each try waits longer than the last one"
        rig.how.clear()
        await rig.until(lambda: where(rig) == ["n2"], within=100)


async def test_an_orphan_moves_too():
    async with Rig(nodes=3) as rig:
        await start(rig, 1, labelled=("n1", "n2"))
        (task,) = rig.ready("web")
        await rig.up(project(other={}))
        await rig.deployed()
        await label(rig, task.node, disk=None)
        await rig.until(lambda: rig.ready("web") and rig.ready("web")[0].node != task.node)


async def test_who_depends_on_it_is_not_disturbed():
    async with Rig(nodes=3) as rig:
        for node in ("n1", "n2"):
            await label(rig, node, disk="ssd")
        db = {**replicas(1, deploy=asks(SSD)), **CHECK}
        await rig.up(project(db=db, web=after("service_healthy", "db")))
        await rig.deployed()
        (web,) = rig.ready("web")
        (db,) = rig.ready("db")
        await label(rig, db.node, disk=None)
        await rig.until(lambda: rig.ready("db") and rig.ready("db")[0].node != db.node)
        assert [t.id for t in rig.ready("web")] == [web.id]


async def test_a_failed_release_leaves_global_tasks_ended_where_it_excluded_them():
    async with Rig(nodes=2) as rig:
        everywhere = {"deploy": {"mode": "global", **asks(SSD)}}
        for node in ("n1", "n2"):
            await label(rig, node, disk="ssd")
        await rig.up(project(agent=everywhere, web=replicas(1, deploy=asks(SSD))))
        await rig.deployed()
        assert where(rig, "agent") == ["n1", "n2"]
        gold = "node.labels.disk == gold"
        nowhere = {"deploy": {"mode": "global", **asks(gold)}}
        await rig.up(project(agent=nowhere, web=replicas(1, deploy=asks(gold))))
        end = await rig.end_of()
        assert end.state == "failed"
        assert end.message.startswith("web: 1 task is misplaced")
        await asyncio.sleep(20)
        assert where(rig, "agent") == []
        assert not rig.live("agent"), "nothing is rolled back"
        # A node that is asked for gets its task with the next release.
        await label(rig, "n2", disk="gold")
        await rig.up(project(agent=nowhere, web=replicas(1, deploy=asks(gold))))
        await rig.deployed()
        assert where(rig, "agent") == where(rig) == ["n2"]
