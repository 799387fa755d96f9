"""Controller <-> agent: every message, and the rules of their order.

The controller always dials. Each instruction carries (cluster, epoch,
generation), compared in that order: an agent pins the cluster id at its first
instruction, refuses another cluster's and lower epochs, and answers with what
it has seen, so that a controller which is behind stops and asks.

A request of the controller's says which version it speaks (header ``Corral-Wire``; none = 1);
the agent answers as that version does. What either cannot read is kept and reported, never
erased: ``specs/skew.py``.

What a node should hold is a set of keyed objects of a few kinds (``KINDS``).
A full message replaces the whole set; an increment puts and removes objects on
top of generation ``base``. The agent answers ``409`` when ``base`` is not what
it has, and the controller then sends the full set. Repeating a message is
harmless.

HTTP on the agent's socket (JSON unless said otherwise)::

    GET  /v1/hello                  -> Hello
    PUT  /v1/instructions           Instructions -> Acknowledged | 409 Refused
    GET  /v1/held                   -> HeldSet, for `corral state`
    GET  /v1/reports                -> NDJSON stream of Report: first a full one, then changes,
                                       at least one line each HEARTBEAT seconds
    GET  /v1/tasks/{id}/logs?follow=&tail=&since=&after= -> NDJSON stream of LogLine
    GET  /v1/tasks/{id}/exec?...    -> WebSocket; see ExecRequest
    GET  /v1/tasks/{id}/attach      -> WebSocket; see AttachRequest
    POST /v1/images/resolve         ResolveImage -> ResolvedImage   (pulls by policy)
    POST /v1/builds                 BuildImage -> NDJSON stream of BuildEvent
    GET  /v1/images                 -> {"images": [ImageInfo]}
    POST /v1/images/forget          ForgetImages -> ForgottenImages (specs/images.py)
    GET  /v1/images/transfer?image= -> {"done": bytes, "total": bytes}, 0 when none is fetched
    GET  /v1/listening              -> {"ports": ["80/tcp"]}, held by local processes now
    POST /v1/paths                  {"paths": [path]} -> {"paths": {path: PathState}}
    GET  /v1/usage?stack=           -> NodeUsage (specs/inside.py) of the stack's running tasks
    GET  /v1/processes?stack=       -> NodeProcesses, likewise
    POST /v1/signal                 SignalTasks -> {"tasks": [ids that got it]}
    DELETE /v1/volumes/{name}       removes a named volume's data
    POST /v1/lease                  LeaseAnswer -> LeaseQuestion | 409 Refused
    POST /v1/leave                  LeaveCluster -> 409 Refused; all that corral made there goes

Errors are problem+json (specs.api.ApiProblem): 422 = refused for good (the agent's
Refusal), 503 = may work later (its Later), 404 = no such task.

Exec WebSocket: the first client message is the ExecRequest as text; then binary
messages of one channel byte + data: client 0 stdin (empty = end), server 1 stdout,
2 stderr; text messages are JSON: client {"resize": [rows, cols]}, {"signal": n},
{"close": 1 or 2} (nobody reads that output any more; an older agent ignores it);
server {"exit": code} or {"error": "..."} last.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from specs.api import Release, Stack
from specs.base import Model
from specs.node import NodeFacts
from specs.oneoff import KeptOneOff
from specs.stack import BuildSpec, Port, StackSpec, TaskSpec
from specs.states import Desired
from specs.task import TaskStatus

PROTOCOL = 2  # of the wire and of the agent's records; 1 is what did not say it (specs/skew.py)
BLOB_PORT = 8473  # where agents serve image blobs to each other, on the overlay address
HEARTBEAT = 3.0  # seconds between report lines at most
SHORTEST_HEARTBEAT = 0.5  # the same where a controller asks for more (?heartbeat=SECONDS)
UNKEPT = 507  # the HTTP status where a node's disk does not keep instructions: say them again

KINDS = ("tasks", "networks", "services", "peers", "contents", "stacks", "releases", "slots")


class Stamp(Model):
    """Who instructs: compared as (cluster equal, epoch, generation)."""

    cluster: str
    epoch: int
    generation: int = 0

    def at(self, generation: int) -> Stamp:
        """Return the stamp of the same controller's instructions number ``generation``."""
        return self.model_copy(update={"generation": generation})


class Hello(Model):
    """An agent's self-introduction. ``stamp`` None = belongs to no cluster yet.

    ``protocol`` is the version it speaks with who asked, at most its own.
    """

    protocol: int = 1
    node: str = ""  # node id once joined
    stamp: Stamp | None = None
    facts: NodeFacts = NodeFacts()
    revision: int = 0  # of the store, when what the node holds was taken from it
    stacks: dict[str, tuple[int, int]] = Field(default_factory=dict)  # name -> Stack.stamp
    signing_request: str = ""  # asks for a certificate (PEM) of the node's own key
    heartbeat: float = HEARTBEAT  # the shortest it keeps when asked for


class TaskNetwork(Model):
    """A task's attachment: ``network`` is the network id; one address, /32 inside the container.

    ``gateway`` marks the attachment that carries the default route; ``interface`` eth0...
    in the order of priority then name.
    """

    network: str
    address: str
    aliases: tuple[str, ...] = ()
    interface: str = "eth0"
    gateway: bool = False


class Assignment(Model):
    """One task this node should hold.

    After a reboot a task with ``after`` waits until ``admitted`` names the present boot (it
    reports ``TaskStatus.held`` meanwhile), but a minute at most. Both came later than the
    rest: without them nothing is held.
    """

    id: str
    stack: str
    service: str
    slot: int
    name: str
    spec: TaskSpec
    desired: Desired
    restart: int = 0
    grace: float | None = None  # overrides spec.stop_grace, e.g. `down -t 0`
    local_restarts: int | None = None  # crashes in a row before the task fails; None = keep trying
    networks: tuple[TaskNetwork, ...] = ()
    host_ports: tuple[Port, ...] = ()  # mode: host ports of this task, published filled in
    volumes: dict[str, str] = Field(default_factory=dict)  # volume key -> real volume name
    volume_options: dict[str, dict[str, str]] = Field(default_factory=dict)  # of those with any
    elsewhere: tuple[str, ...] = ()  # bind sources that are not made here: their data is elsewhere
    fresh_volumes: bool = False  # what its slot has of anonymous volumes goes when it begins
    after: tuple[str, ...] = ()  # what its gate waits for, in words: "db to be healthy"
    admitted: str = ""  # the boot id of the node in which it may start again
    paused: bool = False  # its processes are to be frozen while it runs
    attach: bool = False  # its first command begins once somebody listens, see AttachRequest
    release: int = 0  # for a store that lost it: the release that made it, and of which spec
    spec_hash: str = ""
    partner: str = ""  # the task whose namespaces it shares, on the same node
    oneoff: KeptOneOff | None = None  # likewise, of what `run` made

    def with_desired(self, desired: Desired) -> Assignment:
        """Return the same task, wanted otherwise."""
        return self.model_copy(update={"desired": desired})

    def with_restart(self, restart: int) -> Assignment:
        """Return the same task after this many requests to restart it."""
        return self.model_copy(update={"restart": restart})


class Block(Model):
    """Addresses of one network leased to one node."""

    cidr: str
    node: str


class NetworkState(Model):
    """A network as a node needs to know it."""

    id: str
    name: str  # real name, e.g. guestbook_back
    stack: str
    key: str  # key in the Compose file
    pool: str  # CIDR of its first addresses
    more_pools: tuple[str, ...] = ()  # and of those it grew by
    internal: bool = False
    mtu: int | None = None
    encrypted: bool = False
    blocks: tuple[Block, ...] = ()
    fenced: tuple[str, ...] = ()  # addresses of copies that must not run: what they send is dropped

    def fencing(self, addresses: tuple[str, ...]) -> NetworkState:
        """Return the same network with these addresses fenced off."""
        return self.model_copy(update={"fenced": addresses})

    @property
    def pools(self) -> tuple[str, ...]:
        """Return the CIDRs of all its addresses."""
        return (self.pool, *self.more_pools)


class Endpoint(Model):
    """One task of a service on one network. Only ``ready`` ones get traffic.

    ``share``: percent of new connections that those with a share have together; 0 = of the rest.
    """

    task: str
    name: str
    node: str
    address: str
    ready: bool
    aliases: tuple[str, ...] = ()
    hostname: str = ""
    share: int = 0


class ServiceEndpoints(Model):
    """A service on one network, with everything VIP, DNS and published ports need.

    Keyed ``STACK/SERVICE/NETWORK_ID``. ``ports`` are filled only on the gateway
    network, where published traffic is delivered.
    """

    stack: str
    service: str
    network: str
    vip: str | None = None
    aliases: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[Port, ...] = ()


class Peer(Model):
    """Another node: where its VXLAN end is and which overlay address it has.

    ``mtu`` is that of its device there, 0 where it is not known. ``address`` and ``host_key`` are
    how the controller reaches it: a store that was lost finds its nodes again by them.
    """

    node: str
    name: str
    underlay: str
    overlay: str
    mtu: int = 0
    address: str = ""
    host_key: str = ""


class NodeSelf(Model):
    """The receiving node's own place in the cluster."""

    node: str
    name: str
    underlay: str = ""
    overlay: str = ""
    home: bool = False  # its machine is the controller's
    certificate: str = ""  # the answer to Hello.signing_request, and who signed it (PEM)
    authority: str = ""
    cluster_pool: str = "10.210.0.0/16"  # the range all networks' pools are cut from
    more_ranges: tuple[str, ...] = ()  # and those it was extended by

    @property
    def ranges(self) -> tuple[str, ...]:
        """Return every range that networks' pools are cut from."""
        return (self.cluster_pool, *self.more_ranges)

    def certified(self, certificate: str, authority: str) -> NodeSelf:
        """Return the same place with the node's certificate; only the dispatcher has it."""
        return self.model_copy(update={"certificate": certificate, "authority": authority})


class Content(Model):
    """The bytes of one secret or config version (base64); secrets go to tmpfs only."""

    id: str
    data: str
    secret: bool = False

    def named_only(self) -> Content:
        """Return it without its bytes."""
        return self.model_copy(update={"data": ""})


class KeptRelease(Model):
    """A release of which the node has a task, keyed ``STACK/NUMBER``: nothing here is executed.

    With the stack's own record it is what a store that was lost, or is older than what runs, can
    be filled from: `corral state adopt`.
    """

    release: Release
    spec: StackSpec


EVERY_NODE = -1  # of a service that is global


class StackSlots(Model):
    """How many tasks each service of a stack is to have: what a task leaves passes on in its slot.

    Also of what is stopped; not of what is removed. ``EVERY_NODE``: one on every node.
    """

    services: dict[str, int] = Field(default_factory=dict)


class Objects(Model):
    """Keyed objects by kind. Contents are keyed by id, the others as their docstrings say.

    ``stacks`` and ``releases`` are kept for the controller: those the node has tasks of.
    ``slots`` by stack, whether the node has tasks of it or not: it may have what the last one left.
    """

    tasks: dict[str, Assignment] = Field(default_factory=dict)
    networks: dict[str, NetworkState] = Field(default_factory=dict)
    services: dict[str, ServiceEndpoints] = Field(default_factory=dict)
    peers: dict[str, Peer] = Field(default_factory=dict)
    contents: dict[str, Content] = Field(default_factory=dict)
    stacks: dict[str, Stack] = Field(default_factory=dict)
    releases: dict[str, KeptRelease] = Field(default_factory=dict)
    slots: dict[str, StackSlots] = Field(default_factory=dict)

    def with_contents(self, contents: dict[str, Content]) -> Objects:
        """Return the same objects with other contents."""
        return self.model_copy(update={"contents": contents})


class Instructions(Model):
    """What the node should hold from now on: the whole set, or changes to ``base``.

    ``protocol`` is the version that wrote them, in a journal the only thing that says so.
    """

    protocol: int = 1
    stamp: Stamp
    me: NodeSelf
    base: int | None = None  # None = ``put`` is the full set
    put: Objects = Objects()
    remove: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # kind -> keys
    revision: int = 0  # of the store it was taken from, at least

    def with_put(self, put: Objects) -> Instructions:
        """Return the same instructions with other objects to put."""
        return self.model_copy(update={"put": put})


class HeldSet(Model):
    """What a node holds, whole, and how its tasks are: for a controller whose store is older."""

    stamp: Stamp | None = None
    me: NodeSelf | None = None
    revision: int = 0
    objects: Objects = Objects()
    tasks: dict[str, TaskStatus] = Field(default_factory=dict)


class Acknowledged(Model):
    """The set is journalled and will be acted on; see Report.applied for "done"."""

    generation: int


class Refused(Model):
    """Why instructions were not taken.

    ``base``: send the full set; ``epoch``: a newer controller has spoken (``seen``);
    ``cluster``: the node belongs to another cluster.
    """

    reason: Literal["base", "epoch", "cluster"]
    message: str
    seen: Stamp | None = None


class Report(Model):
    """One line of the report stream.

    ``full`` lines carry every task the agent knows; others only what changed.
    ``gone`` lists tasks of which nothing is left on the node. ``applied`` is the
    newest generation whose *network* state (endpoints, DNS) is in the kernel:
    the acknowledgement rollouts wait for. ``trouble`` says why the node's network is not as it
    should be, in words with what to do: such a node takes nothing new. ``room`` likewise says why
    there is none for anything new on its disk. ``mtu`` is that of the
    device with its underlay address, 0 where there is none. ``volumes`` are the named volumes it
    holds, said with the first line; None = it does not say. ``clock``: what its clock showed
    as the line was made, seconds since the epoch; 0 = it does not say.
    """

    applied: int = 0
    full: bool = False
    tasks: dict[str, TaskStatus] = Field(default_factory=dict)
    gone: tuple[str, ...] = ()
    facts: NodeFacts | None = None  # when changed
    warnings: tuple[str, ...] = ()
    trouble: str = ""
    room: str = ""
    mtu: int = 0
    volumes: tuple[str, ...] | None = None
    clock: float = 0.0
    unread: tuple[str, ...] = ()  # what who read the line left out of it; never sent

    def with_unread(self, unread: tuple[str, ...]) -> Report:
        """Return the report with what could not be read of it."""
        return self.model_copy(update={"unread": unread})

    def with_facts(self, facts: NodeFacts) -> Report:
        """Return the report with what the machine is."""
        return self.model_copy(update={"facts": facts})


class LeaseAnswer(Model):
    """The controller's answer to a node's last question for leases (specs/lease.py).

    ``tasks``: the exclusive tasks of the node, "" = it has the lease, else why not. ``members``:
    the ids of all other nodes. ``question`` 0 = it was not asked yet.
    """

    stamp: Stamp
    question: int = 0
    tasks: dict[str, str] = Field(default_factory=dict)
    members: tuple[str, ...] = ()


class LeaseQuestion(Model):
    """The node's next question: its number, and which tasks hold a lease that has not ended."""

    question: int
    holds: tuple[str, ...] = ()


class LeaveCluster(Model):
    """Who has a node forget its cluster, and as which member: a late one finds another.

    ``generation`` of the stamp is that of the next instructions. Agents one release older read
    none, and controllers one release older send none: then it is obeyed unasked, as it was.
    """

    stamp: Stamp
    node: str


class LogLine(Model):
    """``stream`` stdout | stderr; ``time`` seconds since the epoch; ``line`` without newline.

    ``place`` rises from line to line of a task and never changes: run, file, offset of the
    end; ``after=RUN.FILE.OFFSET`` gives what is behind it.
    """

    time: float
    stream: Literal["stdout", "stderr"]
    line: str
    run: int = 0
    place: tuple[int, int, int] = (0, 0, 0)


class ExecRequest(Model):
    """``detach``: answer {"exit": 0} once the command has started, and leave it running."""

    command: tuple[str, ...]
    tty: bool = False
    stdin: bool = False
    user: str | None = None
    working_dir: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    privileged: bool = False
    detach: bool = False
    rows: int = 24
    columns: int = 80


class AttachRequest(Model):
    """Listen to a task's own process, from now on; of an ``Assignment.attach``, from its begin.

    On a WebSocket as that of an exec. Before anything else the server says {"attached": true}
    once it listens; {"waits": reason} may come before, from the controller. ``stdin``: what comes
    on channel 0 is its input. {"exit": code} or {"error": ..., "exit": code} comes last.
    ``detach``: answer {"exit": 0} once it has begun.
    """

    stdin: bool = False
    detach: bool = False
    rows: int = 0
    columns: int = 0


class ResolveImage(Model):
    image: str
    policy: Literal["always", "missing", "never"] = "missing"
    platform: str | None = None


class ResolvedImage(Model):
    """``digest`` is the manifest digest every task of the release is pinned to."""

    image: str
    digest: str
    size: int = 0
    created: str = ""


class AskPaths(Model):
    """Absolute paths of the node, of which the answer says how each is (``specs.paths``)."""

    paths: tuple[str, ...]


class BuildImage(Model):
    """Build and store under ``tag``; the context is a path on the agent's machine."""

    tag: str
    build: BuildSpec


class BuildEvent(Model):
    """A line of build output, or the last message: ``digest`` or ``error``."""

    line: str = ""
    digest: str = ""
    error: str = ""


class ImageInfo(Model):
    digest: str
    names: tuple[str, ...] = ()
    size: int = 0
    created: str = ""


def json_line(model: Model) -> bytes:
    """Return one NDJSON line."""
    return model.encode() + b"\n"


JsonObject = dict[str, Any]
