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
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from agent import facts
from agent.linux.boot import boot_id
from agent.linux.inotify import Inotify
from agent.runtime import exec as execution
from agent.runtime import exits, logs
from agent.runtime.containers import OciContainers
from agent.runtime.crun import Runtime, find_runtime
from agent.runtime.failure import RuntimeFailure
from agent.runtime.spawner import Spawner, is_mounted, share, unshare
from agent.server import Server
from agent.tasks.journal import Journal
from agent.tasks.preparation import Preparation
from agent.tasks.record import Phase
from agent.tasks.runner import RunnerParts
from agent.tasks.worker import Worker
from specs.kit import programs
from specs.kit.clock import SystemClock
from specs.kit.door import keep_open, listen
from specs.kit.sdnotify import notify
from specs.wire import ExecRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from agent.config import AgentConfig
    from agent.tasks.effects import Images, Networking, Volumes
    from agent.tasks.runner import Prober
    from specs.kit.clock import Clock
    from specs.node import NodeFacts
    from specs.wire import NodeSelf, Peer

log = logging.getLogger(__name__)

SLOTS = 4  # containers made or taken away at once: more gains little on two cores
ROTATE_EVERY = 0.25


async def _no_signing_request() -> str:
    return ""


@dataclass(frozen=True)
class Effects:
    """The parts of the node that other packages provide, and what they want of the daemon."""

    images: Images
    volumes: Volumes
    network: Networking
    background: tuple[Callable[[], Awaitable[None]], ...] = ()  # run until cancelled
    close: tuple[Callable[[], Awaitable[None] | None], ...] = ()
    leave: Callable[[], Awaitable[None]] | None = None
    warnings: Callable[[], tuple[str, ...]] = tuple
    meet: Callable[[NodeSelf, Mapping[str, Peer]], Awaitable[None]] | None = None
    signing_request: Callable[[], Awaitable[str]] = _no_signing_request


def real_effects(config: AgentConfig) -> Effects:
    """Return the real images, volumes and network of this node."""
    from agent.images.store import ImageStore  # noqa: PLC0415 - heavy; tests bring their own
    from agent.network.node import NodeNetwork  # noqa: PLC0415
    from agent.volumes.store import VolumeStore  # noqa: PLC0415

    images = ImageStore(config.state_dir, config.run_dir)
    network = NodeNetwork(config.run_dir.parent, config.state_dir.parent)
    return Effects(
        images=images,
        volumes=VolumeStore(config.state_dir, config.run_dir),
        network=network,
        background=(network.run,),
        close=(images.peers.close, images.close, network.close),
        leave=network.leave,
        warnings=lambda: network.warnings,
        meet=images.peers.meet,
        signing_request=images.identity.signing_request,
    )


class AlreadyRunning(Exception):
    """Another agent holds this state directory."""


async def run(
    config: AgentConfig, effects: Effects | None = None, clock: Clock | None = None
) -> None:
    """Run the agent until SIGTERM or SIGINT; containers outlive it."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with _only_one(config):
        _share(config)
        await _serve(config, effects or real_effects(config), clock or SystemClock(), stop)


@contextlib.contextmanager
def _only_one(config: AgentConfig) -> Iterator[None]:
    config.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = os.open(
        config.run_dir.parent / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"an agent is already running for {config.run_dir}") from None
        yield
    finally:
        os.close(lock)


async def _serve(config: AgentConfig, effects: Effects, clock: Clock, stop: asyncio.Event) -> None:
    path, name = find_runtime()
    conmon = programs.find("conmon")
    if conmon is None:
        raise RuntimeFailure("conmon is missing; install Debian's conmon package")
    async with contextlib.AsyncExitStack() as stack:
        spawner = await stack.enter_async_context(Spawner())
        for close in effects.close:
            stack.push_async_callback(_close, close)
        runtime = Runtime(path, name, config.run_dir / name, spawner)
        containers = OciContainers(
            runtime=runtime,
            conmon=conmon,
            bundles=config.bundles,
            tasks=config.tasks,
            cgroup=config.cgroup,
        )
        version = await runtime.version()

        def join() -> None:
            if not is_mounted(config.run_dir):  # the node left a cluster before
                _share(config)
                spawner.renew()

        async def look() -> NodeFacts:
            seen = await asyncio.to_thread(facts.probe, name, version)
            digests = {image.digest for image in await effects.images.list()}
            return seen.model_copy(update={"images": tuple(sorted(digests))})

        journal = Journal(config.journal, config.tasks, config.run_dir)
        worker = Worker(
            journal=journal,
            network=effects.network,
            boot=boot_id(),
            facts=await look(),
            probe=look,
            warnings=effects.warnings,
            join=join,
            meet=effects.meet,
        )
        parts = RunnerParts(
            journal=journal,
            preparation=Preparation(
                images=effects.images,
                volumes=effects.volumes,
                network=effects.network,
                containers=containers,
                tasks=config.tasks,
                host=facts.host(config, name),
                contents=worker.contents,
                networks_known=worker.networks_known,
            ),
            containers=containers,
            prober=_prober(containers),
            clock=clock,
            slots=asyncio.Semaphore(SLOTS),
            changed=worker.changed,
        )
        inotify = Inotify()
        stack.callback(inotify.close)
        server = Server(
            worker=worker,
            containers=containers,
            images=effects.images,
            volumes=effects.volumes,
            inotify=inotify,
            leave=lambda: _leave(config, worker, effects),
            signing_request=effects.signing_request,
        )
        gc.freeze()  # what start-up made lives as long as we do: spare the collector
        async with asyncio.TaskGroup() as group:
            work = group.create_task(worker.run(parts), name="worker")
            background = [
                group.create_task(_rotate(worker, containers), name="log rotation"),
                *(group.create_task(_forever(part), name="part") for part in effects.background),
            ]
            await worker.adopted.wait()
            api = web.AppRunner(
                server.application(), access_log=None, handle_signals=False, shutdown_timeout=1.0
            )
            await api.setup()
            try:
                await _open(api, config)
                reopen = partial(_open, api, config)
                door = group.create_task(keep_open(config.socket, reopen), name="door")
                notify("READY=1")
                log.info("the agent serves", extra={"socket": str(config.socket)})
                await stop.wait()
                notify("STOPPING=1")
                door.cancel()
            finally:
                await api.cleanup()
                for task in (work, *background):
                    task.cancel()
    log.info("the agent stopped; containers stay")


async def _open(api: web.AppRunner, config: AgentConfig) -> None:
    """Listen at the socket's path; connections made before stay."""
    old = list(api.sites)
    await web.SockSite(api, listen(config.socket, config.group)).start()
    for site in old:
        await site.stop()


def _prober(containers: OciContainers) -> Prober:
    async def probe(task: str, command: tuple[str, ...], timeout: float) -> tuple[int, str]:
        return await execution.probe(containers, task, ExecRequest(command=command), timeout)

    return probe


async def _rotate(worker: Worker, containers: OciContainers) -> None:
    """Rotate full logs: one look over all tasks (a stat each) every quarter of a second."""
    while True:
        await asyncio.sleep(ROTATE_EVERY)
        for record in worker.records():
            spec = record.assignment.spec
            if record.phase is Phase.RUNNING and spec.logging.driver != "none":
                try:
                    logs.rotate(
                        containers.logs(record.id),
                        containers.bundle(record.id),
                        record.number,
                        spec.logging,
                    )
                except OSError as error:
                    log.warning(
                        "a log cannot be rotated", extra={"task": record.id, "why": str(error)}
                    )


def _share(config: AgentConfig) -> None:
    """Make mounts below our directories visible to the spawner; undone when the node leaves."""
    for directory in (config.state_dir, config.run_dir):
        share(directory)


async def _forever(part: Callable[[], Awaitable[None]]) -> None:
    await part()


async def _close(close: Callable[[], Awaitable[None] | None]) -> None:
    waiting = close()
    if waiting is not None:
        await waiting


async def _leave(config: AgentConfig, worker: Worker, effects: Effects) -> list[str]:
    left = await worker.leave()
    if not left:
        if effects.leave is not None:
            await effects.leave()
        exits.remove_parent(config.cgroup)
        await asyncio.to_thread(shutil.rmtree, config.tasks, True)  # noqa: FBT003 - its signature
        config.tasks.mkdir(mode=0o700, parents=True)
        for directory in (config.state_dir, config.run_dir):
            unshare(directory)
        _uninstall(os.environ.get("CORRAL_UNINSTALL", ""))
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
