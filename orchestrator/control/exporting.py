"""`corral state export`: what the state says, for people and their programs, without secrets. Pure.

Named field by field, never whole records with something taken out: passwords stand in
environments, commands, health checks, labels, build arguments and volume options, and the next
field that holds one is not known yet. Of an environment only the names are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.states import FINAL

if TYPE_CHECKING:
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.keys.identity import ClusterRecord
    from specs.node import Node
    from specs.stack import Mount, Port, ServiceSpec, StackSpec
    from specs.task import Task


def export(cluster: Cluster, identity: ClusterRecord, *, version: str) -> dict[str, Any]:
    """Return the state as JSON values, in a stable order; times are seconds since the epoch."""
    return {
        "corral": version,
        "cluster": {
            "id": identity.id,
            "epoch": identity.epoch,
            "ranges": list(identity.ranges),
            "created_at": identity.created_at,
            "revision": cluster.revision,
        },
        "nodes": [_node(node) for node in sorted(cluster.nodes.values(), key=lambda n: n.name)],
        "stacks": [_stack(cluster, name) for name in sorted(cluster.stacks)],
        "networks": [
            {
                "name": network.name,
                "id": network.id,
                "stack": network.stack,
                "pools": list(network.pools),
                "internal": network.internal,
                "encrypted": network.encrypted,
                "retired": network.retired,
            }
            for network in sorted(cluster.networks.values(), key=lambda n: n.name)
        ],
        "volumes": [
            {
                "name": volume.name,
                "stack": volume.stack,
                "node": _name(cluster, volume.node) or volume.home,
                "created_at": volume.created_at,
            }
            for volume in sorted(cluster.volumes.values(), key=lambda v: v.name)
        ],
        "contents": [
            {
                "name": content.name,
                "kind": "secret" if content.secret else "config",
                "stack": content.stack,
                "size": content.size,
                "created_at": content.created_at,
            }
            for content in sorted(cluster.contents.values(), key=lambda c: (c.name, c.created_at))
        ],
    }


def _name(cluster: Cluster, node: str | None) -> str:
    known = cluster.nodes.get(node or "")
    return known.name if known is not None else ""


def _node(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "id": node.id,
        "address": node.address,
        "host_key": node.host_key,
        "underlay": node.underlay,
        "overlay": node.overlay,
        "availability": node.availability,
        "labels": dict(sorted(node.labels.items())),
        "version": node.facts.agent_version,
        "kernel": node.facts.kernel,
        "runtime": node.facts.runtime,
        "cgroups": node.facts.cgroups,
        "joined_at": node.joined_at,
    }


def _stack(cluster: Cluster, name: str) -> dict[str, Any]:
    stack = cluster.stacks[name]
    releases = sorted(cluster.stack_releases[name].values(), key=lambda r: r.number)
    newest = cluster.stack_releases[name].get(stack.running or stack.release)
    spec = cluster.parts.get(newest.spec) if newest is not None else None
    tasks = sorted(cluster.by_stack[name].values(), key=lambda task: task.name)
    return {
        "name": name,
        "desired": stack.desired,
        "release": stack.release,
        "running": stack.running,
        "replicas": dict(stack.overrides),
        "releases": [
            {
                "number": release.number,
                "state": release.state.value,
                "created_at": release.created_at,
                "images": dict(release.images),
            }
            for release in releases
        ],
        "services": _services(spec),
        "tasks": [_task(cluster, task) for task in tasks if task.state not in FINAL],
    }


def _services(spec: StackSpec | None) -> list[dict[str, Any]]:
    if spec is None:
        return []
    return [_service(one) for one in sorted(spec.services.values(), key=lambda s: s.name)]


def _service(service: ServiceSpec) -> dict[str, Any]:
    task = service.task
    return {
        "name": service.name,
        "image": task.image,
        "digest": task.image_digest,
        "mode": service.mode,
        "replicas": service.replicas,
        "schedule": service.schedule.model_dump() if service.schedule is not None else None,
        "autoscale": service.autoscale.model_dump() if service.autoscale is not None else None,
        "depends_on": sorted(service.depends_on),
        "constraints": list(service.placement.constraints),
        "environment": sorted(task.environment),
        "secrets": sorted(ref.source for ref in task.secrets),
        "configs": sorted(ref.source for ref in task.configs),
        "networks": sorted(one.network for one in task.networks),
        "ports": [_port(port) for port in task.ports],
        "mounts": [_mount(mount) for mount in task.mounts],
    }


def _port(port: Port) -> dict[str, Any]:
    return {
        "target": port.target,
        "published": port.published,
        "protocol": port.protocol,
        "host_ip": port.host_ip,
        "mode": port.mode,
    }


def _mount(mount: Mount) -> dict[str, Any]:
    return {"type": mount.type, "source": mount.source, "target": mount.target}


def _task(cluster: Cluster, task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "id": task.id,
        "release": task.release,
        "node": _name(cluster, task.node),
        "desired": task.desired.value,
        "state": task.state.value,
        "addresses": {
            cluster.network_name(network): address for network, address in task.addresses.items()
        },
    }
