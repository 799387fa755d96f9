"""Decide from probes which peers can be reached over the overlay. Pure.

A controller that is gone tells nobody that a host died, so nodes find out by themselves: each
peer is asked for an echo (probing.py), by its kernel, so that an agent that is away does not
look like a dead host. A peer that is lost gets no new connections (endpoints.py) until it has
answered steadily for a while; each loss soon after the last doubles that while. Its tasks are
asked as well (knocking.py): echoes may pass where nothing else does.

Nobody is lost by silence of ours: only probes that were sent count, several and over a time
that a busy line cannot lose all of. A peer that never answered is not judged: whatever eats the
echoes there may let everything else pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LOST_PROBES = 8  # in a row without an answer: 20 % loss each way does this once in hours
LOST_AFTER = 1.0  # seconds they were spread over at least
BACK_AFTER = 1.0  # seconds of answers until a peer is trusted again
BACK_MAX = 16.0
FLAPPING = 60.0  # seconds within which a second loss doubles that
GAP = 3  # probes under way that end a row of answers
PERIOD = 0.5  # seconds between two probes of a peer
HURRY = 0.1  # the same while it is in doubt
DOUBT = 0.3  # seconds without an answer that raise doubt
RATE = 100.0  # probes a second at most, whatever the number of peers
HURRIED = 16  # peers in doubt that are asked faster, at most: with more, it is our own line
FEW = 4  # from that many peers up at most half of them are lost at once


@dataclass(frozen=True, slots=True)
class History:
    """What is known of one peer by its probes. Times are monotonic seconds."""

    known: bool = False  # it has answered once
    missed: int = 0  # probes sent since its last answer
    missed_since: float = 0.0  # when the first of them was sent
    sent_at: float | None = None
    row_since: float | None = None  # when the present row of answers began
    lost_since: float | None = None
    back_at: float | None = None  # when it was last found again
    patience: float = BACK_AFTER

    @property
    def lost(self) -> bool:
        """Say whether the peer cannot be reached."""
        return self.lost_since is not None


def sent(history: History, now: float) -> History:
    """Note that a probe left."""
    missed = history.missed + 1
    return replace(
        history,
        sent_at=now,
        missed=missed,
        missed_since=now if missed == 1 else history.missed_since,
        row_since=None if missed > GAP else history.row_since,
    )


def asked(history: History, now: float) -> History:
    """Note a probe whose answer nobody can expect."""
    return replace(history, sent_at=now)


def answered(history: History, now: float) -> History:
    """Note that an answer came."""
    row = now if history.row_since is None else history.row_since
    return replace(history, known=True, missed=0, row_since=row)


def judged(history: History, now: float) -> History:
    """Decide whether the peer is lost, or found again."""
    if history.lost_since is None:
        silent = history.missed >= LOST_PROBES and now - history.missed_since >= LOST_AFTER
        if not (history.known and silent):
            return history
        again = history.back_at is not None and now - history.back_at < FLAPPING
        patience = min(history.patience * 2, BACK_MAX) if again else BACK_AFTER
        return replace(history, lost_since=now, row_since=None, patience=patience)
    row = history.row_since
    if row is None or now - row < history.patience:
        return history
    return replace(history, lost_since=None, back_at=now)


def period(peers: int) -> float:
    """Return the seconds between two probes of a peer that answers."""
    return max(PERIOD, peers / RATE)


def in_doubt(history: History, now: float) -> bool:
    """Say whether an answer is overdue, and the peer not lost yet."""
    return (
        history.known
        and not history.lost
        and history.missed > 0
        and now - history.missed_since >= DOUBT
    )


def due(histories: Mapping[str, History], now: float) -> list[str]:
    """Return the peers to be asked now."""
    doubtful = sorted(
        (node for node, history in histories.items() if in_doubt(history, now)),
        key=lambda node: (histories[node].missed_since, node),
    )
    hurried = frozenset(doubtful[:HURRIED])
    usual = period(len(histories))
    found = []
    for node, history in sorted(histories.items()):
        wait = HURRY if node in hurried else usual
        # A little early is on time: looks happen at whole ticks.
        if history.sent_at is None or now - history.sent_at >= wait - 0.01:
            found.append(node)
    return found


def together(echoes: Mapping[str, History], knocks: Mapping[str, History]) -> dict[str, History]:
    """Return what counts of each peer: it is lost when either says so, since the first did."""
    found = dict(echoes)
    for node, history in knocks.items():
        since, other = history.lost_since, echoes[node].lost_since if node in echoes else 0.0
        if node in echoes and since is not None and (other is None or since < other):
            found[node] = history
    return found


def unreachable(histories: Mapping[str, History]) -> frozenset[str]:
    """Return the peers that get no new connections.

    Where more than half of several peers are silent, it is rather this node that is cut off:
    those lost first are taken out, and never more than half.
    """
    lost = sorted(
        (history.lost_since, node)
        for node, history in histories.items()
        if history.lost_since is not None
    )
    most = len(histories) // 2 if len(histories) >= FEW else len(histories)
    return frozenset(node for _, node in lost[:most])
