"""An agent with plain images and no network, as a process of its own: what real tests run.

Run as ``python -m tests.real.agent_process``; settings come from the environment as
for the real agent.
"""

from __future__ import annotations

import asyncio
import shutil
import sys

from agent import daemon
from agent.config import from_environment
from agent.linux import calls
from agent.tasks.effects import Effects
from specs.kit import log
from tests.fakes.node import FakeImages, FakeNetwork, FakeVolumes, NoPeers, make_root


class DiskImages(FakeImages):
    """One busybox layer, an overlay on top of it for each task, as the real part does."""

    async def mount(self, task, digest):
        lower = self.base / "layer"
        if not lower.exists():
            # Under a passing name: these agents are killed at any moment, here too.
            making = self.base / "layer.new"
            shutil.rmtree(making, ignore_errors=True)
            make_root(making)
            making.rename(lower)
        merged = self.root(task)
        if not merged.is_mount():
            for name in ("upper", "work"):
                (self.base / name / task).mkdir(parents=True, exist_ok=True)
            merged.mkdir(parents=True, exist_ok=True)
            upper, work = (self.base / name / task for name in ("upper", "work"))
            data = f"lowerdir={lower},upperdir={upper},workdir={work}"
            calls.mount("overlay", str(merged), "overlay", 0, data)
        return merged

    async def unmount(self, task):
        merged = self.root(task)
        if merged.is_mount():
            calls.unmount(str(merged), calls.MNT_DETACH)

    async def discard(self, task):
        await self.unmount(task)
        for name in ("upper", "work", "roots"):
            shutil.rmtree(self.base / name / task, ignore_errors=True)


def main() -> int:
    log.configure()
    sys.setswitchinterval(0.001)
    config = from_environment()
    images = DiskImages(config.state_dir / "images")
    volumes = FakeVolumes(config.run_dir / "volumes")
    effects = Effects(images, volumes, FakeNetwork(), NoPeers())
    asyncio.run(daemon.run(config, effects))
    return 0


if __name__ == "__main__":
    sys.exit(main())
