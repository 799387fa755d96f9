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
from orchestrator.control.mirror.node_view import availability, node_status
from orchestrator.control.mirror.records import VOLUMES, KeptCopy, Volume, VolumeMove
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
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.effective import Effective, Specs
    from orchestrator.control.planning.passes import Pass
    from scheduler.view import Pending
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
    copying: tuple[str, ...] = ()  # volumes that go with it and are not copied yet
    placing: tuple[str, ...] = ()  # likewise, that are not in their place there yet
    unheard: tuple[str, ...] = ()  # of its two nodes, those that do not answer, by name
    deploying: tuple[str, ...] = ()  # stacks that mean it whose release is under way
    removing: bool = False  # the volume is to go
    shut: str = ""  # why the target takes nothing new: drain or pause, as somebody asked


@dataclass(frozen=True, slots=True)
class MoveStep:
    """``why``: what is waited for, or why it is taken back."""

    does: Literal[
        "nothing",
        "copy",
        "wait",  # for somebody
        "await",  # for the volumes that go with it
        "close",
        "place",
        "switch",
        "fail",
        "undo",
        "settle",
        "aside",
        "forget",
    ]
    why: str = ""


def decide(facts: MoveFacts, *, copied: bool, placed: bool = False) -> MoveStep:
    """Return the next step (pure).

    ``copied``: all but what changes while it is copied is there. ``placed``: it is the same, and
    in its place there.
    """
    move = facts.volume.move
    if move is None:
        return _afterwards(facts)
    if move.phase == "undoing":
        somewhere = {move.to, facts.volume.node} if move.back else {move.to}
        return MoveStep("settle" if somewhere.isdisjoint(facts.members) else "undo")
    if broken := _broken(facts, move):
        return MoveStep("fail", broken)
    if move.phase == "closing":
        return _closing(facts, placed=placed)
    return _copying(facts, copied=copied or move.back)


def _copying(facts: MoveFacts, *, copied: bool) -> MoveStep:
    if not copied:
        return MoveStep("copy")
    if waits := _with_others(facts.copying, "is copied"):
        return waits
    awaited = _awaited(facts)
    return MoveStep("wait", awaited) if awaited else MoveStep("close")


def _closing(facts: MoveFacts, *, placed: bool) -> MoveStep:
    if facts.users:
        return MoveStep("wait", f"stops {some(facts.users, 3)}")
    if not placed:
        return MoveStep("place")
    return _with_others(facts.placing, "is there") or MoveStep("switch")


def _with_others(others: tuple[str, ...], what: str) -> MoveStep | None:
    return MoveStep("await", f"waits until {some(others, 3)} {what}") if others else None


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
    if facts.unheard:
        return f"waits until {some(facts.unheard, 3)} answers"
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
    return {n for n, v in volumes.items() if v.move is not None and v.move.holds}


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
    _undo(pass_, volume, "somebody asked for it")
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


def _group(pass_: Pass, volume: Volume) -> list[Volume]:
    """Return the volumes of one move, as the draft has them."""
    move = volume.move
    assert move is not None
    found = (_current(pass_, name, move.id) for name in (volume.name, *move.along))
    return [one for one in found if one is not None]


def _undo(pass_: Pass, volume: Volume, why: str) -> None:
    """Take a move back, of all volumes that go as one."""
    for one in _group(pass_, volume):
        if one.move is not None and one.move.phase != "undoing":
            pass_.draft.put(
                VOLUMES, undone(one, why if one.name == volume.name else _others(volume, why))
            )


def _others(volume: Volume, why: str) -> str:
    return f"{volume.name}, which goes with it: {why}"


def undone(volume: Volume, why: str) -> Volume:
    """Return the volume with its move taken back: its tasks go on where they were."""
    assert volume.move is not None
    move = volume.move.model_copy(update={"phase": "undoing", "reason": why})
    after = volume.model_copy(update={"move": move})
    # On a way back nothing is copied: before the tasks are stopped there is nothing to undo.
    return after.not_moved() if move.back and volume.move.phase == "copying" else after


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
    if pass_.node_status(home.id) not in HEARD:
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
        if not task.live or name not in mounted(pass_.specs, pass_.cluster, task):
            continue
        effective = pass_.specs.of(task.stack, task.release, task.service)
        assert effective is not None
        pending = needs(pass_, task, effective)
        homes = tuple(home for home in pending.homes if home.key not in going)
        wants.append(replace(pending, homes=homes, max_per_node=0, node=None))
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


def _what_helps(pass_: Pass, task: Task, pending: Pending, to: Node, names: Sequence[str]) -> str:
    """Return what to do for a task that could not run where a volume of it is to go."""
    volumes = pass_.cluster.volumes
    held = {home.key.removeprefix("volume ") for home in pending.homes if home.node != to.id}
    if others := sorted(name for name in held if name in volumes):
        both = " ".join((*names, *others))
        return f"what it has moves as one: corral volume move {both} --to {to.name}"
    return f"change that in the file of {task.stack} and corral up, or choose another node"


def begin_closing(pass_: Pass, name: str, move_id: str) -> None:
    """Have the tasks stop, if the move is still under way."""
    if (volume := _current(pass_, name, move_id)) is None:
        return
    group = _group(pass_, volume)
    if not all(one.move is not None and one.move.phase == "copying" for one in group):
        return
    for one in group:
        assert one.move is not None
        move = one.move.model_copy(update={"phase": "closing"})
        pass_.draft.put(VOLUMES, one.model_copy(update={"move": move}))


def take_back(pass_: Pass, name: str, move_id: str, why: str) -> None:
    """Give a move up, if it is still under way."""
    volume = _current(pass_, name, move_id)
    if volume is not None and volume.move is not None and volume.move.phase != "undoing":
        _undo(pass_, volume, why)
        text = f"volume {name} is not moved to {volume.move.called}: {why}"
        pass_.notes.append(("volume.move-failed", volume.stack, text))


def switch(pass_: Pass, name: str, move_id: str) -> None:
    """Make the target the home of all that goes as one: the one moment at which it changes."""
    volume = _current(pass_, name, move_id)
    if volume is None or volume.move is None:
        return
    group, target = _group(pass_, volume), pass_.cluster.nodes.get(volume.move.to)
    whole = len(group) == 1 + len(volume.move.along)
    closed = all(one.move is not None and one.move.phase == "closing" for one in group)
    if target is None or not whole or not closed:
        return
    for one in group:
        pass_.draft.put(VOLUMES, one.switched(target.id, target.name, pass_.wall))
        text = f"volume {one.name} is at home on {target.name} now; {one.home} keeps what it had"
        pass_.notes.append(("volume.moved", one.stack, text))


def settle(pass_: Pass, name: str, *, aside: bool = False) -> None:
    """Write that what was left of a move is as it should be, or gone."""
    volume = pass_.draft.get(keys.volume(name), pass_.cluster.volumes.get(name))
    if volume is None:
        return
    if volume.move is not None:
        if volume.move.phase == "undoing":
            pass_.draft.put(VOLUMES, volume.not_moved())
    elif volume.kept is not None:
        kept = volume.kept.model_copy(update={"aside": True}) if aside else None
        pass_.draft.put(VOLUMES, volume.model_copy(update={"kept": kept}))


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


def silent(cluster: Cluster, node: str) -> bool:
    """Say whether a node is not heard of now."""
    return node_status(cluster, node) not in HEARD


def facts(
    cluster: Cluster,
    specs: Specs,
    volume: Volume,
    *,
    removing: bool,
    copying: tuple[str, ...] = (),
    placing: tuple[str, ...] = (),
) -> MoveFacts:
    """Return what is the case, by the records there are."""
    names = {volume.name, *(volume.move.along if volume.move is not None else ())}
    mine = [t for t in cluster.tasks.values() if names & mounted(specs, cluster, t)]
    users = [t.name for t in mine if t.node in cluster.nodes and t.state not in FINAL]
    oneoffs = [
        one.task.name
        for one in cluster.oneoffs.values()
        if not one.over
        and one.task.node is not None
        and names & _named(of_oneoff(one), cluster, one.task)
    ]
    meant = {task.stack for task in mine}
    two = {volume.node, volume.move.to} if volume.move is not None else ()
    unheard = [cluster.nodes[n].name for n in two if n in cluster.nodes and silent(cluster, n)]
    target = cluster.nodes.get(volume.move.to) if volume.move is not None else None
    takes = availability(target) if target is not None else "active"
    return MoveFacts(
        volume=volume,
        shut="" if takes == "active" else takes,
        members=cluster.nodes.keys(),
        users=tuple(sorted(users)),
        oneoffs=tuple(sorted(oneoffs)),
        copying=copying,
        placing=placing,
        unheard=tuple(sorted(unheard)),
        deploying=tuple(sorted(stack for stack in meant if releases.deploys(cluster, stack))),
        removing=removing or volume.removing,
    )
