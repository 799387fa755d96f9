"""A run and the process of its partner that it joins: awaited before, watched while it lives.

``agent/tasks/runner.py`` asks; what follows from the answers ``lifecycle.py`` decides.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.tasks import pairs
from agent.tasks.record import Phase
from specs.states import Desired

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.tasks.preparation import Preparation
    from agent.tasks.record import Record
    from agent.vocabulary import Process
    from specs.kit.clock import Clock


@dataclass(frozen=True)
class Pairing:
    """Of one task; ``say`` tells what it waits for."""

    preparation: Preparation
    clock: Clock
    record: Callable[[], Record]
    say: Callable[[str], None]

    async def partner(self) -> Process | None:
        """Return the process whose namespaces the next run is to join, which is awaited."""
        spec = self.record().assignment.spec
        if not pairs.joins(spec):
            return None
        while (process := self.preparation.join(self.record())) is None:
            if self.record().assignment.desired is not Desired.RUNNING:
                return None
            self.say(f"waits for {spec.partner} to run, whose {spec.lent} it shares")
            await asyncio.sleep(pairs.LOOK)
        return process

    def parted(self) -> bool:
        """Say whether the partner's process has ended that the run has joined, as news."""
        record = self.record()
        lives = record.phase is Phase.RUNNING and not record.alone
        return lives and not self.preparation.beside(record)

    async def alone(self) -> bool:
        """Say whether that process has ended, which may be about to be heard."""
        until = self.clock.monotonic() + pairs.SETTLES
        while self.record().beside is not None and self.clock.monotonic() < until:
            if not self.preparation.beside(self.record()):
                return True
            await asyncio.sleep(pairs.LOOK)
        return False

    def until(self, timeout: float | None) -> float | None:
        """Return how long at most nothing is looked at: the end of a partner wakes nobody."""
        record = self.record()
        if record.beside is None or record.alone:
            return timeout
        return pairs.PARTED if timeout is None else min(timeout, pairs.PARTED)
