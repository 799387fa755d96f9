"""Hooks that only take time: how long, and why they fail, a test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.runtime.failure import RuntimeFailure

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class FakeHooks:
    """``takes`` maps a hook's command to seconds, ``fails`` to why; ``seen`` has what happened."""

    takes: dict[str, float] = field(default_factory=dict)
    fails: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    begins: float = 0.0  # seconds the runtime takes to begin one
    frozen: Callable[[str], bool] = lambda _: False

    async def run(self, task, run, hook, kind, patience):
        (name,) = hook.command
        if self.begins:
            await asyncio.sleep(self.begins)
        if self.frozen(task):
            self.seen.append(f"?{name}")
            raise RuntimeFailure(f"cannot exec in a paused container {task}")
        self.seen.append(name)
        try:
            async with patience.limit():
                await asyncio.sleep(self.takes.get(name, 0.1))
        except TimeoutError:
            return f"did not end within {patience.seconds:g} s"
        except asyncio.CancelledError:
            self.seen.append(f"-{name}")
            raise
        return self.fails.get(name, "")

    async def sweep(self, task):
        pass
