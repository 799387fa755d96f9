"""What the scheduler knows of the cluster: nodes with what is reserved on them.

``orchestrator.control.planning.placement`` builds a view from the mirror for every pass;
``scheduler.place`` works on its own copy of the counts (:class:`Load`), so that
a view is never changed by asking.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from specs.states import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Mapping


class HostPort(NamedTuple):
    """A port taken on a node itself; ``ip`` empty = all addresses."""

    port: int
    protocol: str
    ip: str = ""

    def clashes(self, other: HostPort) -> bool:
        """Say whether both cannot be bound on one node."""
        return (
            self.port == other.port
            and self.protocol == other.protocol
            and (not self.ip or not other.ip or self.ip == other.ip)
        )


@dataclass(frozen=True, slots=True)
class NodeUse:
    """What tasks already on a node take of it."""

    cpus: float = 0.0
    memory: int = 0
    tasks: int = 0
    services: Mapping[str, int] = field(default_factory=dict)  # "stack/service" -> tasks
    specs: Mapping[str, int] = field(default_factory=dict)  # spec hash -> tasks
    ports: frozenset[HostPort] = frozenset()


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as the filters and scores see it.

    ``failures`` counts recent failures by spec hash; ``crowded`` are those of tasks that do not fit
    on its disk; ``listening`` are ports that
    local processes hold, as ``80/tcp``.
    """

    id: str
    name: str
    status: NodeStatus = NodeStatus.READY
    availability: Literal["active", "pause", "drain"] = "active"
    reason: str = ""
    hostname: str = ""
    role: str = "worker"
    labels: Mapping[str, str] = field(default_factory=dict)
    os: str = "linux"
    arch: str = "amd64"
    cpus: float = 1.0
    memory: int = 0
    wire: int = 2**31  # the version of corral's wire its agent speaks; what did not say: any
    listening: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    failures: Mapping[str, int] = field(default_factory=dict)
    crowded: frozenset[str] = frozenset()
    use: NodeUse = NodeUse()


@dataclass(frozen=True, slots=True)
class Home:
    """A reason why tasks must run on one node: a volume's data, or a path of the CLI's machine.

    ``node`` None = not decided yet: the first task placed decides for everybody.
    """

    what: str  # for people: "volume guestbook_data"
    key: str  # equal keys share one decision
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Only:
    """Nodes that come into question for the sake of something that others lack."""

    what: str  # for people: "path /srv/data"
    nodes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Pending:
    """A task that needs a node."""

    task: str
    service: str  # "stack/service"
    spec_hash: str
    slot: int = 0
    cpus: float = 0.0
    memory: int = 0
    constraints: tuple[str, ...] = ()
    preferences: tuple[str, ...] = ()
    max_per_node: int = 0
    platform: str = ""  # os/arch, empty = any
    ports: tuple[HostPort, ...] = ()
    homes: tuple[Home, ...] = ()
    only: tuple[Only, ...] = ()
    image: str = ""
    needs: tuple[tuple[int, str], ...] = ()  # versions it asks of a node, and which key does
    node: str | None = None  # a global service's task belongs to this node
    instead_of: str | None = None  # node of the task it replaces stop-first: its room is ours
    instead_use: tuple[float, int] = (0.0, 0)  # cpus and memory of that task
    aside: tuple[float, int] = (0.0, 0)  # cpus and memory that ``node`` keeps for it already
    prefers: str | None = None  # node with what its slot left: taken if it can be, never waited for

    @property
    def group(self) -> tuple[object, ...]:
        """Return what tasks must have in common to be placed in one go."""
        same = (self.service, self.spec_hash, self.homes, self.node, self.instead_of)
        return (*same, self.only, self.prefers, self.cpus, self.memory)  # of a pair, of both


@dataclass(frozen=True, slots=True)
class Fleet:
    """All nodes, by id, in the order of their ids."""

    nodes: Mapping[str, NodeView]


class Load:
    """One node's counts while a placement is being made; starts as a copy of its ``NodeUse``."""

    __slots__ = ("cpus", "memory", "node", "ports", "services", "specs", "tasks")

    def __init__(self, node: NodeView) -> None:
        self.node = node
        self.cpus = node.use.cpus
        self.memory = node.use.memory
        self.tasks = node.use.tasks
        self.services = dict(node.use.services)
        self.specs = dict(node.use.specs)
        self.ports = set(node.use.ports)

    def add(self, pending: Pending) -> None:
        """Count a task as placed here."""
        replaced = pending.instead_of == self.node.id
        cpus, memory = pending.instead_use if replaced else pending.aside
        self.cpus += max(0.0, pending.cpus - cpus)
        self.memory += max(0, pending.memory - memory)
        self.tasks += 1
        self.services[pending.service] = self.services.get(pending.service, 0) + 1
        self.specs[pending.spec_hash] = self.specs.get(pending.spec_hash, 0) + 1
        self.ports.update(pending.ports)
