"""Which stacks mean which networks, volumes, secrets and configs. Pure: mirror in, names out.

A stack means what its newest release, the one that runs, its tasks and its one-offs name. One
that is being removed means nothing any more: what its last tasks have goes with them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.control.mirror.network_names import network_behind
from orchestrator.control.mirror.node_view import node_words
from orchestrator.control.mirror.released import spec_at
from specs.states import ReleaseState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.control.mirror.cluster import Cluster
    from specs.stack import StackSpec, VolumeSpec

Stacks = dict[str, set[str]]


def _by_key() -> Stacks:
    return defaultdict(set)


@dataclass
class Users:
    """The stacks by a network's id, a volume's name, a version's id.

    ``mounts``: by a volume's name, STACK/SERVICE of those that have it mounted.
    """

    networks: Stacks = field(default_factory=_by_key)
    volumes: Stacks = field(default_factory=_by_key)
    contents: Stacks = field(default_factory=_by_key)
    mounts: Stacks = field(default_factory=_by_key)


def users(cluster: Cluster) -> Users:
    """Return who means what."""
    found = Users()
    for name, stack in cluster.stacks.items():
        if stack.desired == "removed":
            continue
        numbers = {stack.release, stack.running}
        numbers |= {task.release for task in cluster.by_stack.get(name, {}).values()}
        for number in numbers:
            spec = spec_at(cluster, name, number)
            if spec is not None:
                _note(found, cluster, spec)
    for one in cluster.oneoffs.values():
        owner = cluster.stacks.get(one.stack)
        if one.shown and (owner is None or owner.desired != "removed"):
            _note(found, cluster, one.spec)
    return found


def needing(cluster: Cluster, content: str) -> dict[str, list[int]]:
    """Return by stack the kept releases that ran well with a version of a secret or config.

    Those of stacks too that were taken down: `rollback N` brings them back.
    """
    found: dict[str, list[int]] = defaultdict(list)
    for (stack, number), release in sorted(cluster.releases.items()):
        spec = spec_at(cluster, stack, number)
        if spec is None or release.state is not ReleaseState.DEPLOYED:
            continue
        tasks = (service.task for service in spec.services.values())
        if any(r.content == content for t in tasks for r in (*t.secrets, *t.configs)):
            found[stack].append(number)
    return dict(found)


def _note(found: Users, cluster: Cluster, spec: StackSpec) -> None:
    for _, network in spec.all_networks():
        record = network_behind(cluster.networks.values(), spec.name, network)
        if record is not None:
            found.networks[record.id].add(spec.name)
    for volume in all_volumes(spec):
        for name in names_of(cluster, volume, spec.name):
            found.volumes[name].add(spec.name)
    for content in (*spec.secrets.values(), *spec.configs.values()):
        found.contents[content.content].add(spec.name)
    for service in spec.services.values():
        volumes = spec.seen_by(service.name).volumes
        for mount in service.task.mounts:
            if mount.type != "volume" or mount.source not in volumes:
                continue
            for name in names_of(cluster, volumes[mount.source], spec.name):
                found.mounts[name].add(f"{spec.name}/{service.name}")
        for ref in (*service.task.secrets, *service.task.configs):
            found.contents[ref.content].add(spec.name)


def all_volumes(spec: StackSpec) -> Iterator[VolumeSpec]:
    """Yield the stack's volumes, those too that only a carried service means."""
    yield from spec.volumes.values()
    for carried in spec.carried.values():
        yield from carried.volumes.values()


def names_of(cluster: Cluster, volume: VolumeSpec, stack: str) -> list[str]:
    """Return the real names behind a volume of a stack's file: one, or those of slots and nodes.

    Of what another stack made only those that a node there is would give: ``data-prod`` is not
    ``data-{{.Node.Hostname}}`` where no machine is called prod.
    """
    pattern = volume.names(stack)
    if pattern == re.escape(volume.name):
        return [volume.name]
    names = re.compile(pattern)
    found = [record for name, record in cluster.volumes.items() if names.fullmatch(name)]
    if not volume.per_node or all(record.stack == stack for record in found):
        return [record.name for record in found]
    there = [re.compile(volume.names(stack, node_words(n))) for n in cluster.nodes.values()]
    return [
        record.name
        for record in found
        if record.stack == stack or any(own.fullmatch(record.name) for own in there)
    ]
