"""`corral scale SERVICE=N ...`: a replica count that outlives the next `up`.

A scaled stack makes no release, so there is no progress stream to follow: the
stack's own rows are looked at, and ``show.scaling`` judges what scaling added. Where it
starts what was stopped there is a release, and it is watched as that of `start` is.
"""

from __future__ import annotations

import time

from orchestrator.cli import deploy, said
from orchestrator.cli.errors import INTERRUPTED
from orchestrator.cli.show import board as boards
from orchestrator.cli.show import watch
from orchestrator.cli.show.rows import lines_of
from orchestrator.cli.show.scaling import Scaling
from orchestrator.client.errors import NoAnswer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation

LOOK = 0.15  # seconds


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("counts", nargs="+", metavar="SERVICE=N", help="replicas of the service")
    add("-d", "--detach", action="store_true", help="do not wait until they run")
    add(
        "--no-deps",
        action="store_true",
        help="accepted; what is stopped starts after what it depends on",
    )


def run(args: argparse.Namespace, session: Invocation) -> int:
    counts = deploy.scales(args.counts)
    board = boards.Board(session.stack(), "scale")
    rows = session.client.get(session.path("tasks"), all=True)["tasks"]
    mine = [row for row in rows if row.get("service") in counts]
    for line in lines_of({}, mine):
        board.apply(line)  # what is there already is no news
    answer = session.client.persist("POST", session.path("scale"), body={"services": counts}) or {}
    if answer.get("warnings"):
        from orchestrator.cli import findings

        findings.show_json(answer["warnings"])
    command = watch.command_prefix(session)
    if answer.get("status") == "stopped":
        numbers = ", ".join(f"{name}={count}" for name, count in counts.items())
        said.tell(f"{board.stack} is stopped; noted for its next start: {numbers}", said.WARNING)
        return 0
    if args.detach:
        return 0
    if answer.get("started"):
        return watch.release(
            session,
            board,
            answer["started"],
            limit=None,
            patient=False,
            late="does not run",
            interrupted=lambda: f"scaling goes on in the background: {command} ps",
        )
    view = watch.make_view(board)
    began = time.monotonic()
    scaling = Scaling(board.stack, counts, mine, began)
    try:
        good = _watch(session, board, scaling, view)
    except KeyboardInterrupt:
        view.close()
        said.tell(f"\nscaling goes on in the background: {command} ps", said.WARNING)
        return INTERRUPTED
    finally:
        view.close()
    return _tell(session, board, scaling, good=good, seconds=time.monotonic() - began)


def _watch(session: Invocation, board: boards.Board, scaling: Scaling, view: watch.View) -> bool:
    """Look until scaling is over; return whether what it added came to stay."""
    while True:
        try:
            services = session.client.get(session.path())["services"]
            rows = session.client.get(session.path("tasks"), all=True)["tasks"]
        except NoAnswer:
            services, rows = None, []  # it comes back, or nothing moves for too long
        now = time.monotonic()
        if services is not None:
            mine = {row["name"]: row for row in services if row.get("name") in scaling.counts}
            shown = [row for row in rows if row.get("service") in scaling.counts]
            for line in lines_of(mine, shown):
                view.update(board.apply(line))
            wanted = {n: r.get("replicas") for n, r in mine.items() if r.get("mode") != "global"}
            queued = {name: int(row.get("queued") or 0) for name, row in mine.items()}
            scaling.look(rows, now, wanted, queued)
        if scaling.over(now):
            return scaling.settled(now)
        time.sleep(LOOK)


def _tell(
    session: Invocation, board: boards.Board, scaling: Scaling, *, good: bool, seconds: float
) -> int:
    """Say how it ended; return the exit code."""
    command = watch.command_prefix(session)
    for text in scaling.broken():
        said.tell(f"warning: as it was before scaling: {text}", said.WARNING)
    if good:
        board.end = {"ok": True, "message": scaling.reached()}
        return watch.report(board, good=True, seconds=seconds, command=command)
    row, why = scaling.wrong(time.monotonic())
    hint = f"{command} ps; it goes on when that changes"
    board.end = {"ok": False, "message": why, "hint": "" if row else hint}
    if row:
        board.end |= {
            "service": row.get("service"),
            "task": row.get("id"),
            "exit_code": row.get("exit_code"),
        }
        watch.last_words(session, board)
    return watch.report(board, good=False, seconds=seconds, command=command)
