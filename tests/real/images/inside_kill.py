"""SIGKILL and full disks at any moment: nothing half made is used, nothing is left for ever."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from agent.errors import Later
from agent.images.layers import UnpackLimits
from agent.images.store import ImageStore
from agent.linux import calls as kernel
from tests.agent.images import tars

if TYPE_CHECKING:
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
PROGRAM = """
import asyncio, sys
from pathlib import Path
from agent.images.store import ImageStore
async def main():
    async with ImageStore(Path(sys.argv[1]), Path(sys.argv[2])) as store:
        print("go", flush=True)
        image = await store.ensure(sys.argv[3], sys.argv[4])
        await store.mount("t1", image.digest)
        print("done", flush=True)
asyncio.run(main())
"""


def start(tmp_path: Path, name: str, digest: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path / "state", tmp_path / "run", name, digest],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"go\n"
    return process


def check_whole(root: Path) -> None:
    for layer, data in enumerate(LAYERS):
        names = sorted(os.listdir(root / f"l{layer}"))
        assert names == sorted(f"f{number}" for number in range(100))
        for number in (0, 99):
            assert (root / f"l{layer}/f{number}").read_bytes() in data


def helpers() -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as file:
            command = file.read()
            if "agent.images.unpack" in command or "skopeo" in command:
                found.append(command)
    return found


async def test_killed_at_any_moment_of_pull_unpack_and_mount(registry: Registry, tmp_path) -> None:
    digest = registry.push("app:1", LAYERS)
    name = f"{registry.address}/app:1"
    began = time.monotonic()
    process = start(tmp_path, name, digest)
    assert process.wait(60) == 0
    process.communicate()
    whole = time.monotonic() - began
    moments = 12
    for moment in range(moments):
        case = tmp_path / f"kill-{moment}"
        process = start(case, name, digest)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(whole * moment / moments)
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 30
        while helpers() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert helpers() == []
        async with ImageStore(case / "state", case / "run") as store:
            for info in await store.list():  # what it calls complete, is
                check_whole(await store.mount("t1", info.digest))
            for path in store.content.blobs.iterdir():
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            await store.ensure(name, digest)
            check_whole(await store.mount("t1", digest))
            assert list((store.content.root / "staging").iterdir()) == []
            await store.discard("t1")
            await store.prune([], named=True)
            assert list(store.content.layers.iterdir()) == []
            assert list(store.content.blobs.iterdir()) == []
    async with ImageStore(tmp_path / "state", tmp_path / "run") as store:
        await store.discard("t1")


@pytest.fixture
def small_disk(tmp_path: Path):
    """A state directory with 12 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    kernel.mount("small", str(disk), "tmpfs", 0, "size=12m,nr_inodes=4k")
    yield disk
    kernel.unmount(str(disk))


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
        assert abs(os.statvfs(small_disk).f_bavail - before) * 4096 < 1 << 20


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
async def test_a_bomb_costs_neither_memory_nor_disk(store, tmp_path, packing) -> None:
    """10 GiB of zeros in a few MiB: stopped early (so its beginning is enough here)."""
    bomb = tmp_path / "bomb"
    head = tars.header(b"zeros", size=10 << 30)
    packer, size = ("gzip -1", 2_000_000) if packing == "gzip" else ("zstd -1", 30_000)
    command = f"(cat; head -c 400M /dev/zero) | {packer} | head -c {size}"
    with bomb.open("wb") as file:
        process = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, stdout=file)
        process.communicate(head)
    before = os.statvfs(tmp_path).f_bavail
    with pytest.raises(Exception, match="decompression bomb"):
        await store.add("bomb", bomb, {})
    assert list(store.content.layers.iterdir()) == []
    assert list((store.content.root / "staging").iterdir()) == []
    assert (before - os.statvfs(tmp_path).f_bavail) * 4096 < 64 << 20  # others use this disk too
