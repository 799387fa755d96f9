"""A probe that takes too long is ended, at whichever moment: never two of one task at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest

from agent.runtime import exec as execution
from agent.runtime.failure import RuntimeFailure
from specs.kit.patience import Patience
from specs.wire import ExecRequest

# What the runtime does: begins the command, says its pid, waits for its end.
RUNTIME = """
cd "$1"
[ "$2" != late ] || until [ -e go ]; do sleep 0.01; done
sleep 1000 & echo $! >told; echo $! >pid.new; mv pid.new pid
[ "$2" != early ] || touch begun
wait
"""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def listened(program, folder):
    """Return a session with one pipe, which nobody writes to."""
    mine, theirs = os.pipe()
    os.close(theirs)
    return execution.ExecSession(program, folder, readers={mine: execution.STDOUT})


@pytest.mark.parametrize("when", ["early", "late"])
async def test_a_probe_is_killed_also_before_there_is_a_pid(tmp_path, monkeypatch, when):
    """``late``: a busy machine, on which the patience ended before the command had begun."""
    kill = execution._kill

    async def begin(*_):
        program = subprocess.Popen(["sh", "-c", RUNTIME, "sh", tmp_path, when])
        deadline = time.monotonic() + 60
        while when == "early" and not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return listened(program, tmp_path)

    async def killed(session):
        assert session.program.poll() is None, "law: the runtime is not killed instead"
        (tmp_path / "go").touch()
        await kill(session)

    monkeypatch.setattr(execution, "begin", begin)
    monkeypatch.setattr(execution, "_kill", killed)
    monkeypatch.setattr(execution, "KILL_TIMEOUT", 60.0)
    code, words = await execution.probe(None, "t1", ExecRequest(command=("x",)), 0.05)
    assert (code, words) == (-1, "no answer within 50 ms")
    assert not runs(int((tmp_path / "told").read_text()))


async def test_one_that_ends_in_time_is_believed(tmp_path, monkeypatch):
    async def begin(*_):
        return listened(subprocess.Popen(["sh", "-c", "exit 7"]), tmp_path)

    monkeypatch.setattr(execution, "begin", begin)
    assert await execution.probe(None, "t1", ExecRequest(command=("x",)), 60.0) == (7, "")


@pytest.mark.parametrize("moment", ["runtime", "output"])
async def test_what_the_runtime_refuses_is_a_failure_by_that_name(tmp_path, monkeypatch, moment):
    """Its own words, so that who runs a probe takes it for one that failed, and goes on."""
    script = 'echo \'{"msg": "exec: \\"nix\\": not found"}\' >"$1/log"; exit 1'

    async def begin(*_):
        session = listened(subprocess.Popen(["sh", "-c", script, "sh", tmp_path]), tmp_path)
        if moment == "output":  # a pipe that fails takes nothing from the verdict
            monkeypatch.setattr(session, "read", broken)
        return session

    async def broken(_fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(execution, "begin", begin)
    with pytest.raises(RuntimeFailure, match="not found"):
        await execution.probe(None, "t1", ExecRequest(command=("nix",)), 60.0)


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("times", [1, 3])
async def test_who_waits_no_longer_ends_what_has_no_pid_yet(tmp_path, monkeypatch, when, times):
    """Else the runtime is killed instead, and a hook or a check runs on for ever."""
    monkeypatch.setattr(execution, "KILL_TIMEOUT", 60.0)
    program = subprocess.Popen(["sh", "-c", RUNTIME, "sh", tmp_path, when])
    while when == "early" and not (tmp_path / "begun").exists():
        await asyncio.sleep(0.01)
    session = listened(program, tmp_path)
    waits = asyncio.create_task(execution.to_end(session, lambda *_: None, Patience(60.0)))
    await asyncio.sleep(0)
    for _ in range(times):
        waits.cancel()
        await asyncio.sleep(0.02)
    (tmp_path / "go").touch()
    with pytest.raises(asyncio.CancelledError):
        await waits
    assert not runs(int((tmp_path / "told").read_text()))
