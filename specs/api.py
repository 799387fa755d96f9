"""The controller's HTTP API: bodies both sides of the socket agree on.

Paths (JSON; errors are problem+json, see :class:`ApiProblem`)::

    GET    /v1/version                       Version
    GET    /v1/openapi.json
    GET    /v1/nodes                         {"nodes": [NodeRow]}
    GET    /v1/nodes/{name}                  NodeDetail
    POST   /v1/nodes                         AddNode -> NDJSON stream of Progress
    PATCH  /v1/nodes/{name}                  PatchNode -> NodeRow
    DELETE /v1/nodes/{name}?force=           NDJSON stream of Progress
    POST   /v1/upgrade                       Upgrade -> NDJSON stream of Progress
    GET    /v1/stacks                        {"stacks": [StackRow]}
    GET    /v1/stacks/{stack}                StackDetail
    POST   /v1/stacks/{stack}/releases       Deploy -> ReleaseRow (idempotent by Deploy.key)
    POST   /v1/stacks/{stack}/plan?within=S  Deploy -> Plan (specs.plans); nothing is written
    GET    /v1/stacks/{stack}/releases       {"releases": [ReleaseRow]}
    GET    /v1/stacks/{stack}/history?service=&limit=  ReleaseHistory (specs.history)
    POST   /v1/stacks/{stack}/rollback       Rollback -> RolledBack; then watch .../progress
    GET    /v1/stacks/{stack}/diff?before=N&after=N  Diff (specs.history)
    GET    /v1/stacks/{stack}/progress?release=N     NDJSON of Progress; ends with the release
    DELETE /v1/stacks/{stack}?volumes=0|1&timeout=S  StackRow; then watch .../progress
    POST   /v1/stacks/{stack}/scale          Scale -> StackRow
    POST   /v1/stacks/{stack}/restart        Restart -> Restarted
    POST   /v1/stacks/{stack}/start          Start -> Started; then watch .../progress?release=N
    GET    /v1/stacks/{stack}/rollout        RolloutStatus
    POST   /v1/stacks/{stack}/rollout        Steer -> Steered; then watch .../progress?release=N
    POST   /v1/stacks/{stack}/stop           StopStack -> StackRow; all tasks shut down, stack kept
    GET    /v1/stacks/{stack}/tasks?all=&oneoffs=   {"tasks": [TaskRow]}
    POST   /v1/stacks/{stack}/runs           StartOneOff -> NDJSON of OneOffProgress (specs.oneoff)
    POST   /v1/stacks/{stack}/oneoffs        ActOnOneOffs -> ActedOn
    GET    /v1/tasks/{id}/streams               TaskStreams
    GET    /v1/tasks/{id}/attach             WebSocket, as specs.wire says of AttachRequest
    GET    /v1/tasks/{id}                    Task (specs.task); {id} may be a live task's name
    GET    /v1/tasks/{id}/made               TaskMade: what it was made from
    GET    /v1/tasks/{id}/exec               WebSocket, as specs.wire says
    GET    /v1/stacks/{stack}/logs?service=&follow=&tail=&since=&timestamps=
                                             NDJSON stream of StackLogLine, merged by time
    GET    /v1/state                         StateReport
    POST   /v1/state/adopt?without_absent=   DecidedState: take over what runs
    POST   /v1/state/discard                 DecidedState: stop what the state does not know
    GET    /v1/why/{name}?stack=             Why (specs.why)
    GET    /v1/events?stack=&since=&until=&tail=&filter=&follow=
                                             NDJSON stream of Event (specs.events)

It stays whole, though long: it is the one page both sides read.

Rows are shaped here, by the server: the CLI prints the dictionaries it reads and
never imports these models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from specs.base import Model
from specs.history import DiffRow
from specs.made_by import MadeBy
from specs.node import NodeFacts
from specs.problems import Position
from specs.stack import StackSpec, TaskSpec
from specs.states import OVER, RELEASE_MOVES, ReleaseState
from specs.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from specs.problems import Problem

KEY = r"^[A-Za-z0-9_.:-]{1,128}$"  # what a request calls itself, part of a key of the store


class ClientMachine(Model):
    """Which machine the CLI runs on: its files can be used there as they are."""

    hostname: str = ""
    boot_id: str = ""


class Deploy(Model):
    """A wanted release, as the CLI sends it.

    ``project`` is the canonical Compose mapping of ``corral config --format json``;
    ``origins`` says where its dotted paths were written, so that the server's
    refusals point into the user's files. ``contents`` holds the bytes (base64) of
    secrets, configs and env-independent files by ``secrets.KEY`` / ``configs.KEY``.
    ``known`` names services the files have besides those of ``project``, because a profile
    is off: what runs of them is no orphan. With ``services`` named, ``force_recreate`` and
    ``build`` are about these; ``no_deps`` leaves their dependencies alone,
    ``always_recreate_deps`` replaces those, too.
    """

    key: str = Field(pattern=KEY)  # idempotency key: the same key never makes two releases
    project: dict[str, Any]
    directory: str = ""  # the project directory on the client's machine
    origins: dict[str, Position] = Field(default_factory=dict)
    contents: dict[str, str] = Field(default_factory=dict)
    client: ClientMachine = ClientMachine()
    services: tuple[str, ...] = ()  # only these (with dependencies); empty = all
    scale: dict[str, int] = Field(default_factory=dict)
    build: Literal["missing", "always", "never"] = "missing"
    pull: str | None = None
    force_recreate: bool = False
    remove_orphans: bool = False
    deadline: float | None = None
    known: tuple[str, ...] = ()
    no_deps: bool = False
    always_recreate_deps: bool = False
    again: tuple[str, ...] = ()  # of the services it starts, those that run though they completed
    timeout: float | None = None  # grace period of what it replaces or removes, else the spec's
    no_start: bool = False  # make what does not run, as far as it comes without a process
    renew_volumes: bool = False  # what it makes anew begins with empty anonymous volumes
    no_recreate: bool = False  # what exists keeps its spec, only what is missing is made
    config_files: tuple[str, ...] = ()  # where the files lie on the client's machine
    # Of a plan somebody agreed to: the stack's newest release then, and where what it makes goes.
    planned_after: int | None = None
    places: dict[str, str] = Field(default_factory=dict)
    by: MadeBy = MadeBy()


class Homeless(Model):
    """Tasks of one service that no node takes, why, and what would help; for people.

    ``nodes``: one line for each reason, with the nodes that have it.
    """

    service: str
    tasks: tuple[str, ...] = ()  # names
    placed: int = 0
    wanted: int = 0
    reason: str = ""
    nodes: tuple[str, ...] = ()
    hint: str = ""


class Release(Model):
    """The store's record of one release; the spec itself is content-addressed."""

    stack: str
    number: int
    spec: str  # content hash of the StackSpec part
    key: str = ""
    state: ReleaseState = ReleaseState.PENDING
    reason: str = ""
    created_at: float = 0.0
    finished_at: float | None = None
    images: dict[str, str] = Field(default_factory=dict)  # service -> manifest digest
    client: ClientMachine = ClientMachine()
    build: Literal["missing", "always", "never"] = "missing"
    pull: str | None = None
    recreate: str = ""  # as ``recreates``, for every service that is not there
    services: tuple[str, ...] = ()
    remove_orphans: bool = False
    starts: tuple[str, ...] = ()  # services it starts again where they ended, see Stack.asked
    # Made by `start`: about the services in ``starts`` alone, and every task keeps its spec.
    only_starts: bool = False
    notes: tuple[str, ...] = ()  # what it went without although the file names it, for people
    no_deps: bool = False  # the named services do not wait for what they depend on
    again: tuple[str, ...] = ()  # of ``starts``, those that run though they completed before
    grace: float | None = None  # seconds for what it replaces or removes to end, else the spec's
    # service -> token mixed into its hash; a new one replaces its tasks though nothing changed
    recreates: dict[str, str] = Field(default_factory=dict)
    homeless: tuple[Homeless, ...] = ()  # what has had no node for a while
    stalled: bool = False  # and nothing else of it is under way
    # What Stack.overrides is to be once its images are there: a number and the spec it is for
    # come together. None: it says nothing of numbers.
    overrides: dict[str, int] | None = None
    renew_volumes: bool = False  # tasks it makes while it is deployed begin with empty ones
    # Services that exist and keep the spec their tasks have, though it is about them.
    keeps: tuple[str, ...] = ()
    # Services whose tasks, there when it began to be deployed, it replaces: updates. None: by an
    # earlier version, which did not say.
    updates: tuple[str, ...] | None = None
    # The task whose end or check failed it; empty: none did. None: an earlier version does not say.
    culprit: str | None = None
    # Where the plan it was made from has what it makes: "web.2" -> id of the node. Wished for
    # while that node takes it, and never waited for.
    places: dict[str, str] = Field(default_factory=dict)
    by: MadeBy = MadeBy()  # who made it, and why
    # A rollback: the release it brings back, and service -> the manifest digest that must be had.
    rollback_to: int = 0
    pinned: dict[str, str] = Field(default_factory=dict)
    paused: tuple[str, ...] = ()  # services of which no further slot is begun: `rollout pause`
    promoted: tuple[str, ...] = ()  # services whose canary was found good: the others follow
    # Of one that was rolled back: how far that is, and what is wrong with it.
    back: Literal["", "going", "done", "failed"] = ""
    back_reason: str = ""

    @property
    def over(self) -> bool:
        """Whether it came to an end, good or bad."""
        return self.state in OVER

    def moved(
        self, state: ReleaseState, *, reason: str = "", finished_at: float | None = None
    ) -> Release:
        """Return the release in its next state; one that is over stays as it ended."""
        assert state in RELEASE_MOVES[self.state], (
            f"release {self.number} of {self.stack} goes from {self.state} to {state}"
        )
        assert (finished_at is not None) == (state in OVER), f"{state} at {finished_at}"
        update = {"state": state, "reason": reason, "finished_at": finished_at}
        return self.model_copy(update=update).with_homeless((), stalled=False)

    def with_homeless(self, homeless: tuple[Homeless, ...], *, stalled: bool) -> Release:
        """Return the release with what no node takes now."""
        return self.model_copy(update={"homeless": homeless, "stalled": stalled})

    def with_notes(self, notes: tuple[str, ...]) -> Release:
        """Return the release with more that people are warned of."""
        return self.model_copy(update={"notes": (*self.notes, *notes)})

    def with_updates(self, services: tuple[str, ...]) -> Release:
        """Return the release with the services it updates, rather than starts."""
        return self.model_copy(update={"updates": services})

    def updating(self, service: str) -> bool:
        """Say whether tasks of the service may have been there to be replaced."""
        return self.updates is None or service in self.updates

    def with_paused(self, services: Iterable[str]) -> Release:
        """Return the release with these services paused, and no others."""
        return self.model_copy(update={"paused": tuple(sorted(services))})

    def with_promoted(self, services: Iterable[str]) -> Release:
        """Return the release with these services' canaries found good, too."""
        return self.model_copy(update={"promoted": tuple(sorted({*self.promoted, *services}))})

    def with_back(self, how: Literal["going", "done", "failed"], reason: str = "") -> Release:
        """Return a release that was rolled back with how far that is."""
        return self.model_copy(update={"back": how, "back_reason": reason})

    def with_overrides(self, replicas: Mapping[str, int]) -> Release:
        """Return the release with other numbers for some services: they were scaled since."""
        if self.overrides is None:
            return self
        return self.model_copy(update={"overrides": {**self.overrides, **replicas}})

    def with_images(self, images: Mapping[str, str]) -> Release:
        """Return the release with the digest of every service's image: it can be deployed."""
        update = {"images": dict(images)}
        return self.moved(ReleaseState.DEPLOYING).model_copy(update=update)


class Standby(Model):
    """Tasks of a service that run without traffic, by their spec's hash: see blue-green.

    ``since``: when traffic left them, seconds since the epoch; 0: they have not had any yet.
    ``until``: when they go.
    """

    hashes: tuple[str, ...] = ()
    since: float = 0.0
    until: float = 0.0


StackDesired = Literal["up", "stopped", "removed"]


class Stack(Model):
    """The store's record of one stack.

    ``asked`` is, for each service, the number of the last request that it run: `up`, `start`
    and `restart` are such, counted for the stack, so that what was asked for together has one
    number. A task that ended before has another one after it, whatever its policy; one that
    completed only if that was asked by `restart`, whose last number is in ``asked_again``.
    """

    name: str
    desired: StackDesired = "up"
    release: int = 0  # the newest release
    running: int = 0  # the newest release that was deployed
    overrides: dict[str, int] = Field(default_factory=dict)  # service -> replicas set by scale
    autoscaled: dict[str, int] = Field(default_factory=dict)  # of these, what autoscale set last
    asked: dict[str, int] = Field(default_factory=dict)  # service -> the last request to run
    asked_again: dict[str, int] = Field(default_factory=dict)  # service -> the last by `restart`
    remove_volumes: bool = False
    stop_timeout: float | None = None
    spec: StackSpec | None = None  # never stored here; joined by readers
    stopped_services: tuple[str, ...] = ()  # kept down while the stack is up, until asked for
    created: tuple[str, ...] = ()  # their tasks are made and let run only once asked for
    config_files: tuple[str, ...] = ()  # of the last `up`, on its machine
    standby: dict[str, Standby] = Field(default_factory=dict)  # service -> what gets no traffic
    epoch: int = 0  # the controller's when the record was changed last
    generation: int = 0  # counts its changes

    @property
    def stamp(self) -> tuple[int, int]:
        """Return how new the record is: of two, the greater was written later."""
        return self.epoch, self.generation

    def stamped(self, epoch: int, generation: int) -> Stack:
        """Return the record as the change of that number."""
        return self.model_copy(update={"epoch": epoch, "generation": generation})

    def with_running(self, release: int) -> Stack:
        """Return the stack with the release that was deployed last."""
        return self.model_copy(update={"running": release})

    def with_overrides(self, replicas: Mapping[str, int]) -> Stack:
        """Return the stack with these services scaled; what is stopped stays so."""
        return self.model_copy(update={"overrides": {**self.overrides, **replicas}})

    def with_autoscaled(self, service: str, count: int) -> Stack:
        """Return the stack with a service scaled by itself."""
        known = {**self.autoscaled, service: count}
        return self.with_overrides({service: count}).model_copy(update={"autoscaled": known})

    def with_asked(
        self, services: Iterable[str], *, again: bool = False, anew: Iterable[str] = ()
    ) -> Stack:
        """Return the stack wanted up, with these services asked to run once more.

        ``again``: also those of which a task completed, as `restart` does it: in no order but
        along its edges. ``anew`` are such services that keep all their order, so they are asked
        twice: what completed runs again, and then as all others. Other stopped services stay
        down.
        """
        anew = set(anew)
        number = max(self.asked.values(), default=0) + 1
        numbers = dict.fromkeys(services, number + bool(anew))
        asked_again = numbers if again else {n: number for n in numbers if n in anew}
        return self.model_copy(
            update={
                "desired": "up",
                "stop_timeout": None,
                "stopped_services": tuple(n for n in self.stopped_services if n not in numbers),
                "created": tuple(n for n in self.created if n not in numbers),
                "asked": {**self.asked, **numbers},
                "asked_again": {**self.asked_again, **asked_again},
            }
        )

    def begun(self, release: Release) -> Stack:
        """Return the stack as a release has it whose images are there: its numbers, its starts."""
        numbers = self.overrides if release.overrides is None else release.overrides
        scaled = self.model_copy(update={"overrides": dict(numbers)})
        return scaled.with_asked(release.starts, anew=release.again) if release.starts else scaled

    def with_standby(self, service: str, standby: Standby | None) -> Stack:
        """Return the stack with other tasks of a service without traffic; None: all get it."""
        found = {name: one for name, one in self.standby.items() if name != service}
        if standby is not None:
            found[service] = standby
        return self.model_copy(update={"standby": found})

    def with_config_files(self, files: tuple[str, ...]) -> Stack:
        """Return the stack whose files lie elsewhere."""
        return self.model_copy(update={"config_files": files})

    def with_release(self, number: int) -> Stack:
        """Return the stack with another newest release."""
        return self.model_copy(update={"release": number})

    def begun_down(self, services: Iterable[str]) -> Stack:
        """Return the stack wanted up, with all its services stopped until they are asked for."""
        down = tuple(sorted(services))
        return self.model_copy(update={"desired": "up", "stopped_services": down})

    def stopped(self, timeout: float | None) -> Stack:
        """Return the stack asked to shut everything down; a removed one stays removed."""
        assert self.desired != "removed", f"stack {self.name} is being removed"
        return self.model_copy(update={"desired": "stopped", "stop_timeout": timeout})

    def with_stopped(self, services: Iterable[str], timeout: float | None) -> Stack:
        """Return the stack with single services asked to shut down, the others as they were."""
        down = tuple(sorted({*self.stopped_services, *services}))
        return self.model_copy(update={"stopped_services": down, "stop_timeout": timeout})

    def removed(self, timeout: float | None, *, volumes: bool) -> Stack:
        """Return the stack asked to go; volumes go when any of those who asked said so."""
        update = {
            "desired": "removed",
            "stop_timeout": timeout,
            "remove_volumes": volumes or self.remove_volumes,
        }
        return self.model_copy(update=update)


class ProblemRow(Model):
    """specs.problems.Problem as JSON."""

    message: str
    code: str = "invalid"
    path: str = ""
    position: dict[str, Any] | None = None
    hint: str = ""
    severity: Literal["error", "warning", "note"] = "error"

    @classmethod
    def of(cls, problem: Problem) -> ProblemRow:
        """Return a problem as it is sent."""
        return cls.model_validate(problem.as_json())


class ApiProblem(Model):
    """RFC 9457 problem details.

    ``type`` is a stable slug (``not-found``, ``conflict``, ``invalid``,
    ``unavailable``, ``bug``); ``hint`` says what to do next.
    """

    type: str
    title: str
    status: int
    detail: str = ""
    hint: str = ""
    problems: tuple[ProblemRow, ...] = ()


class StateReport(Model):
    """Whether the controller's state is older than what runs (``behind``: the words; empty = no).

    ``adopts``: what taking over would do; ``stops``: the containers discarding would end.
    """

    behind: str = ""
    absent: tuple[str, ...] = ()  # nodes that did not answer
    adopts: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()  # stacks that the nodes know better, in words


class DecidedState(Model):
    done: tuple[str, ...] = ()


class StateFinding(Model):
    """What is wrong with one record of the store; ``key`` is where it lies."""

    key: str
    what: str
    severity: Literal["error", "warning"] = "error"


class StateCheck(Model):
    """What `state check` found; without errors the store is what one of ours should be."""

    records: int = 0
    revision: int = 0
    findings: tuple[StateFinding, ...] = ()

    @property
    def errors(self) -> tuple[StateFinding, ...]:
        return tuple(one for one in self.findings if one.severity == "error")


class StateExport(Model):
    """The state in JSON values, without secrets (control/exporting.py has the fields)."""

    state: dict[str, Any] = Field(default_factory=dict)


class MakeBackup(Model):
    """A request for a backup. One of the two: a passphrase, or a file that anybody can read."""

    passphrase: str = ""
    plain: bool = False


class ScheduleBackups(Model):
    """When backups are made by themselves, where on the controller's machine, and how many stay.

    ``cron`` empty: no more are made; what there is stays.
    """

    cron: str = ""
    to: str = ""  # an absolute folder
    keep: int = 7
    passphrase: str = ""
    plain: bool = False


class BackupRow(Model):
    """One file of a backup, as its head says. Times are seconds since the epoch."""

    file: str
    cluster: str = ""
    made_at: float = 0.0
    size: int = 0  # bytes
    corral: str = ""
    encrypted: bool = True
    scheduled: bool = False
    trouble: str = ""  # why it is no backup


class BackupStatus(Model):
    """What becomes of backups here. ``warning``: what somebody should look at; empty = nothing."""

    cron: str = ""
    to: str = ""
    keep: int = 0
    encrypted: bool = True
    next_at: float = 0.0
    last_at: float = 0.0  # the newest that was made, by schedule or by hand; 0 = none
    failure: str = ""  # why the last one of the schedule was not made
    warning: str = ""
    files: tuple[BackupRow, ...] = ()


class Version(Model):
    version: str
    api: int = 1
    cluster: str = ""
    epoch: int = 0


class StackRow(Model):
    name: str
    status: str
    release: int
    services: int
    tasks: str  # "7/7"
    reason: str = ""
    orphans: tuple[str, ...] = ()  # services that run on although the files lack them
    # Docker's word for a container's state -> how many, one container a name
    containers: dict[str, int] = Field(default_factory=dict)
    config_files: tuple[str, ...] = ()  # of the last `up`, on its machine

    def unknown(self) -> StackRow:
        """Return the row of a stack of which nobody knows what runs."""
        wanted = self.tasks.rpartition("/")[2]
        update = {"status": "unknown", "tasks": f"?/{wanted}", "containers": {}}
        return self.model_copy(update=update)


class Rescaled(Model):
    """What `scale` came to: what its user is warned of, and what it started."""

    warnings: tuple[ProblemRow, ...] = ()
    started: int | None = None  # the release that starts what was stopped


class ScaledRow(StackRow):
    """A stack that was scaled, see Rescaled."""

    warnings: tuple[ProblemRow, ...] = ()
    started: int | None = None


class ReleaseRow(Model):
    stack: str
    number: int
    state: ReleaseState
    reason: str = ""
    created_at: float = 0.0
    warnings: tuple[ProblemRow, ...] = ()
    unchanged: bool = False  # it ran already as an `up` asked; ``created_at``: when that was
    completed: tuple[str, ...] = ()  # unchanged: one-offs that are done and did not run again


class TaskRow(Model):
    """One line of ``corral ps``."""

    id: str
    name: str
    service: str
    image: str
    image_digest: str = ""  # of what its node has for it; "" = nothing yet
    command: str = ""
    node: str = ""
    state: str
    ready: bool = False
    health: str = "none"
    status: str = ""  # for people: "running 2 min (healthy)", "pending: no node has 8 GiB free"
    exit_code: int | None = None
    restarts: int = 0
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None  # None: the run that started then still runs
    ports: tuple[str, ...] = ()  # "0.0.0.0:8080->80/tcp"
    addresses: tuple[str, ...] = ()
    release: int = 0
    stopping: bool = False  # it was asked to go and has not gone yet
    tied: str = ""  # what holds it on its node also when that is drained: volume app_data
    node_status: str = "ready"  # unknown, down: what was heard last of it may be old
    reason: str = ""  # the part of ``status`` that says why
    carried: str = ""  # orphan | off | unasked: the newest release was not about its service
    misplaced: str = ""  # it serves, but its node breaks its constraints: why it stays there
    slot: int = 0  # which of its service's copies it is, from 1
    paused: bool = False  # its processes are frozen
    labels: dict[str, str] = Field(default_factory=dict)  # the container's own
    networks: tuple[str, ...] = ()  # their names, and
    network_ids: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()  # volumes by their key, folders of the node by their path
    oneoff: bool = False  # made by `run`
    beside: str = ""  # canary | stands by: it runs beside another of its name, see serving.beside
    service_labels: dict[str, str] = Field(default_factory=dict)  # deploy.labels


class TaskMade(Model):
    """A task and what it was made from, templates filled in.

    ``volumes``: key -> real name. ``spec`` None: its release is not kept any more.
    """

    task: Task
    spec: TaskSpec | None = None
    volumes: dict[str, str] = Field(default_factory=dict)


class NodeRow(Model):
    id: str
    name: str
    status: str  # ready | unready | unknown | down
    reason: str = ""
    availability: str = "active"
    address: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    tasks: int = 0
    cpus: float = 0.0
    memory: int = 0
    version: str = ""
    age: str = ""  # of that version beside the controller's: older | newer | another build
    warnings: tuple[str, ...] = ()


class ServiceRow(Model):
    """One service of a stack, as it is wanted and as it is."""

    name: str
    image: str = ""
    mode: str = "replicated"
    replicas: int = 0  # wanted now, with what ``scale`` set
    tasks: int = 0  # live ones
    ready: int = 0  # ready, or complete where the service is meant to end
    queued: int = 0  # of a job: tasks whose turn has not come
    scaled: bool = False  # ``replicas`` comes from ``scale``, not from the file
    carried: str = ""  # orphan | off | unasked: the newest release was not about it
    ports: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)  # deploy.labels


class StackDetail(Model):
    """A StackRow whose ``services`` are rows instead of a number."""

    name: str
    status: str
    release: int
    running: int = 0  # the newest release that was deployed
    tasks: str = ""
    reason: str = ""
    services: tuple[ServiceRow, ...] = ()


class NodeDetail(NodeRow):
    facts: NodeFacts = NodeFacts()
    underlay: str = ""
    overlay: str = ""
    joined_at: float = 0.0
    mtu: int = 0  # of the device with the underlay address; 0 = not known


class PatchNode(Model):
    """``labels``: None removes one; ``availability`` and ``underlay`` None leave it as it is."""

    labels: dict[str, str | None] = Field(default_factory=dict)
    availability: str | None = None
    underlay: str | None = None


class ExtendCluster(Model):
    """``range``: a CIDR that networks' pools are cut from when the others are used up."""

    range: str


class ClusterRanges(Model):
    ranges: tuple[str, ...] = ()


class Scale(Model):
    services: dict[str, int]
    by: MadeBy = MadeBy()


class Restart(Model):
    services: tuple[str, ...] = ()  # empty = all
    timeout: float | None = None
    no_deps: bool = False  # not those that want to be restarted with them
    tasks: tuple[str, ...] = ()  # ids of single ones, which nobody follows


class Steer(Model):
    """What is to become of the stack's rollout; no services = all of them.

    ``resume`` goes on with one that was paused or failed, ``abort`` goes back to what ran
    before, ``promote`` goes on behind a canary.
    """

    key: str = Field(pattern=KEY)
    action: Literal["pause", "resume", "abort", "promote"]
    services: tuple[str, ...] = ()
    by: MadeBy = MadeBy()


class Steered(Model):
    """``release``: whose end is to be waited for; None: nothing has to be. ``message``: done."""

    release: int | None = None
    services: tuple[str, ...] = ()
    message: str = ""


class Rollback(Model):
    """What is to be brought back: release ``to``, None = what ran before; no services = all.

    ``timeout``: grace period of what it replaces. ``dry_run``: only say what it would change.
    """

    key: str = Field(pattern=KEY)  # the same key never makes two releases
    to: int | None = Field(default=None, gt=0)
    services: tuple[str, ...] = ()
    remove_orphans: bool = False
    timeout: float | None = None
    dry_run: bool = False
    by: MadeBy = MadeBy()


class RolledBack(ReleaseRow):
    """The release that brings ``to`` back, and what that changes of the newest.

    ``number`` 0: nothing was made. ``joined``: it had been asked for, and is under way.
    """

    to: int
    changes: tuple[DiffRow, ...] = ()
    joined: bool = False


class RolloutRow(Model):
    """How far one service's rollout is; counts are of slots, times seconds since the epoch.

    ``state``: waiting (has not begun), going, paused, canary (watched beside the old tasks),
    standby (all new tasks are there, without traffic), done, failed, unchanged.
    ``waits``: for what, in words; ``until``: when time alone ends that, 0 = it does not.
    ``kept_until``: the tasks before them are kept until then, to go back to.
    """

    service: str
    way: Literal["rolling", "canary", "blue-green"] = "rolling"
    state: str = "unchanged"
    updated: int = 0
    total: int = 0
    under_way: tuple[str, ...] = ()  # names of tasks
    failed: int = 0
    unavailable: int = 0
    waits: str = ""
    until: float = 0.0
    kept: tuple[str, ...] = ()
    kept_until: float = 0.0


class RolloutStatus(Model):
    """The newest release's rollout. ``back``: how far the way back is of one rolled back."""

    stack: str
    release: int = 0
    state: str = ""
    reason: str = ""
    running: int = 0  # the release that ran well last
    back: str = ""
    back_reason: str = ""
    services: tuple[RolloutRow, ...] = ()


class Restarted(Model):
    """``tasks`` are restarted in place; of ``started`` something had ended: it runs anew."""

    tasks: tuple[str, ...] = ()
    started: tuple[str, ...] = ()


class Start(Model):
    key: str = Field(pattern=KEY)  # the same key never makes two releases
    services: tuple[str, ...] = ()  # with what they depend on; empty = all
    by: MadeBy = MadeBy()


class Started(Model):
    """``release``: whose progress tells how it goes; None: everything ran already.

    ``completed`` are one-offs that are done and were not run again.
    """

    stack: str
    release: int | None = None
    completed: tuple[str, ...] = ()


class StopStack(Model):
    timeout: float | None = None
    services: tuple[str, ...] = ()  # only these, the others run on; empty = the whole stack


class StackLogLine(Model):
    """``place`` rises from line to line of a task and never changes (LogLine.place)."""

    task: str
    name: str  # the container's, without the stack's: web-1
    service: str
    slot: int = 0  # which of the service's replicas; 0 = a one-off
    stream: Literal["stdout", "stderr"]
    time: float
    line: str
    place: tuple[int, int, int] = (0, 0, 0)


class Progress(Model):
    """One line of a progress stream.

    ``kind`` release: the release moved (``state``, ``reason``); service: a summary
    (``service``, ``message``, counts); task: one task moved; object: a volume or network
    (``doing`` says which) went with its stack; build: a line of build output; step: one step
    of ``node add``/``rm`` or ``upgrade``; homeless: no node takes tasks
    of ``service`` (``message``; ``nodes`` say why, ``hint`` what would help; ``stalled``: nothing
    else of the release is under way; without ``message``: that is over); end: the last line, with
    ``ok`` and, on failure, ``message``, ``hint``, ``log_tail``; ``host_key`` is the
    fingerprint somebody has to confirm before ``node add`` goes on.
    """

    kind: Literal[
        "release", "service", "task", "object", "build", "step", "warning", "homeless", "end"
    ]
    time: float = 0.0
    stack: str = ""
    service: str = ""
    task: str = ""
    name: str = ""
    node: str = ""
    state: str = ""
    ready: bool = False
    message: str = ""
    hint: str = ""
    running: int = 0
    wanted: int = 0
    ok: bool | None = None
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    reason: str = ""  # task: the part of ``message`` that says why, the same at every try
    health: str = ""
    doing: str = ""  # what is prepared: image, network, root
    stopping: bool = False
    restarting: bool = False
    retries: bool = False  # it did not work and is tried again after a pause
    host_key: str = ""  # node add: the fingerprint somebody has to confirm
    orphans: tuple[str, ...] = ()  # release: services that run on although the files lack them
    release: int = 0  # task: the release that made it
    completed: tuple[str, ...] = ()  # end: one-offs that were done before and did not run again
    by: int = 0  # end: the release that took this one's place
    nodes: tuple[str, ...] = ()  # homeless: why nodes refuse, a line for each reason
    stalled: bool = False  # homeless: nothing else of the release is under way


class Upgrade(Model):
    """``corral upgrade``: bring agents to the controller's version; without ``nodes`` all.

    ``identity`` as in AddNode: it logs in as the operator does. ``dry_run`` only says what it
    would do, of a controller that has ``version`` by then (its own without it); ``here``: who
    asks renews the agent of the controller's machine himself.
    """

    nodes: tuple[str, ...] = ()
    dry_run: bool = False
    version: str = ""
    here: bool = False
    identity: str | None = None


class AddNode(Model):
    """``corral node add``: ``address`` user@host[:port]; ``host_key`` a SHA256:... fingerprint.

    ``replaces``: a node that is down, whose name, labels and pins the machine takes
    (``corral node replace``); it says what ``name`` and ``labels`` say otherwise.
    """

    address: str
    name: str | None = None
    identity: str | None = None  # path of a private key on the controller's machine
    host_key: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    underlay: str | None = None
    replaces: str = ""
