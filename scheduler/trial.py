"""When a task that runs counts as come to stay: how long it is watched first.

Called by ``orchestrator.control.planning.staying`` for the release that made the tasks:
it ends well only when all of them have come to stay. They serve, and let those who depend
on them start, from the first moment on; only the verdict waits.

A health check that passed says enough by itself. Without one a task that starts is not yet
a task that works, so it is given ``TRIAL``. Where trouble is likelier it is the service's
monitor time (``update_config.monitor``, of an update at least its ``delay``): after an update,
and once anything has exited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specs.patience import TRIAL
from specs.states import TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scheduler.replicas import Replica


@dataclass(frozen=True, slots=True)
class Trial:
    """How one service's tasks are tried.

    ``updated``: its spec is not the one that was deployed last. Tasks of releases up to
    ``deployed`` were judged by those.
    """

    monitor: float = 0.0
    updated: bool = False
    deployed: int = 0


def steady_at(task: Replica, trial: Trial, *, exited: bool, now: float) -> float | None:
    """Return when the task counts as come to stay, ``now`` at the earliest; None: not as it is.

    ``exited``: something of its service ended, so it must live its monitor time without
    another end.
    """
    if task.done:
        return now
    if marked(task, trial):
        return now
    if not task.ready or task.ready_since is None:
        return None
    return max(now, task.ready_since + _length(task, trial, exited=exited))


def marked(task: Replica, trial: Trial) -> bool:
    """Say whether the task was judged before and is unhealthy now, with nothing to restart it.

    It runs, as the last deployed release left it: a release that does not touch it is not about
    that, and waiting would not end.
    """
    judged = task.release <= trial.deployed
    return judged and task.live and task.state is TaskState.RUNNING and task.sick_since is not None


def _length(task: Replica, trial: Trial, *, exited: bool) -> float:
    judged = task.release <= trial.deployed
    shortest = 0.0 if task.checked or judged else TRIAL
    watched = exited or (trial.updated and not judged)
    return max(shortest, trial.monitor) if watched else shortest


def has_exited(tasks: Iterable[Replica]) -> bool:
    """Say whether a run of these tasks ended although nobody asked it to and it was not done."""
    mine = (t for t in tasks if not t.going and not t.cut_off)  # a node's end is not the task's
    return any(t.restarts > 0 or t.state is TaskState.FAILED for t in mine)


def looping(task: Replica, trial: Trial, limit: int) -> bool:
    """Say whether the task ended ``limit`` times and never lived long enough to be counted on."""
    return (
        task.live
        and not task.ready
        and task.restarts >= limit
        and (not task.was_ready or task.lived < _length(task, trial, exited=True))
    )
