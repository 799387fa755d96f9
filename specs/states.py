"""The states of tasks, nodes and releases, and who may move them where.

A task's state only moves forward, and every move belongs to exactly one
component; ``LEGAL`` is that rule as data. A release ends once and stays as it
ended. The moves themselves are made by :class:`specs.task.Task` and
:class:`specs.api.Release`, which check them here.

Costs next to nothing to import, so that the command line has the same words as the
controller.
"""

from __future__ import annotations

from enum import StrEnum

TYPE_CHECKING = False  # typing itself costs the command line milliseconds
if TYPE_CHECKING:
    from typing import Literal

    Owner = Literal["controller", "agent"]


class TaskState(StrEnum):
    """States in order; the later ones (complete ... orphaned) are final."""

    NEW = "new"  # the controller wants it to exist
    PENDING = "pending"  # admitted; waits for a node (reason says why)
    ASSIGNED = "assigned"  # a node is chosen
    PREPARING = "preparing"  # the node pulls images, makes networks
    PREPARED = "prepared"  # could start at once; waits for desired = running
    STARTING = "starting"  # the first run is created
    RUNNING = "running"  # a run has been healthy once (or started, without a check)
    COMPLETE = "complete"  # ended with 0 and needs no restart
    FAILED = "failed"  # ended, and local restarts are exhausted
    SHUTDOWN = "shutdown"  # stopped because it was asked to
    REJECTED = "rejected"  # the node could not prepare it
    ORPHANED = "orphaned"  # its node is gone for good


S = TaskState

# Before a node was chosen: nothing to stop, nothing to free.
UNPLACED = frozenset({S.NEW, S.PENDING})
FINAL = frozenset({S.COMPLETE, S.FAILED, S.SHUTDOWN, S.REJECTED, S.ORPHANED})
# Ended as nobody wished.
BROKEN = frozenset({S.FAILED, S.REJECTED, S.ORPHANED})

# state -> (owner of its exits, where those exits may lead)
LEGAL: dict[TaskState, tuple[Owner, frozenset[TaskState]]] = {
    # A task that finds its node in the pass that made it was never seen pending.
    S.NEW: ("controller", frozenset({S.PENDING, S.ASSIGNED, S.SHUTDOWN})),
    S.PENDING: ("controller", frozenset({S.ASSIGNED, S.SHUTDOWN})),
    S.ASSIGNED: (
        "agent",
        frozenset(
            {
                S.PREPARING,
                S.PREPARED,
                S.STARTING,
                S.RUNNING,
                S.COMPLETE,
                S.FAILED,
                S.SHUTDOWN,
                S.REJECTED,
            }
        ),
    ),
    S.PREPARING: (
        "agent",
        frozenset(
            {S.PREPARED, S.STARTING, S.RUNNING, S.COMPLETE, S.FAILED, S.SHUTDOWN, S.REJECTED}
        ),
    ),
    S.PREPARED: (
        "agent",
        frozenset({S.STARTING, S.RUNNING, S.COMPLETE, S.FAILED, S.SHUTDOWN, S.REJECTED}),
    ),
    S.STARTING: (
        "agent",
        frozenset({S.RUNNING, S.COMPLETE, S.FAILED, S.SHUTDOWN, S.REJECTED}),
    ),
    S.RUNNING: ("agent", frozenset({S.COMPLETE, S.FAILED, S.SHUTDOWN})),
    S.COMPLETE: ("controller", frozenset()),
    S.FAILED: ("controller", frozenset()),
    S.SHUTDOWN: ("controller", frozenset()),
    S.REJECTED: ("controller", frozenset()),
    S.ORPHANED: ("controller", frozenset()),
}

# The one exit the controller takes from states the agent owns: the node is gone for good.
ORPHANABLE = frozenset({S.ASSIGNED, S.PREPARING, S.PREPARED, S.STARTING, S.RUNNING})


def may_move(old: TaskState, new: TaskState, *, by: Owner) -> bool:
    """Say whether ``by`` may move a task from ``old`` to ``new`` (staying is always legal)."""
    if old == new:
        return True
    if by == "controller" and new is S.ORPHANED:
        return old in ORPHANABLE
    owner, exits = LEGAL[old]
    return owner == by and new in exits


class Desired(StrEnum):
    """What the controller wants of a task; it only moves downwards in this list."""

    PREPARED = "prepared"  # get everything ready, do not start
    RUNNING = "running"
    SHUTDOWN = "shutdown"  # stop (grace period), keep logs, report
    REMOVED = "removed"  # every trace on the node goes


# Wanted to be there, whether it may start already or not.
WANTED = frozenset({Desired.PREPARED, Desired.RUNNING})


def may_want(old: Desired, new: Desired) -> bool:
    """Say whether the wish may change so: it never takes a step back."""
    wishes = list(Desired)
    return wishes.index(new) >= wishes.index(old)


class Health(StrEnum):
    NONE = "none"  # no check
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class NodeStatus(StrEnum):
    """Whether the controller hears from a node; observed, never stored."""

    READY = "ready"
    UNREADY = (
        "unready"  # heard; its network does not work, or its disk is full: nothing new comes there
    )
    UNKNOWN = "unknown"  # not heard from for a while, or not yet
    DOWN = "down"  # silent for so long that its tasks are replaced elsewhere


HEARD = frozenset({NodeStatus.READY, NodeStatus.UNREADY})  # what they say is true now


class ReleaseState(StrEnum):
    PENDING = "pending"  # images are being built and resolved
    DEPLOYING = "deploying"
    DEPLOYED = "deployed"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled_back"


R = ReleaseState

# Where a release may go; it stays as it ended until another release takes over.
RELEASE_MOVES: dict[ReleaseState, frozenset[ReleaseState]] = {
    R.PENDING: frozenset({R.DEPLOYING, R.FAILED, R.SUPERSEDED}),
    R.DEPLOYING: frozenset({R.DEPLOYED, R.FAILED, R.SUPERSEDED, R.ROLLED_BACK}),
    R.DEPLOYED: frozenset(),
    R.FAILED: frozenset(),
    R.SUPERSEDED: frozenset(),
    R.ROLLED_BACK: frozenset(),
}
OVER = frozenset(state for state, exits in RELEASE_MOVES.items() if not exits)
