"""``python -m agent``: the node's daemon."""

from __future__ import annotations

import os
import resource
import sys

from specs.kit import allocator, log

FILES_MAX = 1 << 20  # containers inherit it; it is what Docker gives them


def main() -> int:
    """Run the agent; return the process's exit code."""
    allocator.frugal()
    log.configure()
    with allocator.uncollected(), allocator.without_authorities():
        from agent import daemon  # noqa: PLC0415 - the context is for it
        from agent.config import from_environment  # noqa: PLC0415 - as above
        from agent.runtime.failure import RuntimeFailure  # noqa: PLC0415 - as above
        from specs.kit import collecting, failpoints, stalls  # noqa: PLC0415 - as above
    failpoints.arm(os.environ, "agent")
    # The spawner's thread must not wait 5 ms for the event loop to let go of the interpreter.
    sys.setswitchinterval(0.001)
    # Two pidfds for each container: the usual soft limit of 1,024 would end at 500.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        with collecting.aside():
            stalls.run(daemon.run(from_environment()))
    except (daemon.AlreadyRunning, RuntimeFailure, PermissionError) as error:
        sys.stderr.write(f"corral agent: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
