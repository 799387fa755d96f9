"""``python -m agent.leaving``: end all this node runs and has made, where no agent runs.

For ``/opt/corral/uninstall``. Prints each task that would not go; ends with 0 where none is left,
else with 1.
"""

from __future__ import annotations

import asyncio
import sys

from agent import daemon
from agent.config import from_environment
from agent.runtime.failure import RuntimeFailure
from specs.kit import log


def main() -> int:
    """Leave; return the process's exit code."""
    log.configure()
    try:
        left = asyncio.run(daemon.leave(from_environment()))
    except (daemon.AlreadyRunning, RuntimeFailure, OSError) as error:
        sys.stdout.write(f"the agent cannot end what runs here: {error}\n")
        return 1
    for task in left:
        sys.stdout.write(f"task {task} does not end\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
