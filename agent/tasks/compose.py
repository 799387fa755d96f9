"""Join the parts that tasks need; who asks whom is readable from top to bottom.

``agent/daemon.py`` calls it with the real parts of a node, the tests with parts in memory. Each
part knows only those made before it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.tasks.holdings import Holdings
from agent.tasks.leases import LeaseKeeper, MemoryLeases
from agent.tasks.listeners import Listeners
from agent.tasks.networking import NetworkKeeper
from agent.tasks.preparation import Preparation
from agent.tasks.reports import Reports
from agent.tasks.runner import RunnerParts
from agent.tasks.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from agent.runtime.bundle import NodeTraits
    from agent.tasks.effects import Containers, Effects, HookRunner, Prober
    from agent.tasks.journal import Journal
    from agent.tasks.leases import LeaseStore
    from agent.tasks.record import Record
    from specs.kit.clock import Clock
    from specs.node import NodeFacts

SLOTS = 4  # containers made or taken away at once: more gains little on two cores


@dataclass(frozen=True)
class TaskParts:
    """What the daemon and the server speak to."""

    holdings: Holdings
    reports: Reports
    worker: Worker
    listeners: Listeners
    leases: LeaseKeeper


def compose(
    effects: Effects,
    *,
    journal: Journal,
    containers: Containers,
    prober: Prober,
    hooks: HookRunner,
    clock: Clock,
    boot: str,
    traits: NodeTraits,
    tasks: Path,
    facts: NodeFacts,
    look: Callable[[], Awaitable[NodeFacts]],
    join: Callable[[], Awaitable[None]] | None = None,
    ending: Callable[[], bool] = lambda: False,
    room: Callable[[], str] = lambda: "",
    leases: LeaseStore | None = None,
    boottime: Callable[[], float] | None = None,
) -> TaskParts:
    """Return the worker of a node and what it works with; ``room``: why its disk has none."""
    holdings = Holdings()
    network = effects.network
    reports = Reports(
        holdings,
        facts=facts,
        look=look,
        warnings=lambda: network.warnings,
        trouble=lambda: network.trouble,
        mtu=lambda: network.underlay_mtu,
        volumes=effects.volumes.held,
        room=lambda: room() or journal.behind or journal.fault,
        wall=clock.wall,
    )
    networking = NetworkKeeper(holdings, network, effects.peers, reports)
    preparation = Preparation(
        images=effects.images,
        volumes=effects.volumes,
        network=network,
        containers=containers,
        tasks=tasks,
        traits=traits,
        holdings=holdings,
        networks_known=networking.known,
    )

    listeners = Listeners()

    def changed(record: Record) -> None:
        listeners.changed(record)
        reports.changed(record)
        networking.changed(record)

    keeper = LeaseKeeper(
        holdings, effects.peers, leases or MemoryLeases(), boottime or clock.monotonic
    )
    effects.peers.answer_by(keeper.vouch)
    parts = RunnerParts(
        journal=journal,
        preparation=preparation,
        containers=containers,
        prober=prober,
        hooks=hooks,
        clock=clock,
        slots=asyncio.Semaphore(SLOTS),
        changed=changed,
        settled=networking.settled,
        listeners=listeners,
        ending=ending,
        lease=keeper.stage,
    )
    worker = Worker(
        holdings,
        parts,
        reports=reports,
        networking=networking,
        leases=keeper,
        boot=boot,
        join=join,
    )
    return TaskParts(holdings, reports, worker, listeners, keeper)
