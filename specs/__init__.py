"""The vocabulary of corral. Importing it costs nothing: what is heavy comes when asked for."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs the command line milliseconds
if TYPE_CHECKING:
    from typing import Any

    from specs.compose.load import load as load
    from specs.compose.project.model import Project as Project

_LAZY = {"load": "specs.compose.load", "Project": "specs.compose.project.model"}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'specs' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - importing specs stays free

    return getattr(import_module(module), name)
