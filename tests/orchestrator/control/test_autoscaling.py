"""Services that are scaled by what their tasks use, without a fight with anybody."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.contracts import EventQuery
from orchestrator.errors import Invalid
from specs.inside import TaskUsage
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime
MIB = 1 << 20


class Load:
    """So many CPUs are asked for, shared by all tasks of web that are ready; each keeps count."""

    def __init__(self, rig, cpus=0.0, memory=0):
        self.rig, self.cpus, self.memory = rig, cpus, memory
        self.spent: dict[str, float] = {}
        self.last = self.now()
        self.silent: set[str] = set()
        rig.agents.uses = self.uses

    def now(self):
        return asyncio.get_running_loop().time()

    def uses(self, node):
        ready = self.rig.ready("web")
        now, since, self.last = self.now(), self.last, self.now()
        for task in ready:
            self.spent[task.id] = self.spent.get(task.id, 0.0) + (now - since) * self.cpus / len(
                ready
            )
        return {
            task.id: TaskUsage(at=now, cpu=self.spent[task.id], memory=self.memory)
            for task in ready
            if task.node == node and node not in self.silent
        }


def web(cpu="70%", least=2, most=8, **more):
    scale = {"min": least, "max": most, "cpu": cpu, "cooldown": 60, **more}
    return {"x-corral": {"autoscale": {k: v for k, v in scale.items() if v is not None}}}


def wanted(rig):
    stack = rig.cluster.stacks["app"]
    return stack.overrides.get("web", 1)


async def told(rig, kinds):
    async for event in rig.control.events(EventQuery()):
        if event.kind == "service.autoscaled":
            kinds.append(event.message)


async def test_it_follows_the_load_up_and_down_and_then_rests():
    async with Rig(nodes=3) as rig:
        said: list[str] = []
        rig.group.create_task(told(rig, said)).add_done_callback(lambda _: None)
        await rig.up(project(web=web()))
        await rig.deployed()
        load = Load(rig, cpus=0.5)
        await rig.until(lambda: wanted(rig) == 2)
        assert said == ["web: 1 -> 2 tasks: its file says at least 2"]
        load.cpus = 3.4
        await rig.until(lambda: len(rig.ready("web")) == 5, within=300)
        await asyncio.sleep(900)
        assert wanted(rig) == 5, "it comes to rest"
        assert "CPU at " in said[-1]
        load.cpus = 100.0
        await rig.until(lambda: len(rig.ready("web")) == 8, within=300)
        load.cpus = 1.0
        await rig.until(lambda: len(rig.ready("web")) == 2, within=600)
        await asyncio.sleep(600)
        assert wanted(rig) == 2
        assert len(said) == 4
        for task in asyncio.all_tasks():
            if "told" in repr(task.get_coro()):
                task.cancel()


async def test_a_number_by_hand_stays_for_a_while_and_goes_on_from_there():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=web(hold=600)))
        await rig.deployed()
        Load(rig, cpus=2.8)
        await rig.until(lambda: wanted(rig) == 4, within=300)
        await rig.control.scale("app", {"web": 7})
        await asyncio.sleep(500)
        assert wanted(rig) == 7
        await rig.until(lambda: wanted(rig) == 4, within=600)
        await rig.control.scale("app", {"web": 0})
        await asyncio.sleep(3000)
        assert wanted(rig) == 0, "who scales to 0 means it"


async def test_an_update_and_what_is_not_measured_hold_it_back():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web={**web(), "deploy": {"replicas": 3}}))
        await rig.deployed()
        load = Load(rig, cpus=20.0)
        load.silent = {"n1", "n2", "n3"}
        await asyncio.sleep(600)
        assert "web" not in rig.cluster.stacks["app"].overrides
        load.silent = set()
        rig.agents.delay = 200.0  # its image takes so long that the release is under way
        await rig.up(project(web={**web(), "image": "web:2", "deploy": {"replicas": 3}}))
        await asyncio.sleep(150)
        assert "web" not in rig.cluster.stacks["app"].overrides
        await rig.until(lambda: wanted(rig) == 8, within=600)


async def test_the_next_up_keeps_its_number_and_says_nothing_of_it():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=web()))
        await rig.deployed()
        Load(rig, cpus=2.8)
        await rig.until(lambda: len(rig.ready("web")) == 4, within=300)
        row = await rig.control.deploy("app", rig.request(project(web=web(), other={})))
        assert not [w for w in row.warnings if "scaled" in w.message]
        await rig.deployed()
        assert wanted(rig) == 4
        await asyncio.sleep(900)
        assert wanted(rig) == 4


async def test_memory_of_its_limit():
    async with Rig(nodes=3) as rig:
        spec = {"mem_limit": 100 * MIB, **web(cpu=None, memory="80%", least=1)}
        await rig.up(project(web=spec))
        await rig.deployed()
        Load(rig, memory=95 * MIB)
        await rig.until(lambda: len(rig.ready("web")) >= 2, within=300)


async def test_what_can_exist_once_only_is_not_scaled():
    async with Rig() as rig:
        fixed = {"networks": {"default": {"ipv4_address": "10.77.0.9"}}, **web(least=1)}
        with pytest.raises(Invalid) as told_of:
            await rig.up(project(web=fixed))
        assert "services.web.networks" in str(told_of.value.problems)


async def test_a_controller_that_begins_cools_down_first():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=web(least=1)))
        await rig.deployed()
        Load(rig, cpus=2.8)
        await rig.restart_controller()
        await asyncio.sleep(50)
        assert "web" not in rig.cluster.stacks["app"].overrides
        await rig.until(lambda: wanted(rig) == 4, within=300)
