"""Who waits for a release is told that all runs and is only watched for a while."""

from __future__ import annotations

import contextlib

import pytest

from tests.orchestrator.control.builders import CHECK, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

TOLD = "all of it runs; watched for 5 s before that counts"
NEXT = "{} of {} replaced; the next follow when these have run for 5 s"


async def messages(rig):
    """Return what the service's lines said, one after the other, while the release lasted."""
    said = []
    async with contextlib.aclosing(rig.control.progress("app", None)) as lines:
        async for line in lines:
            if line.kind == "service" and line.service == "web" and line.message not in said[-1:]:
                said.append(line.message)
            if line.kind == "end":
                return said, line.ok
    raise AssertionError("no end")


LONG = {"update": {"monitor": "20s"}}
CASES = {
    # first, then -> told, ends well
    "a first release": (None, replicas(2), [""], True),
    "an update": (
        replicas(2),
        replicas(2, image="web:2"),
        ["", NEXT.format(1, 2), "", TOLD, ""],
        True,
    ),
    "an update of three, two at a time": (
        replicas(3),
        replicas(3, image="web:2", update={"parallelism": 2}),
        ["", NEXT.format(2, 3), "", TOLD, ""],
        True,
    ),
    "an update of two with a check": (
        replicas(2, **CHECK),
        replicas(2, **CHECK, image="web:2"),
        ["", TOLD, ""],
        True,
    ),
    "nothing changes": (replicas(2), replicas(2), [""], True),
    "more copies": (replicas(1), replicas(2), [""], True),
    "a longer time": (
        replicas(1, **LONG),
        replicas(1, image="web:2", **LONG),
        ["", TOLD.replace("5 s", "20 s"), ""],
        True,
    ),
    "no time": (
        replicas(1, update={"monitor": "0s"}),
        replicas(1, image="web:2", update={"monitor": "0s"}),
        [""],
        True,
    ),
    "a first start with a crash": (None, {"image": "crashes", "restart": "always"}, None, True),
    "an update that fails while watched": (
        {"restart": "always"},
        {"image": "late", "restart": "always"},
        ["", TOLD, ""],
        False,
    ),
    "an update with a check": ({**CHECK}, {**CHECK, "image": "web:2"}, ["", TOLD, ""], True),
}


@pytest.mark.parametrize("case", CASES)
async def test_that_only_time_is_missing_is_said(case):
    before, after, told, good = CASES[case]
    async with Rig() as rig:
        rig.how["crashes"] = Behaviour(exit_code=1, crashes=1)
        rig.how["late"] = Behaviour(exit_code=4, runs_for=3.0, again=True)
        if before is not None:
            await rig.up(project(web=before))
            await rig.deployed()
        await rig.up(project(web=after))
        said, ok = await messages(rig)
        assert ok == good
        if told is None:
            assert TOLD in said
        else:
            assert said == told
        assert said[-1] == "", "law: what is over is not watched any more"


async def _stop(rig):
    await rig.control.stop("app", 0)


async def _stop_web(rig):
    await rig.control.stop("app", 0, ("web",))


async def _none(rig):
    await rig.up(project(web={**ONCE, **replicas(0)}, other={}))
    await rig.deployed()


async def _end(rig):
    (task,) = rig.live("web")
    rig.fake_of(task).end(task.id, 3)
    await rig.until(lambda: not rig.live("web"))


async def _nothing(rig):
    pass


ONCE = {"restart": "no"}
OTHER = {**ONCE, "image": "web:2"}
# what happened before the `up`, what it brings, with which flags -> whether web is updated by it
UPDATES = {
    "unchanged": (_nothing, ONCE, {}, False),
    "changed": (_nothing, OTHER, {}, True),
    "recreated": (_nothing, ONCE, {"force_recreate": True}, True),
    "only another service is named": (_nothing, OTHER, {"services": ("other",)}, False),
    "stopped, unchanged": (_stop, ONCE, {}, False),
    "stopped, changed": (_stop, OTHER, {}, False),
    "stopped, recreated": (_stop, ONCE, {"force_recreate": True}, False),
    "it alone was stopped": (_stop_web, ONCE, {}, False),
    "it alone was stopped, changed": (_stop_web, OTHER, {}, False),
    "there was none, changed": (_none, OTHER, {}, False),
    "ended, unchanged": (_end, ONCE, {}, False),
    "ended, changed": (_end, OTHER, {}, True),
}


@pytest.mark.parametrize("good", [True, False], ids=["works", "fails"])
@pytest.mark.parametrize("case", UPDATES)
async def test_updated_is_what_had_tasks_that_are_replaced(case, good):
    before, after, flags, updated = UPDATES[case]
    async with Rig() as rig:
        await rig.up(project(web=ONCE, other={}))
        await rig.deployed()
        await before(rig)
        if not good:
            rig.how["web"] = rig.how["web:2"] = Behaviour(exit_code=4, runs_for=0.1)
        await rig.up(project(web=after, other={}), **flags)
        said, ok = await messages(rig)
        # What runs on, or is not asked for, cannot fail it.
        assert ok == (good or case in ("unchanged", "only another service is named"))
        assert ("web" in rig.release().updates) == updated
        assert (TOLD in said) == updated or not good, "only what is updated is watched"
        reason = rig.release().reason
        assert ("update of web failed" in reason) == (updated and not good), reason


HOST_1, HOST_2 = (
    {**ONCE, "deploy": {"placement": {"constraints": [f"node.name == host{n}"]}}} for n in (1, 2)
)


@pytest.mark.parametrize("good", [True, False], ids=["works", "fails"])
async def test_what_moves_for_other_constraints_is_updated(good):
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=HOST_1))
        await rig.deployed()
        if not good:
            rig.how["web"] = Behaviour(exit_code=4, runs_for=3.0)
        await rig.up(project(web=HOST_2))
        said, ok = await messages(rig)
        assert ok == good
        assert rig.release().updates == ("web",)
        assert TOLD in said
        assert good or "exited with code 4" in rig.release().reason


DIES = Behaviour(exit_code=4, runs_for=2.0)
UPDATED = {
    # the update of three replicas, how the new ones turn out -> replaced at most, seconds it takes
    "dies after two seconds": ({}, DIES, 1, (2, 3)),
    "two at a time": ({"parallelism": 2}, DIES, 2, (2, 3)),
    "all at once": ({"parallelism": 0}, DIES, 3, (2, 3)),
    "start-first": ({"order": "start-first"}, DIES, 1, (2, 3)),
    "start-first runs": ({"order": "start-first"}, Behaviour(), 3, (15, 16)),
    "not watched": ({"monitor": "0s"}, DIES, 3, (1, 2)),
    "runs": ({}, Behaviour(), 3, (15, 16)),
    "runs, two at a time": ({"parallelism": 2}, Behaviour(), 3, (10, 11)),
    "has a check": (CHECK, Behaviour(), 3, (5, 6)),
}


@pytest.mark.parametrize("case", UPDATED)
async def test_a_bad_image_spoils_one_batch(case):
    update, how, most, (earliest, latest) = UPDATED[case]
    more = {"restart": "no"} if update is not CHECK else CHECK
    update = {} if update is CHECK else update
    async with Rig() as rig:
        await rig.up(project(web=replicas(3, update=update, **more)))
        await rig.deployed()
        rig.how["web:2"] = how
        began = rig.clock.monotonic()
        await rig.up(project(web=replicas(3, update=update, image="web:2", **more)))
        end = await rig.end_of()
        assert earliest <= rig.clock.monotonic() - began <= latest
        bad = how is DIES and case != "not watched"
        assert end.ok != bad
        assert len({t.slot for t in rig.tasks("web") if t.release == 2}) == most
        # With start-first the old one serves until the new one has shown that it stays.
        lost = most if bad and case != "start-first" else 0
        assert len(rig.ready("web")) == 3 - lost


async def test_an_update_that_goes_on_comes_to_all_and_fails_in_the_end():
    update = {"failure_action": "continue", "order": "start-first", "monitor": "1s"}
    async with Rig() as rig:
        await rig.up(project(web=replicas(3, update=update, restart="no")))
        await rig.deployed()
        rig.how["web:2"] = Behaviour(reject="bind source /nope does not exist")
        began = rig.clock.monotonic()
        await rig.up(project(web=replicas(3, update=update, image="web:2", restart="no")))
        end = await rig.end_of()
        assert not end.ok
        assert "bind source /nope does not exist" in end.message
        made = [t.created_at for t in rig.tasks("web") if t.release == 2]
        assert len({t.slot for t in rig.tasks("web") if t.release == 2}) == 3, "it came to all"
        assert len(made) <= 6, "law: not without a pause"
        assert rig.clock.monotonic() - began < 10
        assert len(rig.ready("web")) == 3, "start-first: the old ones serve on"
