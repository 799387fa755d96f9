"""The command ``corral`` from its first instruction to its last: Ctrl-C never shows a traceback.

While Python still loads what the command needs, and when it has ended and Python tidies up, an
interrupt simply ends it, as it does any program; in between it is the command's own to answer.
Where a shell has it ignored (in the background of a script) it stays ignored.
"""

import _signal  # type: ignore[import-not-found]  # `signal` itself would be loaded unguarded
import sys

_OURS = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler


def _simply_end() -> None:
    if _OURS:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


_simply_end()


def main() -> int:
    """Run the command line and return its exit code."""
    from orchestrator.cli import errors
    from orchestrator.cli.main import main as run

    try:
        if _OURS:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        return run()
    except KeyboardInterrupt:  # before the command had begun to listen, or when it had ended
        return errors.INTERRUPTED
    finally:
        _simply_end()


if __name__ == "__main__":
    sys.exit(main())
