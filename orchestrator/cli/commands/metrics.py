"""`corral metrics [NODE]`: the controller's figures, or a node's, as Prometheus reads them."""

from __future__ import annotations

import sys

from orchestrator.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", nargs="?", metavar="NODE", help="of its agent (the controller's)")


def run(args: argparse.Namespace, session: Invocation) -> int:
    path = f"/v1/nodes/{quote(args.node)}/metrics" if args.node else "/v1/metrics"
    sys.stdout.write(fetched(session, path))
    return 0


def fetched(session: Invocation, path: str) -> str:
    """Return the figures of a path. Raises ClientError."""
    coming = session.client.download(path)
    try:
        found = bytearray()
        while part := coming.more():
            found += part
    finally:
        coming.close()
    return found.decode(errors="replace")
