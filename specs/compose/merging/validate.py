"""Check a merged tree against the schema; take out what does not fit and say why.

Runs after merging, so an override file may be partial. Every finding names the
place, what is wanted there and, where it can, what was probably meant. Bad values
are removed from the tree: later stages may rely on the schema's types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs import units
from specs.compose.language.schema import PROJECT
from specs.compose.reading.tree import Map, Seq, SourceMark, child

if TYPE_CHECKING:
    from specs.compose.language.shape import Shape
    from specs.findings import Findings

_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}


def validate(tree: Map, findings: Findings) -> None:
    """Report everything in ``tree`` the Compose schema does not allow, and remove it."""
    checker = _Checker(findings)
    checker.fits(tree, PROJECT, "", None)


def type_of(value: Any) -> str:
    """Return the JSON type of a value; whole floats count as numbers here."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, dict):
        return "object"
    if isinstance(value, list):
        return "array"
    return "integer" if isinstance(value, int) else "number"


def identity(value: Any) -> Any:
    """Return something hashable that is equal for values JSON calls equal."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return ("{}", frozenset((key, identity(item)) for key, item in value.items()))
    if isinstance(value, list):
        return ("[]", tuple(identity(item) for item in value))
    if value is True or value is False:
        return ("b", value)
    return ("n", value)


class _Checker:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def fits(self, value: Any, shape: Shape, path: str, mark: SourceMark | None) -> bool:
        """Return whether the value may stay."""
        kind = type_of(value)
        types = shape.types
        if kind not in types and not (
            (kind == "integer" and "number" in types)
            or (kind == "number" and "integer" in types and float(value).is_integer())
        ):
            self._wrong_type(value, kind, shape, path, mark)
            return False
        if kind == "string":
            return self._string(value, shape, path, mark)
        if kind == "object":
            return self._object(value, shape, path, mark)
        if kind == "array":
            return self._array(value, shape, path)
        if kind in ("integer", "number"):
            return self._number(value, shape, path, mark)
        return True

    def _string(self, value: str, shape: Shape, path: str, mark: SourceMark | None) -> bool:
        if shape.enum and value not in shape.enum:
            self._findings.error(
                f"{value!r} is not allowed here",
                code="bad-value",
                path=path,
                mark=mark,
                hint=did_you_mean(value, shape.enum)
                or f"write {'one of ' if len(shape.enum) > 1 else ''}{', '.join(shape.enum)}",
            )
            return False
        if shape.pattern is not None and not shape.pattern.search(value):
            self._findings.error(
                f"{value!r} is not allowed here",
                code="bad-value",
                path=path,
                mark=mark,
                hint=did_you_mean(value, tuple(shape.pattern.pattern.split("|")))
                or f"it must match {shape.pattern.pattern}",
            )
            return False
        return True

    def _number(self, value: float, shape: Shape, path: str, mark: SourceMark | None) -> bool:
        message, hint = "", "write a plain number"
        if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN
            message = "infinities and not-a-number cannot be used"
        elif shape.low is not None and value < shape.low:
            message, hint = f"must be at least {shape.low}, not {value}", _range(shape)
        elif shape.high is not None and value > shape.high:
            message, hint = f"must be at most {shape.high}, not {value}", _range(shape)
        if message:
            self._findings.error(message, code="bad-value", path=path, mark=mark, hint=hint)
        return not message

    def _object(self, value: Map, shape: Shape, path: str, mark: SourceMark | None) -> bool:
        fields = shape.fields or {}
        marks = value.marks
        for key in list(value):
            dotted = f"{path}.{key}" if path else key
            found = fields.get(key)
            if found is None:
                if shape.extensible and key.startswith("x-"):
                    continue
                if shape.names_allow(key):
                    found = shape.values
            if found is not None:
                if not self.fits(value[key], found, dotted, marks.get(key)):
                    del value[key]
            elif not shape.open:
                self._unknown_key(key, value[key], shape, path, dotted, marks.get(key))
                del value[key]
        missing = [
            key
            for key in shape.required
            if key not in value and f"{path}.{key}" not in self._findings.damaged
        ]
        for key in missing:
            self._findings.error(
                f"{key!r} is required here",
                code="missing-key",
                path=path,
                mark=mark,
                at_key=True,
                hint=f"add {key}:",
            )
        return not any(key not in value for key in shape.required)

    def _array(self, value: Seq, shape: Shape, path: str) -> bool:
        items = shape.items
        assert items is not None
        bad: list[int] = []
        for index, item in enumerate(value):
            if not self.fits(item, items, f"{path}[{index}]", value.marks[index]):
                bad.append(index)
        if shape.unique:
            self._unique(value, path, bad)
        for index in sorted(set(bad), reverse=True):
            del value[index]
            del value.marks[index]
        return True

    def _unique(self, value: Seq, path: str, bad: list[int]) -> None:
        seen: dict[Any, int] = {}
        for index, item in enumerate(value):
            key = identity(item)
            first = seen.setdefault(key, index)
            if first == index and type(item) in (int, float):
                # a number after a string of the same digits counts as the same
                first = seen.get(units.format_number(item), index)
            if first != index:
                self._findings.error(
                    f"the same item is already at [{first}]",
                    code="duplicate-item",
                    path=child(path, index),
                    mark=value.marks[index],
                    hint="remove one of them",
                )
                bad.append(index)

    def _wrong_type(
        self, value: Any, kind: str, shape: Shape, path: str, mark: SourceMark | None
    ) -> None:
        wanted = " or ".join(_WORDS[name] for name in shape.types)
        self._findings.error(
            f"must be {wanted}, not {_describe(value, kind)}",
            code="wrong-type",
            path=path,
            mark=mark,
            hint=_type_hint(value, kind, shape, path),
        )

    def _unknown_key(
        self, key: str, value: Any, shape: Shape, path: str, dotted: str, mark: SourceMark | None
    ) -> None:
        if shape.names is not None:
            self._findings.error(
                f"{key!r} is not a valid name",
                code="bad-name",
                path=dotted,
                mark=mark,
                at_key=True,
                hint="use letters, digits, '.', '_' and '-'",
            )
            return
        where = f"in {path}" if path else "at the top level"
        known = tuple(shape.fields or ())
        hint = (
            did_you_mean(key, known, cutoff=0.85)
            or _belongs(key, path)
            or did_you_mean(key, known)
            or _looks_like_service(value, path)
        )
        self._findings.error(
            f"the key {key!r} is not known {where}",
            code="unknown-key",
            path=dotted,
            mark=mark,
            at_key=True,
            hint=hint or ("prefix your own keys with x-" if shape.extensible else ""),
        )


def _describe(value: Any, kind: str) -> str:
    if kind in ("object", "array"):
        return _WORDS[kind]
    if kind == "null":
        return "empty"
    if kind == "boolean":
        return f"the boolean {str(value).lower()}"
    if kind == "string":
        return f"the string {value!r}"
    return f"the number {value}"


def _type_hint(value: Any, kind: str, shape: Shape, path: str) -> str:  # noqa: PLR0911 - a table of hints
    types = shape.types
    last = path.rpartition(".")[2]
    if shape.bind == "duration" and kind in ("integer", "number"):
        return f"write {value}s for seconds"
    if shape.bind == "bool":
        return "write true or false"
    if kind in ("integer", "number", "boolean") and "string" in types:
        return f'put quotes around it: "{str(value).lower() if kind == "boolean" else value}"'
    if kind == "array" and "object" in types and path in ("services", "networks", "volumes"):
        return f"write names as keys under {path}:, without the leading '- '"
    if kind == "array" and "object" in types:
        return "write 'key: value' lines without the leading '- '"
    if kind == "object" and "array" in types:
        return "write each item on its own line, beginning with '- '"
    if kind == "object" and types == ("string",) and isinstance(value, dict) and len(value) == 1:
        key = next(iter(value))
        return f"put quotes around '{key}: ...', or write {key}=..."
    if kind == "null":
        return f"give {last} a value, or remove the line"
    if kind == "string":
        return _text_hint(value, shape, last)
    if kind == "object" and "string" in types:
        return "write one plain value; a mapping cannot stand here"
    return "write one plain value, without brackets or a leading '- '" if kind == "array" else ""


def _text_hint(value: str, shape: Shape, last: str) -> str:
    if shape.types == ("array",):
        if value.startswith("-"):
            return "put a blank behind the dash"
        return f"write it as a list: [{value}]"
    if "object" not in shape.types:
        return ""
    key, colon, rest = value.partition(":")
    if colon and key in (shape.fields or {}):
        return f"put a blank behind the colon: {key}: {rest}"
    for likely in ("image", "driver"):
        if likely in (shape.fields or {}):
            return f"write '{likely}: {value}' on a line of its own below {last}:"
    return f"write 'key: value' lines below {last}:"


def did_you_mean(word: str, known: tuple[str, ...], *, cutoff: float = 0.7) -> str:
    """Return a hint when one of the known words is close."""
    from difflib import get_close_matches  # noqa: PLC0415 - only on the way to a refusal

    close = get_close_matches(word.lower(), known, n=1, cutoff=cutoff)
    return f"did you mean {close[0]}?" if close else ""


def _looks_like_service(value: Any, path: str) -> str:
    if not path and isinstance(value, dict) and ("image" in value or "build" in value):
        return "a service stands below services:"
    return ""


def _range(shape: Shape) -> str:
    if shape.low is not None and shape.high is not None:
        return f"write a number from {shape.low} to {shape.high}"
    return f"write {shape.low} or more" if shape.low is not None else f"at most {shape.high}"


def _belongs(key: str, path: str) -> str:
    """Return where a misplaced key is known: ``restart_policy`` belongs under deploy."""
    fields = PROJECT.fields or {}
    service = fields["services"].values
    assert service is not None
    assert service.fields is not None
    if key in fields and path:
        return f"{key} belongs at the top level of the file"
    if key in service.fields and not path.startswith("services."):
        return f"{key} belongs to a service: put it under services.NAME"
    for name in ("deploy", "build", "healthcheck"):
        inner = service.fields[name].fields or {}
        if key in inner:
            return f"{key} belongs under {name}:"
    if key in service.fields:
        return f"{key} belongs to the service itself: check the indentation"
    return ""
