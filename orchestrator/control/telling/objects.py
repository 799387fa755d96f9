"""Networks, volumes, secrets and configs as rows people read. Pure: mirror in, rows out."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import former
from orchestrator.control.mirror.users import users
from specs import shares
from specs.node import successor
from specs.objects import ContentRow, MoveRow, NetworkRow, VolumeRow
from specs.states import HEARD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.observed import MoveFigures
    from orchestrator.control.mirror.records import StoredContent, Volume


def network_rows(cluster: Cluster) -> tuple[NetworkRow, ...]:
    """Return the networks somebody wants; one that only rests is gone for people."""
    meant = users(cluster).networks
    rows = [
        NetworkRow(
            id=record.id,
            name=record.name,
            stack=record.stack,
            subnets=record.pools,
            internal=record.internal,
            attachable=record.attachable,
            mtu=record.mtu,
            labels=record.labels,
            created_at=record.created_at,
            used_by=tuple(sorted(meant.get(record.id, ()))),
            tasks={
                name: address
                for address, owner in cluster.by_network.get(record.id, {}).items()
                if (name := _task_name(cluster, owner))
            },
        )
        for record in cluster.networks.values()
        if not record.retired
    ]
    return tuple(sorted(rows, key=lambda row: (row.name, row.id)))


def volume_rows(
    cluster: Cluster, going: Mapping[str, MoveFigures] = MappingProxyType({})
) -> tuple[VolumeRow, ...]:
    """Return the volumes, those too that are on their way out; ``going``: how far moves are."""
    found = users(cluster)
    rows = [
        VolumeRow(
            name=record.name,
            node=_node_name(cluster, record),
            stack=record.stack,
            options=shares.shown(record.options),
            labels=record.labels,
            created_at=record.created_at,
            used_by=tuple(sorted(found.volumes.get(record.name, ()))),
            services=tuple(sorted(found.mounts.get(record.name, ()))),
            removing=record.removing,
            everywhere=record.everywhere,
            move=_move(record, going.get(record.name)),
            kept=_kept(cluster, record),
            moved=record.moved,
            along=_along(record),
            reason=_why_still(cluster, record) if record.removing else _lost(cluster, record),
        )
        for record in cluster.volumes.values()
    ]
    return tuple(sorted(rows, key=lambda row: row.name))


def content_rows(cluster: Cluster, *, secret: bool) -> tuple[ContentRow, ...]:
    """Return secrets or configs: those made by hand, and of each stack's those it means now."""
    meant = users(cluster).contents
    newest: dict[tuple[str, str], StoredContent] = {}
    for record in cluster.contents.values():
        key = (record.stack, record.name)
        known = newest.get(key)
        later = known is None or known.created_at <= record.created_at
        if record.secret == secret and (not record.stack or (meant.get(record.id) and later)):
            newest[key] = record
    rows = [
        ContentRow(
            id=record.id,
            name=record.name,
            stack=record.stack,
            size=record.size,
            labels=record.labels,
            created_at=record.created_at,
            used_by=tuple(sorted(meant.get(record.id, ()))),
        )
        for record in newest.values()
    ]
    return tuple(sorted(rows, key=lambda row: (row.name, row.stack)))


def _task_name(cluster: Cluster, task_id: str) -> str:
    if (task := cluster.tasks.get(task_id)) is not None:
        return task.name
    one = cluster.oneoffs.get(task_id)
    return one.task.name if one is not None else ""


def _node_name(cluster: Cluster, volume: Volume) -> str:
    node = cluster.nodes.get(volume.node)
    return node.name if node is not None else volume.home or volume.node


def _move(record: Volume, going: MoveFigures | None) -> MoveRow | None:
    if record.move is None:
        return None
    move = MoveRow(to=record.move.called, phase=record.move.phase, back=record.move.back)
    if going is None:
        return move
    figures = {"waits": going.waits, "sent": going.sent, "size": going.size}
    return move.model_copy(update=figures)


def _kept(cluster: Cluster, record: Volume) -> str:
    if record.kept is None or record.kept.going:
        return ""
    node = cluster.nodes.get(record.kept.node)
    return node.name if node is not None else record.kept.home


def _along(record: Volume) -> tuple[str, ...]:
    of = record.move or record.kept
    return of.along if of is not None else ()


def _lost(cluster: Cluster, volume: Volume) -> str:
    """Return why nothing can use a volume whose home left, and what would help; or ""."""
    if not volume.node or volume.node in cluster.nodes or volume.everywhere:
        return ""
    # Who took the home's place takes a backup, too: nobody need say where to.
    where = "" if successor(cluster.nodes.values(), volume.node) else "--node NODE "
    return (
        f"its data is on {former(cluster, volume.node, volume.home)}: corral volume restore "
        f"{where}{volume.name} FILE puts a backup of it in place, corral volume create "
        f"--node NODE {volume.name} begins with what NODE has of it, else empty"
    )


def _why_still(cluster: Cluster, record: Volume) -> str:
    node = cluster.nodes.get(record.node)
    condition = cluster.conditions.get(record.node)
    if node is None or (condition is not None and condition.status in HEARD):
        return "being removed"
    return (
        f"being removed: node {node.name} does not answer, its data goes when it does "
        f"(or with corral node rm -f {node.name})"
    )
