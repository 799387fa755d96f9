"""`corral volume backup` and `restore`: a volume's data as a tar archive on this machine.

Any tar reads it. What is packed (.tar.gz, .tgz) says by its checksum that it is whole; of a plain
one the end is looked at. A file has its name when all of it is on the disk.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import time
import zlib
from typing import TYPE_CHECKING, Any

from orchestrator.cli import outfile, said
from orchestrator.cli.commands.exec import write_all
from orchestrator.cli.errors import CliError
from orchestrator.client.errors import ApiNotFound
from orchestrator.client.http import quote
from specs.kit.amounts import size
from specs.kit.errnos import in_words
from specs.kit.tarends import TarEnds

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from orchestrator.cli.session import Invocation
    from orchestrator.client.client import Client

STDIN, STDOUT = 0, 1
PIECE = 256 * 1024
PACKED = (".tar.gz", ".tgz")
QUICK = 1  # gzip's level: the network and the disk are not to wait for a processor
_MAGIC = b"\x1f\x8b"
FROZEN = 30.0  # seconds for containers to be frozen
LOOK = 0.1


def backup(args: argparse.Namespace, session: Invocation) -> int:
    """Write the volume's archive to a file, or to standard output."""
    path = f"/v1/volumes/{quote(args.name)}"
    row = session.client.get(path)
    to = args.output or f"{args.name}.tar.gz"
    if to == "-" and os.isatty(STDOUT):
        raise CliError("an archive is not shown on a terminal", f"corral volume backup {args.name}")
    if to != "-":
        outfile.check(to, force=args.force)
    frozen = _frozen(session.client, row["services"]) if args.pause else contextlib.nullcontext()
    with frozen:
        answer = session.client.download(f"{path}/archive", node=args.node)
        try:
            if to == "-":
                while piece := answer.more():
                    write_all(STDOUT, piece)
                return 0
            whole = _kept(to, answer.more)
        finally:
            answer.close()
    said.tell(f"volume {args.name}: {size(whole)} in {to}")
    if not args.pause and _running(session.client, row["services"]):
        users = ", ".join(row["services"])
        said.tell(
            f"  warning: {users} ran meanwhile: what was written is there as it was at one moment "
            "or another; --pause freezes them, a database's own dump needs neither",
            said.WARNING,
        )
    return 0


def _kept(to: str, more: Callable[[], bytes]) -> int:
    """Write an archive to a file that has its name when it is whole; return its size."""
    with outfile.whole(to) as file:
        if to.endswith(PACKED):
            with gzip.GzipFile("", "wb", QUICK, file, mtime=0) as packer:
                _pour(more, packer.write)
        else:
            _pour(more, file.write)
        file.flush()
        return file.tell() if file.seekable() else 0


def _pour(more: Callable[[], bytes], write: Callable[[bytes], Any]) -> None:
    while piece := more():
        write(piece)


def restore(args: argparse.Namespace, session: Invocation) -> int:
    """Make an archive the volume's data: all of it, or nothing is changed."""
    if args.file == "-" and os.isatty(STDIN):
        raise CliError("an archive is not typed", f"corral volume restore {args.name} - < FILE.tar")
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC
        fd = os.dup(STDIN) if args.file == "-" else os.open(args.file, flags)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise CliError(f"{args.file} is a folder", f"tar -C {args.file} -c . | ... restore -")
    except OSError as error:
        raise CliError(f"{args.file}: {in_words(error)}") from None
    with open(fd, "rb") as source:
        head = source.peek(2)[:2]
        packed = head == _MAGIC
        if not head:
            raise CliError(f"{args.file} is empty")
        plain = 0 if packed or not source.seekable() else os.fstat(source.fileno()).st_size

        def fill(send: Callable[[bytes], None]) -> None:
            try:
                for piece in _checked(source, packed=packed):
                    send(piece)
            except (OSError, EOFError, zlib.error) as error:
                why = in_words(error) if isinstance(error, OSError) and error.errno else error
                raise CliError(
                    f"{args.file} is damaged or not whole: {why}", "nothing was changed"
                ) from None

        done = session.client.upload(
            f"/v1/volumes/{quote(args.name)}/archive",
            fill,
            node=args.node,
            replace=args.force,
            size=plain or None,
        )
    said.tell(f"volume {args.name} on {done['node']} has what {args.file} holds")
    return 0


def _checked(source: Any, *, packed: bool) -> Iterator[bytes]:
    """Yield a tar archive. Raises where it is damaged, or ends before its end."""
    opened = gzip.GzipFile(fileobj=source) if packed else source
    ends = TarEnds()
    while piece := opened.read(PIECE):
        ends.see(piece)
        if why := ends.beginning():
            raise EOFError(why)
        yield piece
    if why := ends.fault():
        raise EOFError(why)


@contextlib.contextmanager
def _frozen(client: Client, services: list[str]) -> Iterator[None]:
    """Freeze the services (STACK/SERVICE) that run while the block does.

    What was frozen before stays so.
    """
    asked: list[tuple[str, list[str], set[str]]] = []
    try:
        for stack, names in _by_stack(services).items():
            with contextlib.suppress(ApiNotFound):  # the volume outlived it
                rows = _tasks(client, stack)
                before = {str(row["id"]) for row in rows if row.get("paused")}
                asked.append((stack, names, before))
                _pause(client, stack, names, paused=True)
        yield
    finally:
        for stack, names, before in asked:
            with contextlib.suppress(ApiNotFound):
                _go_on(client, stack, names, before)


def _go_on(client: Client, stack: str, names: list[str], before: set[str]) -> None:
    """Have services go on, but for the containers that were frozen before."""
    rows = _tasks(client, stack) if before else []
    mine = [row for row in rows if row["service"] in names]
    still = {row["service"] for row in mine if row["id"] in before}
    if whole := [name for name in names if name not in still]:
        _pause(client, stack, whole, paused=False)
    for row in mine:
        if row["service"] in still and row["id"] not in before and not row.get("finished_at"):
            with contextlib.suppress(ApiNotFound):  # it has ended meanwhile
                _pause(client, stack, [str(row["name"])], paused=False)


def _pause(client: Client, stack: str, names: list[str], *, paused: bool) -> None:
    body = {"paused": paused, "services": names}
    left = set(client.persist("POST", f"/v1/stacks/{quote(stack)}/pause", body=body)["tasks"])
    until = time.monotonic() + FROZEN
    while True:
        rows = {row["id"]: row for row in _tasks(client, stack)}
        left = {
            task
            for task in left
            if task in rows
            and bool(rows[task].get("paused")) is not paused
            and not rows[task].get("finished_at")
        }
        if not left:
            return
        if time.monotonic() > until:
            said = ", ".join(sorted(rows[task]["name"] for task in left))
            raise CliError(
                f"{said}: not {'frozen' if paused else 'going on'} after {FROZEN:g} s",
                f"corral -p {stack} unpause",
            )
        time.sleep(LOOK)


def _tasks(client: Client, stack: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v1/stacks/{quote(stack)}/tasks")["tasks"]
    return found


def _by_stack(services: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in services:
        stack, _, service = word.partition("/")
        found.setdefault(stack, []).append(service)
    return found


def _running(client: Client, services: list[str]) -> bool:
    """Say whether anything of the services (STACK/SERVICE) runs."""
    for stack, names in _by_stack(services).items():
        with contextlib.suppress(ApiNotFound):
            for row in _tasks(client, stack):
                if row["service"] in names and not row.get("finished_at") and row.get("started_at"):
                    return True
    return False
