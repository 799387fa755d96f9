"""The progress tree on a terminal: services in a stable order, finished ones on one line.

The only module that imports rich. It redraws in its own thread a few times a
second, however many lines come, and so that the time runs on while none does.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from orchestrator.cli.show.board import BAD, ENDED
from specs.kit.amounts import elapsed

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.cli.show.board import Board, ServiceLine, TaskLine

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAMES = 8  # a second


class Tree:
    """Draws a board at the bottom of the terminal; other lines go above it."""

    def __init__(self, board: Board, console: Console | None = None) -> None:
        self._board = board
        self._console = console or Console(file=sys.stderr, highlight=False, soft_wrap=False)
        self._began = time.monotonic()
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=FRAMES,
            transient=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def update(self, lines: list[str]) -> None:
        """Warnings and steps stay on the screen; everything else is in the tree."""
        for line in lines:
            if line.startswith("warning:") or not (self._board.services or self._board.state):
                self._console.print(Text(line, style="yellow" if line[:8] == "warning:" else ""))

    def output(self, text: str, *, error: bool = False) -> None:
        """Print a container's line above the tree, or where its stream is sent."""
        if error or sys.stdout.isatty():
            self._console.print(Text.from_ansi(text), soft_wrap=True)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Draw the last state and give the terminal back."""
        self._live.stop()

    def _draw(self) -> RenderableType:
        board = self._board
        seconds = time.monotonic() - self._began
        spin = SPINNER[int(seconds * FRAMES) % len(SPINNER)]
        running, wanted = board.counts
        head = Text("[+] ")
        head.append(f"{board.what} " if board.what else "", style="bold")
        head.append(f"{running}/{wanted} " if wanted else "", style="cyan")
        head.append(board.state, style="dim")
        head.append(f"  {elapsed(seconds)}", style="dim")
        rows = [head]
        width = max((len(name) for name in board.services), default=0)
        # The tree must fit: a taller one would scroll, and rich would draw it twice.
        room = max(4, self._console.height - 3 - len(board.services))
        for service in list(board.services.values()):
            rows.append(self._service(service, spin, width))
            for task in self._open_tasks(service):
                if room <= 0:
                    break
                rows.append(self._task(task, spin))
                room -= 1
            said = self._made(service.name)
            if said and room > 0:
                rows.append(Text(f"     {said}", style="dim"))
                room -= 1
        for task in self._leaving():
            if room > 0:
                rows.append(self._task(task, spin))
                room -= 1
        for name in list(board.building):
            said = self._made(name) if name not in board.services else ""
            if said and room > 0:
                rows.append(Text(f"     {name}  {said}", style="dim"))
                room -= 1
        limit = max(5, self._console.height - 2)
        for row in rows:
            row.truncate(self._console.width - 1, overflow="ellipsis")
        return Group(*rows[:limit])

    def _made(self, name: str) -> str:
        """Return the last step of a service's build, or how far its image is."""
        lines = self._board.building.get(name)
        return lines[-1] if lines and self._board.state in ("", "pending") else ""

    def _open_tasks(self, service: ServiceLine) -> list[TaskLine]:
        return [
            task
            for task in list(self._board.tasks.values())
            if task.service == service.name
            and task.state not in ("complete", "shutdown", "removed")
            and not (task.state == "running" and task.ready)
        ]

    def _leaving(self) -> list[TaskLine]:
        """Return what a stop or removal, which has no services to show, still waits for."""
        return [
            task
            for task in list(self._board.tasks.values())
            if task.service not in self._board.services and task.state not in ENDED
        ]

    def _service(self, service: ServiceLine, spin: str, width: int) -> Text:
        failed = any(
            task.service == service.name and task.state in BAD
            for task in list(self._board.tasks.values())
        )
        mark, style = ("✔", "green") if service.done else ("✘", "red") if failed else (spin, "cyan")
        row = Text(f" {mark} ", style=style)
        row.append(f"{service.name:<{width}}  ", style="bold" if not service.done else "")
        row.append(f"{service.running}/{service.wanted}", style=style)
        if service.message:
            row.append(f"  {service.message}", style="yellow")
        elif service.state and not service.done:
            row.append(f"  {service.state}", style="dim")
        return row

    def _task(self, task: TaskLine, spin: str) -> Text:
        bad = task.state in BAD
        row = Text("     ")
        row.append("✘ " if bad else f"{spin} ", style="red" if bad else "cyan")
        row.append(task.name)
        if task.node:
            row.append(f"  {task.node}", style="dim")
        row.append(f"  {task.text()}", style="red" if task.state in ENDED else "dim")
        return row
