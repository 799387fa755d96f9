"""What `corral history` and `corral diff` ask for and get: bodies of the controller's API."""

from __future__ import annotations

from typing import Literal

from specs.base import Model
from specs.made_by import MadeBy
from specs.states import ReleaseState


class HistoryRow(Model):
    """One release: how it ended, who made it, and what it changed.

    Times are seconds since the epoch. ``changed`` says in a phrase what differs from the release
    that was deployed before it, ``services`` which of them are other ones, new or gone.
    """

    stack: str
    number: int
    state: ReleaseState
    running: bool = False  # it is what runs, or what was deployed last of a stack that is stopped
    reason: str = ""
    created_at: float = 0.0
    finished_at: float | None = None
    by: MadeBy = MadeBy()
    who: str = ""  # and where, of ``by``, for people: anna@laptop
    changed: str = ""
    services: tuple[str, ...] = ()


class ReleaseHistory(Model):
    """The newest release first."""

    releases: tuple[HistoryRow, ...] = ()
    stack: str = ""
    present: bool = True  # False: `down` took the stack; its releases are kept


class DiffRow(Model):
    """One difference, as specs.changes.SpecChange has it: ``key`` below ``section`` and ``name``.

    ``old`` and ``new`` are texts for people, masked; "" = it is not there.
    """

    section: Literal["services", "networks", "volumes", "secrets", "configs", "stack"]
    name: str
    key: str = ""
    sign: Literal["+", "-", "~"]
    old: str = ""
    new: str = ""
    replaces: bool = False  # tasks of the service cannot stay as they are


class Diff(Model):
    """What differs between two releases of a stack."""

    stack: str
    before: int
    after: int
    changes: tuple[DiffRow, ...] = ()
