"""What a node should hold by the newest instructions, and whose instructions it takes (pure).

``agent/tasks/journal.py`` makes it durable, ``agent/tasks/worker.py`` acts upon it. The rules are
those of ``specs.wire``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from specs.wire import KINDS, Instructions, LeaveCluster, NodeSelf, Objects, Refused, Stamp


@dataclass(frozen=True)
class Held:
    """What the node should hold, by the newest instructions."""

    stamp: Stamp | None = None
    me: NodeSelf | None = None
    objects: Objects = field(default_factory=Objects)
    doubt: str = ""  # why it may not be what was acknowledged; a full set ends it
    unread: dict[str, tuple[str, ...]] = field(default_factory=dict)  # task -> unknown fields
    revision: int = 0  # of the controller's store, when it was taken from it


def judge(seen: Stamp | None, instructions: Instructions) -> Refused | None:  # noqa: PLR0911 - a table of rules
    """Return why instructions are not taken, by the rules of ``specs.wire``; None = take them."""
    stamp, base = instructions.stamp, instructions.base
    if seen is None:
        return (
            None if base is None else Refused(reason="base", message="this node holds nothing yet")
        )
    if stamp.cluster != seen.cluster:
        return Refused(
            reason="cluster",
            message=f"this node belongs to cluster {seen.cluster}, not {stamp.cluster}",
            seen=seen,
        )
    if stamp.epoch < seen.epoch:
        return Refused(
            reason="epoch",
            message=f"a newer controller has spoken: epoch {seen.epoch}, yours is {stamp.epoch}",
            seen=seen,
        )
    if stamp.epoch > seen.epoch:
        if base is None:
            return None
        return Refused(reason="base", message="a new epoch begins with the full set", seen=seen)
    if stamp.generation < seen.generation:
        return Refused(
            reason="base",
            message=f"generation {stamp.generation} is older than {seen.generation}",
            seen=seen,
        )
    if base is not None and seen.generation not in (base, stamp.generation):
        return Refused(
            reason="base",
            message=f"this node holds generation {seen.generation}, not {base}",
            seen=seen,
        )
    return None


def judge_leave(held: Held, asked: LeaveCluster) -> Refused | None:
    """Return why the node does not leave its cluster; None = it does."""
    seen = held.stamp
    if seen is None:
        return None
    why = judge(seen, Instructions(stamp=asked.stamp, me=NodeSelf(node=asked.node, name="")))
    if why is None and held.me is not None and held.me.node != asked.node:
        message = f"this machine is node {held.me.node} by now, not {asked.node}"
        return Refused(reason="base", message=message, seen=seen)
    return why


def merge(held: Held, instructions: Instructions) -> Held:
    """Return what is held after (already judged) instructions."""
    if instructions.base is None:
        return Held(
            instructions.stamp,
            instructions.me,
            instructions.put,
            revision=instructions.revision,
        )
    if held.stamp == instructions.stamp:
        return held  # a repeated increment
    kinds: dict[str, Any] = {}
    for kind in KINDS:
        gone, fresh = instructions.remove.get(kind, ()), getattr(instructions.put, kind)
        if not (gone or fresh):
            continue  # of most kinds nothing is another
        objects = dict(getattr(held.objects, kind))
        for key in gone:
            objects.pop(key, None)
        objects.update(fresh)
        kinds[kind] = objects
    put = instructions.put.tasks
    return Held(
        instructions.stamp,
        instructions.me,
        held.objects.model_copy(update=kinds),
        held.doubt,
        {task: fields for task, fields in held.unread.items() if task not in put},
        max(held.revision, instructions.revision),
    )


def stacks_of(objects: Objects) -> set[str]:
    """Return the stacks of which objects tell."""
    found = {assignment.stack for assignment in objects.tasks.values()} | set(objects.stacks)
    return found | {key.partition("/")[0] for key in objects.releases}
