"""The image of a one-off is found beside the loop, and who asked is told how it goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.control.deploy.images import NoImage, ReleaseImages
from orchestrator.errors import Invalid
from specs.oneoff import OneOffProgress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from orchestrator.contracts import Agents
    from orchestrator.control.mirror.cluster import Cluster
    from specs.api import Progress, Release
    from specs.kit.clock import Clock
    from specs.stack import StackSpec


async def image_of(
    release: Release,
    spec: StackSpec,
    found: dict[str, str],
    cluster: Cluster,
    agents: Agents,
    clock: Clock,
) -> AsyncGenerator[OneOffProgress, None]:
    """Put the digest of a one-off's image into ``found``, telling how it goes. Raises Invalid."""
    lines: asyncio.Queue[Progress] = asyncio.Queue()
    work = ReleaseImages(cluster, agents, clock, release, spec, lines.put_nowait)
    working = asyncio.create_task(work.images(), name=f"image of {release.services[0]}")
    try:
        while not working.done() or not lines.empty():
            if lines.empty():
                told = asyncio.create_task(lines.get())
                await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
                if not told.done():
                    told.cancel()
                    continue
                line = told.result()
            else:
                line = lines.get_nowait()
            yield OneOffProgress.model_validate(line.model_dump())
        found.update(working.result())
    except NoImage as exc:
        raise Invalid(detail=str(exc)) from exc
    finally:
        working.cancel()
