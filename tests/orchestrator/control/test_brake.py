"""What cannot be seen is not stopped: nodes fall silent, alone or all at once, and return."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig
from tests.virtual_time import in_virtual_time

pytestmark = pytest.mark.looptime
ON_4 = {"placement": {"constraints": ["node.hostname == host4"]}}


def stops(rig: Rig) -> list[str]:
    """Return the tasks whose containers are told to stop from now on, as they are."""
    found: list[str] = []
    rig.watchers.append(lambda _node, task, what: what == "stopping" and found.append(task))
    return found


async def silent(rig: Rig, *nodes: str) -> None:
    """Cut these nodes off, and wait until they are down."""
    for node in nodes:
        await rig.nodes[node].cut()
    await rig.until(lambda: all(rig.cluster.conditions[n].status == "down" for n in nodes))


async def healed(rig: Rig) -> None:
    for fake in rig.nodes.values():
        if fake._session is None:
            await fake.connect()
    await rig.until(lambda: all(c.status == "ready" for c in rig.cluster.conditions.values()))


async def test_tasks_nobody_can_replace_survive_the_silence_of_most_nodes():
    async with Rig(nodes=4) as rig:
        await rig.up(project(web=replicas(2, deploy=ON_4)))
        await rig.deployed()
        before = {t.id for t in rig.live("web")}
        stopped = stops(rig)
        await silent(rig, "n4")
        await rig.until(lambda: len(rig.tasks("web")) == 4)  # their replacements find no node
        await silent(rig, "n2", "n3")
        await asyncio.sleep(10)
        await healed(rig)
        await asyncio.sleep(60)
        assert {t.id for t in rig.tasks("web")} == before
        assert not stopped, "law: nothing is stopped because of what we could not see"
        assert len(rig.ready("web")) == 2


DATA = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
KINDS = {
    "replicated": replicas(1),
    "global": {"deploy": {"mode": "global"}},
    "bound to its volume": DATA,
    "one-off that runs": {"restart": "no"},
    "kept after its end": {"x-corral": {"on_reboot": "keep"}},
}
# kind -> what becomes of it when its node alone is down: replaced elsewhere, or waited for
MOVES = {"replicated", "one-off that runs"}
CUTS = {
    "silent for a moment": ["n4"],
    "down": ["n4"],
    "down with most others": ["n4", "n3", "n2"],
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_cut_does_to_each_kind_of_service(kind, cut):
    """Nothing is stopped but what was replaced, and one of each is there in the end."""
    async with Rig(nodes=4) as rig:
        for number in (1, 2, 3):
            node = rig.cluster.nodes[f"n{number}"]
            await rig.put_node(node.model_copy(update={"availability": "pause"}))
        await rig.until(lambda: rig.cluster.nodes["n3"].availability == "pause")
        top = {"volumes": {"data": {"name": "app_data"}}} if "volumes" in KINDS[kind] else {}
        await rig.up(project(web=KINDS[kind], top=top))
        await rig.deployed()
        for number in (1, 2, 3):
            node = rig.cluster.nodes[f"n{number}"]
            await rig.put_node(node.model_copy(update={"availability": "active"}))
        await rig.until(lambda: kind != "global" or len(rig.ready("web")) == 4)
        before = {t.id: t.node for t in rig.live("web")}
        stopped = stops(rig)
        for node in CUTS[cut]:
            await rig.nodes[node].cut()
            await asyncio.sleep(1)
        if cut == "silent for a moment":
            await asyncio.sleep(2)
        else:
            await asyncio.sleep(30)
        replaced = {t.id for t in rig.ready("web")} - set(before)
        assert bool(replaced) == (kind in MOVES and cut == "down")
        assert not stopped, "law: nothing is stopped while it cannot be seen"
        await healed(rig)
        await asyncio.sleep(60)
        gone = set(before) - {t.id for t in rig.live("web")}
        assert set(stopped) == gone
        if not replaced:
            assert not gone
        assert len(rig.ready("web")) == len(rig.live("web")) == len(before)


class Cuts:
    """Cuts nodes off and heals them again; holds what may be stopped against what is there."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.cut: set[str] = set()
        self.ever: set[str] = set()
        self.stopped: list[str] = []
        rig.watchers.append(self._stopping)

    def _stopping(self, node, task_id, what):
        if what != "stopping":
            return
        task = self.rig.cluster.tasks[task_id]
        self.stopped.append(task_id)
        if not task.status.ready:
            return
        others = [
            t
            for t in self.rig.ready(task.service)
            if t.slot == task.slot and t.id != task_id and t.node not in self.cut
        ]
        assert others, f"law: what serves is stopped only where another serves: {task}"
        assert node.node.id in self.ever, "law: of two, the one that stayed in reach stays"

    async def do(self, action: str, name: str) -> None:
        node = self.rig.nodes[name]
        if action == "cut" and name not in self.cut:
            self.cut.add(name)
            self.ever.add(name)
            await node.cut()
        elif action == "heal" and name in self.cut:
            self.cut.discard(name)
            await node.connect()


steps = st.lists(
    st.tuples(
        st.sampled_from(["cut", "cut", "heal"]),
        st.sampled_from(["n2", "n3", "n4"]),
        st.sampled_from([0.0, 0.5, 2.0, 4.9, 5.1, 8.0, 20.0]),
    ),
    min_size=1,
    max_size=12,
)
slowness = st.sampled_from([0.01, 1.0, 6.0, 30.0])


@settings(max_examples=40)
@given(steps, slowness)
def test_cuts_in_any_order_stop_nothing_that_serves_for_nothing(sequence, slow):
    in_virtual_time(_cuts(sequence, slow))


async def _cuts(sequence, slow):
    async with Rig(nodes=4) as rig:
        await rig.up(
            project(
                web=replicas(3),
                pinned=replicas(2, deploy=ON_4),
                every={"deploy": {"mode": "global"}},
            )
        )
        await rig.deployed()
        fixed = {t.id for s in ("pinned", "every") for t in rig.live(s)}
        rig.how["web"] = Behaviour(prepare=slow)
        cuts = Cuts(rig)
        for action, node, pause in sequence:
            await cuts.do(action, node)
            await asyncio.sleep(pause)
        for node in sorted(cuts.cut):
            await cuts.do("heal", node)
        await rig.until(
            lambda: all(c.status == "ready" for c in rig.cluster.conditions.values()), 600
        )
        await rig.until(lambda: len(rig.tasks()) == 9, 120)
        assert len(rig.ready("web")) == len(rig.live("web")) == 3, "law: exactly what is wanted"
        assert {t.slot for t in rig.live("web")} == {1, 2, 3}
        assert {t.id for s in ("pinned", "every") for t in rig.live(s)} == fixed, (
            "law: what can be nowhere else stays what it is"
        )


@settings(max_examples=30)
@given(
    st.permutations(["n2", "n3", "n4"]),
    st.lists(st.floats(0.0, 2.0), min_size=2, max_size=2),
    st.sampled_from([3.0, 4.9, 6.0, 20.0, 120.0]),
    st.permutations(["n2", "n3", "n4"]),
    st.lists(st.floats(0.0, 5.0), min_size=3, max_size=3),
)
def test_a_controller_that_is_cut_off_stops_and_starts_nothing(cut, apart, held, heal, pauses):
    in_virtual_time(_isolated(cut, apart, held, heal, pauses))


async def _isolated(cut, apart, held, heal, pauses):
    async with Rig(nodes=4) as rig:
        await rig.up(project(web=replicas(6), pinned=replicas(2, deploy=ON_4)))
        await rig.deployed()
        before = {t.id for t in rig.live()}
        happened: list[str] = []
        rig.watchers.append(lambda _node, task, what: happened.append(f"{task} {what}"))
        for node, pause in zip(cut, [*apart, held], strict=True):
            await rig.nodes[node].cut()
            await asyncio.sleep(pause)
        for node, pause in zip(heal, pauses, strict=True):
            await asyncio.sleep(pause)
            await rig.nodes[node].connect()
        await asyncio.sleep(120)
        assert {c.status for c in rig.cluster.conditions.values()} == {"ready"}
        assert not happened, "law: that we hear nobody is no reason to touch anything"
        assert {t.id for t in rig.tasks()} == before
