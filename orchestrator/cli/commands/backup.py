"""`corral backup [ls|verify]`: copies of the controller's state, made while it works.

What is in one: docs/backup.md. The controller encrypts it and sends the file; it is written where
this command runs. With ``--schedule`` the controller makes them itself, on its own machine.
"""

from __future__ import annotations

import os
import sys

from orchestrator.cli import outfile, passphrase, said
from orchestrator.cli.errors import ERROR, USAGE, CliError
from orchestrator.cli.show import table, times
from specs.kit.amounts import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from typing import Any

    from orchestrator.cli.session import Invocation
    from orchestrator.client.http import Download

OFF = "off"
LISTING = 10.0  # seconds a disk has to say what is on it


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--to", metavar="FILE|DIR", help="where to (.); - = standard output")
    add("--plain", action="store_true", help="not encrypted: who has the file has the cluster")
    add("-f", "--force", action="store_true", help="write over FILE")
    passphrase.describe(parser)
    add("--schedule", metavar="CRON", help="have the controller make them: '0 3 * * *' (UTC); off")
    add("--keep", type=int, metavar="N", help="of its own, keep so many (7)")
    kinds = parser.add_subparsers(dest="action", metavar="ACTION")
    sub = kinds.add_parser("ls", help="list backups, and say how the schedule goes")
    sub.add_argument("folder", nargs="?", metavar="DIR", help="a folder here (the schedule's)")
    sub.add_argument("--format", choices=("pretty", "json"), default="pretty")
    sub = kinds.add_parser("verify", help="try to restore one, without touching anything")
    sub.add_argument("file", metavar="FILE")
    sub.add_argument(
        "--passphrase-file", metavar="FILE", help="as above", default=None, dest="own_file"
    )


def run(args: argparse.Namespace, session: Invocation) -> int:
    if args.action == "ls":
        return _ls(args, session)
    if args.action == "verify":
        return _verify(args.file, args.own_file or args.passphrase_file)
    if args.schedule is not None:
        return _schedule(args, session)
    if args.keep is not None:
        raise CliError("--keep belongs to --schedule", "corral backup --help", code=USAGE)
    return _make(args, session)


# Making one.


def _make(args: argparse.Namespace, session: Invocation) -> int:
    if args.to == "-" and sys.stdout.isatty():
        raise CliError("a backup is nothing for a terminal", "--to FILE", code=USAGE)
    words = "" if args.plain else passphrase.ask(args.passphrase_file, twice=True)
    body = {"passphrase": words, "plain": args.plain}
    coming = session.client.download("/v1/backups", method="POST", body=body)
    try:
        if args.to == "-":
            _pour(coming, 1)
            return 0
        path = _target(args.to, coming)
        outfile.check(path, force=args.force)
        with outfile.whole(path) as file:
            while part := coming.more():
                file.write(part)
    finally:
        coming.close()
    kind = "not encrypted: who has it has the cluster" if args.plain else "encrypted"
    print(f"{table.printable(path)}: {size(os.stat(path).st_size)}, {kind}")
    return 0


def _target(to: str | None, coming: Download) -> str:
    told = coming.headers.get("content-disposition", "")
    name = os.path.basename(told.partition('filename="')[2].rstrip('"')) or "corral.backup"
    if to is None or os.path.isdir(to) or to.endswith("/"):
        return os.path.join(to or ".", name)
    return to


def _pour(coming: Download, descriptor: int) -> None:
    while part := coming.more():
        view = memoryview(part)
        while view:
            view = view[os.write(descriptor, view) :]


# The schedule.


def _schedule(args: argparse.Namespace, session: Invocation) -> int:
    if args.schedule.strip().lower() in (OFF, ""):
        session.client.request("PUT", "/v1/backups/schedule", body={})
        print("no backups are made by themselves any more; what there is stays")
        return 0
    if not args.to or args.to == "-":
        raise CliError(
            "a schedule needs a folder of the controller's machine",
            hint="--to DIR: another disk, or what another machine lends that one",
            code=USAGE,
        )
    if session.client.local:
        args.to = os.path.abspath(os.path.expanduser(args.to))
    body = {
        "cron": args.schedule,
        "to": args.to,
        "keep": 7 if args.keep is None else args.keep,
        "plain": args.plain,
        "passphrase": "" if args.plain else passphrase.ask(args.passphrase_file, twice=True),
    }
    found = session.client.request("PUT", "/v1/backups/schedule", body=body)
    _say_schedule(found)
    return 0


def _say_schedule(found: Mapping[str, Any]) -> None:
    if not found.get("cron"):
        print("no backups are made by themselves: corral backup --schedule CRON --to DIR")
        return
    kind = "encrypted" if found.get("encrypted") else "not encrypted"
    print(
        f"{found['cron']} (UTC) into {table.printable(str(found['to']))}, {kind}, "
        f"{found['keep']} are kept; the next is due {times.rfc3339(float(found['next_at']))}"
    )


# Looking.


def _ls(args: argparse.Namespace, session: Invocation) -> int:
    from specs.kit import jsontext

    if args.folder is not None:
        found: dict[str, Any] = {"files": _looked_at(args.folder)}
    else:
        found = session.client.get("/v1/backups", patience=30.0)
    if args.format == "json":
        print(jsontext.shown(found))
        return 0
    if args.folder is None:
        _say_schedule(found)
        if found.get("warning"):
            warning = table.printable(str(found["warning"]))
            said.tell(f"corral: warning: {warning}", said.WARNING)
        last = float(found.get("last_at") or 0.0)
        print(f"the newest was made {times.rfc3339(last)}" if last else "none was made here yet")
    rows = found.get("files") or []
    if rows or args.folder is not None:
        table.show(_table(rows))
    return ERROR if found.get("warning") else 0


def _looked_at(folder: str) -> list[dict[str, Any]]:
    """Return the backups of a folder here. Raises CliError, also where its disk is silent."""
    import queue
    import threading

    from orchestrator.backups import keeping  # it reads heads as the controller does

    answer: queue.Queue[list[dict[str, Any]] | OSError] = queue.Queue()

    def look() -> None:
        try:
            answer.put([row.model_dump() for row in keeping.rows(_path(folder))])
        except OSError as exc:
            answer.put(exc)

    threading.Thread(target=look, name="backups-list", daemon=True).start()
    try:
        found = answer.get(timeout=LISTING)
    except queue.Empty:
        raise CliError(
            f"{folder} does not answer after {LISTING:g} s: is its disk there?"
        ) from None
    if isinstance(found, OSError):
        raise found
    return found


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    return table.render(
        ("FILE", "MADE", "SIZE", "CLUSTER", "CORRAL", "KIND"),
        [
            (
                os.path.basename(str(row["file"])),
                times.rfc3339(float(row["made_at"])) if row["made_at"] else "-",
                size(row["size"]),
                row["cluster"],
                row["corral"],
                row["trouble"] or _kind(row),
            )
            for row in rows
        ],
    )


def _kind(row: Mapping[str, Any]) -> str:
    return ", ".join(
        (
            "scheduled" if row["scheduled"] else "by hand",
            "encrypted" if row["encrypted"] else "plain",
        )
    )


def _verify(file: str, words: str | None) -> int:
    from orchestrator.backups import envelope, verifying  # what a controller needs, too

    try:
        found = verifying.verify(_path(file), lambda: passphrase.ask(words))
    except envelope.BadBackup as exc:
        raise CliError(str(exc), exc.hint) from None
    print(f"{table.printable(file)}: {describe_backup(found)}")
    for one in found.check.findings:
        print(f"{one.severity}: {table.printable(one.key)} {table.printable(one.what)}")
    errors = len(found.check.errors)
    print(f"{found.check.records} records, {errors} error{'s' if errors != 1 else ''}")
    return ERROR if errors else 0


def describe_backup(found: Any) -> str:
    """Return what a verified backup is, in a line."""
    head = found.head
    when = times.rfc3339(float(head.made_at))
    return (
        f"cluster {head.cluster} as of {when}, made on {head.host} by corral {head.corral}, epoch "
        f"{head.epoch}; {len(found.stacks)} stacks, {len(found.nodes)} nodes"
    )


def _path(text: str) -> Any:
    from pathlib import Path

    return Path(text)
