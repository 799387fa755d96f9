"""What the files of one set have in common, and what a tag in a later file takes away.

The pipeline, ``include`` and ``extends`` all work in a scope; it is the only thing
they must agree about.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from specs.compose.merging.shortforms import clean
from specs.compose.reading.tree import Map, Seq

if TYPE_CHECKING:
    from specs.compose.reading.variables import Environment

Cuts = list[tuple[str, ...]]  # the paths that !reset and !override name


class Scope:
    """Where a set of files lives: its folder, that seen from its includer, its variables."""

    __slots__ = ("base", "environment", "folder")

    def __init__(self, folder: str, base: str, environment: Environment) -> None:
        self.folder = folder  # absolute
        self.base = base  # what relative paths are joined to: relative in an include
        self.environment = environment

    def local(self, path: str) -> str:
        """Return a file named in a Compose file as an absolute path."""
        return posixpath.normpath(posixpath.join(self.folder, path))


def relative(folder: str, base: str) -> str:
    """Return ``folder`` as seen from ``base``; both absolute."""
    return clean(posixpath.relpath(folder, base)) if posixpath.isabs(folder) else folder


def cut(tree: Any, cuts: Cuts) -> None:
    """Remove every path ``!reset`` or ``!override`` names from what came before."""
    for steps in cuts:
        here = tree
        for step in steps[:-1]:
            here = here.get(step) if isinstance(here, Map) else None
        if isinstance(here, Map) and steps:
            here.pop(steps[-1], None)
        elif isinstance(here, Seq) and len(steps) > 1:
            _cut_item(here, steps[-1], steps[-2])


def _cut_item(items: Seq, key: str, attribute: str) -> None:
    """Remove a key's items from a mapping in list form; merging makes lists of mappings, too."""
    marks = ("=", ":") if attribute == "extra_hosts" else ("=",)

    def named(item: object) -> bool:
        starts = tuple(f"{key}{mark}" for mark in marks)
        return isinstance(item, str) and (item == key or item.startswith(starts))

    kept = [(item, items.marks[at]) for at, item in enumerate(items) if not named(item)]
    items[:] = [item for item, _ in kept]
    items.marks[:] = [mark for _, mark in kept]
