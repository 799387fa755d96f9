"""`corral config create|ls|inspect|rm`: configs that belong to no stack.

`corral config` itself prints the file, as Compose's does; these four words behind it are the
objects', as Docker's are.
"""

from __future__ import annotations

from orchestrator.cli.commands import secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    secret.describe(parser, "config")


def run(args: argparse.Namespace, session: Invocation) -> int:
    return secret.run(args, session, "config")
