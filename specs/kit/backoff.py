"""How long to wait before something that failed is tried again.

One rule for everybody: the first pause is short, each failure in a row doubles it up to a
longest one, and success starts over. Many who failed at the same moment (every node of a
controller that restarts) pass a seeded ``rng``, so that they do not all come back at once.
Nothing here sleeps or looks at a clock; the caller does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


def grown(previous: float, *, first: float, longest: float) -> float:
    """Return the pause that follows ``previous`` (0 = none yet); for those who keep it on disk."""
    return min(max(previous * 2, first), longest)


def after(failures: int, *, first: float, longest: float) -> float:
    """Return the pause after that many failures in a row; for those who keep the count."""
    if failures <= 0:
        return 0.0
    return min(first * 2.0 ** min(failures - 1, 64), longest)  # 64: doubled further it overflows


class Backoff:
    """The pauses of one thing that is tried again and again."""

    __slots__ = ("_last", "first", "longest", "rng")

    def __init__(
        self, first: float, longest: float = float("inf"), *, rng: random.Random | None = None
    ) -> None:
        self.first = first
        self.longest = longest
        self.rng = rng
        self._last = 0.0

    def pause(self) -> float:
        """Return how long to wait after one more failure; with an rng, half of that or more."""
        self._last = grown(self._last, first=self.first, longest=self.longest)
        if self.rng is None:
            return self._last
        return self._last * (0.5 + self.rng.random() / 2)

    def reset(self) -> None:
        """Start over: it went well, or it was up long enough to count as new trouble."""
        self._last = 0.0
