"""What the parts of the controller ask of each other: API, control loops, dispatcher, keys.

::

    api  ->  Control, Mirror, Agents        control  ->  Agents, Sealer
    dispatch  ->  Control, Mirror           controller.py joins them

They know each other by these protocols only; tests give small fakes.
Everything here raises orchestrator.errors only. It stays whole: the one page all parts agree on.

Address plan all of them rely on: the first part of the cluster range (``node_network`` in
orchestrator/keys/identity.py) holds the nodes' own overlay addresses (``Node.overlay``, set
when a node joins); networks' pools are cut from the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence

    from aiohttp.web import WebSocketResponse

    from specs.api import (
        Deploy,
        Progress,
        Release,
        ReleaseRow,
        Rescaled,
        Restart,
        Restarted,
        Rollback,
        RolledBack,
        RolloutStatus,
        Stack,
        Start,
        Started,
        Steer,
        Steered,
    )
    from specs.events import Event
    from specs.images import ForgetImages, ForgottenImages
    from specs.inside import Copied, Forgotten, NodeProcesses, NodeUsage, Paused, SignalTasks
    from specs.made_by import MadeBy
    from specs.node import Node, NodeCondition
    from specs.objects import (
        ContentRows,
        DroppedObject,
        MadeObject,
        MakeObject,
        MoveVolume,
        NetworkRows,
        ObjectKind,
        Restored,
        VolumeLook,
        VolumeRows,
    )
    from specs.oneoff import ActedOn, ActOnOneOffs, OneOff, OneOffProgress, StartOneOff
    from specs.paths import PathState
    from specs.plans import Plan
    from specs.schedule import ActOnSchedule, Schedule, ScheduleActed
    from specs.stack import StackSpec
    from specs.task import Task
    from specs.why import Why
    from specs.wire import (
        BuildEvent,
        BuildImage,
        Hello,
        ImageInfo,
        LeaseAnswer,
        LeaseQuestion,
        LogLine,
        NodeSelf,
        Objects,
        Report,
        ResolvedImage,
        ResolveImage,
        Stamp,
    )


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which log lines of a task: the last ``tail`` (None = all), not before ``since``.

    ``after``: only what is behind this LogLine.place.
    """

    follow: bool = False
    tail: int | None = None
    since: float | None = None
    after: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events: of a stack and of none (None = all), from ``since`` until ``until``.

    ``history``: what is kept, of that the last ``tail`` (None = all); ``follow``: what comes, too.
    ``filters``: as specs.events.matches.
    """

    stack: str | None = None
    history: bool = False
    follow: bool = True
    since: float | None = None
    until: float | None = None
    tail: int | None = None
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Agents(Protocol):
    """The agents, by node id. Provided by the dispatcher.

    Every call raises Unavailable when the node is not reached or answers "later"
    (registry down, disk full), Invalid when it refuses for good (no such image,
    policy never), NotFound for an unknown node or task.
    """

    async def resolve_image(self, node: str, request: ResolveImage) -> ResolvedImage:
        """Pin a reference to a digest on that node, pulling as the policy says."""
        ...

    def build(self, node: str, request: BuildImage) -> AsyncGenerator[BuildEvent, None]:
        """Build; the last event has ``digest`` or ``error``. Closing the generator cancels it."""
        ...

    def logs(self, node: str, task: str, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        """Yield the task's log lines, oldest first; with follow until the task is gone."""
        ...

    async def exec(self, node: str, task: str, websocket: WebSocketResponse) -> None:
        """Join a prepared WebSocket to the agent's exec channel until either side ends."""
        ...

    async def attach(self, node: str, task: str, websocket: WebSocketResponse) -> None:
        """Join a prepared WebSocket to the task's own process, likewise."""
        ...

    def read_archive(
        self, node: str, task: str, query: Mapping[str, str]
    ) -> AsyncGenerator[bytes, None]:
        """Yield the archive of a path in a task; an error before its first byte is raised."""
        ...

    async def write_archive(
        self, node: str, task: str, query: Mapping[str, str], pieces: AsyncIterator[bytes]
    ) -> Copied:
        """Send an archive to a path in a task."""
        ...

    def read_volume(self, node: str, name: str) -> AsyncGenerator[bytes, None]:
        """Yield the archive of a volume; an error before its first byte is raised."""
        ...

    async def write_volume(
        self, node: str, name: str, query: Mapping[str, str], pieces: AsyncIterator[bytes]
    ) -> Restored:
        """Make an archive a volume's data, all of it or nothing."""
        ...

    def volume_tree(
        self, node: str, name: str, query: Mapping[str, str]
    ) -> AsyncGenerator[bytes, None]:
        """Yield the records of what a volume holds, or a draft of one (agent.volumes.listing)."""
        ...

    def volume_differences(
        self, node: str, name: str, paths: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        """Yield an archive of the entries at the paths, each ended by a NUL."""
        ...

    async def look_at_volume(self, node: str, name: str) -> VolumeLook:
        """Return what a node has of a volume. Raises NotFound where its agent is an older one."""
        ...

    async def change_volume(
        self,
        node: str,
        method: str,
        name: str,
        rest: str,
        query: Mapping[str, str] = ...,
        pieces: AsyncIterator[bytes] | None = None,
    ) -> None:
        """Have a node do a step of a volume's move (agent.moving)."""
        ...

    async def remove_volume(self, node: str, name: str) -> None:
        """Delete a named volume's data on that node; unknown names are fine."""
        ...

    async def images(self, node: str) -> tuple[ImageInfo, ...]:
        """Return the images that are complete on that node."""
        ...

    async def transfer(self, node: str, image: str) -> tuple[int, int]:
        """Return (bytes arrived, bytes wanted) of an image the node fetches, else (0, 0)."""
        ...

    async def forget_images(self, node: str, request: ForgetImages) -> ForgottenImages:
        """Remove images of that node that nobody uses."""
        ...

    async def listening(self, node: str) -> tuple[str, ...]:
        """Return the ports (``80/tcp``) that processes of the node hold at this moment."""
        ...

    async def paths(self, node: str, asked: Sequence[str]) -> dict[str, PathState]:
        """Return how these paths of the node are at this moment."""
        ...

    async def usage(self, node: str, stack: str) -> NodeUsage:
        """Return what the stack's running tasks on that node use."""
        ...

    async def processes(self, node: str, stack: str) -> NodeProcesses:
        """Return the processes of the stack's running tasks on that node."""
        ...

    async def signal(self, node: str, request: SignalTasks) -> tuple[str, ...]:
        """Send a signal to tasks on that node; return the ids of those that run and got it."""
        ...

    async def leave(self, node: str) -> None:
        """Make the agent remove everything corral made on the node and forget the cluster."""
        ...


class HomedVolume(Protocol):
    """As much of a volume's record as others read."""

    @property
    def node(self) -> str:
        """Return the id of the node that has its data, also where that left; "" = none yet."""
        ...


class Mirror(Protocol):
    """What the store holds, in memory; only control/mirror/cluster.py changes it.

    All mappings are live; a reader that awaits must expect them to have moved on.
    """

    @property
    def revision(self) -> int:
        """Return the store revision the mirror has followed to."""

    @property
    def ranges(self) -> tuple[str, ...]:
        """Return the ranges that networks' pools are cut from."""

    @property
    def chosen(self) -> Mapping[str, str]:
        """Return the ranges that files chose themselves, with the names of their networks."""

    @property
    def stacks(self) -> Mapping[str, Stack]: ...

    @property
    def releases(self) -> Mapping[tuple[str, int], Release]: ...

    def releases_of(self, stack: str) -> Collection[Release]:
        """Return the kept releases of a stack, also after its `down`; no others are looked at."""

    @property
    def parts(self) -> Mapping[str, StackSpec]:
        """Return the StackSpecs by content hash (``Release.spec``)."""

    @property
    def tasks(self) -> Mapping[str, Task]:
        """Return every task record by task id."""

    def tasks_of(self, stack: str) -> Collection[Task]:
        """Return the tasks of a stack; of others nothing is looked at."""

    def tasks_on(self, node: str) -> Collection[Task]:
        """Return the tasks a node has, by its id; of others nothing is looked at."""

    @property
    def oneoffs(self) -> Mapping[str, OneOff]:
        """Return every one-off by its task's id."""

    @property
    def schedules(self) -> Mapping[tuple[str, str], Schedule]:
        """Return what runs by a schedule, by stack and service."""

    @property
    def nodes(self) -> Mapping[str, Node]: ...

    @property
    def volumes(self) -> Mapping[str, HomedVolume]:
        """Return every volume record by name."""

    @property
    def conditions(self) -> Mapping[str, NodeCondition]:
        """Return what is observed of each node, by node id; never stored."""

    def network_name(self, network: str) -> str:
        """Return what the network with this id is called; the id itself once its record is gone."""

    def path_home(self, stack: str, path: str) -> str | None:
        """Return the node with a stack's data at a path of nodes; "" = every one, None = none."""

    async def reached(self, revision: int) -> None:
        """Return when the mirror contains ``revision``: read your own write after a txn."""

    def nodes_changed(self) -> asyncio.Event:
        """Return an event that is set whenever a node record appears, changes or goes.

        The dispatcher owns it: it clears before it looks.
        """


class LeaseGiver(Protocol):
    """Who may run exclusive tasks (control/leases.py); asked while ``some`` is set."""

    @property
    def some(self) -> asyncio.Event: ...

    def answer(self, node: str, question: int, stamp: Stamp) -> LeaseAnswer:
        """Return the answer to a node's last question; it counts from now on."""
        ...

    def asked(self, node: str, told: LeaseAnswer, question: LeaseQuestion) -> None:
        """Take note of what a node said when it was answered."""
        ...


class Control(Protocol):
    """The control loops, as the API and the dispatcher see them (control/control.py).

    The commands are one store transaction each, then the loops are woken; when they
    return the change is durable and the mirror contains it.
    """

    @property
    def leases(self) -> LeaseGiver: ...

    async def run(self) -> None:
        """Run the loops until cancelled."""
        ...

    # Commands, for the API.

    async def deploy(self, stack: str, request: Deploy) -> ReleaseRow: ...

    async def plan(self, stack: str, request: Deploy, *, within: float | None = None) -> Plan:
        """Return what the same ``deploy`` would do; nothing is written, and nobody told.

        ``within``: seconds of work after which the rest is left out (``Plan.cut``).
        """
        ...

    async def arrived(self, stack: str) -> None:
        """Wait until what was asked to be deployed before is a release, or refused."""
        ...

    async def scale(
        self, stack: str, services: Mapping[str, int], by: MadeBy | None = None
    ) -> Rescaled:
        """Set replica overrides; return what to warn of."""
        ...

    async def restart(self, stack: str, request: Restart) -> Restarted:
        """Ask for a restart of the services' tasks (empty = all); say which these are."""
        ...

    async def start(self, stack: str, request: Start) -> Started:
        """Have what does not run run as it was, with what it depends on."""
        ...

    async def rollback(self, stack: str, asked: Rollback) -> RolledBack:
        """Bring back what a kept release asked for, by a new one."""
        ...

    async def steer(self, stack: str, asked: Steer) -> Steered:
        """Pause, go on with, take back or promote what is being rolled out."""
        ...

    def rollout(self, stack: str) -> RolloutStatus:
        """Return how far the newest release of a stack that there is has come."""
        ...

    async def stop(
        self, stack: str, timeout: float | None, services: tuple[str, ...] = ()
    ) -> None: ...

    async def pause(
        self,
        stack: str,
        services: tuple[str, ...],
        *,
        paused: bool,
        tasks: Collection[str] = (),
    ) -> Paused:
        """Have running tasks frozen, or go on (none named = all); say which these are.

        ``tasks``: ids of single ones.
        """
        ...

    async def forget(self, stack: str, services: tuple[str, ...]) -> Forgotten:
        """Remove what has ended of services that do not run (none named = all)."""
        ...

    async def remove(self, stack: str, *, volumes: bool, timeout: float | None) -> None: ...

    async def make(self, asked: MakeObject) -> MadeObject:
        """Make a network, volume, secret or config that belongs to no stack."""
        ...

    async def drop(self, kind: ObjectKind, name: str) -> DroppedObject:
        """Have an object go that no stack means."""
        ...

    def networks(self) -> NetworkRows: ...

    def volumes(self) -> VolumeRows: ...

    async def move(self, name: str, request: MoveVolume) -> None:
        """Begin, take back, confirm a volume's move, or go back to what it left."""
        ...

    def contents(self, *, secret: bool) -> ContentRows:
        """Return the secrets, or the configs, without what is in them."""
        ...

    def config_data(self, content: str) -> bytes:
        """Return what is in a config, by its id."""
        ...

    def start_oneoff(self, stack: str, request: StartOneOff) -> AsyncIterator[OneOffProgress]:
        """Make a one-off; the last line says which, or what it needs first. Raises at once."""
        ...

    async def act_on_oneoffs(self, stack: str, request: ActOnOneOffs) -> ActedOn:
        """Stop one-offs, or remove those that have ended."""
        ...

    async def act_on_schedule(
        self, stack: str, service: str, request: ActOnSchedule
    ) -> ScheduleActed:
        """Begin an iteration, or have none begin by itself any more. Raises NotFound, Conflict."""
        ...

    async def extend(self, text: str) -> tuple[str, ...]:
        """Give the cluster another range of addresses; return all it has."""
        ...

    def progress(self, stack: str, release: int | None) -> AsyncIterator[Progress]:
        """Yield what happens to the stack; the last one has kind ``end``.

        ``release`` None = the stack's newest, or its removal or stop when that is wanted.
        Starts with the present state, so nothing is missed between a command and this.
        """
        ...

    def events(self, query: EventQuery) -> AsyncIterator[Event]:
        """Yield what happened and what happens, as asked; without ``follow`` it ends."""
        ...

    async def why(self, name: str, stack: str) -> Why:
        """Say why a service, a task, a node or a stack is as it is. Raises NotFound."""
        ...

    def note(self, event: Event) -> None:
        """Have it kept that something happened which changes no record."""
        ...

    # What a node should hold, for the dispatcher.

    def wanted(self, node_id: str) -> tuple[NodeSelf, Objects]:
        """Return the complete set of objects the node should hold now. Pure: mirror in, set out."""
        ...

    def changed(self, node_id: str) -> asyncio.Event:
        """Return the node's event, set whenever ``wanted(node_id)`` may have changed.

        Only the dispatcher clears it, before it calls ``wanted``.
        """
        ...

    # What nodes say, from the dispatcher. One session per node, so calls for one node are serial.

    async def connected(self, node_id: str, hello: Hello) -> None:
        """Take note that the agent answered and accepts our epoch; a full report follows."""
        ...

    def reached(self, node_id: str) -> None:
        """Take note that the node's machine let us in; its agent is asked next."""
        ...

    def disconnected(self, node_id: str, reason: str, *, host: bool = False) -> None:
        """Take note that the session ended or could not be made; ``reason`` is for people.

        ``host``: the machine lets us in, it is its agent that does not answer or refuses us.
        """
        ...

    async def ingest(self, node_id: str, report: Report) -> None:
        """Write what the node reports (moves checked with specs.states.may_move), in batches."""
        ...

    def shows(self, node_id: str, moment: float) -> None:
        """Take note of what the node's clock shows now, seconds since the epoch."""
        ...

    def acknowledged(self, node_id: str, revision: int) -> None:
        """Say that endpoints as of mirror ``revision`` are in force in the node's kernel.

        Generations are the dispatcher's own numbers; it translates ``Report.applied``
        into the mirror revision the acknowledged set was computed from. After
        ``changed(node_id)`` was set this is called once the node is up to date, also
        when nothing had to be sent. So a removal written at revision R is in force
        on the node when ``revision >= R``.
        """
        ...


class Sealer(Protocol):
    """Envelope encryption for what must not be readable in the store (vault.py)."""

    def seal(self, data: bytes) -> bytes:
        """Return the data encrypted and authenticated under the cluster key."""
        ...

    def open(self, sealed: bytes) -> bytes:
        """Return what was sealed. Raises vault.Broken when it was changed or the key is another."""
        ...

    def fingerprint(self, data: bytes) -> str:
        """Return a keyed hash: equal data, equal fingerprint; tells nothing without the key."""
        ...
