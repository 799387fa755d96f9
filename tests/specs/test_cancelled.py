"""A task goes on after a group of its own failed, and its timeouts are timeouts."""

import asyncio
import contextlib
import dataclasses
from types import SimpleNamespace

import pytest

from agent.images import assemble
from agent.images.assemble import Assembly
from agent.images.layers import DamagedBlob
from agent.images.manifest import Manifest
from orchestrator.control.deploy import moving
from orchestrator.control.deploy.images import NoImage, ReleaseImages
from specs.kit import cancelled
from specs.stack import ServiceSpec, StackSpec, TaskSpec


async def fails(seconds):
    await asyncio.sleep(seconds)
    raise OSError("no")


async def fails_late(seconds):
    try:
        await asyncio.sleep(seconds)
    finally:
        raise OSError("no, too")


@pytest.mark.parametrize(
    "children",
    [
        (),
        (fails,),
        (fails, fails),
        (fails, fails_late),
        (fails_late, fails_late),
        (fails, asyncio.sleep),
        (fails, fails_late, asyncio.sleep),
    ],
)
async def test_a_timeout_after_a_group_that_failed(children):
    group = asyncio.TaskGroup()
    try:
        async with group:
            for place, child in enumerate(children):
                group.create_task(child(0.001 + place))
    except ExceptionGroup:
        cancelled.settle(group)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.sleep(5)


async def ends_slowly(seconds):
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(seconds)


@pytest.mark.parametrize("others", [(), (fails_late,), (asyncio.sleep,), (fails_late, fails_late)])
@pytest.mark.parametrize("who", ["cancel", "timeout"])
@pytest.mark.parametrize("rounds", [0, 2])
@pytest.mark.looptime
async def test_who_cancels_while_a_group_ends_is_heard(others, who, rounds):
    """The task is to end, and what it does next is not begun; groups that failed before or not."""
    ending = asyncio.Event()
    reached = []

    async def once(*children):
        group = asyncio.TaskGroup()
        try:
            async with group:
                group.create_task(fails(0.1))
                for child in children:
                    group.create_task(child(0.2))
        except ExceptionGroup:
            cancelled.settle(group)

    async def works():
        for _ in range(rounds):
            await once()
        asyncio.get_running_loop().call_later(0.5, ending.set)
        await once(ends_slowly_for_long, *others)
        reached.append("the next step")

    async def ends_slowly_for_long(_):
        await ends_slowly(5.0)

    if who == "timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1 * rounds + 0.5):
                await works()
    else:
        task = asyncio.create_task(works())
        await ending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert reached == []


@pytest.mark.looptime
async def test_who_cancels_before_the_group_hears_of_a_failed_child_is_heard():
    """In one turn a child fails and the task is cancelled: the group does not count any more."""
    reached = []
    failing = asyncio.Event()

    async def fails_when_told():
        await failing.wait()
        raise ValueError

    async def works():
        group = asyncio.TaskGroup()
        try:
            async with group:
                group.create_task(fails_when_told())
        except ExceptionGroup:
            cancelled.settle(group)
        reached.append("the next step")

    task = asyncio.create_task(works())
    await asyncio.sleep(0.1)
    failing.set()  # the child fails in the next turn, in which the task hears of its end first
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not reached


def release_images(failing):
    """The images of a release, one of which is not to be had."""
    web = ServiceSpec(name="web", task=TaskSpec(image="web:1"))
    spec = StackSpec(name="app", services={"web": web})

    class One(ReleaseImages):
        async def _resolve(self, *_):
            await failing()
            raise NoImage("no such image")

        async def _found(self, *_):
            await failing()
            raise NoImage("no such image")

        async def _transfers(self, _):
            pass

    def made(rollback):
        pinned = {"web": "sha256:1"}
        release = SimpleNamespace(rollback_to=rollback, pull="", pinned=pinned)
        parts = dict.fromkeys(f.name for f in dataclasses.fields(ReleaseImages))
        return One(**{**parts, "release": release, "spec": spec})

    return made


async def both(failing):
    async def fails_now():
        await failing()
        raise OSError("no")

    await moving._both(fails_now(), asyncio.sleep(0))


async def layers(failing, monkeypatch):
    class One(Assembly):
        def __init__(self):
            self.content = SimpleNamespace(read_blob=lambda *_: b"{}")

        async def _stored_config(self, *_):
            return SimpleNamespace(diff_ids=("sha256:1",))

        async def _layer(self, *_):
            await failing()
            raise DamagedBlob("sha256:0")

    manifest = Manifest.__new__(Manifest)
    object.__setattr__(manifest, "layers", ("a blob",))
    monkeypatch.setattr(assemble, "parse_manifest", lambda _: manifest)
    await One().finish("sha256:1", "sha256:1")


@pytest.mark.parametrize("where", ["images", "a rollback's images", "two volumes", "layers"])
@pytest.mark.parametrize("turns", [None, 0, 1, 2, 3, 4])
@pytest.mark.looptime
async def test_wherever_a_group_fails_who_cancelled_is_heard(where, turns, monkeypatch):
    """All that go on after a group of their own failed: nothing goes on if its task is to end.

    It is cancelled so many turns after its child was let fail: before the group hears of it, or
    after; None: not at all.
    """
    told = asyncio.Event()
    went_on = []

    async def works():
        try:
            match where:
                case "images":
                    await release_images(told.wait)(0).images()
                case "a rollback's images":
                    await release_images(told.wait)(3).images()
                case "two volumes":
                    await both(told.wait)
                case "layers":
                    await layers(told.wait, monkeypatch)
        except (NoImage, OSError, DamagedBlob) as error:
            went_on.append(error)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(5)

    task = asyncio.create_task(works())
    await asyncio.sleep(0.1)
    assert not task.done()
    told.set()
    if turns is None:
        await task
        assert len(went_on) == 1, "law: the failure is told, and what follows has its time"
        return
    for _ in range(turns):
        await asyncio.sleep(0)
    before = list(went_on)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert went_on == before, "law: whose task is to end goes on with nothing"


async def test_who_cancels_is_heard_where_clearing_up_failed():
    """What is cancelled fails on its way out: its error is no reason to go on."""
    reached = []

    async def works():
        try:
            await fails_late(60)
        except OSError:
            cancelled.obey()
        reached.append("the next step")

    task = asyncio.create_task(works())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not reached


async def test_nobody_cancelled_and_the_next_step_is_done():
    with contextlib.suppress(OSError):
        await fails(0)
    cancelled.obey()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            with contextlib.suppress(OSError):
                await fails_late(5)
    cancelled.obey()
