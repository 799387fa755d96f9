"""Keep a daemon reachable: its socket's path is opened again when somebody deleted it.

A tidy-up of /run must not leave a daemon that lives, holds its lock and answers nobody.
Called by orchestrator.api.app and agent.daemon beside their servers.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import NoReturn

log = logging.getLogger(__name__)

EVERY = 1.0  # seconds between two looks: one stat each


async def keep_open(path: Path, reopen: Callable[[], Awaitable[None]]) -> NoReturn:
    """Call ``reopen`` whenever nothing is at ``path``.

    What another process has put there is left alone: it replaces us.
    """
    while True:
        await asyncio.sleep(EVERY)
        if path.exists():
            continue
        try:
            await reopen()
        except OSError as error:
            log.warning(
                "the deleted socket cannot be opened again",
                extra={"socket": str(path), "why": str(error)},
            )
        else:
            log.warning("the socket had been deleted; opened again", extra={"socket": str(path)})
