"""Lists for people (aligned columns) and for programs (one JSON object a line)."""

from __future__ import annotations

import json
import unicodedata

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

GAP = "   "


def width(text: str) -> int:
    """Return how many terminal columns ``text`` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def printable(text: str) -> str:
    """Return ``text`` with control characters made harmless for a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def render(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return an aligned table; the last column is not padded."""
    lines = [list(headers), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(width(line[i]) for line in lines) for i in range(len(headers))]
    return "\n".join(
        GAP.join(cell + " " * (widths[i] - width(cell)) for i, cell in enumerate(line)).rstrip()
        for line in lines
    )


def json_lines(rows: Iterable[dict[str, Any]]) -> str:
    """Return one compact JSON object a line."""
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def show(text: str) -> None:
    """Print, unless there is nothing to print."""
    if text:
        print(text)
