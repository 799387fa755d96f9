"""``python -m agent``: the node's daemon."""

from __future__ import annotations

import resource
import sys

from agent import daemon
from agent.config import from_environment
from agent.runtime.failure import RuntimeFailure
from specs.kit import allocator, log, stalls

FILES_MAX = 1 << 20  # containers inherit it; it is what Docker gives them


def main() -> int:
    """Run the agent; return the process's exit code."""
    allocator.frugal()
    log.configure()
    # The spawner's thread must not wait 5 ms for the event loop to let go of the interpreter.
    sys.setswitchinterval(0.001)
    # Two pidfds for each container: the usual soft limit of 1,024 would end at 500.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        stalls.run(daemon.run(from_environment()))
    except (daemon.AlreadyRunning, RuntimeFailure, PermissionError) as error:
        sys.stderr.write(f"corral agent: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
