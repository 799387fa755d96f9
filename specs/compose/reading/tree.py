"""Mappings and lists that remember where each of their values was written.

The loader works on plain Python values; only containers carry marks, one per
child, because ``None`` and ``bool`` cannot. A mark also holds what happened to
the value: the variables put into it and the mark it replaced, so that the whole
history of a final value is a chain (``config --explain``). Every module of
``specs.compose`` between parsing and rendering works on these.
"""

from __future__ import annotations

from typing import Any

from specs.problems import Position


class SourceMark:
    """Where one value stands, and its history. Immutable by convention."""

    __slots__ = (
        "column",
        "file",
        "how",
        "key_column",
        "key_line",
        "line",
        "previous",
        "variables",
    )

    def __init__(
        self,
        file: str,
        line: int,
        column: int,
        key_line: int = 0,
        key_column: int = 0,
        variables: tuple[Any, ...] = (),
        previous: SourceMark | None = None,
        how: str = "",
    ) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.key_line = key_line
        self.key_column = key_column
        self.variables = variables
        self.previous = previous
        self.how = how

    def over(self, previous: SourceMark | None, how: str) -> SourceMark:
        """Return this mark with another value's history under it."""
        if previous is None or previous is self:
            return self
        return SourceMark(
            self.file,
            self.line,
            self.column,
            self.key_line,
            self.key_column,
            self.variables,
            previous,
            how,
        )

    def using(self, variables: tuple[Any, ...]) -> SourceMark:
        """Return this mark with the variables that were put into the value."""
        at = (self.file, self.line, self.column, self.key_line, self.key_column)
        return SourceMark(*at, variables, self.previous, self.how)

    @property
    def position(self) -> Position:
        return Position(self.file, self.line, self.column)

    @property
    def key_position(self) -> Position:
        if self.key_line:
            return Position(self.file, self.key_line, self.key_column)
        return self.position


class Map(dict[str, Any]):
    """A mapping whose ``marks`` say where each value was written."""

    __slots__ = ("marks",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.marks: dict[str, SourceMark] = {}

    def put(self, key: str, value: Any, mark: SourceMark | None) -> None:
        self[key] = value
        if mark is not None:
            self.marks[key] = mark


class Seq(list[Any]):
    """A list whose ``marks`` run parallel to its items."""

    __slots__ = ("marks",)

    def __init__(self, items: Any = (), marks: list[SourceMark | None] | None = None) -> None:
        super().__init__(items)
        self.marks: list[SourceMark | None] = marks if marks is not None else [None] * len(self)

    def add(self, value: Any, mark: SourceMark | None) -> None:
        self.append(value)
        self.marks.append(mark)


class Timestamp(str):
    """An unquoted date: text in the model (RFC 3339), but refused where text is wanted."""

    __slots__ = ("printed",)
    printed: str

    @classmethod
    def of(cls, rfc3339: str, printed: str) -> Timestamp:
        made = cls(rfc3339)
        made.printed = printed
        return made


def mark_of(container: Any, key: Any) -> SourceMark | None:
    """Return where ``container[key]`` was written, if that is known."""
    if isinstance(container, Map):
        return container.marks.get(key)
    if isinstance(container, Seq) and isinstance(key, int) and key < len(container.marks):
        return container.marks[key]
    return None


def child(path: str, key: str | int) -> str:
    """Return the dotted path of a child: ``services.web`` + 0 -> ``services.web[0]``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def copy(value: Any) -> Any:
    """Return a deep copy; marks are shared, containers are not."""
    if isinstance(value, Map):
        made = Map()
        for key, item in value.items():
            made[key] = copy(item)
        made.marks = dict(value.marks)
        return made
    if isinstance(value, Seq):
        return Seq([copy(item) for item in value], list(value.marks))
    if isinstance(value, dict):
        return {key: copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy(item) for item in value]
    return value


def plain(value: Any) -> Any:
    """Return the value as ordinary dicts and lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Timestamp):
        return str.__str__(value)
    return value
