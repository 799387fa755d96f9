"""Placement constraints in Swarm's language: parse once, ask per node.

``KEY == VALUE``, ``KEY != VALUE`` and, ours, ``KEY in A, B, C``. Keys are node.id,
node.name, node.hostname, node.role, node.platform.os, node.platform.arch,
node.labels.X; engine.labels.X is read as node.labels.X. Values compare without
case, as Swarm's do; a label that is not there equals nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scheduler.view import NodeView

_FORM = re.compile(r"^\s*([A-Za-z0-9._/-]+)\s*(==|!=|\s+in\s+)\s*(.*?)\s*$")
_FIELDS = frozenset(
    {
        "node.id",
        "node.name",
        "node.hostname",
        "node.role",
        "node.platform.os",
        "node.platform.arch",
    }
)
_LABELS = ("node.labels.", "engine.labels.")
_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """One parsed rule; ``text`` is how the user wrote it."""

    key: str
    operator: str  # == | != | in
    values: tuple[str, ...]
    text: str

    def admits(self, node: NodeView) -> bool:
        """Say whether the node satisfies the rule."""
        found = value_of(node, self.key)
        matches = found is not None and found.casefold() in self.values
        return matches != (self.operator == "!=")


def value_of(node: NodeView, key: str) -> str | None:
    """Return what the node has under ``key``, or None."""
    label = label_of(key)
    if label is not None:
        return node.labels.get(label)
    return {
        "node.id": node.id,
        "node.name": node.name,
        "node.hostname": node.hostname or node.name,
        "node.role": node.role,
        "node.platform.os": node.os,
        "node.platform.arch": _ARCH.get(node.arch, node.arch),
    }.get(key)


def label_of(key: str) -> str | None:
    """Return the label the key names, or None where it is no label's."""
    return next((key.removeprefix(p) for p in _LABELS if key.startswith(p)), None)


@lru_cache(maxsize=4096)
def parse(text: str) -> Constraint:
    """Parse one constraint. Raises ValueError with a sentence that says what is expected."""
    match = _FORM.match(text)
    if match is None or not match[3]:
        message = (
            f"constraint {text!r} is not of the form KEY == VALUE, KEY != VALUE or KEY in A, B"
        )
        raise ValueError(message)
    key, operator, rest = match[1], match[2].strip(), match[3]
    check_key(key)
    values = [rest]
    if operator == "in":
        values = [part for part in re.split(r"[,\s]+", rest.strip("()[] ")) if part]
    folded = tuple(value.strip("\"'").casefold() for value in values)
    if key == "node.platform.arch":
        folded = tuple(_ARCH.get(value, value) for value in folded)
    return Constraint(key, operator, folded, text)


def broken(texts: Iterable[str], node: NodeView) -> Constraint | None:
    """Return the first of these constraints that the node does not satisfy; None = it does."""
    return next((rule for rule in map(parse, texts) if not rule.admits(node)), None)


def check(texts: Iterable[str]) -> None:
    """Raise ValueError with a sentence where one of these is none."""
    for text in texts:
        parse(text)


def check_key(key: str) -> None:
    """Refuse a key no node will ever have. Raises ValueError."""
    if key in _FIELDS or any(
        key.startswith(prefix) and len(key) > len(prefix) for prefix in _LABELS
    ):
        return
    message = (
        f"{key!r} is not something nodes have; use node.labels.NAME, node.hostname, node.name, "
        "node.id, node.role, node.platform.os or node.platform.arch"
    )
    raise ValueError(message)
