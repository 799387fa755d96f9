"""`corral unpause`: let what `corral pause` froze go on."""

from __future__ import annotations

from orchestrator.cli.commands import pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation

describe = pause.describe


def run(args: argparse.Namespace, session: Invocation) -> int:
    return pause.bring(session, args.services, paused=False)
