"""Decisions made in steps: each step says how many replicas it looked at.

Who has an event loop lets it turn in between; everybody else takes them all at once. It is one
decision all the same: nothing it reads may move meanwhile.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[int, None, T]
STEP = 100  # replicas a step looks at: 2 ms


def whole(steps: Steps[T]) -> T:
    """Take all steps and return what was decided."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
