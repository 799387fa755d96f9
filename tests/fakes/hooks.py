"""Hooks that only take time: how long, and why they fail, a test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class FakeHooks:
    """``takes`` maps a hook's command to seconds, ``fails`` to why; ``seen`` has what happened."""

    takes: dict[str, float] = field(default_factory=dict)
    fails: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    async def run(self, task, run, hook, kind, timeout):
        (name,) = hook.command
        self.seen.append(name)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.sleep(self.takes.get(name, 0.1))
        except TimeoutError:
            return f"did not end within {timeout:g} s"
        except asyncio.CancelledError:
            self.seen.append(f"-{name}")
            raise
        return self.fails.get(name, "")

    async def sweep(self, task):
        pass
