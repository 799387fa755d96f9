"""The yes-or-no settings below ``x-corral``: one reading of them all, and what is refused.

Part of the compiler of stacks. What is neither is refused and never taken for "no": a service
whose ``exclusive`` were not understood would have two writers. Variables are put in as text, so
``"true"`` and ``"false"`` are what they say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from specs.compile.schedule_words import BOOLEAN
from specs.compile.support import EXTENSIONS
from specs.compile.values import mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]


def _within(schema: Json) -> Iterator[tuple[str, ...]]:
    """Yield the keys that lead to each yes-or-no setting of a schema."""
    if schema == BOOLEAN:
        yield ()
    for other in schema.get("anyOf", ()):
        yield from _within(other)
    for key, inner in schema.get("properties", {}).items():
        for keys in _within(inner):
            yield key, *keys


def _by_place() -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for pattern, extension in EXTENSIONS.items():
        place, _, key = pattern.rpartition(".")
        found.setdefault(place, []).extend((key, *keys) for keys in _within(extension.schema))
    return found


# By where an `x-corral` may stand (in the notation of EXTENSIONS): the keys below it that say
# yes or no.
SETTINGS: Final = _by_place()


def check(project: Json, verdicts: Verdicts) -> None:
    """Refuse each ``x-corral`` that is no mapping, and each setting that is neither yes nor no."""
    for place, settings in SETTINGS.items():
        kind = place.partition(".")[0] if "." in place else ""
        holders = mapping(project.get(kind)) if kind else {"": project}
        for name, holder in holders.items():
            _check(
                f"{kind}.{name}.x-corral" if kind else place, mapping(holder), settings, verdicts
            )


def _check(path: str, holder: Json, settings: list[tuple[str, ...]], verdicts: Verdicts) -> None:
    extension = holder.get("x-corral")
    if extension is not None and not isinstance(extension, dict):
        verdicts.refuse(path, f"{extension!r} is no mapping", "write {KEY: VALUE}, or leave it out")
        return
    for *around, key in settings:
        inner = mapping(extension)
        for outer in around:
            inner = mapping(inner.get(outer))
        if key in inner and not (isinstance(inner[key], bool) or inner[key] in ("true", "false")):
            where = ".".join((path, *around, key))
            verdicts.refuse(
                where, f"{inner[key]!r} is neither true nor false", "write true or false"
            )
