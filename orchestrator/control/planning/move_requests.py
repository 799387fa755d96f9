"""What people ask of volumes' moves: written into the records, or refused with the rule.

All of what is named moves as one, or nothing is begun. ``moving.py`` says how it goes on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import availability
from orchestrator.control.mirror.records import VOLUMES, KeptCopy, Volume, VolumeMove
from orchestrator.control.mirror.released import spec_in_force
from orchestrator.control.planning import moving
from orchestrator.control.planning.placement import needs
from orchestrator.control.planning.room import fleet
from orchestrator.errors import Conflict, Invalid, NotFound, Unavailable
from scheduler.place import place
from scheduler.view import Fleet
from specs import shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from scheduler.view import Pending
    from specs.node import Node
    from specs.objects import MoveVolume
    from specs.task import Task

LIST = "corral volume ls shows what there is"


def ask(pass_: Pass, name: str, request: MoveVolume) -> None:
    """Write what is asked of a volume's move. Raises NotFound, Conflict, Invalid, Unavailable."""
    names = tuple(dict.fromkeys((name, *request.along)))
    volumes = [_known(pass_, one) for one in names]
    if request.act == "move":
        _begin(pass_, volumes, _node(pass_, request.to), back=False)
        return
    done: set[str] = set()
    for volume in volumes:
        if volume.name in done:
            continue
        match request.act:
            case "cancel":
                done |= _cancel(pass_, volume)
            case "confirm":
                done |= _confirm(pass_, volume)
            case "back":
                done |= _back(pass_, volume)


def _known(pass_: Pass, name: str) -> Volume:
    volume = pass_.cluster.volumes.get(name)
    if volume is None:
        raise NotFound(f"there is no volume {name}", hint=LIST)
    return volume


def _cancel(pass_: Pass, volume: Volume) -> set[str]:
    move = volume.move
    if move is None:
        raise Conflict(f"volume {volume.name} is not being moved", hint=LIST)
    if move.back and move.phase != "copying":
        raise Conflict(f"volume {volume.name} is going back already", hint=LIST)
    moving.undo(pass_, volume, "somebody asked for it")
    return {volume.name, *move.along}


def _confirm(pass_: Pass, volume: Volume) -> set[str]:
    kept = _kept(volume)
    group = [volume, *_left_with(pass_, volume, kept)]
    for one in group:
        assert one.kept is not None
        update = {"kept": one.kept.model_copy(update={"going": True})}
        _put(pass_, one, one.model_copy(update=update))
    return {one.name for one in group}


def _back(pass_: Pass, volume: Volume) -> set[str]:
    kept = _kept(volume)
    if kept.going:
        raise Conflict(f"no move left anything of volume {volume.name} behind", hint=LIST)
    group = [volume, *_left_with(pass_, volume, kept)]
    _begin(pass_, group, _node(pass_, kept.node), back=True)
    return {one.name for one in group}


def _kept(volume: Volume) -> KeptCopy:
    if volume.kept is None:
        raise Conflict(f"no move left anything of volume {volume.name} behind", hint=LIST)
    return volume.kept


def _left_with(pass_: Pass, volume: Volume, kept: KeptCopy) -> list[Volume]:
    """Return the volumes that moved with one and of which the former node keeps a copy, too."""
    found = (pass_.cluster.volumes.get(name) for name in kept.along)
    return [
        other
        for other in found
        if other is not None and other.kept is not None and volume.name in other.kept.along
        if other.kept.node == kept.node and other.kept.going == kept.going
    ]


def _put(pass_: Pass, before: Volume, after: Volume) -> None:
    if before != after:
        pass_.draft.put(VOLUMES, after)


def _node(pass_: Pass, text: str) -> Node:
    for node in pass_.cluster.nodes.values():
        if text in (node.id, node.name):
            return node
    raise NotFound(f"there is no node {text or '(none named)'}", hint="corral node ls")


def _begin(pass_: Pass, volumes: Sequence[Volume], to: Node, *, back: bool) -> None:
    for volume in volumes:
        _check_free(pass_, volume, to, back=back)
    names = tuple(volume.name for volume in volumes)
    for volume in volumes:
        _check_target(pass_, volume, to, names, back=back)
    made = VolumeMove(
        id=pass_.new_id("m"), to=to.id, called=to.name, back=back, begun_at=pass_.wall
    )
    for volume in volumes:
        along = tuple(name for name in names if name != volume.name)
        move = made.model_copy(update={"along": along})
        pass_.draft.put(VOLUMES, volume.model_copy(update={"move": move, "moved": ""}))


def _check_free(pass_: Pass, volume: Volume, to: Node, *, back: bool) -> None:
    name = volume.name
    _check_movable(pass_, volume)
    if volume.move is not None:
        raise Conflict(
            f"volume {name} is being moved already",
            hint=f"corral volume move --cancel {name} takes that back",
        )
    if volume.kept is not None and not back:
        raise Conflict(
            f"{volume.kept.home} still keeps what volume {name} was before its last move",
            hint=f"corral volume move --confirm {name} removes that, --back {name} goes back to it",
        )
    if to.id == volume.node:
        raise Conflict(f"volume {name} is on {to.name} already", hint=LIST)


def _check_movable(pass_: Pass, volume: Volume) -> None:
    name = volume.name
    if volume.removing:
        raise Conflict(f"volume {name} is being removed", hint=LIST)
    if volume.everywhere:
        raise Invalid(
            detail=f"volume {name} is of a global service: each node has its own",
            hint=f"corral volume backup --node NODE {name}, and restore, carry the data over",
        )
    if volume.options:
        if shares.is_shared(volume.options):
            raise Invalid(
                detail=f"volume {name} is the same on every node: there is nothing to move",
                hint="its service moves by itself, or as placement.constraints say",
            )
        raise Invalid(
            detail=f"the data of volume {name} is not corral's: driver_opts say where it is",
            hint=f"corral volume inspect {name}; copy it, and name the other place in the file",
        )
    if not volume.node:
        raise Conflict(
            f"volume {name} holds nothing yet: no container has used it",
            hint=f"corral volume create --node NODE {name} says where it is to be",
        )
    home = pass_.cluster.nodes.get(volume.node)
    if home is None:
        raise Unavailable(
            f"volume {name} is on {volume.home or volume.node}, which left the cluster",
            hint=f"corral volume restore {name} FILE --node NODE",
        )
    if moving.silent(pass_.cluster, home.id):
        raise Unavailable(f"{home.name}, which has volume {name}, does not answer", hint=LIST)


def _check_target(
    pass_: Pass, volume: Volume, to: Node, names: Sequence[str], *, back: bool
) -> None:
    """Refuse a node where the volume, or what uses it, cannot be. ``names``: what goes there."""
    name, status = volume.name, pass_.node_status(to.id)
    takes = availability(to)
    if status != "ready" or takes != "active":
        how = takes if status == "ready" else status
        raise Conflict(f"{to.name} takes nothing now: it is {how}", hint="corral node ls")
    if not back and name in pass_.observed.volumes.get(to.id, ()):
        raise Conflict(
            f"{to.name} has a volume of that name already, and nobody knows what is in it",
            hint=f"look into /var/lib/corral/agent/volumes/{name} there, and remove it",
        )
    going = {f"volume {one}" for one in names}
    wants = []
    tasks = {}
    for task in pass_.cluster.tasks.values():
        if not task.live or name not in moving.mounted(pass_.specs, pass_.cluster, task):
            continue
        effective = pass_.specs.of(task.stack, task.release, task.service)
        assert effective is not None
        pending = needs(pass_, task, effective)
        homes = tuple(home for home in pending.homes if home.key not in going)
        asked = _asked(pass_, task, effective)
        wants.append(replace(pending, constraints=asked, homes=homes, max_per_node=0, node=None))
        tasks[task.id] = task
    view = fleet(pass_)
    only = Fleet({to.id: view.nodes[to.id]}) if to.id in view.nodes else Fleet({})
    refused = place(only, wants, seed=0).refused
    for pending in wants:
        if (why := refused.get(pending.task)) is None:
            continue
        task = tasks[pending.task]
        raise Conflict(
            f"{task.name} uses volume {name} and could not run on {to.name}: {why}",
            hint=_what_helps(pass_, task, pending, to, names),
        )


def _asked(pass_: Pass, task: Task, effective: Effective) -> tuple[str, ...]:
    """Return the constraints of a task's service by what was asked for last, if it failed or not.

    A file that names the target is what people write before they move what keeps a task away
    from it: that `up` cannot do it alone.
    """
    stack = pass_.cluster.stacks.get(task.stack)
    spec = spec_in_force(pass_.cluster, stack)
    service = spec.services.get(task.service) if spec is not None else None
    return (service or effective.service).placement.constraints


def _what_helps(pass_: Pass, task: Task, pending: Pending, to: Node, names: Sequence[str]) -> str:
    """Return what to do for a task that could not run where a volume of it is to go."""
    volumes = pass_.cluster.volumes
    held = {home.key.removeprefix("volume ") for home in pending.homes if home.node != to.id}
    if others := sorted(name for name in held if name in volumes):
        both = " ".join((*names, *others))
        return f"what it has moves as one: corral volume move {both} --to {to.name}"
    return f"change that in the file of {task.stack} and corral up, or choose another node"
