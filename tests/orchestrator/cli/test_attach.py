"""attach and run against a scripted node: outputs nobody reads, lost connections, terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
from types import SimpleNamespace

import pytest
from fake import Exec

from orchestrator.cli.commands import attach as attach_command

PROGRAM = """
import sys
from orchestrator.cli.commands import attach
from orchestrator.cli.main import main
attach.AWAY = float(sys.argv[1])
sys.exit(main(["-p", "shop", "attach", *sys.argv[2:]]))
"""
ROW = {
    "id": "t-web",
    "name": "shop-web-1",
    "service": "web",
    "state": "running",
    "ready": True,
    "status": "running",
    "started_at": 1.0,
    "finished_at": None,
}


@pytest.fixture
def attach(fake, spawn_program):
    """Attach to what is talked to like this, connection by connection; the last for ever."""

    def begin(*talks, tty=False, stdin_open=False, away=300, words=(), **options):
        left = list(talks)
        fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": [ROW]})
        fake.on("GET", "/v1/tasks/t-web/streams", {"tty": tty, "stdin_open": stdin_open})
        next_one = lambda _: Exec(left.pop(0) if len(left) > 1 else left[0])  # noqa: E731
        fake.on("GET", "/v1/tasks/t-web/attach", next_one)
        return spawn_program(PROGRAM, str(away), "web", *words, **options)

    return begin


def lost(node):
    node.read()
    node.send({"lost": "node beta does not answer"})


def begun_and_cut(node):
    node.read()
    node.send({"attached": True})
    node.send(b"\x01begun\n")


def echoes_signals(node):
    """Say that it began, and end with the number of the first signal."""
    node.read()
    node.send({"attached": True})
    node.send(b"\x01begun\n")
    while True:
        _, data = node.read()
        if data[:1] == b"{" and "signal" in (said := json.loads(data)):
            node.send({"exit": said["signal"]})
            node.read()
            return


def test_an_output_nobody_reads_ends_it(attach):
    """As in `attach web | head -1`: the listener goes, the container stays."""

    def talk(node):
        node.read()
        node.send({"attached": True})
        while True:
            node.send(b"\x01y\n")

    process = attach(talk)
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.wait(300) == 128 + signal.SIGPIPE


@pytest.mark.parametrize("first", [lost, begun_and_cut])
def test_a_node_that_stays_away_is_given_up_with_its_reason(attach, first):
    process = attach(first, lost, away=1)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert b"shop-web-1 cannot be reached any more: node beta does not answer" in err
    assert b"corral ps -a" in err
    assert err.count(b"node beta does not answer; trying again") == 1, "law: said once"
    assert err.count(b"the connection was lost") == (first is begun_and_cut)


def test_what_comes_back_goes_on(attach):
    process = attach(begun_and_cut, lost, echoes_signals, away=300)
    assert process.stdout.readline() == b"begun\n"
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == signal.SIGTERM
    assert b"its input ended" not in process.stderr.read(), "it takes none"


S = signal
ONE_BY_ONE = [S.SIGINT, S.SIGTERM, S.SIGHUP, S.SIGQUIT, S.SIGUSR1, S.SIGUSR2, S.SIGALRM]


@pytest.mark.parametrize("number", [*ONE_BY_ONE, S.SIGPWR, S.SIGRTMIN + 3, S.SIGRTMAX])
def test_what_is_sent_to_the_command_line_goes_to_the_process(attach, number):
    process = attach(echoes_signals)
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(number)
    assert process.wait(300) == number


def test_what_asks_nobody_to_go_is_passed_on_as_often_as_it_comes(attach):
    def talk(node):
        node.read()
        node.send({"attached": True})
        node.send(b"\x01begun\n")
        while True:
            _, data = node.read()
            if data[:1] == b"{":
                node.send(b"\x01%d\n" % json.loads(data)["signal"])

    process = attach(talk)
    assert process.stdout.readline() == b"begun\n"
    for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGHUP, signal.SIGHUP, signal.SIGINT):
        process.send_signal(number)
        assert process.stdout.readline() == b"%d\n" % number
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130, "law: a second Ctrl-C leaves"


def test_what_nohup_ignores_stays_ignored(attach):
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN) and None  # noqa: E731
    process = attach(echoes_signals, preexec_fn=ignore)
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == signal.SIGTERM


def test_without_sig_proxy_a_signal_means_the_command_line(attach):
    process = attach(echoes_signals, words=("--sig-proxy=false",))
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(300) == -signal.SIGUSR1


def test_a_terminal_that_is_closed_leaves_a_service_alone(attach):
    """Who loses the connection to a machine did not ask a service there to end."""
    heard: list[bytes] = []

    def talk(node):
        node.read()
        node.send({"attached": True})
        node.send(b"\x01begun\n")
        while True:
            _, data = node.read()
            if not data:
                return
            heard.append(data)

    ours, theirs = pty.openpty()
    own = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # noqa: E731
    process = attach(talk, stdin=theirs, stderr=theirs, start_new_session=True, preexec_fn=own)
    os.close(theirs)
    try:
        assert process.stdout.readline() == b"begun\n"
    finally:
        os.close(ours)
    assert process.wait(300) == 128 + signal.SIGHUP
    assert not [data for data in heard if b"signal" in data]


# what was started, whether nobody is heard just then; what goes to it, how often it is stopped
HUNG_UP = [
    ("run", False, [{"signal": 1}], 1),
    ("run", True, [], 1),
    ("attach", False, [], 0),
    ("attach", True, [], 0),
]


@pytest.mark.parametrize(("what", "lost", "told", "stopped"), HUNG_UP)
def test_a_terminal_that_is_closed_ends_what_run_started(monkeypatch, what, lost, told, stopped):
    there = [True, False]
    monkeypatch.setattr(attach_command, "_terminal", lambda: there.pop(0))
    sent: list[str] = []
    opened = SimpleNamespace(send=sent.append, push=lambda: None)
    monkeypatch.setattr(attach_command.Attached, "_open", lambda *_, **__: opened)
    stops: list[bool] = []
    stop = stops.append if what == "run" else None
    listener = attach_command.Attached(None, "t", "n", reads=True, size=None, keys=None, stop=stop)
    listener._lost_at = 1.0 if lost else None
    assert listener._signalled(signal.SIGHUP) == 128 + signal.SIGHUP
    assert ([json.loads(text) for text in sent], stops) == (told, [True] * stopped)
    assert listener.left, "law: rm waits for no end"


@pytest.mark.parametrize(
    ("how", "patient"), [("unread", [True]), ("Ctrl-C", []), ("Ctrl-C twice", [False])]
)
def test_who_cannot_say_it_again_has_the_stop_said_until_it_is_heard(monkeypatch, how, patient):
    """`run --rm | head -1` beside a controller that just restarts: nobody else ends it."""
    opened = SimpleNamespace(send=lambda _: None, push=lambda: None)
    monkeypatch.setattr(attach_command.Attached, "_open", lambda *_, **__: opened)
    stops: list[bool] = []
    listener = attach_command.Attached(
        None, "t", "n", reads=True, size=None, keys=None, stop=stops.append
    )
    if how == "unread":
        listener._deafened(1)
    for _ in range({"Ctrl-C": 1, "Ctrl-C twice": 2}.get(how, 0)):
        assert listener._signalled(signal.SIGINT) is None
    assert stops == patient


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_what_cannot_be_reached(attach, number):
    process = attach(begun_and_cut, lost)
    assert process.stdout.readline() == b"begun\n"
    for line in process.stderr:
        if b"trying again" in line:
            break
    process.send_signal(number)
    assert process.wait(300) == 130
    assert b"is left alone; it runs on" in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("reads", [True, False])
def test_a_terminal_is_as_it_was_after_a_signal(attach, number, reads):
    """Raw only where it is read; without input Ctrl-C must be the terminal's own."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    try:
        process = attach(
            echoes_signals, tty=True, stdin_open=reads, stdin=theirs, stdout=theirs, stderr=theirs
        )
        seen = b""
        while b"begun" not in seen:
            seen += os.read(ours, 4096)
        raw = not termios.tcgetattr(theirs)[3] & termios.ISIG
        assert raw is reads
        process.send_signal(number)
        assert process.wait(300) == number
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


def test_typed_ctrl_c_leaves_what_cannot_be_reached(attach):
    ours, theirs = pty.openpty()
    try:
        process = attach(
            begun_and_cut, lost, tty=True, stdin_open=True,
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        seen = b""
        while b"trying again" not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, b"x\x03")
        assert process.wait(300) == 130
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_terminal_to_show_on_and_no_input(attach):
    ours, theirs = pty.openpty()
    try:
        process = attach(
            echoes_signals, tty=True, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
        )
        seen = b""
        while b"begun" not in seen:
            seen += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == signal.SIGINT
    finally:
        os.close(ours)
        os.close(theirs)


def test_input_another_process_was_quicker_to_read_has_not_ended(monkeypatch):
    """Who shares the terminal may have made it non-blocking."""
    left, right = os.pipe()
    os.set_blocking(left, False)
    monkeypatch.setattr(attach_command, "STDIN", left)
    sent: list[bytes] = []
    opened = SimpleNamespace(send=sent.append)
    monkeypatch.setattr(attach_command.Attached, "_open", lambda *_, **__: opened)
    keys = attach_command.Keys(attach_command.KEYS)
    listener = attach_command.Attached(None, "t", "n", reads=True, size=(24, 80), keys=keys)
    try:
        listener._input()
        assert (sent, listener._reads) == ([], True)
        os.write(right, b"ls")
        listener._input()
        os.close(right)
        listener._input()
        assert (sent, listener._reads) == ([b"\x00ls", b"\x00"], False)
    finally:
        os.close(left)
