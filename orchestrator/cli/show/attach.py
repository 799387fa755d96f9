"""The attached `up`: progress and logs in one terminal, Ctrl-C, exit codes as Compose's.

Threads read the streams (progress, logs, events) into one queue; the main thread
alone decides and prints. What the containers do is read from the task list, level
triggered: an event only says that looking again is worth while.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from orchestrator.cli import said
from orchestrator.cli.show import board as boards
from orchestrator.cli.show import ends as laws
from orchestrator.cli.show import watch
from orchestrator.client.errors import ApiNotFound, ClientError, NoAnswer
from orchestrator.client.http import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from orchestrator.cli.session import Invocation
    from orchestrator.cli.show.output import Painter

HELD = 10_000  # lines that wait to be shown, about: who reads them waits then
LOOK = 1.0  # seconds between two looks at the tasks without an event
FINISH = 10.0  # seconds without a line of an ended container's log
UNKNOWN = 1  # the code of a container that failed, where none is known
STOP_PATIENCE = 60.0  # seconds beyond the grace period that a stop may take


class Exits:
    """Finds containers that ended between two task lists. Pure."""

    def __init__(self, release: int) -> None:
        self._seen: dict[str, tuple[str, int]] = {}
        self._release = release
        self.found: list[laws.SeenExit] = []  # what ended since we came, in that order
        self.stopping = False  # else what an earlier release ran is shut down to be replaced

    def look(
        self,
        rows: Iterable[Mapping[str, Any]],
        short: Callable[[str], str],
        code_of: Callable[[Mapping[str, Any]], int],
    ) -> list[str]:
        """Return ``web-1 exited with code 1`` for what ended since the last look."""
        lines = []
        # What ended first is told first: its code may be the one that counts.
        for row in sorted(rows, key=lambda row: float(row.get("finished_at") or 0.0)):
            state = str(row.get("state"))
            restarts = int(row.get("restarts") or 0)
            before = self._seen.get(row["id"])
            self._seen[row["id"]] = (state, restarts)
            if before == (state, restarts):
                continue
            name, code = short(str(row.get("name"))), code_of(row)
            # What had ended before we came is not news.
            ended = state in boards.ENDED and (before is None or before[0] not in boards.ENDED)
            again = restarts > (before[1] if before is not None else 0)
            if not ended and not again:
                continue
            if before is None and int(row.get("release") or 0) < self._release:
                continue  # it had ended before this release
            if not row.get("started_at"):
                continue
            old = int(row.get("release") or 0) < self._release
            if self.stopping or not old or state != boards.SHUTDOWN:
                self.found.append(laws.SeenExit(str(row.get("service")), name, code))
            lines.append(f"{name} exited with code {code}" + ("" if ended else " (restarting)"))
        return lines


class AttachedRun:
    """One attached run, from the accepted release to the exit code."""

    def __init__(
        self,
        session: Invocation,
        board: boards.Board,
        painter: Painter,
        *,
        stack: str,
        release: Mapping[str, Any],
        services: tuple[str, ...],
        ends: laws.Ends,
    ) -> None:
        self._session = session
        self._client = session.client
        self._board = board
        self._painter = painter
        self._path = f"/v1/stacks/{quote(stack)}"
        self._stack = stack
        self._release = release
        self._services = services
        # Ctrl-C may come at any instruction: queue.Queue would then keep its lock for ever.
        self._queue: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._streams: list[Any] = []
        self._over = threading.Event()
        self._lines: dict[str, tuple[list[int], float]] = {}  # task -> place, time of the newest
        self._finished: set[str] = set()  # tasks whose log was read to its end
        # Where nothing changed, what has ended of that release ended before.
        self._exits = Exits(int(release["number"]) + bool(release.get("unchanged")))
        self._view: watch.View | None = None
        self._watcher: watch.Watcher | None = None
        self._quiet = False
        self._only: list[str] = []  # our services, where others of the stack run beside them
        self._ends = ends

    # Readers: each in its own thread; they end when _over is set.

    def _read(self, kind: str, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except ClientError as exc:
                self._put("error", (kind, exc))
            self._put("over", kind)

        threading.Thread(target=run, name=f"corral-{kind}", daemon=True).start()

    def _put(self, kind: str, value: Any) -> None:
        while self._queue.qsize() >= HELD and not self._over.is_set():
            time.sleep(0.02)
        if not self._over.is_set():
            self._queue.put((kind, value))

    def _watch_progress(self, query: Mapping[str, Any]) -> None:
        watcher = watch.Watcher(self._session, f"{self._path}/progress", query)
        self._watcher = watcher
        self._read("progress", lambda: self._follow_progress(watcher))

    def _follow_progress(self, watcher: watch.Watcher) -> None:
        if not watcher.run(lambda line: self._put("progress", (watcher, dict(line)))) and not (
            watcher.cancelled
        ):
            self._put("progress", (watcher, {"kind": "end", "ok": True}))

    def _follow(self, path: str, query: Mapping[str, Any], kind: str) -> None:
        """Read a stream for as long as we are attached; reopen it when it breaks."""
        while not self._over.is_set():
            try:
                stream = self._client.stream("GET", path, query=query)
                self._streams.append(stream)
                for line in stream:
                    self._put(kind, line)
                self._streams.remove(stream)
            except ApiNotFound:
                return
            except NoAnswer:
                pass
            self._over.wait(watch.RETRY)
            if kind == "log" and self._lines:
                query = {**query, "since": min(when for _, when in dict(self._lines).values())}

    # The main thread.

    def run(self) -> int:
        """Show everything until the end; return the exit code."""
        began = time.monotonic()
        self._view = watch.make_view(self._board)
        try:
            self._watch_progress({"release": self._release["number"]})
            since = float(self._release.get("created_at") or 0.0) or None
            if self._services:  # none would mean all of them
                logs = {"service": list(self._services), "follow": True, "since": since}
                self._read("logs", lambda: self._follow(f"{self._path}/logs", logs, "log"))
            events = {"stack": self._stack}
            self._read("events", lambda: self._follow("/v1/events", events, "event"))
            return self._until_end(began)
        except KeyboardInterrupt:
            return self._interrupted()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._over.set()
        if self._watcher is not None:
            self._watcher.cancel()
        for stream in list(self._streams):
            stream.close()
        self._close_view()

    def _close_view(self) -> None:
        if self._view is not None:
            self._view.close()
            self._view = None

    def _until_end(self, began: float) -> int:
        deployed = looked = False
        next_look = 0.0
        while True:
            kind, value = self._next(max(0.0, next_look - time.monotonic()))
            self._show(kind, value)
            outcome = self._board.outcome
            if outcome and not deployed:
                self._close_view()
                command = watch.command_prefix(self._session)
                took = time.monotonic() - began
                said.tell(boards.success(self._board, took, command=command))
                deployed = True
            if outcome is not None and not looked:
                looked, next_look = True, 0.0  # a container that fails may fail the release
            if kind == "event":
                # A burst of events is worth one look.
                next_look = min(next_look, time.monotonic() + 0.1)
            if time.monotonic() < next_look:
                continue
            next_look = time.monotonic() + LOOK
            rows = self._look()
            if rows is None and outcome is not False:
                continue  # the controller is away: what runs is not known
            alive = _alive(rows or ())
            end = laws.decide(self._ends, self._exits.found, alive, deployed=outcome)
            if end is not None:
                return self._end(end, alive)

    def _end(self, end: laws.End, alive: Iterable[str]) -> int:
        command = watch.command_prefix(self._session)
        self._close_view()
        if end.how == "failed":
            self._drain()
            watch.last_words(self._session, self._board)
            return watch.report(self._board, good=False, seconds=0.0, command=command)
        if end.how == "aborted":
            self._stop(self._ends.stop_timeout)
        else:
            self._drain()
            if left := sorted(alive):
                runs = f"{', '.join(left)} {'run' if len(left) > 1 else 'runs'}"
                said.tell(f"{runs} on: {command} stop {' '.join(left)}", said.WARNING)
        code, words = laws.code(self._ends, end, self._exits.found)
        if words:
            said.tell(f"corral: {words}\n  next: {command} ps -a", said.ERROR)
        return code

    def _next(self, wait: float) -> tuple[str, Any]:
        try:
            return self._queue.get(timeout=min(max(wait, 0.02), LOOK))
        except queue.Empty:
            return "", None

    def _show(self, kind: str, value: Any) -> None:
        if kind == "progress":
            watcher, line = value
            if watcher is self._watcher:  # else left over from what an interrupt ended
                self._tell(self._board.apply(line))
        elif kind == "log":
            self._log(value)
        elif kind == "error" and value[0] == "progress":
            raise value[1]

    def _tell(self, lines: list[str]) -> None:
        if self._view is not None:
            self._view.update(lines)
        else:
            view = watch.Quiet() if self._quiet else watch.Plain()
            view.update(lines)

    def _log(self, line: Mapping[str, Any]) -> None:
        task, place = str(line.get("task")), list(line.get("place") or (0, 0, 0))
        known = self._lines.get(task)
        if known is not None and any(place) and place <= known[0]:
            return  # a stream that was reopened tells some lines again
        if any(place):
            self._lines[task] = (place, float(line.get("time") or 0.0))
        self._out(self._painter.text(line), error=line.get("stream") == "stderr")

    def _out(self, text: str, *, error: bool = False) -> None:
        if self._view is not None:
            self._view.output(text, error=error)
        else:
            watch.Plain().output(text, error=error)

    def _drain(self) -> None:
        """Print the log lines that are already on their way."""
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            kind, value = self._next(0.15)
            if not kind:
                return
            self._show(kind, value)

    def _look(self) -> list[dict[str, Any]] | None:
        """Tell what ended; return what the release is about, None where nobody answers."""
        try:
            rows: list[dict[str, Any]] = self._client.get(f"{self._path}/tasks", all=True)["tasks"]
        except ApiNotFound:
            return []  # removed by somebody else: no container is left
        except NoAnswer:
            return None
        # What the release is not about neither ends it nor keeps it from its end.
        mine = [row for row in rows if not row.get("carried")]
        if len(mine) < len(rows):
            self._only = sorted({str(row.get("service")) for row in mine})
        rows = mine
        lines = self._exits.look(rows, self._board.short, self._code_of)
        if lines:
            self._drain_now()
        self._finish(rows)
        for line in lines:
            self._out(line)
        return rows

    def _finish(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Print what ended containers printed, to the last line, also one without a newline.

        The stream that is followed may be behind; a log that is only read has an end.
        """
        ended = {
            str(row["id"]): row
            for row in rows
            if row.get("state") in boards.ENDED
            and row.get("started_at")
            and row.get("service") in self._services
            and str(row["id"]) not in self._finished
        }
        if not ended:
            return
        created = float(self._release.get("created_at") or 0.0)
        since = min(self._lines[task][1] if task in self._lines else created for task in ended)
        services = sorted({str(row.get("service")) for row in ended.values()})
        try:
            for line in self._client.stream(
                "GET",
                f"{self._path}/logs",
                query={"service": services, "since": since or None},
                idle=FINISH,
            ):
                if str(line.get("task")) in ended and any(line.get("place") or ()):
                    self._log(line)
        except ClientError:
            return  # a node that is away: what it sends later is printed then
        self._finished |= set(ended)

    def _code_of(self, row: Mapping[str, Any]) -> int:
        """Return the exit code of the newest run that has ended."""
        if row.get("exit_code") is not None:
            return int(row["exit_code"])
        try:
            whole = self._client.get(f"/v1/tasks/{quote(str(row['id']))}")
        except ClientError:
            return UNKNOWN if row.get("state") in boards.BAD else 0
        runs = (whole.get("status") or {}).get("runs") or ()
        codes = [run.get("exit_code") for run in runs if run.get("finished_at") is not None]
        if codes and codes[-1] is not None:
            return int(codes[-1])
        return UNKNOWN if row.get("state") in boards.BAD else 0

    def _drain_now(self) -> None:
        """Let a container's last words come before its exit."""
        for _ in range(1000):
            kind, value = self._next(0.05)
            if not kind:
                return
            self._show(kind, value)

    # Ends

    def _interrupted(self) -> int:
        self._close_view()
        command = watch.command_prefix(self._session)
        if not self._ends.stops_on_interrupt:
            said.tell(
                f"\n{self._stack} goes on without this terminal. "
                f"See it: {command} ps, {command} logs -f. Stop it: {command} stop",
                said.WARNING,
            )
            return 130
        said.tell("\nGracefully stopping... (press Ctrl+C again to force)", said.WARNING)
        try:
            self._stop(self._ends.stop_timeout)
        except KeyboardInterrupt:
            said.tell("\nKilling...", said.WARNING)
            self._stop(0.0)
        return 130

    def _stop(self, timeout: float | None) -> None:
        """Stop the stack, or our part of it, and go on printing until it is stopped.

        Services named on the command line are ours, not those that they depend on.
        """
        self._close_view()
        if self._watcher is not None:
            self._watcher.cancel()
        self._look()
        ours = list(self._ends.named) or self._only
        body = {"timeout": timeout, "services": ours}
        try:
            self._client.persist("POST", f"{self._path}/stop", body=body)
        except ApiNotFound:
            return  # removed by somebody else: no container is left
        self._board.end = None
        self._board.what = "stop"
        self._exits.stopping = True
        self._quiet = True  # how each container exits is told already
        if not ours:
            self._watch_progress({})
        until = time.monotonic() + (timeout or 10.0) + STOP_PATIENCE
        next_look = 0.0
        while self._board.outcome is None and time.monotonic() < until:
            kind, value = self._next(max(0.0, next_look - time.monotonic()))
            self._show(kind, value)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK
                rows = self._look()
                if rows is not None and not (_alive(rows) & set(ours or _alive(rows))):
                    break
        self._look()
        self._drain()
        if self._board.outcome is False:
            said.tell(boards.failure(self._board), said.ERROR)


def _alive(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the services of which something has not ended."""
    return {str(row.get("service")) for row in rows if row.get("state") not in boards.ENDED}
