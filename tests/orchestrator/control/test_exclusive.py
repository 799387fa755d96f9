"""An exclusive service: its one copy runs under a lease, and never twice at any instant."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.errors import Invalid
from specs.lease import TERM, WAIT
from specs.states import NodeStatus
from specs.wire import LeaseAnswer, Stamp
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

EXCLUSIVE = {"x-corral": {"exclusive": True}}


def file(image: str = "db:1") -> dict:
    return project(db={"image": image, **replicas(1), **EXCLUSIVE})


class Watch:
    """What runs now, and the law."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.runs: dict[str, str] = {}
        self.ended: dict[str, float] = {}
        self.begun: dict[str, float] = {}
        rig.watchers.append(self._saw)

    def _saw(self, node, task, what):
        now = asyncio.get_running_loop().time()
        if what == "started":
            assert not self.runs, f"law: exclusive never twice: {task} beside {self.runs}"
            self.runs[task] = node.node.id
            self.begun[task] = now
        elif what == "ended":
            self.runs.pop(task, None)
            self.ended[task] = now


async def up(rig: Rig, image: str = "db:1") -> Watch:
    watch = Watch(rig)
    await rig.up(file(image))
    await rig.deployed(within=120)
    return watch


async def down(rig: Rig, node) -> None:
    await node.cut("no route to host")
    await rig.until(lambda: rig.cluster.conditions[node.node.id].status == NodeStatus.DOWN)


async def drain(rig: Rig, node) -> None:
    await rig.put_node(rig.cluster.nodes[node.node.id].with_availability("drain"))


class Members:
    """What other agents answer; ``None`` = they do not."""

    def __init__(self, rig: Rig, me: str, away: set[str]) -> None:
        self.rig, self.me, self.away = rig, me, away

    async def without_controller(self, nodes):
        await asyncio.sleep(0.01)
        others = {n: self.rig.nodes[n].agent.keeper for n in nodes if n not in self.away}
        return frozenset(n for n, keeper in others.items() if keeper.vouch())

    def answer_by(self, vouch):
        pass

    async def signing_request(self):
        return ""

    async def meet(self, me, peers):
        pass


async def test_a_controller_that_has_just_begun_waits_for_a_term():
    async with Rig(nodes=2) as rig:
        watch = await up(rig)
        (task,) = rig.live("db")
        assert watch.begun[task.id] >= WAIT


async def test_its_node_lost_another_begins_only_after_the_lease_has_ended():
    async with Rig(nodes=3) as rig:
        watch = await up(rig)
        (old,) = rig.live("db")
        lost = rig.fake_of(old)
        cut_at = asyncio.get_running_loop().time()
        await down(rig, lost)
        await rig.until(lambda: [t.id for t in rig.ready("db") if t.id != old.id], within=120)
        (new,) = [t for t in rig.ready("db") if t.id != old.id]
        assert watch.ended[old.id] - cut_at <= TERM, "it stops itself within the term"
        assert watch.begun[new.id] > watch.ended[old.id]
        await lost.connect()
        await rig.until(lambda: len(rig.live("db")) == 1, within=120)
        assert set(watch.runs) == {rig.live("db")[0].id}


async def test_an_update_ends_the_old_one_first_and_does_not_wait_for_a_term():
    async with Rig(nodes=2) as rig:
        watch = await up(rig)
        await asyncio.sleep(WAIT)
        (old,) = rig.live("db")
        await rig.up(file("db:2"))
        await rig.until(lambda: [t.release for t in rig.ready("db")] == [2], within=120)
        (new,) = rig.ready("db")
        assert watch.begun[new.id] - watch.ended[old.id] < 5, "its end was told: no lease is left"


async def test_what_it_waits_for_is_said():
    async with Rig(nodes=1) as rig:
        await rig.up(file())
        waits = lambda: [t.status.reason for t in rig.live("db")]  # noqa: E731 - short
        await rig.until(lambda: waits()[:1] and "waits for its lease" in waits()[0])
        assert "the controller has just begun" in waits()[0]


@pytest.mark.parametrize("away", [False, True], ids=["all members answer", "one is away"])
async def test_the_controller_gone_for_long(away):
    async with Rig(nodes=3) as rig:
        absent: set[str] = set()
        for name, node in rig.nodes.items():
            node.agent.peers = Members(rig, name, absent)
            await node.hang_up()
            await node.agent.halt()
            await node.connect()
        watch = await up(rig)
        (task,) = rig.live("db")
        home = rig.fake_of(task)
        run = watch.begun[task.id]
        await rig.halt()
        for node in rig.nodes.values():
            await node.hang_up()
        if away:
            absent.add(next(n for n in rig.nodes if n != home.node.id))
        await asyncio.sleep(4 * TERM)
        if away:
            assert not watch.runs
            record = home.tasks[task.id]
            assert record.reason.startswith("stopped: its lease ended"), record.reason
            assert record.restarts == 1
        else:
            assert watch.runs == {task.id: home.node.id}
            assert watch.begun[task.id] == run, "the very same run"
        absent.clear()
        await rig.boot()
        for node in rig.nodes.values():
            await node.connect()
        await rig.until(lambda: set(watch.runs) == {task.id}, within=120)
        await asyncio.sleep(2 * TERM)
        assert set(watch.runs) == {task.id}
        assert (watch.begun[task.id] == run) is not away


async def test_the_agent_restarted_keeps_the_lease():
    async with Rig(nodes=2) as rig:
        watch = await up(rig)
        (task,) = rig.live("db")
        home, run = rig.fake_of(task), watch.begun[task.id]
        await home.hang_up()
        await home.agent.halt()
        await asyncio.sleep(3)
        await home.connect()
        await asyncio.sleep(2 * TERM)
        assert watch.begun[task.id] == run


async def test_a_lease_from_an_older_controller_is_refused():
    async with Rig(nodes=1) as rig:
        await up(rig)
        keeper = rig.nodes["n1"].agent.keeper
        old = LeaseAnswer(stamp=Stamp(cluster="rig", epoch=rig.epoch - 1))
        assert keeper.answered(old).reason == "epoch"
        other = LeaseAnswer(stamp=Stamp(cluster="another", epoch=99))
        assert keeper.answered(other).reason == "cluster"


async def test_what_a_stale_copy_sends_is_dropped_by_all_others():
    async with Rig(nodes=3) as rig:
        watch = await up(rig)
        (old,) = rig.live("db")
        lost = rig.fake_of(old)
        addresses = set(old.addresses.values())
        fenced = lambda node: {  # noqa: E731 - short
            a for network in node.wanted.networks.values() for a in network.fenced
        }
        assert not any(fenced(node) for node in rig.nodes.values())
        begun: dict[str, bool] = {}
        rig.watchers.append(
            lambda node, task, what: (
                what == "started" and begun.update({task: fenced(node) == addresses})
            )
        )
        await down(rig, lost)
        await rig.until(lambda: [t.id for t in rig.ready("db") if t.id != old.id], within=120)
        (new,) = [t for t in rig.ready("db") if t.id != old.id]
        assert begun[new.id], "before the new one begins"
        assert fenced(rig.fake_of(new)) == addresses
        await lost.connect()
        await rig.until(lambda: len(rig.live("db")) == 1, within=120)
        await rig.until(lambda: not any(fenced(n) for n in rig.nodes.values()), within=120)
        assert set(watch.runs) == {rig.live("db")[0].id}


async def test_it_is_not_scaled_to_two():
    async with Rig(nodes=1) as rig:
        await up(rig)
        with pytest.raises(Invalid, match="one copy, not 2"):
            await rig.control.scale("app", {"db": 2})


async def test_a_node_that_knows_no_leases_is_no_place_for_it():
    async with Rig(nodes=1) as rig:
        older = rig.cluster.nodes["n1"].facts.model_copy(update={"wire": 1})
        rig.nodes["n1"].agent.say_facts(older)
        await rig.until(lambda: rig.cluster.nodes["n1"].facts.wire == 1)
        await rig.up(file())
        await rig.until(lambda: [t for t in rig.live("db") if t.pending_reason])
        (task,) = rig.live("db")
        assert task.node is None
        assert "an older corral that does not honour x-corral.exclusive" in task.pending_reason


async def test_drained_it_moves_and_its_old_copy_ends_first():
    async with Rig(nodes=2) as rig:
        watch = await up(rig)
        (old,) = rig.live("db")
        await drain(rig, rig.fake_of(old))
        await rig.until(lambda: [t for t in rig.ready("db") if t.id != old.id], within=120)
        (new,) = rig.live("db")
        assert new.node != old.node
        assert watch.begun[new.id] - watch.ended[old.id] < 5, "its end was told: no lease is left"
