"""A created container is let go by a byte in the pipe it waits at, or by the runtime itself."""

from __future__ import annotations

import os

import pytest

from agent.runtime.crun import Runtime
from agent.runtime.failure import RuntimeFailure
from agent.runtime.spawner import Finished


class Programs:
    """What was started instead."""

    def __init__(self, code=0, output=""):
        self.ran, self.finished = [], Finished(code, output)

    async def run(self, argv, *, timeout):
        self.ran.append(argv)
        return self.finished


@pytest.fixture
def pipe(tmp_path):
    (tmp_path / "t1").mkdir()
    os.mkfifo(tmp_path / "t1/exec.fifo")
    return tmp_path / "t1/exec.fifo"


async def test_who_waits_gets_a_byte_and_the_pipe_is_gone(tmp_path, pipe):
    programs = Programs()
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        await Runtime("/usr/bin/crun", "crun", tmp_path, programs).start("t1")
        assert os.read(reader, 10) == b"\0"
        assert os.read(reader, 10) == b"", "nobody holds it open"
    finally:
        os.close(reader)
    assert not pipe.exists(), "that is how crun knows that it was started"
    assert programs.ran == []


@pytest.mark.parametrize("case", ["nobody waits", "no pipe", "runc"])
async def test_else_the_runtime_starts_it_and_says_why_it_cannot(tmp_path, pipe, case):
    name = "runc" if case == "runc" else "crun"
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK) if case == "runc" else None
    if case == "no pipe":
        pipe.unlink()
    programs = Programs(1, "container `t1` is not running")
    with pytest.raises(RuntimeFailure, match="not running"):
        await Runtime(f"/usr/bin/{name}", name, tmp_path, programs).start("t1")
    assert programs.ran == [[f"/usr/bin/{name}", f"--root={tmp_path}", "start", "t1"]]
    assert pipe.exists() == (case != "no pipe")
    if reader is not None:
        os.close(reader)
