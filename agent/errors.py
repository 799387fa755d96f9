"""The two ways in which something a task needs does not work: never, or not now.

Raised by whatever prepares a task (images, volumes, networks, the bundle), acted on by
``agent/tasks/runner.py``: a Refusal makes the task rejected, Later is tried again with
back-off. What the container runtime says is ``agent.runtime.failure.RuntimeFailure``.
Nothing else is here, so that the child that reads hostile archives can import it.
"""

from __future__ import annotations

import errno

from specs.kit import room


class Refusal(Exception):
    """The task cannot be prepared as asked, and trying again will not help: rejected.

    The message is for users: what, which object, what to do. ``named``: it says itself which
    image it is about.
    """

    def __init__(self, message: str, *, named: bool = False) -> None:
        super().__init__(message)
        self.named = named


class Later(Exception):
    """It did not work now (registry down, disk full); trying again may. Message for users."""


class NoRoom(Later):
    """It did not work now because nothing more fits on this node: another may have room."""


def of_disk(error: OSError, said: str) -> Later | Refusal:
    """Return what an error is where a task asks for something on this node's disk.

    That the disk is full or broken says nothing of what was asked for: it is tried again.
    """
    if room.lacks_room(error):
        return NoRoom(said)
    return Later(said) if error.errno in (errno.EIO, errno.ESTALE) else Refusal(said)


def lacks_room(error: BaseException | None) -> bool:
    """Say whether that is what an error comes from, at whatever remove."""
    while error is not None:
        if isinstance(error, NoRoom) or (isinstance(error, OSError) and room.lacks_room(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
