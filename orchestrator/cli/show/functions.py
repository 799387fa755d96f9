"""What Docker's templates can do with values, and how Go prints them. Pure.

A function that cannot do what it is asked raises ValueError with the words behind its name;
``orchestrator.cli.show.template`` adds the column.
"""

from __future__ import annotations

import re

from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

VERB = re.compile(r"%[-+0 #]*\d*(?:\.\d+)?[a-zA-Z%]")


def go(value: Any) -> str:
    """Return a value as Go prints it."""
    match value:
        case str():
            found = value
        case bool():
            found = "true" if value else "false"
        case None:
            found = "<no value>"
        case float():
            found = f"{value:g}" if abs(value) < 1e6 and value == round(value, 4) else repr(value)
        case list() | tuple():
            found = f"[{' '.join(go(item) for item in value)}]"
        case dict():
            found = f"map[{' '.join(f'{key}:{go(value[key])}' for key in sorted(value))}]"
        case _:
            found = str(value)
    return found


def compact(value: Any) -> str:
    return jsontext.shown(value, separators=(",", ":"))


def _text_of(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"needs a text, not {go(value)}")  # noqa: TRY004 - told with its column
    return value


def _list_of(value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"needs a list, not {go(value)!r}")  # noqa: TRY004 - told with its column
    return value


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, "")
        else:
            try:
                value = value[key]
            except (TypeError, IndexError, KeyError):
                raise ValueError(f"has nothing at {go(key)}") from None
    return value


def _slice(value: Any, *bounds: int) -> Any:
    return value[slice(*(bounds if len(bounds) > 1 else (*bounds, None)))]


def printf(format_: Any, *values: Any) -> str:
    left = list(values)

    def one(found: re.Match[str]) -> str:
        spec, verb = found.group()[:-1], found.group()[-1]
        if verb == "%":
            return "%"
        if not left:
            raise ValueError(f"has no value for {found.group()}")
        value = left.pop(0)
        if verb in "sv" or verb == "t":
            return (spec + "s") % go(value)
        if verb == "q":
            return (spec + "s") % jsontext.shown(go(value))
        if verb in "dxXofeg" and isinstance(value, int | float):
            return (spec + verb) % value
        raise ValueError(f"cannot print {go(value)} with {found.group()}")

    text = VERB.sub(one, _text_of(format_))
    if left:
        raise ValueError(f"has {len(left)} more values than its format")
    return text


def _compare(one: Any, two: Any) -> int:
    if isinstance(one, str) != isinstance(two, str):
        raise ValueError(f"cannot compare {go(one)} with {go(two)}")
    return int(one > two) - int(one < two)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": compact,
    "upper": lambda text: _text_of(text).upper(),
    "lower": lambda text: _text_of(text).lower(),
    "title": lambda text: _text_of(text)[:1].upper() + text[1:],
    "join": lambda items, mark: _text_of(mark).join(go(item) for item in _list_of(items)),
    "split": lambda text, mark: _text_of(text).split(mark),
    "truncate": lambda text, count: _text_of(text)[:count],
    "pad": lambda text, before, after: f"{' ' * before}{text}{' ' * after}" if text else text,
    "print": lambda *values: "".join(go(value) for value in values),
    "println": lambda *values: " ".join(go(value) for value in values) + "\n",
    "printf": printf,
    "len": len,
    "index": _index,
    "slice": _slice,
    "not": lambda value: not value,
    "eq": lambda one, *others: any(one == other for other in others),
    "ne": lambda one, two: one != two,
    "lt": lambda one, two: _compare(one, two) < 0,
    "le": lambda one, two: _compare(one, two) <= 0,
    "gt": lambda one, two: _compare(one, two) > 0,
    "ge": lambda one, two: _compare(one, two) >= 0,
}
