"""Follow a progress stream to its end and show it: a live tree or plain lines.

Called by up, down, scale, stop, node. A controller that dies on the way is waited
for, because what it was told is durable: the stream is opened again and starts with
the present state.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from orchestrator.cli import said, wishes
from orchestrator.cli.errors import ERROR, INTERRUPTED, CliError
from orchestrator.cli.show import board as boards
from orchestrator.client.errors import ApiNotFound, BadAnswer, ClientError, NoAnswer, NoController
from orchestrator.client.http import quote
from specs.kit.amounts import as_set

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from orchestrator.cli.session import Invocation
    from orchestrator.cli.show.board import Board

    class View(Protocol):
        """Shows a board; lines of containers go through it so that they do not mix."""

        def update(self, lines: list[str]) -> None: ...

        def output(self, text: str, *, error: bool = False) -> None: ...

        def close(self) -> None: ...


SILENCE = 20.0  # seconds without a line before we ask whether the controller still answers
AWAY = 60.0  # how long a controller that went away is waited for
RETRY = 0.25
PAUSE = 3.0  # seconds of silence before a line says what is waited for
LAST_WORDS = 5.0  # seconds the log lines of what failed are waited for
HASTY = 100  # streams that end at once before it is taken for a fault


class Plain:
    """One line to stderr for each change; container output to stdout.

    With a board it also says what is waited for when nothing has changed for a while, ever
    more rarely.
    """

    def __init__(self, board: Board | None = None) -> None:
        self._board = board
        self._began = self._last = time.monotonic()
        self._pause = PAUSE
        self._closed = threading.Event()
        if board is not None:
            threading.Thread(target=self._remind, name="corral-still", daemon=True).start()

    def update(self, lines: list[str]) -> None:
        for line in lines:
            print(line, file=sys.stderr, flush=True)
            self._last = time.monotonic()

    def output(self, text: str, *, error: bool = False) -> None:
        print(text, file=sys.stderr if error else sys.stdout, flush=True)

    def close(self) -> None:
        """End the reminders."""
        self._closed.set()

    def _remind(self) -> None:
        while not self._closed.wait(max(0.05, self._last + self._pause - time.monotonic())):
            if time.monotonic() < self._last + self._pause or self._board is None:
                continue
            text = boards.still(self._board, time.monotonic() - self._began)
            self._pause *= 2
            if text:
                self.update([text])


class Quiet(Plain):
    """Shows nothing but warnings and container output."""

    def update(self, lines: list[str]) -> None:
        super().update([line for line in lines if line.startswith("warning:")])


class JsonLines(Plain):
    """Each change as one JSON object on stderr, with the keys of Compose's."""

    def update(self, lines: list[str]) -> None:
        for line in lines:
            level, mark, text = line.partition(": ")
            known = mark and level in ("warning", "error")
            row = said.row(text, level) if known else said.row(line, said.INFO)
            super().update([row])


def make_view(board: Board) -> View:
    """Return the live tree on a terminal, plain lines elsewhere (--progress decides)."""
    wish = wishes.progress()
    if wish == "quiet":
        return Quiet()
    if wish == "json":
        return JsonLines(board)
    live = (
        wishes.ansi() != "never"
        and sys.stderr.isatty()
        and os.environ.get("TERM") not in (None, "", "dumb")
    )
    if wish == "tty" or (wish == "auto" and live):
        from orchestrator.cli.show.live import Tree  # rich: 100 ms, after the request is on its way

        return Tree(board)
    return Plain(board)


class TooLate(Exception):
    """The user's own time limit is over; what was asked for goes on."""


class Stalled(Exception):
    """All that is left of the release waits for a node; it goes on."""


class Watcher:
    """Opens the progress stream again until it has said how it ended."""

    def __init__(
        self,
        session: Invocation,
        path: str,
        query: Mapping[str, Any],
        *,
        limit: float | None = None,
    ) -> None:
        self._session = session
        self._until = None if limit is None else time.monotonic() + limit
        self._path = path
        self._query = query
        self._stream: Any = None
        self.cancelled = False

    def run(self, take: Callable[[Mapping[str, Any]], None]) -> bool:
        """Hand every line to ``take``; True when the stream said ``end``.

        False when what it watches is gone or ``cancel`` was called. Raises NoAnswer when
        the controller stays away, TooLate when ``limit`` seconds are over.
        """
        away_since: float | None = None
        hasty = 0
        while not self.cancelled:
            opened = time.monotonic()
            try:
                self._left()
                self._stream = self._session.client.stream(
                    "GET", self._path, query=self._query, idle=SILENCE, until=self._until
                )
                for line in self._stream:
                    away_since = None
                    self._left()
                    take(line)
                    if line.get("kind") == "end":
                        return True
                if self.cancelled:
                    break
            except ApiNotFound:
                return False
            except NoAnswer as exc:
                if self.cancelled:
                    break
                self._left()
                away_since = self._still_away(away_since, exc)
            # Also a stream that ended without saying so is opened again, but not for ever.
            if away_since is None and time.monotonic() - opened < 1.0:
                hasty += 1
            if hasty > HASTY:
                raise BadAnswer("the controller's progress stream ends again and again")
            time.sleep(RETRY)
        return False

    def _left(self) -> float:
        """Return the seconds left, and raise TooLate when there are none."""
        if self._until is None:
            return SILENCE
        left = self._until - time.monotonic()
        if left <= 0:
            raise TooLate
        return left

    def _still_away(self, since: float | None, exc: NoAnswer) -> float | None:
        now = time.monotonic()
        try:
            self._session.client.request("GET", "/v1/version", timeout=5.0)
        except NoAnswer:
            if since is not None and now - since > AWAY:
                raise NoAnswer(
                    f"the controller has not answered for {AWAY:.0f} s: {exc}",
                    hint="corral controller status; what was asked for is stored and goes on "
                    "when the controller is back",
                ) from exc
            return since or now
        return None

    def cancel(self) -> None:
        """Make ``run`` return soon, from any thread."""
        self.cancelled = True
        if self._stream is not None:
            self._stream.close()


def rows(
    session: Invocation, *, every: bool = False, oneoffs: bool = False, first: bool = False
) -> list[dict[str, Any]]:
    """Return the stack's tasks, with ``every`` those that have ended too, over a restart.

    ``oneoffs``: and of these what `run` made. ``first``: nothing was asked for so far, so that a
    controller that is not there is no matter of waiting. Raises NoAnswer when it stays away.
    """
    until = time.monotonic() + AWAY
    while True:
        try:
            found: list[dict[str, Any]] = session.client.get(
                session.path("tasks"), all=every, **({"oneoffs": True} if oneoffs else {})
            )["tasks"]
        except NoAnswer as exc:
            if time.monotonic() > until or (first and isinstance(exc, NoController)):
                raise
            time.sleep(RETRY)
        else:
            return found


def follow(
    session: Invocation,
    board: Board,
    path: str,
    query: Mapping[str, Any] | None = None,
    *,
    limit: float | None = None,
    patient: bool = True,
) -> bool:
    """Show the stream until its end; return whether it ended well (or its object is gone).

    Raises Stalled where nothing is under way any more, unless ``patient``.
    """
    view = make_view(board)

    def take(line: Mapping[str, Any]) -> None:
        view.update(board.apply(line))
        if board.stalled and not patient:
            raise Stalled

    try:
        ended = Watcher(session, path, query or {}, limit=limit).run(take)
    finally:
        view.close()
    return not ended or bool(board.outcome)


def release(
    session: Invocation,
    board: Board,
    number: object,
    *,
    limit: float | None,
    patient: bool = True,
    late: str,
    interrupted: Callable[[], str],
    check: Callable[[], str] | None = None,
) -> int:
    """Show a release until its end; return the exit code.

    ``late`` says what the stack is not when ``limit`` is over, ``interrupted`` what to tell a
    person who leaves, ``check`` what is wrong all the same when it ended well. Raises CliError
    when it takes too long.
    """
    command = command_prefix(session)
    began = time.monotonic()
    path = f"/v1/stacks/{quote(board.stack)}/progress"
    try:
        good = follow(session, board, path, {"release": number}, limit=limit, patient=patient)
    except Stalled:
        said.tell(boards.nowhere(board, command=command), said.ERROR)
        return ERROR
    except TooLate:
        left = ", ".join([*boards.waiting(board), *boards.unfinished(board)]) or "no reason given"
        raise CliError(
            f"{board.stack} {late} after {as_set(limit or 0)}: {left}",
            hint=f"it goes on in the background: {command} ps",
        ) from None
    except KeyboardInterrupt:
        said.tell(f"\n{interrupted()}", said.WARNING)
        return INTERRUPTED
    wrong = check() if good and check is not None else ""
    if wrong:
        good, board.end = False, {"message": wrong}
    if not good:
        last_words(session, board)
    return report(board, good=good, seconds=time.monotonic() - began, command=command)


def report(board: Board, *, good: bool, seconds: float, command: str) -> int:
    """Print how it ended to stderr; return the exit code."""
    if good:
        said.tell(boards.success(board, seconds, command=command))
        return 0
    said.tell(boards.failure(board, command=command), said.ERROR)
    return 1


def last_words(session: Invocation, board: Board) -> None:
    """Add the failing container's last lines to how it ended, where it did not bring them.

    It may be running again, or the one that failed is known by its service only.
    """
    end = board.end
    if not end or end.get("ok") or end.get("log_tail") or not end.get("service"):
        return
    query = {"service": end["service"], "tail": 10}
    try:
        stream = session.client.stream(
            "GET", f"/v1/stacks/{quote(board.stack)}/logs", query=query, idle=LAST_WORDS
        )
        lines = [line for line in stream if end.get("task") in (line.get("task"), "", None)]
    except ClientError:
        return
    end["log_tail"] = [str(line.get("line")) for line in lines][-10:]


def command_prefix(session: Invocation) -> str:
    """Return how the user calls corral for this stack: ``corral`` or ``corral -p NAME``."""
    flags = session.flags
    words = ["corral"]
    for name in flags.file:
        words += ["-f", name]
    if flags.project_name:
        words += ["-p", flags.project_name]
    return " ".join(words)
