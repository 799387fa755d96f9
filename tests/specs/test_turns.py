"""Who is woken together computes in turns of the event loop that follow each other."""

from __future__ import annotations

import asyncio

import pytest

from specs.kit.turns import OneATurn


async def turn_numbers(count: int, work, *, beside) -> list[int]:
    """Return in which turn of the loop each of some parts computed, all woken at once."""
    turns, numbers, woken = OneATurn(), [], asyncio.Event()
    turn = 0

    async def part(number: int) -> None:
        await woken.wait()
        async with turns.mine():
            numbers.append(turn)
            work(number)

    parts = [asyncio.create_task(part(number)) for number in range(count)]
    await asyncio.sleep(0.01)
    woken.set()
    while not all(one.done() for one in parts):
        turn += 1
        beside()
        await asyncio.sleep(0)
    await asyncio.gather(*parts, return_exceptions=True)
    return numbers


@pytest.mark.parametrize("count", [1, 2, 10])
@pytest.mark.looptime
async def test_each_has_a_turn_of_its_own(count):
    heard = []
    numbers = await turn_numbers(count, lambda _: None, beside=lambda: heard.append(1))
    assert len(set(numbers)) == count, "no two in one turn"
    assert numbers == sorted(numbers)
    assert len(heard) >= count, "others were heard in between"


@pytest.mark.looptime
async def test_one_that_fails_holds_nobody_up():
    def work(number: int) -> None:
        if number == 1:
            raise ValueError(number)

    assert len(await turn_numbers(4, work, beside=lambda: None)) == 4


@pytest.mark.looptime
async def test_one_that_is_cancelled_holds_nobody_up():
    turns, order = OneATurn(), []

    async def part(number: int) -> None:
        async with turns.mine():
            order.append(number)

    parts = [asyncio.create_task(part(number)) for number in range(4)]
    await asyncio.sleep(0)  # the first has computed, the others wait
    parts[0].cancel()
    parts[2].cancel()
    await asyncio.gather(*parts, return_exceptions=True)
    assert order == [0, 1, 3]
