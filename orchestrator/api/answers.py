"""The envelopes of lists: an object with one key, so that an answer can grow."""

from __future__ import annotations

from specs.api import NodeRow, ReleaseRow, StackRow, TaskRow
from specs.base import Model


class Stacks(Model):
    stacks: tuple[StackRow, ...] = ()


class Releases(Model):
    releases: tuple[ReleaseRow, ...] = ()


class Tasks(Model):
    tasks: tuple[TaskRow, ...] = ()


class NodeRows(Model):
    nodes: tuple[NodeRow, ...] = ()
