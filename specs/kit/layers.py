"""Mappings that share what many have in common, so that a thousand of them cost little.

What a node is told is mostly what others are told, too: of each network the same services, of all
nodes but itself the same records. Read they are as any mapping; compared they are by their parts,
the very same of which need no look (:func:`changes`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

V = TypeVar("V")

_NONE: Mapping[str, Any] = {}


class Layers(Mapping[str, V]):
    """Several mappings with different keys, each under a name of its own. Nobody changes them."""

    __slots__ = ("by_name",)

    def __init__(self, by_name: dict[str, dict[str, V]]) -> None:
        self.by_name = by_name

    def __getitem__(self, key: str) -> V:
        for layer in self.by_name.values():
            if key in layer:
                return layer[key]
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        for layer in self.by_name.values():
            yield from layer

    def __len__(self) -> int:
        return sum(map(len, self.by_name.values()))


class Without(Mapping[str, V]):
    """A mapping but for one key. Nobody changes it."""

    __slots__ = ("hidden", "whole")

    def __init__(self, whole: dict[str, V], hidden: str) -> None:
        self.whole = whole
        self.hidden = hidden

    def __getitem__(self, key: str) -> V:
        if key == self.hidden:
            raise KeyError(key)
        return self.whole[key]

    def __iter__(self) -> Iterator[str]:
        return (key for key in self.whole if key != self.hidden)

    def __len__(self) -> int:
        return len(self.whole) - (self.hidden in self.whole)


def changes(old: Mapping[str, V], new: Mapping[str, V]) -> tuple[dict[str, V], list[str]]:
    """Return what takes ``old`` to ``new``: what to put, and which keys to remove, sorted."""
    if old is new:
        return {}, []
    if isinstance(old, Layers) and isinstance(new, Layers):
        return _of_layers(old, new)
    if isinstance(old, Without) and isinstance(new, Without) and old.hidden == new.hidden:
        put, gone = changes(old.whole, new.whole)
        put.pop(new.hidden, None)
        return put, [key for key in gone if key != new.hidden]
    put = {
        key: value
        for key, value in new.items()
        # Most are the very same; comparing them field by field is the slow part.
        if (known := old.get(key)) is not value and (known is None or known != value)
    }
    return put, sorted(key for key in old if key not in new)


def _of_layers(old: Layers[V], new: Layers[V]) -> tuple[dict[str, V], list[str]]:
    put: dict[str, V] = {}
    gone: list[str] = []
    for name, layer in new.by_name.items():
        before = old.by_name.get(name, _NONE)
        if before is not layer:
            more, less = changes(before, layer)
            put |= more
            gone += less
    for name, before in old.by_name.items():
        if name not in new.by_name:
            gone += before
    # A key may have gone from one layer into another.
    return put, sorted(key for key in gone if key not in new) if gone else []


def plain(of: Mapping[str, V]) -> dict[str, V]:
    """Return it as a dictionary; what is one is returned itself."""
    return of if isinstance(of, dict) else dict(of)
