"""`corral port SERVICE PORT`: where a port of a container is published."""

from __future__ import annotations

from orchestrator.cli.commands.exec import choose
from orchestrator.cli.errors import USAGE, CliError
from orchestrator.cli.show.containers import publisher

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from orchestrator.cli.session import Invocation


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("service", metavar="SERVICE")
    add("port", metavar="PORT", help="inside the container: 80, 53/udp")
    add("--index", type=int, default=0, metavar="N", help="replica N (default: the first)")
    add("--protocol", choices=("tcp", "udp"), default="tcp", help="default: tcp")


def run(args: argparse.Namespace, session: Invocation) -> int:
    text, mark, protocol = args.port.partition("/")
    protocol = protocol if mark else args.protocol
    if not text.isdecimal() or protocol not in ("tcp", "udp"):
        raise CliError(f"{args.port!r} is not a port", hint="80 or 53/udp", code=USAGE)
    rows = session.client.get(session.path("tasks"), all=True, oneoffs=True)["tasks"]
    row = choose(rows, args.service, args.index)
    found = published(row, int(text), protocol)
    if not found:
        ports = ", ".join(row.get("ports") or ()) or "none"
        raise CliError(
            f"{row['name']} publishes no port {text}/{protocol}", hint=f"its ports: {ports}"
        )
    print("\n".join(found))
    return 0


def published(row: dict[str, Any], target: int, protocol: str) -> list[str]:
    """Return ``address:port`` of each place the port is published at."""
    known = [publisher(str(port)) for port in row.get("ports") or ()]
    return [
        f"[{one['URL']}]:{number}" if ":" in one["URL"] else f"{one['URL']}:{number}"
        for one in known
        if one["Protocol"] == protocol and (number := _at(one, target))
    ]


def _at(port: dict[str, Any], target: int) -> int:
    """Return the published number of ``target``, also within a range; 0 = it is not."""
    first, _, last = str(port["TargetPort"]).partition("-")
    outside = str(port["PublishedPort"]).partition("-")[0]
    if not port["PublishedPort"] or not int(first) <= target <= int(last or first):
        return 0
    return int(outside) + target - int(first)
