"""Scale: at once whatever became of the last release, and told by the next `up`."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.errors import Invalid
from orchestrator.store import keys
from orchestrator.store.base import Put
from specs import bounds
from tests.orchestrator.control.builders import CHECK, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize(
    ("bad", "before", "count"),
    [
        (Behaviour(reject="bad mount"), 3, 4),
        (Behaviour(reject="bad mount"), 1, 2),
        (Behaviour(exit_code=1, runs_for=0.0), 3, 4),
        (Behaviour(exit_code=1, runs_for=0.0), 1, 2),
        (Behaviour(exit_code=1, runs_for=0.0), 3, 5),
        (Behaviour(reject="bad mount"), 3, 1),
    ],
)
async def test_after_a_paused_update_it_acts_at_once(bad, before, count):
    async with Rig() as rig:
        service = {"restart": "no"}
        await rig.up(project(web=replicas(before, **service)))
        await rig.deployed()
        rig.how["web:2"] = bad
        await rig.up(project(web=replicas(before, image="web:2", **service)))
        assert (await rig.end_of()).state == "failed"
        began = rig.clock.monotonic()
        await rig.control.scale("app", {"web": count})
        await rig.until(
            lambda: len(rig.ready("web")) == count and len(rig.live("web")) == count, within=20
        )
        assert rig.clock.monotonic() - began < 5
        await asyncio.sleep(60)
        assert {t.release for t in rig.ready("web")} == {1}
        assert len(rig.ready("web")) == count


ROLLBACK = {"failure_action": "rollback"}
LOOP = Behaviour(exit_code=4, again=True)
FLAPS = Behaviour(exit_code=4, runs_for=0.3, again=True)
ALWAYS = {"restart": "always"}
NOWHERE = {"deploy": {"placement": {"constraints": ["node.labels.disk == gold"]}}}


async def deployed(rig, count, **service):
    await rig.up(project(web=replicas(count, **service)))
    await rig.deployed()


async def paused(rig, count, bad):
    """An update that failed: one slot is taken by what it brought."""
    await deployed(rig, count, **ALWAYS)
    rig.how["web:2"] = bad
    await rig.up(project(web=replicas(count, image="web:2", **ALWAYS)))
    assert (await rig.end_of()).state == "failed"


async def rolled_back(rig, count):
    await deployed(rig, count, **ALWAYS)
    rig.how["web:2"] = Behaviour(reject="bad mount")
    await rig.up(project(web=replicas(count, image="web:2", update=ROLLBACK, **ALWAYS)))
    assert (await rig.end_of()).state == "rolled_back"


async def updating(rig, count):
    await deployed(rig, count, **ALWAYS)
    rig.how["web:2"] = Behaviour(prepare=300.0)
    await rig.up(project(web=replicas(count, image="web:2", **ALWAYS)))
    await asyncio.sleep(2)
    assert rig.release().state == "deploying"


async def crashing_later(rig, count):
    """It came to stay, and crashes since."""
    rig.how["web"] = Behaviour(exit_code=4, runs_for=3.0, again=True)
    await deployed(rig, count, **ALWAYS)
    await asyncio.sleep(30)


async def never_deployed(rig, count):
    rig.how["web"] = LOOP
    await rig.up(project(web=replicas(count, **ALWAYS)))
    assert not (await rig.end_of(within=200)).ok


async def never_placed(rig, count):
    service = {"deploy": {**replicas(count)["deploy"], **NOWHERE["deploy"]}}
    await rig.up(project(web=service), deadline=20)
    assert not (await rig.end_of()).ok


BEFORE = {
    "paused, a crash loop": lambda rig, n: paused(rig, n, LOOP),
    "paused, one that flaps": lambda rig, n: paused(rig, n, FLAPS),
    "paused, rejected": lambda rig, n: paused(rig, n, Behaviour(reject="bad mount")),
    "rolled back": rolled_back,
    "updating": updating,
    "crashing since": crashing_later,
    "never deployed": never_deployed,
    "never placed": never_placed,
}
SERVED = ("paused, a crash loop", "paused, one that flaps", "paused, rejected", "rolled back")


@pytest.mark.parametrize(("had", "count"), [(1, 2), (3, 5), (3, 1), (2, 2), (2, 0)])
@pytest.mark.parametrize("before", BEFORE)
async def test_whatever_the_stack_is_in_the_number_changes_at_once(before, had, count):
    async with Rig() as rig:
        await BEFORE[before](rig, had)
        began = rig.clock.monotonic()
        await rig.control.scale("app", {"web": count})
        await rig.until(lambda: {t.slot for t in rig.live("web")} == set(range(1, count + 1)))
        assert rig.clock.monotonic() - began < 3, "law: the number changes at once"
        if before in SERVED:
            await rig.until(lambda: len(rig.ready("web")) == count)
            assert rig.clock.monotonic() - began < 8
            assert {t.release for t in rig.ready("web")} <= {1}, "in the spec that serves"
        await asyncio.sleep(60)
        slots = [t.slot for t in rig.live("web")]
        assert set(slots) == set(range(1, count + 1))
        if before in SERVED:
            assert len(rig.ready("web")) == len(slots) == count


@pytest.mark.parametrize(
    ("before", "count", "told"),
    [
        ("paused, a crash loop", 3, True),
        ("paused, rejected", 1, True),
        ("paused, a crash loop", 0, False),
        ("rolled back", 3, False),
        ("never deployed", 3, False),
        ("updating", 3, False),
    ],
)
async def test_a_paused_update_is_named_where_its_service_is_scaled(before, count, told):
    async with Rig() as rig:
        await BEFORE[before](rig, 2)
        rows = (await rig.control.scale("app", {"web": count})).warnings
        text = "web is scaled as release 1 has it: release 2 failed, its update is paused"
        assert [row.message for row in rows] == [text] * told


async def test_what_an_update_brought_and_serves_is_kept():
    """One slot of three was updated well, the next one failed."""
    async with Rig() as rig:
        await deployed(rig, 3, **ALWAYS)
        update = {"parallelism": 1, "monitor": "5s"}
        await rig.up(project(web=replicas(3, image="web:2", update=update, **ALWAYS)))
        await rig.until(lambda: [t.release for t in rig.ready("web")].count(2) == 1)
        rig.how["web:2"] = LOOP
        assert (await rig.end_of()).state == "failed"
        await asyncio.sleep(6)
        await rig.control.scale("app", {"web": 4})
        await rig.until(lambda: len(rig.ready("web")) == 4)
        assert sorted(t.release for t in rig.ready("web")) == [1, 1, 1, 2]


async def test_copies_of_a_service_that_was_never_let_start_wait_with_it():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(exit_code=3)
        waits = {"depends_on": {"db": {"condition": "service_healthy"}}}
        await rig.up(project(db={"restart": "no", **CHECK}, web=waits))
        assert not (await rig.end_of()).ok
        await rig.control.scale("app", {"web": 2})
        await rig.until(lambda: len(rig.live("web")) == 2)
        await asyncio.sleep(60)
        assert [t.state.value for t in rig.live("web")] == ["prepared"] * 2
        assert "web-2 starting" not in " ".join(rig.history)


@pytest.mark.parametrize(("count", "runs", "code"), [(1, 1, 3), (2, 2, 3), (0, 0, 3), (1, 0, 0)])
async def test_a_number_asks_for_what_has_ended_but_not_for_what_completed(count, runs, code):
    async with Rig() as rig:
        await deployed(rig, 1, restart="no")
        rig.how.clear()
        (task,) = rig.live("web")
        rig.fake_of(task).end(task.id, code)
        await rig.until(lambda: not rig.live("web"))
        await rig.control.scale("app", {"web": count})
        await asyncio.sleep(30)
        assert len(rig.ready("web")) == runs


WEB = {"depends_on": {"db": {"condition": "service_healthy"}}}
DOWN = {
    # what is stopped, the numbers -> what runs then
    "the stack": ((), {"web": 3}, {"db": 1, "web": 3}),
    "the stack, as many as before": ((), {"web": 1}, {"db": 1, "web": 1}),
    "the stack, none": ((), {"web": 0}, {}),
    "the stack, two": ((), {"web": 2, "other": 2}, {"db": 1, "web": 2, "other": 2}),
    "the stack, one of them none": ((), {"web": 2, "other": 0}, {"db": 1, "web": 2}),
    "the stack, who depends on nobody": ((), {"other": 2}, {"other": 2}),
    "the service": (("web",), {"web": 2}, {"db": 1, "web": 2, "other": 1}),
    "the service and its dependency": (("db", "web"), {"web": 2}, {"db": 1, "web": 2, "other": 1}),
    "the service, none": (("web",), {"web": 0}, {"db": 1, "other": 1}),
    "another one": (("other",), {"web": 2}, {"db": 1, "web": 2}),
}


@pytest.mark.parametrize("case", DOWN)
async def test_a_number_starts_what_is_stopped_after_what_it_depends_on(case):
    stopped, numbers, runs = DOWN[case]
    async with Rig() as rig:
        rig.how["db"] = Behaviour(healthy=1.0)
        await rig.up(project(db=CHECK, web=WEB, other={}))
        await rig.deployed()
        await rig.control.stop("app", 0.0, stopped)
        down = stopped or ("db", "web", "other")
        await rig.until(lambda: not any(rig.live(name) for name in down))
        rig.history.clear()
        done = await rig.control.scale("app", numbers)
        starts = any(count and name in down for name, count in numbers.items())
        assert done.started == (2 if starts else None)
        if starts:
            await rig.deployed()
        await asyncio.sleep(30)
        found = {name: len(rig.ready(name)) for name in ("db", "web", "other")}
        assert {name: count for name, count in found.items() if count} == runs
        if "db" in down and runs.get("web"):
            at = rig.history.index
            assert at("app-db-1 running") < at("app-web-1 starting"), "gates hold for its start"
        if not starts and stopped == ():
            await rig.up(project(db=CHECK, web=WEB, other={}))
            await rig.deployed()
            assert not rig.ready("web"), "the number is kept for the next start"


@pytest.mark.parametrize(
    ("scaled", "told"),
    [
        (0, "web keeps the 0 replicas it was scaled to; the file says 2"),
        (1, "web keeps the 1 replica it was scaled to; the file says 2"),
        (5, "web keeps the 5 replicas it was scaled to; the file says 2"),
        (2, ""),
    ],
)
async def test_the_next_up_says_that_a_number_stays(scaled, told):
    async with Rig() as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        await rig.control.scale("app", {"web": scaled})
        row = await rig.control.deploy("app", rig.request(project(web=replicas(2))))
        assert [w.message for w in row.warnings] == [told] * bool(told)
        await rig.deployed()
        await rig.until(lambda: len(rig.live("web")) == scaled)
        # The file's own number, changed, and a number given now need no words.
        asked = rig.request(project(web=replicas(2)), scale={"web": 3})
        assert not (await rig.control.deploy("app", asked)).warnings
        changed = rig.request(project(web=replicas(4)))
        assert not (await rig.control.deploy("app", changed)).warnings
        await rig.deployed()
        assert len(rig.live("web")) == 4


DATA = {"volumes": {"data": {"name": "app_data"}}}
OWN = {"volumes": {"data": {"name": "app_data", "x-corral": {"per_slot": True}}}}
USES = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
READS = {"volumes": [{"type": "volume", "source": "data", "target": "/data", "read_only": True}]}
SHARES = "the 3 copies of db share the volume app_data, on one node"


@pytest.mark.parametrize(
    ("service", "top", "told"),
    [
        (USES, DATA, SHARES),
        (READS, DATA, ""),
        (USES, OWN, ""),
        ({}, DATA, ""),
        ({**USES, "deploy": {"replicas": 2}}, DATA, ""),
        ({**USES, "deploy": {"replicas": 0}}, DATA, SHARES),
    ],
    ids=["shared", "only read", "one each", "none", "shared already", "from none"],
)
@pytest.mark.parametrize("by", ["scale", "up --scale"])
async def test_copies_that_come_to_share_a_volume_are_warned_of_once(service, top, told, by):
    async def say(count):
        if by == "scale":
            rows = (await rig.control.scale("app", {"db": count})).warnings
        else:
            asked = rig.request(project(db=service, top=top), scale={"db": count})
            rows = (await rig.control.deploy("app", asked)).warnings
        return [row.message for row in rows if row.code == "shared-volume"]

    async with Rig() as rig:
        await rig.up(project(db=service, top=top))
        await rig.deployed()
        assert await say(3) == [told] * bool(told)
        assert await say(4) == [], "once"
        assert await say(1) == []


async def test_every_node_hears_which_slots_there_are():
    """What the last task of one leaves is kept there until it is not to have one any more."""
    async with Rig() as rig:
        node = next(iter(rig.nodes))

        def slots():
            told = rig.control.wanted(node)[1].slots.get("app")
            return None if told is None else told.services

        every = {"deploy": {"mode": "global"}}
        await rig.up(project(web=replicas(2), every=every, api=replicas(1)))
        await rig.deployed()
        assert slots() == {"web": 2, "every": -1, "api": 1}
        await rig.control.scale("app", {"web": 1})
        assert slots() == {"web": 1, "every": -1, "api": 1}
        await rig.control.stop("app", timeout=0)
        assert slots() == {"web": 1, "every": -1, "api": 1}
        await rig.control.remove("app", volumes=False, timeout=0)
        assert slots() is None


# The bound holds for the whole stack, whoever asks: with services as they are (file, scaled to),
# what is asked for, and whether it is taken.
WHOLE = {
    "all in the file": ({"a": 2000, "b": 1000}, {}, {}, True),
    "one more by scale": ({"a": 2000, "b": 0}, {}, {"b": 1001}, False),
    "exactly": ({"a": 2000, "b": 0}, {}, {"b": 1000}, True),
    "both at once": ({"a": 0, "b": 0}, {}, {"a": 1500, "b": 1501}, False),
    "one down, one up": ({"a": 3000, "b": 0}, {}, {"a": 0, "b": 3000}, True),
    "with what was scaled before": ({"a": 0, "b": 0}, {"a": 2500}, {"b": 501}, False),
    "scaled down makes room": ({"a": 3000, "b": 0}, {"a": 0}, {"b": 3000}, True),
    "one alone": ({"a": 0, "b": 0}, {}, {"a": 3001}, False),
    "far too much": ({"a": 0, "b": 0}, {}, {"a": 10**12}, False),
}


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("way", ["scale", "up --scale"])
async def test_the_bound_is_the_whole_stacks_whoever_asks(case, way):
    counts, scaled, asked, taken = WHOLE[case]
    files = project(**{name: replicas(count) for name, count in counts.items()})
    async with Rig(nodes=0) as rig:
        await rig.up(files)
        if scaled:
            await rig.control.scale("app", scaled)
        try:
            if way == "scale":
                await rig.control.scale("app", asked)
            else:
                await rig.up(files, scale=asked)
        except Invalid as refused:
            (problem,) = refused.problems
            assert "a stack can have 3000" in problem.message
            assert problem.hint
            assert not taken
        else:
            assert taken


async def test_what_an_earlier_version_took_can_be_scaled_down():
    async with Rig(nodes=0) as rig:
        await rig.up(project(a=replicas(0), b=replicas(0)))
        stack = rig.cluster.stacks["app"].with_overrides({"a": 4000, "b": 2000})
        await rig.store.txn((), (Put(keys.stack("app"), stack.encode()),))
        await rig.until(lambda: rig.cluster.stacks["app"] == stack)
        await rig.control.scale("app", {"a": 3900})
        with pytest.raises(Invalid, match="5901 replicas"):
            await rig.control.scale("app", {"a": 3901})


async def test_orphans_count_and_the_refusal_says_how_they_go(monkeypatch):
    monkeypatch.setattr(bounds, "MOST_TASKS", 3)
    async with Rig() as rig:
        await rig.up(project(a=replicas(2)))
        await rig.deployed()
        with pytest.raises(Invalid) as refused:
            await rig.up(project(b=replicas(2)))
        (problem,) = [p for p in refused.value.problems if p.severity == "error"]
        assert "4 replicas (a 2, b 2): a stack can have 3" in problem.message
        assert "--remove-orphans" in problem.hint
        await rig.up(project(b=replicas(2)), remove_orphans=True)


@pytest.mark.parametrize(
    ("service", "place"),
    [
        ({"environment": {f"V{n}": "x" * 100_000 for n in range(12)}}, "services.web.environment"),
        ({"labels": {f"l{n}": "x" * 100_000 for n in range(12)}}, "services.web.labels"),
        ({"command": ["x" * 100_000] * 12}, "services.web.command"),
        ({"environment": {"A": "x" * 100_000}, "command": ["x" * 100_000] * 8}, ""),
    ],
)
async def test_what_the_store_does_not_take_is_refused_where_most_of_it_is(service, place):
    async with Rig() as rig:
        files = project(web={"image": "web", **service}, other={"image": "other"})
        if not place:
            await rig.up(files)
            await rig.deployed()
            return
        with pytest.raises(Invalid) as refused:
            await rig.up(files)
        (problem,) = refused.value.problems
        assert problem.path == place
        assert "a stack can have 1 MiB of texts, this one has 1.1 MiB" in problem.message
        assert "configs:" in problem.hint


@pytest.mark.parametrize("whole", [True, False], ids=["all of it was gone", "a node is away"])
async def test_down_forgets_what_scale_set(whole):
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        await rig.control.scale("app", {"web": 4})
        await rig.until(lambda: len(rig.ready("web")) == 4)
        if not whole:
            await rig.nodes["n2"].cut("no route to host")
        await rig.control.remove("app", volumes=False, timeout=None)
        await rig.until(lambda: "app" not in rig.cluster.stacks) if whole else None
        await rig.up(project(web=replicas(2)))
        await rig.until(
            lambda: len(rig.ready("web")) == 2 and len(rig.live("web")) == 2, within=120
        )
