"""Blue-green updates: a whole set beside the other, and traffic for one of them at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator.control.telling.words import words_of
from tests.orchestrator.control.builders import CHECK, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

COUNT = 3
OLD, NEW = {"web:1": COUNT}, {"web:2": COUNT}


def web(image: str, keep: str = "10m", action: str = "pause", **more: Any) -> dict[str, Any]:
    update = {"monitor": "2s", "failure_action": action}
    ours = {"update": "blue-green", "keep_old": keep}
    more = {"restart": "always", "x-corral": ours, **more}
    return project(web=replicas(COUNT, update=update, image=image, **more))


class Traffic:
    """What every node is told of web, each time: who gets its traffic."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.seen: dict[str, list[dict[str, int]]] = {}  # node -> what it was told, in order
        check = rig.check_wanted

        def looked(node: Any) -> None:
            check(node)
            for service in node.wanted.services.values():
                if service.service == "web":
                    self.told(node.node.id, [e.task for e in service.endpoints if e.ready])

        rig.check_wanted = looked  # type: ignore[method-assign]

    def told(self, node: str, tasks: list[str]) -> None:
        found: dict[str, int] = {}
        for task in tasks:
            known = self.rig.cluster.tasks.get(task)
            image = self.rig.image_of(known) if known is not None else "?"
            found[image] = found.get(image, 0) + 1
        if self.seen.setdefault(node, [])[-1:] != [found]:
            self.seen[node].append(found)

    def now(self) -> dict[str, int]:
        (found,) = {str(told[-1]): told[-1] for told in self.seen.values()}.values()
        return found

    def ready(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for task in self.rig.ready("web"):
            found[self.rig.image_of(task)] = found.get(self.rig.image_of(task), 0) + 1
        return found


def said(rig: Rig) -> dict[str, set[str]]:
    """Return what `ps` says of the tasks: image -> the words."""
    found: dict[str, set[str]] = {}
    for task in rig.ready("web"):
        found.setdefault(rig.image_of(task), set()).add(words_of(rig.cluster, task).text)
    return found


async def began(rig: Rig, **more: Any) -> Traffic:
    traffic = Traffic(rig)
    await rig.up(web("web:1", **more))
    await rig.deployed()
    await asyncio.sleep(5)
    for node in traffic.seen:
        traffic.seen[node] = traffic.seen[node][-1:]
    assert traffic.now() == OLD
    return traffic


async def test_traffic_goes_over_at_once_and_the_old_set_is_kept_and_then_goes():
    async with Rig(nodes=3) as rig:
        traffic = await began(rig)
        await rig.up(web("web:2"))
        await rig.until(lambda: traffic.ready() == {**OLD, **NEW})
        assert traffic.now() == OLD, "law: the new set has no traffic until all of it came to stay"
        (row,) = rig.control.rollout("app").services
        assert (row.way, row.state) == ("blue-green", "standby")
        assert said(rig) == {"web:1": {"running"}, "web:2": {"running (no traffic yet)"}}
        await rig.deployed()
        assert traffic.now() == NEW
        for told in traffic.seen.values():
            assert told == [OLD, NEW], "law: every node hears of it in one piece"
        assert traffic.ready() == {**OLD, **NEW}
        (row,) = rig.control.rollout("app").services
        assert (row.state, row.updated, len(row.kept)) == ("done", COUNT, COUNT)
        kept = "running (kept to go back to, no traffic)"
        assert said(rig) == {"web:1": {kept}, "web:2": {"running"}}
        await asyncio.sleep(500)
        await rig.restart_controller()
        await asyncio.sleep(60)
        assert traffic.ready() == {**OLD, **NEW}, "law: a controller that starts keeps it, too"
        await rig.until(lambda: traffic.ready() == NEW, within=100)
        assert not rig.cluster.stacks["app"].standby
        assert traffic.now() == NEW
        await asyncio.sleep(60)
        assert len(rig.live("web")) == COUNT


async def test_going_back_takes_no_time_while_the_old_set_is_kept():
    async with Rig(nodes=3) as rig:
        traffic = await began(rig)
        before = {t.id for t in rig.live("web")}
        await rig.up(web("web:2"))
        await rig.deployed()
        begun = rig.clock.monotonic()
        done = await rig.steer("abort")
        assert done.message == "back to release 1, as release 3"
        await rig.until(lambda: traffic.now() == OLD, within=2)
        assert rig.clock.monotonic() - begun < 2
        await rig.deployed(within=2)
        assert {t.id for t in rig.ready("web") if t.release == 1} == before, "law: the very tasks"
        for told in traffic.seen.values():
            assert told == [OLD, NEW, OLD]


async def test_the_same_by_an_up_of_the_old_file():
    async with Rig(nodes=3) as rig:
        traffic = await began(rig)
        await rig.up(web("web:2"))
        await rig.deployed()
        await rig.up(web("web:1"))
        await rig.until(lambda: traffic.now() == OLD, within=2)
        await rig.deployed(within=5)
        assert all({*told[-1]} == {"web:1"} for told in traffic.seen.values())


BAD = {
    "crashes": Behaviour(exit_code=1, runs_for=0.5, again=True),
    "rejected": Behaviour(reject="bad mount"),
}


@pytest.mark.parametrize("action", ["pause", "rollback"])
@pytest.mark.parametrize("how", BAD)
async def test_a_new_set_that_fails_never_gets_traffic(how, action):
    async with Rig(nodes=3) as rig:
        traffic = await began(rig, action=action)
        rig.how["web:2"] = BAD[how]
        await rig.up(web("web:2", action=action), deadline=30.0)
        end = await rig.end_of(within=200)
        assert end.state == ("failed" if action == "pause" else "rolled_back")
        await asyncio.sleep(30)
        # What is lost of the old set comes back beside what failed.
        task = next(t for t in rig.ready("web") if t.release == 1)
        rig.fake_of(task).end(task.id, 1)
        await rig.until(lambda: traffic.now() == OLD and task.id not in [t.id for t in rig.live()])
        for told in traffic.seen.values():
            assert all({*one} == {"web:1"} for one in told), "law: no traffic for what failed"
        if action == "pause":
            await rig.steer("abort")
            await rig.deployed()
        await rig.until(lambda: {rig.image_of(t) for t in rig.live("web")} == {"web:1"})
        assert len(rig.ready("web")) == COUNT
        await asyncio.sleep(60)
        assert len(rig.ready("web")) == COUNT
        assert traffic.now() == OLD


async def test_a_new_set_that_is_never_ready_is_held_to_the_deadline():
    async with Rig(nodes=3) as rig:
        rig.how["web:1"] = Behaviour(healthy=0.1)
        traffic = await began(rig, **CHECK)
        rig.how["web:2"] = Behaviour(never_ready=True)
        await rig.up(web("web:2", **CHECK), deadline=30.0)
        assert "no progress for 30 s" in (await rig.end_of(within=200)).message
        assert traffic.now() == OLD
        # Another try is another set; what came to nothing goes.
        rig.how["web:3"] = Behaviour(healthy=0.1)
        await rig.up(web("web:3", **CHECK), deadline=30.0)
        await rig.deployed()
        assert traffic.now() == {"web:3": COUNT}
        await rig.until(lambda: {rig.image_of(t) for t in rig.live("web")} == {"web:1", "web:3"})


async def test_it_is_paused_before_it_goes_over():
    async with Rig(nodes=3) as rig:
        traffic = await began(rig)
        await rig.up(web("web:2"), deadline=30.0)
        await rig.until(lambda: traffic.ready() == {**OLD, **NEW})
        await rig.steer("pause")
        await asyncio.sleep(100)
        assert traffic.now() == OLD
        await rig.steer("resume")
        await rig.deployed()
        assert traffic.now() == NEW


async def test_a_killed_controller_goes_on_where_the_last_one_was():
    async with Rig(nodes=3) as rig:
        traffic = await began(rig)
        await rig.up(web("web:2"))
        await rig.until(lambda: traffic.ready() == {**OLD, **NEW})
        await rig.restart_controller()
        await rig.deployed()
        assert traffic.now() == NEW
        for told in traffic.seen.values():
            assert [one for one in told if one] == [OLD, NEW]


async def test_without_a_time_to_keep_it_the_old_set_goes_at_once():
    async with Rig(nodes=3) as rig:
        traffic = await began(rig, keep="0s")
        await rig.up(web("web:2", keep="0s"))
        await rig.deployed()
        await rig.until(lambda: traffic.ready() == NEW, within=10)
        for told in traffic.seen.values():
            assert told == [OLD, NEW]


async def stop_and_start(rig: Rig) -> None:
    await rig.control.stop("app", 0)
    await rig.until(lambda: not rig.live("web"))
    await rig.start()


async def drained(rig: Rig) -> None:
    node = rig.nodes["n2"].node
    await rig.put_node(node.model_copy(update={"availability": "drain"}))
    await rig.until(lambda: not [t for t in rig.tasks("web") if t.node == "n2"], within=100)


async def scaled(rig: Rig) -> None:
    await rig.control.scale("app", {"web": 5})
    await rig.until(lambda: len([t for t in rig.ready("web") if t.release == 2]) == 5)
    await rig.control.scale("app", {"web": COUNT})


async def another_service(rig: Rig) -> None:
    more = web("web:2")
    more["services"]["api"] = {"image": "api:1", "networks": {"default": None}}
    await rig.up(more, services=("api",))
    await rig.deployed()


@pytest.mark.parametrize("what", [stop_and_start, drained, scaled, another_service])
async def test_what_happens_while_the_old_set_is_kept(what):
    async with Rig(nodes=3) as rig:
        traffic = await began(rig)
        await rig.up(web("web:2"))
        await rig.deployed()
        await what(rig)
        await rig.until(lambda: traffic.now() == NEW, within=100)
        await asyncio.sleep(700)
        assert traffic.now() == NEW
        assert traffic.ready() == NEW
        assert not rig.cluster.stacks["app"].standby


@pytest.mark.parametrize("then", ["rolling", "blue-green", "canary"])
@pytest.mark.parametrize("back", [False, True], ids=["after it", "after going back"])
async def test_another_update_while_a_set_is_kept(back, then):
    """What is kept of an earlier update is in nobody's way: it goes, and makes room."""
    ways = {"canary": {"canary": {"replicas": 1, "promote": "healthy-for 1s"}}}
    ours = ways.get(then, {"update": then})
    async with Rig(nodes=3) as rig:
        traffic = await began(rig)
        await rig.up(web("web:2"))
        await rig.deployed()
        if back:
            await rig.steer("abort")
            await rig.deployed()
        served = traffic.now()
        await rig.up(web("web:3", **{"x-corral": ours}), deadline=30.0)
        await rig.deployed(within=200)
        assert traffic.now() == {"web:3": COUNT}
        kept = served if then == "blue-green" else {}
        await rig.until(lambda: traffic.ready() == {**kept, "web:3": COUNT}, within=100)


async def test_a_task_moves_though_one_of_its_slot_is_kept_elsewhere():
    async with Rig(nodes=4) as rig:
        traffic = await began(rig)
        await rig.up(web("web:2"))
        await rig.deployed()
        kept = {t.slot: t.node for t in rig.live("web") if t.release == 1}
        task = next(t for t in rig.ready("web") if t.release == 2 and kept[t.slot] != t.node)
        node = rig.fake_of(task).node
        await rig.put_node(node.model_copy(update={"availability": "drain"}))
        await rig.until(lambda: not [t for t in rig.tasks("web") if t.node == node.id], within=50)
        await rig.until(lambda: traffic.now() == NEW)


async def test_why_a_task_has_no_place_counts_on_no_room_of_what_is_kept():
    room = {"deploy": {"resources": {"reservations": {"memory": 3 << 30}}}}  # a node has 8 GiB
    async with Rig(nodes=4) as rig:
        await began(rig, **room)
        await rig.up(web("web:2", **room))
        await rig.deployed()
        await rig.up(project(fill=replicas(2, **room)), stack="other")
        await rig.deployed(stack="other")
        kept = {t.slot: t.node for t in rig.live("web") if t.release == 1}
        task = next(t for t in rig.ready("web") if t.release == 2 and kept[t.slot] != t.node)
        node = rig.fake_of(task).node
        await rig.put_node(node.model_copy(update={"availability": "drain"}))
        await rig.until(lambda: any(t.pending_reason for t in rig.live("web")), within=50)
        (waits,) = (t for t in rig.live("web") if t.pending_reason)
        assert "no node fits" in waits.pending_reason
        why = await rig.control.why(waits.id, "app")
        assert len(why.nodes) == 4
        assert [row.node for row in why.nodes if not row.rules] == []
