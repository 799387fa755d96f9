"""`corral doctor`: look at everything once; say what is wrong, how that is seen, and what helps.

``--bundle FILE`` writes what it saw for somebody else to look at: field by field, without
environments, commands, labels of containers, their logs, or reasons in other people's words.
"""

from __future__ import annotations

import os
import time
from functools import partial

from orchestrator.cli.commands.metrics import fetched
from orchestrator.cli.errors import ERROR
from orchestrator.cli.show import diagnosis, table
from orchestrator.client.errors import ApiRefusal, ClientError
from orchestrator.client.http import quote
from orchestrator.client.places import state_dir
from specs.kit import jsontext, versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from orchestrator.cli.session import Invocation

PATIENCE = 60.0  # seconds for an answer that looks at every record
# What of the rows goes into a bundle.
OF_TASKS = (
    *("name", "service", "node", "state", "ready", "health", "exit_code", "restarts", "release"),
    *("created_at", "started_at", "finished_at"),
)
OF_STACKS = ("name", "status", "release", "services", "tasks")
OF_NODES = (
    *("id", "name", "status", "reason", "availability", "address", "cpus", "memory", "version"),
    *("age", "warnings", "facts", "underlay", "overlay", "mtu", "joined_at"),
)


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("pretty", "json"), default="pretty")
    parser.add_argument(
        "--bundle", metavar="FILE", help="write what was seen, without secrets, for others to read"
    )
    parser.add_argument("-f", "--force", action="store_true", help="write over FILE")


def run(args: argparse.Namespace, session: Invocation) -> int:
    if args.bundle is not None:
        from orchestrator.cli import outfile  # the lines need none of it

        outfile.check(args.bundle, force=args.force)
    facts = gather(session)
    lines = diagnosis.diagnose(facts)
    if args.bundle is not None:
        _write(args.bundle, bundle(facts, lines))
    if args.format == "json":
        print(jsontext.shown([line.whole() for line in lines]))
    else:
        for line in lines:
            print(table.printable(f"{line.level:<8}{line.what}: {line.evidence}"))
            if line.fix and line.level != diagnosis.OK:
                print(table.printable(f"        fix: {line.fix}"))
    return ERROR if any(line.level == diagnosis.ERROR for line in lines) else 0


def gather(session: Invocation) -> dict[str, Any]:
    """Return what can be asked; what cannot be is in ``unasked``, with the reason."""
    facts: dict[str, Any] = {"now": time.time(), "corral": versions.installed(), "unasked": {}}
    if session.client.local:
        facts["disk"] = _disk(state_dir())
    try:
        facts["version"] = session.client.get("/v1/version")
    except ClientError as exc:
        facts["unasked"]["controller"] = str(exc)
        return facts
    ask = partial(_ask, facts, session)
    facts["state"] = ask("/v1/state")
    facts["check"] = ask("/v1/state/check")
    facts["backups"] = ask("/v1/backups")
    facts["export"] = (ask("/v1/state/export") or {}).get("state")
    listed = ask("/v1/nodes") or {"nodes": []}
    facts["undecided"] = listed.get("undecided")
    facts["nodes"] = [
        {**row, **(ask(f"/v1/nodes/{quote(str(row['name']))}") or {})} for row in listed["nodes"]
    ]
    facts["stacks"] = (ask("/v1/stacks") or {"stacks": []})["stacks"]
    facts["tasks"] = {
        name: (ask(f"/v1/stacks/{quote(name)}/tasks") or {"tasks": []})["tasks"]
        for name in (str(row["name"]) for row in facts["stacks"])
    }
    _figures(facts, session)
    return facts


def _ask(facts: dict[str, Any], session: Invocation, path: str) -> dict[str, Any] | None:
    """Return an answer; None where there is none, which is noted with the reason."""
    try:
        found: dict[str, Any] = session.client.request("GET", path, timeout=PATIENCE)
    except ApiRefusal as exc:
        facts["unasked"][path] = (
            f"{exc} (a controller of before?)" if exc.status == 404 else str(exc)
        )
    except ClientError as exc:
        facts["unasked"][path] = str(exc)
    else:
        return found
    return None


def _figures(facts: dict[str, Any], session: Invocation) -> None:
    facts["node_figures"] = {}
    ready = [str(row["name"]) for row in facts["nodes"] if row.get("status") == "ready"]
    for name, path in (
        ("", "/v1/metrics"),
        *((name, f"/v1/nodes/{quote(name)}/metrics") for name in ready),
    ):
        try:
            found = diagnosis.figures(fetched(session, path))
        except ClientError as exc:
            facts["unasked"][path] = str(exc)
            continue
        if name:
            facts["node_figures"][name] = found
        else:
            facts["figures"] = found


def _disk(path: str) -> dict[str, Any] | None:
    """Return the disk of a path, in bytes; ``total`` is what others than root may use, as in df.

    What is kept from them is no part of it, whether it is a reserve or another's quota.
    """
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    block = found.f_frsize
    used = found.f_blocks - found.f_bfree
    free = found.f_bavail
    return {"path": path, "free": free * block, "total": (used + free) * block}


def bundle(facts: dict[str, Any], lines: list[diagnosis.Line]) -> dict[str, Any]:
    """Return what may be given to others: named fields, and never whole answers."""
    backups = facts.get("backups") or {}
    return {
        "made_at": facts["now"],
        "corral": facts["corral"],
        "version": facts.get("version"),
        "findings": [line.shared() for line in lines],
        "unasked": sorted(facts["unasked"]),
        "disk": facts.get("disk"),
        "behind": bool((facts.get("state") or {}).get("behind")),
        "records": facts.get("check"),
        "backups": {
            name: backups.get(name) for name in ("cron", "keep", "encrypted", "next_at", "last_at")
        },
        "nodes": [_only(row, OF_NODES) for row in facts.get("nodes") or ()],
        "stacks": [_only(row, OF_STACKS) for row in facts.get("stacks") or ()],
        "tasks": {
            stack: [_only(row, OF_TASKS) for row in rows]
            for stack, rows in (facts.get("tasks") or {}).items()
        },
        "state": facts.get("export"),
        "figures": facts.get("figures"),
        "node_figures": facts.get("node_figures"),
    }


def _only(row: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}


def _write(path: str, found: dict[str, Any]) -> None:
    from orchestrator.cli import outfile  # the lines need none of it

    with outfile.whole(path) as file:
        file.write((jsontext.shown(found) + "\n").encode())
