"""Runs the checks and the tests by area and prints the wall-clock of each.

`make test` runs what must pass before a change lands; `make test-slow` (--slow) the
long lanes. Extra words are test areas to run alone: `scripts/test.py unit real`.
Ends with 1 when anything failed, but always runs every area.

The areas of a lane run one after the other, the lanes at the same time: tests on lab
hosts mostly wait, so what computes fits beside them. A third lane would only take the two
processors from the others. What never waits comes last in its lane: when the other lane has
ended it alone keeps both processors busy. Each area's output is kept and printed whole, in the
order of the table; an area that runs alone prints as it goes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, repeat
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
PYTEST = (str(BIN / "python"), "-m", "pytest", "-q", "--no-header", "--durations=5")
KEYS = "tests/test_keys_shown.py"
PURE = (
    *("tests/specs", "tests/scheduler", "tests/orchestrator", "tests/agent", "tests/laws"),
    "tests/sim",
)
# Thirds of them, alike in length, and beside them the simulation's seeds, which are shorter: what
# ends last keeps both processors busy. Plain processes: those of -n 3 all read all ten thousand
# tests and tell a third of each result, which costs a quarter more.
CONTROL = (
    "tests/orchestrator/control",
    "tests/orchestrator/store",
    "tests/scheduler",
    "tests/laws",
)
COMMANDS = ("tests/orchestrator/cli",)
SIMULATION = ("tests/sim",)
REST = (
    *(folder for folder in PURE if folder not in (*CONTROL, *SIMULATION)),
    *(f"--ignore={folder}" for folder in (*CONTROL, *COMMANDS)),
)
LONG = "--timeout=1800"
PATIENT = "--timeout=600"  # making labs counts as a test's time; a busy machine is no finding
# Tests that share a lab stay together (tests/conftest.py says which do).
TOGETHER = ("--dist", "loadgroup", "--no-loadscope-reorder")
# Thousands of small files that live for a moment, each write synced: on a disk a fifth of the unit
# tests' processor time and half of their waiting, and what lab hosts wait for, too.
MEMORY = Path("/dev/shm")
ROOM = 2 << 30  # bytes there without which a disk has to do
SESSION_NICE = 5
# What pytest makes of a test module is kept for the area's other processes; read anew by each of
# them it was another 20 s of processor time. Empty, as all of Python reads it, is "not set".
KEEPING = {"PYTHONDONTWRITEBYTECODE": ""}
ENDED = "CORRAL_TESTS_ENDED"  # tests/conftest.py makes that file when a session is over
PATIENCE = 60.0  # seconds an interrupted area gets to take its labs down


@dataclass
class Area:
    """Commands that are judged together; ``lane``: what runs beside, ``nice``: what yields.

    ``at_once``: they run beside each other; ``in_memory``: their files may lie there.
    """

    name: str
    lane: str
    commands: tuple[tuple[str, ...], ...]
    nice: int = 0
    at_once: bool = False
    in_memory: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    ok: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


def areas() -> list[Area]:
    """Return what must pass before a change lands."""
    return [
        Area(
            "check",
            "compute",
            (
                (str(BIN / "ruff"), "format", "--check", "-q", "."),
                (str(BIN / "ruff"), "check", "-q", "."),
                (str(BIN / "mypy"),),
                (str(BIN / "lint-imports"), "--no-cache"),
                (*PYTEST, "tests/test_house.py", "tests/test_differences.py", KEYS),
            ),
            nice=10,
        ),
        Area(
            "real",
            "compute",
            ((*PYTEST, "-m", "not slow", "-n", "2", PATIENT, *TOGETHER, "tests/real"),),
        ),
        Area(
            "unit",
            "compute",
            tuple(
                (*PYTEST, "-m", "not slow and not real", PATIENT, *part)
                for part in (CONTROL, COMMANDS, REST, SIMULATION)
            ),
            nice=15,
            at_once=True,
            in_memory=True,
        ),
        Area(
            "e2e", "e2e", ((*PYTEST, "-m", "not slow", "-n", "4", PATIENT, *TOGETHER, "tests/e2e"),)
        ),
    ]


def slow_areas() -> list[Area]:
    """Return the long lanes, one after the other: what they look for is worth a quiet machine."""
    rare = "not real and not slow"
    return [
        Area("unit-slow", "slow", ((*PYTEST, "-m", "slow", LONG, *PURE),)),
        Area(
            "explore",
            "slow",
            ((*PYTEST, "-m", rare, LONG, *PURE),),
            environment={"CORRAL_EXPLORE": "1"},
        ),
        Area("real-slow", "slow", ((*PYTEST, "-m", "slow", LONG, "tests/real", "tests/e2e"),)),
    ]


class Runner:
    """Runs areas, each with its output in a file of its own, or on ours when it is alone."""

    def __init__(self, chosen: list[Area], folder: Path) -> None:
        self.chosen = chosen
        self.folder = folder
        self.stopping = threading.Event()
        self.numbers = count()
        self.running: set[subprocess.Popen[bytes]] = set()
        self.lock = threading.Lock()

    def run(self) -> None:
        """Run every lane and print each area when it and all above it have ended."""
        lanes: dict[str, list[Area]] = {}
        for area in self.chosen:
            lanes.setdefault(area.lane, []).append(area)
        live = len(lanes) == 1
        threads = [
            threading.Thread(target=self._lane, args=(lane, live), name=name)
            for name, lane in lanes.items()
        ]
        for thread in threads:
            thread.start()
        try:
            for area in self.chosen:
                area.ended.wait()
                if not live:
                    self._print(area)
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            for thread in threads:
                thread.join()

    def _lane(self, lane: list[Area], live: bool) -> None:  # noqa: FBT001 - passed by a thread
        for area in lane:
            began = time.monotonic()
            try:
                if live:
                    print(f"==> {area.name}", flush=True)
                    area.ok = self._commands(area, None)
                else:
                    with (self.folder / area.name).open("wb") as output:
                        area.ok = self._commands(area, output)
            finally:
                area.seconds = time.monotonic() - began
                area.ended.set()

    def _commands(self, area: Area, output: IO[bytes] | None) -> bool:
        with _files(area) as folder:
            if not area.at_once:
                # A list: every one of them is run.
                results = [self._command(area, command, output) for command in area.commands]
                return all(results)
            with ThreadPoolExecutor(len(area.commands)) as pool:
                apart = [self.folder / f"{area.name}-{n}" for n, _ in enumerate(area.commands)]
                done = pool.map(self._apart, repeat(area), area.commands, apart, repeat(folder))
                ok = all(list(done))
            for path in apart:
                with path.open("rb") as said:
                    shutil.copyfileobj(said, output or sys.stdout.buffer)
            return ok

    def _apart(self, area: Area, command: tuple[str, ...], said: Path, folder: Path | None) -> bool:
        """Run one of several commands, with an output and files of its own."""
        files = (f"--basetemp={folder / said.name}",) if folder else ()
        with said.open("wb") as output:
            return self._command(area, (*command, *files), output)

    def _command(self, area: Area, command: tuple[str, ...], output: IO[bytes] | None) -> bool:
        if self.stopping.is_set():
            return False
        # pytest's own word that it came to its end: a test may end the process with 0.
        ended = self.folder / f"ended-{next(self.numbers)}"
        process = subprocess.Popen(
            [*(("nice", "-n", str(area.nice)) if area.nice else ()), *command],
            cwd=ROOT,
            env={**os.environ, **KEEPING, ENDED: str(ended), **area.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C comes from us, once: a second one skips cleaning
        )
        if area.nice:
            _yield_to_labs(process.pid)
        with self.lock:
            self.running.add(process)
        code = process.wait()
        with self.lock:
            self.running.discard(process)
        if command[: len(PYTEST)] == PYTEST and not ended.exists():
            with contextlib.suppress(OSError):
                os.write(output.fileno() if output else 2, b"pytest ended before its tests had\n")
            return False
        # 5 = nothing collected in a lane that has no tests of this kind yet
        return code in (0, 5)

    def _print(self, area: Area) -> None:
        print(f"==> {area.name}: {area.seconds:.1f} s", flush=True)
        with (self.folder / area.name).open("rb") as output:
            shutil.copyfileobj(output, sys.stdout.buffer)
        sys.stdout.flush()

    def _stop(self) -> None:
        """Interrupt what runs, and kill what does not end."""
        self.stopping.set()
        with self.lock:
            running = list(self.running)
        for process in running:
            process.send_signal(signal.SIGINT)
        until = time.monotonic() + PATIENCE
        for process in running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def _files(area: Area) -> Iterator[Path | None]:
    """Give an area a folder in memory; none where there is no room."""
    try:
        room = shutil.disk_usage(MEMORY).free >= ROOM and os.path.ismount(MEMORY)
    except OSError:
        room = False
    if not (area.in_memory and room):
        yield None
        return
    for left in MEMORY.glob("corral-tests-*"):  # of a runner that was killed
        if not Path("/proc", left.name.rpartition("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = MEMORY / f"corral-tests-{os.getpid()}"
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _yield_to_labs(pid: int) -> None:
    """Let a session weigh a third of what lab hosts do, where the kernel weighs whole sessions.

    There (sched_autogroup_enabled) nice(1) orders the processes of one session only, and the
    unit tests took as much as all lab hosts together, which others wait for.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(f"{SESSION_NICE}\n")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("areas", nargs="*")
    options = parser.parse_args()
    chosen = slow_areas() if options.slow else areas()
    if options.areas:
        known = {area.name: area for area in (*areas(), *slow_areas())}
        unknown = [name for name in options.areas if name not in known]
        if unknown:
            parser.error(f"no area {', '.join(unknown)}; there are {', '.join(known)}")
        chosen = [known[name] for name in options.areas]
    # A script's background job has it ignored, which children would inherit: tests of Ctrl-C fail.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="corral-tests-") as folder:
        try:
            Runner(chosen, Path(folder)).run()
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            return 130
    print("\narea        wall-clock  result")
    for area in chosen:
        print(f"{area.name:<10} {area.seconds:9.1f} s  {'ok' if area.ok else 'FAILED'}")
    print(f"{'all':<10} {time.monotonic() - began:9.1f} s")
    return 0 if all(area.ok for area in chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
