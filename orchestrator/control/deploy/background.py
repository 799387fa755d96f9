"""Work beside the loop that takes long: images of pending releases, data of removed volumes.

Started and ended by the control loop as records say; each piece may be lost at any
time and is begun again from the records.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from orchestrator.control.deploy.images import NoImage, ReleaseImages
from orchestrator.control.mirror.released import spec_of
from orchestrator.errors import NotFound, RequestError
from specs.api import Progress, Release
from specs.kit.amounts import as_set
from specs.names import NAME
from specs.states import ReleaseState

if TYPE_CHECKING:
    from orchestrator.contracts import Agents
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.records import Volume
    from specs.kit.clock import Clock

log = logging.getLogger(__name__)

VOLUME_RETRY = 2.0

Images = dict[str, str]
Finish = Callable[[Release, Images, str], Awaitable[None]]  # images, or the reason for none
Forget = Callable[[str], Awaitable[None]]


class BackgroundWork:
    """One task per pending release and per volume whose data must go."""

    def __init__(
        self,
        cluster: Cluster,
        agents: Agents,
        clock: Clock,
        *,
        tell: Callable[[Progress], None],
        finish: Finish,
        forget: Forget,
    ) -> None:
        self._cluster = cluster
        self._agents = agents
        self._clock = clock
        self._tell = tell
        self._finish = finish
        self._forget = forget
        self._images: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._volumes: dict[str, asyncio.Task[None]] = {}

    def sync(self, group: asyncio.TaskGroup, volumes: list[Volume]) -> None:
        """Start what should be under way and end what should not."""
        wanted = {}
        for stack in self._cluster.stacks.values():
            release = self._cluster.releases.get((stack.name, stack.release))
            pending = release is not None and release.state is ReleaseState.PENDING
            if release is not None and pending and stack.desired == "up":
                wanted[(stack.name, release.number)] = release
        for key in [key for key in self._images if key not in wanted]:
            self._images.pop(key).cancel()
        for key, release in wanted.items():
            if key not in self._images:
                self._images[key] = group.create_task(
                    self._prepare(release), name=f"prepare {key[0]} release {key[1]}"
                )
        names = {volume.name for volume in volumes}
        for name in [name for name in self._volumes if name not in names]:
            self._volumes.pop(name).cancel()
        for volume in volumes:
            if volume.name not in self._volumes:
                self._volumes[volume.name] = group.create_task(
                    self._remove(volume), name=f"remove volume {volume.name}"
                )

    async def _prepare(self, release: Release) -> None:
        spec = spec_of(self._cluster, release)
        if spec is None:
            await self._finish(release, {}, "its spec is not in the store")
            return
        work = ReleaseImages(self._cluster, self._agents, self._clock, release, spec, self._tell)
        try:
            async with asyncio.timeout(spec.deadline):
                images = await work.images()
        except NoImage as exc:
            await self._finish(release, {}, str(exc))
        except TimeoutError:
            await self._finish(release, {}, f"images were not ready after {as_set(spec.deadline)}")
        except Exception as exc:
            # The loop must live on; the release says what the log explains.
            log.exception("preparing failed", extra={"stack": release.stack})
            await self._finish(release, {}, f"internal error ({type(exc).__name__}), see the log")
        else:
            await self._finish(release, images, "")

    async def _remove(self, volume: Volume) -> None:
        if NAME.fault(volume.name):
            # No agent makes such a volume (or takes the name): nothing is there.
            await self._forget(volume.name)
            return
        for node in list(self._cluster.nodes) if volume.everywhere else [volume.node]:
            await self._remove_from(node, volume)
        await self._forget(volume.name)

    async def _remove_from(self, node: str, volume: Volume) -> None:
        """Have a node delete its data of a volume; one that left takes it along."""
        while node in self._cluster.nodes:
            try:
                await self._agents.remove_volume(node, volume.name)
                break
            except NotFound:
                break
            except RequestError as exc:
                self._tell(
                    Progress(
                        kind="warning",
                        time=self._clock.wall(),
                        stack=volume.stack,
                        message=f"volume {volume.name}: {exc.detail}; trying again",
                    )
                )
                await asyncio.sleep(VOLUME_RETRY)
