"""How a task, a service, a stack is, in words: the only place where they are chosen.

``ps`` (orchestrator.api.rows), the progress of ``up``, the reason of a release that is
stuck and the command line all show these. What a program acts on is never cut out of the
words: it has fields of its own. Pure functions of the mirror.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.control.mirror import times
from orchestrator.control.mirror.node_view import node_status
from orchestrator.control.mirror.released import newest_of, spec_in_force, spec_of
from orchestrator.control.mirror.serving import (
    is_leaving,
    queued,
    serving,
    stands_by,
    wanted_count,
    was_replaced,
)
from specs.api import ProblemRow, Release, ReleaseRow
from specs.kit import masking
from specs.kit.amounts import as_set, size, some, span
from specs.states import FINAL, HEARD, WANTED, Health, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.contracts import Mirror
    from specs.api import Homeless, Stack
    from specs.node import Node, NodeCondition
    from specs.stack import Mount, ServiceSpec
    from specs.task import Run, Task

_ENDED = {
    TaskState.COMPLETE: "completed",
    TaskState.FAILED: "failed",
    TaskState.SHUTDOWN: "stopped",
    TaskState.REJECTED: "rejected",
    TaskState.ORPHANED: "lost with its node",
}


SHOWN = 3  # names in a sentence before it says how many more


@dataclass(frozen=True, slots=True)
class TaskWords:
    """How a task is: a phrase for people, and what programs need to know of it."""

    text: str  # running 2 min (healthy)
    reason: str = ""  # the part of it that says why
    stopping: bool = False  # it was asked to go and has not gone yet
    restarting: bool = False  # its run ended and the next one comes
    node_status: str = "ready"  # unknown, down: what was heard last of it may be old


def words_of(cluster: Mirror, task: Task, now: float | None = None) -> TaskWords:
    """Return how the task is; without ``now`` no spans of time are told, which grow by themselves.

    What ended has ended wherever its node is; a silent node comes before what it said last.
    """
    said = _words_of(cluster, task, now)
    return replace(said, text=masking.text(said.text), reason=masking.text(said.reason))


def _words_of(cluster: Mirror, task: Task, now: float | None) -> TaskWords:
    status = node_status(cluster, task.node)
    if task.state in FINAL:
        return TaskWords(_ended_text(task, now), task.status.reason, node_status=status)
    stopping = is_leaving(task)
    if status not in HEARD:
        text = _unheard_text(cluster, task, status)
        return TaskWords(text, stopping=stopping, node_status=status)
    if stopping:
        return TaskWords("stopping", stopping=True)
    if task.state is TaskState.RUNNING:
        return _running(task, now, _beside(cluster, task))
    reason = task.pending_reason or task.status.reason
    # That a new task has not been looked at yet is not worth a word of its own.
    word = "pending" if task.state is TaskState.NEW else task.state.value
    if not reason:
        return TaskWords(word)
    again, (done, total) = task.status.retry_in, task.status.arrived
    # How far it is changes all the time and is no part of the reason.
    far = f": {size(done)} of {size(total)}" if total else ""
    return TaskWords(
        f"{word}: {reason}{far}" + (f"; trying again in {as_set(again)}" if again else ""), reason
    )


def _unheard_text(cluster: Mirror, task: Task, status: str) -> str:
    node = cluster.nodes.get(task.node or "")
    if node is None:
        return f"{status}: its node is not in the cluster any more"
    condition = cluster.conditions.get(node.id)
    reason = (condition.why if condition else "") or f"node {node.name} does not answer"
    text = f"{status}: {reason if node.name in reason else f'node {node.name}: {reason}'}"
    what = tied(cluster, task)
    return f"{text}; waits for it because {what} is there" if what else text


def _beside(cluster: Mirror, task: Task) -> str:
    """Return what an update has a task do or wait for that runs: words for people, or ""."""
    stack = cluster.stacks.get(task.stack)
    release = cluster.releases.get((task.stack, stack.release)) if stack is not None else None
    if stack is None or release is None:
        return ""
    if stands_by(cluster, task):
        kept = was_replaced(cluster, task)
        return "kept to go back to, no traffic" if kept else "no traffic yet"
    old = task.release < release.number and task.service in (release.updates or ())
    if release.state is ReleaseState.DEPLOYING and old and task.service in release.paused:
        return "its rollout is paused"
    return ""


def _running(task: Task, now: float | None, beside: str = "") -> TaskWords:
    status, run = task.status, task.status.run
    if run is not None and run.finished_at is not None and status.held and status.reason:
        return TaskWords(f"restarting: {status.reason}", status.reason, restarting=True)
    over = status.last_end if run is not None and run.started_at is None else run
    if over is not None and over.finished_at is not None:
        count = status.restarts
        times = f", {count} restart{'s' if count != 1 else ''}" if count else ""
        reason = exit_words(over)
        return TaskWords(f"restarting: {reason}{times}", reason, restarting=True)
    text = "running"
    if now is not None and run is not None and run.started_at is not None:
        text += f" {span(now - run.started_at)}"
    health = "" if status.health is Health.NONE else status.health.value
    if status.health is Health.STARTING:
        health = "health: starting"
    reason = ""
    if not status.ready and status.health is not Health.STARTING:
        # An agent's reason may be the very word of the check.
        reason = "" if status.ready_reason == health else status.ready_reason
    if status.unasked:
        health = f"{health or 'health'}, not asked: {status.unasked}".lstrip()
    said = run.reason if run is not None else ""  # how it was started, where that is worth a word
    unready = f"not ready: {reason}" if reason else ""
    held = f"restart waits for {task.restart_waits}" if task.restart_waits else ""
    misplaced = f"misplaced: {task.misplaced}" if task.misplaced else ""
    paused = "paused" if status.paused else "is being paused" if task.paused else ""
    notes = [note for note in (beside, paused, health, held, unready, said, misplaced) if note]
    return TaskWords(text + (f" ({', '.join(notes)})" if notes else ""), reason)


def exit_words(run: Run) -> str:
    """Return how a run ended."""
    if run.oom:
        return "killed because it used more memory than its limit"
    if run.exit_code is None or run.unbegun:
        return run.reason or "ended, exit code unknown"
    return f"exit code {run.exit_code}"


def _ended_text(task: Task, now: float | None) -> str:
    run, reason = task.status.run, task.status.reason
    text = _ENDED[task.state]
    if run is None or task.state is TaskState.REJECTED:
        return f"{text}: {reason}" if reason else text
    if task.state is TaskState.FAILED:
        text += f": {exit_words(run)}"
        # What ended the run is told; what the restart policy made of it comes behind.
        verdict = reason.removeprefix(run.reason).removeprefix("; ")
        text += f"; {verdict}" if run.reason and verdict and verdict != reason else ""
    else:
        text += f" ({exit_words(run)})"
    if now is not None and run.finished_at is not None:
        text += f", {span(now - run.finished_at)} ago"
    return text


def homeless_words(stack: str, homeless: Homeless) -> str:
    """Return which tasks of a service have no node: ``no node takes web-4, web-5 (3 of 5 ...)``."""
    names = [name.removeprefix(f"{stack}-") for name in homeless.tasks]
    count = f" ({homeless.placed} of {homeless.wanted} have one)" if homeless.placed else ""
    return f"no node takes {some(names, SHOWN)}{count}"


def tied(cluster: Mirror, task: Task, *, drained: bool = False) -> str:
    """Return what ties the task to its node: a volume, a path of the CLI's machine, or "".

    ``drained``: also when the node is drained; a global service's task leaves then.
    """
    spec = spec_of(cluster, cluster.releases.get((task.stack, task.release)))
    service = spec.services.get(task.service) if spec is not None else None
    if spec is None or service is None or (drained and service.per_node):
        return ""
    for mount in service.task.mounts:
        if mount.type == "volume" and mount.source is not None:
            volume = spec.seen_by(task.service).volumes.get(mount.source)
            if volume is not None and volume.per_node:
                continue
            return f"volume {volume.name if volume is not None else mount.source}"
        if mount.type == "bind" and (mount.relative or _pinned(cluster, task, mount)):
            return f"path {mount.source}"
    return ""


def _pinned(cluster: Mirror, task: Task, mount: Mount) -> bool:
    home = cluster.path_home(task.stack, mount.source) if mount.source else None
    return home is not None and home == task.node


def node_words(cluster: Mirror, node: Node, now: float) -> str:
    """Return why the node is not ready; of a ready one, what is the matter all the same."""
    condition = cluster.conditions.get(node.id)
    if condition is None:
        return "not heard from yet"
    unread = node.facts.unread
    if condition.reason:
        return _why_not(condition, now)
    if not unread:
        return "; ".join(filter(None, (node.facts.cramped, times.words(condition.ahead))))
    more = f", and {len(unread) - 1} more" if len(unread) > 1 else ""
    return f"cannot read {unread[0]}{more}"


def _why_not(condition: NodeCondition, now: float) -> str:
    if condition.braked or not condition.replaced_at:
        return condition.why
    left = max(0.0, condition.replaced_at - now)
    return f"{condition.reason}; tasks are replaced in {left:.0f} s"


def service_counts(
    cluster: Mirror, stack: Stack, tasks: Iterable[Task]
) -> dict[str, tuple[int, int]]:
    """Return service -> (slots that serve, wanted while the stack is up)."""
    spec = spec_in_force(cluster, stack)
    services: Mapping[str, ServiceSpec] = spec.services if spec is not None else {}
    found: dict[str, list[Task]] = {name: [] for name in services}
    for task in tasks:
        if task.service in found:
            found[task.service].append(task)
    return {
        name: (serving(cluster, mine), wanted_count(cluster, stack, services[name], mine))
        for name, mine in sorted(found.items())
    }


def is_complete(cluster: Mirror, stack: Stack, tasks: Iterable[Task]) -> bool:
    """Say whether every service of the stack has all that it should have now."""
    mine = list(tasks)
    spec = spec_in_force(cluster, stack)
    for name, (serve, wanted) in service_counts(cluster, stack, mine).items():
        if serve < wanted:
            service = spec.services[name] if spec is not None else None
            own = [task for task in mine if task.service == name]
            if service is None or serve + queued(stack, service, own) < wanted:
                return False
    return True


def job_words(cluster: Mirror, stack: Stack, tasks: Iterable[Task]) -> tuple[str, ...]:
    """Return how far the stack's jobs are that have not completed: ``work: complete 3/5``."""
    jobs = _jobs(cluster, stack)
    if not jobs:
        return ()
    mine = [task for task in tasks if task.service in jobs]
    counts = service_counts(cluster, stack, mine)
    told = {name: _job(stack, job, counts[name][1], mine) for name, job in jobs.items()}
    return tuple(f"{name}: {text}" for name, text in told.items() if text)


def _jobs(cluster: Mirror, stack: Stack) -> dict[str, ServiceSpec]:
    """Return the jobs of a stack, none of one that is not up."""
    spec = spec_in_force(cluster, stack) if stack.desired == "up" else None
    services = sorted(spec.services.items()) if spec is not None else ()
    return {name: service for name, service in services if service.is_job}


def _job(stack: Stack, job: ServiceSpec, wanted: int, tasks: Iterable[Task]) -> str:
    """Return how far a job of the stack is, "" where it has completed."""
    own = [task for task in tasks if task.service == job.name]
    done = {t.slot for t in own if t.state is TaskState.COMPLETE and not is_leaving(t)}
    if len(done) >= wanted:
        return ""
    runs = len({t.slot for t in own if t.state is TaskState.RUNNING and not is_leaving(t)})
    waits = queued(stack, job, own)
    counted = ((runs, "running"), (waits, "queued"), (len(_failed(own)), "failed"))
    more = [f"{count} {word}" for count, word in counted if count]
    return f"complete {len(done)}/{wanted}" + (f" ({', '.join(more)})" if more else "")


def serving_words(cluster: Mirror, stack: Stack, name: str, tasks: Iterable[Task]) -> str:
    """Return how many of a service serve; of a job that has not completed how far it is."""
    mine = [task for task in tasks if task.service == name]
    serve, wanted = service_counts(cluster, stack, mine).get(name, (0, 0))
    job = _jobs(cluster, stack).get(name)
    far = _job(stack, job, wanted, mine) if job is not None else ""
    return far or f"{serve} of {wanted} serve"


def failed_words(cluster: Mirror, stack: Stack, tasks: Iterable[Task]) -> str:
    """Return what has failed for good of a stack that is up, whatever its release came to."""
    mine = list(tasks)
    counts = service_counts(cluster, stack, mine) if stack.desired == "up" else {}
    found = [
        task
        for name, (serve, wanted) in counts.items()
        if serve < wanted and name not in stack.stopped_services
        for task in _failed(t for t in mine if t.service == name)
    ]
    if not found:
        return ""
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0].name} {words_of(cluster, found[0]).text}{more}"


def _failed(tasks: Iterable[Task]) -> list[Task]:
    """Return those of a service's tasks that failed and have no successor, by slot."""
    ends = (TaskState.FAILED, TaskState.REJECTED)
    newest = sorted(newest_of(tasks).items())
    return [t for _, t in newest if t.state in ends and t.desired in WANTED]


def stack_status(stack: Stack, release: Release | None, *, complete: bool) -> str:
    """Return one word: how the stack is, or what is being done with it."""
    if stack.desired == "removed":
        return "removing"
    if stack.desired == "stopped":
        return "stopped"
    if release is None:
        return "unknown"
    match release.state:
        case ReleaseState.PENDING | ReleaseState.DEPLOYING | ReleaseState.FAILED:
            return "paused" if release.paused and not release.over else release.state.value
        case _ if stack.created and not complete:
            return "created"
        case _:
            return "running" if complete else "degraded"


def failed_tasks(tasks: Iterable[Task], release: int) -> list[Task]:
    """Return those tasks of a release that say something about its failure."""
    return [
        t
        for t in tasks
        if t.release == release
        and (
            t.state in (TaskState.FAILED, TaskState.REJECTED)
            or (t.live and not t.status.ready and (t.status.restarts or t.status.log_tail))
        )
    ]


def release_row(release: Release, warnings: tuple[ProblemRow, ...] = ()) -> ReleaseRow:
    """Return one line of a stack's releases."""
    return ReleaseRow(
        stack=release.stack,
        number=release.number,
        state=release.state,
        reason=release.reason,
        created_at=release.created_at,
        warnings=warnings,
    )
