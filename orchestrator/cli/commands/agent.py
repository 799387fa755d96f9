"""`corral agent`: become this machine's agent, in the foreground."""

from __future__ import annotations

from orchestrator.cli.commands.controller import become

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    parser.usage = "corral agent [DAEMON ARGUMENTS]"


def run(_args: argparse.Namespace, session: Invocation) -> int:
    become("agent", session.argv)
