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
