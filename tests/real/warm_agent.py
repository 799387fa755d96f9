"""Agents of tests/real without a cold interpreter: a warm process forks for them.

``start`` answers as ``subprocess.Popen`` does, as far as tests/real/agent_host.py asks. An agent
is in the namespaces of its host and has its own environment, standard error and session; what it
imports came with the server, which costs a second of CPU time once instead of at each start.
``start_worker`` does the same for the agent's network alone (tests/real/network/worker.py), which
is talked to over its standard input and output.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from tests.warm import Server

ROOT = Path(__file__).resolve().parents[2]
NAMESPACES = ("net", "mnt")


class Agent:
    """One agent: the server's grandchild, whose pid and end it tells us."""

    def __init__(self, status: int) -> None:
        self._status = os.fdopen(status, "rb", buffering=0)
        self._said = b""
        self.pid = int(self._line(60.0))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and (said := self._line(0.0)):
            self.returncode = int(said)
            self._status.close()
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        if self.returncode is None:
            said = self._line(timeout)
            if not said:
                raise subprocess.TimeoutExpired("agent", timeout)
            self.returncode = int(said)
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _line(self, seconds: float) -> str:
        until = time.monotonic() + seconds
        while b"\n" not in self._said:
            left = max(0.0, until - time.monotonic())
            if not select.select([self._status], [], [], left)[0]:
                return ""
            data = self._status.read(100)
            assert data, "the warm process ended"
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()


SERVER = Server("-m", "tests.real.warm_agent")
atexit.register(SERVER.close)


def start(holder: int, environment: dict[str, str], stderr: int) -> Agent:
    """Start an agent in the namespaces of process ``holder``."""
    ours, theirs = os.pipe()
    try:
        request = {"holder": holder, "env": environment, "call": "agent", "argv": []}
        SERVER.ask(request, [stderr, theirs])
    finally:
        os.close(theirs)
    return Agent(ours)


class Worker(Agent):
    """An agent's network, with pipes for its standard input and output."""

    def __init__(self, status: int, stdin: int, stdout: int) -> None:
        self.stdin = os.fdopen(stdin, "w", encoding="utf-8")
        self.stdout = os.fdopen(stdout, encoding="utf-8")
        super().__init__(status)


def start_worker(holder: int, *arguments: str) -> Worker:
    """Start a network in the namespaces of process ``holder``."""
    stdin, stdout, status = os.pipe(), os.pipe(), os.pipe()
    env = dict(os.environ)
    request = {"holder": holder, "env": env, "call": "worker", "argv": list(arguments)}
    try:
        SERVER.ask(request, [stdin[0], stdout[1], 2, status[1]])
    finally:
        for descriptor in (stdin[0], stdout[1], status[1]):
            os.close(descriptor)
    return Worker(status[0], stdin[1], stdout[0])


# ---- the server -------------------------------------------------------------------------------


def serve(door: socket.socket) -> None:
    """Fork for every request until the other end is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for who waits for an agent
    while True:
        message, descriptors, _, _ = socket.recv_fds(door, 1 << 16, 4)
        if not message:
            return
        if os.fork() == 0:
            door.close()
            *standard, status = descriptors
            _keep(json.loads(message), standard, status)
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(request: dict, standard: list[int], status: int) -> None:
    """Fork the agent, tell its pid and then how it ended."""
    try:
        os.set_inheritable(status, False)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        agent = os.fork()
        if agent == 0:
            os.close(status)
            _become(request, standard)
        for descriptor in standard:
            os.close(descriptor)
        os.write(status, b"%d\n" % agent)
        code = os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1])
        os.write(status, b"%d\n" % code)
    finally:
        os._exit(0)


def _join(holder: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    spaces = [os.open(f"/proc/{holder}/ns/{name}", os.O_RDONLY) for name in NAMESPACES]
    for space in spaces:
        if libc.setns(space, 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(space)


def _become(request: dict, standard: list[int]) -> None:
    code = 1
    try:
        for number, descriptor in zip(range(3)[-len(standard) :], standard, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        _join(request["holder"])
        os.chdir(ROOT)
        os.environ.clear()
        os.environ.update(request["env"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = CALLS[request["call"]](request["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _agent(_: list[str]) -> int:
    from tests.real import agent_process

    return agent_process.main()


def _worker(argv: list[str]) -> int:
    from tests.real.network import worker

    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    return worker.main(argv)


CALLS = {"agent": _agent, "worker": _worker}


if __name__ == "__main__":
    from tests.real import agent_process as _agents  # noqa: F401 - children have it
    from tests.real.network import worker as _workers  # noqa: F401 - as above

    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
