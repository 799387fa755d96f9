"""Which nodes a task may run on for the sake of the node's paths that it binds.

Asked by ``orchestrator.control.planning.binds``, which knows what the agents say of a path and
where the stack's data is. An absolute path that a stack writes is data of the node where it
was written first, like a volume: whoever binds it runs there. It is everybody's where it was
there on every node that the service may run on (a share, /etc/localtime): then nodes that
have it are as good as each other, and on one that lacks it nothing is made. Where only some
have it, the first task goes to one of them. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from specs.paths import PathState

SHARED = ""  # instead of a home: it was on every node that the service may run on


@dataclass(frozen=True, slots=True)
class Bound:
    """A path as a stack binds it.

    ``written``: by a service that does not run on every node. ``home``: the node where it was
    written first, SHARED, or None before that.
    """

    path: str
    written: bool
    home: str | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """``home`` as in Bound; ``pinned``: it runs there only (home None: the first task decides).

    ``only``: nodes that come into question, None = all. ``unanswered``: who must be asked first.
    """

    home: str | None = None
    pinned: bool = False
    only: frozenset[str] | None = None
    unanswered: tuple[str, ...] = ()


def certain(bound: Bound, candidates: Collection[str]) -> bool:
    """Say whether nobody need be asked: there is one node, or the data is where none may run."""
    if bound.home == SHARED:
        return False
    return len(candidates) == 1 or bool(bound.home and bound.home not in candidates)


def rule(
    bound: Bound,
    candidates: Collection[str],
    answering: Collection[str],
    said: Mapping[str, PathState],
) -> Ruling:
    """Return where tasks that bind the path may run.

    ``candidates``: every node the service may run on, also one that is drained or down;
    ``answering``: those that can be asked. Of a node that does not answer nothing is taken for
    granted, whatever it said before.
    """
    if certain(bound, candidates):
        # What another node has there may be other data.
        return Ruling(bound.home, pinned=bound.written)
    unanswered = tuple(sorted(n for n in candidates if n in answering and n not in said))
    if unanswered:
        return Ruling(bound.home, unanswered=unanswered)
    there = frozenset(n for n in candidates if said.get(n) == "there" and n in answering)
    if bound.written and (bound.home == SHARED or (there and len(there) == len(candidates))):
        return Ruling(SHARED, only=there)
    if bound.home is not None:
        return Ruling(bound.home, pinned=True)
    return Ruling(pinned=bound.written, only=there or None)
