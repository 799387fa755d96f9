"""Versions of corral: the one installed here, and which of two is newer (pure, but for the first).

A version is what a release is called: ``1.2.0``, ``1.3.0rc1``, ``1.3.0.dev2``. Of two builds of one
release (``1.3.0+abc``) neither is newer; they are told apart all the same.
"""

from __future__ import annotations

import functools
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    Age = Literal["", "older", "newer", "another build"]

UNKNOWN = "0"
_SHAPE = re.compile(r"v?(\d+(?:\.\d+)*)[.-]?(dev|a|b|rc|post)?\.?(\d*)")
_STAGES = {"dev": -4, "a": -3, "b": -2, "rc": -1, None: 0, "post": 1}


@functools.cache  # looked for in files, and asked for each node there is
def installed() -> str:
    """Return the version of corral this process runs, UNKNOWN where it was not installed."""
    from importlib import metadata  # noqa: PLC0415 - 30 ms, and not everybody asks

    try:
        return metadata.version("corral")
    except metadata.PackageNotFoundError:
        return UNKNOWN


def build_of(package: Path) -> str:
    """Return the name of the bundle that a package lies in, "" where it was installed otherwise.

    orchestrator/nodes/bootstrap/bundle.py names it by the version and the digest of its content.
    """
    name = package.resolve().parent.name
    return name if re.fullmatch(re.escape(installed()) + "-[0-9a-f]{12}", name) else ""


def age(version: str, than: str) -> Age:
    """Say whether ``version`` is older or newer ``than`` another; empty: it is the same."""
    if version == than:
        return ""
    one, other = _order(version), _order(than)
    if one == other:
        return "another build"
    return "older" if one < other else "newer"


def _order(version: str) -> tuple[tuple[int, ...], int, int]:
    """Return what versions are compared by; what is no version comes before all."""
    found = _SHAPE.match(version.strip())
    if found is None:
        return (), 0, 0
    numbers = [int(number) for number in found[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()  # 1.2 is 1.2.0
    return (-1, *numbers) if not numbers else (0, *numbers), _STAGES[found[2]], int(found[3] or 0)
