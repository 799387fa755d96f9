"""The agent's crash-safe memory: who instructs it, what it should hold, what it did.

``agent/tasks/worker.py`` accepts instructions through it, runners record their tasks. A
SIGKILL at any instant loses nothing that was acknowledged; a power cut loses no
instruction and no final state (those are fsynced: file, folder, and the folder's own name), and a
record that is merely of this boot may be older, which is harmless after a reboot.

Files below the state directory::

    journal/set.log       line 1: the full set; then increments; each with a checksum
    journal/seen          who instructs, by itself: it outlives a damaged set (agent/tasks/fence.py)
    journal/unread/       what could not be read, as it was found
    journal/reserve/      room for all this on a full disk (agent/tasks/reserve.py)
    journal/contents/ID   configs
    tasks/ID/record.json  one task's Record, as of its last move that a reboot must not undo

and below the run directory (tmpfs) ``records/ID``: the Record as of now. Most writes
are of this boot only (pids, phases) and cost no disk write; a SIGKILL loses none.

What cannot be read is kept and told, never erased. A torn last line was never acknowledged and
is dropped; anything else that is missing or damaged is a doubt (``Held.doubt``): the set may not
be what was acknowledged, so nothing is begun or ended by it before a controller has sent the
whole set (agent/tasks/adoption.py).

On a full disk instructions are taken all the same, or what fills it could never be told to go:
the set's file is marked (its mode, which needs no room) as *behind*, and written when there is
room. An agent that finds the mark is in doubt: it begins and ends nothing by that file. Where the
mark cannot be made either (a disk that is read-only, or broken), nothing is taken.

All of it but ``seen`` names specs, so passwords, and is sealed by the node's key
(``agent/sealing.py``); what an earlier version left in the clear is sealed when it is read. When a
stack has no task here any more, the set is written anew without it, and copies that may have
something of it go.

Secrets are never written here: they are kept in ``secrets`` on a tmpfs, and after
a reboot the controller sends them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pydantic import ValidationError

from agent.sealing import NodeSeal, Unopened, is_sealed
from agent.tasks.fence import Fence
from agent.tasks.held import Held, merge, stacks_of
from agent.tasks.kept import UnreadFiles
from agent.tasks.record import Record
from agent.tasks.reserve import Reserve
from specs import skew
from specs.kit.disk import make_folder, sweep, sync, write_all, write_file
from specs.kit.errnos import in_words
from specs.kit.failpoints import reached
from specs.kit.room import lacks_room
from specs.wire import PROTOCOL, Content, Instructions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

log = logging.getLogger(__name__)

WRITERS = 4  # what they ask the file system for at the same time it does as one
COMPACT_AT = 4 << 20  # bytes of increments after which the set is written anew
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def safe_id(text: str) -> bool:
    """Say whether an id from outside can be used as a file name."""
    return _ID.fullmatch(text) is not None and ".." not in text


FORGET_TRIES = 3
BEHIND = 0o400  # the mode of a set's file that newer instructions are missing in
_TORN, _DAMAGED = "torn", "damaged"


class Journal:
    """Reads everything at start; writes are synchronous and small, callers choose the thread.

    Those of one task's record come in order (``writing.py``); of several tasks they may overlap.
    """

    def __init__(self, journal: Path, tasks: Path, run: Path) -> None:
        self._seal = NodeSeal(journal.with_name("node.key"))
        self._set = journal / "set.log"
        self._seen = Fence(journal / "seen")
        self._unread = journal / "unread"
        self._configs = journal / "contents"
        self._secrets = run / "contents"
        self._tasks = tasks
        self._records = run / "records"
        self._size = 0
        self._named: set[str] = set()  # stacks that the set's file tells of
        self._clear = False  # whether a line of it is not sealed
        self._torn = False  # whether it may tell what was not taken, or half of it
        self._synced: set[str] = set()  # tasks whose folder's name outlives a power cut
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="records")
        self.notes: dict[str, str] = {}  # what could not be read -> why
        self.damaged: dict[str, str] = {}  # task -> why its newest record could not be read
        self.unclear: set[str] = set()  # tasks of whom something was not read
        self.behind = ""  # why the set's file is not what was acknowledged
        self.fault = ""  # why the disk does not take what is to be written, other than for room
        for directory in (journal, self._configs, tasks, self._secrets):
            make_folder(directory)
        self._kept = UnreadFiles(self._unread, self._seal)
        self._reserve = Reserve(journal / "reserve")
        make_folder(self._records)
        for directory in (journal, self._configs, self._secrets, self._records):
            sweep(directory)

    # The instruction set.

    def load(self) -> Held:
        """Return what was acknowledged last, as far as it can be read; ``doubt`` says what is not.

        A torn last line (a cut while writing) was not acknowledged and is dropped.
        """
        if why := self._seen.load():
            self.notes["who instructs"] = why
        self._kept.seal_all()
        try:
            data = self._set.read_bytes()
        except FileNotFoundError:
            if self._seen.stamp is None and not self._any_task():
                return Held()
            return self._doubted(Held(), "the journal is missing")
        except OSError as error:
            self._kept.keep(self._set)
            return self._doubted(Held(), f"the journal cannot be read: {error.strerror or error}")
        held, doubt, good = self._lines(data)
        behind = self._set.stat().st_mode & 0o777 == BEHIND
        if good < len(data) and not doubt and self.strays(set(held.objects.tasks)):
            doubt = "the journal ends in a torn line, and there are tasks it does not name"
        if doubt or held.unread:
            self._kept.keep(self._set)
        elif good < len(data):
            log.warning("the journal ends in a torn line", extra={"at": good})
            with contextlib.suppress(OSError):
                self._cut(good)
        self._size = good
        if behind and not doubt:
            doubt = "the disk was full when newer instructions came"
        if doubt:
            return self._doubted(held, doubt)
        with contextlib.suppress(OSError):
            self._drop_contents(held.objects.contents)  # a cut may have kept what was removed
        if self._clear and not held.unread:
            with contextlib.suppress(OSError):
                self._write_set(held)
        return self._with_contents(held)

    def _lines(self, data: bytes) -> tuple[Held, str, int]:
        """Return what the lines lead to, a doubt, and the length of what is whole."""
        held, doubt, good = Held(), "", 0
        lines = data.splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            read = self._decode(line)
            if read is _TORN and number == len(lines) and number > 1:
                break
            if isinstance(read, str):
                doubt = doubt or f"line {number} of {len(lines)} of the journal is {read}"
                continue
            instructions = read.value
            held = merge(held, instructions)
            self._named |= stacks_of(instructions.put)
            unread = {
                task: fields
                for task in instructions.put.tasks
                if (fields := skew.ignored_of(read, "put", "tasks", task))
            }
            held = replace(held, unread={**held.unread, **unread})
            if not read.whole:
                self.notes["the journal"] = "; ".join(read.notes()[:5])
            if read.lost:
                doubt = doubt or f"line {number} of {len(lines)} of the journal: {read.notes()[0]}"
            good += len(line)
        if not lines:
            doubt = "the journal is empty"
        return held, doubt, good

    def _doubted(self, held: Held, why: str) -> Held:
        log.warning("the journal is in doubt: %s", why)
        self.notes["the journal"] = why
        return self._with_contents(replace(held, doubt=why))

    def _with_contents(self, held: Held) -> Held:
        contents = self._read_contents(held.objects.contents)
        return self.fenced(replace(held, objects=held.objects.with_contents(contents)))

    def fenced(self, held: Held) -> Held:
        """Return the same under the newest epoch that was noted, whether its set came or not."""
        seen, stamp = self._seen.stamp, held.stamp
        if seen is None or (stamp is not None and stamp.epoch >= seen.epoch):
            return held
        # Of the set that is in force: what is told of it must acknowledge no newer one.
        return replace(held, stamp=seen.at(stamp.generation) if stamp is not None else seen)

    def _any_task(self) -> bool:
        return any(True for top in (self._tasks, self._records) for _ in top.iterdir())

    def accept(self, instructions: Instructions, held: Held) -> None:
        """Make instructions durable; ``held`` is the set they lead to. Raises OSError.

        On a full disk they are owed (``behind``): :meth:`catch_up` writes them. What can neither
        be written nor marked as missing is not taken, nor is anything of a controller whose
        epoch cannot be noted.
        """
        try:
            self._reserve.spending(partial(self._seen.note, instructions.stamp))
            self._accept(instructions, held)
        except OSError as error:
            self._failed(error)
            raise
        self.fault = ""

    def _accept(self, instructions: Instructions, held: Held) -> None:
        try:
            self._reserve.spending(partial(self._write, instructions, held))
        except OSError as error:
            if not lacks_room(error):
                raise
            self._fall_behind(error)
        else:
            self.behind = ""

    def catch_up(self, held: Held) -> None:
        """Write the set that was owed, if there is room by now. Raises OSError."""
        if self.fault:
            self._seen.rewrite()
            self.fault = ""
        if self.behind and held.stamp is not None and held.me is not None:
            put, stamp = held.objects, held.stamp
            self.accept(Instructions.model_construct(stamp=stamp, me=held.me, put=put), held)

    def _failed(self, error: OSError) -> None:
        if not self.fault:
            log.warning("the disk takes nothing: %s", in_words(error))
        self.fault = f"{error.filename or self._set}: {in_words(error)}"

    def _fall_behind(self, error: OSError) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._set.chmod(BEHIND)
            sync(self._set)
        if not self.behind:
            log.warning("instructions cannot be written yet: %s", in_words(error))
        self.behind = f"{error.filename or self._set}: {in_words(error)}"

    @property
    def wants_room(self) -> bool:
        """Say whether room is to be set aside, which is done while this node is of a cluster."""
        return self._seen.stamp is not None and not self._reserve.whole

    def provide(self) -> None:
        """Set room aside for a full disk. Blocks."""
        if self.wants_room:
            self._reserve.provide()

    def _write(self, instructions: Instructions, held: Held) -> None:
        self._write_contents(instructions.put.contents)
        gone = self._named - stacks_of(held.objects)
        whole = instructions.base is None or self._size > COMPACT_AT
        if whole or gone or self.behind or self._torn:
            self._write_set(held)
            self._forget_rest(held, kept=bool(gone))
            return
        line = self._encode(instructions)
        fd = os.open(self._set, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            write_all(fd, line)
            reached("journal.before_sync")
            os.fsync(fd)
            reached("journal.after_sync")
        except OSError:
            self._cut(self._size)
            raise
        finally:
            os.close(fd)
        self._size += len(line)
        self._named |= stacks_of(instructions.put)
        if instructions.remove.get("contents"):
            self._forget_rest(held)

    def _forget_rest(self, held: Held, *, kept: bool = False) -> None:
        """Remove what the set just written does not have any more. Raises OSError.

        Then it is not taken although the file tells it, so the file is written anew: an increment
        of the same number, with something else in it, would be read as this one come again.
        """
        self._torn = True
        reached("journal.mid_forget")
        self._drop_contents(held.objects.contents)
        if kept:
            self._kept.forget_all_but(held.objects.tasks)
        self._torn = False

    def _cut(self, size: int) -> None:
        """Take half a line away: the next one would be glued to it. Raises OSError."""
        self._torn = True
        os.truncate(self._set, size)
        self._torn = False

    def _write_set(self, held: Held) -> None:
        """Write the set as one line: of what it was before nothing is left."""
        assert held.stamp is not None
        assert held.me is not None
        whole = Instructions.model_construct(
            stamp=held.stamp,
            me=held.me,
            base=None,
            put=held.objects,
            remove={},
            protocol=PROTOCOL,
            revision=held.revision,
        )
        line = self._encode(whole)
        self._torn = True  # also where it has the new one's name and the name is not durable
        write_file(self._set, line)
        self._size, self._clear, self._torn = len(line), False, False
        self._named = stacks_of(held.objects)

    def _write_contents(self, contents: dict[str, Content]) -> None:
        for key, content in contents.items():
            folder = self._secrets if content.secret else self._configs
            path = folder / key
            if not path.exists():
                data = self._seal.seal(content.encode())
                try:
                    write_file(path, data, durable=not content.secret)
                except OSError as error:
                    if not (content.secret and lacks_room(error)):
                        raise
                    # It is in memory; the next agent has it sent again, as after a reboot.
                    log.warning("a secret is not kept: %s", in_words(error))

    def _read_contents(self, named: dict[str, Content]) -> dict[str, Content]:
        found = {}
        for key, content in named.items():
            folder = self._secrets if content.secret else self._configs
            try:
                data = (folder / key).read_bytes()
                found[key] = Content.model_validate_json(self._seal.open(data))
                self._seal_file(folder / key, data, durable=not content.secret)
            except (OSError, ValidationError, Unopened):
                log.info("a content must be sent again", extra={"content": key})
        return found

    def _drop_contents(self, wanted: dict[str, Content]) -> None:
        for folder in (self._secrets, self._configs):
            for path in folder.iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)

    # Task records.

    def records(self) -> dict[str, Record]:
        """Return every task record that can be read: this boot's, else the durable one.

        ``damaged`` then names the tasks of whom something newer could not be.
        """
        found: dict[str, Record] = {}
        self.damaged = {}
        paths = {directory.name: directory / "record.json" for directory in self._tasks.iterdir()}
        for task, path in (*paths.items(), *((p.name, p) for p in self._records.iterdir())):
            try:
                data = path.read_bytes()
                read = skew.decode(Record, self._seal.open(data))
            except FileNotFoundError:
                continue
            except (OSError, skew.Unreadable, Unopened) as error:
                why = error.strerror or "" if isinstance(error, OSError) else str(error)
                self._cannot_read(task, path, why)
                self.damaged[task] = why
                continue
            if read.value.id != task:
                self._cannot_read(task, path, f"it is the record of {read.value.id}")
                self.damaged[task] = "it is another task's"
                continue
            self.damaged.pop(task, None)
            self.notes.pop(_record_of(task), None)  # it is of what was before this one
            record = read.value
            unread = skew.ignored_of(read, "assignment", "spec")
            if not read.whole:
                self._cannot_read(task, path, "; ".join(read.notes()[:5]))
            self._seal_file(path, data, durable=path.parent != self._records)
            found[task] = record.having(unread=unread) if unread else record
        return found

    def _seal_file(self, path: Path, data: bytes, *, durable: bool) -> None:
        """Seal what an earlier version wrote in the clear, as it is."""
        if not is_sealed(data):
            with contextlib.suppress(OSError):
                write_file(path, self._seal.seal(data), durable=durable)

    def _cannot_read(self, task: str, path: Path, why: str) -> None:
        log.warning("a task record cannot be read: %s", why, extra={"at": str(path)})
        self.notes[_record_of(task)] = why
        self.unclear.add(task)
        self._kept.keep(path, task)

    def strays(self, known: set[str]) -> set[str]:
        """Return ids of task directories without a record we know."""
        folders = (self._tasks, self._records)
        return {path.name for folder in folders for path in folder.iterdir()} - known

    def put(self, record: Record, *, durable: bool = False, disk: bool = False) -> None:
        """Write one task's record; ``disk`` = it outlives a reboot, ``durable`` = for certain.

        Raises OSError.
        """
        data = self._written(record)
        try:
            if durable or disk:
                self._reserve.spending(partial(self._put_on_disk, record.id, data, durable=durable))
        except OSError as error:
            if not lacks_room(error):
                self._failed(error)
            raise
        finally:
            write_file(self._records / record.id, data, durable=False)

    def _put_on_disk(self, task: str, data: bytes, *, durable: bool) -> None:
        path = self._tasks / task / "record.json"
        reached("record.before_write")
        path.parent.mkdir(mode=0o700, exist_ok=True)
        reached("record.mid_write")
        write_file(path, data, durable=durable)
        reached("record.after_write")
        if durable and task not in self._synced:
            sync(self._tasks)  # the folder's name too: an earlier write may have made it
            self._synced.add(task)

    def put_beside(self, record: Record, *, durable: bool, disk: bool) -> asyncio.Future[None]:
        """Write a record as ``put`` does, in a thread of ours."""
        work = partial(self.put, record, durable=durable, disk=disk)
        return asyncio.get_running_loop().run_in_executor(self._writers, work)

    def whole(self) -> bool:
        """Say whether the folders that a reboot would take are there; people tidy up below /run."""
        return self._records.is_dir() and self._secrets.is_dir()

    def restore(self, records: Iterable[Record]) -> None:
        """Make these folders again and write what is known of the tasks; secrets come anew.

        Of what is erased nothing is written: nobody would take it away again.
        """
        for folder in (self._secrets, self._records):
            make_folder(folder)
        for record in records:
            if not record.erased:
                write_file(self._records / record.id, self._written(record), durable=False)

    def forget_again(self, task: str) -> None:
        """Delete what was written of a task while it was being forgotten. Small: on a tmpfs."""
        with contextlib.suppress(OSError):
            (self._records / task).unlink(missing_ok=True)

    def forget(self, task: str) -> None:
        """Delete the task's directory: record and logs, and what was kept of it. Blocks."""
        (self._records / task).unlink(missing_ok=True)
        self._synced.discard(task)
        self._kept.forget(task)
        for _ in range(FORGET_TRIES):  # a last look at its logs may add a name meanwhile
            shutil.rmtree(self._tasks / task, ignore_errors=True)
            if not (self._tasks / task).exists():
                return

    def leave(self) -> None:
        """Forget the cluster: the next one may pin this node."""
        self._set.unlink(missing_ok=True)
        self._seen.forget()
        for folder in (self._secrets, self._configs, self._unread):
            shutil.rmtree(folder, ignore_errors=True)
            make_folder(folder)
        self._size = 0
        self._named, self.behind = set(), ""
        self._reserve.remove()
        self._seal.forget()

    def close(self) -> None:
        """Wait for records under way: the next agent's must not be followed by ours. Blocks."""
        self._writers.shutdown()

    # What stands in the files.

    def _written(self, record: Record) -> bytes:
        """Return a record as it stands in its file, with the version that wrote it."""
        named = record.model_copy(update={"wire": PROTOCOL})
        return self._seal.seal(named.model_dump_json(exclude_defaults=True).encode())

    def _encode(self, instructions: Instructions) -> bytes:
        # Content bytes live in files of their own; the set names them only.
        bare = {key: content.named_only() for key, content in instructions.put.contents.items()}
        put = instructions.put.with_contents(bare)
        body = self._seal.seal(instructions.with_put(put).encode())
        return b"%08x %s\n" % (zlib.crc32(body), body)

    def _decode(self, line: bytes) -> skew.Reading[Instructions] | str:
        """Return what a line says, or why that is unknown: torn (cut while written), damaged."""
        if not line.endswith(b"\n"):
            return _TORN
        check, _, body = line[:-1].partition(b" ")
        try:
            if int(check, 16) != zlib.crc32(body):
                return _DAMAGED
        except ValueError:
            return _DAMAGED
        self._clear = self._clear or not is_sealed(body)
        try:
            return skew.decode(Instructions, self._seal.open(body))
        except (skew.Unreadable, Unopened) as error:
            return f"not readable ({error})"


def _record_of(task: str) -> str:
    return f"the record of task {task}"
