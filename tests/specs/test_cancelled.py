"""A task goes on after a group of its own failed, and its timeouts are timeouts."""

import asyncio

import pytest

from specs.kit import cancelled


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
    try:
        async with asyncio.TaskGroup() as group:
            for place, child in enumerate(children):
                group.create_task(child(0.001 + place))
    except ExceptionGroup:
        cancelled.settle()
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
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails(0.1))
                for child in children:
                    group.create_task(child(0.2))
        except ExceptionGroup:
            cancelled.settle()

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
    failing.set()
    await asyncio.sleep(0)  # the child fails in this turn; the group hears of it in the next
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not reached
