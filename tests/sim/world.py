"""A cluster that exists only here: machines, wires, controllers, users; and what is written of it.

Everything random comes from streams of the seed, one for each part, so that leaving a fault out
moves the others' chances as little as it can.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.store.base import StoreError
from tests.sim import disk as sim_disk
from tests.sim import loop as sim_loop
from tests.sim.controller import Controller, StoreDisk
from tests.sim.host import SimHost
from tests.sim.laws import Broken, Laws
from tests.sim.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from specs.wire import Assignment

HOSTS = 5


@dataclass
class How:
    """How the containers of a service turn out; seconds."""

    healthy: float = 0.0
    stop: float = 0.05
    exit_code: int | None = None
    runs_for: float = 1.0
    deaf: bool = False
    sick: bool = False


@dataclass
class Trace:
    """What happened, line by line; ``words`` also has what the product logged."""

    lines: list[str] = field(default_factory=list)
    log: list[str] | None = None

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


class World:
    """All of one seed."""

    def __init__(self, seed: int, root: Path, loop: sim_loop.SimLoop) -> None:
        self.seed = seed
        self.loop = loop
        self.traced = Trace()
        self.laws = Laws(self)
        self.wire = Wire(self)
        self.registry_down = False
        self.behaviours: dict[str, How] = {}
        self.controllers: list[Controller] = []
        self.controller: Controller | None = None
        self.store = StoreDisk()
        self.backups: list[tuple[float, StoreDisk]] = []
        self.controller_wanted = True
        self.healing = False  # the faults are over
        self.rewound = False  # the store was an older one at some time
        self.undecided = False  # it is, and nobody has decided what to do
        self.deciding = False
        self.adopting = False  # somebody has the state taken over from the nodes, right now
        self._tasks: set[asyncio.Task[Any]] = set()
        self.broken: Broken | None = None
        self.over = asyncio.Event()
        self.hosts = [SimHost(self, f"n{n}", n, root) for n in range(1, HOSTS + 1)]

    # Chance and time.

    def chance(self, stream: str) -> random.Random:
        return random.Random(f"{self.seed} {stream}")

    @property
    def now(self) -> float:
        return self.loop.time()

    def later(self, seconds: float, act: Callable[[], Any]) -> None:
        """Do something in the world, which no process does."""
        token = sim_loop.PROCESS.set(None)
        try:
            self.loop.call_later(seconds, act)
        finally:
            sim_loop.PROCESS.reset(token)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Have something go on in the world."""
        token = sim_loop.PROCESS.set(None)
        try:
            task = self.loop.create_task(work)
        finally:
            sim_loop.PROCESS.reset(token)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def trace(self, *words: str) -> None:
        self.traced.lines.append(f"{self.now:9.3f} {' '.join(words)}")
        if self.traced.log is not None:
            self.traced.log.append(self.traced.lines[-1])

    def broke(self, law: str, words: str) -> None:
        """A law does not hold: the run is over."""
        if self.broken is None:
            self.broken = Broken(law, words, self.now)
            self.trace("LAW", law, words)
            self.over.set()

    # Parts.

    def how(self, assignment: Assignment) -> How:
        return self.behaviours.get(assignment.service) or How()

    def host_at(self, address: str, place: str) -> SimHost:
        return next(host for host in self.hosts if host.address == address)

    def host(self, name: str) -> SimHost:
        return next(host for host in self.hosts if host.name == name)

    def begin_controller(self) -> None:
        """Start a controller on the first machine, unless one runs or is not to."""
        if self.controller is None and self.controller_wanted and self.hosts[0].on:
            made = Controller(self, self.store, "home")
            self.controllers.append(made)
            self.controller = made
            made.root = made.begin(made.run())
            made.root.add_done_callback(lambda task: self._ended(made, task))

    def _ended(self, controller: Controller, task: asyncio.Task[Any]) -> None:
        if not controller.dead:
            error = None if task.cancelled() else task.exception()
            if _only(error, StoreError):
                # It cannot write what it must write at its start: it says so, and ends.
                self.trace(controller.name, "ends:", _tree(error))
                self.kill_controller(2.0)
                return
            self.crashed(controller.name, error)

    def kill_controller(self, away: float | None = None) -> None:
        """SIGKILL; it is started again after a while."""
        if self.controller is None:
            return
        controller, self.controller = self.controller, None
        self.trace(controller.name, "killed")
        controller.kill()
        for connection in [c for c in self.wire.connections if c.controller is controller]:
            connection.close("the controller is gone")
        if away is None:
            away = self.chance(f"restart {self.now}").uniform(0.3, 2.0)
        self.later(away, self.begin_controller)

    def crashed(self, who: str, error: BaseException | None) -> None:
        """A process ended that nobody killed: a bug."""
        self.broke("no process ends by itself", f"{who}: {_tree(error)}")


def _only(error: BaseException | None, kind: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_only(one, kind) for one in error.exceptions)
    return isinstance(error, kind)


def _tree(error: BaseException | None) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_tree(one) for one in error.exceptions)
    return f"{type(error).__name__}: {error}"


class _Log(logging.Handler):
    """What the product logs: a bug it met is a broken law; the rest is for the readable trace."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.DEBUG if world.traced.log is not None else logging.ERROR)
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        process = sim_loop.PROCESS.get()
        if process is None or process.dead:
            return
        if self.world.traced.log is not None:
            more = {k: v for k, v in vars(record).items() if k not in _USUAL}
            self.world.traced.log.append(
                f"{self.world.now:9.3f}     {process.name}: {record.getMessage()}"
                + (f" {more}" if more else "")
            )
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            if not isinstance(error, OSError | sim_loop.Killed):
                self.world.broke(
                    "no internal errors", f"{process.name}: {record.getMessage()}: {_tree(error)}"
                )


_USUAL = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime"}


@contextmanager
def made(seed: int, *, log: bool = False) -> Iterator[World]:
    """Make a world and its loop; take both away."""
    random.seed(seed)
    with ExitStack() as stack:
        stack.enter_context(sim_disk.installed(seed))
        stack.enter_context(contextmanager(sim_loop.ordered_groups)())
        root = _root()
        loop = sim_loop.SimLoop(_slow)
        world = World(seed, root, loop)
        if log:
            world.traced.log = []
        handler = _Log(world)
        logger = logging.getLogger()
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if log else logging.ERROR)
        quiet = [h for h in logger.handlers if h is not handler]
        for other in quiet:
            logger.removeHandler(other)
        loop.strange = lambda context: _strange(world, context)
        try:
            yield world
        finally:
            for other in quiet:
                logger.addHandler(other)
            logger.setLevel(level)
            logger.removeHandler(handler)
            _close(loop)


def _close(loop: sim_loop.SimLoop) -> None:
    """Let everything unwind without effect."""
    loop.strange = lambda _: None
    for task in asyncio.all_tasks(loop):
        task.cancel()
    for _ in range(50):
        if not asyncio.all_tasks(loop):
            break
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop._scheduled.clear()  # type: ignore[attr-defined]
    loop._ready.clear()  # type: ignore[attr-defined]
    loop.close()


_ROOT: list[Path] = []


def _root() -> Path:
    """Return a root file system of an image: the product looks at a real one, all share it."""
    if not _ROOT:
        base = "/dev/shm" if Path("/dev/shm").is_dir() else None
        root = Path(tempfile.mkdtemp(prefix="corral-sim-", dir=base))
        (root / "etc").mkdir()
        _ROOT.append(root)
        import atexit

        atexit.register(shutil.rmtree, root, ignore_errors=True)
    return _ROOT[0]


def _slow(process: sim_loop.Process | None) -> float:
    if process is None or process.host is None:
        return 0.0
    found: float = process.host.disk.slow if process.name.endswith("agent") else 0.0
    return found


def _strange(world: World, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, sim_loop.Killed | asyncio.CancelledError):
        return
    process = sim_loop.PROCESS.get()
    if process is not None and process.dead:
        return
    world.trace("strange", str(context.get("message")), _tree(error))
