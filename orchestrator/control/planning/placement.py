"""Pending tasks get nodes: ask scheduler.place, then addresses, volumes and host ports.

The only place where a task moves from pending to assigned. What stays pending
carries the sentence that says why. It stays whole: what is asked of a node and what a task is
given there are one decision.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import former, node_of_client
from orchestrator.control.mirror.ports import (
    fixed_host_ports,
    free_port,
    numbers_taken,
)
from orchestrator.control.mirror.records import VOLUMES, Volume
from orchestrator.control.mirror.serving import global_slots, stands_by
from orchestrator.control.mirror.told import there
from orchestrator.control.planning import binds, pairs, planned, taking_turns
from orchestrator.control.planning import homes as volume_homes
from orchestrator.control.planning.networks import network_of
from orchestrator.control.planning.passes import mistake
from orchestrator.control.planning.room import fleet, fleet_in_steps, reserved
from orchestrator.store import keys
from scheduler import constraints
from scheduler.place import place, place_in_steps
from scheduler.refusals import NoPlace, no_place
from scheduler.relief import chosen
from scheduler.steps import STEP
from scheduler.view import Fleet, Home, NodeView, Only, Pending
from specs import shares, skew
from specs.states import FINAL, Desired, TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.mirror.effective import Effective
    from orchestrator.control.planning.passes import Pass
    from scheduler.steps import Steps
    from specs.task import Task

TOLD = 64  # tasks times nodes up to which it is worth to say why each got its node


def place_pending(pass_: Pass, waiting: list[Task]) -> Steps[None]:
    """Assign what can be assigned: partners first, then those that go with them."""
    rounds: dict[int, list[Task]] = defaultdict(list)
    for number, task in enumerate(waiting, 1):
        if not number % STEP:
            yield STEP // 4
        rounds[_depth(pass_, task)].append(task)
    for depth, tasks in sorted(rounds.items()):
        ready = _beside(pass_, tasks) if depth else tasks
        if ready:
            yield from _place(pass_, ready)


def _depth(pass_: Pass, task: Task) -> int:
    """Return how many partners there are before a task's own turn."""
    effective = pass_.specs.of(task.stack, task.release, task.service)
    depth = 0
    while effective is not None and effective.task.partner and depth < len(effective.spec.services):
        effective = pass_.specs.of(task.stack, task.release, effective.task.partner)
        depth += 1
    return depth


def _beside(pass_: Pass, waiting: list[Task]) -> list[Task]:
    """Return the tasks whose partner has a node, with who that is; say of others that they wait."""
    lenders: dict[tuple[str, str, int], tuple[pairs.Lenders, dict[int, str]]] = {}
    ready = []
    for task in waiting:
        key = (task.stack, task.service, task.release)
        effective = pass_.specs.of(task.stack, task.release, task.service)
        assert effective is not None, "only who has a partner comes here"
        if key not in lenders:
            places = _places(pass_, effective) if effective.service.per_node else {}
            lenders[key] = pairs.Lenders(pass_, effective), places
        known, places = lenders[key]
        partner = known.of(task.slot, places.get(task.slot))
        if partner is None or partner.node is None:
            _await(pass_, task, known, partner)
        else:
            known_one = task.partner == partner.id
            ready.append(task if known_one else task.model_copy(update={"partner": partner.id}))
    return ready


def _place(pass_: Pass, waiting: list[Task]) -> Steps[None]:
    view = yield from fleet_in_steps(pass_)
    pending = []
    found: dict[str, Effective] = {}
    stacks = {task.stack for task in waiting}
    slots = _in_slots(pass_, stacks)
    yield len(waiting) // 4
    places: dict[tuple[str, int], dict[int, str]] = {}  # of global services
    left = _left(pass_, waiting)
    yield len(waiting) // 4
    unfit: dict[str, str] = {}
    for task in waiting:
        yield 1
        try:
            effective = pass_.specs.of(task.stack, task.release, task.service)
            if effective is None:
                continue
            found[task.id] = effective
            if why := _no_volume(pass_, effective, task.slot):
                unfit[task.id] = why
                continue
            slot = slots.get((task.stack, task.service, task.slot), [])
            key = (effective.key, effective.release)
            constraints.check(effective.service.placement.constraints)
            if effective.service.per_node and key not in places:
                places[key] = _places(pass_, effective)
            node = places.get(key, {}).get(task.slot)
            if (partner := pass_.draft.task(task.partner)) is not None:
                node = partner.node
            if waits := binds.look(pass_, effective, fresh=_new(task)).waits:
                unfit[task.id] = waits
                continue
            one = replace(
                _pair(pass_, task, effective, node, slot),
                prefers=_prefers(effective, left.get(_slot(task))),
            )
            pending.append(planned.held_to(pass_, task, one))
        except Exception as error:  # noqa: BLE001 - told of the task; the others go on
            unfit[task.id] = mistake(error, task.stack)
    result = yield from place_in_steps(view, pending, seed=0)
    kinds = (pending, view, found, _pair)
    turned = yield from taking_turns.after_the_old(pass_, result.refused, *kinds, slots=slots)
    _tell_why(pass_, view, pending, result.assigned)
    for task in waiting:
        yield 4
        if task.id in turned:
            continue
        node = result.assigned.get(task.id)
        if node is None:
            refused = unfit.get(task.id) or result.refused.get(task.id)
            way = _way_out(pass_, task, view) if task.id in result.refused else ""
            reason = beside_partner(pass_, task) + (refused or "its release is not there") + way
            _wait(pass_, task, reason)
        else:
            _try_to_assign(pass_, task, found[task.id], node, view)
            _tell_empty(pass_, task, node, _prefers(found[task.id], left.get(_slot(task))))


def _tell_why(
    pass_: Pass, view: Fleet, pending: list[Pending], assigned: Mapping[str, str]
) -> None:
    """Note why each node was taken, where that costs little."""
    if len(assigned) * len(view.nodes) <= TOLD:
        for one in pending:
            if (node := assigned.get(one.task)) is not None:
                pass_.draft.because[there(one.task)] = chosen(view, one, node)


def beside_partner(pass_: Pass, task: Task) -> str:
    """Return who decides where a task goes, before why that node does not take it."""
    partner = pass_.draft.task(task.partner) if task.partner else None
    if partner is None:
        return ""
    return f"it goes with {partner.name}, which is on {node_name(pass_, partner.node)}: "


def _way_out(pass_: Pass, task: Task, view: Fleet) -> str:
    """Return what helps one that does not fit beside its partner, which is not moved for it."""
    first = pairs.first_of(pass_, task)
    effective = pass_.specs.of(task.stack, task.release, first.service)
    if first.id == task.id or effective is None or effective.service.per_node:
        return ""
    elsewhere = replace(needs(pass_, first, effective), max_per_node=0)
    others = {name: node for name, node in view.nodes.items() if name != first.node}
    node = place(replace(view, nodes=others), [elsewhere], seed=0).assigned.get(first.id)
    if node is None:
        return "; no other node takes both"
    command = f"`corral up -d --force-recreate {first.service}`"
    return f"; {command} moves {first.name}, too, and {node_name(pass_, node)} takes both"


def _in_slots(pass_: Pass, stacks: set[str]) -> dict[tuple[str, str, int], list[Task]]:
    """Return the tasks that are on a node and not over, by slot."""
    slots: dict[tuple[str, str, int], list[Task]] = defaultdict(list)
    for stack in stacks:
        for task in pass_.draft.tasks(stack).values():
            kept = task.live and stands_by(pass_.cluster, task)  # it makes room for nobody
            if task.node is not None and task.state not in FINAL and not kept:
                slots[_slot(task)].append(task)
    return slots


def _prefers(effective: Effective, before: Task | None) -> str | None:
    """Return the node with the anonymous volumes a task would take over."""
    if before is None:
        return None
    # What only the image declares its node tells; an agent of an earlier version does not.
    declared = any(m.type == "volume" and m.source is None for m in effective.task.mounts)
    return before.node if declared or before.status.unnamed else None


def _slot(task: Task) -> tuple[str, str, int]:
    return (task.stack, task.service, task.slot)


def _left(pass_: Pass, waiting: list[Task]) -> dict[tuple[str, str, int], Task]:
    """Return the last task that had a node, of each slot: there its anonymous volumes are."""
    found: dict[tuple[str, str, int], Task] = {}
    for stack in sorted({task.stack for task in waiting}):
        for task in pass_.draft.tasks(stack).values():
            known = found.get(_slot(task))
            ran = task.node is not None and task.status.run is not None
            if ran and (known is None or known.created_at <= task.created_at):
                found[_slot(task)] = task
    return found


def _tell_empty(pass_: Pass, task: Task, node: str, before: str | None) -> None:
    """Say of a task that had to move that its anonymous volumes did not."""
    placed = pass_.draft.task(task.id)
    if before is None or before == node or placed is None or placed.node != node:
        return
    text = (
        f"{task.name} starts on {node_name(pass_, node)} with empty anonymous volumes: what it had "
        f"is on {node_name(pass_, before)}; a volume with a name keeps its data"
    )
    pass_.notes.append(("task.volumes-left", task.stack, text))


def _try_to_assign(pass_: Pass, task: Task, effective: Effective, node: str, view: Fleet) -> None:
    try:
        _assign(pass_, task, effective, node, view)
    except Exception as error:  # noqa: BLE001 - told of the task; the others go on
        _wait(pass_, task, mistake(error, task.stack))


def needs(pass_: Pass, task: Task, effective: Effective, pinned: str | None = None) -> Pending:
    """Return what a task needs of a node, whatever node it has."""
    return _pair(pass_, task, effective, pinned, [])


def refusal(pass_: Pass, task: Task) -> NoPlace:
    """Return why no node takes a waiting task, node by node, and what would help."""
    effective = pass_.specs.of(task.stack, task.release, task.service)
    found = asked_of(pass_, task)
    if found is None:
        partner = effective.task.partner if effective is not None else ""
        return NoPlace(hint=f"corral ps -a {partner}") if partner else NoPlace()
    return no_place(*found)


def asked_of(pass_: Pass, task: Task) -> tuple[Fleet, Pending] | None:
    """Return the nodes and what a waiting task asks of them; None: its partner has no node."""
    effective = pass_.specs.of(task.stack, task.release, task.service)
    if effective is None:
        return None
    slot = _in_slots(pass_, {task.stack}).get(_slot(task), [])
    pinned = None
    if effective.service.per_node:
        pinned = _places(pass_, effective).get(task.slot)
    if effective.task.partner:
        partner = pairs.Lenders(pass_, effective).of(task.slot, pinned)
        if partner is None or partner.node is None:
            return None
        pinned = partner.node
    return fleet(pass_), _pair(pass_, task, effective, pinned, slot)


def _places(pass_: Pass, effective: Effective) -> dict[int, str]:
    """Return slot -> node of a global service: each of its tasks belongs to one node."""
    name = effective.service.name
    tasks = [t for t in pass_.draft.tasks(effective.stack).values() if t.service == name]
    return global_slots(pass_.cluster, effective.service, tasks)


def _wait(pass_: Pass, task: Task, reason: str) -> None:
    if task.state is not TaskState.PENDING or task.pending_reason != reason:
        pass_.draft.put_task(task.moved(TaskState.PENDING).with_reason(reason))
    elif pass_.draft.cluster.tasks.get(task.id) is not task:
        pass_.draft.put_task(task)


def _await(pass_: Pass, task: Task, lenders: pairs.Lenders, partner: Task | None) -> None:
    """Say that a task waits for its partner's node; where none will come, that it has no place."""
    name = partner.name if partner is not None else lenders.service
    reason = f"waits for {name}, whose {lenders.lent} it shares"
    if partner is not None and partner.state is TaskState.PENDING and partner.pending_reason:
        _wait(pass_, task, f"{reason}: {partner.pending_reason}")
    elif lenders.missing:
        _wait(pass_, task, f"{reason}, and does not run: {lenders.missing}")
    elif task.pending_reason != reason:
        pass_.draft.put_task(task.with_reason(reason))


def _assign(pass_: Pass, task: Task, effective: Effective, node: str, view: Fleet) -> None:
    placed = equipped(pass_, task, effective, node, view)
    if isinstance(placed, str):
        _wait(pass_, task, placed)
        return
    # What it waits for before it may start stays true; why it had no node does not.
    held = task.state is TaskState.NEW and task.desired is Desired.PREPARED
    pass_.draft.put_task(placed if held else placed.with_reason(""))


def equipped(pass_: Pass, task: Task, effective: Effective, node: str, view: Fleet) -> Task | str:
    """Return the task on its node with what it is given there, or why it cannot have that."""
    if why := _no_volume(pass_, effective, task.slot):
        return why
    addresses: dict[str, str] = {}
    if effective.task.network_mode == "overlay":
        for attachment in effective.task.networks:
            network = network_of(pass_, effective, attachment.network)
            if network is None:
                return f"network {attachment.network} is not there yet"
            given = pass_.addresses.for_task(network, node, attachment.ipv4_address)
            if given.refused:
                return given.refused
            addresses[network.id] = given.address
    _settle_volumes(pass_, task, effective, node)
    binds.settle(pass_, effective, node, fresh=_new(task))
    host_ports = _host_ports(effective, view.nodes[node])
    return task.with_node(node, addresses=addresses, host_ports=host_ports)


def _host_ports(effective: Effective, node: NodeView) -> dict[str, int]:
    chosen: dict[str, int] = {}
    taken = numbers_taken(node.use.ports, node.listening)
    for port in effective.task.ports:
        if port.mode != "host":
            continue
        number = port.published if port.published is not None else free_port(taken)
        chosen[f"{port.target}/{port.protocol}"] = number
    return chosen


def _new(task: Task) -> bool:
    """Say whether a task was not looked at before; one that waits is looked at time and again."""
    return task.state is TaskState.NEW


def _settle_volumes(pass_: Pass, task: Task, effective: Effective, node: str) -> None:
    for mount in effective.task.mounts:
        if mount.type != "volume" or mount.source is None:
            continue
        name = effective.volume_name(mount.source, task.slot, pass_.cluster.nodes.get(node))
        present = pass_.draft.get(keys.volume(name), pass_.cluster.volumes.get(name))
        options = dict(effective.volume_options(mount.source, present))
        shared, each = shares.is_shared(options), effective.on_each_node(mount.source)
        home = "" if shared or each else node
        everywhere = each and not shared
        called = pass_.cluster.nodes[home].name if home else ""
        if present is None:
            wanted = effective.spec.volumes.get(mount.source)
            made = Volume(
                name=name,
                stack=task.stack,
                key=mount.source,
                node=home,
                options=options,
                created_at=pass_.wall,
                labels=wanted.labels if wanted is not None else {},
                home=called,
                everywhere=everywhere,
            )
            pass_.draft.put(VOLUMES, made)
        elif (
            (home and not present.node)
            or options != present.options
            or (everywhere and not present.everywhere)
        ):
            # Made by hand and used for the first time, or the file says something else now.
            made = present if present.node or not home else present.at_home(home, called)
            update = {"options": options, "everywhere": everywhere or present.everywhere}
            pass_.draft.put(VOLUMES, made.model_copy(update=update))


def _no_volume(pass_: Pass, effective: Effective, slot: int) -> str:
    """Return why a volume the task needs cannot be had, or ""."""
    for mount in effective.task.mounts:
        if mount.type != "volume" or mount.source is None:
            continue
        name = effective.volume_name(mount.source, slot)
        volume = pass_.draft.get(keys.volume(name), pass_.cluster.volumes.get(name))
        wanted = effective.spec.volumes.get(mount.source)
        if volume is None and wanted is not None and wanted.external:
            return f"external volume {name} does not exist: corral volume create {name}"
        if volume is not None and volume.removing:
            return f"volume {name} is being removed; corral volume ls says what it waits for"
        if volume is not None and volume.move is not None and volume.move.holds:
            return f"volume {name} is being moved to {volume.move.called}: corral volume ls"
        tied = volume is not None and not effective.on_each_node(mount.source)
        if volume is not None and tied and (why := volume_homes.undecided(pass_, volume)):
            return why
    return ""


def homes(pass_: Pass, effective: Effective, slot: int) -> tuple[Home, ...]:
    """Return what ties a task of the service to one node."""
    found: dict[str, Home] = {}
    for mount in effective.task.mounts:
        if mount.type == "volume" and mount.source is not None:
            name = effective.volume_name(mount.source, slot)
            volume = pass_.draft.get(keys.volume(name), pass_.cluster.volumes.get(name))
            if shares.is_shared(effective.volume_options(mount.source, volume)):
                continue
            if effective.on_each_node(mount.source):
                continue
            if volume is not None:
                volume = volume_homes.find(pass_, volume)
            node = volume.node if volume is not None else None
            wanted = effective.spec.volumes.get(mount.source)
            if node is None and wanted is not None and wanted.relative:
                found["client"] = _of_client(pass_, effective, wanted.options["device"])
            called = volume.home if volume is not None else ""
            where = f" (its data is on {node_name(pass_, node, called)})" if node else ""
            found[name] = Home(f"volume {name}{where}", f"volume {name}", node or None)
        elif mount.type == "bind" and mount.relative:
            found["client"] = _of_client(pass_, effective, mount.source or "")
    return tuple(found[key] for key in sorted(found))


def _of_client(pass_: Pass, effective: Effective, path: str) -> Home:
    client = client_node(pass_, effective)
    host = effective.client.hostname or "the machine the command ran on"
    return Home(f"path {path} of {host}", "client", client or "?")


def node_name(pass_: Pass, node: str | None, called: str = "") -> str:
    """Return a node's name for people; ``called``: what it was called, should it have left."""
    record = pass_.cluster.nodes.get(node or "")
    return record.name if record is not None else former(pass_.cluster, node or "", called)


def client_node(pass_: Pass, effective: Effective) -> str | None:
    """Return the node that is the machine the CLI ran on, or None."""
    return node_of_client(pass_.cluster.nodes, effective.client.boot_id)


def _pending(
    pass_: Pass, task: Task, effective: Effective, pinned: str | None, slot: list[Task]
) -> Pending:
    service = effective.service
    cpus, memory = effective.reserved
    bound = binds.look(pass_, effective, fresh=_new(task))
    # The task of the slot that will be stopped before this one starts.
    stops_first = effective.service.update.order == "stop-first" and task.turn != "beside"
    goes_first = stops_first or task.turn == "after"
    replaced = next((t for t in slot if goes_first and t.id != task.id), None)
    going = [] if replaced is None else [replaced, *pairs.all_followers(pass_, replaced)]
    used = [reserved(pass_, one) for one in going]
    return Pending(
        task=task.id,
        service=effective.key,
        spec_hash=task.spec_hash,
        slot=task.slot,
        cpus=cpus,
        memory=memory,
        constraints=service.placement.constraints,
        preferences=service.placement.preferences,
        max_per_node=service.placement.max_replicas_per_node,
        pack=service.placement.strategy == "pack",
        ports=fixed_host_ports(effective.task),
        homes=(*homes(pass_, effective, task.slot), *bound.ties),
        only=bound.only,
        platform=effective.task.platform,
        image=effective.task.image_digest,
        needs=_needs(pass_, task, effective),
        node=pinned,
        instead_of=replaced.node if replaced is not None else None,
        instead_use=(sum((one[0] for one in used), 0.0), sum(one[1] for one in used)),
    )


def _pair(
    pass_: Pass, task: Task, effective: Effective, pinned: str | None, slot: list[Task]
) -> Pending:
    """Return what a task needs with all that goes with it, and what is kept for it already."""
    pending = _pending(pass_, task, effective, pinned, slot)

    def ties(other: Effective, number: int) -> tuple[tuple[Home, ...], tuple[Only, ...]]:
        bound = binds.look(pass_, other, fresh=_new(task))
        return (*homes(pass_, other, number), *bound.ties), bound.only

    if effective.lends:
        pending = pairs.together(pass_, effective, pending, ties)
    if task.partner and task.release and not any(one.partner == task.partner for one in slot):
        pending = replace(pending, aside=_aside(pass_, task))
    return pending


def _aside(pass_: Pass, task: Task) -> tuple[float, int]:
    """Return what is kept for a task beside its partner, as long as it is not there."""
    stack = pass_.cluster.stacks.get(task.stack)
    known = pass_.specs.of(task.stack, stack.release, task.service) if stack else None
    return pairs.kept_for(pass_, task, known) if known is not None else (0.0, 0)


def _needs(pass_: Pass, task: Task, effective: Effective) -> tuple[tuple[int, str], ...]:
    """Return what a node's version must honour: an older one would make a plain volume."""
    needs = skew.needs(effective.task)
    for mount in effective.task.mounts:
        if mount.type == "volume" and mount.source is not None:
            name = effective.volume_name(mount.source, task.slot)
            if effective.volume_options(mount.source, pass_.cluster.volumes.get(name)):
                return (*needs, (2, "volumes: driver_opts"))
    return needs
