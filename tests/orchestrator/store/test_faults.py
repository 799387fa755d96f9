"""Law: what was acknowledged is there after any death, and a failing disk refuses with words.

The faults are made in the kernel's place by strace, at the Nth call of a real run, so
no code knows of them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.store.statefile import StateFile

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed; make setup installs it"
)

WORK = """
import asyncio, sys
from pathlib import Path
from orchestrator.store.base import Put, StoreUnavailable
from orchestrator.store.sqlite import SqliteStore

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    print("opened", flush=True)
    for n in range(20):
        try:
            await store.txn(writes=(Put(f"/{n}", b"v" * 3000),))
        except StoreUnavailable as exc:
            print("refused", n, exc, flush=True)
        else:
            print("acknowledged", n, flush=True)
    await store.close()
    print("closed", flush=True)

asyncio.run(main())
"""


def work(path, fault):
    run = subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={fault}",
         sys.executable, "-c", WORK, str(path)],
        capture_output=True, text=True, check=False, timeout=300, cwd=ROOT,
    )  # fmt: skip
    lines = [line.split(" ", 2) for line in run.stdout.splitlines()]
    acknowledged = {int(line[1]) for line in lines if line[0] == "acknowledged"}
    refused = {int(line[1]): line[2] for line in lines if line[0] == "refused"}
    return run, acknowledged, refused


def kept(path):
    file = StateFile(path)
    found = {int(e.key[1:]) for e in file.list("/").entries}
    assert all(len(e.value) == 3000 for e in file.list("/").entries)
    file.close()
    return found


@pytest.fixture
def made(tmp_path):
    """A state file that exists: faults then hit commits, not its making."""
    path = tmp_path / "state.db"
    StateFile(path).close()
    return path


@pytest.mark.parametrize("nth", [1, 2, 3, 7, 12, 19])
def test_killed_at_the_nth_sync(made, nth):
    run, acknowledged, _ = work(made, f"fdatasync,fsync:signal=KILL:when={nth}")
    assert run.returncode != 0, "the fault was never reached"
    assert kept(made) >= acknowledged


@pytest.mark.parametrize("nth", [1, 3, 6, 11])
def test_killed_at_the_nth_write(made, nth):
    run, acknowledged, _ = work(made, f"pwrite64:signal=KILL:when={nth * 2}")
    assert run.returncode != 0, "the fault was never reached"
    assert kept(made) >= acknowledged


@pytest.mark.parametrize("nth", [1, 2, 4])
def test_killed_while_the_file_is_made(tmp_path, nth):
    path = tmp_path / "state.db"
    run, acknowledged, _ = work(path, f"fdatasync,fsync:signal=KILL:when={nth}")
    assert run.returncode != 0, "the fault was never reached"
    assert acknowledged == set()
    run, acknowledged, _ = work(path, "fsync:delay_exit=1:when=1")
    assert run.returncode == 0, run.stderr
    assert kept(path) >= acknowledged == set(range(20))


def test_a_disk_that_is_full_for_a_while(made):
    run, acknowledged, refused = work(made, "pwrite64:error=ENOSPC:when=12..20")
    assert run.returncode == 0, run.stderr
    assert refused, "the fault was never reached"
    assert all("no space is left" in why for why in refused.values())
    assert acknowledged | refused.keys() == set(range(20))
    assert max(acknowledged) == 19, "when there is room again it goes on"
    assert kept(made) == acknowledged


def test_a_sync_that_fails_once_is_refused_and_the_file_opened_afresh(made):
    run, acknowledged, refused = work(made, "fdatasync,fsync:error=EIO:when=6")
    assert run.returncode == 0, run.stderr
    assert len(refused) == 1
    assert "its disk gives errors" in next(iter(refused.values()))
    assert kept(made) >= acknowledged


def test_a_disk_that_gives_errors_for_ever_refuses_everything_and_loses_nothing(made):
    run, acknowledged, refused = work(made, "fdatasync,fsync:error=EIO:when=6+")
    assert refused, run.stderr
    assert "Traceback" not in run.stderr
    assert kept(made) >= acknowledged
