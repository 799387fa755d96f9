"""`corral state check`: what must be true of the records of a store, whoever wrote them. Pure.

It reads every record as the mirror does and compares them with each other. An error is what no
sequence of ours writes; a warning is what may be and is worth to be known (a volume whose node
has left). Nothing is repaired: `corral restore` of a backup, or asking, are for people to decide.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from orchestrator.control.mirror.records import (
    CONTENTS,
    LEASES,
    NETWORKS,
    NODES,
    ONEOFFS,
    PARTS,
    RELEASES,
    STACKS,
    TASKS,
    VIP,
    VIPS,
    VOLUMES,
    kind_of,
)
from orchestrator.keys.identity import decode
from orchestrator.keys.vault import Broken
from orchestrator.store import keys
from specs import skew
from specs.api import StateCheck, StateFinding
from specs.events import EventBatch
from specs.states import FINAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.contracts import Sealer
    from orchestrator.store.base import Snapshot, Stored

EXPIRES = 30 * 86400.0  # seconds before its end in which the authority is a warning
SINGLE = 32  # the prefix of an address leased by itself
OTHERS = (keys.CLUSTER, keys.AUTHORITY, keys.BACKUP)


@dataclass
class _Looked:
    """The records read so far, by kind and key, and what was found."""

    sealer: Sealer
    wall: float
    records: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    found: list[StateFinding] = field(default_factory=list)

    def error(self, key: str, what: str) -> None:
        self.found.append(StateFinding(key=key, what=what))

    def warn(self, key: str, what: str) -> None:
        self.found.append(StateFinding(key=key, what=what, severity="warning"))

    def of(self, kind: Any) -> dict[str, Any]:
        return self.records[kind.name]


def check(snapshot: Snapshot, sealer: Sealer, *, wall: float) -> StateCheck:
    """Return what is wrong with the records of a store, opened by its sealer."""
    seen = _Looked(sealer, wall)
    others = {}
    for entry in snapshot.entries:
        if entry.key in OTHERS:
            others[entry.key] = entry
        elif entry.key.startswith(keys.EVENTS):
            _events(seen, entry)
        else:
            _read(seen, entry)
    _cluster(seen, others.get(keys.CLUSTER))
    _authority(seen, others.get(keys.AUTHORITY))
    _stacks(seen)
    _nodes(seen)
    _networks(seen)
    _addresses(seen)
    _contents(seen)
    _volumes(seen)
    seen.found.sort(key=lambda one: (one.severity, one.key, one.what))
    return StateCheck(
        records=len(snapshot.entries), revision=snapshot.revision, findings=tuple(seen.found)
    )


def _read(seen: _Looked, entry: Stored) -> None:
    kind = kind_of(entry.key)
    if kind is None:
        seen.warn(entry.key, "is a record this version does not know")
        return
    try:
        read = skew.decode(kind.model, entry.value)
    except skew.Unreadable as exc:
        seen.error(entry.key, f"cannot be read: {exc}")
        return
    if not read.whole:
        seen.warn(entry.key, f"is of a newer version: {read.notes()[0]}")
    expected = kind.key_of(read.value)
    if expected and expected != entry.key:
        seen.error(entry.key, f"holds the record of {expected}")
    seen.of(kind)[entry.key] = read.value


def _events(seen: _Looked, entry: Stored) -> None:
    """Look at what happened; nothing depends on it, so that nothing of it is an error."""
    try:
        read = skew.decode(EventBatch, entry.value)
    except skew.Unreadable as exc:
        seen.warn(entry.key, f"cannot be read: {exc}; `corral events` leaves it out")
        return
    if not read.whole:
        seen.warn(entry.key, f"is of a newer version: {read.notes()[0]}")


def _cluster(seen: _Looked, entry: Stored | None) -> None:
    if entry is None:
        seen.error(keys.CLUSTER, "is missing: whose store this is, nobody knows")
        return
    try:
        record = decode(entry.value)
        pools = [ipaddress.ip_network(pool) for pool in record.ranges]
    except (ValueError, TypeError, KeyError) as exc:
        seen.error(keys.CLUSTER, f"cannot be read: {exc}")
        return
    if not record.id:
        seen.error(keys.CLUSTER, "names no cluster")
    if newer := [epoch for epoch in record.ended if epoch >= max(record.epoch, 1)]:
        seen.error(keys.CLUSTER, f"says that epoch {max(newer)} ended, and has {record.epoch}")
    for pool in overlapping(pools):
        seen.error(keys.CLUSTER, f"has ranges that overlap: {pool[0]} and {pool[1]}")


def _authority(seen: _Looked, entry: Stored | None) -> None:
    if entry is None:
        seen.error(keys.AUTHORITY, "is missing: nodes could not prove who they are")
        return
    try:
        record = json.loads(entry.value)
        root = x509.load_pem_x509_certificate(record["certificate"].encode())
        sealed = seen.sealer.open(base64.b64decode(record["key"]))
        key = serialization.load_pem_private_key(sealed, password=None)
    except (ValueError, KeyError, TypeError, Broken) as exc:
        seen.error(keys.AUTHORITY, f"does not open: {exc}")
        return
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != root.public_key().public_bytes(*form):
        seen.error(keys.AUTHORITY, "has a certificate of another key")
    left = (root.not_valid_after_utc - dt.datetime.fromtimestamp(seen.wall, dt.UTC)).total_seconds()
    if left < 0:
        seen.error(keys.AUTHORITY, f"ended on {root.not_valid_after_utc:%Y-%m-%d}")
    elif left < EXPIRES:
        seen.warn(keys.AUTHORITY, f"ends on {root.not_valid_after_utc:%Y-%m-%d}")


def _stacks(seen: _Looked) -> None:
    parts = {key.removeprefix(keys.PARTS) for key in seen.of(PARTS)}
    for key, release in seen.of(RELEASES).items():
        if release.spec not in parts:
            seen.error(key, f"is of a spec that is not there ({release.spec[:12]})")
    for key, stack in seen.of(STACKS).items():
        for number in {stack.release, stack.running} - {0}:
            if keys.release(stack.name, number) not in seen.of(RELEASES):
                seen.error(key, f"names release {number}, which is not there")
    for key, one in [*seen.of(TASKS).items(), *seen.of(ONEOFFS).items()]:
        task = getattr(one, "task", one)
        if keys.stack(task.stack) not in seen.of(STACKS):
            seen.error(key, f"is a task of stack {task.stack}, which is not there")
        if task.node and keys.node(task.node) not in seen.of(NODES) and task.state not in FINAL:
            seen.warn(key, f"{task.name} is on a node that has left ({task.node})")


def _nodes(seen: _Looked) -> None:
    for what in ("name", "address", "overlay"):
        having: dict[str, list[str]] = defaultdict(list)
        for key, node in seen.of(NODES).items():
            if what == "address" or getattr(node, what):
                having[getattr(node, what)].append(key)
        for value, several in having.items():
            if len(several) > 1:
                said = f"{what} {value}" if value else "the controller's machine"
                seen.error(several[1], f"and {several[0]} are both {said}")


def _networks(seen: _Looked) -> None:
    pools = []
    for key, network in seen.of(NETWORKS).items():
        for text in network.pools:
            try:
                pools.append((ipaddress.ip_network(text), key))
            except ValueError:
                seen.error(key, f"has a pool that is none: {text!r}")
    for one, other in overlapping([pool for pool, _ in pools]):
        both = sorted({key for pool, key in pools if pool in (one, other)})
        seen.error(both[-1], f"has addresses of another network: {one} and {other}")
    blocks: dict[str, list[Any]] = defaultdict(list)
    for key, lease in seen.of(LEASES).items():
        if keys.network(lease.network) not in seen.of(NETWORKS):
            seen.warn(key, "is a block of a network that is not there")
            continue
        if lease.node != VIPS and keys.node(lease.node) not in seen.of(NODES):
            seen.warn(key, f"belongs to a node that has left ({lease.node})")
        blocks[lease.network].append(ipaddress.ip_network(lease.cidr))
    for network, several in blocks.items():
        for one, other in overlapping(several):
            if SINGLE in (one.prefixlen, other.prefixlen):
                continue  # out of a block, for another node: the block's gives it to nobody
            seen.error(keys.network(network), f"leased addresses twice: {one} and {other}")


def _addresses(seen: _Looked) -> None:
    """Compare who has which address: live tasks and one-offs, and services' VIPs."""
    holders: dict[tuple[str, str], str] = {}
    having = [
        (network, address, key)
        for key, one in [*seen.of(TASKS).items(), *seen.of(ONEOFFS).items()]
        if getattr(one, "task", one).state not in FINAL
        for network, address in one.addresses.items()
    ]
    having += [(vip.network, vip.address, key) for key, vip in seen.of(VIP).items()]
    for network, address, key in having:
        known = seen.of(NETWORKS).get(keys.network(network))
        if known is None:
            seen.error(key, f"has an address of a network that is not there ({network})")
        elif not any(_within(address, pool) for pool in known.pools):
            seen.error(key, f"has {address}, which is none of network {known.name}")
        if (other := holders.setdefault((network, address), key)) != key:
            seen.error(key, f"and {other} both have {address}")


def _contents(seen: _Looked) -> None:
    for key, content in seen.of(CONTENTS).items():
        try:
            seen.sealer.open(base64.b64decode(content.sealed))
        except (Broken, ValueError) as exc:
            seen.error(key, f"does not open: {exc}")
    for key, stack in seen.of(STACKS).items():
        number = stack.running or stack.release
        release = seen.of(RELEASES).get(keys.release(stack.name, number))
        spec = seen.of(PARTS).get(keys.part(release.spec)) if release is not None else None
        if spec is None or stack.desired == "removed":
            continue
        for item in (*spec.secrets.values(), *spec.configs.values()):
            if item.content and keys.content(item.content) not in seen.of(CONTENTS):
                seen.error(key, f"needs {item.name}, whose content is not there")


def _volumes(seen: _Looked) -> None:
    for key, volume in seen.of(VOLUMES).items():
        if volume.node and keys.node(volume.node) not in seen.of(NODES):
            seen.warn(key, f"has its data on a node that has left ({volume.home or volume.node})")


def overlapping(pools: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Return pairs of networks that share addresses; equal ones too."""
    of_kind: dict[int, list[Any]] = defaultdict(list)
    for pool in pools:
        of_kind[pool.version].append(pool)
    found = []
    for same in of_kind.values():
        # Sorted by begin, a network overlaps one before it or none.
        widest = None
        for pool in sorted(same):
            if widest is not None and pool.overlaps(widest):
                found.append((widest, pool))
            if widest is None or pool.broadcast_address > widest.broadcast_address:
                widest = pool
    return found


def _within(address: str, pool: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(pool)
    except ValueError:
        return False
