"""Tasks and runs: what is recorded of a replica, and how that record changes.

A task is one replica assigned to one node under one immutable spec. Its states, and
who may move it, stand in :mod:`specs.states`; here every change of a record has a
method of its own, and one that the table forbids is a bug and stops there.

``ready`` is separate from the state: it is observed, may flip any number of times,
and alone feeds DNS, VIPs and rollout availability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from specs.base import Model
from specs.states import FINAL, WANTED, Desired, Health, TaskState, may_move, may_want

if TYPE_CHECKING:
    from collections.abc import Mapping

    from specs.states import Owner

# How a run ended that the node took with it: not the task's own end, so it runs again.
MACHINE_RESTARTED = "the machine was restarted"
# How a run ended that `restart` ended: nothing went wrong.
RESTART_ASKED = "stopped (restart)"

# How the reason begins, or ends, of a run whose start was not over when it ended.
START_HOOK = "post_start hook"

# What a node is at while it prepares a task; an image may take minutes.
Doing = Literal["", "image", "network", "root"]


class Run(Model):
    """One container start. Times are seconds since the epoch; None = not yet.

    ``exit_code`` None with ``finished_at`` set = unknown (the monitor was lost);
    128 + signal for a death by signal. ``oom`` = the kernel's OOM killer did it.
    ``reason`` says why it ended; of one that runs, what there is to say of its start.
    """

    number: int
    pid: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    oom: bool = False
    reason: str = ""

    def with_pid(self, pid: int) -> Run:
        """Return the run once its process exists."""
        return self.model_copy(update={"pid": pid})

    def with_start(self, at: float, reason: str = "") -> Run:
        """Return the run once its command was let go."""
        return self.model_copy(update={"started_at": at, "reason": reason})

    def with_end(self, at: float, code: int | None, reason: str, *, oom: bool = False) -> Run:
        """Return the run once it has ended."""
        end = {"finished_at": at, "exit_code": code, "reason": reason, "oom": oom}
        return self.model_copy(update=end)

    @property
    def cut_off(self) -> bool:
        """Whether the end of its machine was its end."""
        return self.finished_at is not None and self.reason == MACHINE_RESTARTED

    @property
    def its_own_end(self) -> bool:
        """Whether it ended neither with its machine nor because somebody asked for a restart."""
        return self.finished_at is not None and self.reason not in (
            MACHINE_RESTARTED,
            RESTART_ASKED,
        )

    @property
    def unbegun(self) -> bool:
        """Whether it was its post_start hooks that made it end, or were not over at its end."""
        return self.finished_at is not None and START_HOOK in self.reason

    @property
    def alive(self) -> bool:
        """Whether the command was started and has not ended, by what was heard last."""
        return self.started_at is not None and self.finished_at is None


class TaskStatus(Model):
    """What the agent reports of one task; replaces the previous report whole."""

    state: TaskState = TaskState.ASSIGNED
    ready: bool = False
    ready_reason: str = ""
    reason: str = ""  # why it is in this state, for people
    doing: Doing = ""  # while preparing
    arrived: tuple[int, int] = (0, 0)  # bytes of its image, and how many were missing; 0 = none
    retry_in: float = 0.0  # it did not work and is tried or started again: the pause in seconds
    health: Health = Health.NONE
    health_output: str = ""  # of the last failing probe, at most 4,096 characters
    unasked: str = ""  # why its check could not be run last: its health is what it was
    restarts: int = 0
    runs: tuple[Run, ...] = ()  # newest last, at most 5
    image_digest: str = ""
    # What its container begins with, where the image has a part in that; for people.
    command: tuple[str, ...] = ()
    restart_done: int = 0  # the highest Assignment.restart request carried out
    log_tail: tuple[str, ...] = ()  # last ten lines before its last end that nobody asked for
    held: str = ""  # the node's boot in which its start waits for Assignment.admitted
    paused: bool = False  # its processes are frozen
    crowded: bool = False  # nothing more fits on its node, so it cannot be prepared there
    unnamed: bool = False  # it has anonymous volumes, those only its image declares included

    @property
    def run(self) -> Run | None:
        """Return the newest run."""
        return self.runs[-1] if self.runs else None

    @property
    def last_end(self) -> Run | None:
        """Return the newest run that has ended; another may run by now."""
        return next((run for run in reversed(self.runs) if run.finished_at is not None), None)


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
    restart: int = 0  # `corral restart` requests handed on to its node so far
    restart_asked: int = 0  # `corral restart` requests so far
    restart_waits: str = ""  # what the next of them waits for
    leaving: bool = False  # its endpoints are withdrawn; it is stopped once nodes acknowledged that
    grace: float | None = None  # seconds between stop signal and kill, instead of the spec's
    asked: int = 0  # Stack.asked of its service when it ended, or was told to stop
    attempt: int = 0  # how many tasks failed in this slot, one after the other, before this one
    pending_reason: str = ""  # while new or pending: what it waits for
    misplaced: str = ""  # it stays although its node breaks its constraints: why
    admitted: str = ""  # the boot of its node in which it may start again, see TaskStatus.held
    fresh_volumes: bool = False  # it does not get the anonymous volumes of its slot: `up -V`
    # Whatever the file's order is: it runs beside the one it replaces (a canary), or after it has
    # gone (no node takes both).
    turn: Literal["", "beside", "after"] = ""
    paused: bool = False  # wanted frozen, as `corral pause` asked
    addresses: dict[str, str] = Field(default_factory=dict)  # network id -> IPv4
    host_ports: dict[str, int] = Field(default_factory=dict)  # "80/tcp" -> chosen published port
    partner: str = ""  # the task whose namespaces it shares, where it has a node
    created_at: float = 0.0
    status: TaskStatus = TaskStatus(state=TaskState.NEW)

    @property
    def state(self) -> TaskState:
        return self.status.state

    @property
    def cut_off(self) -> bool:
        """Whether it failed because its machine ended: that is not the task's own end."""
        run = self.status.run
        return self.state is TaskState.FAILED and run is not None and run.cut_off

    @property
    def live(self) -> bool:
        """Whether it still counts as a replica: not final and not asked to go."""
        return self.desired in WANTED and not self.leaving and self.state not in FINAL

    # Changes. Each returns a new record; none is made where the table forbids it.

    def moved(self, state: TaskState, *, by: Owner = "controller") -> Task:
        """Return the task in another state, the rest of its status as it was."""
        return self.with_status(self.status.model_copy(update={"state": state}), by=by)

    def with_status(self, status: TaskStatus, *, by: Owner = "agent") -> Task:
        """Return the task with a new report of it."""
        assert may_move(self.state, status.state, by=by), (
            f"task {self.id}: {by} moves it from {self.state} to {status.state}"
        )
        return self.model_copy(update={"status": status})

    def with_reason(self, reason: str) -> Task:
        """Return the task with what it waits for before it may go on; empty: for nothing."""
        return self.model_copy(update={"pending_reason": reason})

    def with_release(self, release: int) -> Task:
        """Return the task, which has no node yet, as one of another release of the same spec."""
        assert self.node is None, f"{self.id} is on {self.node}: it keeps the release it came with"
        return self.model_copy(update={"release": release})

    def with_turn(self, turn: Literal["beside", "after"]) -> Task:
        """Return the task, to run beside the one it replaces or after it."""
        return self.model_copy(update={"turn": turn})

    def with_misplaced(self, reason: str) -> Task:
        """Return the task with why it is where its constraints forbid; empty: it is not."""
        return self.model_copy(update={"misplaced": reason})

    def with_node(
        self, node: str, *, addresses: Mapping[str, str], host_ports: Mapping[str, int]
    ) -> Task:
        """Return the task assigned to a node, with what it was given there."""
        placed = {"node": node, "addresses": dict(addresses), "host_ports": dict(host_ports)}
        return self.moved(TaskState.ASSIGNED).model_copy(update=placed)

    def without_node(self) -> Task:
        """Return a task that ended, when its node has left the cluster: what it was stays true."""
        assert self.state in FINAL, f"task {self.id} has not ended, and has no node any more"
        return self.model_copy(update={"node": None, "addresses": {}, "host_ports": {}})

    def left_with(self, node: str) -> Task:
        """Return the task on a node that has left the cluster, and is lost with it."""
        return self.model_copy(update={"node": node})

    def with_desired(self, desired: Desired) -> Task:
        """Return the task with a new wish, which never takes a step back."""
        assert may_want(self.desired, desired), (
            f"task {self.id}: wanted {self.desired}, then {desired}"
        )
        return self.model_copy(update={"desired": desired})

    def with_admitted(self, boot: str) -> Task:
        """Return the task, free to start again after its node was restarted."""
        return self.model_copy(update={"admitted": boot})

    def with_leaving(self) -> Task:
        """Return the task on its way out: it gets no new connections, and is stopped then."""
        return self.model_copy(update={"leaving": True})

    def with_grace(self, grace: float | None) -> Task:
        """Return the task with other seconds between stop signal and kill than its spec's."""
        return self.model_copy(update={"grace": grace})

    def with_asked(self, number: int) -> Task:
        """Return the task with the requests to run that came before its end."""
        return self.model_copy(update={"asked": number})

    def with_restart_asked(self, grace: float | None) -> Task:
        """Return the task with one more restart asked for; its node is not told yet."""
        number = max(self.restart, self.restart_asked) + 1
        update = {"restart_asked": number, "grace": grace, "paused": False}
        return self.model_copy(update=update)

    def with_paused(self, paused: bool) -> Task:  # noqa: FBT001 - the state itself
        """Return the task with its processes wanted frozen, or not."""
        return self.model_copy(update={"paused": paused})

    def with_restart_waits(self, what: str) -> Task:
        """Return the task with what its restart waits for."""
        return self.model_copy(update={"restart_waits": what})

    def with_restart(self) -> Task:
        """Return the task with all restarts that were asked for, for its node to do."""
        return self.model_copy(update={"restart": self.restart_asked, "restart_waits": ""})
