"""The agent's figures, of what it holds: what its `/v1/metrics` answers.

``corral_time_seconds`` is the node's own clock, which `corral doctor` compares with that of the
controller.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING

from aiohttp import web

from specs.kit import metrics
from specs.kit.metrics import Family, by, gauge
from specs.states import TaskState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.tasks.compose import TaskParts
    from specs.kit.metrics import LoopLag


def handler(tasks: TaskParts, lag: LoopLag) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return what answers with the figures as Prometheus reads them."""

    async def answer(_request: web.Request) -> web.Response:
        found = [*figures(tasks), lag.histogram.family(), *metrics.process()]
        headers = {"Content-Type": metrics.CONTENT_TYPE}
        return web.Response(body=metrics.text(found).encode(), headers=headers)

    return answer


def figures(tasks: TaskParts) -> list[Family]:
    """Return the figures of one moment."""
    statuses = [one.status() for one in tasks.holdings.records() if not one.erased]
    states = {state.value: 0 for state in TaskState} | Counter(s.state.value for s in statuses)
    held, facts = tasks.holdings.held, tasks.reports.facts
    info = {"version": facts.agent_version, "node": held.me.name if held.me else ""}
    load, *_ = os.getloadavg()
    return [
        Family("corral_info", "gauge", "Which agent this is", (("", info, 1),)),
        gauge("corral_time_seconds", "The node's clock", time.time()),
        by("corral_tasks", "Tasks this node holds, by state", "state", states),
        gauge("corral_tasks_ready", "Those that may get traffic", sum(s.ready for s in statuses)),
        gauge("corral_task_restarts", "Restarts of these", sum(s.restarts for s in statuses)),
        gauge("corral_peers", "Other nodes it knows", len(held.objects.peers)),
        gauge("corral_load", "Processes that want a processor, over a minute", load),
    ]
