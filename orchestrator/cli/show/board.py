"""What a progress stream has said so far, and what of it is worth a line.

Pure: orchestrator.cli.show.watch feeds it the controller's Progress lines; the live
tree and the plain printer show it. Repeating a line changes nothing, so a stream
that broke off may be opened again.
"""

from __future__ import annotations

from orchestrator.cli.show import times
from orchestrator.cli.show.table import first_line, printable
from specs.kit.amounts import elapsed, some
from specs.states import BROKEN, FINAL, UNPLACED, TaskState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

REMOVED = "removed"  # what the stream says of a task whose record is gone
# A task only moves forward in this list; a stream that was opened again may lag behind.
RANK: dict[str, int] = {state: place for place, state in enumerate((*TaskState, REMOVED))}
WAITING = frozenset({*UNPLACED, TaskState.PREPARED})
# States a task passes through in moments: shown in the tree, not worth a line of text.
PASSING = WAITING | {TaskState.ASSIGNED, TaskState.PREPARING, TaskState.STARTING}
BAD = BROKEN
ENDED = FINAL | {REMOVED}
SHUTDOWN = TaskState.SHUTDOWN
SHOWN = 5  # names in one line
BUILD_TAIL = 10  # lines of build output kept for the failure paragraph


class TaskLine:
    """One task, as the stream described it last."""

    def __init__(self, name: str, service: str) -> None:
        self.name = name
        self.service = service
        self.node = ""
        self.state = "new"
        self.ready = False
        self.message = ""
        self.reason = ""  # the part of the message that says why; the same at every try
        self.health = ""
        self.doing = ""
        self.stopping = False
        self.restarting = False
        self.retries = False
        self.told = ""  # the last plain line about it
        self.crashed = False  # that line told of a crash

    def take(self, line: Mapping[str, Any]) -> None:
        """Take over what a line says."""
        self.node = str(line.get("node") or self.node)
        self.state = str(line.get("state") or "")
        self.ready = bool(line.get("ready"))
        self.message = printable(str(line.get("message") or ""))
        self.reason = printable(str(line.get("reason") or ""))
        self.health = str(line.get("health") or "none")
        self.doing = str(line.get("doing") or "")
        self.stopping = bool(line.get("stopping"))
        self.restarting = bool(line.get("restarting"))
        self.retries = bool(line.get("retries"))

    def text(self) -> str:
        """Return the controller's phrase for it, or the bare state."""
        return self.message or self.state


class ServiceLine:
    """One service: how many replicas of how many, and what it waits for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = 0
        self.wanted = 0
        self.state = ""
        self.message = ""
        self.told = ""

    @property
    def done(self) -> bool:
        return self.state in ("complete", "done") or (
            0 < self.wanted <= self.running and not self.message
        )


class Board:
    """Release, services and tasks of one operation."""

    def __init__(self, stack: str, what: str = "") -> None:
        self.stack = stack
        self.what = what  # "release 3", "down" ...: the heading
        self.release = 0  # its number, where what ran before it is no news
        self.state = ""
        self.reason = ""
        self.services: dict[str, ServiceLine] = {}
        self.tasks: dict[str, TaskLine] = {}
        self.building: dict[str, list[str]] = {}
        self.warned: list[str] = []
        self.homeless: dict[str, str] = {}  # service -> what no node takes, and why
        self.stalled = False  # and nothing else is under way
        self.orphans: list[str] = []
        self.objects: list[str] = []  # volumes and networks that went
        self.end: dict[str, Any] | None = None
        self._told = ""
        self._reasons: set[tuple[str, str, str]] = set()
        self.removing = what == "down"  # else what becomes of ended tasks is no news
        self.ending = what in ("down", "stop")  # what still runs is no news then

    @property
    def counts(self) -> tuple[int, int]:
        """Return replicas running and replicas wanted."""
        return (
            sum(service.running for service in self.services.values()),
            sum(service.wanted for service in self.services.values()),
        )

    @property
    def outcome(self) -> bool | None:
        """Return how it ended, None while it goes on."""
        return None if self.end is None else bool(self.end.get("ok"))

    def short(self, name: str) -> str:
        """Return a task's name without the stack's: web-1."""
        return printable(name.removeprefix(f"{self.stack}-"))

    def apply(self, line: Mapping[str, Any]) -> list[str]:
        """Take one Progress line in; return what to print where there is no terminal."""
        take = {
            "release": self._release,
            "service": self._service,
            "task": self._task,
            "object": self._object,
            "build": self._build,
            "warning": self._warning,
            "homeless": self._homeless,
            "end": self._end,
        }.get(str(line.get("kind")))
        return take(line) if take else []  # kinds of a newer controller are not for us

    def _end(self, line: Mapping[str, Any]) -> list[str]:
        self.end = dict(line)
        return []

    def _release(self, line: Mapping[str, Any]) -> list[str]:
        self.state = str(line.get("state") or "")
        self.reason = first_line(str(line.get("message") or line.get("reason") or ""))
        self.orphans = [printable(str(name)) for name in line.get("orphans") or ()]
        if self.state == "deploying":
            self.building.clear()  # it was built: what fails now is not the build
        text = f"{self.stack}: {self.what} {self.state}".replace("  ", " ")
        if self.reason:
            text += f": {self.reason}"
        if text == self._told:
            return []
        self._told = text
        return [text]

    def _service(self, line: Mapping[str, Any]) -> list[str]:
        name = str(line.get("service") or "")
        service = self.services.setdefault(name, ServiceLine(name))
        service.running = int(line.get("running") or 0)
        service.wanted = int(line.get("wanted") or 0)
        service.state = str(line.get("state") or "")
        service.message = printable(str(line.get("message") or ""))
        # Counts are the tasks' own news; a line is due only for a new reason to wait.
        if not service.message or service.message == service.told:
            return []
        service.told = service.message
        return [f"{name}: {service.message}"]

    def _task(self, line: Mapping[str, Any]) -> list[str]:
        key = str(line.get("task") or line.get("name") or "")
        task = self.tasks.get(key)
        fresh = task is None
        if task is None:
            name = self.short(str(line.get("name") or key))
            task = self.tasks[key] = TaskLine(name, str(line.get("service") or ""))
        state = str(line.get("state") or "")
        if RANK.get(state, 99) < RANK.get(task.state, 0):
            return []
        task.take(line)
        if fresh and (task.state in ENDED or self._known(task, line)):
            task.told = self._text(task)
            return []  # how it ended, or that it runs, is old news
        if task.state in PASSING:
            return self._passing(task)
        if (task.stopping and task.state not in ENDED) or self._expected(task):
            return []
        text = self._text(task)
        if text == task.told:
            return []
        task.told, task.crashed = text, task.restarting
        return [text]

    def _object(self, line: Mapping[str, Any]) -> list[str]:
        what, name = (printable(str(line.get(key) or "")) for key in ("doing", "name"))
        text = f"{what} {name}: {printable(str(line.get('state') or ''))}"
        if text in self.objects:
            return []
        self.objects.append(text)
        return [text]

    def _known(self, task: TaskLine, line: Mapping[str, Any]) -> bool:
        """Say whether it ran as it should before this release, which left it alone."""
        made = int(line.get("release") or 0)
        return 0 < made < self.release and task.ready and not task.stopping

    @staticmethod
    def _text(task: TaskLine) -> str:
        where = f" on {task.node}" if task.node else ""
        return f"{task.name}{where}: {task.text()}"

    def _expected(self, task: TaskLine) -> bool:
        """Say whether this is what anybody would expect, so that a line of it is noise."""
        if task.state == REMOVED:
            return not self.removing
        if task.state != TaskState.RUNNING:
            return False
        # A crash is one line, not three: that it waits and starts again follows from it.
        plain = task.ready and task.health == "none" and not task.restarting
        return self.ending or (task.crashed and plain)

    def _passing(self, task: TaskLine) -> list[str]:
        """Tell why tasks wait, once for all replicas; steps that take moments are no news."""
        slow = task.state in WAITING or task.doing == "image" or task.retries
        told = (task.service, task.state, task.reason)  # each try waits longer: no news
        if not task.reason or not slow or told in self._reasons:
            return []
        self._reasons.add(told)
        return [f"{task.service}: {task.text()}"]

    def _build(self, line: Mapping[str, Any]) -> list[str]:
        name = str(line.get("service") or "")
        text = printable(str(line.get("message") or "").rstrip())
        kept = self.building.setdefault(name, [])
        if kept[-1:] == [text]:
            return []
        kept.append(text)
        del kept[:-BUILD_TAIL]
        if line.get("doing") == "image":
            return [f"{name}: {text}"]
        return [f"{name} build | {text}"]

    def _homeless(self, line: Mapping[str, Any]) -> list[str]:
        service, message = (printable(str(line.get(key) or "")) for key in ("service", "message"))
        before = self.homeless.pop(service, "")
        self.stalled = bool(line.get("stalled"))
        if not message:
            return []
        hint = [f"to do: {line['hint']}"] if line.get("hint") else []
        rest = [printable(str(text)) for text in (*(line.get("nodes") or ()), *hint)]
        self.homeless[service] = text = "\n  ".join([f"{service}: {message}", *rest])
        return [f"warning: {text}"] if text != before else []

    def _warning(self, line: Mapping[str, Any]) -> list[str]:
        text = printable(str(line.get("message") or ""))
        if text in self.warned:
            return []
        self.warned.append(text)
        return [f"warning: {text}"]


def waiting(board: Board, *, besides: str = "") -> list[str]:
    """Return ``web (waiting for migrate)`` of every service that did not get there."""
    reasons = {
        service.name: service.message
        for service in board.services.values()
        if service.message and not service.done
    }
    for task in board.tasks.values():
        if task.state in WAITING and task.reason:
            reasons.setdefault(task.service, task.reason)
    return [f"{name} ({reason})" for name, reason in reasons.items() if name != besides]


def unfinished(board: Board) -> list[str]:
    """Return ``web-1 (starting: unhealthy)`` of every task that is on its way somewhere."""
    shown = {}
    for task in board.tasks.values():
        moving = task.state not in ENDED and (board.ending or not task.ready)
        if moving or (task.stopping and task.state not in ENDED):
            where = f" on {task.node}" if task.node else ""
            shown[task.name] = f"{task.name}{where} ({task.text()})"
    return [shown[name] for name in sorted(shown)]


def still(board: Board, seconds: float) -> str:
    """Return what a person who waits is told after some silence; empty: nothing is known."""
    names = unfinished(board) or waiting(board)
    if not names:
        return ""
    return f"{board.stack}: after {elapsed(seconds)} still {some(names, SHOWN)}"


def failure(board: Board, *, command: str = "corral") -> str:
    """Return the paragraph for an operation that failed: what, where, log lines, what next.

    ``command`` is how the user calls corral for this stack, for commands to copy.
    """
    end = board.end or {}
    service = str(end.get("service") or "")
    task = board.tasks.get(str(end.get("task") or ""))
    name = board.short(str(end.get("name") or "")) or (task.name if task else "")
    node = str(end.get("node") or "") or (task.node if task else "")
    message, *rest = str(end.get("message") or board.reason or "it did not get there").split("\n")
    message = printable(message)
    tail: list[str] = list(end.get("log_tail") or board.building.get(service) or rest)[-10:]
    what = f"{board.what} of {board.stack}" if board.what else board.stack
    if end.get("state") == "superseded":
        return _superseded(end, f"{what} was not finished: {message}", command)
    lines = [f"corral: {what} failed: {message}"]
    place = " on ".join(part for part in (name or service, node) if part)
    if place:
        code = end.get("exit_code")
        lines.append(f"  where: {place}" + (f", exit code {code}" if code is not None else ""))
    if tail:
        lines.append("  last lines:")
        lines += [f"    | {printable(str(text))}" for text in tail]
    blocked = waiting(board, besides=service)
    if blocked:
        lines.append(f"  blocked: {', '.join(blocked)}")
    hint = str(end.get("hint") or "")
    if not hint and service:
        hint = f"{command} logs {service}"
    elif not hint:
        hint = f"{command} ps -a" if board.tasks else f"once that is put right: {command} up"
    lines.append(f"  next: {printable(hint)}")
    return "\n".join(lines)


def _superseded(end: Mapping[str, Any], text: str, command: str) -> str:
    """Say which release took this one's place and when, and how this one may come after all."""
    if not end.get("by"):
        return f"corral: {text}\n  next: {command} ps"
    return (
        f"corral: {text} at {times.of_day(end.get('time'))}\n"
        f"  next: {command} ps shows what runs; if yours is to be the newest: {command} up -d"
    )


def nowhere(board: Board, *, command: str = "corral") -> str:
    """Return the paragraph for a release of which all that is left waits for a node."""
    what = f"{board.what} of {board.stack}" if board.what else board.stack
    told = "\n  ".join(board.homeless.values())
    return (
        f"corral: {what} waits for a node, and nothing else of it is under way\n  {told}\n"
        f"  it goes on in the background, at once when a node fits: {command} ps"
    )


def success(board: Board, seconds: float, *, command: str = "corral") -> str:
    """Return the closing line of an operation that got there, after what it did not do."""
    end = board.end or {}
    message = printable(str(end.get("message") or ""))
    running, wanted = board.counts
    count = f", {running}/{wanted} replicas" if wanted else ""
    text = message or f"{board.what} done{count}"
    if board.orphans:
        text += f", {', '.join(board.orphans)} kept as orphan{'s' * (len(board.orphans) > 1)}"
    done = [printable(str(name)) for name in end.get("completed") or ()]
    skipped = (
        f"{', '.join(done)}: completed before, not run again; "
        f"{command} restart {' '.join(done)} runs {'them' if len(done) > 1 else 'it'} again\n"
    )
    return (skipped if done else "") + f"{board.stack}: {text} ({elapsed(seconds)})"
