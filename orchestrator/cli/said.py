"""The one place that decides how --progress lets words beside a verb's output be said.

What goes on (``info``) is not said with quiet, what went wrong or was left undone always is;
with json every word is an object on a line of its own, so that standard error can be parsed.
"""

from __future__ import annotations

import sys
import time

from orchestrator.cli import wishes

INFO, WARNING, ERROR = "info", "warning", "error"


def tell(text: str, level: str = INFO, **more: str) -> None:
    """Say it on stderr as this command line wishes; ``more`` is told with json only."""
    wish = wishes.progress()
    if wish == "json":
        print(row(text, level, **more), file=sys.stderr, flush=True)
    elif wish != "quiet" or level != INFO:
        print(text, file=sys.stderr, flush=True)


def done(text: str) -> None:
    """Say what came of it, on stdout where that is for people: no result that a script wants."""
    if wishes.progress() in ("json", "quiet"):
        tell(text)
    else:
        print(text, flush=True)


def complain(message: str, hint: str = "") -> None:
    """Say what went wrong, and what to do next."""
    if wishes.progress() == "json":
        tell(message, ERROR, hint=hint)
        return
    tell(f"corral: {message}", ERROR)
    if hint:
        tell(f"  hint: {hint}", ERROR)


def row(text: str, level: str, **more: str) -> str:
    """Return the object that says it, with the keys of Compose's."""
    from specs.kit import jsontext

    text = text.strip().removeprefix("corral: ").removeprefix(f"{level}: ")
    found = {"time": time.time(), "text": text, "level": level}
    return jsontext.shown(found | {key: value for key, value in more.items() if value})
