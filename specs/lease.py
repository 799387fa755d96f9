"""Who may run the one copy of an exclusive service, and until when (pure).

Both sides of a lease: :class:`NodeLeases` is a node's, :class:`LeaseBook` the controller's.
Neither ever reads a clock: ``now`` is the seconds of its own machine that count while that sleeps
or is frozen (CLOCK_BOOTTIME on a node; the controller's may stand still meanwhile, which only
makes it wait longer). The cases are in docs/adr/0023-exclusive-services-run-under-a-lease.md.

The law: of two tasks of one exclusive service never are both *held* at one instant, as long as
no clock runs more than :data:`DRIFT` fast or slow. It rests on three rules:

1. A node counts a lease from before it asked; the controller from when it answered, and longer.
2. A node goes on without a controller only by the word of every other member that it has none,
   and who gave that word begins nothing for a whole term.
3. A controller that has just begun remembers nothing: it gives nothing new for a whole term.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

TERM = 15.0  # seconds a lease lasts, from before it was asked for
DRIFT = 0.01  # a clock is at most that much fast or slow
WAIT = TERM * 1.05  # who gave it counts that long: more than (1 + DRIFT) / (1 - DRIFT)
RENEW = 2.0  # seconds between two times of asking
AGAIN = 0.5  # the same for the members: from when they may say yes to the stop it is two seconds
ALONE = 5.0  # seconds without an answer after which the other members are asked
STOP = 10.0  # seconds without any after which the task is told to stop,
KILL = 13.0  # and after which it is killed
HEARD = 6.0  # seconds a node counts as having a controller after that has spoken
ASKS = 8  # questions a node remembers


def left_of(until: float, now: float) -> str:
    """Return what a lease that ends then means now: held, ending (stop), over (kill)."""
    left = until - now
    if left > TERM - STOP:
        return "held"
    return "ending" if left > TERM - KILL else "over"


@dataclass
class NodeLeases:
    """What one node holds. ``begun``: when its agent began; it may have given its word before."""

    begun: float
    until: dict[str, float] = field(default_factory=dict)  # task -> when its lease ends
    members: tuple[str, ...] = ()  # the other nodes, as the last answer named them
    told: float = float("-inf")  # when a controller last spoke
    renewed: float = float("-inf")  # the newest question that was answered
    vouched: float = float("-inf")  # when this node last said that it has no controller
    asked: dict[int, float] = field(default_factory=dict)
    number: int = 0

    def ask(self, now: float) -> int:
        """Note that a lease is asked for; return the number of the question."""
        self.number += 1
        self.asked[self.number] = now
        for old in [n for n in self.asked if n <= self.number - ASKS]:
            del self.asked[old]
        return self.number

    def hear(self, now: float) -> None:
        """Note that a controller spoke."""
        self.told = now

    def answered(
        self, question: int, tasks: Collection[str], members: tuple[str, ...], now: float
    ) -> dict[str, str]:
        """Take the answer to a question; return the tasks that do not begin yet, and why."""
        since = self.asked.get(question)
        if since is None:
            return {}
        self.members, self.renewed = members, max(self.renewed, since)
        waits = {}
        for task in tasks:
            known = self.until.get(task, float("-inf"))
            if known <= now and self.bound(now) > 0:
                waits[task] = "this node may have said a moment ago that it has no controller"
                continue
            self.until[task] = max(known, since + TERM)
        return waits

    def bound(self, now: float) -> float:
        """Return the seconds for which nothing may begin here, because others rely on our word."""
        return max(self.vouched, self.begun) + WAIT - now

    def vouch(self, now: float) -> bool:
        """Say whether this node has no controller, which binds it for a term."""
        if now - self.told < HEARD:
            return False
        self.vouched = now
        return True

    def alone(self, now: float) -> bool:
        """Say whether it is time to ask the other members."""
        holds = any(until > now for until in self.until.values())
        return holds and now - self.renewed >= ALONE and now - self.told >= HEARD

    def vouched_for(self, asked_at: float, yes: Collection[str], now: float) -> bool:
        """Go on if every other member has no controller, asked at ``asked_at``; say whether so."""
        if not set(self.members) <= set(yes):
            return False
        for task, until in self.until.items():
            if until > now:  # what has ended is begun again by a controller only
                self.until[task] = max(until, asked_at + TERM)
        self.renewed = max(self.renewed, asked_at)
        return True

    def stage(self, task: str, now: float) -> str:
        """Return "" where it has none, else held, ending or over."""
        until = self.until.get(task)
        return "" if until is None else left_of(until, now)

    def holds(self, now: float) -> tuple[str, ...]:
        """Return the tasks whose lease has not ended."""
        return tuple(sorted(task for task, until in self.until.items() if until > now))


@dataclass(frozen=True)
class Candidate:
    """A task of an exclusive service that is on a node.

    ``wanted``: it is to run. ``heard``: its node answers. ``over``: its node said that it has
    ended for good. ``order``: the newest is preferred.
    """

    task: str
    node: str
    wanted: bool
    heard: bool
    over: bool
    order: tuple[float, str]
    created_at: float = 0.0


@dataclass
class LeaseBook:
    """What a controller gave, since it began at ``begun``."""

    begun: float
    holder: dict[str, tuple[str, float]] = field(default_factory=dict)  # service -> task, until
    claims: dict[str, frozenset[str]] = field(
        default_factory=dict
    )  # node -> tasks it says it holds
    confirmed: dict[str, frozenset[str]] = field(default_factory=dict)  # node -> members it knows

    def answer(
        self,
        node: str,
        services: Mapping[str, Iterable[Candidate]],
        joined: Mapping[str, float],
        now: float,
    ) -> dict[str, str]:
        """Decide the node's leases as it is answered now: task -> "" (given), or why not."""
        found: dict[str, str] = {}
        for service, tasks in services.items():
            known = list(tasks)
            here = [one for one in known if one.node == node and not one.over]
            if not here:
                continue
            chosen, why = self._holder(service, known, joined, now)
            for one in here:
                found[one.task] = "" if one.task == chosen else why
            if any(one.task == chosen for one in here):
                self.holder[service] = (chosen, now + WAIT)
        return found

    def _holder(  # noqa: PLR0911 - a table of cases
        self,
        service: str,
        tasks: list[Candidate],
        joined: Mapping[str, float],
        now: float,
    ) -> tuple[str, str]:
        """Return the task that has the lease, or is to have it; and why the others wait."""
        task, until = self.holder.get(service, ("", 0.0))
        holder = next((one for one in tasks if one.task == task), None)
        if task and not (holder is not None and holder.over):
            if holder is not None and holder.heard:
                return task, "another copy of it has the lease"
            if now < until:
                return task, "the lease of the copy before it has not ended yet"
        claimed = [o for o in tasks if o.task in self.claims.get(o.node, ()) and not o.over]
        if not task and claimed:
            return claimed[0].task, "another copy of it has the lease"
        if not task and now < self.begun + WAIT:
            return "", f"the controller has just begun: it gives no new lease for {WAIT:.0f} s"
        able = [one for one in tasks if one.wanted and one.heard and not one.over]
        if not able:
            return "", "no copy of it may run"
        best = max(able, key=lambda one: one.order)
        for other in tasks:
            if not other.over and not other.heard and not self._bound(best, other, joined):
                return "", (
                    "its node joined when a copy could not be told of it any more; it waits for"
                    " that copy's node to answer, or to be removed"
                )
        return best.task, "another copy of it gets the lease"

    def _bound(self, one: Candidate, other: Candidate, joined: Mapping[str, float]) -> bool:
        """Say whether the other's node cannot go on without the word of this one's node."""
        if one.node == other.node or one.node in self.confirmed.get(other.node, ()):
            return True
        return joined.get(one.node, float("inf")) < other.created_at
