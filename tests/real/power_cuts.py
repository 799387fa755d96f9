"""Power cuts under a store that is written to: ``python -m tests.real.power_cuts COUNT SEED``.

To be run in a mount namespace of its own (``unshare --mount``). A file with ext4 in it is mounted,
a program writes transactions and says which were acknowledged, and at a random moment the file
system is shut down without a flush of its log (EXT4_IOC_SHUTDOWN): what was not synced is lost, as
when the current fails. It is mounted again, and everything acknowledged must be there, whole.
Prints a line for each cut; the first broken law ends it with 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.tasks.held import Held, merge
from agent.tasks.journal import Journal
from orchestrator.store.base import Delete, Put
from orchestrator.store.sqlite import SqliteStore
from orchestrator.store.statefile import StateFile
from tests.agent.test_journal import instructions, named

if TYPE_CHECKING:
    from specs.wire import Instructions

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN (linux/ext4.h), which reads an int
NO_LOG_FLUSH = 2
SIZE = 64 << 20


async def put(store: SqliteStore, number: int) -> None:
    writes: list[Put | Delete] = [Put(f"/{number % 50:03}", value_of(number))]
    writes.append(Put("/newest", b"%d" % number))
    if number % 7 == 0:
        writes.append(Delete(f"/{(number + 25) % 50:03}"))
    result = await store.txn(writes=tuple(writes))
    os.write(1, b"stored %d %d\n" % (number, result.revision))


def value_of(number: int) -> bytes:
    return b"%d:" % number + b"v" * (number * 37 % 3000)


def given(number: int) -> Instructions:
    """Return the instructions of a number: a whole set, or what is added to the one before."""
    task, base = f"t{number % 9}", None if number % 20 == 1 else number - 1
    return instructions(number, base=base, tasks={task: named(task)})


def note(base: Path) -> None:
    journal = Journal(base / "journal", base / "tasks", base / "run")
    held = journal.load()
    number = held.stamp.generation if held.stamp else 0
    if held.doubt:
        number += -number % 20  # a whole set is next, as from any controller
    while True:  # ended by the power
        number += 1
        one = given(number)
        held = merge(held, one)
        journal.accept(one, held)
        os.write(1, b"noted %d\n" % number)


async def write(base: Path, number: int) -> None:
    store = await SqliteStore.open(base / "state.db")
    os.write(1, b"opened\n")
    asyncio.get_running_loop().run_in_executor(None, note, base)
    while True:  # ended by the power
        async with asyncio.TaskGroup() as group:  # several share an fsync
            for _ in range(1 + number % 4):
                number += 1
                group.create_task(put(store, number))


def begin(base: Path, first: int) -> tuple[int, int]:
    """Start what writes; return its pid and what it says. A fork: all is imported already."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(writer, 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            asyncio.run(write(base, first))
        finally:
            os._exit(1)
    os.close(writer)
    return pid, reader


class Machine:
    """A disk whose current fails."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "disk"
        self.top = folder / "mounted"
        self.top.mkdir()
        with self.image.open("wb") as file:
            file.truncate(SIZE)
        quiet = ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,nodiscard", str(self.image)]
        subprocess.run(quiet, check=True)
        self.on()

    def on(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.top)], check=True)

    def cut(self) -> None:
        top = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(top, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(top)

    def off(self) -> None:
        subprocess.run(["umount", str(self.top)], check=True)


def cut_once(machine: Machine, rng: random.Random, first: int) -> tuple[int, dict[str, int]]:
    """Write until the current fails; return the newest number, and what was acknowledged."""
    pid, reader = begin(machine.top, first)
    try:
        line = os.read(reader, 7)
        assert line == b"opened\n", f"law F25: it opens after a cut: {line!r}"
        time.sleep(rng.uniform(0.0, 0.25))
        # Only what was said by now: this kernel lets an fsync that is under way succeed, of data
        # that does not reach the disk any more. A machine without current tells nobody.
        os.set_blocking(reader, False)
        told = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(reader, 1 << 16):
                told += piece
        machine.cut()
        time.sleep(0.02)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
    said = [row.split() for row in told.decode().splitlines()]
    acknowledged = {"stored": 0, "revision": 0, "noted": 0}
    for row in said:
        if row[0] == "stored" and len(row) == 3:
            acknowledged["stored"] = max(acknowledged["stored"], int(row[1]))
            acknowledged["revision"] = max(acknowledged["revision"], int(row[2]))
        elif row[0] == "noted" and len(row) == 2:
            acknowledged["noted"] = int(row[1])
    return len(said), acknowledged


def judge(machine: Machine, acknowledged: dict[str, int]) -> int:
    """Raise AssertionError where something acknowledged is not there; return the newest number."""
    file = StateFile(machine.top / "state.db")  # which asks SQLite for its integrity
    try:
        entries = {entry.key: entry.value for entry in file.list("/").entries}
        newest = int(entries.get("/newest", b"0"))
        assert newest >= acknowledged["stored"], f"law N1: {newest} of {acknowledged}"
        assert file.revision >= acknowledged["revision"], "law N7: the revision went back"
        for key, value in entries.items():
            if key != "/newest":
                number = int(value.partition(b":")[0])
                assert value == value_of(number), f"half of {key}"
                assert number % 50 == int(key[1:]), f"{key} has another's value"
                assert number <= newest, "law N1: a later transaction without an earlier one"
    finally:
        file.abandon()
    return newest


def judge_journal(machine: Machine, noted: int) -> None:
    """Raise AssertionError where instructions that were acknowledged are not all there."""
    base = machine.top
    journal = Journal(base / "journal", base / "tasks", base / "run")
    held = journal.load()
    journal.close()
    # Before the first set is there only who sent it is known, and a whole one is waited for.
    assert not (noted and held.doubt), f"law F25: a cut is no doubt: {held.doubt}"
    if held.doubt or held.stamp is None:
        assert not noted, "law N1: all of it is lost"
        return
    generation = held.stamp.generation
    assert generation >= noted, f"law N1: instructions {noted} were acknowledged, not {generation}"
    wanted = Held()
    for number in range((generation - 1) // 20 * 20 + 1, generation + 1):  # from a whole one
        wanted = merge(wanted, given(number))
    assert held.objects.tasks.keys() == wanted.objects.tasks.keys(), f"all of {generation} is there"


def main(count: int, seed: str, folder: Path) -> int:
    rng, first, noted, total = random.Random(seed), 0, 0, 0
    machine = Machine(folder)
    for number in range(count):
        said, acknowledged = cut_once(machine, rng, first)
        machine.off()
        machine.on()
        try:
            first = judge(machine, acknowledged)
            noted = max(noted, acknowledged["noted"])
            judge_journal(machine, noted)
        except BaseException:
            print(f"cut {number} of seed {seed}: python -m tests.real.power_cuts {count} {seed}")
            raise
        total += said
    machine.off()
    print(f"{count} cuts, {total} acknowledged, newest {first}")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
