"""What happened, as it is kept and told: one event, and how many of them lie in the store.

The controller writes them beside what they tell of (orchestrator/control/telling/journal.py);
``corral events`` lists them and ``corral why`` reads them. Times are seconds since the epoch, by
the controller's clock. ``kind`` is ``WHAT.HOW``; docs/events.md has the table.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from specs.base import Model
from specs.kit.amounts import runs

if TYPE_CHECKING:
    from collections.abc import Mapping

# What `--filter` knows: its word -> the field, or fields, it looks at.
FILTERS: dict[str, tuple[str, ...]] = {
    "kind": ("kind",),
    "event": ("kind",),
    "stack": ("stack",),
    "service": ("service",),
    "task": ("task", "name"),
    "container": ("task", "name"),
    "node": ("node", "nodes"),
    "reason": ("reason",),
    "release": ("release",),
    "by": ("by",),
}


class Event(Model):
    """One thing that happened, or several alike: then ``count`` says how many.

    ``id`` sorts by time; what is told and not kept has none. ``task`` is the id, ``name`` what the
    container is called. ``reason`` is a word for programs, ``message`` is for people. ``before``
    and ``after`` are what was set: replicas, availability, labels. Alike are a flapping thing's
    (``time`` to ``last``), and those of one moment: ``slots`` (``1-40,42``) or ``nodes`` have
    whose they are.
    """

    id: str = ""
    time: float
    kind: str  # task.running, run.ended, node.down, release.deployed ...
    stack: str = ""
    service: str = ""
    task: str = ""
    name: str = ""
    slot: int = 0
    node: str = ""
    release: int = 0
    reason: str = ""
    message: str = ""
    by: str = ""  # who asked, as specs.made_by has it: anna@laptop, root (anna)@laptop
    exit_code: int | None = None
    signal: str = ""  # SIGKILL, where one ended the run
    oom: bool = False
    before: str = ""
    after: str = ""
    figure: float | None = None  # what decided, or how much: bytes of an image
    count: int = 1
    last: float = 0.0  # the last one of ``count``; 0 = all at ``time``
    slots: str = ""
    nodes: tuple[str, ...] = ()

    @property
    def until(self) -> float:
        """Return when the last of what it tells happened."""
        return max(self.time, self.last)

    def about_slot(self, slot: int) -> bool:
        """Say whether it is about that replica of its service."""
        return slot == self.slot or (bool(self.slots) and slot in slots_in(self.slots))


class EventBatch(Model):
    """The events of one stack that were written in one transaction: a record of the store."""

    events: tuple[Event, ...] = ()


def spans(slots: list[int]) -> str:
    """Return numbers as people write many: ``1-40,42``."""
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs(slots))


def slots_in(text: str) -> set[int]:
    """Return the numbers that ``spans`` wrote."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if re.fullmatch(r"[0-9]{1,7}", first) and re.fullmatch(r"[0-9]{0,7}", last):
            found.update(range(int(first), int(last or first) + 1))
    return found


def matches(event: Event, wanted: Mapping[str, tuple[str, ...]]) -> bool:
    """Say whether it is as the filters ask: each word, and of one word any of its values.

    A value may have ``*``; ``kind=task`` means every ``task.``...
    """
    return all(any(_is(event, word, value) for value in values) for word, values in wanted.items())


def _is(event: Event, word: str, value: str) -> bool:
    for field in FILTERS.get(word, ()):
        found = getattr(event, field)
        for one in found if isinstance(found, tuple) else (str(found),):
            if fnmatch.fnmatchcase(one, value):
                return True
            if field == "kind" and one.startswith(f"{value}."):
                return True
    return False
