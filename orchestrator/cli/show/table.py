"""Lists for people (aligned columns) and for programs (one JSON object a line)."""

from __future__ import annotations

import os
import sys
import unicodedata

from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TextIO

GAP = "   "
LEAST = 8  # columns a cut cell keeps at least


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


def first_line(text: str) -> str:
    """Return what a reason says before the details that follow it line by line, printable."""
    return printable(text.partition("\n")[0])


def render(headers: Sequence[str], rows: Iterable[Sequence[Any]], limit: int | None = None) -> str:
    """Return an aligned table; the last column is not padded.

    No line is wider than ``limit`` (the terminal; 0 = any): the widest cells are cut.
    """
    lines = [list(headers), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(width(line[i]) for line in lines) for i in range(len(headers))]
    limit = terminal() if limit is None else limit
    if limit:
        widths = fitting(widths, [max(width(name), LEAST) for name in headers], limit)
        lines = [[cut(cell, widths[i]) for i, cell in enumerate(line)] for line in lines]
    texts = (
        GAP.join(cell + " " * (widths[i] - width(cell)) for i, cell in enumerate(line)).rstrip()
        for line in lines
    )
    return "\n".join(cut(text, limit) if limit else text for text in texts)


def terminal(stream: TextIO | None = None) -> int:
    """Return the columns of the terminal on a stream, standard output; 0 = it is none."""
    stream = stream or sys.stdout
    if not stream.isatty():
        return 0
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return 0


def fitting(widths: Sequence[int], least: Sequence[int], limit: int) -> list[int]:
    """Return widths of columns that fit: the widest lose first, the first one (a name) last."""
    found = list(widths)
    for columns in (range(1, len(found)), range(1)):
        while sum(found) + len(GAP) * (len(found) - 1) > limit:
            open_ = [i for i in columns if found[i] > least[i]]
            if not open_:
                break
            found[max(open_, key=lambda i: found[i])] -= 1
    return found


def cut(text: str, limit: int) -> str:
    """Return ``text`` in ``limit`` columns: cut behind a word where one ends late enough."""
    if width(text) <= limit:
        return text
    kept, used = "", 0
    for char in text:
        used += width(char)
        if used > limit - 1:
            break
        kept += char
    words = kept.rpartition(" ")[0].rstrip()
    if not text[len(kept)].isspace() and width(words) >= limit // 2:
        kept = words
    return kept.rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def json_lines(rows: Iterable[dict[str, Any]]) -> str:
    """Return one compact JSON object a line."""
    return "\n".join(jsontext.shown(row) for row in rows)


def show(text: str) -> None:
    """Print, unless there is nothing to print."""
    if text:
        print(text)
