"""The one pydantic base every model of ours derives from.

Models are frozen and refuse unknown keys, so that a message from a newer
version fails loudly at the border instead of losing a field. Class building is
deferred: importing the vocabulary costs milliseconds, not a schema per class.

Everything that is hashed goes through :func:`canonical_json`, so equal values
have equal hashes on every host and in every release of corral.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Which fields were given, of models that do not note it: one for all, which nobody changes.
_NOT_NOTED: set[str] = set()


class Model(BaseModel):  # noqa: PLW1641 - pydantic makes the hash, of what is frozen
    """Immutable value; extra keys are errors; construction is by keyword."""

    # An error shows no input: a part of an environment, its name cut off, could not be masked.
    model_config = ConfigDict(
        frozen=True, extra="forbid", defer_build=True, hide_input_in_errors=True
    )

    # Pydantic's own of these two allow for what no model of ours has (extra keys, private fields,
    # type parameters), at three times the cost; passes and agents live on them.

    def __eq__(self, other: object) -> bool:
        if self.__class__ is not other.__class__:
            return NotImplemented
        if self is other or self.__dict__ == other.__dict__:
            return True
        # One of them may have a cached property beside its fields.
        return len(self.__dict__) != len(other.__dict__) and super().__eq__(other)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with these fields replaced, which are not validated."""
        if deep:
            return super().model_copy(update=update, deep=True)
        values = self.__dict__.copy()
        if update:
            values.update(update)
        made = self.__class__.__new__(self.__class__)
        object.__setattr__(made, "__dict__", values)
        object.__setattr__(made, "__pydantic_fields_set__", _NOT_NOTED)
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None)
        return made

    def encode(self) -> bytes:
        """Return the compact JSON that the store and the wire carry."""
        return self.model_dump_json(exclude_defaults=True).encode()

    def to_keep(self) -> Self:
        """Return the very same value, for who keeps thousands of them.

        It forgets which of its fields were given: pydantic notes that in a set for each value,
        which is as large as the value, and nobody here asks.
        """
        if self.__pydantic_fields_set__ is not _NOT_NOTED:
            object.__setattr__(self, "__pydantic_fields_set__", _NOT_NOTED)
            for field in self.__dict__.values():
                for one in _values(field):
                    if isinstance(one, Model):
                        one.to_keep()
        return self


def _values(field: object) -> Iterable[object]:
    """Return what is in a field: of a tuple or a mapping each part."""
    if isinstance(field, tuple):
        return field
    return field.values() if isinstance(field, dict) else (field,)


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces: the input of every hash."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def content_hash(value: Any) -> str:
    """Return the hex sha256 of the canonical JSON of a model or JSON value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
