"""Seconds somebody has, which do not pass while what he does is frozen.

``asyncio.timeout`` counts on while a container is paused, and ends what could not go on.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Patience:
    """A time limit that can be stopped and let go on, before it is in force and while it is."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._left = seconds  # at the last stop
        self._stopped = False
        self._scope: asyncio.Timeout | None = None

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Raise TimeoutError in the block when the seconds are over."""
        async with asyncio.timeout(None) as scope:
            self._scope = scope
            if not self._stopped:
                scope.reschedule(_now() + self._left)
            try:
                yield
            finally:
                self._scope = None

    def stop(self) -> None:
        """Let no more time pass."""
        if self._stopped:
            return
        self._stopped = True
        until = self._scope.when() if self._scope else None
        if self._scope and until is not None and not self._scope.expired():
            self._left = max(until - _now(), 0.0)
            self._scope.reschedule(None)

    def go(self) -> None:
        """Let what is left of the time pass."""
        if not self._stopped:
            return
        self._stopped = False
        if self._scope and not self._scope.expired():
            self._scope.reschedule(_now() + self._left)


def _now() -> float:
    return asyncio.get_running_loop().time()
