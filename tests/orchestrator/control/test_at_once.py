"""Two commands in the same moment: who asked for the same gets it, anybody else is told.

Compose is idempotent: two `up -d` of one file both end well. Here the later one's release has
all of the earlier's, so the earlier one follows it and ends as it does.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.orchestrator.control.builders import after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

SHOP = {"web": after("service_started", "db"), "db": {}}


def up(services=SHOP, *names, **more):
    """Return what an `up` asks for."""
    return lambda rig: rig.up(project(**services), services=names, **more)


def stop(*names):
    return lambda rig: rig.control.stop("app", 0, names)


def down(rig):
    return rig.control.remove("app", volumes=False, timeout=0)


def start(*names):
    return lambda rig: rig.start(*names)


def restart(*names):
    return lambda rig: rig.restart(*names)


def scale(**counts):
    return lambda rig: rig.control.scale("app", counts)


OTHER = {**SHOP, "web": {**SHOP["web"], "image": "web:2"}}
MORE = {**SHOP, "cache": {}}
BUILT = {"web": {"build": {"context": "/src"}}}
SAME, TOOK = "", "release 2 took its place"
CASES = {
    # `up`, then at once -> how the first ends: well, or why not
    "the same": (up(), [up()], SAME),
    "three times": (up(), [up(), up()], SAME),
    "the same, forced": (up(), [up(force_recreate=True)], SAME),
    "forced, then the same": (up(force_recreate=True), [up()], SAME),
    "the same and more": (up(), [up(MORE)], SAME),
    "another image": (up(), [up(OTHER)], TOOK),
    "another image, then the same again": (up(), [up(OTHER), up()], TOOK),
    "more copies in the file": (up(), [up({**SHOP, "db": replicas(2)})], TOOK),
    "a service less": (up(MORE), [up()], TOOK),
    "one of its services": (up(), [up(SHOP, "db")], SAME),
    "another image of one": (up(), [up({**SHOP, "db": {"image": "db:2"}}, "db")], TOOK),
    "a service, then all": (up(SHOP, "db"), [up()], SAME),
    "the same service": (up(SHOP, "db"), [up(SHOP, "db")], SAME),
    "a service, then another": (up(SHOP, "db"), [up({**SHOP, "cache": {}}, "cache")], SAME),
    "a service, then two others": (
        up(SHOP, "db"),
        [up({**MORE, "more": {}}, "cache"), up({**MORE, "more": {}}, "more")],
        SAME,
    ),
    "a service, another, the first removed": (up(SHOP, "db"), [up(MORE, "cache"), down], "removed"),
    "a service, another, the first changed": (
        up(SHOP, "db"),
        [up(MORE, "cache"), up({"db": {"image": "db:2"}}, "db")],
        TOOK,
    ),
    "another network": (
        up(),
        [up({**SHOP, "top": {"networks": {"default": {"name": "x", "internal": True}}}})],
        TOOK,
    ),
    "orphans are to go, then not": (up(remove_orphans=True), [up()], TOOK),
    "orphans are to go, both": (up(remove_orphans=True), [up(remove_orphans=True)], SAME),
    "pulled always, then not": (up(pull="always"), [up()], TOOK),
    "pulled, both": (up(pull="always"), [up(pull="always")], SAME),
    "start": (up(), [start()], SAME),
    "restart": (up(), [restart()], SAME),
    "scale": (up(), [scale(web=3)], SAME),
    "scale, twice": (up(), [scale(web=3), scale(web=3)], SAME),
    "stop": (up(), [stop()], "stopped"),
    "stop of a service": (up(), [stop("web")], "web was stopped"),
    "down": (up(), [down], "removed"),
}


async def ends(rig, number):
    """Return how the stream of one release ends."""
    async with contextlib.aclosing(rig.control.progress("app", number)) as lines:
        async for line in lines:
            if line.kind == "end":
                return line
    raise AssertionError("no end")


@pytest.mark.parametrize("begun", [False, True], ids=["images come", "containers start"])
@pytest.mark.parametrize("case", CASES)
async def test_an_up_and_what_comes_beside_it(case, begun):
    first, then, why = CASES[case]
    async with Rig() as rig:
        rig.agents.delay = 0.5
        rig.how["db"] = rig.how["web"] = Behaviour(prepare=1.0)
        number = await first(rig)
        waiting = rig.group.create_task(ends(rig, number))
        await asyncio.sleep(1.5 if begun else 0.1)
        for one in then:
            await one(rig)
            await asyncio.sleep(0.1)
        end = await waiting
        kept = begun and case == "pulled always, then not"  # what was asked for is done
        assert end.ok == (why == SAME or kept), end.message
        if not end.ok:
            assert end.state == "superseded"
            assert why in end.message
            assert end.by == (2 if why == TOOK else 0)
        if why == SAME:
            assert rig.ready("db")
            assert all(t.release == 1 for t in rig.live("db")) or "force" in case or not begun, (
                "law: the same again replaces nothing"
            )
            await asyncio.sleep(10)
            alone = case == "the same service" or (
                case.startswith("a service, then ") and ("another" in case or "others" in case)
            )
            assert len(rig.live("web")) == (3 if "scale" in case else 0 if alone else 1)


@pytest.mark.parametrize("count", [2, 3])
async def test_who_follows_ends_as_the_other_does(count):
    async with Rig() as rig:
        rig.how["web"] = Behaviour(exit_code=4, runs_for=0.5)
        numbers = [await rig.up(project(web={})) for _ in range(count)]
        found = [await ends(rig, number) for number in numbers]
        assert {(end.ok, end.state, end.exit_code) for end in found} == {(False, "failed", 4)}
        assert len({end.message for end in found}) == 1


async def test_that_another_release_is_followed_is_said():
    async with Rig() as rig:
        first = await rig.up(project(web={}))
        await rig.up(project(web={}))
        async with contextlib.aclosing(rig.control.progress("app", first)) as lines:
            said = [line async for line in lines]
        told = [line.message for line in said if line.kind == "release"]
        assert "release 2, made while this one was under way, asks for the same" in "".join(told)
        assert said[-1].ok


async def test_an_up_beside_a_down_has_the_last_word():
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        rig.how["web"] = Behaviour(stop=2.0)
        await down(rig)
        number = await rig.up(project(web={}))
        assert (await ends(rig, number)).ok
        assert rig.ready("web")


@pytest.mark.parametrize("reject", [False, True], ids=["it exits", "it cannot be made"])
@pytest.mark.parametrize("beside", ["db", "cache"])
async def test_two_who_ask_for_different_services_are_judged_each_by_his_own(beside, reject):
    """Law: what one asks for beside another neither fails him nor makes him wait."""
    services = {"web": {"restart": "no"}, "db": {}, "cache": {}}
    async with Rig() as rig:
        rig.agents.delay = 0.2
        bad = Behaviour(prepare=1.0, reject="no such program") if reject else None
        rig.how["web"] = bad or Behaviour(prepare=1.0, exit_code=4)
        first = await rig.up(project(**services), services=("web",))
        waiting = rig.group.create_task(ends(rig, first))
        second = await rig.up(project(**services), services=(beside,))
        assert second == first + 1
        assert (await ends(rig, second)).ok
        end = await waiting
        assert (end.ok, end.state, end.service) == (False, "failed", "web")
        assert ("no such program" in end.message) if reject else end.exit_code == 4


async def test_that_it_goes_on_beside_another_release_is_said_and_no_large_image_holds_it_up():
    services = {"web": {}, "db": {}}
    async with Rig() as rig:
        rig.agents.delay = 2.0
        first = await rig.up(project(**services), services=("web",))
        async with contextlib.aclosing(rig.control.progress("app", first)) as lines:
            waiting = rig.group.create_task(_all(lines))
            await rig.up(project(**services), services=("db",))
            said = await waiting
        told = "".join(line.message for line in said if line.kind == "release")
        assert "release 2, made while this one was under way, is about something else" in told
        assert said[-1].ok
        rig.agents.delay = 100.0
        slow = await rig.up(project(web={"image": "web:2"}, db={}), services=("web",))
        began = rig.clock.monotonic()
        await rig.up(project(**services), services=("db",))
        assert 9 <= rig.clock.monotonic() - began <= 11
        end = await ends(rig, slow)
        assert (end.ok, end.state) == (False, "superseded")


async def _all(lines):
    return [line async for line in lines]


@pytest.mark.parametrize(("images", "store"), [(0.0, 0.0), (2.0, 0.0), (0.0, 0.3), (2.0, 0.3)])
async def test_three_at_once_for_three_services_all_run(images, store):
    """Law: who waits for a release to begin waits for the one before him, whoever else waits."""
    names = ("web", "db", "cache")
    services = project(**{name: {} for name in names})
    async with Rig() as rig:
        rig.agents.delay = images
        write = rig.store.txn

        async def late(*args):
            await asyncio.sleep(store)
            return await write(*args)

        rig.store.txn = late
        numbers = await asyncio.gather(*[rig.up(services, services=(name,)) for name in names])
        assert sorted(numbers) == [1, 2, 3]
        found = await asyncio.gather(*[ends(rig, number) for number in numbers])
        assert [(end.ok, end.message) for end in found if not end.ok] == []
        assert {name for name in names if rig.ready(name)} == {*names}
