"""What the control loops keep in the store besides the models of ``specs``.

Only ``orchestrator.control`` writes these; ``records.KINDS`` is the one table of
which prefix holds which model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from orchestrator.store import keys
from specs.api import Release, Stack
from specs.base import Model
from specs.node import Node
from specs.oneoff import OneOff
from specs.schedule import Schedule
from specs.stack import StackSpec
from specs.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.contracts import Sealer
    from specs.stack import NetworkSpec


class NetworkRecord(Model):
    """A network and its pools of addresses: the first one, and those it grew by.

    ``stack`` is empty where somebody made it by hand: then it stays until it is removed so.
    ``retired``: nobody wants it any more; its addresses rest before the pool is given
    out again, and a stack that comes back takes it over.
    """

    id: str
    name: str
    stack: str
    key: str
    pool: str
    grown: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()  # as the file asked; a change makes another network
    internal: bool = False
    mtu: int | None = None
    encrypted: bool = False
    attachable: bool = False
    retired: bool = False
    labels: dict[str, str] = Field(default_factory=dict)
    created_at: float = 0.0

    def asked(self, key: str, wanted: NetworkSpec) -> NetworkRecord:
        """Return the network as its stack's file asks for it, which takes a retired one back."""
        update = {
            "key": key,
            "internal": wanted.internal,
            "mtu": wanted.mtu,
            "encrypted": wanted.encrypted,
            "attachable": wanted.attachable,
            "labels": wanted.labels,
            "retired": False,
        }
        return self.model_copy(update=update)

    @property
    def pools(self) -> tuple[str, ...]:
        """Return the CIDRs of all its addresses."""
        return (self.pool, *self.grown)

    @property
    def may_grow(self) -> bool:
        """Say whether it takes more addresses when it is full: not where the file says which."""
        return not any(":" not in subnet for subnet in self.subnets)

    def with_pool(self, pool: str) -> NetworkRecord:
        """Return the network with more addresses."""
        return self.model_copy(update={"grown": (*self.grown, pool)})

    def let_go(self) -> NetworkRecord:
        """Return the network without anybody who wants it."""
        return self.model_copy(update={"retired": True})


class Lease(Model):
    """A block of a network's addresses that belongs to one node; ``node`` VIPS = service VIPs."""

    network: str
    cidr: str
    node: str


VIPS = "vips"  # Lease.node of blocks VIPs come from; no node id looks like this


class Vip(Model):
    network: str
    stack: str
    service: str
    address: str


class Resting(Model):
    """A freed address; the record's revision is the removal every node must acknowledge."""

    network: str
    address: str


def fingerprint_of(sealer: Sealer, data: bytes, *, secret: bool) -> str:
    """Return by what two versions of a secret or config are told to be equal.

    The kind is part of it: a config equal to a secret must not tell so.
    """
    return sealer.fingerprint((b"secret" if secret else b"config") + b"\0" + data)


class StoredContent(Model):
    """One immutable version of a secret or config, sealed (base64).

    ``stack`` is empty where somebody made it by hand: then nobody but he takes it away.
    """

    id: str
    name: str
    stack: str
    secret: bool
    fingerprint: str
    sealed: str
    size: int = 0
    created_at: float = 0.0
    labels: dict[str, str] = Field(default_factory=dict)


class VolumeMove(Model):
    """A volume on its way to another node, ``to``, which is ``called`` so.

    ``back``: to what an earlier move left there. ``reason``: why it is taken back. ``along``:
    the volumes that go with it as one, in a move of the same id: their homes change together.
    """

    id: str
    to: str
    called: str = ""
    phase: Literal["copying", "closing", "undoing"] = "copying"
    back: bool = False
    reason: str = ""
    begun_at: float = 0.0
    along: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nobody may have the volume now: its copies are made the same, or exchanged."""
        return self.phase == "closing" or (self.back and self.phase == "undoing")


class KeptCopy(Model):
    """What a move left on the node that was the home; ``aside`` once no task can mean it there.

    ``going``: somebody confirmed the move, and it is removed. ``along``: as of the move.
    """

    node: str
    home: str = ""
    kept_at: float = 0.0
    aside: bool = False
    going: bool = False
    along: tuple[str, ...] = ()


class Volume(Model):
    """A named volume; ``node`` is its home, decided by the first task placed.

    ``home`` is that node's name, for people: it is known of a node that left, too.
    ``everywhere``: a global service has one of the name on each of its nodes; no home ties it.
    ``stack`` is empty where somebody made it by hand. ``removing``: its data goes as soon as no
    task has it and its node answers, and the record with it.
    """

    name: str
    stack: str = ""
    key: str = ""
    node: str = ""
    created_at: float = 0.0
    labels: dict[str, str] = Field(default_factory=dict)
    options: dict[str, str] = Field(default_factory=dict)
    removing: bool = False
    home: str = ""
    everywhere: bool = False
    move: VolumeMove | None = None
    kept: KeptCopy | None = None
    moved: str = ""  # how the last move ended that was taken back

    def switched(self, node: str, name: str, wall: float) -> Volume:
        """Return the volume at its new home when its move is done."""
        back = self.move is not None and self.move.back  # then all is in its place already
        along = self.move.along if self.move is not None else ()
        kept = KeptCopy(node=self.node, home=self.home, kept_at=wall, aside=back, along=along)
        return self.at_home(node, name).model_copy(update={"move": None, "kept": kept, "moved": ""})

    def not_moved(self) -> Volume:
        """Return the volume when nothing is left of a move that was taken back."""
        assert self.move is not None
        words = f"not moved to {self.move.called}: {self.move.reason}"
        return self.model_copy(update={"move": None, "moved": words})

    def at_home(self, node: str, name: str) -> Volume:
        """Return the volume with its data on a node, given with its name."""
        return self.model_copy(update={"node": node, "home": name})


class BoundPath(Model):
    """An absolute path that a stack writes; ``node`` has the data, empty = every node has it.

    ``home`` is that node's name, for people.
    """

    stack: str
    path: str
    node: str = ""
    created_at: float = 0.0
    home: str = ""

    def at_home(self, node: str) -> BoundPath:
        """Return the path with its data on a node."""
        return self.model_copy(update={"node": node})


class Idempotency(Model):
    """Which release a Deploy.key made."""

    stack: str
    number: int
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One family of records: where it lives and what key its record has."""

    name: str
    prefix: str
    model: type[Model]
    key_of: Callable[..., str]


STACKS = Kind("stacks", keys.STACKS, Stack, lambda r: keys.stack(r.name))
RELEASES = Kind("releases", keys.RELEASES, Release, lambda r: keys.release(r.stack, r.number))
PARTS = Kind("parts", keys.PARTS, StackSpec, lambda _: "")  # keyed by hash, see Draft.put_key
TASKS = Kind("tasks", keys.TASKS, Task, lambda r: keys.task(r.stack, r.id))
ONEOFFS = Kind("oneoffs", keys.ONEOFFS, OneOff, lambda r: keys.oneoff(r.stack, r.id))
SCHEDULES = Kind("schedules", keys.SCHEDULES, Schedule, lambda r: keys.schedule(r.stack, r.service))
NODES = Kind("nodes", keys.NODES, Node, lambda r: keys.node(r.id))
NETWORKS = Kind("networks", keys.NETWORKS, NetworkRecord, lambda r: keys.network(r.id))
LEASES = Kind("leases", keys.BLOCKS, Lease, lambda r: keys.block(r.network, r.cidr))
VIP = Kind("vips", keys.VIPS, Vip, lambda r: keys.vip(r.network, r.stack, r.service))
RESTING = Kind("resting", keys.RESTING, Resting, lambda r: keys.resting(r.network, r.address))
CONTENTS = Kind("contents", keys.CONTENTS, StoredContent, lambda r: keys.content(r.id))
VOLUMES = Kind("volumes", keys.VOLUMES, Volume, lambda r: keys.volume(r.name))
BOUND_PATHS = Kind("paths", keys.BOUND_PATHS, BoundPath, lambda r: keys.bound_path(r.stack, r.path))
IDEMPOTENCY = Kind("idempotency", keys.IDEMPOTENCY, Idempotency, lambda _: "")

KINDS = (
    STACKS,
    RELEASES,
    PARTS,
    TASKS,
    ONEOFFS,
    SCHEDULES,
    NODES,
    NETWORKS,
    LEASES,
    VIP,
    RESTING,
    CONTENTS,
    VOLUMES,
    BOUND_PATHS,
    IDEMPOTENCY,
)


def kind_of(key: str) -> Kind | None:
    """Return the family a store key belongs to, or None for keys of other parts."""
    for kind in KINDS:
        if key.startswith(kind.prefix):
            return kind
    return None
