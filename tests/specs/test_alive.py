"""A daemon shows that its event loop turns, and starts a killed supervisor again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from specs.kit import alive, sdnotify

SUPERVISOR = Path(__file__).parents[2] / "orchestrator/embedded/supervisor.py"


async def changes(path: Path, before: str, within: float = 300.0) -> str:
    async with asyncio.timeout(within):
        while not path.exists() or (found := path.read_text()) == before:
            await asyncio.sleep(0.01)
    return found


async def test_it_beats_while_the_loop_turns_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(alive, "BEAT", 0.02)
    path = tmp_path / "agent.alive"
    async with alive.shown(tmp_path, "agent"):
        first = await changes(path, "")
        assert int(first.split()[0]) == os.getpid()
        assert len(await changes(path, first)) == len(first)
        hung = path.read_text()
        time.sleep(0.2)
        assert path.read_text() == hung
        path.unlink()
        await changes(path, "")
    assert not path.exists(), "who ends in order is expected to beat no more"


@pytest.mark.parametrize("abstract", [False, True])
async def test_it_beats_for_systemd_while_its_loop_turns_and_no_longer(
    tmp_path, monkeypatch, abstract
):
    """systemd, played by its socket: by path, and by an abstract name."""
    monkeypatch.setattr(alive, "BEAT", 0.02)
    name = f"@corral-test-{os.getpid()}-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if abstract else name)
        listener.settimeout(300)
        async with alive.shown(tmp_path, "agent"):
            sdnotify.notify("READY=1")
            told = [await asyncio.to_thread(listener.recv, 64) for _ in range(3)]
            assert sorted(told) == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            # The loop hangs: what it said before is all that comes.
            listener.setblocking(False)
            said(listener)
            time.sleep(0.2)
            assert not said(listener), "a loop that hangs beats no more"
            listener.settimeout(300)
            assert await asyncio.to_thread(listener.recv, 64) == b"WATCHDOG=1"


async def test_it_beats_on_where_systemd_reads_nothing(tmp_path, monkeypatch):
    """The kernel keeps ten words for it; an agent that waited for room would answer nobody."""
    monkeypatch.setattr(alive, "BEAT", 0.001)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    path = tmp_path / "agent.alive"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        async with alive.shown(tmp_path, "agent"), asyncio.timeout(300):
            while not path.exists() or int(path.read_text().split()[1]) < 1000:
                await asyncio.sleep(0.01)
        listener.setblocking(False)
        assert set(said(listener)) == {b"WATCHDOG=1"}


def said(listener):
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(listener.recv(64))
    return found


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify", "@nobody-listens"])
def test_nobody_is_told_where_nobody_listens(monkeypatch, address):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    sdnotify.notify("READY=1")


def ended_pid() -> int:
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


@pytest.mark.parametrize(
    ("said", "killed"),
    [
        ("", False),  # there is no supervisor, or it ended in order and took its file along
        ("nonsense", False),
        ("gone", True),
        ("ours, of another time", True),  # the pid is somebody else's by now
        ("ours", False),
    ],
)
def test_a_killed_supervisor_leaves_its_file(tmp_path, said, killed):
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    text = {
        "gone": f"{ended_pid()} 5\n",
        "ours": f"{os.getpid()} {started}\n",
        "ours, of another time": f"{os.getpid()} 1\n",
    }.get(said, said)
    if text:
        (tmp_path / "supervisor.pid").write_text(text)
    assert alive.was_killed(tmp_path / "supervisor.pid") == killed


async def test_it_starts_a_killed_supervisor_once_more(tmp_path, monkeypatch):
    monkeypatch.setattr(alive, "LOOK", 0.02)
    again = [sys.executable, "-c", f"open({str(tmp_path / 'started')!r}, 'a').write('x')"]
    monkeypatch.setenv(alive.RESTARTER, json.dumps(again))
    (tmp_path / "supervisor.pid").write_text(f"{ended_pid()} 5\n")
    async with alive.shown(tmp_path, "agent"):
        await changes(tmp_path / "started", "")


def test_the_supervisor_kills_and_restarts_what_hangs_and_leaves_what_beats(tmp_path):
    """The real one, with daemons that beat; one of them stops doing so, once."""
    source = SUPERVISOR.read_text().replace("HUNG = 30.0", "HUNG = 3.0")
    (tmp_path / "supervisor.py").write_text(source)
    fake = tmp_path / "python"
    fake.write_text(f"""#!{sys.executable}
import os, sys, time
name = "agent" if "agent" in sys.argv else "controller"
run = {str(tmp_path)!r}
first = not os.path.exists(f"{{run}}/{{name}}.once")
open(f"{{run}}/{{name}}.once", "a").write(f"{{os.getpid()}}\\n")
for count in range(100000):
    if not (first and name == "agent" and count > 20):
        open(f"{{run}}/{{name}}.alive", "w").write(f"{{os.getpid():>10}} {{count:>20}}\\n")
    time.sleep(0.02)
""")
    fake.chmod(0o755)
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", tmp_path / "supervisor.py", "--foreground", tmp_path,
         tmp_path, fake],
        stderr=log,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        pids = []
        while len(pids) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
            once = tmp_path / "agent.once"
            pids = once.read_text().splitlines() if once.exists() else []
    finally:
        process.terminate()
        process.wait(300)
        log.close()
    said = (tmp_path / "log").read_text()
    assert len(pids) == 2, said
    assert f"agent (pid {pids[0]}) hangs: no sign of life" in said
    assert f"agent (pid {pids[0]}) ended: signal:9" in said
    assert len((tmp_path / "controller.once").read_text().splitlines()) == 1, said
