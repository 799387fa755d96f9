"""What Python 3.11 leaves behind in a task whose ``asyncio.TaskGroup`` failed.

A group whose child fails while the group already waits for its children cancels its own task to
wake it, and never takes that back (mended in Python 3.13). The task goes on with a cancellation
counted; the next ``asyncio.timeout`` that runs out then believes that somebody else wants the
task cancelled, and raises CancelledError instead of TimeoutError: the task ends, and nobody
hears why.
"""

from __future__ import annotations

import asyncio


def settle() -> None:
    """Forget what is still counted. Call it where a group's error was caught, and goes no further.

    Nothing else is lost: whoever cancels a task while its group fails is not heard in any case,
    because the group's errors go first.
    """
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
