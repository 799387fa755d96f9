"""Put variables into values: ``$NAME``, ``${NAME:-default}`` and the other operators.

Runs once per file, before merging, on values and never on keys. The right side of
an operator is read only when it is used, nests, and may hold balanced braces.
After substitution the typed attributes (``cast`` in the schema) become numbers
and booleans. Pure: variables come in as an object that answers ``get``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from specs import units
from specs.compose.reading.tree import Map, Seq, SourceMark, Timestamp, child

if TYPE_CHECKING:
    from specs.compose.language.shape import Shape
    from specs.findings import Findings

_START = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<named>[_a-z][_a-z0-9]*)|\{(?P<braced>[_a-z][_a-z0-9]*)?)",
    re.IGNORECASE,
)
_OPERATOR = re.compile(r":?[-+?]")
_MAX_NESTING = 50


class VariableUse(NamedTuple):
    """A variable put into a value: ``source`` says where its value came from."""

    name: str
    source: str  # "environment", "FILE:LINE", "default", "unset"


class Variables(Protocol):
    """What interpolation needs to know of variables."""

    def get(self, name: str) -> str | None: ...
    def source(self, name: str) -> str: ...


class TemplateError(ValueError):
    """A value cannot be interpolated; ``hint`` says what to write."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Substitution:
    """One value being interpolated: notes the variables used and the unset ones."""

    __slots__ = ("_depth", "_variables", "unset", "uses")

    def __init__(self, variables: Variables) -> None:
        self._variables = variables
        self._depth = 0
        self.uses: list[VariableUse] = []
        self.unset: list[str] = []

    def text(self, template: str) -> str:
        """Return ``template`` with its variables replaced."""
        if "$" not in template:
            return template
        self._depth += 1
        if self._depth > _MAX_NESTING:
            raise TemplateError("variables are nested too deeply")
        parts: list[str] = []
        at = 0
        while found := _START.search(template, at):
            parts.append(template[at : found.start()])
            text, at = self._replace(template, found)
            parts.append(text)
        self._depth -= 1
        return "".join((*parts, template[at:]))

    def _replace(self, template: str, found: re.Match[str]) -> tuple[str, int]:
        """Return the text for one variable and where reading goes on."""
        if found["escaped"]:
            return "$", found.end()
        if found["named"]:
            return self._plain(found["named"]), found.end()
        name, end = found["braced"], found.end()
        if name and template.startswith("}", end):
            return self._plain(name), end + 1
        operator = _OPERATOR.match(template, end) if name else None
        close = _closing(template, found.start(), end) if operator else -1
        if operator is None or close < operator.end():
            raise TemplateError(
                f"invalid interpolation format: {template!r}",
                "write ${NAME} or ${NAME:-default}, and $$ for a literal $",
            )
        return self._operate(name, operator[0], template[operator.end() : close]), close + 1

    def _plain(self, name: str) -> str:
        value = self._lookup(name)
        if value is None:
            self.uses.append(VariableUse(name, "unset"))
            self.unset.append(name)
            return ""
        return value

    def _lookup(self, name: str) -> str | None:
        value = self._variables.get(name)
        if value is not None:
            self.uses.append(VariableUse(name, self._variables.source(name)))
        return value

    def _operate(self, name: str, operator: str, right: str) -> str:
        value = self._lookup(name)
        missing = value is None or (operator[0] == ":" and value == "")
        kind = operator[-1]
        if kind == "-":
            if missing:
                self.uses.append(VariableUse(name, "default"))
                return self.text(right)
            return value or ""
        if kind == "+":
            if missing:
                return value or ""
            self.uses.append(VariableUse(name, "replacement"))
            return self.text(right)
        if missing:
            reason = self.text(right)
            raise TemplateError(
                f"required variable {name} is missing a value" + (f": {reason}" if reason else ""),
                f"set {name} in the environment or in an env file",
            )
        return value or ""


def _closing(template: str, start: int, after: int) -> int:
    """Return the index of the brace that closes the variable at ``start``, -1 if none does.

    Braces are balanced within the line; the character after an opening brace is
    skipped, as Compose does. Where they do not balance, the line's last one counts.
    """
    line_end = template.find("\n", after)
    last = template.rfind("}", after, line_end if line_end >= 0 else len(template))
    depth = 0
    index = start + 1
    while index <= last:
        if template[index] == "}":
            depth -= 1
            if depth == 0:
                return index
        elif template[index] == "{":
            depth += 1
            index += 1
        index += 1
    return last


def placeholders(template: str) -> list[tuple[str, str, str]]:
    """Return (name, operator, right side) of each variable; broken ones are left out."""
    found: list[tuple[str, str, str]] = []
    at = 0
    while match := _START.search(template, at):
        at = match.end()
        if match["named"]:
            found.append((match["named"], "", ""))
        name = match["braced"]
        if not name:
            continue
        operator = _OPERATOR.match(template, at)
        close = _closing(template, match.start(), at) if operator else -1
        if operator is not None and close >= operator.end():
            found.append((name, operator[0], template[operator.end() : close]))
            at = close + 1
        elif template.startswith("}", at):
            found.append((name, "", ""))
    return found


def cast(text: str, kind: str) -> Any:
    """Return the text as the type its attribute wants; ValueError says why it cannot be."""
    if kind == "int":
        return units.parse_int(text)
    if kind == "float":
        return units.parse_float(text)
    return units.parse_bool(text)


def interpolate(
    tree: Any, shape: Shape | None, variables: Variables | None, findings: Findings
) -> Any:
    """Return a fresh tree with variables replaced and typed attributes cast.

    ``variables`` None (``--no-interpolate``) only copies, which also separates
    what YAML aliases share.
    """
    return _Walk(variables, findings).value(tree, shape, "", None, "")[0]


class _Walk:
    def __init__(self, variables: Variables | None, findings: Findings) -> None:
        self._variables = variables
        self._findings = findings

    def value(
        self, value: Any, shape: Shape | None, path: str, mark: SourceMark | None, key: str
    ) -> tuple[Any, SourceMark | None]:
        if isinstance(value, str):
            return self._text(value, shape, path, mark)
        if isinstance(value, Map):
            made = Map()
            for name, item in value.items():
                sub = shape.of_key(name) if shape is not None else None
                at = value.marks.get(name)
                dotted = f"{path}.{name}" if path else name
                made[name], at = self.value(item, sub, dotted, at, name)
                if at is not None:
                    made.marks[name] = at
            return made, mark
        if isinstance(value, Seq):
            sub = shape.items if shape is not None else None
            seq = Seq()
            for index, item in enumerate(value):
                at = value.marks[index]
                new, at = self.value(item, sub, child(path, index), at, key)
                seq.add(new, at)
            return seq, mark
        return value, mark

    def _text(
        self, value: str, shape: Shape | None, path: str, mark: SourceMark | None
    ) -> tuple[Any, SourceMark | None]:
        if self._variables is None or isinstance(value, Timestamp):
            return value, mark
        new = value
        if "$" in value:
            substitution = Substitution(self._variables)
            try:
                new = substitution.text(value)
            except TemplateError as error:
                self._findings.error(
                    str(error), code="interpolation", path=path, mark=mark, hint=error.hint
                )
                return value, mark
            for name in substitution.unset:
                self._findings.warn(
                    f"the variable {name} is not set and becomes an empty string",
                    code="unset-variable",
                    path=path,
                    mark=mark,
                    hint=f"set {name}, or write ${{{name}:-}} if empty is meant",
                )
            if mark is not None and substitution.uses:
                mark = mark.using(tuple(substitution.uses))
        if shape is not None and shape.cast is not None:
            return self._cast(new, shape.cast, value, path, mark), mark
        return new, mark

    def _cast(self, new: str, kind: str, written: str, path: str, mark: SourceMark | None) -> Any:
        try:
            result = cast(new, kind)
        except ValueError as error:
            became = f" (from {written!r})" if written != new else ""
            self._findings.error(
                f"{error}{became}",
                code="bad-value",
                path=path,
                mark=mark,
                hint={
                    "int": "write a whole number",
                    "float": "write a number",
                    "bool": "write true or false",
                }[kind],
            )
            return {"int": 0, "float": 0.0, "bool": False}[kind]
        if kind == "bool" and new.lower() not in ("true", "false"):
            self._findings.warn(
                f"{new!r} as a boolean is not YAML 1.2",
                code="old-boolean",
                path=path,
                mark=mark,
                hint="write true or false",
            )
        return result
