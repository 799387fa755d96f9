"""Networks, volumes, secrets and configs made and removed by hand. Each into one draft.

What is asked is read as a file's entry would be (``specs.compile``), so that the same words
refuse the same things. The record comes first: a volume that is to go is marked, its node deletes
the data whenever it answers, and only then is the record dropped (``background``).
"""

from __future__ import annotations

import base64
import binascii
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from orchestrator.control.deploy.subnets import taken_from
from orchestrator.control.mirror.records import (
    CONTENTS,
    LEASES,
    NETWORKS,
    VOLUMES,
    NetworkRecord,
    StoredContent,
    Volume,
    fingerprint_of,
)
from orchestrator.control.mirror.users import needing, users
from orchestrator.control.planning.networks import pool_for
from orchestrator.errors import Conflict, Invalid, NotFound
from specs import shares, subnets
from specs.bounds import MOST_BYTES
from specs.compile.stack import compile_stack
from specs.ids import new_id
from specs.kit.amounts import size, some
from specs.objects import (
    CreateContent,
    CreateNetwork,
    CreateVolume,
    DroppedObject,
    MadeObject,
)
from specs.problems import SpecError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from orchestrator.contracts import Sealer
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.draft import Draft
    from specs.objects import ObjectKind
    from specs.stack import NetworkSpec, VolumeSpec

_IT = "it"  # the key of the entry that is compiled


class Maker:
    """Makes objects in a draft; one for each request."""

    def __init__(self, draft: Draft, sealer: Sealer, rng: random.Random, wall: float) -> None:
        self._draft = draft
        self._cluster: Cluster = draft.cluster
        self._sealer = sealer
        self._rng = rng
        self._wall = wall

    def network(self, asked: CreateNetwork) -> MadeObject:
        """Make a network that belongs to no stack. Raises Conflict, Invalid."""
        wanted = _network_spec(asked)
        named = [n for n in self._cluster.networks.values() if n.name == asked.name]
        if any(not network.retired for network in named):
            raise Conflict(f"network {asked.name} exists already", hint="corral network ls")
        back = next((n for n in named if not n.stack and n.subnets == wanted.subnets), None)
        record = back if back is not None else self._new_network(wanted)
        self._draft.put(NETWORKS, record.asked("", wanted))
        return MadeObject(id=record.id, name=record.name)

    def _new_network(self, wanted: NetworkSpec) -> NetworkRecord:
        for text in wanted.subnets[:1]:
            found = subnets.hit(IPv4Network(text, strict=False), taken_from(self._cluster, None))
            if found is not None:
                detail = f"subnet {text} overlaps {found.whose}"
                raise Conflict(detail, hint="another one, or none: corral takes one that is free")
        pool, why = pool_for(self._draft, wanted)
        if not pool:
            raise Conflict(why)
        return NetworkRecord(
            id=new_id("n", now=self._wall, rng=self._rng),
            name=wanted.name,
            stack="",
            key="",
            pool=pool,
            subnets=wanted.subnets,
            created_at=self._wall,
        )

    def volume(self, asked: CreateVolume) -> MadeObject:
        """Make a volume that belongs to no stack; one that is there as asked is left as it is."""
        name = asked.name or new_id("v", now=self._wall, rng=self._rng)
        wanted = _volume_spec(asked.model_copy(update={"name": name}))
        node = self._node(asked.node)
        record = Volume(
            name=name,
            node=node,
            created_at=self._wall,
            labels=wanted.labels,
            options=wanted.options,
            home=self._cluster.nodes[node].name if node else "",
        )
        if node and shares.is_shared(wanted.options):
            raise Invalid(detail="a share is the same on every node: it has no --node")
        present = self._cluster.volumes.get(name)
        if present is None:
            self._draft.put(VOLUMES, record)
            return MadeObject(id=name, name=name)
        if present.removing:
            raise Conflict(
                f"volume {name} is being removed", hint="corral volume ls says why still"
            )
        unused = not present.node and not present.everywhere and not present.options
        if node and (unused or (present.node and present.node not in self._cluster.nodes)):
            # No task had it yet, or its home left: where the data is now, only the user may know.
            self._draft.put(VOLUMES, present.at_home(node, record.home))
            return MadeObject(id=name, name=name)
        if present.options != record.options or (node and node != present.node):
            raise Conflict(
                f"volume {name} exists already, with other options or on another node",
                hint=f"corral volume inspect {name}",
            )
        return MadeObject(id=name, name=name)

    def _node(self, text: str) -> str:
        if not text:
            return ""
        for node in self._cluster.nodes.values():
            if text in (node.id, node.name):
                return node.id
        raise NotFound(f"there is no node {text}", hint="corral node ls shows the nodes")

    def content(self, asked: CreateContent) -> MadeObject:
        """Seal a secret or config under a name of its own; it never changes. Raises Conflict."""
        secret = asked.secret
        what, kind = ("secret", "secrets") if secret else ("config", "configs")
        _compiled(kind, {"name": asked.name, "external": True})
        if any(
            c.name == asked.name and c.secret == secret and not c.stack
            for c in self._cluster.contents.values()
        ):
            raise Conflict(
                f"{what} {asked.name} exists already, and never changes",
                hint=f"make {asked.name}-2 and let the file name that: services change over to it",
            )
        try:
            data = base64.b64decode(asked.data, validate=True)
        except binascii.Error:
            raise Invalid(detail=f"the contents of {what} {asked.name} are not base64") from None
        if not 0 < len(data) <= MOST_BYTES:
            raise Invalid(
                detail=f"{what} {asked.name} has {size(len(data))}; 1 byte to {size(MOST_BYTES)} "
                "are possible",
                hint="keep large files in an image or a volume",
            )
        record = StoredContent(
            id=new_id("s" if secret else "c", now=self._wall, rng=self._rng),
            name=asked.name,
            stack="",
            secret=secret,
            fingerprint=fingerprint_of(self._sealer, data, secret=secret),
            sealed=base64.b64encode(self._sealer.seal(data)).decode(),
            size=len(data),
            created_at=self._wall,
            labels=asked.labels,
        )
        self._draft.put(CONTENTS, record)
        return MadeObject(id=record.id, name=record.name)


def drop(draft: Draft, kind: ObjectKind, name: str) -> DroppedObject:
    """Have an object go that nobody uses. Raises Conflict, NotFound."""
    match kind:
        case "network":
            return DroppedObject(name=_drop_network(draft, name))
        case "volume":
            return DroppedObject(name=_drop_volume(draft, name))
        case _:
            return _drop_content(draft, name, secret=kind == "secret")


def _drop_network(draft: Draft, name: str) -> str:
    cluster = draft.cluster
    there = [n for n in cluster.networks.values() if not n.retired]
    record = next((n for n in there if name in (n.name, n.id)), None)
    if record is None:
        raise NotFound(f"there is no network {name}", hint="corral network ls shows what there is")
    _refuse_used("network", record.name, users(cluster).networks.get(record.id, ()))
    if any(
        of.get(record.id) for of in (cluster.by_network, cluster.vips, cluster.resting)
    ):  # of nodes that do not answer, or addresses that rest: it goes with them
        draft.put(NETWORKS, record.let_go())
        return record.name
    draft.delete(NETWORKS, record)
    for lease in cluster.leases.get(record.id, {}).values():
        draft.delete(LEASES, lease)
    return record.name


def _drop_volume(draft: Draft, name: str) -> str:
    record = draft.cluster.volumes.get(name)
    if record is None:
        raise NotFound(f"there is no volume {name}", hint="corral volume ls shows what there is")
    _refuse_used("volume", name, users(draft.cluster).volumes.get(name, ()))
    if not record.removing:
        draft.put(VOLUMES, record.model_copy(update={"removing": True}))
    return name


def _drop_content(draft: Draft, name: str, *, secret: bool) -> DroppedObject:
    what = "secret" if secret else "config"
    named = [
        c for c in draft.cluster.contents.values() if c.secret == secret and name in (c.name, c.id)
    ]
    record = next((c for c in named if not c.stack), None)
    if record is None and named:
        stack = named[0].stack
        raise Conflict(
            f"{what} {name} is of the file of stack {stack}, and goes with it",
            hint=f"corral -p {stack} down",
        )
    if record is None:
        raise NotFound(f"there is no {what} {name}", hint=f"corral {what} ls shows what there is")
    _refuse_used(what, record.name, users(draft.cluster).contents.get(record.id, ()))
    draft.delete(CONTENTS, record)
    return DroppedObject(name=record.name, needed=_needed(draft.cluster, record.id))


def _needed(cluster: Cluster, content: str) -> str:
    """Return which kept releases no rollback brings back without this version, in words."""
    missed = needing(cluster, content)
    found = [
        f"release{'s' if len(numbers) > 1 else ''} {some(list(map(str, numbers)), 5)} of stack {s}"
        for s, numbers in sorted(missed.items())
    ]
    return f"{some(found, 3)} had it: corral rollback to that is refused now" if found else ""


def _refuse_used(what: str, name: str, stacks: Iterable[str]) -> None:
    found = sorted(stacks)
    if found:
        several = "stacks" if len(found) > 1 else "stack"
        raise Conflict(
            f"{what} {name} is in use by {several} {', '.join(found)}",
            hint=f"corral -p {found[0]} down, or take it out of the file and corral up",
        )


# as a file's entry


def _network_spec(asked: CreateNetwork) -> NetworkSpec:
    if any(":" in subnet for subnet in asked.subnets):
        raise Invalid(detail="the overlay is IPv4: an IPv6 subnet is not possible")
    if len(asked.subnets) > 1:
        raise Invalid(detail="a network has one subnet", hint="it grows by itself without one")
    made: NetworkSpec = _compiled(
        "networks",
        {
            "name": asked.name,
            "driver": asked.driver,
            "driver_opts": asked.options,
            "internal": asked.internal,
            "attachable": asked.attachable,
            "labels": asked.labels,
            "ipam": {"config": [{"subnet": subnet} for subnet in asked.subnets]},
        },
    )
    return made


def _volume_spec(asked: CreateVolume) -> VolumeSpec:
    entry = {"name": asked.name, "driver": asked.driver, "labels": asked.labels}
    made: VolumeSpec = _compiled("volumes", {**entry, "driver_opts": asked.options})
    return made


def _compiled(kind: str, entry: dict[str, Any]) -> Any:
    """Return what a file's entry would become. Raises Invalid."""
    if not entry["name"]:
        raise Invalid(detail="it needs a name")
    try:
        spec, _ = compile_stack({kind: {_IT: entry}}, {}, "by-hand")
    except SpecError as exc:
        raise Invalid(exc.problems) from exc
    return getattr(spec, kind)[_IT]
