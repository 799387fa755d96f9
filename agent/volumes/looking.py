"""Look at paths of the node where a dead network file system may hold a look up for ever.

Looks have a thread of their own, and one look at a time: what hangs holds up no task's mounts,
and nobody waits for it when the agent ends. What is not answered in time is unknown.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from specs.paths import PathState

log = logging.getLogger(__name__)

PATIENCE: Final = 4.0  # seconds; who asks waits for five


class Looks:
    """Answers with what ``look`` says, or with "unknown" of all that was asked."""

    def __init__(self, look: Callable[[Sequence[str]], dict[str, PathState]]) -> None:
        self._look = look
        self._turn = asyncio.Lock()
        self._last: Future[dict[str, PathState]] | None = None

    async def ask(self, sources: Sequence[str]) -> dict[str, PathState]:
        try:
            async with asyncio.timeout(PATIENCE), self._turn:
                if self._last is None or self._last.done():
                    return await asyncio.wrap_future(self._begin(sources))
        except TimeoutError:
            log.warning("a look at paths of the node takes too long", extra={"paths": sources})
        return dict.fromkeys(sources, "unknown")

    def _begin(self, sources: Sequence[str]) -> Future[dict[str, PathState]]:
        future: Future[dict[str, PathState]] = Future()
        future.set_running_or_notify_cancel()  # who asked may leave; it goes on all the same

        def run() -> None:
            try:
                future.set_result(self._look(sources))
            except BaseException as error:  # noqa: BLE001 - it is raised where it is asked
                future.set_exception(error)

        threading.Thread(target=run, name="look at paths", daemon=True).start()
        self._last = future
        return future
