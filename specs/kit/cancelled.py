"""What Python 3.11 leaves behind in a task whose ``asyncio.TaskGroup`` failed.

A group whose child fails while the group already waits for its children cancels its own task to
wake it, and never takes that back (mended in Python 3.13). The task goes on with a cancellation
counted; the next ``asyncio.timeout`` that runs out then believes that somebody else wants the
task cancelled, and raises CancelledError instead of TimeoutError: the task ends, and nobody
hears why.
"""

from __future__ import annotations

import asyncio


def settle(group: asyncio.TaskGroup) -> None:
    """Forget what the group counted. Call it where its error was caught, in the group's own task.

    A group counts at most once. What is left then is somebody who cancelled the task while its
    group waited for its children: the group's errors went first, and he is heard now. One who
    did so just before the group would have counted can be told from it by the group only.

    Raises CancelledError: the task is to end.
    """
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return
    # Who cancels the task in the very turn in which a child fails comes before the group, which
    # then does not count any more.
    counted = getattr(group, "_parent_cancel_requested", True)
    if task.uncancel() if counted else task.cancelling():
        raise asyncio.CancelledError


def obey() -> None:
    """Hear who cancelled the task, where an error was caught that may have come of that.

    What is cancelled may fail while it clears up, and then it is the failure that is caught.
    Groups in the same task have settled what they counted.

    Raises CancelledError: the task is to end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
