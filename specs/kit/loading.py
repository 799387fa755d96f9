"""Load a module beside the event loop.

What a daemon needs only later is not imported at its start; but an import on the loop is a turn of
its own, 0.1 s for networkx or asyncssh, in which the daemon hears nobody. So whoever comes to
need such a module first awaits it here; the ``import`` statement where it is used is then free.
"""

from __future__ import annotations

import asyncio
import importlib
import sys


async def load(module: str) -> None:
    """Import ``module`` in a thread, unless that is done. Raises ImportError."""
    if not _loaded(module):
        await asyncio.to_thread(importlib.import_module, module)


def _loaded(module: str) -> bool:
    """Say whether an import would return at once: one under way in another thread holds a lock."""
    found = sys.modules.get(module)
    return found is not None and not getattr(found.__spec__, "_initializing", False)
