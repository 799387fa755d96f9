"""One at a time on an event loop: who computes for long lets others have their turn first."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class OneATurn:
    """Parts that are woken together compute in turns of the loop that follow each other.

    Without it all of them compute in the very turn they are woken in, and nobody is heard until
    the last is done.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def mine(self) -> AsyncIterator[None]:
        """Compute in the block, without waiting for anything in it."""
        async with self._lock:
            yield
            await asyncio.sleep(0)
