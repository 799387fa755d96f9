"""`corral cp SERVICE:PATH DEST`, and back: files between containers and this machine.

Out of a service one replica's files are taken, into it all replicas get them, as with Compose;
``--index`` names one. ``-`` is a tar archive on standard input or output. A task's name or id may
stand for the service. What does not run is copied from and to just the same.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from orchestrator.cli import called, said
from orchestrator.cli.commands.exec import alive, write_all
from orchestrator.cli.commands.stats import decimal
from orchestrator.cli.errors import ERROR, CliError
from orchestrator.cli.show.containers import FINAL
from orchestrator.cli.show.order import natural
from orchestrator.client.errors import ClientError
from orchestrator.client.http import quote
from specs.kit import tarpacking, tarplacing
from specs.kit.copyrules import CopyRefused, Source, Spot, land, named
from specs.kit.errnos import in_words
from specs.kit.tarstream import BadArchive, TarStream

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from orchestrator.cli.session import Invocation
    from orchestrator.client.http import Download
    from specs.kit.tarstream import TarEntry

STDIN, STDOUT = 0, 1
PIECE = 256 * 1024


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = (
        "corral cp [options] SERVICE:PATH DEST|-\n       corral cp [options] SRC|- SERVICE:PATH"
    )
    add("source", metavar="SRC")
    add("dest", metavar="DEST")
    add("--index", type=int, default=0, metavar="N", help="replica N")
    add("--all", action="store_true", help="accepted; all replicas get what is copied to a service")
    add("-a", "--archive", action="store_true", help="owners as they are at the source")
    add("-L", "--follow-link", action="store_true", help="of a link SRC what it points to")


def split(word: str) -> tuple[str, str]:
    """Return service and path; no service where it is a path of this machine."""
    if word == "-" or word[:1] in (".", "/") or ":" not in word:
        return "", word
    service, _, path = word.partition(":")
    return service, path


def run(args: argparse.Namespace, session: Invocation) -> int:
    (from_service, source), (to_service, dest) = split(args.source), split(args.dest)
    if from_service and to_service:
        raise CliError(
            "copying between services is not supported",
            hint=f"corral cp {args.source} - | corral cp - {args.dest}",
        )
    if not from_service and not to_service:
        raise CliError("neither is a container's path", hint="corral cp web:/etc/hosts .")
    rows = session.client.get(session.path("tasks"), all=True, oneoffs=True)["tasks"]
    if from_service:
        if args.all:
            raise CliError("cannot use the --all flag when copying from a service")
        row = chosen(rows, from_service, args.index)[0]
        return _out(args, session, row, source, dest)
    return _into(args, session, chosen(rows, to_service, args.index), source, dest)


def chosen(rows: list[dict[str, Any]], service: str, index: int) -> list[dict[str, Any]]:
    """Return the containers meant, one for each replica, those that run first. Raises CliError."""
    mine = [row for row in rows if row.get("service") == service and not row.get("oneoff")]
    mine = called.serving(mine)
    if not mine:
        mine = called.containers(service, rows)
    if not mine:
        known = ", ".join(sorted({str(row.get("service")) for row in rows})) or "none"
        raise CliError(
            f"no container found for service {service!r}", hint=f"services with tasks: {known}"
        )
    best: dict[Any, dict[str, Any]] = {}
    for row in mine:  # of a slot the one that runs, else the last one that did
        place = row.get("slot") or row.get("name")
        if place not in best or _order(row) > _order(best[place]):
            best[place] = row
    found = sorted(best.values(), key=lambda row: natural(str(row.get("name"))))
    if index:
        found = [row for row in found if row.get("slot") == index]
        if not found:
            raise CliError(f"{service} has no replica {index}", hint="corral ps -a lists them")
    return sorted(found, key=lambda row: not alive(row))


def _order(row: dict[str, Any]) -> tuple[bool, float]:
    return alive(row), float(row.get("created_at") or 0)


# Out of a container.


def _out(
    args: argparse.Namespace, session: Invocation, row: dict[str, Any], path: str, dest: str
) -> int:
    if dest == "-" and os.isatty(STDOUT):
        raise CliError("an archive is not shown on a terminal", hint="corral cp ... - > FILE.tar")
    where = f"/v1/tasks/{quote(row['id'])}/archive"
    answer = session.client.download(where, path=path, follow=args.follow_link)
    try:
        if dest == "-":
            while piece := answer.more():
                write_all(STDOUT, piece)
            return 0
        return _place(args, row, answer, path, dest)
    finally:
        answer.close()


class _Peeked:
    """An archive whose first entry is looked at before it is known where it goes."""

    def __init__(self, answer: Download) -> None:
        self._stream = TarStream(answer.more)
        self._entries = iter(self._stream)
        self.first: TarEntry | None = next(self._entries, None)

    def __iter__(self) -> Iterator[TarEntry]:
        if self.first is not None:
            yield self.first
        yield from self._entries

    def pieces(self) -> Iterator[memoryview]:
        return self._stream.pieces()


def _place(
    args: argparse.Namespace, row: dict[str, Any], answer: Download, path: str, dest: str
) -> int:
    name, contents, _ = named(os.fsencode(path))
    last, nameless, slash = named(os.fsencode(dest))
    to = os.fsencode(dest).rstrip(b"/") or b"/"
    try:
        spot = Spot(directory=os.path.isdir(to), file=_is_file(to), slash=slash)
        archive = _Peeked(answer)
        folder_first = archive.first is not None and archive.first.kind == 0x35
        source = Source(name, directory=folder_first, contents=contents)
        landing = land(source, spot, name=last)
        if spot.file and not landing.inside:
            to = os.path.realpath(to)
            landing = landing._replace(name=os.path.basename(to))
        base = to if landing.inside or nameless else os.path.dirname(to) or b"."
        folder = _open_folder(base)
        try:
            placer = tarplacing.Placer(
                folder, landing, own=tarpacking.descriptors(),
                owners=args.archive, powers=args.archive,
            )  # fmt: skip
            placer.place(archive)
        finally:
            os.close(folder)
    except (CopyRefused, BadArchive) as refused:
        raise CliError(f"{dest}: {refused}") from None
    except OSError as error:
        raise CliError(f"{dest}: {in_words(error)}") from None
    if placer.left_out:
        said.tell(f"corral: devices left out: {placer.left_out}", said.WARNING)
    said.tell(f"{row['name']}: copied {decimal(placer.bytes)} to {dest}")
    return 0


def _is_file(path: bytes) -> bool:
    if os.path.isfile(path):
        return True
    if os.path.exists(path) and not os.path.isdir(path):
        raise CopyRefused("it is neither a file nor a folder, and would be replaced by what comes")
    return False


def _open_folder(path: bytes) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise CopyRefused(f"there is no folder {os.fsdecode(path)}") from None


# Into containers.


def _into(
    args: argparse.Namespace,
    session: Invocation,
    rows: list[dict[str, Any]],
    source: str,
    path: str,
) -> int:
    if source == "-" and len(rows) > 1:
        raise CliError(
            f"{rows[0]['service']} has {len(rows)} replicas, and an archive is read only once",
            hint="--index N names one",
        )
    if source == "-" and os.isatty(STDIN):
        raise CliError("an archive is not typed", hint="corral cp - ... < FILE.tar")
    failed = False
    for row in rows:
        try:
            done = _send(args, session, row, source, path)
        except ClientError as error:
            if len(rows) == 1:
                raise
            failed = True
            said.tell(f"corral: {row['name']}: {error}", said.ERROR)
            continue
        if done.get("left_out"):
            said.tell(f"corral: devices left out: {done['left_out']}", said.WARNING)
        size = decimal(int(done.get("bytes") or 0))
        said.tell(f"{row['name']}: copied {size} to {path}")
        if row.get("state") in FINAL and not row.get("oneoff"):
            said.tell(
                f"{row['name']} is stopped, and start makes it anew:"
                " only what went into a volume or a folder of its node is there then",
                said.WARNING,
            )
    return ERROR if failed else 0


def _send(
    args: argparse.Namespace, session: Invocation, row: dict[str, Any], source: str, path: str
) -> dict[str, Any]:
    where = f"/v1/tasks/{quote(row['id'])}/archive"
    if source == "-":
        done = session.client.upload(where, _from_input, path=path)
        return dict(done)
    handle, name, folder, contents = _local(source, follow=args.follow_link)
    try:

        def fill(send: Callable[[bytes], None]) -> None:
            own = tarpacking.descriptors()
            gathered = Gathered(send)
            owner = None if args.archive else (0, 0)
            try:
                tarpacking.Packer(gathered.add, own=own, owner=owner).pack(handle, name)
                gathered.flush()
            except OSError as error:
                shown = error.filename if isinstance(error.filename, str) else source
                raise CliError(f"{shown}: {in_words(error)}") from None
            finally:
                os.close(own)

        done = session.client.upload(
            where, fill, path=path, source=os.fsdecode(name), directory=folder, contents=contents
        )
        return dict(done)
    finally:
        os.close(handle)


class Gathered:
    """Small pieces become large ones: each is a system call and a chunk with a head."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._held = bytearray()

    def add(self, piece: bytes) -> None:
        self._held += piece
        if len(self._held) >= PIECE:
            self.flush()

    def flush(self) -> None:
        if self._held:
            self._send(bytes(self._held))
            self._held.clear()


def _from_input(send: Callable[[bytes], None]) -> None:
    first = True
    while piece := os.read(STDIN, PIECE):
        if first and (what := _packed(piece)):
            raise CliError(
                f"the archive is packed by {what}", hint=f"{what} -dc FILE | corral cp -"
            )
        first = False
        send(piece)
    if first:
        raise CliError("standard input holds no archive")


def _packed(head: bytes) -> str:
    marks = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
    return next((name for mark, name in marks.items() if head.startswith(mark)), "")


def _local(source: str, *, follow: bool) -> tuple[int, bytes, bool, bool]:
    """Return a handle of what is to be copied, its name, if it is a folder, if its contents."""
    path = os.fsencode(source)
    name, contents, slash = named(path)
    flags = os.O_PATH | os.O_CLOEXEC
    if not (follow or contents or slash):
        flags |= os.O_NOFOLLOW
    try:
        handle = os.open(path.rstrip(b"/") or b"/", flags)
    except OSError as error:
        raise CliError(f"{source}: {in_words(error)}") from None
    folder = stat.S_ISDIR(os.fstat(handle).st_mode)
    if (contents or slash) and not folder:
        os.close(handle)
        raise CliError(f"{source}: it is not a folder")
    return handle, name, folder, contents
