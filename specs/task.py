"""Tasks and runs: the states, who may move them, and what is observed.

A task is one replica assigned to one node under one immutable spec. Its state
only moves forward, and every move belongs to exactly one component; the table
``LEGAL`` is that rule as data, enforced where the store is written.

``ready`` is separate: it is observed, may flip any number of times, and alone
feeds DNS, VIPs and rollout availability.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from specs.base import Model


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


FINAL = frozenset(
    {
        TaskState.COMPLETE,
        TaskState.FAILED,
        TaskState.SHUTDOWN,
        TaskState.REJECTED,
        TaskState.ORPHANED,
    }
)

Owner = Literal["controller", "agent"]
S = TaskState

# state -> (owner of its exits, where those exits may lead)
LEGAL: dict[TaskState, tuple[Owner, frozenset[TaskState]]] = {
    S.NEW: ("controller", frozenset({S.PENDING, S.SHUTDOWN})),
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

ORDER = {state: place for place, state in enumerate(TaskState)}


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


class Health(StrEnum):
    NONE = "none"  # no check
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Run(Model):
    """One container start. Times are seconds since the epoch; None = not yet.

    ``exit_code`` None with ``finished_at`` set = unknown (the monitor was lost);
    128 + signal for a death by signal. ``oom`` = the kernel's OOM killer did it.
    """

    number: int
    pid: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    oom: bool = False
    reason: str = ""


class TaskStatus(Model):
    """What the agent reports of one task; replaces the previous report whole."""

    state: TaskState = TaskState.ASSIGNED
    ready: bool = False
    ready_reason: str = ""
    reason: str = ""  # why it is in this state, for people
    health: Health = Health.NONE
    health_output: str = ""  # of the last failing probe, at most 4,096 characters
    restarts: int = 0
    runs: tuple[Run, ...] = ()  # newest last, at most 5
    image_digest: str = ""
    restart_done: int = 0  # the highest Assignment.restart request carried out
    log_tail: tuple[str, ...] = ()  # last ten lines, sent with failed and rejected

    @property
    def run(self) -> Run | None:
        """Return the newest run."""
        return self.runs[-1] if self.runs else None


class Task(Model):
    """The store's record of one task."""

    id: str
    stack: str
    service: str
    slot: int
    name: str  # the container's name
    release: int  # the release that created it
    spec_hash: str
    node: str | None = None
    desired: Desired = Desired.PREPARED
    restart: int = 0  # number of `corral restart` requests so far
    leaving: bool = False  # its endpoints are withdrawn; it is stopped once nodes acknowledged that
    grace: float | None = None  # seconds between stop signal and kill, instead of the spec's
    attempt: int = 0  # how many tasks failed in this slot, one after the other, before this one
    pending_reason: str = ""  # while new or pending: what it waits for
    addresses: dict[str, str] = Field(default_factory=dict)  # network id -> IPv4
    host_ports: dict[str, int] = Field(default_factory=dict)  # "80/tcp" -> chosen published port
    created_at: float = 0.0
    status: TaskStatus = TaskStatus(state=TaskState.NEW)

    @property
    def state(self) -> TaskState:
        return self.status.state

    @property
    def live(self) -> bool:
        """Whether it still counts as a replica: not final and not asked to go."""
        wanted = self.desired in (Desired.PREPARED, Desired.RUNNING) and not self.leaving
        return wanted and self.state not in FINAL
