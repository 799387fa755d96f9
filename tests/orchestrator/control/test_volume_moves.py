"""Volumes that move: the table of next steps, and moves in memory with every part failing once.

Laws of every move: at no moment two nodes have a container with the volume; what runs has the data
at its home; nobody begins on an empty volume; whatever fails or is killed, in the end the data
is at one home, and nothing of the move is left but what the row tells.
"""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.control.deploy import moving as acting
from orchestrator.control.deploy.moving import differences
from orchestrator.control.mirror.records import VOLUMES, KeptCopy, Volume, VolumeMove
from orchestrator.control.planning.moving import MoveFacts, decide
from orchestrator.errors import Conflict, Invalid, Unavailable
from specs.objects import CreateVolume
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.moving_rig import (
    DATA,
    DB,
    NAME,
    Disks,
    ask,
    at,
    begun,
    ended,
    only,
    row,
)
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

MEMBERS = ("n1", "n2")


def moved(phase="copying", **more):
    return {"move": VolumeMove(id="m1", to="n2", called="host2", phase=phase, **more)}


def kept(node="n2", **more):
    return {"kept": KeptCopy(node=node, home="host2", **more)}


@pytest.mark.parametrize(
    ("record", "facts", "copied", "does"),
    [
        ({}, {}, False, "nothing"),
        (moved(), {}, False, "copy"),
        (moved(), {}, True, "close"),
        (moved(), {"oneoffs": ("run-1",)}, True, "wait"),
        (moved(), {"deploying": ("app",)}, True, "wait"),
        (moved(), {"users": ("db-1",)}, True, "close"),  # they are stopped by it
        (moved(), {"unheard": ("host2",)}, False, "copy"),
        (moved(), {"unheard": ("host2",)}, True, "wait"),
        (moved(back=True), {"unheard": ("host2",)}, False, "wait"),
        (moved(), {"removing": True}, True, "fail"),
        (moved(), {"members": ("n1",)}, True, "fail"),  # the target left
        (moved(), {"members": ("n2",)}, True, "fail"),  # the source left
        (moved("closing"), {"users": ("db-1",)}, False, "wait"),
        (moved("closing"), {}, False, "place"),  # also of a controller that just began
        (moved("closing"), {}, "placed", "switch"),
        (moved("closing"), {"users": ("db-1",)}, "placed", "wait"),
        (moved("closing"), {"placing": ("other",)}, False, "place"),
        (moved("closing"), {"placing": ("other",)}, "placed", "await"),
        (moved(), {"copying": ("other",)}, False, "copy"),
        (moved(), {"copying": ("other",)}, True, "await"),
        (moved(), {"copying": ("other",), "removing": True}, True, "fail"),
        (moved("undoing", back=True), {"members": ("n1",)}, False, "undo"),
        (moved("undoing", back=True), {"members": ("n2",)}, False, "undo"),
        (moved("undoing", back=True), {"members": ()}, False, "settle"),
        (moved("closing"), {"removing": True}, False, "fail"),
        (moved("closing"), {"shut": "drain"}, False, "fail"),
        (moved(), {"shut": "pause"}, True, "fail"),
        (moved("undoing"), {"shut": "drain"}, False, "undo"),
        (moved("closing"), {"members": ("n1",)}, False, "fail"),
        (moved("undoing"), {"users": ("db-1",), "removing": True}, False, "undo"),
        (moved("undoing"), {"members": ("n1",)}, False, "settle"),
        (moved(back=True), {}, False, "close"),  # nothing is copied
        (kept(), {}, False, "aside"),
        (kept(aside=True), {}, False, "nothing"),
        (kept(aside=True, going=True), {}, False, "forget"),
        (kept(going=True), {}, False, "forget"),
        (kept(aside=True), {"removing": True}, False, "forget"),
        (kept(), {"members": ("n1",)}, False, "settle"),
    ],
)
def test_the_next_step(record, facts, copied, does):
    volume = Volume(name=NAME, node="n1", home="host1", **record)
    given = MoveFacts(volume, **{"members": MEMBERS, **facts})
    step = decide(given, copied=bool(copied), placed=copied == "placed")
    assert step.does == does
    assert bool(step.why) == (does in ("wait", "await", "fail"))


@pytest.mark.parametrize(
    ("source", "target", "send", "drop"),
    [
        ({}, {}, [], []),
        ({b".": b"d1", b"a": b"-1"}, {}, [b".", b"a"], []),
        ({b".": b"d1", b"a": b"-1"}, {b".": b"d1", b"a": b"-1"}, [], []),
        ({b".": b"d1", b"a": b"-2"}, {b".": b"d1", b"a": b"-1"}, [b".", b"a"], []),
        # A folder in which anything changes is sent, too: its time would be that of the change.
        (
            {b".": b"d1", b"a": b"d1", b"a/b": b"-2", b"c": b"d1"},
            {b".": b"d1", b"a": b"d1", b"a/b": b"-1", b"c": b"d1"},
            [b".", b"a", b"a/b"],
            [],
        ),
        ({b".": b"d1"}, {b".": b"d1", b"x": b"d1", b"x/y": b"-1"}, [b"."], [b"x", b"x/y"]),
        # What was a folder and is a file goes first, and the other way round.
        ({b".": b"d1", b"a": b"-1"}, {b".": b"d1", b"a": b"d1"}, [b".", b"a"], [b"a"]),
        ({b".": b"d1", b"a": b"d1"}, {b".": b"d1", b"a": b"-1"}, [b".", b"a"], [b"a"]),
    ],
)
def test_what_is_sent(source, target, send, drop):
    assert differences(source, target) == (send, drop)


async def test_a_volume_goes_with_what_uses_it():
    async with begun() as (rig, disks):
        await ask(rig)
        await ended(rig)
        await at(rig, disks, "n2", kept_on="n1")
        assert (row(rig).node, row(rig).kept, row(rig).moved) == ("host2", "host1", "")
        with pytest.raises(Conflict, match="still keeps"):
            await ask(rig, to="host1")
        await ask(rig, "confirm")
        await rig.until(lambda: rig.cluster.volumes[NAME].kept is None)
        await at(rig, disks, "n2")


async def test_one_goes_back_to_what_the_move_left():
    async with begun() as (rig, disks):
        await ask(rig)
        await ended(rig)
        disks.of("n2")[NAME][b"c"] = b"new"
        await ask(rig, "back")
        await ended(rig)
        await rig.until(lambda: [t.node for t in rig.ready("db")] == ["n1"])
        assert disks.of("n1")[NAME] == DATA
        assert disks.of("n2")[f".kept-{NAME}"][b"c"] == b"new"
        assert row(rig).kept == "host2"


async def test_nothing_is_stopped_for_a_way_back_to_a_node_that_does_not_answer():
    async with begun() as (rig, disks):
        await ask(rig)
        await ended(rig)
        await rig.nodes["n1"].cut()
        await rig.until(lambda: rig.cluster.conditions["n1"].status == "down", 120.0)
        before = [t.id for t in rig.ready("db")]
        with pytest.raises(Conflict, match="host1 takes nothing now"):
            await ask(rig, "back")
        # Asked for just before it went.
        move = VolumeMove(id="m9", to="n1", called="host1", back=True)
        going = rig.cluster.volumes[NAME].model_copy(update={"move": move})
        await rig.control._write(lambda pass_: pass_.draft.put(VOLUMES, going))
        await rig.until(lambda: "host1 answers" in row(rig).move.waits)
        await asyncio.sleep(300.0)
        assert [t.id for t in rig.ready("db")] == before
        await ask(rig, "cancel")
        await ended(rig)
        await at(rig, disks, "n2", kept_on="n1")


@pytest.mark.parametrize("number", range(1, 16))
async def test_a_controller_that_is_killed_at_any_call_goes_on(number):
    async with begun() as (rig, disks):
        disks.calls.clear()
        disks.kill_at = number
        await ask(rig)
        done = asyncio.ensure_future(ended(rig))
        died = asyncio.ensure_future(disks.killed.wait())
        await asyncio.wait({done, died}, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            done.cancel()
            await rig.restart_controller()
            await ended(rig)
        died.cancel()
        await at(rig, disks, "n2", kept_on="n1")
        assert len(disks.calls) >= 10, disks.calls


CALLS = [
    "look", "tree", "sums", "read", "PUT archive", "POST place",
]  # fmt: skip


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("lasting", [True, False])
async def test_what_fails_for_good_is_taken_back_and_what_passes_is_tried_again(what, lasting):
    async with begun() as (rig, disks):
        fault = Invalid(detail="no room") if lasting else Unavailable("broke off")
        disks.faults[what] = [fault]
        before = [t.id for t in rig.live("db")]
        await ask(rig)
        if lasting:
            await ended(rig)
            assert "no room" in row(rig).moved
            await at(rig, disks, "n1")
            if what in ("look", "tree", "read", "PUT archive"):
                assert [t.id for t in rig.live("db")] == before, "law: nobody was stopped for it"
        else:
            await asyncio.sleep(5.0)
            assert rig.cluster.volumes[NAME].move is not None
            del disks.faults[what]
            await ended(rig)
            await at(rig, disks, "n2", kept_on="n1")


@pytest.mark.parametrize("phase", ["copying", "closing"])
async def test_a_target_that_dies_for_good_is_given_up(phase):
    async with begun() as (rig, disks):
        what = "sums" if phase == "closing" else "read"
        disks.faults[what] = [Unavailable("host2 does not answer")]
        await ask(rig)
        await rig.until(lambda: f"{what} n2" in disks.calls or f"{what} n1" in disks.calls)
        await rig.nodes["n2"].crash()
        await rig.until(
            lambda: (m := rig.cluster.volumes[NAME].move) and m.phase == "undoing", 3600.0
        )
        await rig.until(lambda: [t.node for t in rig.ready("db")] == ["n1"])
        assert only(disks.of("n1")[NAME]) == DATA
        # What came there goes when it is back.
        disks.faults.clear()
        await rig.nodes["n2"].connect()
        await ended(rig)
        await at(rig, disks, "n1")


async def test_a_target_that_leaves_is_not_waited_for():
    async with begun() as (rig, disks):
        disks.held = asyncio.Event()
        await ask(rig)
        await rig.until(lambda: "read n1" in disks.calls)
        await rig.nodes["n2"].crash()
        await rig.remove_node("n2")
        disks.held.set()
        await ended(rig)
        assert "left the cluster" in row(rig).moved or "host2" in row(rig).moved
        assert [t.node for t in rig.ready("db")] == ["n1"]


async def test_a_move_is_taken_back_while_it_copies():
    async with begun() as (rig, disks):
        before = [t.id for t in rig.live("db")]
        disks.held = asyncio.Event()
        await ask(rig)
        await rig.until(lambda: "read n1" in disks.calls)
        with pytest.raises(Conflict, match="moved already"):
            await ask(rig)
        await ask(rig, "cancel")
        disks.held.set()
        await ended(rig)
        assert "somebody asked" in row(rig).moved
        await at(rig, disks, "n1")
        assert [t.id for t in rig.live("db")] == before


async def test_up_scale_and_down_meanwhile():
    both = {"db": {**DB, "deploy": {"replicas": 2}}}
    async with begun(**both) as (rig, disks):
        disks.faults["sums"] = [Unavailable("slow")]
        await ask(rig)
        await rig.until(lambda: not rig.ready("db"))
        changed = {**DB, "environment": {"A": "1"}, "deploy": {"replicas": 2}}
        top = {"volumes": {"data": {"name": NAME, "external": True}}}
        await rig.up(project(db=changed, top=top))
        await asyncio.sleep(2.0)
        reasons = {t.pending_reason for t in rig.live("db") if t.node is None}
        assert any("is being moved to host2" in reason for reason in reasons), reasons
        await rig.control.scale("app", {"db": 3})
        disks.faults.clear()
        await ended(rig)
        await rig.until(lambda: {t.node for t in rig.ready("db")} == {"n2"})
        await rig.until(lambda: len(rig.ready("db")) == 3)
        await rig.control.remove("app", volumes=False, timeout=None)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        await rig.control.drop("volume", NAME)
        await rig.until(lambda: NAME not in rig.cluster.volumes)
        assert not any(disks.disks.values()), "law: what is kept goes with it"


async def test_a_volume_that_is_removed_while_it_moves():
    async with begun() as (rig, disks):
        await rig.control.remove("app", volumes=False, timeout=None)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        disks.held = asyncio.Event()
        await ask(rig)
        await rig.until(lambda: "read n1" in disks.calls)
        await rig.control.drop("volume", NAME)
        disks.held.set()
        await rig.until(lambda: NAME not in rig.cluster.volumes)
        assert not any(disks.disks.values())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"everywhere": True}, Invalid, "each node has its own"),
        ({"options": {"type": "nfs", "o": "addr=1.2.3.4", "device": ":/x"}}, Invalid, "every node"),
        ({"options": {"type": "none", "o": "bind", "device": "/x"}}, Invalid, "driver_opts say"),
        ({"options": {"type": "tmpfs", "device": "tmpfs"}}, Invalid, "driver_opts say"),
        ({"node": ""}, Conflict, "holds nothing yet"),
        ({"node": "gone", "home": "lost1"}, Unavailable, "lost1, which left"),
        ({"removing": True}, Conflict, "being removed"),
        ({"node": "n2"}, Conflict, "is on host2 already"),
        (kept(), Conflict, "still keeps"),
        (moved(), Conflict, "moved already"),
    ],
)
async def test_what_cannot_move_is_refused(change, error, words):
    async with Rig(nodes=2) as rig:
        rig.agents.disks = {}
        await rig.control.make(CreateVolume(name=NAME, node="host1"))
        record = rig.cluster.volumes[NAME].model_copy(update=change)
        rig.cluster.volumes[NAME] = record
        with pytest.raises(error, match=words):
            await ask(rig)


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ({"deploy": {"placement": {"constraints": ["node.hostname == host1"]}}}, "host1"),
        (
            {"volumes": [*DB["volumes"], {"type": "volume", "source": "more", "target": "/m"}]},
            "more",
        ),
    ],
)
async def test_what_could_not_run_there_is_refused_before_anything_is_done(service, words):
    async with Rig(nodes=2) as rig:
        rig.agents = Disks(rig)
        top = {"volumes": {"data": {"name": NAME}, "more": {"name": "app_more"}}}
        pin = {"deploy": {"placement": {"constraints": ["node.hostname == host1"]}}}
        await rig.up(project(db={**DB, **pin, **service}, top=top))
        await rig.deployed()
        with pytest.raises(Conflict, match=words):
            await ask(rig)
        assert rig.cluster.volumes[NAME].move is None


async def test_what_a_file_ties_to_its_node_goes_once_the_file_names_the_other():
    """That `up` fails, for the data is here still; the move asks it, and the next `up` goes on."""

    def pinned(host):
        return project(
            db={**DB, "deploy": {"placement": {"constraints": [f"node.hostname == {host}"]}}},
            top={"volumes": {"data": {"name": NAME, "external": True}}},
        )

    async with begun() as (rig, disks):
        await rig.up(pinned("host1"))
        await rig.deployed()
        with pytest.raises(Conflict, match="host1") as refused:
            await ask(rig)
        assert "change that in the file of app and corral up" in refused.value.hint
        await rig.up(pinned("host2"))
        assert not (await rig.end_of(within=900.0)).ok
        assert [t.node for t in rig.ready("db")] == ["n1"]
        await ask(rig)
        await ended(rig)
        await rig.up(pinned("host2"))
        await rig.deployed()
        await at(rig, disks, "n2", kept_on="n1")


async def test_an_agent_of_an_earlier_version_and_a_full_disk_are_refused_before_a_stop():
    async with begun() as (rig, disks):
        before = [t.id for t in rig.live("db")]
        for fault, words in ((disks.old, "corral upgrade host2"), (disks.full, "do not fit")):
            fault.add("n2")
            await ask(rig)
            await ended(rig)
            assert words in row(rig).moved
            fault.clear()
        await at(rig, disks, "n1")
        assert [t.id for t in rig.live("db")] == before


def test_limits_are_in_order():
    assert acting.CLOSED_PATIENCE < acting.OPEN_PATIENCE
