"""What the agent remembers of one task, and how the controller sees it.

A :class:`Record` is the journal's entry. ``agent/tasks/lifecycle.py`` computes the next
one (pure), ``agent/tasks/journal.py`` stores it. Times named ``*_at`` are monotonic
seconds of the boot ``boot``; a record of another boot has no living process.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from agent.vocabulary import ImageConfig, Process, all_mounts, argv
from specs.base import Model
from specs.states import FINAL, Health, TaskState, may_move
from specs.task import MACHINE_RESTARTED, Doing, Run, TaskStatus
from specs.wire import Assignment

if TYPE_CHECKING:
    from specs.stack import Hook

RUNS_KEPT = 5
COMMAND_TOLD = 1024  # characters of a command, for people


class Phase(StrEnum):
    """Where the newest run is. Written before the step it names begins."""

    NONE = "none"  # no run, or the last one is cleared away
    CREATING = "creating"  # conmon is being started; nothing of the user's runs yet
    CREATED = "created"  # processes exist and are known; the command may have been started
    RUNNING = "running"
    ENDED = "ended"  # the process is gone; the run's leftovers are not


# Of a run that is to stop: no hook yet; runs; all have ended, the signal follows; it was sent.
PreStop = Literal["", "running", "over", "sent"]


class Changes(TypedDict, total=False):
    """The fields of a record that steps change, so that a wrong one does not type-check."""

    assignment: Assignment
    boot: str
    reason: str
    doing: Doing
    arrived: tuple[int, int]
    touched: bool
    prepared: bool
    lease: str
    lease_wait: str
    image: ImageConfig | None
    phase: Phase
    runs: tuple[Run, ...]
    process: Process | None
    monitor: Process | None
    run_started_at: float
    held_until: float
    health: Health
    health_output: str
    unasked: str
    failing: int
    healthy_at: float | None
    restarts: int
    crashes: int
    backoff: float
    attempts: tuple[float, ...]
    restart_done: int
    next_at: float
    crowded: bool
    stopping: str
    stop_at: float
    killed: bool
    paused: bool
    beside: Process | None
    alone: bool
    hooked: int
    hook_failed: str
    hooked_at: float
    pre_stop: PreStop
    tidied: bool
    erased: bool
    log_tail: tuple[str, ...]
    unread: tuple[str, ...]


def shortened(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return as many words as people are told of."""
    told: list[str] = []
    left = COMMAND_TOLD
    for word in words:
        if len(word) > left:
            return (*told, f"{word[:left]}…")
        told.append(word)
        left = max(left - len(word) - 1, 0)
    return tuple(told)


class Record(Model):
    """One task, as far as this node is concerned."""

    id: str
    assignment: Assignment
    boot: str = ""
    state: TaskState = TaskState.ASSIGNED
    reason: str = ""
    doing: Doing = ""
    arrived: tuple[int, int] = (0, 0)  # bytes of its image, and how many were missing

    touched: bool = False  # effects may exist on this node: erase before forgetting
    lease: str = ""  # of an exclusive task: held, ending, over; "" = none in this boot
    lease_wait: str = ""  # why it has none
    prepared: bool = False  # in this boot: image, mounts and network are there
    image: ImageConfig | None = None

    phase: Phase = Phase.NONE
    runs: tuple[Run, ...] = ()
    process: Process | None = None
    monitor: Process | None = None
    run_started_at: float = 0.0
    held_until: float = 0.0  # after a reboot: not started before that, unless admitted

    health: Health = Health.NONE
    health_output: str = ""
    unasked: str = ""  # why the last probe could not be run, which says nothing of its health
    failing: int = 0  # failed probes in a row that count
    healthy_at: float | None = None  # when the present run was first healthy

    restarts: int = 0
    crashes: int = 0  # in a row
    backoff: float = 0.0  # the last delay used
    attempts: tuple[float, ...] = ()  # when restarts happened, for max_attempts and its window
    restart_done: int = 0
    next_at: float = 0.0  # not before
    crowded: bool = False  # it could not be prepared because nothing more fits on this node

    hooked: int = 0  # how many post_start hooks of the present run have ended well
    hook_failed: str = ""  # why one of them did not
    hooked_at: float = 0.0  # when the last one had: from then on the run can be a healthy spell

    # Why the run is being stopped: shutdown, restart, unhealthy, post_start; empty = not.
    stopping: str = ""
    pre_stop: PreStop = ""
    stop_at: float = 0.0  # when the stop began: with its hooks, else with the stop signal
    killed: bool = False  # SIGKILL has been sent
    paused: bool = False  # the run's processes are frozen
    beside: Process | None = None  # the partner's, whose namespaces the run has joined
    alone: bool = False  # that one has ended
    tidied: bool = False  # final, and everything but logs and writable layer is gone
    erased: bool = False  # nothing is left on this node
    log_tail: tuple[str, ...] = ()

    wire: int = 1  # the version that wrote it
    unread: tuple[str, ...] = ()  # fields of its spec a newer version wrote and we do not know

    def having(self, **changes: Unpack[Changes]) -> Record:
        """Return a copy with these fields replaced; the state changes by :meth:`moved` only."""
        return self.model_copy(update=dict(changes))

    def moved(self, state: TaskState) -> Record:
        """Return a copy in another state; a move that ``specs.task.LEGAL`` lacks is a bug."""
        assert may_move(self.state, state, by="agent"), f"{self.id}: {self.state} -> {state}"
        return self.model_copy(update={"state": state})

    @property
    def run(self) -> Run | None:
        """Return the newest run."""
        return self.runs[-1] if self.runs else None

    @property
    def number(self) -> int:
        """Return the newest run's number; 0 before the first."""
        return self.runs[-1].number if self.runs else 0

    def with_run(self, run: Run) -> tuple[Run, ...]:
        """Return the runs with ``run`` added or, by number, replaced."""
        kept = tuple(r for r in self.runs if r.number != run.number)
        return (*kept, run)[-RUNS_KEPT:]

    @property
    def hooks_left(self) -> tuple[Hook, ...]:
        """Return the post_start hooks that have not ended well in the present run."""
        return self.assignment.spec.post_start[self.hooked :]

    @property
    def ready(self) -> bool:
        """Whether traffic may come: the run is alive, wanted, and healthy if it is checked."""
        return (
            self.phase is Phase.RUNNING
            and not self.stopping
            and not self.hooks_left
            and self.health in (Health.NONE, Health.HEALTHY)
        )

    @property
    def ready_reason(self) -> str:
        """Return why it is not ready; empty when it is."""
        if self.ready:
            return ""
        if self.phase is Phase.RUNNING and self.stopping:
            return f"is being stopped ({self.stopping})"
        if self.phase is Phase.RUNNING and self.hooks_left:
            return self.reason or "runs its post_start hooks"
        if self.phase is Phase.RUNNING:
            starting = self.health is Health.STARTING
            return "waits for its first healthy check" if starting else "unhealthy"
        return self.reason or "not running"

    @property
    def admitted(self) -> bool:
        """Whether the controller said that what the task depends on is there, after a reboot."""
        return self.assignment.admitted == self.boot

    @property
    def held(self) -> bool:
        """Whether its start waits for what it depends on, because the machine was restarted."""
        return self.held_until > 0 and not self.admitted and self.state not in FINAL

    @property
    def hold_reason(self) -> str:
        """Return what it is held for; empty when it is not."""
        if not self.held:
            return ""
        return f"{MACHINE_RESTARTED}; waits for {', '.join(self.assignment.after)}"

    @property
    def unawaited(self) -> str:
        """Return what its start did not wait for; empty where it waited or had nobody to wait for.

        Asked at the start itself: a task that is held still was started because time was up, or
        because somebody asked for it.
        """
        if not self.held:
            return ""
        return f"started without waiting any longer for {', '.join(self.assignment.after)}"

    @property
    def retry_in(self) -> float:
        """Return the pause before the next try, 0 where nothing is tried again."""
        waits = self.next_at > 0 and self.phase is not Phase.RUNNING and self.state not in FINAL
        return self.backoff if waits else 0.0

    @property
    def unnamed(self) -> bool:
        """Whether it has anonymous volumes on this node: of its file, or of its image alone."""
        volumes = self.image.volumes if self.image is not None else ()
        mounts = all_mounts(self.assignment.spec.mounts, volumes)
        return any(mount.type == "volume" and mount.source is None for mount in mounts)

    def _command(self) -> tuple[str, ...]:
        """Return the words its container begins with, where its spec alone does not say them."""
        spec = self.assignment.spec
        if self.image is None or spec.entrypoint is not None:
            return ()
        if spec.command is not None and not self.image.entrypoint:
            return ()
        return shortened(argv(spec, self.image))

    def status(self) -> TaskStatus:
        """Return what is reported to the controller."""
        return TaskStatus(
            state=self.state,
            ready=self.ready,
            ready_reason=self.ready_reason,
            reason=self.reason,
            doing=self.doing if self.state is TaskState.PREPARING else "",
            arrived=self.arrived if self.state is TaskState.PREPARING else (0, 0),
            retry_in=self.retry_in,
            health=self.health,
            health_output=self.health_output,
            unasked=self.unasked if self.phase is Phase.RUNNING else "",
            restarts=self.restarts,
            runs=self.runs,
            image_digest=self.image.digest if self.image else "",
            command=self._command(),
            restart_done=self.restart_done,
            log_tail=self.log_tail,
            held=self.boot if self.held else "",
            paused=self.paused,
            unnamed=self.unnamed,
            crowded=self.crowded and not self.prepared and self.state not in FINAL,
        )
