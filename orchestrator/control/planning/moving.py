"""What a volume's move does next, and who must stop for it. Decides; ``deploy/moving.py`` acts.

A move's record is the volume's: ``copying`` beside what runs, ``closing`` from the moment the
tasks that have it are stopped until both copies are the same, ``undoing`` what it made on the
target. The home changes in the one commit that ends it; before that it is the source, after it
the target, and nothing is placed in between. So a controller that is killed anywhere goes on from
the record, and what was placed nowhere goes where the home is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from orchestrator.control.mirror.effective import of_oneoff
from orchestrator.control.mirror.node_view import availability
from orchestrator.control.mirror.records import VOLUMES, Volume, VolumeMove
from orchestrator.control.planning import releases, stopping
from orchestrator.control.planning.placement import needs
from orchestrator.control.planning.room import fleet
from orchestrator.errors import Conflict, Invalid, NotFound, Unavailable
from orchestrator.store import keys
from scheduler.place import place
from scheduler.view import Fleet
from specs import shares
from specs.kit.amounts import some
from specs.states import FINAL, HEARD, Desired

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.effective import Effective, Specs
    from orchestrator.control.planning.passes import Pass
    from specs.node import Node
    from specs.objects import MoveVolume
    from specs.task import Task

LIST = "corral volume ls shows what there is"


@dataclass(frozen=True, slots=True)
class MoveFacts:
    """What a move's next step depends on. ``members``: ids of the cluster's nodes."""

    volume: Volume
    members: Collection[str]
    users: tuple[str, ...] = ()  # tasks on nodes that have the volume and have not ended, by name
    oneoffs: tuple[str, ...] = ()  # likewise
    deploying: tuple[str, ...] = ()  # stacks that mean it whose release is under way
    removing: bool = False  # the volume is to go
    shut: str = ""  # why the target takes nothing new: drain or pause, as somebody asked


@dataclass(frozen=True, slots=True)
class MoveStep:
    """``why``: what is waited for, or why it is taken back."""

    does: Literal[
        "nothing", "copy", "wait", "close", "switch", "fail", "undo", "settle", "aside", "forget"
    ]
    why: str = ""


def decide(facts: MoveFacts, *, copied: bool) -> MoveStep:
    """Return the next step. ``copied``: all but what changes while it is copied is there (pure)."""
    move = facts.volume.move
    if move is None:
        return _afterwards(facts)
    if move.phase == "undoing":
        return MoveStep("undo" if move.to in facts.members else "settle")
    if broken := _broken(facts, move):
        return MoveStep("fail", broken)
    if move.phase == "closing":
        return (
            MoveStep("wait", f"stops {some(facts.users, 3)}") if facts.users else MoveStep("switch")
        )
    if not copied and not move.back:
        return MoveStep("copy")
    awaited = _awaited(facts)
    return MoveStep("wait", awaited) if awaited else MoveStep("close")


def _broken(facts: MoveFacts, move: VolumeMove) -> str:
    """Return why a move cannot go on, or ""."""
    if facts.removing:
        return "the volume is being removed"
    if move.to not in facts.members:
        return "the node it was to go to left the cluster"
    if facts.shut:
        return f"{move.called} takes nothing new any more ({facts.shut})"
    return "" if facts.volume.node in facts.members else "the node it is on left the cluster"


def _awaited(facts: MoveFacts) -> str:
    """Return what must end before anything is stopped for a move, or ""."""
    if facts.oneoffs:
        return f"waits for the end of {some(facts.oneoffs, 3)}"
    if facts.deploying:
        return f"waits until {some(facts.deploying, 3)} is deployed"
    return ""


def _afterwards(facts: MoveFacts) -> MoveStep:
    kept = facts.volume.kept
    if kept is None:
        return MoveStep("nothing")
    if kept.node not in facts.members:
        return MoveStep("settle")
    if kept.going or facts.removing:
        return MoveStep("forget")
    return MoveStep("nothing" if kept.aside else "aside")


# who has a volume


def mounted(specs: Specs, cluster: Cluster, task: Task) -> set[str]:
    """Return the names of the volumes a task has, or is to have."""
    effective = specs.of(task.stack, task.release, task.service)
    if effective is None:
        return set()
    return _named(effective, cluster, task)


def _named(effective: Effective, cluster: Cluster, task: Task) -> set[str]:
    node = cluster.nodes.get(task.node or "")
    return set(effective.volume_names(effective.task, task.slot, node).values())


def closing(volumes: Mapping[str, Volume]) -> set[str]:
    """Return the volumes that nobody may have now."""
    return {n for n, v in volumes.items() if v.move is not None and v.move.phase == "closing"}


def stop_users(pass_: Pass, stacks: Iterable[str]) -> None:
    """Stop what has a volume whose copies are being made the same."""
    if not (closed := closing(pass_.cluster.volumes)):
        return
    for stack in stacks:
        for task in list(pass_.draft.tasks(stack).values()):
            if task.node is None or task.state in FINAL or task.desired is Desired.REMOVED:
                continue
            if closed & mounted(pass_.specs, pass_.cluster, task):
                stopping.begin(pass_, task)


# what people ask


def ask(pass_: Pass, name: str, request: MoveVolume) -> None:
    """Write what is asked of a volume's move. Raises NotFound, Conflict, Invalid, Unavailable."""
    volume = pass_.cluster.volumes.get(name)
    if volume is None:
        raise NotFound(f"there is no volume {name}", hint=LIST)
    move, kept = volume.move, volume.kept
    match request.act:
        case "cancel":
            if move is None:
                raise Conflict(f"volume {name} is not being moved", hint=LIST)
            if move.back:
                raise Conflict(f"volume {name} is going back already", hint=LIST)
            if move.phase != "undoing":
                _put(pass_, volume, undone(volume, "somebody asked for it"))
        case "confirm":
            if kept is None:
                raise Conflict(f"no move left anything of volume {name} behind", hint=LIST)
            gone = volume.model_copy(update={"kept": kept.model_copy(update={"going": True})})
            _put(pass_, volume, gone)
        case "back":
            if kept is None or kept.going:
                raise Conflict(f"no move left anything of volume {name} behind", hint=LIST)
            _begin(pass_, volume, _node(pass_, kept.node), back=True)
        case "move":
            _begin(pass_, volume, _node(pass_, request.to), back=False)


def undone(volume: Volume, why: str) -> Volume:
    """Return the volume with its move taken back: its tasks go on where they were."""
    assert volume.move is not None
    move = volume.move.model_copy(update={"phase": "undoing", "reason": why})
    return volume.model_copy(update={"move": move})


def _put(pass_: Pass, before: Volume, after: Volume) -> None:
    if before != after:
        pass_.draft.put(VOLUMES, after)


def _node(pass_: Pass, text: str) -> Node:
    for node in pass_.cluster.nodes.values():
        if text in (node.id, node.name):
            return node
    raise NotFound(f"there is no node {text or '(none named)'}", hint="corral node ls")


def _begin(pass_: Pass, volume: Volume, to: Node, *, back: bool) -> None:
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
    _check_target(pass_, volume, to, back=back)
    move = VolumeMove(
        id=pass_.new_id("m"), to=to.id, called=to.name, back=back, begun_at=pass_.wall
    )
    pass_.draft.put(VOLUMES, volume.model_copy(update={"move": move, "moved": ""}))


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
    if pass_.node_status(home.id) not in HEARD:
        raise Unavailable(f"{home.name}, which has volume {name}, does not answer", hint=LIST)


def _check_target(pass_: Pass, volume: Volume, to: Node, *, back: bool) -> None:
    """Refuse a node where the volume, or what uses it, cannot be."""
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
    wants = []
    names = {}
    for task in pass_.cluster.tasks.values():
        if not task.live or name not in mounted(pass_.specs, pass_.cluster, task):
            continue
        effective = pass_.specs.of(task.stack, task.release, task.service)
        assert effective is not None
        pending = needs(pass_, task, effective)
        homes = tuple(home for home in pending.homes if home.key != f"volume {name}")
        wants.append(replace(pending, homes=homes, max_per_node=0, node=None))
        names[task.id] = task
    view = fleet(pass_)
    only = Fleet({to.id: view.nodes[to.id]}) if to.id in view.nodes else Fleet({})
    refused = place(only, wants, seed=0).refused
    for task_id, why in refused.items():
        task = names[task_id]
        raise Conflict(
            f"{task.name} uses volume {name} and could not run on {to.name}: {why}",
            hint=f"change that in the file of {task.stack} and corral up, or choose another node",
        )


def begin_closing(pass_: Pass, name: str, move_id: str) -> None:
    """Have the tasks stop, if the move is still under way."""
    _phase(pass_, name, move_id, "closing")


def take_back(pass_: Pass, name: str, move_id: str, why: str) -> None:
    """Give a move up, if it is still under way."""
    volume = _current(pass_, name, move_id)
    if volume is not None and volume.move is not None and volume.move.phase != "undoing":
        pass_.draft.put(VOLUMES, undone(volume, why))
        text = f"volume {name} is not moved to {volume.move.called}: {why}"
        pass_.notes.append(("volume.move-failed", volume.stack, text))


def switch(pass_: Pass, name: str, move_id: str) -> None:
    """Make the target the volume's home: the one moment at which it changes."""
    volume = _current(pass_, name, move_id)
    if volume is None or volume.move is None or volume.move.phase != "closing":
        return
    move = volume.move
    target = pass_.cluster.nodes.get(move.to)
    if target is None:
        return
    pass_.draft.put(VOLUMES, volume.switched(target.id, target.name, pass_.wall))
    text = f"volume {name} is at home on {target.name} now; {volume.home} keeps what it had"
    pass_.notes.append(("volume.moved", volume.stack, text))


def settle(pass_: Pass, name: str, *, aside: bool = False) -> None:
    """Write that what was left of a move is as it should be, or gone."""
    volume = pass_.draft.get(keys.volume(name), pass_.cluster.volumes.get(name))
    if volume is None:
        return
    if volume.move is not None:
        if volume.move.phase == "undoing":
            words = f"not moved to {volume.move.called}: {volume.move.reason}"
            pass_.draft.put(VOLUMES, volume.model_copy(update={"move": None, "moved": words}))
    elif volume.kept is not None:
        kept = volume.kept.model_copy(update={"aside": True}) if aside else None
        pass_.draft.put(VOLUMES, volume.model_copy(update={"kept": kept}))


def _phase(pass_: Pass, name: str, move_id: str, phase: str) -> None:
    volume = _current(pass_, name, move_id)
    if volume is not None and volume.move is not None and volume.move.phase == "copying":
        move = volume.move.model_copy(update={"phase": phase})
        pass_.draft.put(VOLUMES, volume.model_copy(update={"move": move}))


def _current(pass_: Pass, name: str, move_id: str) -> Volume | None:
    volume: Volume | None = pass_.draft.get(keys.volume(name), pass_.cluster.volumes.get(name))
    if volume is None or volume.move is None or volume.move.id != move_id:
        return None
    return volume


def at_rest(cluster: Cluster, volume: Volume) -> bool:
    """Say whether nothing has to be done of a volume's moves; quickly, for every pass asks."""
    kept = volume.kept
    if volume.move is not None or kept is None:
        return volume.move is None
    return kept.aside and not kept.going and kept.node in cluster.nodes


def facts(cluster: Cluster, specs: Specs, volume: Volume, *, removing: bool) -> MoveFacts:
    """Return what is the case, by the records there are."""
    mine = [t for t in cluster.tasks.values() if volume.name in mounted(specs, cluster, t)]
    users = [t.name for t in mine if t.node in cluster.nodes and t.state not in FINAL]
    oneoffs = [
        one.task.name
        for one in cluster.oneoffs.values()
        if not one.over
        and one.task.node is not None
        and volume.name in _named(of_oneoff(one), cluster, one.task)
    ]
    meant = {task.stack for task in mine}
    target = cluster.nodes.get(volume.move.to) if volume.move is not None else None
    takes = availability(target) if target is not None else "active"
    return MoveFacts(
        volume=volume,
        shut="" if takes == "active" else takes,
        members=cluster.nodes.keys(),
        users=tuple(sorted(users)),
        oneoffs=tuple(sorted(oneoffs)),
        deploying=tuple(sorted(stack for stack in meant if releases.deploys(cluster, stack))),
        removing=removing or volume.removing,
    )
