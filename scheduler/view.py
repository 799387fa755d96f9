"""What the scheduler knows of the cluster: nodes with what is reserved on them.

``orchestrator.control.planning.placement`` builds a view from the mirror for every pass;
``scheduler.place`` works on its own copy of the counts (:class:`Load`), so that
a view is never changed by asking.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, NamedTuple

from specs.states import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


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

    ``node`` None = not decided yet: the first task placed decides for everybody. ``lost``: it left
    the cluster; ``relief.py`` sets it, who admits does not ask.
    """

    what: str  # for people: "volume guestbook_data"
    key: str  # equal keys share one decision
    node: str | None = None
    lost: bool = False


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
    pack: bool = False  # onto the fullest node that has room, instead of spread
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
        """Return what tasks must have in common to be placed in one go: all but who they are."""
        return _GROUP(self)


_GROUP: Callable[[Pending], tuple[object, ...]] = attrgetter(
    *(each.name for each in fields(Pending) if each.name not in ("task", "slot"))
)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All nodes, by id, in the order of their ids."""

    nodes: Mapping[str, NodeView]


class Load:
    """One node's counts while a placement is being made; starts as its ``NodeUse``."""

    __slots__ = ("_own", "cpus", "memory", "node", "ports", "services", "specs", "tasks")

    def __init__(self, node: NodeView) -> None:
        use = node.use
        self.node = node
        self.cpus = use.cpus
        self.memory = use.memory
        self.tasks = use.tasks
        self.services = use.services
        self.specs = use.specs
        self.ports = use.ports
        self._own: tuple[dict[str, int], dict[str, int]] | None = None  # once it got a task

    def add(self, pending: Pending) -> None:
        """Count a task as placed here."""
        cpus, memory = pending.cpus, pending.memory
        if pending.instead_of == self.node.id:
            less, fewer = pending.instead_use
        else:
            less, fewer = pending.aside
        if cpus > less:
            self.cpus += cpus - less
        if memory > fewer:
            self.memory += memory - fewer
        self.tasks += 1
        if self._own is None:
            # The view is never changed; most nodes get nothing and copy nothing.
            self._own = services, specs = dict(self.services), dict(self.specs)
            self.services, self.specs = services, specs
        else:
            services, specs = self._own
        services[pending.service] = services.get(pending.service, 0) + 1
        specs[pending.spec_hash] = specs.get(pending.spec_hash, 0) + 1
        if pending.ports:
            self.ports = self.ports.union(pending.ports)
