"""After the faults: is everything as users were told, and nothing else there? (liveness)"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from specs.states import FINAL, NodeStatus, ReleaseState
from tests.sim.disk import _Folder

if TYPE_CHECKING:
    from tests.sim.world import World

BOUND = 180.0  # simulated seconds from the healing until all is as wanted


def differences(world: World) -> list[str]:
    """Return what is not as it should be in the end; empty: the cluster is as wanted."""
    users, controller = world.users, world.controller
    if users.busy:
        return ["commands are under way"]
    if (
        controller is None
        or not controller.ready.is_set()
        or not controller.dispatcher.ready.is_set()
    ):
        return ["no controller decides"]
    cluster = controller.cluster
    found: list[str] = []
    members = {node.name: node for node in cluster.nodes.values()}
    for host in world.hosts:
        node = members.get(host.name)
        if host.name in users.away:
            if node is not None:
                found.append(f"{host.name} was removed and is a member")
        elif node is None:
            found.append(f"{host.name} is no member")
        else:
            if node.availability != users.availability[host.name] or node.removing:
                found.append(f"{host.name} is {node.availability}, removing {node.removing}")
            status = cluster.conditions[node.id].status
            if status is not NodeStatus.READY:
                found.append(f"{host.name} is {status}: {cluster.conditions[node.id].reason}")
    wanted: Counter[tuple[str, str]] = Counter()
    for name, stack in users.wanted.items():
        record = cluster.stacks.get(name)
        if not stack.up:
            if record is not None:
                found.append(f"stack {name} was removed and is there")
            continue
        if record is None:
            found.append(f"stack {name} is not there")
            continue
        release = cluster.releases.get((name, record.release))
        if record.release < stack.releases:
            found.append(
                f"release {stack.releases} of {name} was acknowledged, {record.release} is there"
            )
        if release is None or release.state is not ReleaseState.DEPLOYED:
            found.append(f"release {record.release} of {name} is {release and release.state}")
        for key in users.files[name]["services"]:
            wanted[(name, key)] = users.replicas(name, key)
    found += _tasks(world, wanted)
    return found or _machines(world)


def _tasks(world: World, wanted: Counter[tuple[str, str]]) -> list[str]:
    assert world.controller is not None
    cluster = world.controller.cluster
    found = []
    ready: Counter[tuple[str, str]] = Counter()
    live: Counter[tuple[str, str]] = Counter()
    for task in cluster.tasks.values():
        key = (task.stack, task.service)
        if task.live:
            live[key] += 1
            ready[key] += task.status.ready
        elif task.state not in FINAL:
            found.append(f"{task.name} {task.id} is {task.state}, wanted {task.desired}")
    for key in sorted({*wanted, *live}):
        counts = wanted[key], live[key], ready[key]
        if len(set(counts)) > 1:
            found.append(f"{key[0]}/{key[1]}: %s wanted, %s there, %s ready" % counts)
    return found


def _machines(world: World) -> list[str]:
    """Compare what runs with what the controller says of it, and look for leftovers."""
    assert world.controller is not None
    cluster, found = world.controller.cluster, []
    versions = world.users._versions
    for host in world.hosts:
        node = next((n for n in cluster.nodes.values() if n.name == host.name), None)
        mine = {} if node is None else {t.id: t for t in cluster.by_node.get(node.id, {}).values()}
        should = {t.id for t in mine.values() if t.live}
        runs = {c.task for c in host.running()}
        found += [
            f"{mine[t].name} {t} is said to run on {host.name}" for t in sorted(should - runs)
        ]
        there = host.containers.there
        for task in sorted(runs - should):
            name = there[task].assignment.name
            found.append(f"{name} {task} runs on {host.name}, unwanted")
        for task in sorted(should & runs):
            container = host.containers.there[task]
            run = mine[task].status.run
            if run is None or run.pid != container.process.pid or run.number != container.run:
                found.append(
                    f"{mine[task].name} {task}: run {run} is told, {container.run} is true"
                )
            asked = container.assignment.spec.environment.get("VERSION", "0")
            version = str(versions[container.assignment.stack].get(container.assignment.service, 0))
            if asked != version:
                found.append(
                    f"{mine[task].name} {task} is of version {asked}, {version} was asked for"
                )
        known = {t for t, task in mine.items()}
        for what, there in (
            ("containers", set(host.containers.there)),
            ("links", host.attached),
            ("roots", host.images.mounted),
            ("bundles", set(host.containers.bundles)),
            ("folders", _folders(host.disk.find(("state", "tasks")))),
            ("records", _folders(host.disk.find(("run", "agent", "records")))),
        ):
            if left := sorted(there - known):
                found.append(f"{what} of {', '.join(left)} are left on {host.name}")
    return found


def _folders(folder: object) -> set[str]:
    return set(folder.names) if isinstance(folder, _Folder) else set()
