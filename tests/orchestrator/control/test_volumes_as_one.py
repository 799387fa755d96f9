"""Volumes that move as one: a service with two of them goes, or nothing does."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.control.mirror.records import KeptCopy
from orchestrator.errors import Conflict, Invalid, NotFound, Unavailable
from tests.orchestrator.control.moving_rig import MORE, NAME, ask, at, begun, ended, row

pytestmark = pytest.mark.looptime

TWO = (NAME, MORE)


async def test_both_go_with_what_has_them_and_both_come_back():
    async with begun(names=TWO) as (rig, disks):
        with pytest.raises(Conflict, match=f"volume {MORE}") as alone:
            await ask(rig)
        assert f"corral volume move {NAME} {MORE} --to host2" in alone.value.hint
        await ask(rig, along=[MORE])
        await ended(rig, names=TWO)
        await at(rig, disks, "n2", kept_on="n1", names=TWO)
        assert row(rig).along == (MORE,)
        assert row(rig, MORE).along == (NAME,)
        disks.of("n2")[NAME][b"c"] = disks.of("n2")[MORE][b"c"] = b"new"
        await ask(rig, "back", name=MORE)  # naming one of them is enough
        await ended(rig, names=TWO)
        await at(rig, disks, "n1", kept_on="n2", names=TWO)
        await ask(rig, "confirm")
        await rig.until(lambda: all(rig.cluster.volumes[n].kept is None for n in TWO))
        await at(rig, disks, "n1", names=TWO)


@pytest.mark.parametrize("number", range(1, 29, 3))
async def test_a_controller_that_is_killed_at_any_call_goes_on_with_both(number):
    async with begun(names=TWO) as (rig, disks):
        disks.calls.clear()
        disks.kill_at = number
        await ask(rig, along=[MORE])
        done = asyncio.ensure_future(ended(rig, names=TWO))
        died = asyncio.ensure_future(disks.killed.wait())
        await asyncio.wait({done, died}, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            done.cancel()
            await rig.restart_controller()
            await ended(rig, names=TWO)
        died.cancel()
        await at(rig, disks, "n2", kept_on="n1", names=TWO)


@pytest.mark.parametrize("what", ["look", "tree", "sums", "read", "PUT archive", "POST place"])
async def test_where_one_fails_for_good_both_stay(what):
    """The fault is of the second volume alone, once the first may be done."""
    async with begun(names=TWO) as (rig, disks):
        disks.faults[what] = [Invalid(detail="no room")]
        disks.only = MORE
        await ask(rig, along=[MORE])
        await ended(rig, names=TWO)
        assert "no room" in row(rig, MORE).moved
        assert f"{MORE}, which goes with it: no room" in row(rig).moved
        await at(rig, disks, "n1", names=TWO)


async def test_one_in_its_place_waits_for_the_other():
    """The homes change in one commit, however long the second one takes."""
    async with begun(names=TWO) as (rig, disks):
        disks.faults["POST place"] = [Unavailable("broke off")]
        disks.only = MORE
        await ask(rig, along=[MORE])
        await rig.until(lambda: disks.of("n2").get(NAME))
        await asyncio.sleep(5.0)
        assert {rig.cluster.volumes[name].node for name in TWO} == {"n1"}
        assert f"waits until {MORE} is there" in row(rig).move.waits
        assert not rig.ready("db")
        del disks.faults["POST place"]
        await ended(rig, names=TWO)
        await at(rig, disks, "n2", kept_on="n1", names=TWO)


@pytest.mark.parametrize("before", ["read n1", "POST place n2"])
async def test_cancelling_one_takes_both_back(before):
    async with begun(names=TWO) as (rig, disks):
        disks.faults["POST place"] = [Unavailable("broke off")]
        disks.only = MORE
        await ask(rig, along=[MORE])
        await rig.until(lambda: before in disks.calls)
        await ask(rig, "cancel", name=MORE)
        await ended(rig, names=TWO)
        await at(rig, disks, "n1", names=TWO)


@pytest.mark.parametrize("gone", ["target", "shut"])
async def test_a_way_back_that_is_given_up_half_way_leaves_each_copy_where_it_was(gone):
    """One of the two was exchanged already, then the node it goes back to takes nothing more."""
    async with begun(names=TWO, nodes=3) as (rig, disks):
        await ask(rig, along=[MORE])
        await ended(rig, names=TWO)
        disks.faults["POST aside"] = [Unavailable("broke off")]
        disks.only = MORE
        await ask(rig, "back")
        await rig.until(lambda: NAME in disks.of("n1"))
        if gone == "shut":
            await rig.put_node(rig.cluster.nodes["n1"].model_copy(update={"availability": "drain"}))
        else:
            await rig.nodes["n1"].crash()
            await rig.remove_node("n1")
            disks.disks.pop("n1")
        await asyncio.sleep(1.0)
        del disks.faults["POST aside"]
        await ended(rig, names=TWO)
        assert row(rig).moved
        await at(rig, disks, "n2", kept_on="n1", names=TWO)


@pytest.mark.parametrize(
    ("along", "change", "error", "words"),
    [
        (["nowhere"], {}, NotFound, "no volume nowhere"),
        ([MORE], {"everywhere": True}, Invalid, f"{MORE} is of a global service"),
        ([MORE], {"node": "n2"}, Conflict, f"{MORE} is on host2 already"),
        ([MORE], {"kept": KeptCopy(node="n2", home="host2")}, Conflict, "still keeps"),
    ],
)
async def test_where_one_cannot_move_nothing_is_begun(along, change, error, words):
    async with begun(names=TWO) as (rig, _):
        rig.cluster.volumes[MORE] = rig.cluster.volumes[MORE].model_copy(update=change)
        with pytest.raises(error, match=words):
            await ask(rig, along=along)
        assert rig.cluster.volumes[NAME].move is None


async def test_a_name_said_twice_is_one():
    async with begun() as (rig, disks):
        await ask(rig, along=[NAME])
        await ended(rig)
        await at(rig, disks, "n2", kept_on="n1")
        assert row(rig).along == ()
