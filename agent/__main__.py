"""``python -m agent``: the node's daemon."""

from __future__ import annotations

import asyncio
import sys

from agent import daemon
from agent.config import from_environment
from agent.runtime.failure import RuntimeFailure
from specs.kit import log


def main() -> int:
    """Run the agent; return the process's exit code."""
    log.configure()
    # The spawner's thread must not wait 5 ms for the event loop to let go of the interpreter.
    sys.setswitchinterval(0.001)
    try:
        asyncio.run(daemon.run(from_environment()))
    except (daemon.AlreadyRunning, RuntimeFailure, PermissionError) as error:
        sys.stderr.write(f"corral agent: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
