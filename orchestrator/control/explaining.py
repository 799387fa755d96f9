"""`corral why`: why a task, a service, a stack or a node is as it is, and what would help.

Decided from the mirror, the events that were kept and the scheduler's own rules; nothing is
written. What is said of a task's or a node's state are the words of ``ps`` and ``node ls``
(telling/words.py). What is proposed for a task without a node was tried (scheduler/relief.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.dependencies import edge_words
from orchestrator.control.mirror.released import spec_in_force, spec_of
from orchestrator.control.mirror.serving import is_ready
from orchestrator.control.planning.placement import asked_of
from orchestrator.control.telling.causes import explain_task
from orchestrator.control.telling.words import (
    SHOWN,
    is_complete,
    node_words,
    service_counts,
    serving_words,
    stack_status,
    tied,
    words_of,
)
from orchestrator.errors import NotFound
from scheduler.relief import changes, verdicts
from specs.kit.amounts import size, some
from specs.stack import Condition
from specs.states import FINAL, UNPLACED, WANTED, Desired, NodeStatus, ReleaseState, TaskState
from specs.why import Why, WhyNode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.planning.passes import Pass
    from specs.api import Release, Stack
    from specs.events import Event
    from specs.node import Node
    from specs.stack import Dependency, ServiceSpec
    from specs.task import Task

HISTORY = 12  # events told of one thing
DEEP = 20  # services in a chain of waiting
# Exit codes that say something by themselves.
_CODES = {
    126: "what the command names cannot be run: is it executable, and for this platform?",
    127: "the command is not in the image: look at command and entrypoint",
    137: "it was killed (SIGKILL), not by its memory limit: a stop that took too long, or somebody",
    139: "it crashed (SIGSEGV)",
    143: "it was asked to end (SIGTERM)",
}


def subject(cluster: Cluster, name: str, stack: str, known: Iterable[str] = ()) -> tuple[str, str]:
    """Return what a name means (task, service, node, stack) and its id or name. Raises NotFound.

    ``KIND/NAME`` says which. Else, in this order: a service of the stack, a task of it (with or
    without the stack's name), any task by id, a node, a stack; ``known``: those only events have.
    """
    kind, mark, rest = name.partition("/")
    if not mark or kind not in ("task", "service", "node", "stack"):
        kind, rest = "", name
    for found in _meanings(cluster, rest, stack, known):
        if kind in ("", found[0]):
            return found
    raise NotFound(
        f"there is no {kind or 'service, task, node or stack'} {rest}",
        hint="corral ps -a, corral node ls and corral ls show what there is",
    )


def _meanings(
    cluster: Cluster, name: str, stack: str, known: Iterable[str]
) -> Iterator[tuple[str, str]]:
    record = cluster.stacks.get(stack)
    spec = spec_in_force(cluster, record) if record is not None else None
    if spec is not None and name in spec.services:
        yield "service", name
    mine = cluster.tasks_of(stack)
    tasks = [t for t in mine if name in (t.name, t.name.removeprefix(f"{stack}-"))]
    tasks = tasks or [t for t in cluster.tasks.values() if name in (t.id, t.name)]
    if tasks:
        best = max(tasks, key=lambda t: (t.id == name, t.live, t.created_at, t.id))
        yield "task", best.id
    for node in cluster.nodes.values():
        if name in (node.name, node.id):
            yield "node", node.id
    if name in cluster.stacks or name in known:
        yield "stack", name


def explain(
    pass_: Pass, what: str, name: str, *, stack: str, events: Sequence[Event], now: float
) -> Why:
    """Return why it is as it is. ``events``: those of its stack and of the nodes, oldest first."""
    if what == "task":
        return of_task(pass_, pass_.cluster.tasks[name], events, now)
    if what == "service":
        return of_service(pass_, stack, name, events, now)
    if what == "node":
        return of_node(pass_.cluster, pass_.cluster.nodes[name], events, now)
    return of_stack(pass_, name, events, now)


# A task.


def of_task(pass_: Pass, task: Task, events: Sequence[Event], now: float) -> Why:
    """Say why a task is as it is: what it waits for, why it ended, moved or was made."""
    cluster = pass_.cluster
    words = words_of(cluster, task, now)
    node = cluster.nodes.get(task.node or "")
    where = f" on {node.name}" if node is not None else ""
    mine = [e for e in events if _about(e, task)]
    places = {e.node for e in mine if e.node}
    fate = [e for e in events if e.node in places and e.kind in ("node.down", "node.drained")]
    mine = sorted([*mine, *fate], key=lambda e: (e.until, e.id))
    because = list(_because(pass_, task, mine, now))
    nodes: tuple[WhyNode, ...] = ()
    helps = list(_helps(task))
    if task.state in UNPLACED:
        nodes, tried = _places(pass_, task)
        helps = [*tried, *helps]
    return Why(
        what="task",
        name=task.name,
        stack=task.stack,
        answer=f"{task.name}{where}: {words.text}",
        because=tuple(dict.fromkeys(because)),
        nodes=nodes,
        helps=tuple(dict.fromkeys(helps)),
        history=_history(mine),
    )


def _about(event: Event, task: Task) -> bool:
    if event.task:
        return event.task == task.id or (
            event.service == task.service and event.slot == task.slot and event.stack == task.stack
        )
    mine = event.stack == task.stack
    if mine and event.service == task.service:
        return event.about_slot(task.slot) or not (event.slot or event.slots)
    return mine and not event.service and event.kind.startswith(("stack.", "release."))


def _because(pass_: Pass, task: Task, mine: Sequence[Event], now: float) -> Iterator[str]:
    """Yield what stands behind a task's state, the nearest first."""
    cluster = pass_.cluster
    if task.state not in FINAL and task.node is not None:
        condition, node = cluster.conditions.get(task.node), cluster.nodes.get(task.node)
        if node is not None and condition is not None and condition.status != NodeStatus.READY:
            yield f"node {node.name} is {condition.status}: {node_words(cluster, node, now)}"
        if what := tied(cluster, task, drained=True):
            yield f"it is tied to its node by {what}"
    if task.pending_reason.startswith("waits for") or task.restart_waits:
        yield from _chain(pass_, task.stack, task.service, now, set())
    yield from _ended(cluster, task)
    yield from _came_from(task, mine)
    if task.state in FINAL or pass_.node_status(task.node) == "down":
        yield from _followed(cluster, task, now)


def _ended(cluster: Cluster, task: Task) -> Iterator[str]:
    """Yield how its last run ended, where that matters now, and what its check says."""
    status, run = task.status, task.status.last_end
    goes_well = is_ready(cluster, task) and not status.restarts
    if run is not None and run.its_own_end and not goes_well:
        if run.oom:
            yield f"its container used more memory than its limit{_limit(cluster, task)}"
        elif run.exit_code in _CODES:
            yield f"exit code {run.exit_code}: {_CODES[run.exit_code]}"
        if status.log_tail:
            yield f"it said last: {status.log_tail[-1].strip()[:200]}"
    if status.health_output.strip() and not is_ready(cluster, task):
        yield f"its check said: {status.health_output.strip().splitlines()[-1][:200]}"


def _came_from(task: Task, mine: Sequence[Event]) -> Iterator[str]:
    """Yield why it was made, why it is stopped, and who asked for what became of it."""
    going = task.leaving or task.desired not in WANTED or task.state is TaskState.SHUTDOWN
    own = [e for e in mine if e.task == task.id]
    made = _last(own, "task.new")
    if made is not None:
        yield f"it was made as {_bare(made.message)}"
    stopped = _last(own, "task.stopping") if going else None
    if stopped is not None and stopped.reason != "asked":
        yield f"it was stopped: {_bare(stopped.message)}"
    wanted = ("stack.", "service.stopped", "service.scaled") if going else ("restart.asked",)
    asked = _last(mine, *wanted)
    if asked is not None:
        yield f"{asked.message}{_by(asked)}"


def _followed(cluster: Cluster, task: Task, now: float) -> Iterator[str]:
    later = [
        t
        for t in _tasks(cluster, task.stack, task.service)
        if t.slot == task.slot and t.created_at > task.created_at
    ]
    if later:
        newest = max(later, key=lambda t: (t.created_at, t.id))
        place = cluster.nodes.get(newest.node or "")
        where = f" on {place.name}" if place is not None else ""
        text = words_of(cluster, newest, now).text
        yield f"another one took its place{where}: {text}"


def _bare(message: str) -> str:
    """Return the words behind ``x is made: code: ...``."""
    rest = message.partition(": ")[2]
    head, mark, tail = rest.partition(": ")
    return tail if mark and " " not in head else rest


def _by(event: Event | None) -> str:
    return f", by {event.by}" if event is not None and event.by else ""


def _limit(cluster: Cluster, task: Task) -> str:
    service = _service(cluster, task)
    limit = service.task.resources.limits.memory if service is not None else None
    return f" of {size(limit)}" if limit else ""


def _service(cluster: Cluster, task: Task) -> ServiceSpec | None:
    spec = spec_of(cluster, cluster.releases.get((task.stack, task.release)))
    return spec.services.get(task.service) if spec is not None else None


def _helps(task: Task) -> Iterator[str]:
    """Yield what to do about a task that has a node, or had one."""
    run, stack = task.status.last_end, task.stack
    troubled = task.state in (TaskState.FAILED, TaskState.REJECTED) or task.status.restarts
    if run is not None and run.oom:
        yield f"raise deploy.resources.limits.memory of {task.service}, or have it use less"
    if task.status.health.value == "unhealthy":
        yield f"run the check by hand: corral -p {stack} exec {task.service} COMMAND"
    if troubled and run is not None and run.its_own_end:
        yield f"corral -p {stack} logs {task.service}"
    if task.status.paused:
        yield f"corral -p {stack} unpause {task.service}"
    if task.desired is Desired.SHUTDOWN:
        yield f"corral -p {stack} start {task.service}"


def _places(pass_: Pass, task: Task) -> tuple[tuple[WhyNode, ...], list[str]]:
    """Return what each node says of a task without one, and the smallest changes that would do."""
    found = asked_of(pass_, task)
    if found is None:
        return (), []
    view, pending = found
    if not view.nodes:
        return (), ["corral node add USER@HOST"]
    said = verdicts(view, pending)
    nodes = tuple(
        WhyNode(node=v.node, rules=tuple(words for _, words in v.rules), binding=v.binding)
        for v in said
    )
    if any(v.fits for v in said):
        return nodes, []
    tried = [change.words for change in changes(view, pending)]
    if pending.node is None and not any(home.node for home in pending.homes):
        tried.append("corral node add USER@HOST")
    return nodes, tried


def _chain(pass_: Pass, stack: str, service: str, now: float, seen: set[str]) -> Iterator[str]:
    """Yield what a service waits for, and what that waits for, down to what is wrong."""
    record = pass_.cluster.stacks.get(stack)
    release = pass_.cluster.releases.get((stack, record.release)) if record is not None else None
    spec = spec_of(pass_.cluster, release)
    if spec is None or service not in spec.services or service in seen or len(seen) > DEEP:
        return
    seen.add(service)
    for name, edge in sorted(spec.services[service].depends_on.items()):
        if name not in spec.services or _met(pass_.cluster, stack, name, edge):
            continue
        yield f"{service} waits for {edge_words(name, edge)}"
        waiting = False
        for line in _chain(pass_, stack, name, now, seen):
            waiting = True
            yield line
        if not waiting:
            yield _root(pass_.cluster, stack, name, now)


def _met(cluster: Cluster, stack: str, name: str, edge: Dependency) -> bool:
    tasks = _tasks(cluster, stack, name)
    if edge.condition is Condition.COMPLETED:
        return bool(tasks) and any(t.state is TaskState.COMPLETE for t in tasks)
    live = [t for t in tasks if t.live or t.state is TaskState.COMPLETE]
    if edge.condition is Condition.STARTED:
        return bool(live) and all(t.status.runs for t in live)
    return bool(live) and all(is_ready(cluster, t) or t.state is TaskState.COMPLETE for t in live)


def _root(cluster: Cluster, stack: str, name: str, now: float) -> str:
    tasks = _tasks(cluster, stack, name)
    if not tasks:
        return f"{name} has no task yet"
    worst = max(tasks, key=lambda t: (not is_ready(cluster, t), t.live, t.created_at, t.id))
    return f"{worst.name}: {words_of(cluster, worst, now).text}"


def _history(events: Sequence[Event]) -> tuple[Event, ...]:
    return tuple(events[-HISTORY:])


def _tasks(cluster: Cluster, stack: str, service: str) -> list[Task]:
    return [t for t in cluster.tasks_of(stack) if t.service == service]


def _last(events: Sequence[Event], *kinds: str) -> Event | None:
    """Return the last event whose kind begins with one of these."""
    return next((e for e in reversed(events) if e.kind.startswith(kinds)), None)


# A service.


def of_service(pass_: Pass, stack: str, name: str, events: Sequence[Event], now: float) -> Why:
    """Say how many of a service serve, and why the others do not."""
    cluster = pass_.cluster
    record = cluster.stacks[stack]
    tasks = _tasks(cluster, stack, name)
    serve, wanted = service_counts(cluster, record, tasks).get(name, (0, 0))
    mine = [e for e in events if e.service == name and e.stack == stack]
    because = list(_of_service(cluster, record, name, mine))
    amiss = [t for t in tasks if t.live and not is_ready(cluster, t)]
    amiss = amiss or [t for t in tasks if t.state in FINAL and not _replaced(t, tasks)]
    amiss.sort(key=lambda t: (t.slot, t.created_at))
    answer = f"{name} of {stack}: {serving_words(cluster, record, name, tasks)}"
    nodes: tuple[WhyNode, ...] = ()
    helps: list[str] = []
    down = record.desired != "up" or name in record.stopped_services
    if serve >= wanted and not down:
        return Why(
            what="service", name=name, stack=stack, answer=f"{answer}: nothing is amiss",
            because=tuple(because), history=_history(mine),
        )  # fmt: skip
    groups: dict[str, list[Task]] = {}
    for task in amiss:
        groups.setdefault(words_of(cluster, task).text, []).append(task)
    because += [
        f"{some([t.name.removeprefix(f'{stack}-') for t in found], SHOWN)}: {text}"
        for text, found in groups.items()
    ]
    if amiss:
        first = of_task(pass_, amiss[0], events, now)
        because += [line for line in first.because if line not in because]
        nodes, helps = first.nodes, list(first.helps)
        if (made := _service(cluster, amiss[0])) and made.is_job and amiss[0].state in FINAL:
            helps.append("corral up of the same file runs again what failed")
    if record.desired != "up":
        answer += f"; the stack is {record.desired}"
    elif name in record.stopped_services:
        answer += "; it is stopped"
        helps = [f"corral -p {stack} start {name}"]
    return Why(
        what="service",
        name=name,
        stack=stack,
        answer=answer,
        because=tuple(because),
        nodes=nodes,
        helps=tuple(helps),
        history=_history(mine),
    )


def _replaced(task: Task, tasks: Sequence[Task]) -> bool:
    return any(t.slot == task.slot and t.created_at > task.created_at for t in tasks)


def _of_service(cluster: Cluster, record: Stack, name: str, mine: Sequence[Event]) -> Iterator[str]:
    if name in record.overrides:
        by = _by(_last(mine, "service.scaled"))
        yield f"it is scaled to {record.overrides[name]}{by}; the file's number waits"
    if name in record.stopped_services:
        yield f"somebody stopped it{_by(_last(mine, 'service.stopped'))}"
    release = cluster.releases.get((record.name, record.release))
    if release is not None and not release.over:
        yield f"release {release.number} is {release.state.value}"


# A node.


def of_node(cluster: Cluster, node: Node, events: Sequence[Event], now: float) -> Why:
    """Say why a node is ready or not, drained, silent or behind."""
    condition = cluster.conditions.get(node.id)
    status = condition.status.value if condition is not None else "unknown"
    reason = node_words(cluster, node, now)
    mine = [e for e in events if node.name in (e.node, *e.nodes) and e.kind.startswith("node.")]
    mine += [e for e in events if e.kind.startswith("cluster.")]
    mine.sort(key=lambda e: (e.until, e.id))
    because, helps = [], []
    if node.availability != "active" or node.removing:
        word = "being removed" if node.removing else f"set to {node.availability}"
        kinds = ("node.removing",) if node.removing else ("node.drained", "node.paused")
        because.append(f"it is {word}{_by(_last(mine, *kinds))}")
        helps.append(f"corral node activate {node.name}")
    if condition is not None and condition.braked:
        because.append("most nodes are silent: the brake is on, nothing of theirs is replaced")
    if condition is not None and condition.returning:
        because.append("it answers again; it counts once it stayed for a while")
    if condition is not None and condition.full:
        helps.append(f"free room on the disk of {node.name}: corral doctor")
    tasks = [t for t in cluster.by_node.get(node.id, {}).values() if t.state not in FINAL]
    held = [f"{t.name} by {what}" for t in tasks if (what := tied(cluster, t, drained=True))]
    away = status in ("down", "unknown") or node.availability == "drain"
    if away and held:
        because.append(f"tied to it, so not replaced elsewhere: {some(sorted(held), SHOWN)}")
    elif away and tasks and status != "down":
        because.append(f"{len(tasks)} of its tasks are not replaced yet")
    if status == "down" and node.address:
        helps.append(f"if it will not come back: corral node replace {node.name} USER@HOST")
    helps += [f"missing there: {what}" for what in node.facts.missing]
    text = f"node {node.name} is {status}"
    if node.availability != "active":
        text += f", {node.availability}"
    return Why(
        what="node",
        name=node.name,
        answer=f"{text}: {reason}" if reason else text,
        because=tuple(because),
        helps=tuple(helps),
        history=_history(mine),
    )


# A stack.


def of_stack(pass_: Pass, name: str, events: Sequence[Event], now: float) -> Why:
    """Say why a stack is as it is: its newest release, and what of it does not serve."""
    cluster = pass_.cluster
    mine = [e for e in events if e.stack == name]
    told = _history([e for e in mine if e.kind.startswith(("stack.", "release.", "service."))])
    record = cluster.stacks.get(name)
    if record is None:
        by = _by(_last(mine, "stack.removing"))
        return Why(
            what="stack", name=name, stack=name, answer=f"stack {name} is gone: it was removed{by}",
            helps=(f"corral -p {name} events --no-follow",), history=told,
        )  # fmt: skip
    release = cluster.releases.get((name, record.release))
    tasks = list(cluster.tasks_of(name))
    counts = service_counts(cluster, record, tasks)
    status = stack_status(record, release, complete=is_complete(cluster, record, tasks))
    because, helps = list(_of_release(pass_, record, release, mine)), []
    nodes: tuple[WhyNode, ...] = ()
    amiss = [service for service, (serve, wanted) in counts.items() if serve < wanted]
    if record.desired == "up":
        for service in amiss:
            found = of_service(pass_, name, service, events, now)
            because.append(found.answer)
            because += [line for line in found.because if line not in because]
            nodes = nodes or found.nodes
            helps += [one for one in found.helps if one not in helps]
    else:
        asked = _last(mine, "stack.")
        if asked is not None:
            because.append(f"{asked.message}{_by(asked)}")
    reason = release.reason if release is not None else ""
    return Why(
        what="stack",
        name=name,
        stack=name,
        answer=f"stack {name} is {status}" + (f": {reason}" if reason else ""),
        because=tuple(dict.fromkeys(because)),
        nodes=nodes,
        helps=tuple(helps),
        history=told,
    )


def _of_release(
    pass_: Pass, record: Stack, release: Release | None, mine: Sequence[Event]
) -> Iterator[str]:
    if release is None:
        return
    asked = next(
        (e for e in mine if e.kind == "release.pending" and e.release == release.number), None
    )
    yield f"release {release.number} is {release.state.value}{_by(asked)}"
    if release.state is ReleaseState.PENDING:
        yield "its images are built or looked up before anything of it starts"
    if release.culprit:
        task = pass_.cluster.tasks.get(release.culprit)
        if task is not None:
            yield explain_task(pass_.cluster, task, "").message
    if record.running not in (0, release.number):
        yield f"release {record.running} is what ran before, and what it has runs on"
    yield from release.notes
