"""What one place in a Compose file may hold, as data.

:mod:`specs.compose.language.schema` builds the whole language from these; the validator,
interpolation, merging, path resolution and binding each read their own column,
and tables, a JSON schema and lint can be generated from the same objects.
A :class:`Shape` describes all the forms of a value at once: Compose's alternatives
always differ in YAML type.
"""

from __future__ import annotations

import re
from typing import Any


def _whole(pattern: str) -> str:
    """Return the pattern with an end that a line's end is not: Python's ``$`` has two."""
    return f"{pattern[:-1]}\\Z" if pattern.endswith("$") else pattern


class Shape:
    """One place of the language. Unset attributes mean "no rule".

    ``types``: JSON types allowed. ``fields``: known keys; ``names``/``values``: pattern
    and shape of free keys; ``open``: other keys pass unchecked; ``extensible``: ``x-``
    keys allowed. ``items``/``unique``: of lists. ``enum``/``pattern``: of strings;
    ``low``/``high``: of numbers. ``cast``: type after interpolation (int, float, bool).
    ``merge``: rule when files are merged. ``key``: how list items are identified when
    they must be unique. ``short``: canonical form of short syntax. ``path``: how a
    relative path becomes absolute. ``bind``: type in the canonical model.
    ``keep``: "" leave out zero values, "set" keep what is written, "always" show even
    when absent. ``note``: one line for people.
    """

    __slots__ = (
        "bind",
        "cast",
        "enum",
        "extensible",
        "fields",
        "high",
        "items",
        "keep",
        "key",
        "low",
        "merge",
        "names",
        "note",
        "open",
        "path",
        "pattern",
        "required",
        "short",
        "types",
        "unique",
        "values",
    )

    def __init__(
        self,
        types: str,
        *,
        bind: str = "",
        fields: dict[str, Shape] | None = None,
        names: str = "",
        values: Shape | None = None,
        open: bool = False,  # noqa: A002 - reads as in the tables
        extensible: bool = False,
        required: tuple[str, ...] = (),
        items: Shape | None = None,
        unique: bool = False,
        enum: tuple[str, ...] = (),
        pattern: str = "",
        low: int | None = None,
        high: int | None = None,
        cast: str | None = None,
        merge: str = "",
        key: str = "",
        short: str = "",
        path: str = "",
        keep: str = "",
        note: str = "",
    ) -> None:
        self.types = tuple(types.split())
        self.bind = bind
        self.fields = fields
        self.names = re.compile(_whole(names)) if names else None
        self.values = values
        self.open = open
        self.extensible = extensible
        self.required = required
        self.items = items
        self.unique = unique
        self.enum = enum
        self.pattern = re.compile(pattern) if pattern else None
        self.low = low
        self.high = high
        self.cast = cast
        self.merge = merge
        self.key = key
        self.short = short
        self.path = path
        self.keep = keep
        self.note = note

    def of_key(self, key: str) -> Shape | None:
        """Return the shape of a key's value; free keys get theirs whatever their spelling."""
        if self.fields is not None:
            found = self.fields.get(key)
            if found is not None:
                return found
        return self.values

    def names_allow(self, key: str) -> bool:
        """Return whether a free key may be spelled like this."""
        return self.values is not None and (self.names is None or bool(self.names.search(key)))

    def but(self, **changes: Any) -> Shape:
        """Return a copy with some attributes changed."""
        made = Shape.__new__(Shape)
        for name in Shape.__slots__:
            setattr(made, name, changes.get(name, getattr(self, name)))
        return made
