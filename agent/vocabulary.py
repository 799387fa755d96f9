"""What passes between the rooms of the agent: values that more than one of them knows.

``images`` says what an image tells its containers, ``volumes`` and ``network`` what they made
for a task, ``runtime`` which processes it started and how they ended. ``tasks`` puts them
together, and keeps some in the journal. Values only; what the rooms *do* for a task is in
``agent/tasks/effects.py``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from specs.base import Model
from specs.stack import Healthcheck, Mount

if TYPE_CHECKING:
    from pathlib import Path

    from specs.stack import TaskSpec


class ImageConfig(Model):
    """What an image says about its containers (OCI image config); kept in the task's record."""

    digest: str  # manifest digest
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)


def argv(spec: TaskSpec, image: ImageConfig) -> tuple[str, ...]:
    """Return a container's command by Docker's rules; () where neither gives one.

    An entrypoint of the service's own also drops the image's command.
    """
    if spec.entrypoint is None:
        entry = image.entrypoint
        command = image.command if spec.command is None else spec.command
    else:
        entry = spec.entrypoint
        command = spec.command or ()
    if entry == ("",):  # as with Docker: no entrypoint
        entry = ()
    return (*entry, *command)


def all_mounts(mounts: tuple[Mount, ...], volumes: tuple[str, ...]) -> list[Mount]:
    """Return a task's mounts, and an anonymous volume for each of its image's left over."""
    taken = {os.path.normpath(mount.target) for mount in mounts}
    extra = [
        Mount(type="volume", target=target)
        for target in volumes
        if target.startswith("/") and os.path.normpath(target) not in taken | {"/"}
    ]
    return [*mounts, *extra]


@dataclass(frozen=True)
class BoundMount:
    """A mount ready to be written into config.json."""

    source: str  # absolute path on the node; "tmpfs" for a tmpfs
    target: str
    type: str = "bind"
    options: tuple[str, ...] = ("rbind", "rprivate")


@dataclass(frozen=True)
class Attachment:
    """A task's network, ready for the container to be created in it."""

    netns: Path  # bind-mounted namespace file, kept over restarts of the run
    resolv_conf: str
    hosts: str


class Process(Model):
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    start: int  # start time in clock ticks since boot, /proc/PID/stat field 22


@dataclass(frozen=True)
class FoundRun:
    """A run that the runtime's own files tell of; ``process`` may have ended by now."""

    number: int
    process: Process
    monitor: Process
    begun: bool = True  # the command was let go
    age: float = 0.0  # seconds since the process began
    paused: bool = False  # its processes are frozen
    beside: Process | None = None  # whose namespaces it joined; start 0 = that one has ended


@dataclass(frozen=True)
class Exit:
    """How a run ended. ``code`` None = unknown, and ``reason`` says why."""

    code: int | None
    oom: bool = False
    reason: str = ""
