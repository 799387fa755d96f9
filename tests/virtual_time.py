"""Virtual time without idle rounds: what looptime's loops do where nobody outside can answer.

looptime looks at the sockets several times before it moves the time, because whoever is at the
other end may be slow. A loop that has no socket and waits for no thread has nobody to wait for:
its time moves at once. Nine tests in ten are such, and looking was half of what they cost.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import looptime
from looptime import LoopTimeEventLoop
from looptime._internal import plugin

if TYPE_CHECKING:
    from collections.abc import Coroutine

# Looks at the sockets, of a loop that has some, that found nothing (looptime: 42).
PATIENCE = {"noop_cycles": 2}
_PRIVATE = "_LoopTimeEventLoop__"
_slow = getattr(LoopTimeEventLoop, f"{_PRIVATE}replaced_select")


def _select(self: Any, timeout: float | None) -> list[Any]:
    if (
        timeout
        and len(self._selector.get_map()) == 1  # its own, for calls from threads
        and self._LoopTimeEventLoop__enabled
        and self._LoopTimeEventLoop__end is None
        and all(future.done() for future in self._LoopTimeEventLoop__sync_futures)
    ):
        ready: list[Any] = self._LoopTimeEventLoop__original_select(timeout=0)
        if not ready:
            self._LoopTimeEventLoop__now += self._LoopTimeEventLoop__time2int(timeout) or 1
        return ready
    found: list[Any] = _slow(self, timeout)
    return found


@functools.cache
def _loops(asyncio_plugin: Any) -> frozenset[str]:
    names = dir(asyncio_plugin)
    return frozenset(name for name in names if plugin._is_fixture(getattr(asyncio_plugin, name)))


def _should_patch(fixture: Any, request: Any) -> bool:
    """Say what looptime says, without looking the plugin through for each fixture of each test."""
    found = request.config.pluginmanager.getplugin("asyncio")
    return fixture.func.__module__ == found.__name__ or fixture.argname in _loops(found)


def install() -> None:
    plugin._should_patch = _should_patch
    setattr(LoopTimeEventLoop, f"{_PRIVATE}replaced_select", _select)


def in_virtual_time(work: Coroutine[Any, Any, None]) -> None:
    """Run it as a test marked ``looptime`` is run; for laws, once for each example."""
    loop = looptime.new_event_loop(**PATIENCE)
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


async def until_something_is_due(least: float = 0.005) -> None:
    """Sleep to the next moment at which anything can happen, in steps of ``least``.

    In between, looking again finds what it found: where nothing is ready and nothing due,
    nothing changes.
    """
    loop: Any = asyncio.get_running_loop()
    steps = 1
    if not loop._ready and loop._scheduled:
        steps = max(1, -int((loop.time() - loop._scheduled[0].when()) // least))
    await asyncio.sleep(steps * least)
