"""What there is to do for a task: ``lifecycle.py`` says which is next, ``runner.py`` does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specs.states import TaskState


@dataclass(frozen=True)
class Prepare:
    """Make image, root, mounts, network and bundle."""


@dataclass(frozen=True)
class Launch:
    """Create and start run ``number``."""

    number: int


@dataclass(frozen=True)
class Resume:
    """A run was created before the agent was restarted: start it unless it runs already.

    ``undo`` = it is not wanted any more: take it away if it has not been started.
    """

    undo: bool


@dataclass(frozen=True)
class Undo:
    """Take a half-made run away; the user's command has not been started."""


@dataclass(frozen=True)
class Signal:
    """Send the stop signal (or SIGKILL) to the run."""

    why: str
    kill: bool = False


@dataclass(frozen=True)
class BeforeStop:
    """Run the hooks that come before the stop signal."""

    why: str


@dataclass(frozen=True)
class Freeze:
    """Freeze the run's processes, or let them go on."""

    paused: bool


@dataclass(frozen=True)
class Clear:
    """The run's process is gone: delete what the runtime keeps of it."""


@dataclass(frozen=True)
class Settle:
    """Move to a final state; nothing to do on the node."""

    state: TaskState
    reason: str


@dataclass(frozen=True)
class Tidy:
    """The task is final: take everything away but logs and the writable layer."""


@dataclass(frozen=True)
class Erase:
    """Take everything away."""


@dataclass(frozen=True)
class Wait:
    """Nothing to do before ``until`` (None = before something happens)."""

    until: float | None = None


@dataclass(frozen=True)
class Gone:
    """Nothing is left on the node."""


Step = (
    Prepare
    | Launch
    | Resume
    | Undo
    | BeforeStop
    | Signal
    | Freeze
    | Clear
    | Settle
    | Tidy
    | Erase
    | Wait
    | Gone
)
