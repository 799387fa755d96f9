"""The envelopes of lists: an object with one key, so that an answer can grow."""

from __future__ import annotations

from specs.api import NodeRow, ReleaseRow, StackRow, TaskRow
from specs.base import Model


class Undecided(Model):
    """What a list says beside its rows: why nothing may be changed now, and what is to be done."""

    undecided: str = ""
    warnings: tuple[str, ...] = ()  # of the controller itself: a backup that was not made


class Stacks(Undecided):
    stacks: tuple[StackRow, ...] = ()


class Releases(Model):
    releases: tuple[ReleaseRow, ...] = ()


class Tasks(Undecided):
    tasks: tuple[TaskRow, ...] = ()
    missing: tuple[str, ...] = ()  # replicas that ended, with none in their place: why


class NodeRows(Undecided):
    nodes: tuple[NodeRow, ...] = ()
