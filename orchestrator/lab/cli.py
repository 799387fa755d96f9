"""``corral lab``: hosts out of namespaces on this machine, from the command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from orchestrator.lab.lab import Lab, down, down_stale, names
from orchestrator.lab.layout import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

FAULTS = ("cut", "heal", "poweroff", "poweron", "freeze", "thaw")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="corral lab",
        description="Hosts out of namespaces on this machine, to try corral and to break it.",
    )
    commands = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default="lab", help="which lab (default: lab)")
    up = commands.add_parser("up", parents=[named], help="make the hosts n1, n2, ... and client")
    up.add_argument(
        "--nodes", type=int, default=3, metavar="N", help="how many besides the client (default: 3)"
    )
    execute = commands.add_parser("exec", parents=[named], help="run a command on a host")
    execute.add_argument("host", metavar="HOST")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD")
    status = commands.add_parser("status", parents=[named], help="show hosts and faults")
    status.add_argument("--format", choices=("table", "json"), default="table")
    fault = commands.add_parser(
        "fault", parents=[named], help="cut, heal, poweroff, poweron, freeze, thaw a host"
    )
    fault.add_argument("kind", choices=FAULTS)
    fault.add_argument("host", metavar="HOST")
    fault.add_argument("--peer", default="", help="cut only between HOST and this one")
    fault.add_argument("--one-way", action="store_true", help="cut only what HOST sends")
    commands.add_parser("ls", help="list labs")
    end = commands.add_parser("down", parents=[named], help="take everything away")
    end.add_argument("--stale", action="store_true", help="instead: all labs whose owner has ended")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run one lab command; return the exit code."""
    options = _parser().parse_args(argv)
    try:
        return _act(options)
    except LabError as error:
        print(f"corral lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _act(options: argparse.Namespace) -> int:
    match options.action:
        case "up":
            _up(options.name, options.nodes)
        case "exec":
            return _execute(options.name, options.host, options.command)
        case "status":
            _status(options.name, as_json=options.format == "json")
        case "fault":
            _fault(Lab.open(options.name), options)
        case "ls":
            print("\n".join(names()))
        case _:
            _down(options)
    return 0


def _up(name: str, nodes: int) -> None:
    start = time.monotonic()
    lab = Lab.up(name, nodes)
    took = time.monotonic() - start
    print(f"lab {name}: {len(lab.hosts)} hosts in {took:.1f} s")
    for host in lab.hosts.values():
        print(f"  {host.name:8} {host.address.ipv4:14} {host.fingerprint}")
    which = "" if name == "lab" else f" --name {name}"
    print(f"Every host's root accepts {lab.layout.key}.")
    print(f"Next: corral lab exec{which} n1 -- corral node add root@n2 --identity .ssh/id_ed25519")


def _execute(name: str, host: str, command: list[str]) -> int:
    argv = (
        Lab.open(name)
        .host(host)
        .argv(command[1:] if command[:1] == ["--"] else command or ["bash", "-l"])
    )
    os.execvp(argv[0], argv)


def _status(name: str, *, as_json: bool) -> None:
    lab = Lab.open(name)
    rows = [
        {
            "host": h.name,
            "address": h.address.ipv4,
            "state": "on" if h.pid else "off",
            "pid": h.pid,
            "boot_id": h.boot_id,
            "fingerprint": h.fingerprint,
            "faults": [vars(d) for d in sorted(lab.drops) if d.about(h.name)],
        }
        for h in lab.hosts.values()
    ]
    if as_json:
        print(json.dumps({"name": name, "key": str(lab.layout.key), "hosts": rows}, indent=2))
        return
    print(f"{'HOST':8} {'ADDRESS':14} {'STATE':6} FAULTS")
    for row in rows:
        found = [d for d in sorted(lab.drops) if d.about(str(row["host"]))]
        said = ", ".join(
            f"{d.source or 'any'} -> {d.target or 'any'} loses {d.percent} %" for d in found
        )
        print(f"{row['host']:8} {row['address']:14} {row['state']:6} {said or '-'}")


def _fault(lab: Lab, options: argparse.Namespace) -> None:
    host = lab.host(options.host)
    match options.kind:
        case "cut":
            lab.cut(host.name, options.peer, one_way=options.one_way)
        case "heal":
            lab.heal(host.name)
        case "poweroff":
            host.power_off()
        case "poweron":
            host.boot()
        case kind:
            host.freeze(frozen=kind == "freeze")


def _down(options: argparse.Namespace) -> None:
    if options.stale:
        for name in down_stale():
            print(f"lab {name} is down")
    elif down(options.name):
        print(f"lab {options.name} is down")
    else:
        print(f"there is no lab {options.name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
