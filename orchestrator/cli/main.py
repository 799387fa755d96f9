"""The `corral` command: global flags, then one command module, then an exit code.

Only the parser, the client and the chosen command's own module are imported, so
that commands which read are quick. Everything that goes wrong ends here as a
message with what to do next; a traceback means a fault of ours.
"""

from __future__ import annotations

import gc
import io
import os
import sys

from orchestrator.cli import errors, registry
from orchestrator.client.errors import ApiRefusal, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

GARBAGE = 20_000  # objects more than before, until those are looked for that nobody has any more

SHORT_HELP = """\
corral runs Compose files on one or many Linux machines.

  corral up            start the stack of ./compose.yaml and follow its logs (-d: in the background)
  corral ps            what runs where
  corral logs -f       what it prints
  corral scale web=3   more or fewer replicas
  corral down          stop and remove it
  corral node add user@host    use one more machine

All commands: corral --help. One command: corral COMMAND --help.
"""

# Everywhere else flags may stand between a command's words.
NOT_MIXED = registry.PASSED_ON | {
    *(
        "backup",
        "context",
        "exec",
        "network",
        "node",
        "rollout",
        "run",
        "schedule",
        "secret",
        "state",
        "volume",
    ),
}


def _unknown(words: Sequence[str]) -> errors.CliError:
    from orchestrator.cli import elsewhere  # only after a typing error

    hint = elsewhere.job(words, registry.COMMANDS, registry.KNOWN_ELSEWHERE)
    return errors.CliError(
        f"corral has no command {words[0]!r}",
        hint or "corral --help lists the commands",
        code=errors.USAGE,
    )


def dispatch(argv: Sequence[str]) -> int:
    """Parse, import the command, run it; return the exit code."""
    from orchestrator.cli import parsers, wishes  # completion does without argparse

    if not argv:
        print(SHORT_HELP, end="")
        return 0
    if argv[0] == "help":
        argv = [*argv[1:2], "--help"]
    parser = parsers.global_parser()
    if argv[-1] in ("-v", "--version") and len(argv) == 1:
        argv = ["version"]
    try:
        flags = parser.parse_args(argv)
    except errors.CliError as exc:
        raise _explained(exc, "", argv, parser) from None
    wishes.typed(flags)
    _say_without_effect(flags)
    name, *rest = flags.words
    if name not in registry.COMMANDS:
        raise _unknown(flags.words)
    second = registry.SECOND.get((name, rest[0])) if rest else None
    module = parsers.module(name, rest)
    from orchestrator.cli.session import Invocation

    session = Invocation(flags, argv=rest)
    own = parsers.command_parser(name, rest)
    if name in registry.PASSED_ON and (name == "lab" or rest[:1] not in (["-h"], ["--help"])):
        return module.run(parsers.NOTHING, session)
    try:
        args = (
            own.parse_args(rest) if name in NOT_MIXED or second else own.parse_intermixed_args(rest)
        )
    except errors.CliError as exc:
        raise _explained(_misplaced_global(exc, name, rest), name, rest, own) from None
    return module.run(args, session)


def _say_without_effect(flags: argparse.Namespace) -> None:
    for flag, given, why in (
        ("--parallel", flags.parallel is not None, "each node decides how much it does at once"),
        ("--compatibility", flags.compatibility, "names keep their -, and deploy: counts anyway"),
    ):
        if given:
            from orchestrator.cli import said

            said.tell(f"corral: warning: {flag} has no effect: {why}", said.WARNING)


def _explained(
    exc: errors.CliError, name: str, words: Sequence[str], parser: argparse.ArgumentParser
) -> errors.CliError:
    """Say what does the job of an unknown flag or word, or which one was meant."""
    text = str(exc)
    if not text.startswith("unrecognized arguments: -") and "invalid choice: " not in text:
        return exc
    from orchestrator.cli import elsewhere  # only after a typing error

    hint = elsewhere.advice(text, name, words, parser)
    return errors.CliError(text, hint or exc.hint, code=exc.code)


def _misplaced_global(exc: errors.CliError, name: str, rest: Sequence[str]) -> errors.CliError:
    """Explain global flags written behind the command."""
    from orchestrator.cli import parsers

    known = parsers.global_parser()._option_string_actions  # noqa: SLF001 - argparse has no other way
    for flag in known:
        unknown = f"unrecognized arguments: {flag}"
        if str(exc).startswith(unknown) and flag in rest:
            from orchestrator.cli import elsewhere

            if (name, flag) in elsewhere.FLAGS:
                return exc  # behind this verb it means something else, and has its words
            return errors.CliError(
                f"{flag} stands before the command",
                hint=f"corral {flag} ... {name}",
                code=errors.USAGE,
            )
    return exc


def _report(message: str, hint: str) -> None:
    from orchestrator.cli import said

    said.complain(message, hint)


def _report_trouble(exc: ClientError | OSError) -> None:
    if isinstance(exc, OSError):
        where = f"{exc.filename}: " if exc.filename else ""
        _report(f"{where}{exc.strerror or exc}", "")
        return
    if isinstance(exc, ApiRefusal) and any(problem.get("position") for problem in exc.problems):
        from orchestrator.cli.findings import show_json

        show_json(exc.problems)
        count = sum(problem.get("severity", "error") == "error" for problem in exc.problems)
        _report(f"{count} problem{'s' if count != 1 else ''}; nothing was changed", exc.hint)
        return
    usual = "" if isinstance(exc, ApiRefusal) else "corral controller status"
    _report(str(exc), exc.hint or usual)


def hold_standard_streams() -> None:
    """Put /dev/null where standard input, output or errors are closed, as Compose's runtime does.

    Else the next socket would get that number, and what is printed would go into it.
    """
    for fd, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number free
            os.set_inheritable(fd, True)  # noqa: FBT003 - its signature
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115 - for ever


class _Unheard(io.FileIO):
    """Standard error that goes on when nobody reads it: what is said there stops no work.

    Nor does a full disk it is written to: there is nowhere to say so.
    """

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BlockingIOError:
            raise
        except OSError:
            _nowhere(self.fileno())
            return len(data)


def _nowhere(number: int) -> None:
    """Let what is written to a standard stream go nowhere, now and at the interpreter's exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def _say_without_ears() -> None:
    """Have what is printed as an error end nothing where its reader has gone."""
    # Not where somebody has put another stream there, to see what is said.
    if type(sys.stderr) is io.TextIOWrapper and sys.stderr.fileno() == 2:
        raw = io.BufferedWriter(_Unheard(2, "w", closefd=False))
        errors = sys.stderr.errors or "backslashreplace"
        sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, errors, line_buffering=True)


def _unheard() -> OSError | None:
    """Return why not all that was printed was taken; without a word of its own, now or later."""
    try:
        sys.stdout.flush()
    except OSError as exc:
        _nowhere(1)
        return exc
    return None


def _heard(told: OSError | None = None) -> bool:
    """Say whether all that was printed was taken, and on standard error why it was not.

    Not where its reader has gone (head, less), nor for the reason ``told`` already.
    """
    exc = _unheard()
    if exc is None:
        return True
    if not isinstance(exc, BrokenPipeError) and (told is None or told.errno != exc.errno):
        _report_trouble(exc)
    return False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    own = argv is None  # a process of its own
    if own:
        # What is imported stays; looking through it again and again is a tenth of a short command.
        gc.set_threshold(GARBAGE)
    hold_standard_streams()
    _say_without_ears()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _outcome(words)
    except SystemExit:  # --help, which nobody has to read to its end
        exc = _unheard()
        if exc is None or isinstance(exc, BrokenPipeError):
            raise
        _report_trouble(exc)
        return errors.ERROR
    finally:
        if own:
            gc.freeze()  # nor need it be looked through to be let go
    return code if _heard() else code or errors.ERROR


def _outcome(words: list[str]) -> int:
    """Run the command; what goes wrong is told, and its code returned."""
    try:
        if words[:1] == ["__complete"]:
            from orchestrator.cli import complete

            return complete.run(words[1:])
        return dispatch(words)
    except KeyboardInterrupt:
        return errors.INTERRUPTED
    except BrokenPipeError:
        _nowhere(1)  # the reader (head, less) went away: no message
        return errors.ERROR
    except errors.CliError as exc:
        _report(str(exc), exc.hint)
        return exc.code
    except (ClientError, OSError) as exc:
        _report_trouble(exc)
        if isinstance(exc, OSError):
            _heard(told=exc)  # once is enough where it was standard output
        return errors.ERROR


if __name__ == "__main__":
    sys.exit(main())
