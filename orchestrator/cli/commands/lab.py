"""`corral lab`: hosts made of namespaces on this machine; orchestrator.lab does it all."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    """Nothing: the lab parses its own words, --help too."""


def run(_args: argparse.Namespace, session: Invocation) -> int:
    from orchestrator.lab import cli

    return cli.main(session.argv)
