"""A controller killed while it starts for the first time, or while a state is put in place.

Each place is a kill of a forked process: what is on the disk then is what the next one finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal

import pytest

from orchestrator import controller
from orchestrator.backups import contents, making, restoring
from orchestrator.config import ControllerConfig
from orchestrator.keys import identity
from orchestrator.store.base import Put
from specs.kit import failpoints
from specs.kit.clock import SystemClock
from specs.kit.failpoints import watched

START = (
    *("store.created", "store.mid_migration", "store.checkpoint", "store.before_commit"),
    *("store.after_commit", "disk.before_sync", "disk.before_rename", "disk.after_rename"),
)
RESTORE = ("restore.before_rename", "restore.after_rename")


@pytest.fixture
def config(tmp_path):
    (tmp_path / "run").mkdir()
    return ControllerConfig(state_dir=tmp_path / "state", run_dir=tmp_path / "run")


def killed_at(name, time, work):
    """Run ``work`` in a fork that is killed at a place, the n-th time; say whether it was."""
    left = [time]

    def look(reached):
        left[0] -= reached == name
        if left[0] == 0:
            failpoints.act("kill")

    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException), watched(look):
            work()
            os._exit(0)
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), f"{name}: it failed by itself"
    return code == -signal.SIGKILL


async def begin(config):
    """Do what a controller does first; return its cluster's id."""
    controller.folders(config)
    store, sealer = await controller.opened(config)
    try:
        found = await identity.load(store, clock=SystemClock(), rng=random.Random(1), routes=())
        await store.txn((), (Put("/secret", sealer.seal(b"kept")),))
        sealed = await store.get("/secret")
        assert sealer.open(sealed.value) == b"kept"
        return found.id
    finally:
        await store.close()


@pytest.mark.parametrize("name", START)
def test_a_first_start_that_was_killed_is_followed_by_one_that_works(config, name):
    times = 0
    for times in range(1, 50):
        place = config.state_dir.with_name(f"state{times}")
        one = ControllerConfig(state_dir=place, run_dir=config.run_dir)
        if not killed_at(name, times, lambda one=one: asyncio.run(begin(one))):
            break
        first = asyncio.run(begin(one))
        assert asyncio.run(begin(one)) == first
    assert times > 1, "the place is reached"


def laid_out(config, folder, name):
    folder.mkdir(parents=True)
    (folder / contents.STATE).write_text(name)
    (folder / contents.SETTINGS).write_text("{}")
    return folder


@pytest.mark.parametrize("former", [True, False])
@pytest.mark.parametrize("name", RESTORE)
def test_a_restore_that_was_killed_left_the_one_or_the_other_whole(config, name, former):
    if former:
        laid_out(config, config.folder, "old")
    folder = laid_out(config, config.state_dir / ".restore-x", "new")
    killed = killed_at(name, 1, lambda: restoring.place(folder, config))
    assert killed, "the place is reached"
    states = {path.read_text(): path.parent.name for path in config.state_dir.rglob(contents.STATE)}
    if former:
        assert config.folder.is_dir(), "law: at no moment is there none, or a cluster would begin"
        assert states.keys() == {"old", "new"}, "nothing is deleted"
        assert not states["old"].startswith("."), (
            "law: the former one is in no folder that is swept"
        )
    elif name == "restore.after_rename":
        assert states == {"new": config.folder.name}


@pytest.mark.parametrize("name", ["backup.before_rename", "backup.after_rename"])
def test_a_scheduled_backup_that_was_killed_has_no_half_name(tmp_path, name):
    part, path = tmp_path / ".c-x.backup", tmp_path / "c.backup"
    part.write_text("whole")
    assert killed_at(name, 1, lambda: making._into_place(part, path))
    assert [one.read_text() for one in tmp_path.iterdir()] == ["whole"]
    assert path.exists() == (name == "backup.after_rename")
