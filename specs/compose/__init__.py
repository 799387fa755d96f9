"""The Compose language: files in, one canonical project out.

``Project`` comes when asked for, so that importing the package is free.
Four rooms, each seeing only those after it: ``project`` makes the canonical model,
``merging`` makes one tree of many files, ``reading`` makes trees of text, ``language``
is the data all of them go by. :mod:`specs.compose.load` runs the stages in their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specs.compose.project.model import Project as Project


def __getattr__(name: str) -> Any:
    if name == "Project":
        from specs.compose.project.model import Project  # noqa: PLC0415 - loaded when asked for

        return Project
    raise AttributeError(f"module 'specs.compose' has no attribute {name!r}")
