"""What nodes are told of each other's tasks when most of them were silent at once, and return.

The controller was cut off and not they: whom it meets first must not hear that what runs on
the others does not answer, only because those were not met yet.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

OTHERS = ("n2", "n3", "n4")


class Told:
    """Holds every set a node is given against what it was told before the silence."""

    def __init__(self, rig: Rig, *nodes: str) -> None:
        self.rig = rig
        self.nodes = nodes
        self.fewest: dict[str, int] = {}  # node -> tasks of web it was told are ready
        self._check = rig.check_wanted
        rig.check_wanted = self._told

    def _told(self, node):
        self._check(node)
        if node.node.id in self.nodes:
            count = len(ready(node))
            self.fewest[node.node.id] = min(count, self.fewest.get(node.node.id, count))


def ready(fake, service: str = "web") -> set[str]:
    """Return the tasks this node was told it may send traffic to."""
    return {
        e.task
        for s in fake.wanted.services.values()
        if s.service == service
        for e in s.endpoints
        if e.ready
    }


async def up(rig: Rig) -> None:
    await rig.up(project(web=replicas(4)))
    await rig.deployed()
    await rig.until(lambda: all(len(ready(fake)) == 4 for fake in rig.nodes.values()))


async def isolate(rig: Rig, *nodes: str, apart: float = 0.7) -> None:
    for node in nodes:
        await rig.nodes[node].cut()
        await asyncio.sleep(apart)
    await rig.until(lambda: all(rig.cluster.conditions[n].status == "down" for n in nodes))
    await asyncio.sleep(10)


@dataclass
class Return:
    """In which order the others are heard again, and how far apart."""

    order: tuple[str, ...] = OTHERS
    pauses: tuple[float, ...] = (0.0, 0.5, 0.5)
    apart: float = 0.7


RETURNS = {
    "all at once": Return(pauses=(0.0, 0.0, 0.0)),
    "one after the other": Return(),
    "seconds apart": Return(pauses=(0.0, 5.0, 5.0)),
    "the last one late": Return(order=("n4", "n2", "n3"), pauses=(0.0, 1.0, 12.0)),
    "found silent seconds apart": Return(apart=2.0),
    "found silent at once": Return(apart=0.0, order=("n3", "n4", "n2")),
}


@pytest.mark.parametrize("name", RETURNS)
async def test_who_is_met_first_keeps_what_the_others_said_last(name):
    how = RETURNS[name]
    async with Rig(nodes=4) as rig:
        await up(rig)
        told = Told(rig, *OTHERS)
        await isolate(rig, *OTHERS, apart=how.apart)
        for node, pause in zip(how.order, how.pauses, strict=True):
            await asyncio.sleep(pause)
            await rig.nodes[node].connect()
        await asyncio.sleep(60)
        assert told.fewest == dict.fromkeys(OTHERS, 4), (
            "law: that the controller was away takes nothing from traffic between the others"
        )


async def test_what_was_lost_before_the_silence_stays_lost_for_everybody():
    async with Rig(nodes=4) as rig:
        await up(rig)
        lost = {t.id for t in rig.live("web") if t.node == "n4"}
        await rig.nodes["n4"].cut()
        await rig.until(
            lambda: len(ready(rig.nodes["n2"])) == 4 and not lost & ready(rig.nodes["n2"])
        )
        told = Told(rig, "n2", "n3")
        await isolate(rig, "n2", "n3")
        for node in ("n2", "n3"):
            await rig.nodes[node].connect()
            assert not lost & ready(rig.nodes[node])
        await asyncio.sleep(60)
        assert told.fewest == {"n2": 4, "n3": 4}
        assert not lost & ready(rig.nodes["n2"])


async def test_who_is_not_found_again_is_given_up_when_the_others_had_their_time():
    async with Rig(nodes=4) as rig:
        await up(rig)
        gone = {t.id for t in rig.live("web") if t.node == "n4"}
        await isolate(rig, *OTHERS)
        for node in ("n2", "n3"):
            await rig.nodes[node].connect()
        await asyncio.sleep(5)
        assert gone <= ready(rig.nodes["n2"]), "law: it is not known yet whether it is gone"
        await asyncio.sleep(30)
        assert not gone & ready(rig.nodes["n2"])
        assert len(ready(rig.nodes["n2"])) == 4, "they are replaced"


async def test_what_did_not_answer_before_does_not_after():
    async with Rig(nodes=4) as rig:
        await up(rig)
        sick = next(t for t in rig.live("web") if t.node == "n3")
        rig.nodes["n3"].say(sick.id, ready=False)
        await rig.until(lambda: sick.id not in ready(rig.nodes["n2"]))
        await isolate(rig, *OTHERS)
        await rig.nodes["n2"].connect()
        await asyncio.sleep(2)
        assert len(ready(rig.nodes["n2"])) == 3
        assert sick.id not in ready(rig.nodes["n2"])


async def test_who_was_heard_all_the_time_is_told_what_the_controller_sees():
    """Its own host is cut off with it: sent to the others, its clients would wait for nothing."""
    async with Rig(nodes=4) as rig:
        await up(rig)
        await isolate(rig, *OTHERS)
        own = {t.id for t in rig.live("web") if t.node == "n1"}
        assert ready(rig.nodes["n1"]) == own
        await rig.nodes["n2"].connect()
        await asyncio.sleep(1)
        back = {t.id for t in rig.live("web") if t.node == "n2"}
        assert ready(rig.nodes["n1"]) == own | back, (
            "law: under the brake who is back counts at once"
        )


ON_2 = {"placement": {"constraints": ["node.hostname == host2"]}}
# what runs, which nodes are to it -> whether it answers while its node has to show that it stays
ALONE = {
    "the only one, tied": (replicas(2, deploy=ON_2), True),
    "one of several": (replicas(3), False),
}


@pytest.mark.parametrize("name", ALONE)
async def test_a_node_that_has_to_show_that_it_stays_is_better_than_none(name):
    service, answers = ALONE[name]
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=service))
        await rig.deployed()
        there = {t.id for t in rig.live("web") if t.node == "n2"}
        assert there
        await rig.nodes["n2"].cut()
        await rig.until(lambda: rig.cluster.conditions["n2"].status == "down")
        await asyncio.sleep(3)
        assert not there & ready(rig.nodes["n1"]), "law: who is down gets no traffic"
        await rig.nodes["n2"].connect()
        await asyncio.sleep(1)
        assert rig.cluster.conditions["n2"].status == "down", "it is watched for a while"
        for node in ("n1", "n2", "n3"):
            if rig.nodes[node].wanted.services:
                assert bool(there & ready(rig.nodes[node])) == answers
        await asyncio.sleep(1)
        await rig.nodes["n2"].cut()
        await asyncio.sleep(1)
        assert not there & ready(rig.nodes["n1"]), "law: back and gone is gone"
