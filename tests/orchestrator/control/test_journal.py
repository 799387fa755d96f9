"""Events that are kept: with what they tell of, bounded, folded, and read again."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contracts import EventQuery
from orchestrator.control.mirror.cluster import Cluster
from orchestrator.control.telling import journal as journals
from orchestrator.control.telling.journal import EventJournal
from orchestrator.store import keys
from orchestrator.store.base import Delete, Put, StoreUnavailable
from orchestrator.store.memory import MemoryStore
from specs.events import Event, EventBatch, matches, slots_in, spans
from specs.kit.log import ASKED_BY
from specs.schedule import Outcome
from specs.states import FINAL, ReleaseState
from tests.fakes.simulator import Behaviour, LoopClock
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime
ALL = EventQuery(history=True, follow=False)


class Listener:
    """Who follows."""

    some = True

    def __init__(self):
        self.told = []

    def event(self, event, revision):
        self.told.append(event)


class Kept:
    """A journal over a store in memory, at a time of our own."""

    def __init__(self):
        self.store, self.now = MemoryStore(), 1000.0
        self.listener = Listener()
        self.begin()

    def begin(self):
        clock = LoopClock()
        clock.wall = lambda: self.now
        self.journal = EventJournal(self.store, Cluster(self.store, clock), clock, self.listener)

    async def write(self, *events):
        told = self.journal.record((), {}, events, room=28)
        result = await self.store.txn((), tuple(told.writes))
        self.journal.written(told, result.revision)
        return told

    async def happens(self, kind="run.ended", after=1.0, **more):
        self.now += after
        values = {"stack": "app", "service": "web", "name": "app-web-1", "slot": 1, **more}
        return await self.write(Event(time=self.now, kind=kind, **values))

    async def read(self, **query):
        found, _ = await self.journal.read(EventQuery(history=True, **query))
        return found


async def of(rig, **query):
    found, _ = await rig.control.journal.read(EventQuery(history=True, **query))
    return found


async def test_what_a_stack_went_through_is_told_after_it_is_gone():
    async with Rig() as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        await rig.control.remove("app", volumes=False, timeout=None)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        kinds = [event.kind for event in await of(rig, stack="app")]
        for kind in ("release.pending", "release.deployed", "stack.removing", "stack.removed"):
            assert kinds.count(kind) == 1
        for kind in ("task.assigned", "task.running", "task.stopping", "task.removed"):
            assert kinds.count(kind) == 2
        order = ["release.pending", "task.assigned", "task.running", "stack.removing"]
        assert sorted(order, key=kinds.index) == order
        assert not {"task.preparing", "task.prepared", "task.starting"} & set(kinds)


async def test_a_controller_that_was_killed_remembers():
    async with Rig() as rig:
        rig.how["web"] = Behaviour(exit_code=3, again=True)
        await rig.up(project(web={"restart": "always"}))
        await rig.until(lambda: any(t.status.restarts > 1 for t in rig.tasks("web")))
        before = await of(rig, stack="app")
        await rig.restart_controller()
        after = await of(rig, stack="app")
        assert after[: len(before)] == before or {e.id for e in before} <= {e.id for e in after}
        ended = [event for event in before if event.kind == "run.ended"]
        assert {(e.exit_code, e.reason, e.name) for e in ended} == {(3, "exit", "app-web-1")}


async def test_an_event_is_written_with_what_it_tells_or_not_at_all():
    async with Rig() as rig:
        real, seen = rig.store.txn, []

        async def txn(compares=(), writes=()):
            seen.append([write.key for write in writes])
            return await real(compares, writes)

        rig.store.txn = txn
        await rig.up(project(web={}))
        await rig.deployed()
        told = [event for event in await of(rig, stack="app") if event.kind == "task.running"]
        place = next(ks for ks in seen if any(told[0].id.startswith(keys.event_id(k)) for k in ks))
        assert any(key.startswith(keys.TASKS) for key in place), "law: one transaction"


async def test_who_asked_stands_with_what_he_asked_for():
    async with Rig() as rig:
        token = ASKED_BY.set("anna@laptop")
        await rig.up(project(web={}))
        ASKED_BY.reset(token)
        await rig.deployed()
        by = {event.kind: event.by for event in await of(rig, stack="app")}
        assert by["release.pending"] == "anna@laptop"
        assert by["task.running"] == "", "law: what follows of it is nobody's own doing"


@pytest.mark.parametrize(
    ("change", "kind", "before", "after"),
    [
        (lambda rig: rig.control.scale("app", {"web": 3}), "service.scaled", "", "3"),
        (lambda rig: rig.control.stop("app", None, ("web",)), "service.stopped", "", ""),
        (lambda rig: rig.control.stop("app", None), "stack.stopped", "", ""),
        (lambda rig: rig.restart("web"), "restart.asked", "", ""),
        (lambda rig: rig.control.pause("app", ("web",), paused=True), "task.paused", "", ""),
    ],
)
async def test_what_is_asked_of_a_service_is_kept(change, kind, before, after):
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        await change(rig)
        await asyncio.sleep(5)
        (event,) = [event for event in await of(rig, stack="app") if event.kind == kind]
        assert (event.before, event.after) == (before, after)
        assert event.reason == "asked"


async def test_a_node_that_falls_silent_and_what_follows_of_it():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web={"deploy": {"replicas": 1}}))
        await rig.deployed()
        task = rig.ready("web")[0]
        await rig.fake_of(task).cut("no route to host")
        await rig.until(lambda: any(t.id != task.id for t in rig.ready("web")))
        found = await of(rig, stack="app")
        name = rig.cluster.nodes[task.node].name
        silent = [e.kind for e in found if e.node == name and e.kind.startswith("node.")]
        assert silent[-2:] == ["node.unknown", "node.down"]
        (made,) = [e for e in found if e.kind == "task.new"]
        assert made.reason == "node-lost"
        assert f"app-web-1 was on {name}, which is down" in made.message


async def test_a_big_service_is_told_in_few_words():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(60)))
        await rig.deployed()
        found = [e for e in await of(rig, stack="app") if e.kind == "task.assigned"]
        assert len(found) < 10
        slots = [slot for e in found for slot in (slots_in(e.slots) or {e.slot})]
        assert sorted(slots) == list(range(1, 61)), "law: each is counted once"
        assert all(e.about_slot(slot) for e in found for slot in slots_in(e.slots))


async def test_a_flapping_thing_is_counted_and_floods_nothing():
    kept = Kept()
    await kept.happens("task.running")
    for _ in range(500):
        await kept.happens("run.ended", exit_code=1, reason="exit", message="ended")
        await kept.happens("run.started", message="again")
    found = await kept.read()
    assert len(found) == 1 + 2 * (journals.SINGLE + 1)
    assert found[-1].kind == "run.started"
    folded = [event for event in found if event.count > 1]
    assert [event.count for event in folded] == [500 - journals.SINGLE] * 2
    assert all(event.last > event.time for event in folded)
    assert len(kept.listener.told) == 1001, "law: who follows hears of each"
    await kept.happens("run.ended", after=journals.WINDOW + 1, exit_code=1, reason="exit")
    assert len(await kept.read()) == len(found) + 1, "law: what stopped begins anew"


async def test_what_ends_in_another_way_is_another_thing():
    kept = Kept()
    for code in (1, 2):
        for _ in range(journals.SINGLE + 5):
            await kept.happens(exit_code=code, reason="exit")
    assert [e.count for e in await kept.read() if e.count > 1] == [5, 5]


async def test_after_a_restart_of_the_controller_it_is_counted_again():
    kept = Kept()
    for _ in range(20):
        await kept.happens()
    kept.begin()
    await kept.journal.load()
    for _ in range(20):
        await kept.happens()
    counts = [event.count for event in await kept.read()]
    assert sum(counts) == 40
    assert len(counts) == 2 * (journals.SINGLE + 1)


@pytest.mark.parametrize("query", [{}, {"stack": "app"}, {"tail": 2}])
async def test_who_asks_before_the_control_loop_runs_has_all_of_it(query):
    """The API answers first: the loop waits until nodes were heard."""
    kept = Kept()
    await kept.happens("stack.removed")
    await kept.happens("node.ready", stack="", service="", name="", slot=0)
    kept.begin()
    assert [event.kind for event in await kept.read(**query)] == ["stack.removed", "node.ready"]
    kept.begin()
    both, _ = await asyncio.gather(kept.journal.stacks(), kept.journal.load())
    assert both == {"app"}


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_oldest_of_a_stack_go_first_and_others_stay(monkeypatch, restarted):
    monkeypatch.setattr(journals, "A_STACK", 50)
    kept = Kept()
    await kept.happens("task.running", stack="quiet", message="still here")
    for number in range(200):
        await kept.happens(f"x.{number}")
        if restarted and number == 100:
            kept.begin()
            await kept.journal.load()
    found = await kept.read(stack="app")
    assert [event.kind for event in found] == [f"x.{n}" for n in range(150, 200)]
    assert [event.message for event in await kept.read(stack="quiet")] == ["still here"]


async def test_all_of_them_together_have_a_limit_in_bytes(monkeypatch):
    monkeypatch.setattr(journals, "BYTES", 20_000)
    kept = Kept()
    for number in range(400):
        await kept.happens(f"x.{number}", stack=f"s{number % 40}", message="m" * 100)
    entries = (await kept.store.list(keys.EVENTS)).entries
    assert sum(len(entry.value) for entry in entries) <= 20_000 + 500
    assert "x.399" in {event.kind for event in await kept.read()}
    assert "x.0" not in {event.kind for event in await kept.read()}


async def test_a_store_that_cannot_be_written_loses_none_that_waits():
    async with Rig(nodes=2) as rig:
        real = rig.store.txn

        async def full(compares=(), writes=()):
            raise StoreUnavailable("no space")

        rig.store.txn = full
        rig.control.note(Event(time=5.0, kind="node.unready", node="host2", message="disk full"))
        await asyncio.sleep(3)
        rig.store.txn = real
        await rig.until(lambda: not rig.control.journal.waits)
        assert [e.message for e in await of(rig) if e.kind == "node.unready"] == ["disk full"]


async def test_history_and_what_comes_join_without_a_gap_or_a_double():
    async with Rig() as rig:
        await rig.up(project(web=replicas(3)))
        told = []

        async def listen():
            query = EventQuery("app", history=True)
            async with contextlib.aclosing(rig.control.events(query)) as events:
                async for event in events:
                    told.append(event)  # noqa: PERF401 - one by one, as they come

        listener = rig.group.create_task(listen())
        await rig.deployed()
        await asyncio.sleep(1)
        listener.cancel()
        for kind in ("release.pending", "release.deployed"):
            assert [e.kind for e in told].count(kind) == 1
        running = sorted(e.name for e in told if e.kind == "task.running")
        assert running == ["app-web-1", "app-web-2", "app-web-3"]


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ({}, "a.x b.y c.z"),
        ({"tail": 2}, "b.y c.z"),
        ({"tail": 0}, ""),
        ({"since": 1002.0}, "b.y c.z"),
        ({"until": 1002.0}, "a.x b.y"),
        ({"since": 1002.0, "until": 1002.5}, "b.y"),
        ({"filters": {"kind": ("b",)}}, "b.y"),
        ({"filters": {"kind": ("b", "c.*")}}, "b.y c.z"),
        ({"filters": {"kind": ("b", "c.z"), "service": ("web",)}}, "b.y c.z"),
        ({"filters": {"service": ("db",)}}, ""),
        ({"filters": {"task": ("app-web-1",)}}, "a.x b.y c.z"),
        ({"filters": {"node": ("host?",)}}, "a.x b.y c.z"),
        ({"filters": {"release": ("4",)}}, ""),
    ],
)
async def test_what_is_asked_for_of_it(query, kinds):
    kept = Kept()
    for kind in ("a.x", "b.y", "c.z"):
        await kept.happens(kind, node="host1")
    assert [event.kind for event in await kept.read(**query)] == kinds.split()


async def test_a_record_that_cannot_be_read_hides_no_other():
    kept = Kept()
    await kept.happens("a.x")
    await kept.store.txn((), (Put(keys.event("app", 1, 1), b"\0\0"),))
    later = EventBatch(events=(Event(time=1.0, kind="b.y", stack="app"),)).encode()
    newer = later.replace(b'"kind"', b'"of_later":1,"kind"')
    await kept.store.txn((), (Put(keys.event("app", 2, 1), newer),))
    assert [event.kind for event in await kept.read()] == ["b.y", "a.x"]


async def test_a_transaction_without_room_is_not_made_too_large():
    kept = Kept()
    events = [Event(time=1.0, kind="x.y", stack=f"s{n}", slot=1) for n in range(50)]
    told = kept.journal.record((), {}, events, room=5)
    assert len(told.writes) <= 5
    assert all(isinstance(write, Put | Delete) for write in told.writes)


@given(st.lists(st.integers(1, 300), max_size=60))
def test_slots_as_people_write_them(slots):
    assert slots_in(spans(slots)) == set(slots)


@given(st.text(max_size=30))
def test_any_text_is_some_slots_or_none(text):
    assert all(isinstance(slot, int) for slot in slots_in(text[:6]))


@given(st.integers(0, 2**50), st.integers(1, 500), st.sampled_from(["", "app", "a-b_1"]))
def test_a_key_says_when_and_how_many(micros, count, stack):
    key = keys.event(stack, micros, count)
    assert keys.event_parts(key) == (stack, micros, count)
    assert key.startswith(keys.events(stack))


def test_no_filter_asks_for_everything():
    assert matches(Event(time=0.0, kind="x"), {})


ROOT = Path(__file__).parents[3]
A_KIND = re.compile(
    r"(cluster|endpoint|health|image|node|release|restart|rollout|run|schedule|service|stack"
    r"|task|volume)\.[a-z-]+"
)


def test_the_page_has_every_kind():
    kinds = {
        *(f"release.{state.value}" for state in ReleaseState),
        *(f"task.{state.value}" for state in FINAL),
        *(f"schedule.{outcome}" for outcome in get_args(Outcome) if outcome),
    }
    for path in (ROOT / "orchestrator/control").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Constant) and A_KIND.fullmatch(str(node.value)):
                kinds.add(node.value)
    assert len(kinds) > 60
    page = (ROOT / "docs/events.md").read_text()
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in page] == []
