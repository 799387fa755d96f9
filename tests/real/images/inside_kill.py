"""SIGKILL and full disks at any moment: nothing half made is used, nothing is left for ever."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import select
import signal
import subprocess
import sys
import time
import zlib
from typing import TYPE_CHECKING

import pytest

from agent.errors import Later
from agent.images.layers import UnpackLimits
from agent.images.store import ImageStore
from agent.linux import calls as kernel
from tests.agent.images import tars

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.real.images.conftest import Registry

# Noise does not pack, so pulling and unpacking take long enough to be hit.
RANDOM = random.Random(7)
LAYERS = [
    tars.archive(
        *(
            tars.file(b"l%d/f%d" % (layer, number), RANDOM.randbytes(30_000))
            for number in range(100)
        )
    )
    for layer in range(3)
]
# A warm process forks for every pull: a cold interpreter each time cost more than the pull.
SERVER = """
import asyncio, os, sys
from pathlib import Path
from agent.images.store import ImageStore
async def main(state, run, name, digest):
    async with ImageStore(Path(state), Path(run)) as store:
        os.write(1, b"go\\n")
        image = await store.ensure(name, digest)
        await store.mount("t1", image.digest)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(main(*line.split()))
            code = 0
        finally:
            os._exit(code)
    os.write(1, b"%d\\n" % child)
    os.write(1, b"ended %d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class Puller:
    """Pulls, unpacks and mounts an image in a process that can be killed at any moment."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._said = b""
        self.server = self._server.pid
        self.pid = 0

    def start(self, folder: Path, name: str, digest: str) -> None:
        """Return when it has begun."""
        line = f"{folder / 'state'} {folder / 'run'} {name} {digest}\n"
        assert self._server.stdin is not None
        self._server.stdin.write(line.encode())
        said = {self._line(), self._line()}  # the two processes write in any order
        assert "go" in said, said
        (number,) = said - {"go"}
        self.pid = int(number)

    def wait(self, seconds: float) -> int | None:
        """Return its exit code, or None while it runs on."""
        said = self._line(seconds)
        return int(said.split()[1]) if said else None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert self.wait(60) == -signal.SIGKILL

    def close(self) -> None:
        self._server.communicate()

    def _line(self, seconds: float = 60.0) -> str:
        until = time.monotonic() + seconds
        assert self._server.stdout is not None
        while b"\n" not in self._said:
            left = max(0.0, until - time.monotonic())
            if not select.select([self._server.stdout], [], [], left)[0]:
                return ""
            data = os.read(self._server.stdout.fileno(), 4096)
            assert data, "the server ended"
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()


@pytest.fixture
def puller() -> Iterator[Puller]:
    made = Puller()
    yield made
    made.close()


def check_whole(root: Path) -> None:
    for layer, data in enumerate(LAYERS):
        names = sorted(os.listdir(root / f"l{layer}"))
        assert names == sorted(f"f{number}" for number in range(100))
        for number in (0, 99):
            assert (root / f"l{layer}/f{number}").read_bytes() in data


def helpers(server: int) -> list[str]:
    """Return what runs of pulls: their programs, and forks of them that are no programs yet."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as file:
            command = file.read()
            if int(pid) != server and ("agent.images" in command or "skopeo" in command):
                found.append(command)
    return found


@pytest.mark.parametrize("moments", [6, pytest.param(40, marks=pytest.mark.slow)])
async def test_killed_at_any_moment_of_pull_unpack_and_mount(
    registry: Registry, tmp_path, puller, moments
) -> None:
    digest = registry.push("app:1", LAYERS)
    name = f"{registry.address}/app:1"
    began = time.monotonic()
    puller.start(tmp_path, name, digest)
    assert puller.wait(60) == 0
    whole = time.monotonic() - began
    for moment in range(moments):
        case = tmp_path / f"kill-{moment}"
        puller.start(case, name, digest)
        if puller.wait(whole * moment / moments) is None:
            puller.kill()
        deadline = time.monotonic() + 60
        while helpers(puller.server) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert helpers(puller.server) == []
        async with ImageStore(case / "state", case / "run") as store:
            for info in await store.list():  # what it calls complete, is
                check_whole(await store.mount("t1", info.digest))
            for path in store.content.blobs.iterdir():
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            await store.ensure(name, digest)
            check_whole(await store.mount("t1", digest))
            assert store.content.emptied(60)
            assert list((store.content.root / "staging").iterdir()) == []
            await store.discard("t1")
            await store.prune([], named=True)
            assert list(store.content.layers.iterdir()) == []
            assert list(store.content.blobs.iterdir()) == []
    async with ImageStore(tmp_path / "state", tmp_path / "run") as store:
        await store.discard("t1")


@contextlib.contextmanager
def a_disk(place: Path, options: str) -> Iterator[Path]:
    """Have a disk of its own at a place."""
    place.mkdir()
    kernel.mount("disk", str(place), "tmpfs", 0, options)
    yield place
    deadline = time.monotonic() + 60
    while True:
        try:
            kernel.unmount(str(place))
        except OSError as error:  # what a test discarded last may still be being deleted
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            break


@pytest.fixture
def small_disk(tmp_path: Path):
    """A state directory with 12 MiB."""
    with a_disk(tmp_path / "disk", "size=12m,nr_inodes=4k") as disk:
        yield disk


async def test_a_full_disk_is_said_and_recovered_from(
    registry: Registry, tmp_path, small_disk
) -> None:
    digest = registry.push("app:1", LAYERS)
    name = f"{registry.address}/app:1"
    filler = small_disk / "filler"
    limits = UnpackLimits(floor=256 << 10)
    async with ImageStore(small_disk / "state", tmp_path / "run", limits=limits) as store:
        filler.write_bytes(bytes(6 << 20))
        for _ in range(2):
            with pytest.raises(Later, match=r"(?i)no space|nearly full|MiB free"):
                await store.ensure(name, digest)
            assert store.content.emptied(60)
            assert list((store.content.root / "staging").iterdir()) == []
            assert await store.list() == []
        filler.unlink()
        small = registry.push("small:1", [tars.archive(tars.file(b"f", b"x" * 100_000))])
        await store.ensure(f"{registry.address}/small:1", small)
        root = await store.mount("t1", small)
        assert (root / "f").stat().st_size == 100_000
        filler.write_bytes(b"")
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(12 << 20))
        await store.discard("t1")  # taking away works on a full disk
        filler.unlink()


async def test_unpacking_stops_at_the_disks_floor(registry: Registry, tmp_path, small_disk) -> None:
    sparse_ratio = tars.archive(tars.file(b"zeros", bytes(9 << 20)))
    digest = registry.push("zeros:1", [sparse_ratio])
    limits = UnpackLimits(floor=8 << 20)
    async with ImageStore(small_disk / "state", tmp_path / "run", limits=limits) as store:
        before = os.statvfs(small_disk).f_bavail
        with pytest.raises(Later, match="nearly full"):
            await store.ensure(f"{registry.address}/zeros:1", digest)
        assert store.content.emptied(60)
        assert abs(os.statvfs(small_disk).f_bavail - before) * 4096 < 1 << 20


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
async def test_a_bomb_costs_neither_memory_nor_disk(own_disk, tmp_path, packing) -> None:
    """10 GiB of zeros in a few MiB: stopped early (so its beginning is enough here)."""
    bomb = tmp_path / "bomb"
    head = tars.header(b"zeros", size=10 << 30)
    bomb.write_bytes(gzipped(head) if packing == "gzip" else zstd(head))
    async with ImageStore(own_disk / "state", tmp_path / "run") as store:
        before = os.statvfs(own_disk).f_bavail
        with pytest.raises(Exception, match="decompression bomb"):
            await store.add("bomb", bomb, {})
        assert list(store.content.layers.iterdir()) == []
        assert store.content.emptied(60)
        assert list((store.content.root / "staging").iterdir()) == []
        assert (before - os.statvfs(own_disk).f_bavail) * 4096 < 8 << 20


ZEROS = bytes(8 << 20)
TIMES = 50


def gzipped(head: bytes) -> bytes:
    """Return a stream of ``head`` and 400 MiB of zeros: after a full flush a piece fits again."""
    packer = zlib.compressobj(1, wbits=31)
    begin = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    return begin + (packer.compress(ZEROS) + packer.flush(zlib.Z_FULL_FLUSH)) * TIMES


def zstd(head: bytes) -> bytes:
    """Return the same as frames one after the other."""

    def frame(data: bytes) -> bytes:
        return subprocess.run(
            ["zstd", "-1", "-q"], input=data, stdout=subprocess.PIPE, check=True
        ).stdout

    return frame(head) + frame(ZEROS) * TIMES


@pytest.fixture
def own_disk(tmp_path: Path):
    """A disk that nobody else fills meanwhile."""
    with a_disk(tmp_path / "own", "size=1g") as disk:
        yield disk
