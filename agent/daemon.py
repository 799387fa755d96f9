"""The agent's composition root: build the parts, run them in one TaskGroup, stop in order.

SIGTERM stops the daemon only; containers stay and the next start adopts them. The
parts that other packages provide (images, volumes, network) are imported here and
nowhere else, and only when the daemon starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from aiohttp import web

from agent import facts, figures
from agent.linux.boot import boot_id
from agent.linux.inotify import Inotify
from agent.runtime import apparmor, exits
from agent.runtime import exec as execution
from agent.runtime.containers import OciContainers
from agent.runtime.crun import Runtime, find_runtime
from agent.runtime.failure import RuntimeFailure
from agent.runtime.hooks import OciHooks
from agent.runtime.rotation import Followed, Rotation
from agent.runtime.spawner import Spawner, is_mounted, share, unshare
from agent.server import Server
from agent.tasks.compose import TaskParts, compose
from agent.tasks.effects import Effects
from agent.tasks.guarded import GuardedLeases, boottime
from agent.tasks.journal import Journal
from agent.tasks.record import Phase
from specs.kit import alive, programs, stalls
from specs.kit.callers import IDLE_SECONDS, Callers
from specs.kit.clock import SystemClock
from specs.kit.disk import make_folder
from specs.kit.door import Door, keep_open
from specs.kit.metrics import LoopLag
from specs.kit.room import RoomWatch
from specs.kit.sdnotify import notify
from specs.wire import ExecRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from agent.config import AgentConfig
    from agent.tasks.effects import Prober
    from agent.tasks.holdings import Holdings
    from agent.tasks.worker import Worker
    from specs.kit.clock import Clock
    from specs.node import NodeFacts
    from specs.wire import LeaveCluster, Refused

log = logging.getLogger(__name__)

FOLLOW_EVERY = 0.25
KEEP_EVERY = 1.0
MOST_CALLERS = 2048  # connections to the API at once: a log that is followed is one


def real_effects(config: AgentConfig) -> Effects:
    """Return the real images, volumes and network of this node."""
    from agent.images.store import ImageStore  # noqa: PLC0415 - heavy; tests bring their own
    from agent.network.node import NodeNetwork  # noqa: PLC0415 - as above
    from agent.volumes.store import VolumeStore  # noqa: PLC0415 - as above

    images = ImageStore(config.state_dir, config.run_dir)
    return Effects(
        images=images,
        volumes=VolumeStore(config.state_dir, config.run_dir),
        network=NodeNetwork(config.run_dir.parent, config.state_dir.parent),
        peers=images.peers,
    )


class AlreadyRunning(Exception):
    """Another agent holds this state directory."""


async def run(
    config: AgentConfig, effects: Effects | None = None, clock: Clock | None = None
) -> None:
    """Run the agent until SIGTERM or SIGINT; containers outlive it."""
    ending = Ending()

    async def serve(server: Server, _: Worker) -> None:
        async with _door(server, config):
            await ending.wait()
        log.info("the agent stopped; containers stay")

    with _only_one(config):
        _share(config)
        async with alive.shown(config.run_dir.parent, "agent"):
            effects = effects or real_effects(config)  # imports a lot; nobody waits for us yet
            with stalls.watched():
                await _work(config, effects, clock or SystemClock(), ending, serve)


async def leave(config: AgentConfig) -> list[str]:
    """End all this node runs and has made, heard by nobody; return ids of tasks that would not go.

    For a machine whose agent does not run. Raises AlreadyRunning where one does. Nobody can reach
    it meanwhile, so no controller has it begin again what was ended.
    """
    left: list[str] = []
    with _only_one(config):
        _share(config)
        effects = real_effects(config)

        async def go(_: Server, worker: Worker) -> None:
            went = await _leave(config, worker, effects)
            assert isinstance(went, list), "refused to nobody"
            left.extend(went)

        await _work(config, effects, SystemClock(), Ending(), go)
    return left


class Ending:
    """Knows that the agent was told to end, from the moment of the signal on.

    A handler of the loop's would run after whatever else has happened by then: the ends of
    containers that were told in the same moment, because their machine goes down.
    """

    def __init__(self) -> None:
        self.told = False
        self._heard = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def _take(self, *_: object) -> None:
        self.told = True
        self._loop.call_soon_threadsafe(self._heard.set)

    async def wait(self) -> None:
        """Wait for the signal."""
        await self._heard.wait()


@contextlib.contextmanager
def _only_one(config: AgentConfig) -> Iterator[None]:
    # The sockets beside the run directory are for others too; what is in it never is.
    config.run_dir.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    make_folder(config.state_dir)
    with contextlib.ExitStack() as held:
        # The first for agents of earlier versions. The second is there when somebody tidied /run.
        for path, how in (
            (config.run_dir.parent / "agent.lock", os.O_RDWR | os.O_CREAT),
            (config.state_dir, os.O_RDONLY | os.O_DIRECTORY),
        ):
            lock = os.open(path, how | os.O_CLOEXEC, 0o600)
            held.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = f"an agent is already running for {config.run_dir}"
                raise AlreadyRunning(text) from None
        yield


async def _work(
    config: AgentConfig,
    effects: Effects,
    clock: Clock,
    ending: Ending,
    meanwhile: Callable[[Server, Worker], Awaitable[None]],
) -> None:
    """Run all parts while ``meanwhile`` does, which begins when what runs here was adopted."""
    async with contextlib.AsyncExitStack() as stack:
        spawner = await stack.enter_async_context(Spawner())
        stack.push_async_callback(effects.peers.close)
        stack.callback(effects.images.close)
        stack.push_async_callback(effects.network.close)
        inotify = Inotify()
        stack.callback(inotify.close)
        rotation = Rotation()
        # In threads: it ends with a look at every log; and what is written may be on a busy disk.
        stack.push_async_callback(asyncio.to_thread, rotation.close)
        containers = _containers(config, spawner, rotation)
        places = (config.journal, config.tasks, config.run_dir)
        journal = await asyncio.to_thread(Journal, *places)
        stack.push_async_callback(asyncio.to_thread, journal.close)
        tasks = await _compose_tasks(config, effects, clock, containers, spawner, journal, ending)
        lag = LoopLag()
        server = Server(
            figures=figures.handler(tasks, lag),
            tasks=tasks,
            containers=containers,
            effects=effects,
            inotify=inotify,
            leave=lambda asked: _dismissed(config, tasks.worker, effects, asked),
        )
        gc.freeze()  # what start-up made lives as long as we do: spare the collector
        async with asyncio.TaskGroup() as group:
            work = [
                group.create_task(tasks.worker.run(), name="worker"),
                group.create_task(_keep_logs(tasks.holdings, containers, rotation), name="logs"),
                group.create_task(effects.network.run(), name="network repair"),
                group.create_task(_keep_records(tasks.holdings, journal), name="records"),
                group.create_task(lag.run(), name="lag"),
            ]
            await tasks.worker.adopted.wait()
            try:
                await meanwhile(server, tasks.worker)
            finally:
                for task in work:
                    task.cancel()


def _containers(config: AgentConfig, spawner: Spawner, rotation: Rotation) -> OciContainers:
    path, name = find_runtime()
    conmon = programs.find("conmon")
    if conmon is None:
        raise RuntimeFailure("conmon is missing; install Debian's conmon package")
    return OciContainers(
        runtime=Runtime(path, name, config.run_dir / name, spawner),
        conmon=conmon,
        bundles=config.bundles,
        tasks=config.tasks,
        cgroup=config.cgroup,
        rotation=rotation,
    )


async def _compose_tasks(
    config: AgentConfig,
    effects: Effects,
    clock: Clock,
    containers: OciContainers,
    spawner: Spawner,
    journal: Journal,
    ending: Ending,
) -> TaskParts:
    runtime = containers.runtime.name
    version = await containers.runtime.version()
    confined = await asyncio.to_thread(apparmor.provide)
    room = RoomWatch(config.state_dir, config.run_dir)

    async def join() -> None:
        if not is_mounted(config.run_dir):  # the node left a cluster before
            await asyncio.to_thread(_share, config)
            spawner.renew()

    async def look() -> NodeFacts:
        await asyncio.to_thread(room.look)
        digests = frozenset(image.digest for image in await effects.images.list())
        known = (confined.warning,) if confined.warning else ()
        return await asyncio.to_thread(facts.probe, runtime, version, digests, known, room.cramped)

    return compose(
        effects,
        journal=journal,
        containers=containers,
        prober=_prober(containers),
        hooks=OciHooks(containers),
        clock=clock,
        boot=boot_id(),
        traits=facts.traits(config, runtime, confined.profile),
        tasks=config.tasks,
        facts=await look(),
        look=look,
        join=join,
        ending=lambda: ending.told,
        room=lambda: room.lack,
        leases=GuardedLeases(config.run_dir / "leases", config.cgroup, boot_id()),
        boottime=boottime,
    )


@contextlib.asynccontextmanager
async def _door(server: Server, config: AgentConfig) -> AsyncIterator[None]:
    """Serve on the agent's socket, and open it again when somebody deleted it."""
    api = web.AppRunner(
        server.application(),
        access_log=None,
        handle_signals=False,
        shutdown_timeout=1.0,
        keepalive_timeout=IDLE_SECONDS,
        auto_decompress=False,  # nothing of a body is unpacked before it is refused
    )
    await api.setup()
    assert api.server is not None
    callers = Callers(api.server, most=MOST_CALLERS)
    door = Door(callers, config.socket, group=config.group)
    try:
        await door.open()
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(keep_open(config.socket, door.open), name="door")
            notify("READY=1")
            log.info("the agent serves", extra={"socket": str(config.socket)})
            yield
            notify("STOPPING=1")
            keeper.cancel()
    finally:
        door.close()
        await api.cleanup()


def _prober(containers: OciContainers) -> Prober:
    async def probe(task: str, command: tuple[str, ...], timeout: float) -> tuple[int, str]:
        return await execution.probe(containers, task, ExecRequest(command=command), timeout)

    return probe


async def _keep_logs(holdings: Holdings, containers: OciContainers, rotation: Rotation) -> None:
    """Tell the rotation which logs are written; a new run's first file is kept already."""
    while True:
        rotation.follow(
            Followed(
                task=record.id,
                run=record.number,
                directory=containers.logs(record.id),
                bundle=containers.bundle(record.id),
                limits=record.assignment.spec.logging,
            )
            for record in holdings.records()
            if record.phase is Phase.RUNNING and record.assignment.spec.logging.driver != "none"
        )
        await asyncio.sleep(FOLLOW_EVERY)


async def _keep_records(holdings: Holdings, journal: Journal) -> None:
    """Write the records below /run again when somebody tidied up there; what runs runs on."""
    while True:
        await asyncio.sleep(KEEP_EVERY)
        if journal.wants_room:
            await asyncio.to_thread(journal.provide)
        if journal.whole():
            continue
        try:
            journal.restore(holdings.records())
        except OSError as error:
            log.warning("the records cannot be written again", extra={"why": str(error)})
        else:
            log.warning("the records below the run directory had been deleted; written again")


def _share(config: AgentConfig) -> None:
    """Make mounts below our directories visible to the spawner; undone when the node leaves.

    Both are closed to everybody but root: below them lie programs that containers marked setuid
    (and must find so), their environment, their secrets. An earlier version left them open.
    """
    make_folder(config.state_dir)
    for directory in (config.state_dir, config.run_dir):
        share(directory)
        if directory.stat().st_mode & 0o777 != 0o700:  # a read-only disk takes not even that
            directory.chmod(0o700)


async def _dismissed(
    config: AgentConfig, worker: Worker, effects: Effects, asked: LeaveCluster | None
) -> list[str] | Refused:
    left = await _leave(config, worker, effects, asked)
    if not left:
        _uninstall(os.environ.get("CORRAL_UNINSTALL", ""))
    return left


async def _leave(
    config: AgentConfig, worker: Worker, effects: Effects, asked: LeaveCluster | None = None
) -> list[str] | Refused:
    left = await worker.leave(asked)
    if not left:
        await effects.network.leave()
        exits.remove_parent(config.cgroup)
        await asyncio.to_thread(apparmor.remove)
        await asyncio.to_thread(shutil.rmtree, config.tasks, True)  # noqa: FBT003 - its signature
        config.tasks.mkdir(mode=0o700, parents=True)
        for directory in (config.state_dir, config.run_dir):
            unshare(directory)
    return left


def _uninstall(program: str) -> None:
    """Start the removal of corral itself where `node add` put it; it outlives this process."""
    if program:
        subprocess.Popen(
            [program, "--detached"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
