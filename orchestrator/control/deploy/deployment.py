"""What the steps of one deploy share: the request, the draft, the problems found so far.

``commands`` makes one for each request; ``release``, ``contents`` and ``ports`` do their part
with it. Problems are collected, so that a user hears of all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.errors import Invalid
from specs.findings import Findings

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from orchestrator.contracts import Sealer
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.draft import Draft
    from specs.api import Deploy
    from specs.node import Node


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
    asked: Mapping[str, tuple[str, ...]]  # node -> ports its processes hold, asked just now
    findings: Findings = field(init=False)
    tokens: dict[str, str] = field(default_factory=dict)  # Release.recreates, as it fills

    def __post_init__(self) -> None:
        self.findings = Findings(self.request.origins)

    def listening(self, node: Node) -> tuple[str, ...]:
        """Return the ports the node's processes hold, as fresh as is known."""
        return self.asked.get(node.id, node.facts.listening)

    def error(self, path: str, message: str, *, code: str = "invalid", hint: str = "") -> None:
        """Note a refusal at a path of the file."""
        self.findings.error(message, code=code, path=path, hint=hint)

    def warn(self, path: str, message: str, *, hint: str = "") -> None:
        """Note something that does not stop the release."""
        self.findings.warn(message, path=path, hint=hint)

    def check(self) -> None:
        """Raise Invalid when there were refusals."""
        if self.findings.errors:
            raise Invalid(self.findings.all())
