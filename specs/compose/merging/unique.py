"""Collapse list items that name the same thing: the later replaces the earlier in place.

Which attribute is identified by what is the ``key`` column of the schema. Runs on
the merged tree before and after short forms are made long, because only long
forms show that ``8080-8081:80-81`` and ``8081:81`` meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.compose.language.schema import PROJECT
from specs.compose.merging.shortforms import parse_volume
from specs.compose.reading.tree import Map, Seq, child

if TYPE_CHECKING:
    from collections.abc import Callable

    from specs.compose.language.shape import Shape
    from specs.findings import Findings


def enforce_unicity(tree: Map, findings: Findings) -> None:
    """Collapse every list of the project that has an identity rule, in place."""
    _walk(tree, PROJECT, "", findings)


def _walk(value: Any, shape: Shape, path: str, findings: Findings) -> None:
    if isinstance(value, Map):
        for key, item in value.items():
            if isinstance(item, Map | Seq):
                sub = shape.of_key(key)
                if sub is not None:
                    _walk(item, sub, f"{path}.{key}" if path else key, findings)
    elif isinstance(value, Seq) and shape.key:
        _collapse(value, _INDEXERS[shape.key], path, findings)


def _collapse(seq: Seq, index_of: Callable[[Any], Any], path: str, findings: Findings) -> None:
    at: dict[Any, int] = {}
    items: list[Any] = []
    marks: list[Any] = []
    for number, item in enumerate(seq):
        mark = seq.marks[number]
        try:
            key = index_of(item)
        except ValueError as error:
            findings.bad_value(error, path=child(path, number), mark=mark, hint=_hint(path))
            continue
        first = at.get(key)
        if first is None:
            at[key] = len(items)
            items.append(item)
            marks.append(mark)
        else:
            items[first] = item
            if mark is not None:
                before = marks[first]
                same_file = before is not None and before.file == mark.file
                mark = mark.over(before, "same item" if same_file else "override")
            marks[first] = mark
    seq[:] = items
    seq.marks[:] = marks


def _hint(path: str) -> str:
    last = path.rpartition(".")[2]
    return {
        "ports": "add target:, the port inside the container",
        "volumes": "add target:, the path inside the container",
        "devices": "add target:, the path inside the container",
    }.get(last, "")


def _odd(item: Any) -> Any:
    """Return an identity for an item the schema is going to refuse."""
    return ("odd", id(item))


def _keyvalue(item: Any) -> Any:
    return item.partition("=")[0] if isinstance(item, str) else _odd(item)


def _volume(item: Any) -> Any:
    if isinstance(item, str):
        return parse_volume(item)["target"]
    return _target(item, "mount")


def _device(item: Any) -> Any:
    if isinstance(item, str):
        parts = item.split(":")
        return parts[0] if len(parts) == 1 else parts[1]
    return _target(item, "device")


def _target(item: Any, what: str) -> Any:
    if not isinstance(item, dict):
        return _odd(item)
    target = item.get("target")
    if target is None:
        raise ValueError(f"the {what} has no target")
    return target if isinstance(target, str) else _odd(item)


def _expose(item: Any) -> Any:
    if isinstance(item, str):
        return item
    if type(item) is int:
        return str(item)
    raise ValueError("an exposed port must be a string or a whole number")


def _mount_at(folder: str) -> Callable[[Any], Any]:
    def index(item: Any) -> Any:
        if isinstance(item, str):
            return f"{folder}/{item}"
        if not isinstance(item, dict):
            return _odd(item)
        target = item.get("target")
        if target is not None:
            return target if isinstance(target, str) else _odd(item)
        return f"{folder}/{item.get('source')}"

    return index


def _port(item: Any) -> Any:
    if isinstance(item, str):
        return item
    if type(item) is int:
        return str(item)
    if not isinstance(item, dict):
        return _odd(item)
    if "target" not in item:
        raise ValueError("the port has no target")
    published = item.get("published")
    return (
        str(item.get("host_ip", "0.0.0.0")),
        type(published).__name__,
        str(published),
        str(item["target"]),
        str(item.get("protocol", "tcp")),
    )


def _env_file(item: Any) -> Any:
    if isinstance(item, str):
        return item
    if isinstance(item, dict) and isinstance(item.get("path"), str):
        return item["path"]
    return _odd(item)


_INDEXERS: dict[str, Callable[[Any], Any]] = {
    "keyvalue": _keyvalue,
    "volume": _volume,
    "device": _device,
    "expose": _expose,
    "config": _mount_at(""),
    "secret": _mount_at("/run/secrets"),
    "port": _port,
    "env-file": _env_file,
}
