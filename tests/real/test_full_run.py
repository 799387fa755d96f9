"""The agent where /run is full of bytes, or of inodes: nothing ends, why is said, it goes on."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from specs.stack import RestartPolicy
from tests.real.agent_host import AgentHost, assignment

pytestmark = pytest.mark.real


@pytest.fixture
async def host():
    made = AgentHost()
    try:
        place = f"{made.run}/agent"  # the socket beside it is for the test, too
        made.shell(f"mkdir -p {place} && mount -t tmpfs -o size=24m,nr_inodes=3000 r {place}")
        await made.start()
        yield made
    finally:
        await made.stop()


FILLS = {
    "bytes": ("cat /dev/zero > {run}/big 2>/dev/null || true", "rm {run}/big", "MiB free"),
    "inodes": (
        "mkdir -p {run}/many && cd {run}/many && seq 4000 | xargs touch 2>/dev/null || true",
        "rm -r {run}/many",
        "inodes free",
    ),
}


@pytest.mark.parametrize("what", FILLS)
async def test_a_full_run_directory_takes_nothing_along(host, what):
    fill, free, words = (text.format(run=f"{host.run}/agent") for text in FILLS[what])
    again = RestartPolicy(condition="any", delay=0.1)
    names = ("t0", "t1", "t2")
    await host.put(*(assignment(n, "echo said; exec sleep 1000", restart=again) for n in names))
    before = [s.run.pid for s in await host.ready(*names)]
    host.shell(fill)
    await host.says_of_its_room(words)

    # What is asked of what runs works, or says why not.
    assert [line.line for line in await host.logs("t1")] == ["said"]
    # What goes, goes.
    await host.remove("t2")
    # Who crashes is started again, now or when there is room.
    host.shell(f"kill -9 {before[1]}")
    host.shell(fill)
    # A new one waits and says for what.
    await host.put(assignment("t5"))
    host.shell(fill)
    said = ("no space left", "no space is left", "no inode is left")
    await host.until(
        lambda seen: "t5" in seen and any(w in seen["t5"].reason.lower() for w in said), "why"
    )
    # The next agent comes up in it, and finds what runs.
    host.kill()
    host.shell(fill)
    await host.start()
    assert (await host.ready("t0"))[0].run.pid == before[0]
    await host.says_of_its_room(words)
    host.shell(free)
    await host.says_of_its_room("")
    await host.ready("t0", "t1", "t5")
    assert (await host.ready("t0"))[0].run.pid == before[0]
    assert not [p for p in host.processes() if "t2" in p]
    await host.remove()


INSIDE = """\
import os, socket, sys
from pathlib import Path
from orchestrator.embedded.supervisor import write_atomically
from specs.kit.door import listen
run, what = Path(sys.argv[1]), sys.argv[2]
listen(run / "agent.sock").close()
write_atomically(f"{run}/status", "agent 1\\n" * 9)
try:
    for number in range(100):
        (run / f"more{number}").write_bytes(b"x" * (1 << 20 if what == "bytes" else 0))
except OSError:
    pass
door = listen(run / "agent.sock")
socket.socket(socket.AF_UNIX).connect(str(run / "agent.sock"))
write_atomically(f"{run}/status", "agent 2\\n")
assert (run / "status").read_text() == "agent 2\\n"
try:
    write_atomically(f"{run}/other", "agent 2\\n")
except OSError as error:
    print("full", error.errno)
"""


@pytest.mark.parametrize("what", FILLS)
def test_a_daemon_that_died_comes_up_again_in_a_full_run_directory(tmp_path, what):
    """Its socket and the supervisor's word on who runs take the place they had."""
    mounted = 'mount -t tmpfs -o size=4m,nr_inodes=12 r "$1"; exec "$0" -c "$2" "$1" "$3"'
    words = ["sh", "-ec", mounted, sys.executable, str(tmp_path), INSIDE, what]
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", *words],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == f"full {errno.ENOSPC}\n", done.stderr
