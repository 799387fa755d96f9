"""Keep Python's cyclic collector from holding a daemon's loop while it looks at everything.

A full collection looks at every container there is in one go, 0.7 us each: with the records of
1,000 replicas in memory that is 70 to 100 ms, over and over, to find that all of it is wanted.
What a full collection leaves is therefore set aside (``gc.freeze``), and the next one looks at
what is new since then. What we keep long are records and what is made of them: trees, which are
freed by their reference counts wherever they lie. Only what hangs together in a circle and was set
aside while it was in use (a connection, its tasks) is not found any more; so once much more lies
aside than when all of it was looked at last, all of it is looked at again.
"""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

THRESHOLDS: Final = (700, 10, 1)  # Python's but for the last, 10: what is new stays little
ROOM: Final = 400_000  # containers set aside; the records of some 3,000 replicas
OLDEST: Final = 2  # the generation that a full collection looks at


@contextlib.contextmanager
def aside(room: int = ROOM) -> Iterator[None]:
    """Set aside what lives long for as long as the block runs."""
    limit = room
    # How many lie aside at most: to have them counted walks along all of them, 100 ms for the
    # records of 10,000 replicas. What went since by its reference count is not known.
    most = gc.get_freeze_count()

    def told(phase: Literal["start", "stop"], info: Mapping[str, int]) -> None:
        nonlocal limit, most
        if info["generation"] != OLDEST:
            return
        if phase == "start":
            if most > limit:
                most = gc.get_freeze_count()
            if most > limit:
                gc.unfreeze()
                limit = most = 0
            return
        most += len(gc.get_objects(OLDEST))
        gc.freeze()
        limit = limit or max(room, 2 * most)

    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    gc.callbacks.append(told)
    try:
        yield
    finally:
        gc.callbacks.remove(told)
        gc.set_threshold(*before)
