"""What must hold, judged by what was seen from outside (pure).

Strict in what, generous in when: a machine that does other work, too, answers late, never wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.schedule import Event

NOTICE = 25.0  # seconds until nobody sends requests to what does not answer; 11.5 of a frozen host
RECOVERY = 60.0  # seconds until what is healed is whole itself: it boots, its agent comes up
# Faults with which requests on their node's paths may fail; through all others none may.
HITS = frozenset(
    ("cut", "cut-out", "cut-pair", "loss", "slow", "black-hole", "freeze", "power", "clock")
)
LAME = frozenset(("slow", "loss", "black-hole"))
KILLS = frozenset(("kill-conmon", "kill-task"))
NAMELESS = frozenset(("freeze", "power", "clock", "kill-dns", *KILLS))
# What may end a container, or have it replaced: its host is away for as long as one that is gone
# is, or it was aimed at. Links that are slow or lossy are no reason, nor are daemons, disks,
# clocks, or a path's size that is told.
SMALL_LOSS = 15  # percent
REASONS = frozenset(("cut", "cut-out", "freeze", "power", "clock", "black-hole", *KILLS))


@dataclass(frozen=True)
class Asked:
    """One request. ``where``: the host whose client it was; ``at``: whose port, "" = the VIP."""

    where: str
    begun: float
    took: float
    kind: str
    at: str
    said: str

    @property
    def ended(self) -> float:
        return self.begun + self.took

    def __str__(self) -> str:
        to = f"port of {self.at}" if self.at else "VIP" if self.kind != "name" else "resolver"
        return (
            f"{self.begun:7.1f} s, {self.took:.1f} s: {self.kind} from {self.where} to the {to}:"
            f" {self.said}"
        )


def windows(asked: Asked, events: Iterable[Event]) -> list[tuple[bool, float, float]]:
    """Return (on its own host, from, to) of each time in which a request on this path may fail."""
    own = {asked.where, asked.at}
    found = []
    for event in events:
        if asked.kind == "name":
            # A container's resolver is on its own host.
            if asked.where == event.node and event.what in NAMELESS:
                found.append((True, event.at, event.until + RECOVERY))
        elif event.what in KILLS:
            mine = event.node in own
            found.append((mine, event.at, event.at + (RECOVERY if mine else NOTICE)))
        elif event.what in HITS:
            mine = bool(own & {event.node, *event.details[: event.what == "cut-pair"]})
            # From a lame host nobody can be told away while it answers now and then.
            noticed = event.until if event.what in LAME else event.at
            end = event.until + RECOVERY if mine else noticed + NOTICE
            found.append((mine, event.at, end))
    return found


def excused(asked: Asked, events: Iterable[Event]) -> bool:
    """Tell whether a fault that hits the path, and lately, lets a request fail."""
    return any(
        asked.ended >= begin and asked.begun <= end for _, begin, end in windows(asked, events)
    )


def latest(asked: Iterable[Asked], events: Iterable[Event]) -> float:
    """Return how many seconds after a peer's fault began the last request failed by it."""
    found, most = list(events), 0.0
    for one in asked:
        if one.said == "ok":
            continue
        near = [w for w in windows(one, found) if one.ended >= w[1] and one.begun <= w[2]]
        if near and not any(mine for mine, _, _ in near):
            most = max(most, min(one.begun - begin for _, begin, _ in near))
    return most


def failures(asked: Iterable[Asked], events: Iterable[Event]) -> list[Asked]:
    """Return the requests that failed and had no reason to."""
    found = list(events)
    return [one for one in asked if one.said != "ok" and not excused(one, found)]


@dataclass(frozen=True)
class Life:
    """A container's run on a host, seen from ``begun`` to ``ended`` (None: it still runs)."""

    node: str
    task: str
    run: str
    begun: float
    ended: float | None


def is_reason(event: Event) -> bool:
    """Tell whether a fault may cost its host's containers."""
    if event.what == "loss":
        return int(event.details[0]) > SMALL_LOSS
    return event.what in REASONS


def taken(
    lives: Iterable[Life],
    steady: set[str],
    events: Iterable[Event],
    drained: Iterable[tuple[float, str]],
) -> list[Life]:
    """Return the runs of steady tasks that ended though nothing was done to them or their host.

    ``steady``: tasks that were there from the start and that no command was about.
    """
    reasons = [(event.at, event.node) for event in events if is_reason(event)] + [*drained]
    return [
        life
        for life in lives
        if life.task in steady
        and life.ended is not None
        and not any(at <= life.ended and node == life.node for at, node in reasons)
    ]


@dataclass
class Promise:
    """What a user asked for, of one thing: the last acknowledged value, and what may have come."""

    value: object
    maybe: list[object]

    def asked(self, value: object, *, acknowledged: bool) -> None:
        """Note a command's end. What was not acknowledged may have been done, or not."""
        if acknowledged:
            self.value, self.maybe = value, []
        else:
            self.maybe.append(value)

    def allows(self, found: object) -> bool:
        return found == self.value or found in self.maybe

    def __str__(self) -> str:
        return " or ".join(map(str, [self.value, *self.maybe]))
