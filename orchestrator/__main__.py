"""``python -m orchestrator``: what ``corral controller`` becomes."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from specs.kit import allocator, log


def main(argv: list[str] | None = None) -> int:
    """Run the controller; return the exit code."""
    parser = argparse.ArgumentParser(prog="corral controller", description=__doc__)
    parser.add_argument(
        "--embedded",
        action="store_true",
        help="this machine's own agent becomes the first node",
    )
    parser.add_argument("--debug", action="store_true", help="log every detail")
    arguments = parser.parse_args(argv)
    allocator.frugal()
    log.configure(logging.DEBUG if arguments.debug else logging.INFO)
    # Here, so that --help does not cost half a second.
    with allocator.uncollected(), allocator.without_authorities():
        from orchestrator import config, controller  # noqa: PLC0415 - said above
        from orchestrator.errors import RequestError  # noqa: PLC0415 - said above
        from orchestrator.store.base import StoreError  # noqa: PLC0415 - said above
        from specs.kit import collecting, failpoints, stalls  # noqa: PLC0415 - said above

    os.umask(0o077)
    failpoints.arm(os.environ, "controller")
    try:
        with collecting.aside():
            settings = config.from_environment(os.environ)
            stalls.run(controller.run(settings, embedded=arguments.embedded))
    except* (RequestError, StoreError) as group:
        for error in controller.leaves(group):
            sys.stderr.write(f"corral controller: {controller.report(error)}\n")
        return_code = controller.EXIT_REFUSED
    else:
        return_code = 0
    return return_code


if __name__ == "__main__":
    sys.exit(main())
