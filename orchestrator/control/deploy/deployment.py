"""What the steps of one deploy share: the request, the draft, the problems found so far.

``commands`` makes one for each request; ``release``, ``contents`` and ``ports`` do their part
with it. Problems are collected, so that a user hears of all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.errors import Invalid
from specs.problems import Position, Problem

if TYPE_CHECKING:
    import random

    from orchestrator.contracts import Sealer
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.draft import Draft
    from specs.api import Deploy


@dataclass
class Deployment:
    """What the steps of one deploy share."""

    cluster: Cluster
    draft: Draft
    sealer: Sealer
    rng: random.Random
    wall: float
    stack: str
    request: Deploy
    problems: list[Problem] = field(default_factory=list)

    def error(self, path: str, message: str, *, code: str = "invalid", hint: str = "") -> None:
        """Note a refusal at a path of the file."""
        self.problems.append(
            Problem(message, code, path, position_of(self.request.origins, path), hint)
        )

    def warn(self, path: str, message: str, *, hint: str = "") -> None:
        """Note something that does not stop the release."""
        self.problems.append(
            Problem(
                message,
                "warning",
                path,
                position_of(self.request.origins, path),
                hint,
                "warning",
            )
        )

    def check(self) -> None:
        """Raise Invalid when there were refusals."""
        if any(p.severity == "error" for p in self.problems):
            raise Invalid(self.problems)


def position_of(origins: dict[str, str], path: str) -> Position | None:
    """Return where a path, or the nearest one around it, is in the user's files."""
    while path:
        text = origins.get(path)
        if text is not None:
            file, _, rest = text.rpartition(":")
            file, _, line = file.rpartition(":")
            if line.isdigit() and rest.isdigit():
                return Position(file, int(line), int(rest))
            return None
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return None
