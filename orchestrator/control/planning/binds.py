"""Absolute paths that services bind: where their data is, and which nodes have them.

Asked by ``placement``; ``scheduler.paths`` decides. The first task that may write to such a path
decides where the stack's data under it is, and a record keeps that beyond ``down``, as a
volume's does. A service that runs on every node ties nothing: it has its own data on each.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import former
from orchestrator.control.mirror.records import BOUND_PATHS, BoundPath
from orchestrator.control.planning.passes import BindRuling
from orchestrator.store import keys
from scheduler import constraints
from scheduler.paths import SHARED, Bound, certain, rule
from scheduler.view import Home, Only
from specs import paths
from specs.kit.amounts import some
from specs.states import FINAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from specs.stack import ServiceSpec, TaskSpec
    from specs.task import Task

PUT_BACK = (
    "put the data there (in the place of a folder that corral made empty); nothing is made anew"
)


def look(pass_: Pass, effective: Effective, *, fresh: bool) -> BindRuling:
    """Return what the service's binds ask of a node. ``fresh``: what nodes said long ago is out."""
    bound = tuple(bound_paths(effective.task))
    if effective.service.per_node or not bound:
        return BindRuling()
    if not effective.hash:  # a one-off: of another file maybe, and others are placed in this pass
        return _look(pass_, effective, fresh)
    key = (effective.key, effective.hash, bound, fresh)
    if key not in pass_.binds:
        pass_.binds[key] = _look(pass_, effective, fresh)
    return pass_.binds[key]


def _look(pass_: Pass, effective: Effective, fresh: bool) -> BindRuling:  # noqa: FBT001 - as above
    candidates = [
        node
        for node in pass_.cluster.nodes
        if (view := pass_.view(node)) is not None
        and constraints.broken(effective.service.placement.constraints, view) is None
    ]
    answering = [node for node in candidates if pass_.node_status(node) == "ready"]
    ties, only, homes, unanswered = [], [], [], set()
    owed: dict[tuple[str, str], list[str]] = {}
    for path in sorted({path for path, _ in bound_paths(effective.task)}):
        # A one-off's spec has its own service alone: that another one writes, the record says.
        of_others = not effective.hash and _record(pass_, effective.stack, path) is not None
        written = of_others or path in _written(effective)
        bound = Bound(path, written, _home(pass_, effective, path) if written else None)
        asked = [] if certain(bound, candidates) else answering
        said = pass_.observed.paths.of(path, asked, pass_.now, fresh=fresh)
        ruled = rule(bound, candidates, asked, said)
        unanswered |= {(path, node) for node in ruled.unanswered}
        if written and (lack := _owed(pass_, effective, path, fresh)):
            owed.setdefault(lack, []).append(path)
        if ruled.only is not None:
            only.append(Only(f"path {path}", ruled.only))
        if ruled.pinned:
            where = ""
            if ruled.home:
                record = _record(pass_, effective.stack, path)
                called = record.home if record is not None and record.node == ruled.home else ""
                where = f" (its data is on {_name(pass_, ruled.home, called)})"
            ties.append(Home(f"path {path}{where}", f"path {effective.stack} {path}", ruled.home))
        if written:
            homes.append((path, ruled.home))
    waits = ""
    if owed:
        waits = "; ".join(
            f"{some(sorted(lacking), 3)} was on the machine that {heir} replaces: {then}"
            for (heir, then), lacking in sorted(owed.items())
        )
    elif unanswered:
        nodes = some(sorted({_name(pass_, node) for _, node in unanswered}), 3)
        paths = some(sorted({path for path, _ in unanswered}), 3)
        waits = f"asks {nodes} whether {paths} is there"
    return BindRuling(tuple(ties), tuple(only), tuple(homes), waits)


def tied(pass_: Pass, effective: Effective) -> bool:
    """Say whether tasks of the service stay where they are: there is their data, or it may be."""
    found = look(pass_, effective, fresh=False)
    return bool(found.ties or found.waits)


def settle(pass_: Pass, effective: Effective, node: str, *, fresh: bool) -> None:
    """Note where the data of what the service writes is, now that a task of it goes to a node."""
    for path, home in look(pass_, effective, fresh=fresh).homes:
        record = _record(pass_, effective.stack, path)
        wanted = node if home is None else home
        # What another task of this pass has just decided stands.
        moved = record is not None and pass_.successor(record.node) == wanted  # it is put back
        if record is None or moved or (home == SHARED and record.node != SHARED):
            known = pass_.cluster.nodes.get(wanted)
            made = BoundPath(
                stack=effective.stack,
                path=path,
                node=wanted,
                created_at=pass_.wall,
                home=known.name if known is not None else "",
            )
            pass_.draft.put(BOUND_PATHS, made)


def forget(pass_: Pass, stack: str) -> None:
    """Forget where a stack's data is: it was removed with its volumes."""
    for record in [r for r in pass_.cluster.bound_paths.values() if r.stack == stack]:
        pass_.draft.delete(BOUND_PATHS, record)


def bound_paths(task: TaskSpec) -> Iterator[tuple[str, bool]]:
    """Yield the node's own paths that a task binds, and whether it may write there."""
    for mount in task.mounts:
        # A path with a template is another one for each task, or node.
        own = mount.type == "bind" and not mount.relative and "{{" not in (mount.source or "{{")
        if own and mount.source:
            yield posixpath.normpath(mount.source), not mount.read_only


def _written(effective: Effective) -> set[str]:
    """Return the paths that hold data of the stack: a service of it that is not global writes."""
    return {
        path
        for service in effective.spec.services.values()
        if not service.per_node
        for path, writes in bound_paths(service.task)
        if writes and not paths.never_made(path)
    }


def _record(pass_: Pass, stack: str, path: str) -> BoundPath | None:
    known = pass_.cluster.bound_paths.get((stack, path))
    found: BoundPath | None = pass_.draft.get(keys.bound_path(stack, path), known)
    return found


def _home(pass_: Pass, effective: Effective, path: str) -> str | None:
    """Return where the data of a path belongs: where it is, or who replaced that node."""
    found = _data_at(pass_, effective, path)
    return (pass_.successor(found) or found) if found else found


def _owed(
    pass_: Pass,
    effective: Effective,
    path: str,
    fresh: bool,  # noqa: FBT001 - as above
) -> tuple[str, str] | None:
    """Return who replaced the machine that had the path's data, and what has to happen there.

    None: nobody replaced it, or who did has the data.
    """
    heir = pass_.successor(_data_at(pass_, effective, path) or "")
    if not heir:
        return None
    name, status = _name(pass_, heir), pass_.node_status(heir)
    if status != "ready":
        return name, f"{name} is {status}: it is asked once it is ready"
    match pass_.observed.paths.of(path, [heir], pass_.now, fresh=fresh).get(heir):
        case "there":
            return None
        case None:
            return name, f"{name} is asked whether it is there"
        case _:
            return name, PUT_BACK


def _data_at(pass_: Pass, effective: Effective, path: str) -> str | None:
    """Return where the data of a path is: by its record, else where tasks with it are or were.

    Without a record they are older than these records, or than the store that was adopted.
    """
    record = _record(pass_, effective.stack, path)
    if record is not None:
        return record.node
    ran = [
        task
        for task in pass_.draft.tasks(effective.stack).values()
        if task.node is not None
        and task.status.run is not None
        and (service := _service(pass_, task)) is not None
        and not service.per_node
        and (path, True) in bound_paths(service.task)
    ]
    ran.sort(key=lambda task: (task.state in FINAL, -task.created_at))
    return ran[0].node if ran else None


def _service(pass_: Pass, task: Task) -> ServiceSpec | None:
    known = pass_.specs.of(task.stack, task.release, task.service)
    return known.service if known is not None else None


def _name(pass_: Pass, node: str, called: str = "") -> str:
    record = pass_.cluster.nodes.get(node)
    return record.name if record is not None else former(pass_.cluster, node, called)
