"""Ask agents about paths of their nodes, beside the control loop: a node may take its time.

A node that does not answer in time, or is too old to understand, has said "unknown": nobody
waits for it, and nothing is taken for granted of it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from orchestrator.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.contracts import Agents
    from orchestrator.control.mirror.answers import PathAnswers
    from orchestrator.control.mirror.cluster import Cluster
    from specs.kit.clock import Clock
    from specs.paths import PathState

log = logging.getLogger(__name__)

ANSWER = 5.0  # seconds a node has; a dead network file system keeps a look waiting for ever


class PathQuestions:
    """One question to a node at a time; ``heard`` is called after each answer."""

    def __init__(
        self,
        cluster: Cluster,
        agents: Agents,
        clock: Clock,
        answers: PathAnswers,
        heard: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._agents = agents
        self._clock = clock
        self._answers = answers
        self._heard = heard
        self._asking: set[str] = set()

    def sync(self, group: asyncio.TaskGroup) -> None:
        """Ask what the last pass missed."""
        wanted = self._answers.take()
        if wanted:
            self._answers.forget(self._cluster.nodes, self._clock.monotonic())
        for node, paths in wanted.items():
            if node in self._asking:
                self._answers.wanted[node] = paths  # after the answer there is another pass
                continue
            self._asking.add(node)
            group.create_task(self._ask(node, sorted(paths)), name=f"ask {node} for paths")

    async def _ask(self, node: str, paths: list[str]) -> None:
        said: dict[str, PathState] = {}
        try:
            async with asyncio.timeout(ANSWER):
                said = await self._agents.paths(node, paths)
        except (RequestError, TimeoutError) as error:
            log.info("a node does not say which paths it has", extra={"node": node, "why": error})
        finally:
            self._asking.discard(node)
        answers: dict[str, PathState] = {path: said.get(path, "unknown") for path in paths}
        self._answers.put(node, answers, self._clock.monotonic())
        self._heard()
