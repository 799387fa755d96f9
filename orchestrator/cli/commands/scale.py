"""`corral scale SERVICE=N ...`: a replica count that outlives the next `up`.

A scaled stack makes no release, so there is no progress stream to follow: the
stack's own rows are looked at until they are as wanted.
"""

from __future__ import annotations

import sys
import time

from orchestrator.cli import deploy
from orchestrator.cli.errors import INTERRUPTED, CliError
from orchestrator.cli.show import board as boards
from orchestrator.cli.show import watch
from orchestrator.cli.show.rows import lines_of
from orchestrator.client.errors import NoAnswer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Mapping
    from typing import Any

    from orchestrator.cli.session import Invocation

LOOK = 0.15  # seconds
LEAVING = 30.0  # of these, when only tasks that should go are left
STUCK = 120.0  # seconds without progress after which waiting ends


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("counts", nargs="+", metavar="SERVICE=N", help="replicas of the service")
    add("-d", "--detach", action="store_true", help="do not wait until they run")
    add("--no-deps", action="store_true", help="accepted; scaling never touches dependencies")


def run(args: argparse.Namespace, session: Invocation) -> int:
    counts = deploy.scales(args.counts)
    board = boards.Board(session.stack(), "scale")
    rows = session.client.get(session.path("tasks"), all=True)["tasks"]
    mine = [row for row in rows if row.get("service") in counts]
    for line in lines_of({}, mine):
        board.apply(line)  # what is there already is no news
    # What did not work before is not scaling's to wait for: a paused update leaves such tasks.
    broken = {
        row.get("id")
        for row in mine
        if not row.get("ready") and (row.get("restarts") or row.get("health") == "unhealthy")
    }
    answer = session.client.persist("POST", session.path("scale"), body={"services": counts})
    if answer and answer.get("warnings"):
        from orchestrator.cli import findings

        findings.show_json(answer["warnings"])
    if args.detach:
        return 0
    command = watch.command_prefix(session)
    view = watch.make_view(board)
    began = time.monotonic()
    try:
        reached = _until_reached(session, board, counts, view, broken)
    except KeyboardInterrupt:
        view.close()
        print(f"\nscaling goes on in the background: {command} ps", file=sys.stderr)
        return INTERRUPTED
    finally:
        view.close()
    if not reached:
        reasons = ", ".join(boards.waiting(board)) or "no reason given"
        raise CliError(
            f"no progress for {STUCK:.0f} s: {reasons}",
            hint=f"{command} ps; it goes on when that changes",
        )
    board.end = {"message": ", ".join(f"{name} {n}/{n}" for name, n in counts.items())}
    return watch.report(board, good=True, seconds=time.monotonic() - began, command=command)


def _until_reached(
    session: Invocation,
    board: boards.Board,
    counts: Mapping[str, int],
    view: watch.View,
    broken: Collection[Any],
) -> bool:
    """Look until every service has as many ready tasks as wanted; False = it is stuck.

    What is too many must have ended, too, but is not waited for where nothing moves any
    more: its node may be away.
    """
    seen: Any = None
    best: dict[str, int] = {}
    changed = time.monotonic()
    while True:
        try:
            services = session.client.get(session.path())["services"]
            rows = session.client.get(session.path("tasks"), all=True)["tasks"]
        except NoAnswer:
            services, rows = [], []  # it comes back, or nothing changes for too long
        mine = {row["name"]: row for row in services if row.get("name") in counts}
        for line in lines_of(mine, [row for row in rows if row.get("service") in counts]):
            view.update(board.apply(line))
        spared = [
            row.get("service") for row in rows if row.get("id") in broken and not row.get("ready")
        ]
        there = bool(mine) and all(
            settled(mine.get(name), n, n - spared.count(name)) for name, n in counts.items()
        )
        if there and not too_many(rows, counts):
            return True
        # A crash loop is ready now and then for ever: only more than ever before is progress.
        for name, row in mine.items():
            best[name] = max(best.get(name, 0), int(row.get("ready") or 0))
        now = (dict(best), [(row.get("id"), row.get("state")) for row in rows])
        if now != seen:
            seen, changed = now, time.monotonic()
        elif time.monotonic() - changed > (LEAVING if there else STUCK):
            return there
        time.sleep(LOOK)


def too_many(rows: list[dict[str, Any]], counts: Mapping[str, int]) -> bool:
    """Say whether tasks that are no longer wanted still run; a dead node's are not awaited."""
    left = [
        row.get("service")
        for row in rows
        if row.get("state") not in boards.ENDED and row.get("node_status") != "down"
    ]
    return any(left.count(name) > count for name, count in counts.items())


def settled(row: Mapping[str, Any] | None, count: int, ready: int) -> bool:
    """Say whether the service has exactly the wanted replicas, and so many of them ready."""
    if row is None:
        return False
    return row.get("tasks") == count and int(row.get("ready") or 0) >= ready
