"""exec: pipes and a pseudo-terminal against a scripted agent; the WebSocket frames."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path
from socket import socketpair

import pytest
from fake import Exec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.commands import exec as exec_command
from orchestrator.cli.errors import CliError
from orchestrator.client import websocket
from orchestrator.client.errors import BadAnswer

ROOT = Path(__file__).parents[3]
PROGRAM = "import sys; from orchestrator.cli.main import main; sys.exit(main(sys.argv[1:]))"
TEXT, BINARY = 1, 2


def row(name, state="running", **more):
    return {
        "id": f"t-{name}",
        "name": f"shop-{name}",
        "service": name.rpartition("-")[0],
        "state": state,
        "ready": state == "running",
        "status": state,
        "started_at": 1.0,
        "finished_at": 2.0 if state == "failed" else None,
        **more,
    }


@pytest.fixture
def shop(fake):
    rows = [row("web-10"), row("web-2"), row("web-1", "failed"), row("redis-1")]
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": rows})
    return fake


def execute(spawn_program, *argv, **options):
    return spawn_program(PROGRAM, "-p", "shop", "exec", *argv, **options)


def test_output_streams_input_and_exit_code(shop, spawn_program):
    def talk(agent):
        kind, request = agent.read()
        assert kind == TEXT
        assert json.loads(request) == {
            "command": ["sh", "-c", "cat"],
            "tty": False,
            "stdin": True,
            "user": "nobody",
            "working_dir": "/tmp",
            "environment": {"A": "b=c"},
        }
        data = b""
        while True:
            kind, part = agent.read()
            assert (kind, part[:1]) == (BINARY, b"\x00")
            if part == b"\x00":
                break
            data += part[1:]
        agent.send(b"\x01" + data)
        agent.send(b"\x02to standard error")
        agent.send({"exit": 42})
        agent.read()

    shop.on("GET", "/v1/tasks/t-web-2/exec", lambda _r: Exec(talk))
    process = execute(
        spawn_program,
        "-u",
        "nobody",
        "-w",
        "/tmp",
        "-e",
        "A=b=c",
        "web",
        "sh",
        "-c",
        "cat",
        stdin=-1,
    )
    big = os.urandom(300_000)
    out, err = process.communicate(big, timeout=300)
    assert (process.returncode, err) == (42, b"to standard error")
    assert out == big


def test_input_and_output_may_block_each_other(shop, spawn_program):
    """Like `cat BIG | corral exec web cat > FILE` while nothing reads our input yet."""
    size = 3_000_000

    def talk(agent):
        agent.read()
        for _ in range(size // 60_000):  # more than all socket buffers, before reading anything
            agent.send(b"\x01" + b"x" * 60_000)
        while agent.read()[1] != b"\x00":
            pass
        agent.send({"exit": 0})
        agent.read()

    shop.on("GET", "/v1/tasks/t-redis-1/exec", lambda _r: Exec(talk))
    process = execute(spawn_program, "redis", "cat", stdin=-1)
    out, _ = process.communicate(b"y" * size, timeout=300)
    assert (process.returncode, len(out)) == (0, size)


def test_large_fragmented_output_with_pings_in_between(shop, spawn_program):
    chunk = os.urandom(70_000)

    def talk(agent):
        agent.read()
        agent.send(b"\x01" + chunk[:10], final=False, kind=BINARY)
        agent.send(b"are you there", kind=9)
        agent.send(chunk[10:1000], final=False, kind=0)
        agent.send(chunk[1000:], final=True, kind=0)
        while agent.read() != (10, b"are you there"):
            pass
        agent.send({"exit": 0})
        agent.read()

    shop.on("GET", "/v1/tasks/t-redis-1/exec", lambda _r: Exec(talk))
    process = execute(spawn_program, "-T", "redis", "x")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err, out) == (0, b"", chunk)


def test_an_error_of_the_node_is_a_message(shop, spawn_program):
    def talk(agent):
        agent.read()
        agent.send({"error": "no such program: nope"})

    shop.on("GET", "/v1/tasks/t-redis-1/exec", lambda _r: Exec(talk))
    process = execute(spawn_program, "redis", "nope")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert b"corral: no such program: nope" in err


def test_a_connection_that_ends_early_is_an_error(shop, spawn_program):
    shop.on("GET", "/v1/tasks/t-redis-1/exec", lambda _r: Exec(lambda agent: agent.read()))
    process = execute(spawn_program, "redis", "x")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert b"ended before the command did" in err


def test_an_interrupt_without_a_terminal_is_passed_on(shop, spawn_program):
    def talk(agent):
        agent.read()
        agent.send(b"\x01ready\n")
        while True:
            kind, data = agent.read()
            if kind == TEXT:
                assert json.loads(data) == {"signal": signal.SIGINT}
                break
        agent.send({"exit": 130})
        agent.read()

    shop.on("GET", "/v1/tasks/t-redis-1/exec", lambda _r: Exec(talk))
    process = execute(spawn_program, "redis", "x")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode == 130


def test_detach_asks_for_it_and_returns(shop, spawn_program):
    def talk(agent):
        _, request = agent.read()
        assert json.loads(request)["detach"] is True
        assert json.loads(request)["stdin"] is False
        agent.send({"exit": 0})
        agent.read()

    shop.on("GET", "/v1/tasks/t-redis-1/exec", lambda _r: Exec(talk))
    process = execute(spawn_program, "-d", "redis", "x")
    process.communicate(timeout=300)
    assert process.returncode == 0


def read_until(master, mark, seconds=300):
    seen = b""
    until = time.monotonic() + seconds
    while mark not in seen:
        assert time.monotonic() < until, seen
        if select.select([master], [], [], 0.5)[0]:
            seen += os.read(master, 4096)
    return seen


def test_a_terminal_is_raw_resized_and_restored(shop):
    def talk(agent):
        _, request = agent.read()
        wish = json.loads(request)
        assert wish["tty"] is True
        agent.send(f"\x01size {wish['rows']}x{wish['columns']}\r\n".encode())
        seen = b""
        while b"\x03" not in seen:  # raw mode: Ctrl-C is a byte for the command
            kind, data = agent.read()
            if kind == TEXT:
                agent.send(b"\x01resized " + data + b"\r\n")
            else:
                seen += data[1:]
        agent.send(b"\x01got " + repr(seen).encode() + b"\r\n")
        agent.send({"exit": 7})
        agent.read()

    shop.on("GET", "/v1/tasks/t-redis-1/exec", lambda _r: Exec(talk))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
    before = termios.tcgetattr(slave)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for fd in range(3):
            os.dup2(slave, fd)
        os.environ["PYTHONPATH"] = str(ROOT)
        words = ["-p", "shop", "exec", "redis", "sh"]
        os.execv(sys.executable, [sys.executable, "-P", "-c", PROGRAM, *words])
    try:
        read_until(master, b"size 30x100\r\n")
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 50, 120, 0, 0))
        read_until(master, b'resized {"resize": [50, 120]}')
        assert not termios.tcgetattr(slave)[3] & termios.ECHO
        os.write(master, b"ls\r\x03")
        read_until(master, b"got b'ls\\r\\x03'")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def test_a_resize_before_anybody_listens_for_it_arrives(monkeypatch):
    """The size of the request was asked for a moment before the signal was listened for."""
    master, slave = pty.openpty()
    ours, theirs = socketpair()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 50, 120, 0, 0))
    monkeypatch.setattr(exec_command, "STDIN", slave)
    monkeypatch.setattr(exec_command, "STDOUT", slave)
    sent = []

    class Ending:
        unsent, pending, closed = b"", True, True
        fileno = theirs.fileno

        def send(self, message):
            sent.append(json.loads(message))

        def receive(self):
            return ['{"exit": 7}']

    try:
        for told in ((30, 100), (50, 120)):
            channel = exec_command.Channel(Ending(), size=told, reads_input=False)
            assert channel.run() == 7
    finally:
        os.close(master)
        os.close(slave)
        ours.close()
        theirs.close()
    assert sent == [{"resize": [50, 120]}], "once: the second was told the right size"


# Choosing a task


def test_choose_takes_the_first_that_runs_or_the_one_asked_for():
    rows = [row("web-10"), row("web-2"), row("web-1", "failed")]
    assert exec_command.choose(rows, "web", 0)["id"] == "t-web-2"
    assert exec_command.choose(rows, "web", 10)["id"] == "t-web-10"
    with pytest.raises(CliError, match=r"replica 1 of web is not running: .*shop-web-1 failed"):
        exec_command.choose(rows, "web", 1)
    with pytest.raises(CliError, match="no service 'db'"):
        exec_command.choose(rows, "db", 0)


def test_choose_prefers_a_ready_task():
    rows = [row("web-1", ready=False), row("web-2")]
    assert exec_command.choose(rows, "web", 0)["id"] == "t-web-2"
    assert exec_command.choose(rows[:1], "web", 0)["id"] == "t-web-1"
    # Of two in one slot: the replacement, not the one on a node that is down.
    both = [row("web-2", ready=False), row("web-2") | {"id": "t-new"}]
    assert exec_command.choose(both, "web", 2)["id"] == "t-new"


def test_a_bare_variable_takes_this_shells_value(monkeypatch):
    monkeypatch.setenv("TOKEN", "t")
    assert exec_command.environment(["TOKEN", "A=", "NOT_SET_HERE"]) == {"TOKEN": "t", "A": ""}


# Frames


@given(st.binary(max_size=200), st.binary(min_size=4, max_size=4))
def test_masking_twice_is_nothing(data, key):
    masked = websocket.masked(data, key)
    assert masked == bytes(b ^ key[i % 4] for i, b in enumerate(data))
    assert websocket.masked(masked, key) == data


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 50))
def test_frames_are_found_whatever_way_they_arrive(payloads, step):
    stream = b""
    for data in payloads:
        size = len(data)
        head = bytes([0x82, size]) if size < 126 else bytes([0x82, 126]) + size.to_bytes(2, "big")
        stream += head + data
    buffer, found = bytearray(), []
    for at in range(0, len(stream), step):
        buffer += stream[at : at + step]
        while (frame := websocket.take_frame(buffer)) is not None:
            found.append(frame)
    assert found == [(True, 2, data) for data in payloads]
    assert not buffer


@pytest.mark.parametrize(
    "data", [b"\x82\x81abcd", b"\xf2\x01a", b"\x82\x7f" + (1 << 40).to_bytes(8, "big")]
)
def test_what_a_server_must_not_send_is_refused(data):
    with pytest.raises(BadAnswer):
        websocket.take_frame(bytearray(data))


@pytest.mark.parametrize("said", [True, False], ids=["the runtime says it too", "only the node"])
def test_a_command_that_is_not_there_is_127_and_said_once(shop, spawn_program, said):
    def talk(agent):
        agent.read()
        if said:
            agent.send(b"\x02no nope in $PATH\n")
        agent.send({"error": "no nope in $PATH", "exit": 127})
        agent.read()

    shop.on("GET", "/v1/tasks/t-redis-1/exec", lambda _r: Exec(talk))
    process = execute(spawn_program, "redis", "nope")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 127
    assert err.count(b"no nope in $PATH") == 1


def test_an_open_websocket_never_waits_in_send(shop, clean_environment):
    """With a time-out left on the socket, input that cannot be passed on was lost after it."""
    from orchestrator.client import websocket
    from orchestrator.client.client import Client

    shop.on("GET", "/v1/tasks/t-redis-1/exec", lambda _r: Exec(lambda agent: agent.read()))
    opened = websocket.open_websocket(Client(), "/v1/tasks/t-redis-1/exec")
    try:
        assert opened._connection.sock.gettimeout() is None
    finally:
        opened.close()
