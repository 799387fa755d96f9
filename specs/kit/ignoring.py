"""Docker's patterns of paths: `.dockerignore`, and `ignore` and `include` of a watch (pure).

A pattern means a path and everything below it. ``*`` and ``?`` stay inside one part of a path,
``**`` goes over any number of parts, ``!`` takes back what a pattern before it meant: the last
one that fits decides.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class PathPatterns:
    """Some patterns, asked of paths relative to the folder they are meant in."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._known: list[tuple[re.Pattern[str], bool]] = []
        self.takes_back = False
        for line in lines:
            text = line.strip()
            back = text.startswith("!")
            text = posixpath.normpath(text.removeprefix("!").strip() or ".").lstrip("/")
            if text in ("", "."):
                continue  # Docker's, too, means nothing by it
            self._known.append((_compiled(text), not back))
            self.takes_back |= back

    def __bool__(self) -> bool:
        return bool(self._known)

    def matches(self, path: str) -> bool:
        """Say whether the path, or a folder it lies in, is meant."""
        parts = path.split("/")
        ways = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
        found = False
        for pattern, means in self._known:
            if found is not means and any(pattern.fullmatch(way) for way in ways):
                found = means
        return found

    def closes(self, folder: str) -> bool:
        """Say whether everything below the folder is surely meant: it need not be looked at."""
        return not self.takes_back and self.matches(folder)


def lines_of(text: str) -> list[str]:
    """Return the patterns in the text of an ignore file: no comments, no byte order mark."""
    lines = text.removeprefix("\ufeff").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(_regex(pattern), re.DOTALL)
    except re.error:
        return re.compile(re.escape(pattern))  # a class that is none: the letters themselves


def _regex(pattern: str) -> str:
    made, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and pattern[at : at + 1] == "*":
            at += 1
            if pattern[at : at + 1] == "/":
                at += 1
            made += "(?:.*/)?" if at < len(pattern) else ".*"
        elif char == "*":
            made += "[^/]*"
        elif char == "?":
            made += "[^/]"
        elif char == "\\" and at < len(pattern):
            made += re.escape(pattern[at])
            at += 1
        elif char == "[" and (end := pattern.find("]", at + 1)) > 0:
            inner = pattern[at:end]
            not_ = inner[:1] in ("^", "!")
            inner = inner[not_:].replace("\\", "\\\\").replace("[", "\\[")
            made += f"(?!/)[{'^' if not_ else ''}{inner}]"
            at = end + 1
        else:
            made += re.escape(char)
    return made
