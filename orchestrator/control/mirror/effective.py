"""What a service is under one release: its spec with images pinned, and its hash.

A task record names its release and service; this joins them. The hash decides
whether a running task must be replaced, so it covers all that the node is told and
that cannot change in place: the task spec, the pinned image, the real networks and
volumes behind the keys, the container's name. A service carried over from an earlier
release keeps the hash it had there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import node_words
from orchestrator.control.mirror.released import spec_of
from specs.base import content_hash
from specs.states import ReleaseState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.contracts import Mirror
    from orchestrator.control.mirror.records import Volume
    from specs.api import ClientMachine, Release
    from specs.node import Node
    from specs.oneoff import OneOff
    from specs.stack import ServiceSpec, StackSpec, TaskSpec, VolumeSpec


@dataclass(frozen=True, slots=True)
class Effective:
    """One service as one release runs it."""

    stack: str
    release: int
    service: ServiceSpec
    spec: StackSpec
    task: TaskSpec
    hash: str
    client: ClientMachine
    lends: tuple[str, ...] = ()  # services whose tasks have its tasks' namespaces, or theirs

    @property
    def key(self) -> str:
        return f"{self.stack}/{self.service.name}"

    @property
    def reserved(self) -> tuple[float, int]:
        """Return the CPUs and memory that one of its tasks has for itself."""
        own = self.task.resources.reservations
        return own.cpus, own.memory

    @property
    def exclusive(self) -> bool:
        """Whether two tasks of one slot cannot exist at once, so the old one goes first."""
        task = self.task
        fixed = any(a.ipv4_address for a in task.networks)
        host = any(p.mode == "host" and p.published for p in task.ports)
        # Two of one slot would be in one network: the same ports cannot be had twice.
        shared = task.network_mode == "partner" and self.service.update.order == "start-first"
        return task.exclusive or fixed or host or shared or task.network_mode == "host"

    def volume_name(self, key: str, slot: int, node: Node | None = None) -> str:
        """Return the real name of a volume for a slot; on ``node``, where it is another on each."""
        volume = self.spec.volumes.get(key)
        if volume is None:
            return f"{self.stack}_{key}"
        words = node_words(node) if node is not None else {}
        return volume.name_of(f"{self.stack}_{self.service.name}", slot, words)

    def volume_names(self, spec: TaskSpec, slot: int, node: Node | None) -> dict[str, str]:
        """Return the real names of a task's volumes by their keys; anonymous ones have none."""
        return {
            m.source: self.volume_name(m.source, slot, node)
            for m in spec.mounts
            if m.type == "volume" and m.source is not None
        }

    def on_each_node(self, key: str) -> bool:
        """Say whether each node has a volume of its own behind the key: a global service's."""
        return has_own(self.service, self.spec.volumes.get(key))

    def volume_options(self, key: str, record: Volume | None) -> Mapping[str, str]:
        """Return a volume's options: the file's, or those of who made it where that is another."""
        wanted = self.spec.volumes.get(key)
        if record is not None and (wanted is None or wanted.external or record.stack != self.stack):
            return record.options
        return wanted.options if wanted is not None else {}

    def all_options(
        self, volumes: Mapping[str, str], records: Mapping[str, Volume]
    ) -> dict[str, dict[str, str]]:
        """Return the options of those of ``volumes`` (key -> real name) that have any."""
        return {
            key: dict(options)
            for key, name in volumes.items()
            if (options := self.volume_options(key, records.get(name)))
        }


def has_own(service: ServiceSpec, volume: VolumeSpec | None) -> bool:
    """Say whether a service has, on each of its nodes, a volume of its own behind one key.

    That is so of a name with the node's in it, and of a global service's. A volume for each slot
    has a name of its own anyway, and stays where it is.
    """
    if volume is not None and volume.per_node:
        return True
    return service.per_node and not (volume is not None and volume.per_slot)


def of_oneoff(one: OneOff) -> Effective:
    """Return the service of a one-off: it is its own, of no release."""
    return Effective(
        stack=one.stack,
        release=0,
        service=one.service,
        spec=one.spec,
        task=one.service.task,
        hash="",
        client=one.client,
    )


# What of `x-corral` says that new tasks stand beside the old ones: for going back, too.
_WHOLE_SETS = ("canary", "blue_green", "keep_old")


class Specs:
    """Effective services, computed once per (release, service)."""

    def __init__(self, cluster: Mirror) -> None:
        self._cluster = cluster
        self._cache: dict[tuple[str, int, str, bool, str, str], Effective] = {}
        # The same by the very records: asked for every task of every look.
        self._last: dict[tuple[str, int, str, bool], tuple[Release, StackSpec, Effective]] = {}

    def forked(self, cluster: Mirror) -> Specs:
        """Return the same for a fork of the mirror, with what was computed so far."""
        made = Specs(cluster)
        made._cache, made._last = dict(self._cache), dict(self._last)
        return made

    def of(self, stack: str, number: int, service: str) -> Effective | None:
        """Return the service under the stack's release, or None when either is not there."""
        release = self._cluster.releases.get((stack, number))
        spec = spec_of(self._cluster, release)
        if release is None or spec is None or service not in spec.services:
            return None
        return self.under(release, spec, service)

    def under(self, release: Release, spec: StackSpec, service: str) -> Effective:
        """Return the service as ``spec`` of ``release`` has it."""
        short = (release.stack, release.number, service, self._goes_back(release))
        last = self._last.get(short)
        if last is not None and last[0] is release and last[1] is spec:
            return last[2]
        images = ",".join(f"{k}={v}" for k, v in sorted(release.images.items()))
        key = (*short, release.spec, images)
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) > 4096:
                self._cache.clear()
            found = self._cache[key] = _effective(release, spec, service, back=short[-1])
        if len(self._last) > 4096:
            self._last.clear()
        self._last[short] = (release, spec, found)
        return found

    def _goes_back(self, release: Release) -> bool:
        """Say whether it is gone back to: then `rollback_config` says how tasks are replaced."""
        if release.rollback_to:
            return True
        record = self._cluster.stacks.get(release.stack)
        if record is None or record.running != release.number:
            return False
        newest = self._cluster.releases.get((release.stack, record.release))
        return newest is not None and newest.state is ReleaseState.ROLLED_BACK


def gateway_key(effective: Effective) -> str | None:
    """Return the key of the network that carries the default route and published traffic.

    The highest gw_priority; among equals a network that is not internal, then by name,
    as Compose does.
    """
    best: tuple[tuple[int, bool, str], str] | None = None
    for attachment in effective.task.networks:
        spec = effective.spec.networks.get(attachment.network)
        internal = spec is not None and spec.internal
        rank = (-attachment.gw_priority, internal, attachment.network)
        if best is None or rank < best[0]:
            best = (rank, attachment.network)
    return best[1] if best is not None else None


def _effective(release: Release, spec: StackSpec, name: str, *, back: bool) -> Effective:
    service = spec.services[name]
    if back:
        whole = {key: getattr(service.update, key) for key in _WHOLE_SETS}
        update = service.rollback.model_copy(update=whole)
        service = service.model_copy(update={"update": update})
    task = service.task.model_copy(
        update={"image_digest": release.images.get(name, service.task.image_digest)}
    )
    return Effective(
        stack=release.stack,
        release=release.number,
        service=service,
        spec=spec.seen_by(name),
        task=task,
        hash=_hash(release, spec, name, task),
        client=release.client,
        lends=_lends(spec, name),
    )


def _lends(spec: StackSpec, name: str) -> tuple[str, ...]:
    """Return the services that share a service's namespaces, directly or not."""
    found: list[str] = []
    for other in sorted(spec.services):
        seen, at = {other}, other
        while (at := spec.services[at].task.partner) in spec.services and at not in seen:
            if at == name:
                found.append(other)
            seen.add(at)
    return tuple(found)


def _hash(release: Release, spec: StackSpec, name: str, task: TaskSpec) -> str:
    if name in spec.carried:
        return spec.carried[name].hash
    service = spec.services[name]
    networks = {
        a.network: [n.name, list(n.subnets)]
        for a in task.networks
        if (n := spec.networks.get(a.network)) is not None
    }
    volumes = {
        m.source: [v.name, v.per_slot, *([v.options] if v.options else ())]
        for m in task.mounts
        if m.type == "volume"
        and m.source is not None
        and (v := spec.volumes.get(m.source)) is not None
    }
    # Compose restarts what depends on a recreated service with ``restart: true``.
    restarted = {
        other: _hash(
            release,
            spec,
            other,
            spec.services[other].task.model_copy(
                update={"image_digest": release.images.get(other, "")}
            ),
        )
        for other, edge in service.depends_on.items()
        if edge.restart and other in spec.services
    }
    return content_hash(
        {
            "task": task.model_dump(mode="json", exclude_defaults=True),
            "networks": networks,
            "volumes": volumes,
            "name": service.container_name,
            "recreate": release.recreates.get(name, release.recreate),
            "restarted": restarted,
        }
    )
