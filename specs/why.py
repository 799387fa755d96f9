"""Why something is as it is: what ``GET /v1/why/{name}`` answers and ``corral why`` prints.

The controller decides it from its records and the events it kept
(orchestrator/control/explaining.py); times are seconds since the epoch.
"""

from __future__ import annotations

from typing import Literal

from specs.base import Model
from specs.events import Event


class WhyNode(Model):
    """What one node says of a task without a node.

    ``rules``: what refuses it, each in words; empty = it would take it. ``binding``: one of the
    nodes nearest to taking it.
    """

    node: str
    rules: tuple[str, ...] = ()
    binding: bool = False


class Why(Model):
    """Why it is as it is.

    ``answer``: one sentence, with the words of ``ps``. ``because``: what it waits for or comes
    from, the nearest first. ``nodes``: who refuses it. ``helps``: changes that were tried and
    would do, or commands that tell more. ``history``: what led here, oldest first.
    """

    what: Literal["stack", "service", "task", "node"]
    name: str
    stack: str = ""
    answer: str = ""
    because: tuple[str, ...] = ()
    nodes: tuple[WhyNode, ...] = ()
    helps: tuple[str, ...] = ()
    history: tuple[Event, ...] = ()
