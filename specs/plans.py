"""What `corral up` would do, as the controller found by playing it through: answer of ``plan``.

``POST /v1/stacks/{stack}/plan`` takes what a release is made of (``specs.api.Deploy``) and returns
a :class:`Plan`; nothing is written. ``corral plan -o FILE`` keeps one, ``corral up --plan FILE``
does what it says or refuses. No value of a secret is in it, and none of a variable whose name says
that it is one.

Times are seconds. Nodes are named as people name them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from specs.api import ProblemRow
from specs.base import Model
from specs.problems import Position

Does = Literal["keep", "create", "replace", "move", "remove"]
Sign = Literal["+", "~", "-", ">", "="]


class PlannedChange(Model):
    """One key that differs from what runs (``specs.changes.SpecChange``).

    ``cause`` says what made it, where the command line knows: a variable, an override file.
    """

    section: str
    name: str
    key: str = ""  # empty: all of it came or went
    sign: Literal["+", "-", "~"]
    old: str = ""
    new: str = ""
    path: str = ""
    position: Position | None = None
    replaces: bool = False
    text: str = ""
    cause: str = ""


class PlannedTask(Model):
    """One replica. ``before``: the node it is on now, ``node``: the one it would be on.

    ``why``: why there, of what is made. ``waits``: no node takes it, and this is the reason.
    """

    slot: int
    name: str
    does: Does
    node: str = ""
    before: str = ""
    why: str = ""
    waits: str = ""


class PlannedJob(Model):
    """What is a job's own. ``completions``: how often it is to complete in all, before and after.

    ``at_once``: tasks at a time, None = all. ``queued``: slots that have their turn after those
    that are told. ``anew``: what completed is run again, it is a new iteration.
    """

    completions: tuple[int, int]
    at_once: int | None = None
    queued: int = 0
    anew: bool = False


class PlannedService(Model):
    """What becomes of one service; ``sign`` sums it up: ``=`` nothing does.

    ``down``: for how long none of its replicas serves, likely and at most; None: it serves on, or
    serves nobody now. ``least``: of how many that serve now how many do at the worst moment.
    """

    name: str
    sign: Sign
    reason: str = ""
    order: str = "stop-first"
    parallelism: int = 1
    replicas: tuple[int, int] = (0, 0)  # before, after
    tasks: tuple[PlannedTask, ...] = ()
    after: tuple[str, ...] = ()  # what its start waits for: "db to be healthy"
    down: tuple[float, float] | None = None
    least: tuple[int, int] = (0, 0)
    carried: str = ""  # orphan | off | unasked: left as it is
    job: PlannedJob | None = None


class PlannedImage(Model):
    """An image of what is made, and what is known of it before anything is fetched.

    ``state`` here: a node has it; pulled, asked: the registry is asked by ``up``; built: it is
    built then. ``size`` in bytes, 0 = not known.
    """

    image: str
    services: tuple[str, ...] = ()
    state: Literal["here", "pulled", "asked", "built"] = "here"
    old: str = ""  # digest, short
    new: str = ""
    size: int = 0
    moves: tuple[str, ...] = ()  # nodes that lack it
    sources: tuple[str, ...] = ()  # nodes that have it


class PlannedPort(Model):
    """A published port that comes or goes; ``where``: on which addresses it answers."""

    service: str
    port: str
    where: str
    sign: Literal["+", "-"]


class Plan(Model):
    """All of it. ``release``: the one the stack has now (0: none), ``next``: what `up` would make.

    ``unchanged``: `up` would do nothing, not even make a release. ``fails``: it would not come to
    its end, and why; ``nodes`` and ``hint`` as in ``specs.api.Homeless``. ``decision`` stands for
    what is decided, so that two plans with the same one are the same.
    """

    stack: str
    release: int = 0
    next: int = 0
    decision: str = ""
    unchanged: bool = False
    services: tuple[PlannedService, ...] = ()
    changes: tuple[PlannedChange, ...] = ()
    images: tuple[PlannedImage, ...] = ()
    ports: tuple[PlannedPort, ...] = ()
    volumes: tuple[str, ...] = ()  # that would be made
    networks: tuple[str, ...] = ()
    order: tuple[tuple[str, ...], ...] = ()  # services by when their first replica starts
    places: dict[str, str] = Field(default_factory=dict)  # "web.2" -> id of the node
    orphans: tuple[str, ...] = ()
    warnings: tuple[ProblemRow, ...] = ()
    fails: str = ""
    nodes: tuple[str, ...] = ()
    hint: str = ""
    cut: str = ""  # why the end was not played
    by_hand: str = ""  # what somebody has to decide meanwhile; the rest is as it goes on then
    takes: float = 0.0  # seconds until all of it serves, as far as one can tell
