"""What became of a scaling: which copies it added, and whether they came to stay. Pure.

``corral scale`` looks at the stack's tasks again and again and hands them in. What it added is
judged as a release's tasks are (``scheduler.trial``): a copy with a health check by the check, one
without by a second of running, and by its monitor time once anything of it has exited. What did
not work before, a crash loop or what a paused update left, is not scaling's to wait for: it is
named. Every wait ends: with the copies, with what is wrong with them, or because nothing moves.
"""

from __future__ import annotations

from orchestrator.cli.show import board as boards
from orchestrator.cli.show.table import printable
from specs.patience import ATTEMPTS, CRASHES, MONITOR, NOWHERE, SICK, TRIAL
from specs.states import TaskState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Row = Mapping[str, Any]

FOLLOWED = 3.0  # seconds after which nothing follows a task that failed
STUCK = 60.0  # seconds without progress after which waiting ends
LEAVING = 30.0  # seconds, when only tasks that should go are left
SHOWN = 5  # reasons in one line
COMING = (TaskState.ASSIGNED, TaskState.PREPARING, TaskState.STARTING)


class Copy:
    """One wanted copy: the task that fills its place now, and what was seen there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.row: Row = {}
        self.old = False  # its task was there before
        self._failed: set[str] = set()  # new tasks of it that ended as they should not
        self._since: dict[str, float] = {}  # what is so now -> when it began
        self._mark: tuple[Any, ...] = ()

    def look(self, row: Row, *, old: bool, now: float) -> None:
        """Take over how its task is now."""
        mark = (row.get("id"), row.get("restarts"))
        if mark != self._mark:
            self._mark = mark
            self._since.clear()
        self.row, self.old = row, old
        if not old and row.get("state") in boards.BAD:
            self._failed.add(str(row.get("id")))
        so = {
            "serves": bool(row.get("ready")),
            "ended": row.get("state") in boards.ENDED,
            "homeless": not row.get("node") and row.get("state") in boards.WAITING,
            "sick": row.get("health") == "unhealthy",
        }
        for what, true in so.items():
            if true:
                self._since.setdefault(what, now)
            else:
                self._since.pop(what, None)

    def _lasts(self, what: str, seconds: float, now: float) -> bool:
        return what in self._since and now - self._since[what] >= seconds

    @property
    def serves(self) -> bool:
        """Whether it does what it is for: it is ready, or a one-off that completed."""
        return bool(self.row.get("ready")) or self.row.get("state") == TaskState.COMPLETE

    def settled(self, now: float) -> bool:
        """Say whether it came to stay, or is as it was before: nothing of it is awaited."""
        if self.row.get("state") == TaskState.COMPLETE:
            return True
        if self.old:
            # What ended is started again, since so many copies were asked for.
            return "ended" not in self._since or self._lasts("ended", FOLLOWED, now)
        exited = self.row.get("restarts") or self._failed
        checked = self.row.get("health") not in ("none", "", None)
        return self._lasts("serves", MONITOR if exited else 0.0 if checked else TRIAL, now)

    def wrong(self, now: float) -> str:
        """Return why it will not come as it is; empty: it may."""
        if self.old or self.row.get("ready") or self.settled(now):
            return ""
        if len(self._failed) >= ATTEMPTS:
            return f"{self.text}; it failed again and again"
        if int(self.row.get("restarts") or 0) >= CRASHES:
            return f"{self.text}; never up for {MONITOR:g} s"
        limits = {"ended": FOLLOWED, "homeless": NOWHERE, "sick": SICK}
        over = any(self._lasts(what, seconds, now) for what, seconds in limits.items())
        return self.text if over else ""

    @property
    def text(self) -> str:
        """How it is, in the words of `ps`."""
        return f"{self.name}: {printable(str(self.row.get('status') or self.row.get('state')))}"

    @property
    def far(self) -> tuple[Any, ...]:
        """What changes as it gets on: bytes of its image do; crashes do, but not for ever."""
        state = self.row.get("state")
        loading = self.row.get("status") if state == TaskState.PREPARING else ""
        crashes = min(int(self.row.get("restarts") or 0), CRASHES)
        return state, crashes, min(len(self._failed), ATTEMPTS), loading


class Scaling:
    """All copies of the services that were scaled."""

    def __init__(
        self, stack: str, counts: Mapping[str, int], before: Iterable[Row], now: float
    ) -> None:
        self.counts = dict(counts)
        self._stack = stack
        self._before = {row.get("id") for row in before if not _comes(row)}
        self._copies: dict[tuple[str, int], Copy] = {}
        self._extra: tuple[str, ...] = ()  # tasks that are not wanted any more and still run
        self._other = ""  # what another command asked for meanwhile
        self._queued: dict[str, int] = {}
        self._mark: Any = None
        self._moved = now

    def look(
        self,
        rows: Iterable[Row],
        now: float,
        wanted: Mapping[str, object] | None = None,
        queued: Mapping[str, int] | None = None,
    ) -> None:
        """Take in all tasks of the stack, and how many of each service are wanted now.

        ``queued``: of a job, how many wait for their turn, and are not waited for.
        """
        self._queued = dict(queued or {})
        self._other = "; ".join(
            f"{name} is to have {now_wanted} by another command, no longer {count}"
            for name, count in self.counts.items()
            if (now_wanted := (wanted or {}).get(name, count)) != count
        )
        mine = [row for row in rows if row.get("service") in self.counts]
        places = _places(mine, self.counts)
        for place in self._copies.keys() - places.keys():
            del self._copies[place]
        for place, row in places.items():
            name = str(row.get("name")).removeprefix(f"{self._stack}-")
            copy = self._copies.setdefault(place, Copy(name))
            copy.look(row, old=row.get("id") in self._before, now=now)
        self._extra = tuple(
            sorted(
                str(row.get("id"))
                for row in mine
                if int(row.get("slot") or 0) > self.counts[str(row["service"])]
                and row.get("state") not in boards.ENDED
                and row.get("node_status") != "down"
            )
        )
        far = {place: copy.far for place, copy in self._copies.items() if not copy.old}
        if (far, self._extra) != self._mark:
            self._mark, self._moved = (far, self._extra), now

    def _missing(self) -> list[str]:
        have = [service for service, _ in self._copies]
        return [
            f"{service} has {have.count(service)} of {count} copies"
            for service, count in self.counts.items()
            if have.count(service) + self._queued.get(service, 0) < count
        ]

    def settled(self, now: float) -> bool:
        """Say whether there are as many copies as wanted, and what was added came to stay."""
        if self._other:
            return False
        return not self._missing() and all(copy.settled(now) for copy in self._copies.values())

    def over(self, now: float) -> bool:
        """Say whether nothing more is waited for.

        What is too many must have ended, but its node may be away; and where one copy will not
        come, the others still get as far as they do.
        """
        still = now - self._moved
        if self._other:
            return True
        if self.settled(now):
            return not self._extra or still >= LEAVING
        pending = [copy for copy in self._copies.values() if not copy.settled(now)]
        if pending and not self._missing() and all(copy.wrong(now) for copy in pending):
            return True
        return still >= STUCK

    def wrong(self, now: float) -> tuple[Row, str]:
        """Return a copy that will not come, and why; or what everything waits for."""
        if self._other:
            return {}, self._other
        found = [(copy, text) for copy in self._copies.values() if (text := copy.wrong(now))]
        if found:
            return found[0][0].row, "; ".join(text for _, text in found[:SHOWN])
        waiting = [copy.text for copy in self._copies.values() if not copy.settled(now)]
        why = "; ".join([*waiting, *self._missing()][:SHOWN])
        return {}, f"no progress for {STUCK:.0f} s: {why}"

    def broken(self) -> list[str]:
        """Return which copies did not serve before and do not now."""
        return [copy.text for copy in self._copies.values() if copy.old and not copy.serves]

    def reached(self) -> str:
        """Return ``web 2/2, db 1/1``: how many copies serve, of how many."""
        serve = [service for (service, _), copy in self._copies.items() if copy.serves]
        return ", ".join(f"{name} {serve.count(name)}/{n}" for name, n in self.counts.items())


def _comes(row: Row) -> bool:
    """Say whether a copy is on its way for the first time, as another command may have asked."""
    first = not row.get("restarts") and row.get("started_at") is None
    return bool(row.get("stopping")) or (first and row.get("state") in COMING)


def _places(rows: Iterable[Row], counts: Mapping[str, int]) -> dict[tuple[str, int], Row]:
    """Return the task that counts for each place, by service and slot; stopped ones fill none."""
    found: dict[tuple[str, int], Row] = {}
    for row in sorted(rows, key=_rank):
        service, slot = str(row["service"]), int(row.get("slot") or 0)
        gone = row.get("stopping") or row.get("state") in (TaskState.SHUTDOWN, TaskState.ORPHANED)
        if slot <= counts[service] and not gone:
            found[service, slot] = row
    return found


def _rank(row: Row) -> tuple[Any, ...]:
    live = row.get("state") not in boards.ENDED
    return live, bool(row.get("ready")), row.get("created_at") or 0.0, str(row.get("id"))
