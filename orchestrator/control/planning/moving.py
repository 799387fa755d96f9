"""What a volume's move does next, and who must stop for it. Decides; ``deploy/moving.py`` acts.

A move's record is the volume's: ``copying`` beside what runs, ``closing`` from the moment the
tasks that have it are stopped until both copies are the same, ``undoing`` what it made on the
target. The home changes in the one commit that ends it; before that it is the source, after it
the target, and nothing is placed in between. So a controller that is killed anywhere goes on from
the record, and what was placed nowhere goes where the home is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.control.mirror.effective import of_oneoff
from orchestrator.control.mirror.node_view import availability, node_status
from orchestrator.control.mirror.records import VOLUMES, Volume, VolumeMove
from orchestrator.control.planning import releases, stopping
from orchestrator.store import keys
from specs.kit.amounts import some
from specs.states import FINAL, HEARD, Desired

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.effective import Effective, Specs
    from orchestrator.control.planning.passes import Pass
    from specs.task import Task


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


# how far it is


def group_of(pass_: Pass, volume: Volume) -> list[Volume]:
    """Return the volumes of one move, as the draft has them."""
    move = volume.move
    assert move is not None
    found = (_current(pass_, name, move.id) for name in (volume.name, *move.along))
    return [one for one in found if one is not None]


def undo(pass_: Pass, volume: Volume, why: str) -> None:
    """Take a move back, of all volumes that go as one."""
    for one in group_of(pass_, volume):
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


def begin_closing(pass_: Pass, name: str, move_id: str) -> None:
    """Have the tasks stop, if the move is still under way."""
    if (volume := _current(pass_, name, move_id)) is None:
        return
    group = group_of(pass_, volume)
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
        undo(pass_, volume, why)
        text = f"volume {name} is not moved to {volume.move.called}: {why}"
        pass_.notes.append(("volume.move-failed", volume.stack, text))


def switch(pass_: Pass, name: str, move_id: str) -> None:
    """Make the target the home of all that goes as one: the one moment at which it changes."""
    volume = _current(pass_, name, move_id)
    if volume is None or volume.move is None:
        return
    group, target = group_of(pass_, volume), pass_.cluster.nodes.get(volume.move.to)
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
