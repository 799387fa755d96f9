"""Canonical tree -> the canonical model: plain JSON values of the right types.

The ``bind`` column of the schema names the type of each attribute; ``keep`` says
whether a zero value is shown. The result has the shape ``config --format json``
prints before ``$`` is doubled. With ``lenient`` a value that does not convert stays
as it was written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from specs import units
from specs.compose.language.schema import PROJECT
from specs.compose.merging.merge import printed
from specs.compose.reading.tree import Map, Seq, SourceMark, Timestamp, plain
from specs.problems import BadValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from specs.compose.language.shape import Shape
    from specs.findings import Findings

_OCTAL = re.compile(r"[+-]?[0-7]+\Z")
_OMIT: Any = object()
_CONTAINERS = frozenset({"list", "object", "map"})


def bind(tree: Map, name: str, findings: Findings, *, lenient: bool) -> dict[str, Any]:
    """Return the canonical model of the project called ``name``."""
    binder = _Binder(findings, lenient=lenient)
    body = binder.object(tree, PROJECT, "")
    model: dict[str, Any] = {"name": name}
    for section in ("services", "networks", "volumes", "secrets", "configs", "models"):
        if body.get(section):
            model[section] = body[section]
    model.setdefault("services", {})
    model.update((key, value) for key, value in body.items() if key.startswith("x-"))
    return model


class _Binder:
    def __init__(self, findings: Findings, *, lenient: bool) -> None:
        self._findings = findings
        self._lenient = lenient

    def object(self, value: Any, shape: Shape, path: str) -> dict[str, Any]:
        """Return the fields in the schema's order, then what is x-tended."""
        made: dict[str, Any] = {}
        fields = shape.fields
        assert fields is not None
        given = value if isinstance(value, Map) else Map()
        for key, sub in fields.items():
            if key in given:
                result = self.field(
                    given[key], sub, f"{path}.{key}" if path else key, given.marks.get(key)
                )
                if result is not _OMIT:
                    made[key] = result
            elif sub.keep == "always":
                made[key] = self._absent(sub, path)
        for key, item in given.items():
            if key not in fields and key.startswith("x-"):
                made[key] = plain(item)
        return made

    def _absent(self, shape: Shape, path: str) -> Any:
        if shape.fields is not None:
            return self.object(None, shape, path)
        return {"str": "", "command": None}.get(shape.bind, 0)

    def field(self, value: Any, shape: Shape, path: str, mark: SourceMark | None) -> Any:
        """Return the bound value, or the marker that it is left out."""
        keep = shape.keep
        if value is None and keep != "always":
            return _OMIT
        bound = self.value(value, shape, path, mark)
        if keep == "opt-out":
            return _OMIT if bound is True else bound
        if not keep and (
            not bound or bound is _OMIT or (shape.bind == "duration" and bound == "0s")
        ):
            return _OMIT
        return bound

    def value(self, value: Any, shape: Shape, path: str, mark: SourceMark | None) -> Any:
        """Return the value as its type in the model; reports and leaves out what is none."""
        kind = shape.bind
        if kind in _CONTAINERS:
            return self._container(kind, value, shape, path, mark)
        if kind == "drop":
            return _OMIT
        try:
            if isinstance(value, Seq) and kind == "strings":
                return [self._item(item, value.marks[i], path, i) for i, item in enumerate(value)]
            return _TYPES[kind](value)
        except (ValueError, AttributeError, TypeError) as error:
            # the last two: a form the type does not have, in a file only extended from
            if self._lenient:
                return plain(value)
            if not isinstance(error, ValueError):
                error = ValueError(f"cannot be {printed(value)}")
            self._findings.bad_value(error, path=path, mark=mark)
            return _OMIT

    def _container(
        self, kind: str, value: Any, shape: Shape, path: str, mark: SourceMark | None
    ) -> Any:
        if kind == "list":
            if isinstance(value, Seq):
                return self._list(value, shape, path)
            return self._misfit("a list", value, path, mark)
        if kind == "object":
            if value is None and shape.keep == "set":
                return None
            if value is None or isinstance(value, Map):
                return self.object(value, shape, path)
        elif isinstance(value, Map):
            return self._map(value, shape, path)
        return self._misfit("a mapping", value, path, mark)

    def _item(self, item: Any, mark: SourceMark | None, path: str, index: int) -> Any:
        try:
            return _text(item)
        except ValueError as error:
            if not self._lenient:
                at = f"{path}[{index}]"
                self._findings.bad_value(error, path=at, mark=mark)
            return printed(item)

    def _misfit(self, wanted: str, value: Any, path: str, mark: SourceMark | None) -> Any:
        if self._lenient:
            return plain(value)
        self._findings.error(f"must be {wanted}", code="wrong-type", path=path, mark=mark)
        return _OMIT

    def _list(self, value: Seq, shape: Shape, path: str) -> list[Any]:
        items = shape.items
        assert items is not None
        bound = (
            self.value(item, items, f"{path}[{index}]", value.marks[index])
            for index, item in enumerate(value)
        )
        return [item for item in bound if item is not _OMIT]

    def _map(self, value: Map, shape: Shape, path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        values = shape.values
        assert values is not None
        for key, item in value.items():
            bound = self.value(item, values, f"{path}.{key}", value.marks.get(key))
            if bound is not _OMIT:
                made[key] = bound
        return made


def _text(value: Any) -> str:
    if type(value) is str or (isinstance(value, str) and not isinstance(value, Timestamp)):
        return value
    if type(value) is int:
        return str(value)
    if isinstance(value, Timestamp):
        raise BadValue("a date without quotes is not text", f'write "{value.printed[:10]}"')
    raise ValueError(f"must be a string, not {printed(value)}")


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return units.parse_bool(value)
    raise ValueError(f"must be true or false, not {printed(value)}")


def _int(value: Any) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        return units.parse_int(value)
    raise ValueError(f"must be a whole number, not {printed(value)}")


def _unsigned(value: Any) -> int:
    if isinstance(value, str):
        raise ValueError(f"must be a number without quotes, not {value!r}")  # noqa: TRY004 - the user's error
    number = _int(value)
    if number < 0:
        raise BadValue(f"cannot be negative: {number}", "write a number from 0 on")
    return number


def _float32(value: Any) -> float | int:
    if isinstance(value, str):
        value = units.parse_float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return units.float32(value)
    raise ValueError(f"must be a number, not {printed(value)}")


def _bytes(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str):
        return units.parse_size(value)
    return 0  # a fraction of bytes: Compose reads nothing from it


def _duration(value: Any) -> str:
    return units.format_duration(units.parse_duration(printed(value)))


def _command(value: Any) -> list[str] | None:
    if value is None:
        return None
    return units.split_words(value) if isinstance(value, str) else [_text(item) for item in value]


def _test(value: Any) -> list[str]:
    return ["CMD-SHELL", value] if isinstance(value, str) else [_text(item) for item in value]


def _strings(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [_text(item) for item in value]


def _mapping(value: Any) -> dict[str, str]:
    if isinstance(value, Map):
        return {key: "" if item is None else printed(item) for key, item in value.items()}
    made = {}
    for item in value:
        key, _, right = printed(item).partition("=")
        made[key] = right
    return made


def _environment(value: Any) -> dict[str, str | None]:
    if isinstance(value, Map):
        return {key: None if item is None else printed(item) for key, item in value.items()}
    made: dict[str, str | None] = {}
    for item in value:
        key, found, right = printed(item).partition("=")
        if key[-1:].isspace():
            raise ValueError(f"the variable {key!r} ends with a space")
        made[key] = right if found else None
    return made


def _options(value: Any) -> dict[str, str]:
    return {key: "" if item is None else printed(item) for key, item in value.items()}


def _string_map(value: Any) -> dict[str, str]:
    return {key: "" if item is None else _text(item) for key, item in value.items()}


def _multi_options(value: Any) -> dict[str, list[str]]:
    return {
        key: [printed(each) for each in item] if isinstance(item, Seq) else [printed(item)]
        for key, item in value.items()
        if item != []
    }


def _hosts(value: Any) -> list[str]:
    found: dict[str, list[str]] = {}
    if isinstance(value, Map):
        for host, item in value.items():
            found[host] = (
                [printed(each) for each in item] if isinstance(item, Seq) else [item or ""]
            )
    else:
        for item in value:
            text = printed(item)
            host, separator, right = text.partition("=")
            if not separator:
                host, separator, right = text.partition(":")
            if not separator:
                raise BadValue(f"{text!r} has no address", "write host=address")
            found.setdefault(host, []).extend(right.split(","))
    lines = []
    for host, addresses in found.items():
        if not host or ":" in host or "=" in host:
            raise ValueError(f"{host!r} is not a host name")
        for address in addresses:
            bare = address
            if len(address) > 2 and address[0] == "[" and address[-1] == "]":
                bare = address[1:-1]
            lines.append(f"{host}={bare}")
    return sorted(lines, key=str.encode)


def _ssh(value: Any) -> dict[str, str | None]:
    return {key: printed(item) or None if item is not None else None for key, item in value.items()}


def _mode(value: Any) -> str:
    if isinstance(value, str):
        if not _OCTAL.match(value):
            raise BadValue(f"{value!r} is not a file mode", "write octal digits, like 0440")
        value = int(value, 8)
    if type(value) is not int:
        raise BadValue(f"{printed(value)} is not a file mode", "write octal digits, like 0440")
    return f"0{value:o}"


def _count(value: Any) -> int:
    if isinstance(value, str):
        if value.lower() == "all":
            return -1
        try:
            return units.parse_int(value)
        except ValueError:
            raise ValueError(f"{value!r} must be 'all' or a whole number") from None
    if type(value) is not int:
        raise ValueError(f"{printed(value)} must be 'all' or a whole number")
    return value


def _ulimit(value: Any) -> Any:
    if isinstance(value, Map):
        made = {}
        for key in ("soft", "hard"):
            number = value.get(key, 0)
            if type(number) is not int:
                raise ValueError(f"{key} must be a whole number, not {printed(number)}")
            if number:
                made[key] = number
        return made
    if type(value) is not int:
        raise ValueError(f"must be a whole number, not {printed(value)}")
    return value or {}


_TYPES: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "bool": _bool,
    "int": _int,
    "uint": _unsigned,
    "uint16": lambda value: _unsigned(value) & 0xFFFF,
    "uint32": lambda value: _unsigned(value) & 0xFFFFFFFF,
    "float32": _float32,
    "cpus": _float32,
    "bytes": _bytes,
    "duration": _duration,
    "command": _command,
    "test": _test,
    "strings": _strings,
    "printed": lambda value: [printed(item) for item in value],
    "mapping": _mapping,
    "environment": _environment,
    "options": _options,
    "string-map": _string_map,
    "multi-options": _multi_options,
    "hosts": _hosts,
    "ssh": _ssh,
    "mode": _mode,
    "count": _count,
    "ulimit": _ulimit,
}
