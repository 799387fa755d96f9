"""What loading returns: the canonical model and where everything in it came from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from specs.compose.reading.tree import Map, Seq, SourceMark, child, mark_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from specs.compose.reading.interpolate import VariableUse
    from specs.compose.reading.variables import Environment
    from specs.problems import Position, Problem

_STEP = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Touch:
    """One step in the life of a value: where it was written, why, and with which variables."""

    position: Position
    how: str  # "set", "override", "extends", "include", "same item"
    variables: tuple[VariableUse, ...] = ()


@dataclass(frozen=True)
class Project:
    """A loaded Compose project.

    ``model`` has the shape of ``config --format json`` before ``$`` is doubled.
    ``tree`` is the canonical tree the model was made from; only its marks matter.
    """

    name: str
    working_dir: str
    files: tuple[str, ...]
    model: dict[str, Any]
    environment: Environment
    warnings: list[Problem]
    tree: Map = field(repr=False)
    profiles: tuple[str, ...] = ()
    disabled: dict[str, Any] = field(default_factory=dict)  # services whose profile is not active
    file_marks: dict[str, SourceMark] = field(default_factory=dict, repr=False)  # from env_file
    sources: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # file -> its text

    @cached_property
    def origins(self) -> dict[str, Position]:
        """Return dotted path -> where the final value was written, for all that was written."""
        found: dict[str, Position] = {}
        _collect(self.model, self.tree, "", found)
        found.update((path, mark.position) for path, mark in self.file_marks.items())
        return found

    def origin(self, path: str) -> Position | None:
        """Return where the value at ``path`` was written, or the nearest thing around it."""
        mark = self._mark(path)
        return mark.position if mark is not None else None

    def history(self, path: str) -> list[Touch]:
        """Return what touched the value at ``path``, oldest first; the last one won."""
        touches = []
        mark = self._mark(path)
        while mark is not None:
            touches.append(Touch(mark.position, mark.how or "set", mark.variables))
            mark = mark.previous
        return touches[::-1]

    def uses_of(self, variable: str) -> list[tuple[str, Touch]]:
        """Return every path a variable was put into, with how it was used there."""
        found = []
        for path, mark in _marks(self.tree, ""):
            step: SourceMark | None = mark
            while step is not None:
                if any(use.name == variable for use in step.variables):
                    touch = Touch(step.position, step.how or "set", step.variables)
                    found.append((path, touch))
                step = step.previous
        return found

    def _mark(self, path: str) -> SourceMark | None:
        if path in self.file_marks:
            return self.file_marks[path]
        here: Any = self.tree
        best: SourceMark | None = None
        for step in split_path(path, here):
            key = _listed(here, step) if isinstance(here, Seq) and isinstance(step, str) else step
            mark = mark_of(here, key)
            if mark is not None:
                best = mark
            try:
                here = here[key]
            except (KeyError, IndexError, TypeError):
                break
        return best


def split_path(path: str, tree: Any) -> Iterator[str | int]:
    """Yield the steps of a dotted path; keys with dots are recognised by the tree they walk."""
    here = tree
    while path:
        found = _STEP.match(path)
        if found and isinstance(here, list):
            step: str | int = int(found[1])
            path = path[found.end() :].removeprefix(".")
        else:
            step = _next_key(path, here)
            path = path[len(step) :].removeprefix(".")
        yield step
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            here = None


def _next_key(path: str, here: Any) -> str:
    if isinstance(here, dict):
        for end in range(len(path), 0, -1):  # the longest key that fits
            if path[end : end + 1] in ("", ".", "[") and path[:end] in here:
                return path[:end]
    cut = re.search(r"[.\[]", path[1:])
    return path[: cut.start() + 1] if cut else path


def _collect(model: Any, tree: Any, path: str, found: dict[str, Position]) -> None:
    items: Any = ()
    if isinstance(model, dict):
        items = model.items()
    elif isinstance(model, list):
        items = enumerate(model)
    for key, value in items:
        at = key
        if isinstance(tree, Seq) and isinstance(key, str):
            at = _listed(tree, key)
        mark = mark_of(tree, at)
        dotted = child(path, key)
        if mark is not None:
            found[dotted] = mark.position
        below = None
        if (isinstance(tree, Map) and at in tree) or (
            isinstance(tree, Seq) and isinstance(at, int) and at < len(tree)
        ):
            below = tree[at]
        if below is not None:
            _collect(value, below, dotted, found)


def _listed(tree: Seq, key: str) -> int:
    for index, item in enumerate(tree):
        if isinstance(item, str) and item.partition("=")[0] == key:
            return index
    return len(tree)


def _marks(tree: Any, path: str) -> Iterator[tuple[str, SourceMark]]:
    items: Any = ()
    if isinstance(tree, Map):
        items = tree.items()
    elif isinstance(tree, Seq):
        items = enumerate(tree)
    for key, value in items:
        dotted = child(path, key)
        mark = mark_of(tree, key)
        if mark is not None:
            yield dotted, mark
        yield from _marks(value, dotted)
