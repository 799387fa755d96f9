"""The Compose language: files in, one canonical project out.

``Project`` comes when asked for, so that importing the package is free.
The pipeline is :mod:`specs.compose.load`, :mod:`specs.compose.merging.layers` and what they name;
the language itself is the data of :mod:`specs.compose.language.schema`.
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
