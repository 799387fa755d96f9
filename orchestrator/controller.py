"""The controller process: builds the parts, runs them in one TaskGroup, ends them in order.

Start: locks, store, cluster identity, vault, mirror, dispatcher, control loops, API.
End (SIGTERM, SIGINT): the API stops taking requests, loops and sessions are
cancelled, the store is closed last. Containers run on. Whatever cannot start says
so in one sentence and exits with EXIT_REFUSED; nothing is half-started.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import random
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.api import app
from orchestrator.api.routes import ApiParts
from orchestrator.api.sentfiles import SentFiles
from orchestrator.backups.making import Backups
from orchestrator.control.control import ControlLoop
from orchestrator.control.exporting import export
from orchestrator.control.figures import figures
from orchestrator.control.mirror.cluster import Cluster
from orchestrator.control.state import StateQuestion
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.errors import RequestError, Unavailable
from orchestrator.keys import ca, identity, vault
from orchestrator.keys.sealing import SealedStore
from orchestrator.nodes.local import join_local_agent, lost_cluster
from orchestrator.nodes.machines import Machines
from orchestrator.nodes.members import Nodes
from orchestrator.store.base import StoreUnavailable
from orchestrator.store.sqlite import SqliteStore
from orchestrator.transport.local import LocalTransport
from specs import subnets
from specs.api import Version
from specs.kit import alive, metrics, stalls, versions
from specs.kit.clock import SystemClock
from specs.kit.disk import make_folder
from specs.kit.door import keep_open
from specs.kit.errnos import in_words
from specs.kit.sdnotify import notify

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from orchestrator.backups.making import SelfCopying
    from orchestrator.config import ControllerConfig
    from orchestrator.store.base import Store

log = logging.getLogger(__name__)

EXIT_REFUSED = 3  # it said why; starting again without a change will not help
JOIN = 5.0  # seconds for this machine's agent, before the loops begin
LONGEST_SOCKET = 103  # 108 with the terminator (unix(7)), and ".new" while it is made
ROUTES = Path("/proc/net/route")


async def run(config: ControllerConfig, *, embedded: bool) -> None:
    """Run the controller until SIGTERM. Raises RequestError or StoreError when it cannot start."""
    folders(config)
    with locked(config.folder / "lock"), locked(config.lock):
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        store, sealer = await opened(config)
        try:
            sealed = await _sealed(store, sealer)
            async with alive.shown(config.run_dir, "controller"):
                with stalls.watched():
                    await compose(
                        config, sealed, sealer, engine=store, embedded=embedded, stopped=stopped
                    )
        finally:
            await store.close()
    log.info("stopped")


async def opened(config: ControllerConfig) -> tuple[SqliteStore, vault.Vault]:
    """Return the store and what seals it, both made at a first start. Raises as :func:`run`."""
    if not config.database.exists():
        # STRICTLY before the state: one without a key is refused for ever, while a key without a
        # state is what is there after a first start that was killed between the two.
        vault.load(config.key, fresh=True)
    store = await SqliteStore.open(config.database)
    try:
        return store, vault.load(config.key, fresh=False)
    except BaseException:
        await store.close()
        raise


async def _sealed(engine: SqliteStore, sealer: vault.Vault) -> SealedStore:
    """Return the store; what an older version left in the clear is sealed first."""
    store = SealedStore(engine, sealer)
    try:
        if count := await store.seal_all():
            await engine.fold()
            log.info("specs of an earlier version were sealed", extra={"records": count})
    except StoreUnavailable as exc:
        # A full disk: all of it can be read, and the next start tries again.
        log.warning("the state file has specs in the clear: %s", exc)
    return store


async def compose(
    config: ControllerConfig,
    store: Store,
    sealer: vault.Vault,
    *,
    engine: SelfCopying,
    embedded: bool,
    stopped: asyncio.Event,
) -> None:
    """Join the parts and run them until ``stopped``."""
    clock, rng = SystemClock(), random.Random()  # noqa: S311 - ids and jitter, no secrets
    local = LocalTransport(config.agent_socket)
    found = await identity.load(
        store,
        clock=clock,
        rng=rng,
        routes=machine_routes(),
        lost=partial(lost_cluster, local, config.agent_socket) if embedded else None,
    )
    cluster = await Cluster.open(store, clock)
    authority = await ca.load(store, sealer, cluster=found.id, clock=clock)
    transport = Machines(config=config, local=local, cluster=cluster, identity=found, clock=clock)
    dispatcher = Dispatcher(
        store=store,
        cluster=cluster,
        identity=found,
        transport=transport,
        clock=clock,
        rng=rng,
        heartbeat=config.heartbeat,
        authority=authority,
        patient=config.restored.exists(),
    )
    backups = Backups(
        engine=engine,
        store=store,
        config=config,
        cluster=cluster,
        identity=lambda: dispatcher.identity,
        sealer=sealer,
        clock=clock,
        stale=lambda: dispatcher.superseded,
    )
    await backups.open()
    lag = metrics.LoopLag()
    waits = {"patience": config.patience, "heartbeat": config.heartbeat}
    control = ControlLoop(store, cluster, clock, rng, sealer, dispatcher, **waits)
    nodes = Nodes(
        store=store,
        cluster=cluster,
        agents=dispatcher,
        pool=found.pool,
        clock=clock,
        rng=rng,
        journal=control.journal,
    )
    parts = ApiParts(
        store=store,
        cluster=cluster,
        control=control,
        agents=dispatcher,
        nodes=nodes,
        clock=clock,
        version=lambda: Version(
            version=versions.installed(),
            cluster=dispatcher.identity.id,
            epoch=dispatcher.identity.epoch,
        ),
        superseded=lambda: dispatcher.behind.words if dispatcher.behind else dispatcher.superseded,
        settled=dispatcher.settled.wait,
        state=StateQuestion(store, cluster, sealer, dispatcher, clock),
        add_node=partial(transport.add_node, nodes),
        remove_node=partial(transport.remove_node, nodes),
        upgrade=partial(transport.upgrade, nodes),
        sent=SentFiles(config.folder / "sent", wall=clock.wall),
        backups=backups,
        sealer=sealer,
        figures=lambda: [
            *figures(cluster, dispatcher.identity, version=versions.installed()),
            *control.figures(),
            *backups.figures(),
            metrics.gauge("corral_sessions", "Agents instructed right now", dispatcher.sessions),
            lag.histogram.family(),
        ],
        node_figures=dispatcher.metrics,
        export=lambda: export(cluster, dispatcher.identity, version=versions.installed()),
    )
    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(cluster.follow(), name="mirror")]
        if found.epoch == 0 and embedded and config.agent_socket.exists():
            # A first start, or one whose store was lost: what this machine runs is asked first.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(JOIN):
                    await join_local_agent(nodes, cluster, local, clock, found)
        loops += [
            group.create_task(_once(dispatcher.ready, control.run), name="control"),
            group.create_task(dispatcher.run(control), name="dispatcher"),
            group.create_task(_once(dispatcher.ready, backups.run), name="backups"),
            group.create_task(lag.run(), name="lag"),
            group.create_task(_once(dispatcher.ready, _settled_in(config)), name="restored"),
        ]
        if embedded:
            loops.append(
                group.create_task(
                    join_local_agent(nodes, cluster, local, clock, found), name="local-agent"
                )
            )
        async with app.serve(app.make(parts), config.socket) as reopen:
            door = group.create_task(keep_open(config.socket, reopen), name="door")
            log.info("ready", extra={"cluster": found.id, "socket": str(config.socket)})
            notify("READY=1")
            await stopped.wait()
            notify("STOPPING=1")
            door.cancel()
        for loop in loops:
            loop.cancel()


async def _once(ready: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
    """Work once it is known that the store is as new as what runs, or somebody decided."""
    await ready.wait()
    await work()


def _settled_in(config: ControllerConfig) -> Callable[[], Awaitable[None]]:
    """Return what ends a restore: the epoch is taken, the next start is one as any other."""

    async def forget() -> None:
        with contextlib.suppress(OSError):
            config.restored.unlink(missing_ok=True)

    return forget


def folders(config: ControllerConfig) -> None:
    """Make the folders, closed to everybody else where secrets lie."""
    if len(os.fsencode(config.socket)) > LONGEST_SOCKET:
        raise Unavailable(
            f"{config.socket} is too long for the path of a unix socket",
            hint=f"CORRAL_RUN_DIR: at most {LONGEST_SOCKET - len('/controller.sock')} characters",
        )
    try:
        make_folder(config.folder)
        if config.folder.stat().st_mode & 0o777 != 0o700:  # a read-only disk takes not even that
            config.folder.chmod(0o700)
        if not config.run_dir.exists():
            config.run_dir.mkdir(parents=True)
            config.run_dir.chmod(0o755)  # the sockets in it say who may connect
    except OSError as exc:
        allowed = exc.errno not in (errno.EACCES, errno.EPERM)
        hint = "" if allowed else "the controller runs as root, or set CORRAL_*"
        raise Unavailable(f"{exc.filename}: {in_words(exc)}", hint=hint) from exc


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock; its file names the holder. Raises Unavailable when another holds it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise Unavailable(f"{path}: {in_words(exc)}") from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 32, 0).decode(errors="replace").strip()
            raise Unavailable(
                f"another controller runs here (pid {pid or 'unknown'}, lock {path})",
                hint="corral controller stop ends it",
            ) from None
        with contextlib.suppress(OSError):  # a full disk or /run: it is held all the same
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)  # and with it the lock; the file stays, or two could lock two files


def machine_routes() -> list[str]:
    """Return the networks this machine reaches, which the cluster's range must not overlap."""
    try:
        return [str(one.network) for one in subnets.routes(ROUTES.read_text())]
    except OSError:
        return []


def report(exc: BaseException) -> str:
    """Return a start-up failure as one message for people."""
    hint = exc.hint if isinstance(exc, RequestError) else ""
    return f"{exc}\n  hint: {hint}" if hint else str(exc)


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the single errors in a tree of groups."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
