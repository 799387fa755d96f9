"""Host gone, agent gone, controller cut off: what each is taken for, and for how long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from orchestrator.api.rows import node_row, task_row
from orchestrator.control.mirror.health import NodeHealth
from specs.node import BRAKED
from specs.wire import HEARTBEAT, SHORTEST_HEARTBEAT
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 5e8


class World:
    """Three nodes that are ready; ``play`` tells the health of n3 what the dispatcher would."""

    def __init__(self, heartbeat: float = HEARTBEAT) -> None:
        self.clock = Clock()
        self.cluster = SimpleNamespace(nodes=dict.fromkeys(["n1", "n2", "n3"]), conditions={})
        self.health = NodeHealth(self.cluster, self.clock, heartbeat=heartbeat)
        for node in self.cluster.nodes:
            self.back(node)
        self.health.update()

    def back(self, node: str) -> None:
        self.health.connected(node)
        self.health.reported(node)

    def play(self, *events: tuple[float, str]) -> None:
        for pause, what in events:
            self.clock.now += pause
            match what:
                case "silent" | "closed":
                    self.health.disconnected("n3", what)
                case "let in":
                    self.health.reached("n3")
                case "no agent":
                    self.health.reached("n3")
                    self.health.disconnected("n3", what, host=True)
                case "no host":
                    self.health.disconnected("n3", what)
                case "back":
                    self.back("n3")
                case "look":
                    pass
            self.health.update()

    @property
    def n3(self):
        return self.cluster.conditions["n3"]


@pytest.mark.parametrize(
    ("events", "status"),
    [
        # The host is gone, or we are cut off from it: nothing lets us in.
        ([(0, "silent"), (4.9, "look")], "unknown"),
        ([(0, "silent"), (5, "look")], "down"),
        ([(0, "closed"), (0.1, "no host"), (4.9, "look")], "down"),
        # The host lets us in: its agent is waited for, dead (refused) or hung (no answer yet).
        ([(0, "closed"), (0.1, "no agent"), (59.8, "look")], "unknown"),
        ([(0, "closed"), (0.1, "no agent"), (59.9, "look")], "down"),
        ([(0, "silent"), (0.1, "let in"), (9, "look")], "unknown"),
        ([(0, "silent"), (0.1, "let in"), (10, "no agent"), (20, "no agent")], "unknown"),
        ([(0, "silent"), (0.1, "let in"), (59.9, "look")], "down"),
        # A node that lets us in again only after it was down is down until its agent is back.
        ([(0, "silent"), (5, "look"), (1, "no agent")], "down"),
        # The host goes while its agent is waited for.
        ([(0, "closed"), (0.1, "no agent"), (3, "no host")], "unknown"),
        ([(0, "closed"), (0.1, "no agent"), (3, "no host"), (1.9, "look")], "down"),
        ([(0, "closed"), (0.1, "no agent"), (30, "no host")], "down"),
        # The agent is back in time: nothing happened. Too late: it must stay for a while.
        ([(0, "closed"), (0.1, "no agent"), (50, "back")], "ready"),
        ([(0, "closed"), (0.1, "no agent"), (60, "look"), (1, "back")], "down"),
        ([(0, "closed"), (0.1, "no agent"), (60, "look"), (1, "back"), (3, "look")], "ready"),
        # Each time the agent goes it is waited for anew.
        ([(0, "closed"), (0.1, "no agent"), (50, "back"), (1, "closed"), (1, "no agent"),
          (50, "look")], "unknown"),
        # What the machine answered before this time says nothing about now.
        ([(0, "closed"), (0.1, "no agent"), (9, "back"), (9, "silent"), (5, "look")], "down"),
    ],
)  # fmt: skip
def test_what_a_node_is_taken_for(events, status):
    world = World()
    world.play(*events)
    assert world.n3.status == status
    away = status == "unknown" and events[-1][1] != "no host" and len(events) > 2
    assert bool(world.n3.replaced_at) == away


@pytest.mark.parametrize(
    ("nodes", "brake"),
    [
        (["new", "new", "new", "new"], False),  # a starting controller has met nobody yet
        (["met", "met", "met", "met"], False),  # it has just met all; their reports are on the way
        (["met", "met", "met", "new"], False),
        (["heard", "met", "met", "met"], False),
        (["heard", "heard", "heard", "heard"], False),
        (["heard", "heard", "lost", "lost"], False),
        (["heard", "lost", "lost", "lost"], True),
        (["met", "lost", "lost", "lost"], True),
        (["lost", "lost", "lost", "lost"], True),
        (["heard", "met", "lost", "lost"], False),
        (["new", "new", "lost", "lost"], False),
    ],
)
def test_silence_is_what_was_heard_before(nodes, brake):
    world = World()
    world.cluster.nodes = {f"m{number}": None for number in range(4)}
    for node, how in zip(world.cluster.nodes, nodes, strict=True):
        if how != "new":
            world.health.connected(node)
        if how in {"heard", "lost"}:
            world.health.reported(node)
        if how == "lost":
            world.health.disconnected(node, "closed")
    world.health.update()
    assert world.health.brake() == brake


@pytest.mark.parametrize(
    ("heartbeat", "unknown", "down"),
    [(HEARTBEAT, 4.9, 5.0), (1.5, 2.4, 2.5), (1.0, 1.6, 1.7), (SHORTEST_HEARTBEAT, 0.8, 0.9)],
)
def test_quicker_heartbeats_make_a_silent_node_down_sooner(heartbeat, unknown, down):
    world = World(heartbeat)
    world.play((0, "silent"), (unknown, "look"))
    assert world.n3.status == "unknown"
    world.play((down - unknown, "look"))
    assert world.n3.status == "down"


def test_an_agent_that_is_away_is_waited_for_as_long_whatever_the_heartbeat():
    world = World(SHORTEST_HEARTBEAT)
    world.play((0, "closed"), (0.1, "no agent"), (59.0, "look"))
    assert world.n3.status == "unknown"


@pytest.mark.looptime
@pytest.mark.parametrize(("heartbeat", "goal"), [(HEARTBEAT, 8.0 - 1.0), (1.0, 6.0 - 3.0 - 1.0)])
async def test_what_ran_on_a_node_that_hung_up_serves_elsewhere_in_time(heartbeat, goal):
    """The rest of the goal is left to the silence before (three heartbeats) and to the node."""
    async with Rig(nodes=3, heartbeat=heartbeat) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        began = rig.clock.monotonic()
        await rig.nodes["n3"].cut()
        await rig.until(lambda: elsewhere(rig) == 3)
        assert rig.clock.monotonic() - began < goal


def elsewhere(rig) -> int:
    """Return how many tasks of web run on nodes that answer."""
    return sum(t.node != "n3" and t.status.ready for t in rig.live("web"))


def test_it_is_said_when_the_tasks_of_a_host_without_agent_are_replaced():
    world = World()
    world.play((0, "closed"), (0.1, "no agent"), (12.9, "look"))
    assert world.n3.replaced_at - world.clock.wall() == pytest.approx(47)


@pytest.mark.looptime
@pytest.mark.parametrize("away", [3, 20, 55])
async def test_an_agent_that_is_back_in_time_costs_its_node_nothing(away):
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        before = {t.id for t in rig.live("web")}
        node = rig.nodes["n3"]
        happened = []
        rig.watchers.append(lambda _node, task, what: happened.append((task, what)))
        await node.lose_agent()
        for _ in range(away):
            await asyncio.sleep(1)
            await node.try_again(host=True)
        assert rig.cluster.conditions["n3"].status == "unknown"
        row = node_row(rig.cluster, rig.cluster.nodes["n3"], now=rig.clock.wall())
        assert row.reason == (
            "agent not answering, host reachable (open failed);"
            f" tasks are replaced in {60 - away} s"
        )
        assert len(rig.ready("web")) == 3, "its tasks serve on"
        await node.connect()
        await rig.until(lambda: rig.cluster.conditions["n3"].status == "ready", 5)
        await asyncio.sleep(20)
        assert {t.id for t in rig.tasks("web")} == before
        assert not happened, "law: nothing is touched"


@pytest.mark.looptime
@pytest.mark.parametrize("patience", [60.0, 10.0])
async def test_an_agent_that_stays_away_is_replaced_when_its_time_is_up(patience):
    async with Rig(nodes=3, patience=patience) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        start = rig.clock.monotonic()
        node = rig.nodes["n3"]
        await node.lose_agent()
        await rig.until(lambda: len(rig.tasks("web")) == 4, 100)
        assert rig.clock.monotonic() - start == pytest.approx(patience, abs=0.5)
        await rig.until(lambda: len([t for t in rig.ready("web") if t.node != "n3"]) == 3)


@pytest.mark.looptime
@pytest.mark.parametrize("first", ["original", "replacement"])
async def test_of_original_and_replacement_the_first_to_serve_stays(first):
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        before = {t.id for t in rig.live("web")}
        rig.how["web"] = Behaviour(prepare=20)
        node = rig.nodes["n3"]
        await node.lose_agent()
        await rig.until(lambda: len(rig.tasks("web")) == 4, 100)
        if first == "replacement":
            await rig.until(lambda: len([t for t in rig.ready("web") if t.node != "n3"]) == 3)
        await node.connect()
        await rig.until(lambda: len(rig.tasks("web")) == len(rig.ready("web")) == 3)
        stayed = {t.id for t in rig.live("web")} == before
        assert stayed == (first == "original")


@pytest.mark.looptime
async def test_a_host_that_goes_while_its_agent_is_awaited_is_replaced_like_any_other():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        await rig.nodes["n3"].lose_agent()
        await asyncio.sleep(20)
        assert len(rig.tasks("web")) == 3
        await rig.nodes["n3"].try_again(host=False)
        await rig.until(lambda: len([t for t in rig.ready("web") if t.node != "n3"]) == 3, 3)


@pytest.mark.looptime
async def test_under_the_brake_ps_and_node_ls_say_why_nothing_is_replaced():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()

        def said() -> list[tuple[str, bool, bool]]:
            """Return of each task: its node, whether its words name the brake, whether ``ls``."""
            rows = [task_row(rig.cluster, t, now=rig.clock.wall()) for t in rig.tasks("web")]
            nodes = rig.cluster.nodes.values()
            listed = [node_row(rig.cluster, node, now=rig.clock.wall()) for node in nodes]
            why = {node.name: node.reason for node in listed}
            return sorted((r.node, BRAKED in r.status, BRAKED in why[r.node]) for r in rows)

        for node in ("n2", "n3"):
            await rig.nodes[node].cut()
        await rig.until(rig.control._health.brake)
        await rig.until(lambda: rig.cluster.conditions["n3"].status == "down")
        assert said() == [("host1", False, False), ("host2", True, True), ("host3", True, True)]
        await rig.nodes["n2"].connect()
        await rig.until(lambda: not rig.control._health.brake(), 100)
        assert not any(task or node for _, task, node in said())


@pytest.mark.looptime
async def test_a_node_that_falls_again_and_again_says_so_while_it_has_to_stay():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        n3 = rig.cluster.nodes["n3"]
        for fall, waits in enumerate((3, 6, 12), 1):
            await rig.nodes["n3"].cut()
            await rig.until(lambda: rig.cluster.conditions["n3"].status == "down", 60)
            await rig.nodes["n3"].connect()
            await rig.until(lambda: rig.cluster.conditions["n3"].returning, 60)
            lately = f"it was down {fall} times lately, " if fall > 1 else ""
            words = f"it is back; {lately}counted again after {waits} s without a break"
            assert node_row(rig.cluster, n3, now=rig.clock.wall()).reason == words
            await rig.until(lambda: rig.cluster.conditions["n3"].status == "ready", 60)
