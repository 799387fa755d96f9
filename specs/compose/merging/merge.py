"""Merge one tree over another, attribute by attribute.

Used file over file, child over its ``extends`` base, and local over included. Each
attribute's rule is the ``merge`` column of the schema; without one, mappings merge
deeply, lists append and scalars replace. The base is changed in place and owned by
the result. Never looks at files or variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs import units
from specs.compose.language.schema import PROJECT, SERVICE
from specs.compose.reading.tree import Map, Seq, SourceMark, Timestamp, mark_of

if TYPE_CHECKING:
    from specs.compose.language.shape import Shape
    from specs.findings import Findings

_STARTED = {"condition": "service_started", "required": True}


class Merge:
    """Merging with one reason (``override``, ``extends``, ``include``) and one list of findings."""

    def __init__(self, findings: Findings, how: str) -> None:
        self._findings = findings
        self._how = how

    def projects(self, base: Map, over: Map) -> Map:
        """Return ``base`` with ``over`` merged into it."""
        return self._maps(base, over, PROJECT, "")

    def services(self, base: Map, over: Map, path: str) -> Map:
        return self._maps(base, over, SERVICE, path)

    def value(
        self, base: Any, over: Any, shape: Shape | None, path: str, mark: SourceMark | None
    ) -> Any:
        """Return what one attribute becomes."""
        rule = shape.merge if shape is not None else ""
        if rule:
            result = self._by_rule(rule, base, over, shape, path)
            if result is not NotImplemented:
                return result
        if over is None:
            return base
        if isinstance(base, Map) and isinstance(over, Map):
            return self._maps(base, over, shape, path)
        if isinstance(base, Seq) and isinstance(over, Seq):
            return _joined(base, over)
        return self._conflict(base, over, path, mark) if isinstance(base, Map | Seq) else over

    def _conflict(self, base: Any, over: Any, path: str, mark: SourceMark | None) -> Any:
        was = "a mapping" if isinstance(base, Map) else "a list"
        now = (
            "a mapping"
            if isinstance(over, Map)
            else "a list"
            if isinstance(over, Seq)
            else "a value"
        )
        self._findings.error(
            f"cannot override {path}: it is {was} before and {now} here",
            code="merge-conflict",
            path=path,
            mark=mark,
            hint="use the same form in both places, or replace it whole with !override",
        )
        return base

    def _maps(self, base: Map, over: Map, shape: Shape | None, path: str) -> Map:
        for key, value in over.items():
            mark = over.marks.get(key)
            if key not in base:
                # a mark without a value is what !reset or !override cut
                cut = base.marks.get(key)
                base.put(key, value, mark.over(cut, "!override") if mark is not None else None)
                continue
            sub = shape.of_key(key) if shape is not None else None
            dotted = f"{path}.{key}" if path else key
            old = base[key]
            base[key] = self.value(old, value, sub, dotted, mark)
            if mark is not None and (value is not None or base[key] is None):
                base.marks[key] = mark.over(base.marks.get(key), self._how)
        return base

    def _by_rule(self, rule: str, base: Any, over: Any, shape: Shape | None, path: str) -> Any:  # noqa: PLR0911 - one line per rule
        if rule == "replace":
            return over
        if rule in ("sequence", "hosts"):
            return self._sequences(rule, base, over)
        if rule == "build":
            return self._two_maps(_as_build(base), _as_build(over), shape, path)
        if rule == "depends-on":
            return self._two_maps(_as_map(base, _STARTED), _as_map(over, _STARTED), shape, path)
        if rule == "names":
            return self._two_maps(_as_map(base, None), _as_map(over, None), shape, path)
        if rule == "ulimit":
            return over
        if rule == "logging":
            return self._logging(base, over, shape, path)
        return self._ipam(base, over, shape, path)

    def _two_maps(self, base: Any, over: Any, shape: Shape | None, path: str) -> Any:
        if base is None or over is None:
            return base if over is None else over
        return self._maps(base, over, shape, path)

    @staticmethod
    def _sequences(rule: str, base: Any, over: Any) -> Any:
        right, left = as_sequence(base), as_sequence(over)
        if right is None or left is None:
            return base if left is None else left
        if rule == "hosts":
            kept = Seq()
            for index, item in enumerate(left):
                if item not in right:
                    kept.add(item, left.marks[index])
            left = kept
        return _joined(right, left)

    def _logging(self, base: Any, over: Any, shape: Shape | None, path: str) -> Any:
        if not isinstance(base, Map) or not isinstance(over, Map):
            return NotImplemented
        if "driver" in base and "driver" in over and base["driver"] != over["driver"]:
            return over
        return self._maps(base, over, shape, path)

    def _ipam(self, base: Any, over: Any, shape: Shape | None, path: str) -> Any:
        if not isinstance(base, Seq) or not isinstance(over, Seq):
            return NotImplemented
        if not all(isinstance(item, Map) for item in (*base, *over)):
            return NotImplemented
        item_shape = shape.items if shape is not None else None
        made = Seq()
        for index, right in enumerate(base):
            for other, left in enumerate(over):
                self._pool(
                    made, right, left, base.marks[index], over.marks[other], item_shape, path
                )
        kept = {item.get("subnet") for item in made}
        for index, right in enumerate(base):
            if right.get("subnet") not in kept:
                self._findings.warn(
                    f"the pool {right.get('subnet')} is dropped: the override does not name it",
                    code="dropped-pool",
                    path=path,
                    mark=base.marks[index],
                    hint="repeat it in the overriding file",
                )
        return made

    def _pool(
        self,
        made: Seq,
        right: Map,
        left: Map,
        base_mark: SourceMark | None,
        over_mark: SourceMark | None,
        shape: Shape | None,
        path: str,
    ) -> None:
        if left.get("subnet") != right.get("subnet") and all(
            item.get("subnet") != left.get("subnet") for item in made
        ):
            made.add(left, over_mark)
            return
        merged = self._maps(right, left, shape, path)
        for at, item in enumerate(made):
            if item.get("subnet") == merged.get("subnet"):
                made[at] = merged
                return
        made.add(merged, base_mark)


def _joined(first: Seq, second: Seq) -> Seq:
    return Seq([*first, *second], [*first.marks, *second.marks])


def as_sequence(value: Any) -> Seq | None:
    """Return a mapping as sorted ``KEY=VALUE`` items, a string as one item."""
    if isinstance(value, Seq):
        return value
    if isinstance(value, str):
        return Seq([value])
    if not isinstance(value, Map):
        return None
    pairs: list[tuple[str, SourceMark | None]] = []
    for key, item in value.items():
        mark = mark_of(value, key)
        if item is None:
            pairs.append((key, mark))
        elif isinstance(item, Seq):
            pairs.extend((f"{key}={printed(each)}", mark) for each in item)
        else:
            pairs.append((f"{key}={printed(item)}", mark))
    pairs.sort(key=lambda pair: pair[0].encode())
    return Seq([text for text, _ in pairs], [mark for _, mark in pairs])


def printed(value: Any) -> str:
    """Return the text Compose makes of a scalar where a string is wanted."""
    if isinstance(value, Timestamp):
        return value.printed
    if isinstance(value, str):
        return value
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int | float):
        return units.format_number(value)
    return "<nil>" if value is None else str(value)


def _as_build(value: Any) -> Map | None:
    if isinstance(value, str):
        made = Map()
        made["context"] = value
        return made
    return value if isinstance(value, Map) else None


def _as_map(value: Any, default: dict[str, Any] | None) -> Map | None:
    if isinstance(value, Map):
        return value
    if not isinstance(value, Seq):
        return None
    made = Map()
    for index, name in enumerate(value):
        if isinstance(name, str):
            made.put(name, Map(default) if default is not None else None, value.marks[index])
    return made
