"""Stopping and removing a whole stack: the reverse of starting it.

A service is stopped when all that depends on it is gone (or ended, for ``stop``).
Tasks on nodes that do not answer are not waited for: the node removes them when it is
back, and what is left is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import Dependencies, dependencies_of
from orchestrator.control.mirror.records import RELEASES, SCHEDULES, STACKS, VOLUMES
from orchestrator.control.mirror.released import finish, spec_at
from orchestrator.control.mirror.users import all_volumes, names_of, users
from orchestrator.control.planning import binds, oneoffs, stopping
from orchestrator.control.planning.networks import drop_vips, retire_networks
from orchestrator.store import keys
from specs.stack import StackSpec
from specs.states import FINAL, Desired, ReleaseState

if TYPE_CHECKING:
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.records import Volume
    from orchestrator.control.planning.passes import Pass
    from specs.api import Stack
    from specs.task import Task


def plan_removal(pass_: Pass, stack: Stack) -> None:
    """Move ``corral down`` on; the stack's record goes with its last task."""
    end_releases(pass_, stack, "the stack was removed")
    done = oneoffs.remove_all(pass_, stack.name, grace=stack.stop_timeout)
    if not _stop_in_reverse(pass_, stack, Desired.REMOVED) or not done:
        return
    drop_vips(pass_, stack.name, set())
    retire_networks(pass_, stack.name, set())
    if pass_.draft.tasks(stack.name) or pass_.draft.oneoffs(stack.name):
        return  # of nodes that do not answer; the record goes with them
    if stack.remove_volumes:
        meant = used_by_others(pass_.cluster, stack.name)
        mine = [v for v in pass_.cluster.volumes.values() if v.stack == stack.name]
        for volume in mine:
            if volume.name in meant:  # it is nobody's from here on, as an external one
                pass_.draft.put(VOLUMES, volume.model_copy(update={"stack": ""}))
                text = f"volume {volume.name} stays: another stack has it"
                pass_.notes.append(("volume.kept", stack.name, text))
        if any(v.name not in meant for v in mine):
            return  # control.py has the nodes delete the data, then forgets the records
        for number, release in pass_.cluster.stack_releases.get(stack.name, {}).items():
            assert number == release.number
            pass_.draft.delete(RELEASES, release)
        binds.forget(pass_, stack.name)
    for record in pass_.draft.schedules(stack.name):
        pass_.draft.delete(SCHEDULES, record)
    pass_.draft.delete(STACKS, stack)


def volumes_going(cluster: Cluster) -> list[Volume]:
    """Return the volumes whose data may be deleted now, by name."""
    names = volumes_to_drop(cluster)
    for stack in cluster.stacks.values():
        if stack.desired == "removed":
            names |= set(volumes_to_remove(cluster, stack))
    return [cluster.volumes[name] for name in sorted(names)]


def volumes_to_remove(cluster: Cluster, stack: Stack) -> list[str]:
    """Return the names of volumes whose data may be deleted now: nothing uses them any more."""
    tasks = cluster.by_stack.get(stack.name) or any(
        one.stack == stack.name for one in cluster.oneoffs.values()
    )
    if stack.desired != "removed" or not stack.remove_volumes or tasks:
        return []
    mine = [v.name for v in cluster.volumes.values() if v.stack == stack.name]
    meant = used_by_others(cluster, stack.name) if mine else set()
    return [name for name in mine if name not in meant]


def used_by_others(cluster: Cluster, stack: str) -> set[str]:
    """Return the names of volumes that another stack means, or that its tasks still have."""
    found = {name for name, who in users(cluster).volumes.items() if who - {stack}}
    for spec in _mounting(cluster, but=stack):
        found |= {
            name for volume in all_volumes(spec) for name in names_of(cluster, volume, spec.name)
        }
    return found


def _mounting(cluster: Cluster, but: str = "") -> list[StackSpec]:
    """Return what tasks and one-offs on nodes are made from."""
    ones = (o for o in cluster.oneoffs.values() if o.task.node and not o.gone_at)
    kept = [one.spec for one in ones if one.stack != but]
    for task in cluster.tasks.values():
        spec = spec_at(cluster, task.stack, task.release) if task.stack != but else None
        if spec is not None and task.node is not None:
            kept.append(spec.seen_by(task.service))
    return kept


def volumes_to_drop(cluster: Cluster) -> set[str]:
    """Return the names of volumes that somebody removes and that no task has any more."""
    going = {volume.name for volume in cluster.volumes.values() if volume.removing}
    if not going:
        return going
    for spec in _mounting(cluster):
        going -= {
            name for volume in all_volumes(spec) for name in names_of(cluster, volume, spec.name)
        }
    return going


def forget_volume(pass_: Pass, name: str) -> None:
    """Drop the record of a volume whose data is gone."""
    volume = pass_.draft.get(keys.volume(name), pass_.cluster.volumes.get(name))
    if volume is not None:
        pass_.draft.delete(VOLUMES, volume)
    for node, held in pass_.observed.volumes.items():
        pass_.observed.volumes[node] = held - {name}  # a node says it anew with a session only


def plan_stop(pass_: Pass, stack: Stack) -> None:
    """Move ``corral stop`` on: everything shut down, nothing forgotten."""
    end_releases(pass_, stack, "the stack was stopped")
    _stop_in_reverse(pass_, stack, Desired.SHUTDOWN)
    services: dict[str, list[Task]] = {}
    for task in pass_.draft.tasks(stack.name).values():
        services.setdefault(task.service, []).append(task)
    for found in services.values():
        stopping.trim_stopped(pass_, found)


def end_releases(pass_: Pass, stack: Stack, reason: str) -> None:
    """Supersede a release that was still under way."""
    release = pass_.cluster.releases.get((stack.name, stack.release))
    if release is not None and not release.over:
        finish(pass_.draft, release, ReleaseState.SUPERSEDED, reason, at=pass_.wall)


def _graph(pass_: Pass, stack: Stack) -> Dependencies:
    numbers = {t.release for t in pass_.draft.tasks(stack.name).values()} | {stack.release}
    for number in sorted(numbers, reverse=True):
        spec = spec_at(pass_.cluster, stack.name, number)
        if spec is not None:
            return dependencies_of(spec)
    return Dependencies(StackSpec(name=stack.name))


def _stop_in_reverse(pass_: Pass, stack: Stack, final: Desired) -> bool:
    """Stop what may be stopped; say whether nothing that answers is left."""
    graph = _graph(pass_, stack)
    tasks: dict[str, list[Task]] = {}
    for task in pass_.draft.tasks(stack.name).values():
        tasks.setdefault(task.service, []).append(task)

    def over(name: str) -> bool:
        return not any(
            t.state not in FINAL and t.node is not None and pass_.node_status(t.node) != "down"
            for t in tasks.get(name, ())
        )

    done = True
    for name, found in tasks.items():
        if name in graph.graph and not graph.may_stop(name, over):
            done = False
            continue
        for task in found:
            if final is Desired.REMOVED or task.state not in FINAL:
                stopping.begin(pass_, task, graceful=False, final=final, grace=stack.stop_timeout)
            left = pass_.draft.task(task.id)
            if left is None:
                continue
            heard = pass_.node_status(task.node) != "down"
            waiting = final is Desired.REMOVED or task.state not in FINAL
            done = done and not (heard and waiting)
    return done
