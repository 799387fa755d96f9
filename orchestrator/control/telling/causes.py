"""Why a release failed, as one sentence with what the task left: exit code and last lines.

The verdict on a release is planning's; it and the progress of ``up`` name the cause with
the same words. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specs.states import FINAL, Health, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.contracts import Mirror
    from specs.task import Task


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a release failed, for people."""

    message: str
    service: str = ""
    task: str = ""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    head: str = ""  # how the message begins whatever the details come to be


def explain_newest(cluster: Mirror, tasks: Iterable[Task]) -> Cause | None:
    """Return what the newest failed task says, or the newest one that has something to say."""
    found = sorted(
        (t for t in tasks if t.status.reason or t.status.log_tail or t.state in FINAL),
        key=lambda t: (t.state in (TaskState.FAILED, TaskState.REJECTED), t.created_at, t.id),
    )
    return explain_task(cluster, found[-1], "") if found else None


def explain_task(cluster: Mirror, task: Task | None, verdict: str) -> Cause:
    """Return one sentence on a task that failed, with its exit code and last log lines."""
    if task is None:
        return Cause("a task failed")
    run = task.status.run
    if run is not None and run.finished_at is None:
        # Started again meanwhile: how it ended is asked for, unless that was no fault of its own.
        run = next((r for r in reversed(task.status.runs) if r.its_own_end), run)
    code = run.exit_code if run is not None else None
    node = cluster.nodes.get(task.node or "")
    where = f" on {node.name}" if node is not None and len(cluster.nodes) > 1 else ""
    parts = []
    if task.state is TaskState.REJECTED:
        parts.append(f"could not be prepared{where}")
    elif code is not None:
        parts.append(f"exited with code {code}{where}")
    elif task.status.health is Health.UNHEALTHY and task.state not in FINAL:
        parts.append(f"is unhealthy{where}")
    else:
        parts.append(f"{task.state.value}{where}")
    reason = task.status.reason or (run.reason if run is not None else "")
    reason = reason.removeprefix("unhealthy: ") if parts[0].startswith("is unhealthy") else reason
    # The agent's reason begins with the code; that is said already.
    head, _, rest = reason.partition("; ")
    reason = rest if head == f"exited with {code}" else reason
    if reason and f"code {code}" not in reason:
        parts.append(reason)
    if task.status.health is Health.UNHEALTHY and task.status.health_output.strip():
        parts.append(f"its check said: {task.status.health_output.strip().splitlines()[-1][:200]}")
    if verdict:
        parts.append(verdict)
    text = f"{task.service}: {task.name} {parts[0]}"
    details = f" ({'; '.join(parts[1:])})" if len(parts) > 1 else ""
    return Cause(text + details, task.service, task.id, code, task.status.log_tail, text)
