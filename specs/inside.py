"""What goes on inside running tasks: what they use, their processes, signals to them.

The agent answers for its own tasks (specs/wire.py), the API for a stack's, row by row: a node that
does not answer leaves its rows without a number and with a reason.
"""

from __future__ import annotations

from pydantic import Field

from specs.base import Model


class TaskUsage(Model):
    """What a container uses; sums count from its beginning, so two looks make a rate.

    ``at``: seconds of the node's clock that does not jump, ``cpu``: seconds of processors.
    Everything else is bytes or a count; ``memory`` leaves out file pages that can go at once.
    ``memory_limit`` 0 = none of its own: all of the node's.
    """

    at: float
    cpu: float = 0.0
    memory: int = 0
    memory_limit: int = 0
    processes: int = 0
    received: int = 0
    sent: int = 0
    read: int = 0
    written: int = 0


class NodeUsage(Model):
    """The agent's answer, by task id; a task that does not run is not in it."""

    tasks: dict[str, TaskUsage] = Field(default_factory=dict)
    memory: int = 0  # bytes the node has


class TaskProcess(Model):
    """One process of a container. ``pid`` is the node's number, ``inside`` the container's."""

    pid: int
    parent: int = 0
    inside: int = 0
    user: str = ""  # "root" or a number: names would be the node's, not the image's
    state: str = ""  # R running, S sleeping, D in the kernel, Z ended, T stopped
    cpu: float = 0.0  # seconds
    started: float = 0.0  # seconds since the epoch
    terminal: bool = False
    command: str = ""


class NodeProcesses(Model):
    """The agent's answer, by task id; a task that does not run is not in it."""

    tasks: dict[str, tuple[TaskProcess, ...]] = Field(default_factory=dict)


class SignalTasks(Model):
    """A signal to the first process of each of these tasks."""

    number: int = Field(ge=1, le=64)
    tasks: tuple[str, ...]


class SignalStack(Model):
    """A signal to the first process of every running task of these services (none = all)."""

    number: int = Field(ge=1, le=64)
    services: tuple[str, ...] = ()


class PauseStack(Model):
    """Freeze the running tasks of these services (none = all), or let them go on."""

    paused: bool
    services: tuple[str, ...] = ()


class Paused(Model):
    """Ids of the tasks it was asked of; each has come to it when its row says so."""

    tasks: tuple[str, ...] = ()


class ForgetTasks(Model):
    """Remove what has ended of these services (none = all), where nothing of them runs."""

    services: tuple[str, ...] = ()


class Forgotten(Model):
    """Names of the tasks that are removed, and of services left alone because they run."""

    tasks: tuple[str, ...] = ()
    running: tuple[str, ...] = ()


class Signalled(Model):
    """Names of the tasks that got it, and those that did not with the reason.

    ``stopping``: services that it stops, as ``stop`` does, so that nothing starts them again.
    """

    tasks: tuple[str, ...] = ()
    missed: dict[str, str] = Field(default_factory=dict)
    stopping: tuple[str, ...] = ()


class InsideRow(Model):
    """One running task with what its node said of it, or why that is not known."""

    id: str
    name: str
    service: str
    slot: int = 0
    node: str = ""
    reason: str = ""
    usage: TaskUsage | None = None
    processes: tuple[TaskProcess, ...] = ()


class InsideRows(Model):
    tasks: tuple[InsideRow, ...] = ()


class Copied(Model):
    """What was written into a container. ``left_out``: devices, which are never made."""

    files: int = 0
    bytes: int = 0
    left_out: int = 0
