"""Archives of whole volumes, both ways: bytes between who asked and the volume's node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.api import archive
from orchestrator.api.objects import volume_row
from orchestrator.errors import Conflict, Invalid, NotFound, Unavailable
from specs import names
from specs.objects import CreateVolume, Restored

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from specs.node import Node
    from specs.objects import VolumeRow

LIST = "corral volume ls shows what there is"


async def read(parts: ApiParts, request: web.Request, _: None) -> web.StreamResponse:
    """Answer with all data of a volume, as an archive."""
    name = _name(request)
    row = volume_row(parts, name)
    if row is None:
        raise NotFound(f"there is no volume {name}", hint=LIST)
    node = _node(parts, row, request.query.get("node", ""))
    return await archive.answer(request, parts.agents.read_volume(node.id, name), f"volume {name}")


async def write(parts: ApiParts, request: web.Request, _: None) -> Restored:
    """Make an archive the data of a volume, which is made where there is none."""
    name = _name(request)
    row, asked = volume_row(parts, name), request.query.get("node", "")
    if row is None:
        node = _free(parts, asked)
    elif row.removing:
        raise Conflict(f"volume {name} is being removed", hint="corral volume ls says why still")
    elif row.move is not None:
        raise Conflict(
            f"volume {name} is being moved to {row.move.to}",
            hint=f"corral volume move --cancel {name} takes that back",
        )
    elif row.reason or not (row.node or row.everywhere):  # its home left, or it never had one
        _own(row)
        node = _heir(parts, row, asked) if row.reason else _free(parts, asked)
    else:
        node = _node(parts, row, asked)
    query = {key: request.query[key] for key in ("replace", "size") if key in request.query}
    sent = archive.sent(request)
    await parts.agents.write_volume(node.id, name, query, sent)
    if row is None or not row.everywhere:
        await parts.control.make(CreateVolume(name=name, node=node.id))
    return Restored(volume=name, node=node.name)


def _name(request: web.Request) -> str:
    """Return the volume's name, which becomes part of an agent's path. Raises Invalid."""
    name = request.match_info["name"]
    if fault := names.NAME.fault(name):
        raise Invalid(detail=f"volume {name!r}: {fault}", hint=names.NAME.hint)
    return name


def _own(row: VolumeRow) -> None:
    if row.options:
        raise Invalid(
            detail=f"the data of volume {row.name} is not corral's: driver_opts say where it is",
            hint=f"corral volume inspect {row.name}",
        )


def _node(parts: ApiParts, row: VolumeRow, asked: str) -> Node:
    """Return the node that has the volume's data."""
    _own(row)
    if row.everywhere:
        if not asked:
            raise Invalid(
                detail=f"volume {row.name} is of a global service: each node has its own",
                hint="--node NODE says which is meant",
            )
        return parts.nodes.find(asked)
    if row.reason:
        raise Unavailable(f"volume {row.name}: {row.reason}")
    if not row.node:
        raise Conflict(f"volume {row.name} holds nothing yet: no container has used it", hint=LIST)
    home = parts.nodes.find(row.node)
    if asked and parts.nodes.find(asked).id != home.id:
        raise Conflict(
            f"volume {row.name} is on {home.name}, not on {asked}",
            hint="its data would be in two places: leave --node out",
        )
    return home


def _free(parts: ApiParts, asked: str) -> Node:
    """Return the node for data that has none yet."""
    nodes = list(parts.cluster.nodes.values())
    if asked:
        return parts.nodes.find(asked)
    if len(nodes) != 1:
        raise Invalid(
            detail="no node has a volume of that name: which is to have it?", hint="--node NODE"
        )
    return nodes[0]


def _heir(parts: ApiParts, row: VolumeRow, asked: str) -> Node:
    """Return the node for the data of a volume whose home left: who replaced it, else as asked."""
    nodes = parts.cluster.nodes.values()
    record = parts.cluster.volumes.get(row.name)
    heirs = [node for node in nodes if record is not None and record.node in node.replaces]
    if not asked and len(heirs) == 1:
        return heirs[0]
    if not asked and len(nodes) != 1:
        raise Invalid(
            detail=f"which node is to have it? Of volume {row.name}: {row.reason}",
            hint="--node NODE",
        )
    return _free(parts, asked)
