"""``corral lab``: hosts out of namespaces on this machine, from the command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from orchestrator.lab.faults import described, ordered
from orchestrator.lab.killing import WHAT
from orchestrator.lab.lab import Lab, down, down_stale, names
from orchestrator.lab.layout import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.lab.faults import Fault

FAULTS = (
    *("cut", "loss", "slow", "mtu", "disk-full", "clock", "heal"),
    *("kill", "poweroff", "poweron", "freeze", "thaw"),
)
# What each fault takes beside HOST.
TAKES = {
    "cut": {"peer", "one_way"},
    "loss": {"percent", "peer", "one_way"},
    "slow": {"rate", "queue"},
    "mtu": {"mtu", "silent"},
    "clock": {"seconds"},
    "kill": {"what", "word"},
}


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
    up.add_argument(
        "--disk",
        type=int,
        default=0,
        metavar="MIB",
        help="give each node a disk of its own of that size (default: a folder on the machine's)",
    )
    execute = commands.add_parser("exec", parents=[named], help="run a command on a host")
    execute.add_argument("host", metavar="HOST")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD")
    status = commands.add_parser("status", parents=[named], help="show hosts and faults")
    status.add_argument("--format", choices=("table", "json"), default="table")
    fault = commands.add_parser("fault", parents=[named], help="break a host, or mend it")
    _fault_options(fault)
    commands.add_parser("ls", help="list labs")
    end = commands.add_parser("down", parents=[named], help="take everything away")
    end.add_argument("--stale", action="store_true", help="instead: all labs whose owner has ended")
    return parser


def _fault_options(fault: argparse.ArgumentParser) -> None:
    fault.add_argument(
        "kind",
        choices=FAULTS,
        help="heal ends all but power and frost; poweron and thaw end those; a kill is done once",
    )
    fault.add_argument("host", metavar="HOST")
    fault.add_argument("what", nargs="?", choices=WHAT, help="kill: which process")
    fault.add_argument("--peer", help="cut, loss: only between HOST and this one")
    fault.add_argument("--one-way", action="store_true", help="cut, loss: only what HOST sends")
    fault.add_argument("--percent", type=int, help="loss: how many of 100 frames (default: 20)")
    fault.add_argument("--rate", type=int, help="slow: kbit/s each way (default: 1000)")
    fault.add_argument("--queue", type=int, help="slow: ms a frame waits at most (default: 400)")
    fault.add_argument("--mtu", type=int, help="mtu: bytes of the largest packet (default: 1300)")
    fault.add_argument(
        "--silent", action="store_true", help='mtu: larger ones vanish, no "fragmentation needed"'
    )
    fault.add_argument("--seconds", type=int, help="clock: off by so many from the next power-on")
    fault.add_argument("--word", help="kill: only the container with this in its monitor's words")


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
            _up(options.name, options.nodes, options.disk)
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


def _up(name: str, nodes: int, disk: int) -> None:
    start = time.monotonic()
    lab = Lab.up(name, nodes, disk=disk)
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
            "faults": [described(fault) for fault in _about(lab, h.name)],
        }
        for h in lab.hosts.values()
    ]
    if as_json:
        print(json.dumps({"name": name, "key": str(lab.layout.key), "hosts": rows}, indent=2))
        return
    print(f"{'HOST':8} {'ADDRESS':14} {'STATE':6} FAULTS")
    for row in rows:
        said = ", ".join(map(str, _about(lab, str(row["host"]))))
        print(f"{row['host']:8} {row['address']:14} {row['state']:6} {said or '-'}")


def _about(lab: Lab, host: str) -> list[Fault]:
    return [fault for fault in ordered(lab.inflicted) if fault.about(host)]


def _fault(lab: Lab, options: argparse.Namespace) -> None:
    host, kind = lab.host(options.host), options.kind
    every = set().union(*TAKES.values())
    asked = {name: getattr(options, name) for name in every}
    given = {
        name: value for name, value in asked.items() if value is not None and value is not False
    }
    for name in sorted(given.keys() - TAKES.get(kind, set())):
        takers = " and ".join(taker for taker, taken in TAKES.items() if name in taken)
        said = "a process" if name == "what" else f"--{name.replace('_', '-')}"
        raise LabError(f"{said} is for {takers}, not for {kind}")
    match kind:
        case "cut":
            lab.cut(host.name, **given)
        case "loss":
            lab.lose(host.name, given.pop("percent", 20), **given)
        case "slow":
            lab.slow(host.name, **given)
        case "mtu":
            lab.small_mtu(host.name, **given)
        case "disk-full":
            lab.fill_disk(host.name)
        case "clock":
            _clock(lab, host.name, given)
        case "heal":
            lab.heal(host.name)
        case "kill":
            _kill(lab, host.name, given)
        case "poweroff":
            host.power_off()
        case "poweron":
            host.boot()
        case _:
            host.freeze(frozen=kind == "freeze")


def _clock(lab: Lab, host: str, given: dict[str, Any]) -> None:
    if "seconds" not in given:
        raise LabError("clock: say how far off, as --seconds -3600")
    lab.wrong_clock(host, given["seconds"])


def _kill(lab: Lab, host: str, given: dict[str, Any]) -> None:
    if "what" not in given:
        raise LabError(f"kill: say what: {', '.join(WHAT)}")
    count = lab.kill(host, given["what"], given.get("word", ""))
    print(f"killed on {host}: {count} {given['what']}")


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
