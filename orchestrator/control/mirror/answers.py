"""What agents said of their nodes' paths, and what is to be asked: observed, never stored.

The planner looks here (:mod:`orchestrator.control.planning.binds`) and notes what it misses; the
control loop has the nodes asked (:mod:`orchestrator.control.asking`) and looks again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from specs.paths import PathState

FRESH = 2.0  # seconds for which an answer counts for what is new
LASTS = 10.0  # and after which it is asked for again for the sake of what waits


@dataclass(slots=True)
class PathAnswers:
    """Answers by node and path, with the time of each; times are monotonic."""

    said: dict[tuple[str, str], tuple[PathState, float]] = field(default_factory=dict)
    wanted: dict[str, set[str]] = field(default_factory=dict)  # node -> paths to ask it about

    def of(
        self, path: str, nodes: Iterable[str], now: float, *, fresh: bool
    ) -> dict[str, PathState]:
        """Return what these nodes said of a path; have them asked where that is old.

        ``fresh``: an old answer counts for none.
        """
        found: dict[str, PathState] = {}
        for node in nodes:
            if fresh and now - self.said.get((node, path), ("", now))[1] > FRESH:
                del self.said[node, path]  # nobody takes it for the answer to this question
            answer = self.said.get((node, path))
            if answer is None or now - answer[1] > LASTS:
                self.wanted.setdefault(node, set()).add(path)
            if answer is not None:
                found[node] = answer[0]
        return found

    def take(self) -> dict[str, set[str]]:
        """Return what is to be asked now."""
        found, self.wanted = self.wanted, {}
        return found

    def put(self, node: str, answers: Mapping[str, PathState], now: float) -> None:
        """Take a node's answers."""
        for path, state in answers.items():
            self.said[node, path] = (state, now)

    def forget(self, nodes: Iterable[str], now: float) -> None:
        """Drop what is of no use any more: nodes that left, answers nobody asked for in long."""
        known = set(nodes)
        self.said = {
            key: value
            for key, value in self.said.items()
            if key[0] in known and now - value[1] < 60 * LASTS
        }
