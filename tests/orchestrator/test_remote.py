"""Commands on a machine that joins, whose caller gives up at any moment."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from orchestrator.nodes.bootstrap.remote import Remote, StepFailed


class Link:
    """An SSH connection on which a command starts, and gets its input, when the test says so."""

    def __init__(self):
        self.may_start, self.may_end = asyncio.Event(), asyncio.Event()
        self.fed = asyncio.Event()

    async def create_process(self, command, **_):
        await self.may_start.wait()
        self.fed.set()
        return SimpleNamespace(wait=self._wait)

    async def _wait(self):
        await self.may_end.wait()
        return SimpleNamespace(returncode=0, stdout=b"said", stderr=b"")


@pytest.fixture
async def link():
    return Link()


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("how", ["cancelled", "timeout"])
async def test_a_command_that_is_given_up_gets_its_input_all_the_same(link, how, started):
    """Else it waits for it, and holds the machine's lock, for as long as we are connected."""
    if started:
        link.may_start.set()
    timeout = 0.01 if how == "timeout" else 60.0
    asked = asyncio.create_task(Remote(link, sudo=False).run("cat", stdin=b"x", timeout=timeout))
    if how == "cancelled":
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked.cancel()
    with pytest.raises(asyncio.CancelledError if how == "cancelled" else StepFailed):
        await asked
    link.may_start.set()
    async with asyncio.timeout(300):
        await link.fed.wait()


async def test_a_command_that_ends_is_answered(link):
    link.may_start.set()
    link.may_end.set()
    answer = await Remote(link, sudo=False).run("true")
    assert (answer.code, answer.out) == (0, "said")
