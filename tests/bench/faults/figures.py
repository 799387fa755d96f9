"""What requests and looks at the hosts say about one fault. Pure.

Times are monotonic seconds. A request counts by when it *began*: one that waits a second for an
answer that never comes says that the service failed then, not a second later.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAUSE = 2.0  # seconds without an error that end a span of errors
WINDOW = 1.0  # seconds within which every serving task is heard


@dataclass(frozen=True, slots=True)
class Request:
    """One request of one client; ``task`` = who answered, "" where nobody did, for a reason."""

    client: str
    begun: float
    task: str
    reason: str = ""


def parse(client: str, text: str) -> list[Request]:
    """Read what asking.py printed; a line that is still being written is left out."""
    found = []
    for line in text.splitlines(keepends=True):
        words = line.split()
        if line.endswith("\n") and len(words) == 3:
            failed = words[2].startswith("-")
            task, reason = ("", words[2][1:]) if failed else (words[2], "")
            found.append(Request(client, float(words[0]), task, reason))
    return found


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of some clients: the longest span one of them had, and how many of how many."""

    span: float
    failed: int
    asked: int
    reasons: tuple[tuple[str, int], ...] = ()
    at: tuple[float, ...] = ()  # when, seconds after the fault

    def __str__(self) -> str:
        return f"{self.span:.1f} s ({self.failed} of {self.asked})" if self.failed else "none"


def errors(requests: Iterable[Request], since: float, until: float) -> Errors:
    """Return what failed between two moments, by the client that had it worst."""
    by_client: dict[str, list[Request]] = {}
    for request in requests:
        if since <= request.begun <= until:
            by_client.setdefault(request.client, []).append(request)
    longest, failed, asked = 0.0, 0, 0
    reasons: Counter[str] = Counter()
    at: list[float] = []
    for found in by_client.values():
        times = sorted(request.begun for request in found if not request.task)
        asked, failed = asked + len(found), failed + len(times)
        longest = max(longest, _longest(times, _beat(found)))
        at += [round(each - since, 1) for each in times]
        reasons.update(request.reason for request in found if not request.task)
    return Errors(longest, failed, asked, tuple(sorted(reasons.items())), tuple(sorted(at)))


def _beat(found: Sequence[Request]) -> float:
    times = sorted(request.begun for request in found)
    return (times[-1] - times[0]) / max(1, len(times) - 1)


def _longest(times: Sequence[float], beat: float) -> float:
    """Return the longest span of errors; a single one lasts from it to the next request."""
    longest, begun = 0.0, None
    for last, now in zip([None, *times], times, strict=False):
        if begun is None or last is None or now - last > PAUSE:
            begun = now
        longest = max(longest, now - begun + beat)
    return longest


def serving(requests: Iterable[Request], at: float) -> set[str]:
    """Return the tasks that were heard in the window that ends with ``at``."""
    return {r.task for r in requests if r.task and at - WINDOW < r.begun <= at}


def restored(
    requests: Sequence[Request], wanted: int, since: float, until: float
) -> tuple[float | None, int]:
    """Return how long fewer than ``wanted`` tasks were heard, counted from ``since``; the fewest.

    None: still too few at the end. The first task missed is missed a window later than it fell
    silent, and one that is back is heard at once.
    """
    # One pass over the answers in order: a task serves from each answer for a window.
    answers = sorted((r.begun, r.task) for r in requests if r.task and r.begun >= since - WINDOW)
    moments = sorted({begun for begun, _ in answers if since <= begun <= until})
    heard: dict[str, float] = {}
    index, back, fewest = 0, 0.0, wanted
    missing = False
    for moment in moments:
        while index < len(answers) and answers[index][0] <= moment:
            heard[answers[index][1]] = answers[index][0]
            index += 1
        count = sum(moment - last < WINDOW for last in heard.values())
        fewest = min(fewest, count)
        if count < wanted:
            missing = True
        elif missing:
            missing, back = False, moment - since
    return (None if missing or not moments else back), fewest
