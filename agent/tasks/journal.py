"""The agent's crash-safe memory: who instructs it, what it should hold, what it did.

``agent/tasks/worker.py`` accepts instructions through it, runners record their tasks. A
SIGKILL at any instant loses nothing that was acknowledged; a power cut loses no
instruction and no final state (those are fsynced: file, folder, and the folder's own name), and a
record that is merely of this boot may be older, which is harmless after a reboot.

Files below the state directory::

    journal/set.log       line 1: the full set; then increments; each with a checksum
    journal/contents/ID   configs
    tasks/ID/record.json  one task's Record, as of its last move that a reboot must not undo

and below the run directory (tmpfs) ``records/ID``: the Record as of now. Most writes
are of this boot only (pids, phases) and cost no disk write; a SIGKILL loses none.

Secrets are never written here: they are kept in ``secrets`` on a tmpfs, and after
a reboot the controller sends them again.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agent.tasks.record import Record
from specs.kit.disk import make_folder, sweep, sync, write_all, write_file
from specs.wire import KINDS, Content, Instructions, NodeSelf, Objects, Refused, Stamp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

log = logging.getLogger(__name__)

COMPACT_AT = 4 << 20  # bytes of increments after which the set is written anew
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def safe_id(text: str) -> bool:
    """Say whether an id from outside can be used as a file name."""
    return _ID.fullmatch(text) is not None and ".." not in text


@dataclass(frozen=True)
class Held:
    """What the node should hold, by the newest instructions."""

    stamp: Stamp | None = None
    me: NodeSelf | None = None
    objects: Objects = field(default_factory=Objects)


def judge(seen: Stamp | None, instructions: Instructions) -> Refused | None:  # noqa: PLR0911 - a table of rules
    """Return why instructions are not taken, by the rules of ``specs.wire``; None = take them."""
    stamp, base = instructions.stamp, instructions.base
    if seen is None:
        return (
            None if base is None else Refused(reason="base", message="this node holds nothing yet")
        )
    if stamp.cluster != seen.cluster:
        return Refused(
            reason="cluster",
            message=f"this node belongs to cluster {seen.cluster}, not {stamp.cluster}",
            seen=seen,
        )
    if stamp.epoch < seen.epoch:
        return Refused(
            reason="epoch",
            message=f"a newer controller has spoken: epoch {seen.epoch}, yours is {stamp.epoch}",
            seen=seen,
        )
    if stamp.epoch > seen.epoch:
        if base is None:
            return None
        return Refused(reason="base", message="a new epoch begins with the full set", seen=seen)
    if stamp.generation < seen.generation:
        return Refused(
            reason="base",
            message=f"generation {stamp.generation} is older than {seen.generation}",
            seen=seen,
        )
    if base is not None and seen.generation not in (base, stamp.generation):
        return Refused(
            reason="base",
            message=f"this node holds generation {seen.generation}, not {base}",
            seen=seen,
        )
    return None


def merge(held: Held, instructions: Instructions) -> Held:
    """Return what is held after (already judged) instructions."""
    if instructions.base is None:
        return Held(instructions.stamp, instructions.me, instructions.put)
    if held.stamp == instructions.stamp:
        return held  # a repeated increment
    kinds: dict[str, Any] = {}
    for kind in KINDS:
        objects = dict(getattr(held.objects, kind))
        for key in instructions.remove.get(kind, ()):
            objects.pop(key, None)
        objects.update(getattr(instructions.put, kind))
        kinds[kind] = objects
    return Held(instructions.stamp, instructions.me, Objects.model_construct(**kinds))


class Journal:
    """Reads everything at start; writes are synchronous and small, callers choose the thread."""

    def __init__(self, journal: Path, tasks: Path, run: Path) -> None:
        self._set = journal / "set.log"
        self._configs = journal / "contents"
        self._secrets = run / "contents"
        self._tasks = tasks
        self._records = run / "records"
        self._size = 0
        for directory in (journal, self._configs, tasks, self._secrets, self._records):
            make_folder(directory)
        for directory in (journal, self._configs, self._secrets, self._records):
            sweep(directory)

    # The instruction set.

    def load(self) -> Held:
        """Return what was acknowledged last. A torn last line (a cut while writing) is dropped."""
        try:
            data = self._set.read_bytes()
        except FileNotFoundError:
            return Held()
        held, good = Held(), 0
        for line in data.splitlines(keepends=True):
            instructions = _decode(line)
            if instructions is None:
                log.warning("the journal ends in a torn line", extra={"at": good})
                break
            held = merge(held, instructions)
            good += len(line)
        if good < len(data):
            os.truncate(self._set, good)
        self._size = good
        self._drop_contents(held.objects.contents)  # a cut may have kept what was removed
        return Held(
            held.stamp,
            held.me,
            held.objects.with_contents(self._read_contents(held.objects.contents)),
        )

    def accept(self, instructions: Instructions, held: Held) -> None:
        """Make instructions durable; ``held`` is the set they lead to. Raises OSError."""
        self._write_contents(instructions.put.contents)
        if instructions.base is None or self._size > COMPACT_AT:
            assert held.stamp is not None
            assert held.me is not None
            whole = Instructions.model_construct(
                stamp=held.stamp, me=held.me, base=None, put=held.objects, remove={}
            )
            line = _encode(whole)
            write_file(self._set, line)
            self._size = len(line)
            self._drop_contents(held.objects.contents)
            return
        line = _encode(instructions)
        fd = os.open(self._set, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            write_all(fd, line)
            os.fsync(fd)
        except OSError:
            # Half a line must not stay: the next one would be glued to it.
            os.ftruncate(fd, self._size)
            raise
        finally:
            os.close(fd)
        self._size += len(line)
        if instructions.remove.get("contents"):
            self._drop_contents(held.objects.contents)

    def _write_contents(self, contents: dict[str, Content]) -> None:
        for key, content in contents.items():
            folder = self._secrets if content.secret else self._configs
            path = folder / key
            if not path.exists():
                write_file(path, content.encode(), durable=not content.secret)

    def _read_contents(self, named: dict[str, Content]) -> dict[str, Content]:
        found = {}
        for key, content in named.items():
            folder = self._secrets if content.secret else self._configs
            try:
                found[key] = Content.model_validate_json((folder / key).read_bytes())
            except (OSError, ValidationError):
                log.info("a content must be sent again", extra={"content": key})
        return found

    def _drop_contents(self, wanted: dict[str, Content]) -> None:
        for folder in (self._secrets, self._configs):
            for path in folder.iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)

    # Task records.

    def records(self) -> dict[str, Record]:
        """Return every task record that can be read: this boot's, else the durable one."""
        found: dict[str, Record] = {}
        paths = [directory / "record.json" for directory in self._tasks.iterdir()]
        for path in (*paths, *self._records.iterdir()):
            try:
                record = Record.model_validate_json(path.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, ValidationError) as error:
                why = {"at": str(path), "why": str(error)}
                log.warning("a task record cannot be read", extra=why)
                continue
            found[record.id] = record
        return found

    def strays(self, known: set[str]) -> set[str]:
        """Return ids of task directories without a record we know."""
        folders = (self._tasks, self._records)
        return {path.name for folder in folders for path in folder.iterdir()} - known

    def put(self, record: Record, *, durable: bool = False, disk: bool = False) -> None:
        """Write one task's record; ``disk`` = it outlives a reboot, ``durable`` = for certain.

        Raises OSError.
        """
        data = record.model_dump_json(exclude_defaults=True).encode()
        if durable or disk:
            path = self._tasks / record.id / "record.json"
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_file(path, data, durable=durable)
            if durable:
                sync(self._tasks)  # the folder's name too: an earlier write may have made it
        write_file(self._records / record.id, data, durable=False)

    def whole(self) -> bool:
        """Say whether the folders that a reboot would take are there; people tidy up below /run."""
        return self._records.is_dir() and self._secrets.is_dir()

    def restore(self, records: Iterable[Record]) -> None:
        """Make these folders again and write what is known of the tasks; secrets come anew."""
        for folder in (self._secrets, self._records):
            make_folder(folder)
        for record in records:
            write_file(
                self._records / record.id,
                record.model_dump_json(exclude_defaults=True).encode(),
                durable=False,
            )

    def forget(self, task: str) -> None:
        """Delete the task's directory: record and logs."""
        (self._records / task).unlink(missing_ok=True)
        shutil.rmtree(self._tasks / task, ignore_errors=True)

    def leave(self) -> None:
        """Forget the cluster: the next one may pin this node."""
        self._set.unlink(missing_ok=True)
        for folder in (self._secrets, self._configs):
            shutil.rmtree(folder, ignore_errors=True)
            make_folder(folder)
        self._size = 0


def _encode(instructions: Instructions) -> bytes:
    # Content bytes live in files of their own; the set names them only.
    bare = {key: content.named_only() for key, content in instructions.put.contents.items()}
    put = instructions.put.with_contents(bare)
    body = instructions.with_put(put).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> Instructions | None:
    check, _, body = line.partition(b" ")
    if not line.endswith(b"\n"):
        return None
    body = body[:-1]
    try:
        if int(check, 16) != zlib.crc32(body):
            return None
        return Instructions.model_validate_json(body)
    except (ValueError, ValidationError):
        return None
