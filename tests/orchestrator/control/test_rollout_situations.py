"""An update in every situation: what is there in the end, and at every instant.

In virtual time, on the real control loops. Each row says how the update went out, how many slots
were without a ready task at the worst instant, and how many new tasks failed.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.api.rows import stack_row
from orchestrator.contracts import EventQuery
from orchestrator.control.mirror.serving import is_ready
from orchestrator.control.telling.words import words_of
from orchestrator.errors import Conflict, Invalid, NotFound
from tests.orchestrator.control.builders import CHECK, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.looptime

COUNT = 4


class Watch:
    """Looks at web whenever a task of it moves."""

    def __init__(self, rig: Rig, count: int = COUNT) -> None:
        self.rig, self.count = rig, count
        self.unavailable = 0
        self.most = 0  # tasks at once
        self.moved = rig.cluster.listen(lambda *_: self.look())

    def look(self) -> None:
        ready = {t.slot for t in self.ready()}
        self.unavailable = max(self.unavailable, self.count - len(ready))
        self.most = max(self.most, len(self.rig.live("web")))

    def ready(self) -> list[Any]:
        return [t for t in self.rig.ready("web") if is_ready(self.rig.cluster, t)]

    def failed(self, image: str) -> int:
        return sum(
            t.state.value in ("failed", "rejected")
            for t in self.rig.tasks("web")
            if self.rig.image_of(t) == image
        )

    def shows(self, images: dict[str, int]) -> bool:
        """Say whether so many of these are ready; what crashes is ready now and then."""
        found = self.images()
        return all(found.get(image) == count for image, count in images.items())

    def images(self) -> dict[str, int]:
        """Return how many ready tasks there are of each image."""
        found: dict[str, int] = {}
        for task in self.ready():
            found[self.rig.image_of(task)] = found.get(self.rig.image_of(task), 0) + 1
        return found


def web(image: str, update: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    update = {"monitor": "2s", **(update or {})}
    return project(web=replicas(COUNT, update=update, image=image, **{"restart": "always", **more}))


async def half_way(rig: Rig, watch: Watch) -> None:
    await rig.until(lambda: watch.images().get("web:2", 0) >= 1)


async def nothing(rig: Rig, watch: Watch) -> None:
    pass


async def node_lost(rig: Rig, watch: Watch) -> None:
    await half_way(rig, watch)
    task = next(t for t in rig.ready("web") if rig.image_of(t) == "web:2")
    await rig.fake_of(task).crash()


async def controller_killed(rig: Rig, watch: Watch) -> None:
    await half_way(rig, watch)
    await rig.restart_controller()
    watch.rig.cluster.listen(lambda *_: watch.look())


async def second_up(rig: Rig, watch: Watch) -> None:
    await half_way(rig, watch)
    await rig.up(web("web:3"))


async def abort(rig: Rig, watch: Watch) -> None:
    await half_way(rig, watch)
    await rig.steer("abort")


async def pause_and_resume(rig: Rig, watch: Watch) -> None:
    await half_way(rig, watch)
    await rig.steer("pause")
    await asyncio.sleep(40)  # longer than the deadline
    there = watch.images()
    assert rig.release().state.value == "deploying", "law: it is not held to its deadline meanwhile"
    await rig.restart_controller()
    rig.cluster.listen(lambda *_: watch.look())
    await asyncio.sleep(40)
    assert watch.images() == there, "law: what is paused begins no slot"
    assert sum(there.values()) == COUNT
    assert rig.control.rollout("app").services[0].state == "paused"
    said = {words_of(rig.cluster, t).text for t in rig.ready("web")}
    assert said == {"running", "running (its rollout is paused)"}
    assert stack_row(rig.cluster, rig.cluster.stacks["app"]).status == "paused"
    async with contextlib.aclosing(rig.control.progress("app", None)) as lines:
        async for line in lines:
            if line.kind == "service" and line.message:
                assert line.message == "it is paused; corral rollout resume goes on with it"
                break
    await rig.steer("resume")


async def pause_and_lose(rig: Rig, watch: Watch) -> None:
    await half_way(rig, watch)
    await rig.steer("pause")
    await asyncio.sleep(5)
    there = watch.images()
    old = next(t for t in rig.ready("web") if rig.image_of(t) == "web:1")
    rig.fake_of(old).end(old.id, 1)
    await rig.until(lambda: old.id not in [t.id for t in rig.live("web")])
    await rig.until(lambda: watch.images() == there, within=100)
    await rig.steer("resume")


PAUSE, BACK, GOES_ON = (
    {"failure_action": "pause"},
    {"failure_action": "rollback"},
    {"failure_action": "continue"},
)
FIRST = {"order": "start-first"}
CRASHES = Behaviour(exit_code=1, runs_for=1.0, again=True)
LATER = Behaviour(exit_code=1, runs_for=2.0, again=True)
HELD = {"monitor": "1s", "delay": "6s"}
NOWHERE = {"deploy": {"placement": {"constraints": ["node.labels.none == yes"]}}}


@dataclass
class Row:
    """``ends``: the release's state; ``images``: of the ready tasks then; the worst instant."""

    ends: str
    images: dict[str, int]
    unavailable: int
    failed: int = 0
    update: dict[str, Any] | None = None
    new: Behaviour | None = None
    more: dict[str, Any] | None = None
    during: Callable[[Rig, Watch], Awaitable[None]] = nothing
    says: str = ""


ALL_NEW, ALL_OLD = {"web:2": COUNT}, {"web:1": COUNT}
ROWS = {
    "success": Row("deployed", ALL_NEW, 1),
    "success, start-first": Row("deployed", ALL_NEW, 0, update=FIRST),
    "success, two at a time": Row("deployed", ALL_NEW, 2, update={"parallelism": 2}),
    "success, all at once": Row("deployed", ALL_NEW, 4, update={"parallelism": 0}),
    "success, with a delay": Row("deployed", ALL_NEW, 1, update={"delay": "15s"}),
    "slow start": Row("deployed", ALL_NEW, 1, new=Behaviour(start=20.0, healthy=5.0), more=CHECK),
    "slow image": Row("deployed", ALL_NEW, 1, new=Behaviour(prepare=25.0)),
    "slow start, start-first": Row("deployed", ALL_NEW, 0, new=Behaviour(start=20.0), update=FIRST),
    "crash in monitor, pause": Row(
        "failed", {"web:1": 3}, 1, new=CRASHES, update=PAUSE, says="paused"
    ),
    "crash in monitor, rollback": Row(
        "rolled_back", ALL_OLD, 1, new=CRASHES, update=BACK, says="rolled back to release 1"
    ),
    "crash in monitor, start-first, rollback": Row(
        "rolled_back", ALL_OLD, 0, new=CRASHES, update={**FIRST, **BACK}
    ),
    "crash after monitor and within delay, pause": Row(
        *("failed", {"web:1": 3}, 1), new=LATER, update={**PAUSE, **HELD}, says="paused"
    ),
    "crash after monitor and within delay, rollback": Row(
        *("rolled_back", ALL_OLD, 1),
        new=LATER,
        update={**BACK, **HELD},
        says="rolled back to release 1",
    ),
    "crash after monitor and within delay, start-first, rollback": Row(
        "rolled_back", ALL_OLD, 1, new=LATER, update={**FIRST, **BACK, **HELD}
    ),
    "cannot be prepared": Row(
        "failed", ALL_OLD, 0, 1, new=Behaviour(reject="bad mount"), says="bad mount"
    ),
    "never healthy": Row(
        "failed", {"web:1": 3}, 1, new=Behaviour(never_ready=True), more=CHECK, says="no progress"
    ),
    "never healthy, rollback": Row(
        *("rolled_back", ALL_OLD, 1),
        new=Behaviour(never_ready=True),
        more=CHECK,
        update=BACK,
    ),
    "never places": Row("failed", ALL_OLD, 0, more=NOWHERE, says="no progress for 30 s"),
    "never places, rollback": Row("rolled_back", ALL_OLD, 0, more=NOWHERE, update=BACK),
    "node lost mid-way": Row("deployed", ALL_NEW, 3, during=node_lost),
    "controller killed mid-way": Row("deployed", ALL_NEW, 1, during=controller_killed),
    "controller killed mid-way, start-first": Row(
        "deployed", ALL_NEW, 0, during=controller_killed, update=FIRST
    ),
    "second up mid-way": Row("deployed", {"web:3": COUNT}, 1, during=second_up),
    "rollback mid-way": Row("rolled_back", ALL_OLD, 1, during=abort, says="it was aborted"),
    "rollback mid-way, start-first": Row("rolled_back", ALL_OLD, 0, during=abort, update=FIRST),
    "pause and resume mid-way": Row("deployed", ALL_NEW, 1, during=pause_and_resume),
    "pause and resume mid-way, start-first": Row(
        "deployed", ALL_NEW, 0, during=pause_and_resume, update=FIRST
    ),
    "a task lost while paused": Row("deployed", ALL_NEW, 1, during=pause_and_lose),
}


@pytest.mark.parametrize("case", ROWS)
async def test_an_update_in_every_situation(case):
    row = ROWS[case]
    async with Rig(nodes=3) as rig:
        healthy = CHECK if row.more is CHECK else {}
        rig.how["web:1"] = Behaviour(healthy=0.1 if healthy else 0.0)
        await rig.up(web("web:1", **healthy))
        await rig.deployed()
        await asyncio.sleep(10)
        watch = Watch(rig)
        if row.new is not None:
            rig.how["web:2"] = row.new
        more = {"deploy": {}, **(row.more or {})}
        await rig.up(web("web:2", row.update, **more), deadline=30.0)
        await row.during(rig, watch)
        end = await rig.end_of(within=600)
        assert (end.state, row.says in end.message) == (row.ends, True), end.message
        await rig.until(lambda: watch.shows(row.images), within=100)
        assert watch.unavailable <= row.unavailable
        assert watch.failed("web:2") <= row.failed
        await asyncio.sleep(60)
        assert watch.shows(row.images), "law: what has ended stays as it is"
        if row.ends == "rolled_back":
            assert rig.release().back == "done"


async def test_a_way_back_that_fails_ends_and_says_so():
    async with Rig(nodes=2) as rig:
        await rig.up(web("web:1"))
        await rig.deployed()
        rig.how["web:2"] = rig.how["web:1"] = CRASHES
        await rig.up(web("web:2", BACK), deadline=30.0)
        end = await rig.end_of(within=200)
        assert end.state == "rolled_back"
        await rig.until(lambda: rig.release().back == "failed", within=200)
        status = rig.control.rollout("app")
        assert (status.back, status.state) == ("failed", "rolled_back")
        assert "web: 1 of 4 updated tasks failed" in status.back_reason


async def failed_update(rig: Rig) -> Watch:
    await rig.up(web("web:1"))
    await rig.deployed()
    watch = Watch(rig)
    rig.how["web:2"] = CRASHES
    await rig.up(web("web:2"), deadline=30.0)
    assert (await rig.end_of(within=200)).state == "failed"
    return watch


async def test_a_failed_update_goes_on_when_it_is_told_to():
    async with Rig(nodes=2) as rig:
        watch = await failed_update(rig)
        number = rig.release().number
        del rig.how["web:2"]
        done = await rig.steer("resume")
        assert done.release == number + 1
        assert done.message == f"release {number} goes on as release {number + 1}"
        await rig.deployed()
        assert watch.images() == ALL_NEW
        assert rig.cluster.releases[("app", number)].state.value == "failed", "law: it ends once"


async def test_a_failed_update_is_taken_back_when_it_is_told_to():
    async with Rig(nodes=2) as rig:
        watch = await failed_update(rig)
        done = await rig.steer("abort")
        assert done.message == "back to release 1, as release 3"
        assert rig.release().by.to == 1
        await rig.deployed()
        assert watch.images() == ALL_OLD
        assert watch.unavailable == 1


async def test_what_was_started_again_in_between_is_no_less_a_way_back():
    async with Rig(nodes=2) as rig:
        await rig.up(web("web:1"))
        await rig.deployed()
        watch = Watch(rig)
        await rig.control.stop("app", 0)
        await rig.until(lambda: not rig.live("web"))
        await rig.start()
        await rig.deployed()
        rig.how["web:2"] = Behaviour(reject="bad mount")
        await rig.up(web("web:2", {"parallelism": 2}), deadline=30.0)
        assert (await rig.end_of(within=200)).state == "failed"
        await rig.steer("abort")
        await rig.deployed()
        assert watch.images() == ALL_OLD
        assert not rig.release().only_starts


# canary


def canary(image: str, promote: str = "manual", count: int = 1, **more: Any) -> dict[str, Any]:
    ours = {"canary": {"replicas": count, "promote": promote}}
    return web(image, more.pop("update", None), **{"x-corral": ours, **more})


async def with_canary(rig: Rig, first: dict[str, Any], then: dict[str, Any]) -> Watch:
    await rig.up(first)
    await rig.deployed()
    await asyncio.sleep(10)
    watch = Watch(rig)
    await rig.up(then, deadline=30.0)
    return watch


BESIDE = {"web:1": COUNT, "web:2": 1}


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
async def test_a_canary_stands_beside_the_old_tasks_until_it_is_promoted(order):
    update = {"order": order}
    async with Rig(nodes=3) as rig:
        watch = await with_canary(rig, canary("web:1"), canary("web:2", update=update))
        end = await rig.end_of(within=100)
        assert (end.ok, end.state) == (True, "deploying")
        assert end.message == (
            "web: 1 canary of 4 beside the old tasks, to be promoted or aborted: "
            "corral rollout promote, or corral rollout abort"
        )
        await asyncio.sleep(100)
        await rig.restart_controller()
        rig.cluster.listen(lambda *_: watch.look())
        await asyncio.sleep(100)
        assert watch.images() == BESIDE, "law: the rest waits, for ever, and without a controller"
        (row,) = rig.control.rollout("app").services
        assert (row.way, row.state, row.updated, row.total) == ("canary", "canary", 0, COUNT)
        await rig.steer("promote", "web")
        await rig.deployed(within=200)
        assert watch.images() == ALL_NEW
        assert watch.unavailable == (1 if order == "stop-first" else 0)


@pytest.mark.parametrize("mode", ["global", "global-job"])
async def test_beside_a_canary_nothing_is_made_where_nothing_was(mode):
    async with Rig(nodes=3) as rig:
        there = {"placement": {"constraints": ["node.hostname == host1"]}}
        await rig.up(project(web={"image": "web:1", "deploy": {"mode": mode, **there}}))
        await asyncio.sleep(20)
        await rig.up(canary("web:2"), scale={"web": COUNT})
        await asyncio.sleep(30)
        assert sorted((t.slot, t.release) for t in rig.live("web")) == [(1, 1), (1, 2)]


async def test_an_abandoned_canary_goes_and_nothing_is_missing():
    async with Rig(nodes=3) as rig:
        watch = await with_canary(rig, canary("web:1"), canary("web:2", count=2))
        await rig.until(lambda: watch.images() == {"web:1": COUNT, "web:2": 2})
        done = await rig.steer("abort")
        assert done.message == "release 2 is aborted; back to release 1"
        assert (await rig.end_of()).state == "rolled_back"
        await rig.until(lambda: rig.release().back == "done", within=100)
        assert watch.images() == ALL_OLD
        assert watch.unavailable == 0
        assert {t.release for t in rig.live("web")} == {1}, "law: the old tasks never moved"


@pytest.mark.parametrize(("promote", "least"), [("after 90s", 90), ("healthy-for 90s", 90)])
async def test_a_canary_is_promoted_by_time(promote, least):
    async with Rig(nodes=3) as rig:
        begun = rig.clock.monotonic()
        watch = await with_canary(rig, canary("web:1"), canary("web:2", promote))
        await rig.deployed(within=300)
        assert rig.clock.monotonic() - begun > least
        assert watch.images() == ALL_NEW


# what the file says, whether it has a check, what happens -> seconds from when it served first
TRIALS = {
    "it serves late": ("after 90s", True, "", 90),
    "it has no check": ("after 90s", False, "", 90),
    "the controller is restarted": ("after 90s", False, "restart", 90),
    "the controller is restarted, and it has a check": ("after 90s", True, "restart", 130),
    "it serves late, and is to be healthy": ("healthy-for 90s", True, "", 90),
}


@pytest.mark.parametrize("case", TRIALS)
async def test_the_time_of_a_canary_begins_when_it_serves(case):
    promote, checked, happens, seconds = TRIALS[case]
    check = CHECK if checked else {}
    async with Rig(nodes=3) as rig:
        rig.how["web:1"] = Behaviour(healthy=0.1 if checked else 0.0)
        rig.how["web:2"] = Behaviour(healthy=20.0 if checked else 0.0)
        watch = await with_canary(rig, canary("web:1", **check), canary("web:2", promote, **check))
        await rig.until(lambda: watch.images() == BESIDE, within=60)
        served = rig.clock.monotonic()
        if happens == "restart":
            await asyncio.sleep(40)
            await rig.restart_controller()
        await rig.until(lambda: "web" in rig.release().promoted, within=300)
        assert rig.clock.monotonic() - served == pytest.approx(seconds, abs=8)


MORE = {  # what holds the update -> what is said of it
    "paused": "it is paused: 2 replicas more are made when it goes on",
    "canary": "1 canary of 4 beside the old tasks, to be promoted or aborted; "
    "2 replicas more are made then",
}


@pytest.mark.parametrize("held", MORE)
async def test_what_an_update_adds_is_made_when_it_goes_on_and_it_says_so(held):
    def more(wanted: dict[str, Any]) -> dict[str, Any]:
        wanted["services"]["web"]["deploy"]["replicas"] = COUNT + 2
        return wanted

    async with Rig(nodes=3) as rig:
        if held == "paused":
            await rig.up(web("web:1"))
            await rig.deployed()
            watch = Watch(rig)
            await rig.up(more(web("web:2")))
            await rig.steer("pause")
        else:
            watch = await with_canary(rig, canary("web:1"), more(canary("web:2")))
        await asyncio.sleep(30)
        (row,) = rig.control.rollout("app").services
        assert row.waits == MORE[held]
        assert len(watch.ready()) == COUNT + (held == "canary")
        await rig.steer("resume" if held == "paused" else "promote")
        await rig.deployed()
        assert watch.images() == {"web:2": COUNT + 2}


@pytest.mark.parametrize(("action", "state"), [("pause", "failed"), ("rollback", "rolled_back")])
async def test_a_canary_that_ends_in_its_time_fails_the_release(action, state):
    update = {"failure_action": action}
    async with Rig(nodes=3) as rig:
        rig.how["web:2"] = Behaviour(exit_code=3, runs_for=40.0, again=True)
        then = canary("web:2", "healthy-for 90s", update=update)
        watch = await with_canary(rig, canary("web:1"), then)
        end = await rig.end_of(within=300)
        assert end.state == state
        assert "1 of 1 canary tasks failed" in end.message
        assert watch.unavailable == 0
        await asyncio.sleep(60)
        assert watch.images().get("web:1") == COUNT
        if state == "failed":
            assert (await rig.steer("abort")).release == 3
            await rig.deployed()
            assert watch.images() == ALL_OLD
        assert watch.unavailable == 0


async def test_a_canary_that_never_serves_is_held_to_the_deadline():
    async with Rig(nodes=3) as rig:
        rig.how["web:1"] = Behaviour(healthy=0.1)
        rig.how["web:2"] = Behaviour(never_ready=True)
        watch = await with_canary(rig, canary("web:1", **CHECK), canary("web:2", **CHECK))
        end = await rig.end_of(within=300)
        assert "no progress for 30 s" in end.message
        assert watch.images() == ALL_OLD


async def test_another_up_takes_the_canary_away():
    async with Rig(nodes=3) as rig:
        watch = await with_canary(rig, canary("web:1"), canary("web:2"))
        await rig.until(lambda: watch.images() == BESIDE)
        await rig.up(canary("web:3"))
        await rig.until(lambda: watch.images() == {"web:1": COUNT, "web:3": 1})
        assert watch.unavailable == 0


async def test_who_depends_on_a_canary_is_updated_after_it():
    after_web = {"depends_on": {"web": {"condition": "service_started"}}}
    async with Rig(nodes=3) as rig:
        for image in ("web:1", "web:2"):
            wanted = canary(image)
            more = project(front={**after_web, "image": image.replace("web", "front")})
            wanted["services"].update(more["services"])
            await rig.up(wanted)
            end = await rig.end_of(within=100)
            assert end.ok
        (front,) = [t for t in rig.live("front") if t.release == 2]
        assert front.pending_reason == (
            "waits for web (1 canary of 4 beside the old tasks, to be promoted or aborted)"
        )
        await rig.steer("promote")
        await rig.deployed()


async def test_what_cannot_be_steered_is_refused_in_words():
    async with Rig() as rig:
        await rig.up(web("web:1"))
        await rig.deployed()
        cases = {
            "pause": "there is nothing to pause: release 1 is deployed",
            "resume": "there is nothing to go on with: release 1 is deployed",
            "promote": "there is nothing to promote: release 1 is deployed",
            "abort": "there is nothing to abort: release 1 is deployed",
        }
        for action, words in cases.items():
            with pytest.raises(Conflict, match=words):
                await rig.steer(action)
        with pytest.raises(NotFound, match="there is no service nope in app"):
            await rig.steer("pause", "nope")
        await rig.up(web("web:2"))
        await rig.until(lambda: rig.release().state.value == "deploying")
        with pytest.raises(Conflict, match="web has no canary"):
            await rig.steer("promote", "web")
        with pytest.raises(Conflict, match="a release goes back as a whole"):
            await rig.steer("abort", "web")
        with pytest.raises(Conflict, match="release 2 is not paused: it is deploying"):
            await rig.steer("resume")


# start-first where no node takes both


FULL = {
    "max_replicas_per_node": {"placement": {"max_replicas_per_node": 2}},
    "memory": {"resources": {"reservations": {"memory": "4g"}}},
}


@pytest.mark.parametrize("why", FULL)
async def test_start_first_on_full_nodes_goes_on_slot_by_slot(why):
    update = {"order": "start-first"}
    async with Rig(nodes=2) as rig:
        await rig.up(web("web:1", update, deploy=FULL[why]))
        await rig.deployed()
        await asyncio.sleep(10)
        watch = Watch(rig)
        told = []
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(_events(rig, told))
            await rig.up(web("web:2", update, deploy=FULL[why]), deadline=30.0)
            await rig.deployed(within=200)
            listening.cancel()
        assert watch.images() == ALL_NEW
        assert watch.unavailable == 1, "law: one slot at a time, as with stop-first"
        assert len(told) == COUNT
        assert "starts only once that of release 1 has stopped" in told[0]
        assert ("max_replicas_per_node" in told[0]) == (why == "max_replicas_per_node")


async def _events(rig: Rig, told: list[str]) -> None:
    async with contextlib.aclosing(rig.control.events(EventQuery("app"))) as events:
        async for event in events:
            told += [event.message] if event.kind == "rollout.stop-first" else []


async def test_start_first_where_a_node_has_room_loses_nothing():
    update, room = {"order": "start-first"}, {"placement": {"max_replicas_per_node": 2}}
    async with Rig(nodes=3) as rig:
        await rig.up(web("web:1", update, deploy=room))
        await rig.deployed()
        watch = Watch(rig)
        await rig.up(web("web:2", update, deploy=room), deadline=30.0)
        await rig.deployed(within=200)
        assert (watch.images(), watch.unavailable) == (ALL_NEW, 0)


async def test_what_fits_nowhere_either_way_stops_nothing():
    update = {"order": "start-first"}
    async with Rig(nodes=2) as rig:
        await rig.up(web("web:1", update))
        await rig.deployed()
        watch = Watch(rig)
        huge = {"resources": {"reservations": {"memory": "100g"}}}
        await rig.up(web("web:2", update, deploy=huge), deadline=30.0)
        assert "no progress for 30 s" in (await rig.end_of(within=200)).message
        assert (watch.images(), watch.unavailable) == (ALL_OLD, 0)


# a canary's share of the connections


def weighted(image: str, weight: str = "10%") -> dict[str, Any]:
    return web(image, **{"x-corral": {"canary": {"weight": weight}}})


def shares(rig: Rig) -> dict[str, dict[str, int]]:
    """Return, for each node, the shares it is told of web's ready tasks, by release."""
    found: dict[str, dict[str, int]] = {}
    for name, node in rig.nodes.items():
        for service in node.wanted.services.values():
            for one in service.endpoints if service.service == "web" else ():
                if one.ready:
                    release = rig.cluster.tasks[one.task].release
                    found.setdefault(name, {})[f"release {release}"] = one.share
    return found


async def test_every_node_is_told_a_canarys_share_and_when_it_is_over():
    async with Rig(nodes=3) as rig:
        watch = await with_canary(rig, weighted("web:1"), weighted("web:2"))
        end = await rig.end_of(within=100)
        assert "1 canary of 4 beside the old tasks with 10 % of connections" in end.message
        told = {"release 1": 0, "release 2": 10}
        await rig.until(lambda: list(shares(rig).values()) == [told] * 3)
        await rig.restart_controller()
        await asyncio.sleep(5)
        assert list(shares(rig).values()) == [told] * 3
        await rig.steer("promote")
        await rig.until(
            lambda: list(shares(rig).values()) == [{"release 1": 0, "release 2": 0}] * 3, within=2
        )
        await rig.deployed()
        assert watch.images() == ALL_NEW


async def test_a_share_is_gone_with_its_canary():
    async with Rig(nodes=3) as rig:
        watch = await with_canary(rig, weighted("web:1"), weighted("web:2"))
        await rig.until(lambda: watch.images() == BESIDE)
        await rig.steer("abort")
        await rig.until(lambda: list(shares(rig).values()) == [{"release 1": 0}] * 3)
        assert watch.unavailable == 0


async def test_where_a_node_is_older_a_weight_is_refused():
    async with Rig(nodes=2) as rig:
        node = rig.nodes["n2"].node
        older = node.facts.model_copy(update={"wire": 1})
        await rig.put_node(node.model_copy(update={"facts": older}))
        await rig.until(lambda: rig.cluster.nodes["n2"].facts.wire == 1)
        with pytest.raises(Invalid) as caught:
            await rig.up(weighted("web:1"))
        (problem,) = caught.value.problems
        assert problem.path == "services.web.x-corral.canary.weight"
        assert problem.message == "host2: corral is older there and knows no weights"
        await rig.up(canary("web:1"))
        await rig.deployed()


@pytest.mark.parametrize("there", ["stop-first", "start-first"])
@pytest.mark.parametrize("back", ["stop-first", "start-first"])
async def test_the_way_back_has_an_order_of_its_own(there, back):
    config = {"deploy": {"rollback_config": {"order": back, "monitor": "1s", "parallelism": 2}}}
    async with Rig(nodes=3) as rig:
        await rig.up(web("web:1", {"order": there}, **config))
        await rig.deployed()
        await asyncio.sleep(5)
        await rig.up(web("web:2", {"order": there}, **config), deadline=60.0)
        watch = Watch(rig)
        await rig.until(lambda: watch.images().get("web:2", 0) >= 3)
        watch.unavailable = 0
        await rig.steer("abort")
        await rig.until(lambda: rig.release().back == "done", within=100)
        assert watch.images() == ALL_OLD
        # The one whose update was under way may be missing, whatever the order of the way back.
        most = {"stop-first": 2, "start-first": 1 if there == "stop-first" else 0}
        assert watch.unavailable <= most[back]
        if back == "stop-first":
            assert watch.unavailable > 0
