"""An agent with plain images and no network, as a process of its own: what real tests run.

Run as ``python -m tests.real.agent_process``; settings come from the environment as
for the real agent. What its event loop does that belongs beside it is said on standard error, on
lines that begin with ``ON_THE_LOOP``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import threading

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


ON_THE_LOOP = "on the event loop: "


class Loop:
    """Says what an agent that is ready imports or syncs on its loop, where it then hears nobody."""

    def __init__(self) -> None:
        self._ready = False
        self._notify, self._fsync = daemon.notify, os.fsync

    def watch(self) -> None:
        daemon.notify, os.fsync = self.notify, self.fsync
        sys.meta_path.insert(0, self)

    def notify(self, state):
        self._ready = self._ready or state == "READY=1"
        self._notify(state)

    def fsync(self, fd):
        self._say("fsync", sys._getframe(1).f_back)
        self._fsync(fd)

    def find_spec(self, name, path=None, target=None):
        self._say(f"import {name}", None)

    def _say(self, what, frame):
        here = threading.current_thread() is threading.main_thread()
        if here and self._ready and asyncio._get_running_loop() is not None:
            at = f" at {frame.f_code.co_qualname}" if frame else ""
            sys.stderr.write(f"{ON_THE_LOOP}{what}{at}\n")


def main() -> int:
    log.configure()
    Loop().watch()
    sys.setswitchinterval(0.001)
    config = from_environment()
    images = DiskImages(config.state_dir / "images")
    volumes = FakeVolumes(config.run_dir / "volumes")
    effects = Effects(images, volumes, FakeNetwork(), NoPeers())
    asyncio.run(daemon.run(config, effects))
    return 0


if __name__ == "__main__":
    sys.exit(main())
