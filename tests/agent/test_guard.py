"""The guard of exclusive tasks: whom it kills by which files, and when it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent import guard
from agent.tasks.guarded import SPARE, GuardedLeases, boottime
from specs.lease import KILL, TERM


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A folder that looks like the control groups of one hierarchy."""
    top = tmp_path / "cgroup"
    top.mkdir()
    monkeypatch.setattr(guard, "CGROUPS", top)
    return top


def lease(folder, task, kill):
    folder.mkdir(exist_ok=True)
    (folder / f"{task}.lease").write_text(json.dumps({"kill": kill}))


def test_only_what_is_over_is_due(tmp_path):
    folder = tmp_path / "leases"
    lease(folder, "t-over", 10.0)
    lease(folder, "t-held", 11.0)
    (folder / "t-torn.lease").write_text("{")
    assert guard.due(folder, 10.0) == ["t-over"]


def test_it_kills_every_process_of_the_group_and_lets_frozen_ones_die(groups):
    place = groups / "freezer" / "corral" / "t1" / "below"
    place.mkdir(parents=True)
    child = subprocess.Popen(["sleep", "60"])
    (place / "cgroup.procs").write_text(f"{child.pid}\n")
    (place.parent / "freezer.state").write_text("FROZEN\n")
    assert guard.kill(guard.places("corral", "t1")) == 1
    assert child.wait(timeout=60) == -signal.SIGKILL
    assert (place.parent / "freezer.state").read_text() == "THAWED"


def test_what_is_not_there_is_nothing_to_kill(groups):
    assert guard.kill(guard.places("corral", "t1")) == 0


def test_it_ends_when_nothing_is_to_be_guarded(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "IDLE", 0.3)
    monkeypatch.setattr(guard, "LOOK", 0.01)
    guard.run(tmp_path, "corral")


def test_leases_are_files_that_the_next_agent_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(GuardedLeases, "_guard", lambda _: None)
    store = GuardedLeases(tmp_path / "leases", "corral", "boot1")
    assert store.load() == ({}, ())
    store.put({"t1": 100.0, "t2": 90.0}, ("n2",))
    assert GuardedLeases(tmp_path / "leases", "corral", "boot1").load() == (
        {"t1": 100.0, "t2": 90.0},
        ("n2",),
    )
    assert GuardedLeases(tmp_path / "leases", "corral", "boot2").load() == ({}, ())
    at = 100.0 - TERM + KILL + SPARE
    assert sorted(guard.due(tmp_path / "leases", at)) == ["t1", "t2"]
    assert guard.due(tmp_path / "leases", at - 0.001) == ["t2"]
    assert at < 100.0, "it is dead before its lease has ended"
    store.put({"t1": 100.0}, ())
    assert [path.name for path in (tmp_path / "leases").glob("*.lease")] == ["t1.lease"]


def locks(pid: int) -> bool:
    """Say whether a process has a file locked, without taking the lock: it would give up."""
    try:
        return any("FLOCK" in path.read_text() for path in Path(f"/proc/{pid}/fdinfo").iterdir())
    except OSError:  # a file was closed meanwhile
        return False


def test_one_guard_at_a_time_and_it_needs_the_standard_library_only(tmp_path):
    folder = tmp_path / "leases"
    lease(folder, "t-held", boottime() + 600)
    root = Path(guard.__file__).parents[1]
    argv = [sys.executable, "-S", "-m", "agent.guard", str(folder), "corral-none"]
    first = subprocess.Popen(argv, env={"PYTHONPATH": str(root)}, cwd="/")
    try:
        until = time.monotonic() + 60
        while not locks(first.pid):
            assert time.monotonic() < until, "the first one guards"
            time.sleep(0.01)
        second = subprocess.run(
            argv, env={"PYTHONPATH": str(root)}, cwd="/", timeout=60, check=False
        )
        assert second.returncode == 0, "another guards already"
        assert first.poll() is None
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
