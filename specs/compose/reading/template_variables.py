"""Which variables a project's files ask for, whether they are set or not.

``corral config --variables`` prints them. Works on a model loaded without
interpolation, so that a variable behind an unused branch is named too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from specs.compose.reading.interpolate import placeholders

if TYPE_CHECKING:
    from collections.abc import Iterator


class Variable(NamedTuple):
    """One variable: ``default`` and ``alternate`` are the texts after ``-`` and ``+``."""

    name: str
    required: bool = False
    default: str = ""
    alternate: str = ""


def asked_variables(model: Any) -> list[Variable]:
    """Return every variable in the model's texts, by name; the first use that says more wins."""
    found: dict[str, Variable] = {}
    for text in _texts(model):
        for item in _asked(text):
            known = found.get(item.name)
            found[item.name] = item if known is None else _merged(known, item)
    return sorted(found.values())


def _merged(one: Variable, other: Variable) -> Variable:
    return Variable(
        one.name,
        one.required or other.required,
        one.default or other.default,
        one.alternate or other.alternate,
    )


def _asked(text: str) -> Iterator[Variable]:
    for name, operator, right in placeholders(text):
        kind = operator[-1:]
        yield Variable(
            name,
            required=kind == "?",
            default=right if kind == "-" else "",
            alternate=right if kind == "+" else "",
        )
        if right:
            yield from _asked(right)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if "$" in value:
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
