"""``corral`` in lab hosts without a cold interpreter: a process that has it imported forks for it.

Most of what a short command costs is the start of Python and the imports; end-to-end tests run a
thousand of them. ``corral(host, ...)`` answers as ``LabHost.corral`` does, from a child of one
server process per test process: it joins the host's control groups and namespaces, gets its own
environment, folder and standard streams, and calls ``orchestrator.cli.main``. ``snapshot`` runs
tests/leaks.py the same way.

What is about the process itself (signals, terminals, how it starts) uses ``LabHost.popen``.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.lab.host import LabHost

ROOT = Path(__file__).resolve().parent.parent
# Those of nsenter -m -u -i -n -p -C, the mount namespace last: /proc is read until then. That of
# processes is entered by being forked into it.
NAMESPACES = ("cgroup", "uts", "ipc", "net", "mnt")
MESSAGE_MAX = 1 << 17
# A command imports as little as it can, and some of it late; for the third part of one that loads
# a project it was more than half of its processor time.
PACKAGES = ("specs", "orchestrator.client", "orchestrator.cli", "orchestrator.embedded")
LATE = (
    *("asyncio", "calendar", "csv", "difflib", "encodings.ascii", "encodings.idna", "graphlib"),
    *("_sha256", "importlib.metadata", "random", "yaml", "tests.leaks", "tests.warm_daemons"),
)


# ---- used by tests ----------------------------------------------------------------------------


class Server:
    """A warm process, started with the first request and ended with its user.

    ``words``: what the interpreter is given to become it; the door's descriptor follows.
    """

    def __init__(self, *words: str) -> None:
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None
        self._lock = threading.Lock()

    def ask(self, request: dict[str, Any], descriptors: list[int]) -> None:
        with self._lock:
            socket.send_fds(self._open(), [json.dumps(request).encode()], descriptors)

    def door(self) -> int:
        """Return a descriptor through which others may ask, too."""
        with self._lock:
            return self._open().fileno()

    def _open(self) -> socket.socket:
        if self._door is None:
            self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, *self._words, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    cwd=ROOT,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
        return self._door

    def close(self) -> None:
        if self._door is not None and self._process is not None:
            self._door.close()
            self._process.wait(60)
            self._door = self._process = None


SERVER = Server(__file__)
atexit.register(SERVER.close)


def corral(
    host: LabHost,
    *arguments: str,
    stdin: str = "",
    env: dict[str, str] | None = None,
    cwd: str = "/root",
    timeout: float = 90.0,
    check: bool = True,
    daemons: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run ``corral arguments`` in a host, as LabHost.corral does.

    ``daemons``: those that it starts are warm too (tests/warm_daemons.py).
    """
    from orchestrator.lab.host import LabError

    words = _in_host(host, env, cwd)
    request = {**words, "call": "corral", "argv": list(arguments)}
    code, out, err = _run(request, stdin, timeout, daemons=daemons)
    if code is None:
        raise LabError(
            f"{host.name}: corral {' '.join(arguments)} took more than {timeout:g} s\n{out}{err}"
        )
    if check and code:
        raise LabError(f"{host.name}: corral {' '.join(arguments)} ended with {code}\n{out}{err}")
    return subprocess.CompletedProcess(["corral", *arguments], code, out, err)


class Begun:
    """A ``corral`` command with the standard streams a test gives it; ``end`` waits for it.

    ``host`` None: beside the test, on this machine. Descriptors of ``streams`` (input, output,
    errors) stay the caller's; None is a stream that is closed (``<&-``).
    """

    def __init__(
        self,
        host: LabHost | None,
        *arguments: str,
        streams: Sequence[int | None],
        env: dict[str, str] | None = None,
        cwd: str = "/root",
    ) -> None:
        where = _beside(env, cwd) if host is None else _in_host(host, env, cwd)
        closed = [number for number, stream in enumerate(streams) if stream is None]
        request = {**where, "call": "corral", "argv": list(arguments), "closed": closed}
        nowhere = os.open(os.devnull, os.O_RDWR)
        mine, theirs = os.pipe()
        self._status = open(mine, "rb", buffering=0)  # noqa: SIM115 - closed at its end
        try:
            given = [nowhere if stream is None else stream for stream in streams]
            SERVER.ask(request, [*given, theirs])
        finally:
            os.close(nowhere)
            os.close(theirs)
        self._said = b""
        self._code: int | None = None
        self.pid = int(self._line(300.0))

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self, timeout: float = 240.0) -> int:
        """Return its exit code, 128 + the signal that ended it. Raises TimeoutError."""
        self._code = int(self._line(timeout))
        self._status.close()
        return self._code if self._code >= 0 else 128 - self._code

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.end()

    def _line(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        while b"\n" not in self._said:
            if not select.select([self._status], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"corral has not ended within {timeout:g} s")
            data = self._status.read(64)
            assert data, "the command's parent has gone"
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        return line


def snapshot(host: LabHost, kinds: list[str]) -> Any:
    """Return what tests/leaks.py sees in a host."""
    code, out, err = _run({**_in_host(host, None, "/"), "call": "leaks", "argv": kinds}, "", 120)
    assert code == 0, f"no snapshot of {host.name}: {code}\n{err}"
    return json.loads(out)


def _in_host(host: LabHost, env: dict[str, str] | None, cwd: str) -> dict[str, Any]:
    """Return where and how a command runs, as LabHost.argv has it in its words."""
    given = {"PYTHONPATH": str(ROOT), **(env or {})}
    words = host.argv((), given, cwd)
    settings = dict(word.split("=", 1) for word in words[words.index("env") + 4 :])
    script = words[words.index("-ec") + 1]
    groups = [part.split(";")[0] for part in script.split("echo $$ > ")[1:]]
    return {"pid": host.pid, "cgroups": groups, "env": settings, "cwd": cwd}


def _beside(env: dict[str, str] | None, cwd: str) -> dict[str, Any]:
    """Return the same for a command that runs in no host, but beside the test."""
    settings = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    return {"pid": None, "cgroups": [], "env": {**settings, **(env or {})}, "cwd": cwd}


def _run(
    request: dict[str, Any], stdin: str, timeout: float, *, daemons: bool = False
) -> tuple[int | None, str, str]:
    """Return exit code (None: killed at the timeout), output and errors."""
    with ExitStack() as stack:
        pipes = [os.pipe() for _ in range(4)]  # stdin, stdout, stderr, status
        mine = [pipes[0][1], pipes[1][0], pipes[2][0], pipes[3][0]]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1], pipes[3][1]]
        try:
            SERVER.ask(request, [*theirs, *([_daemons()] if daemons else [])])
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        files = [open(d, "wb" if d == mine[0] else "rb", buffering=0) for d in mine]  # noqa: SIM115
        for file in files:
            stack.enter_context(file)
        feeder = threading.Thread(target=_feed, args=(files[0], stdin.encode()))
        feeder.start()
        said, ended = _collect(files[1:], timeout)
        feeder.join()
    out, err, status = (part.decode(errors="replace") for part in said)
    lines = status.split()
    if not ended:
        return None, out, err
    # A command that was killed says nothing at its end; its parent says how it ended.
    return int(lines[-1]) if len(lines) > 1 else -9, out, err


def _daemons() -> int:
    from tests import warm_daemons

    return warm_daemons.SERVER.door()


def _feed(file: Any, data: bytes) -> None:
    with file, suppress(BrokenPipeError):
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def _collect(files: list[Any], timeout: float) -> tuple[list[bytes], bool]:
    """Read until all ends are reached; at the timeout kill the command, whose pid comes first."""
    said = [b"" for _ in files]
    deadline = time.monotonic() + timeout
    ended = True
    with selectors.DefaultSelector() as selector:
        for number, file in enumerate(files):
            selector.register(file, selectors.EVENT_READ, number)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()) if ended else 10.0)
            if not ready:
                if not ended:
                    break
                ended = False
                with suppress(OSError, ValueError, IndexError):
                    os.kill(int(said[-1].split()[0]), signal.SIGKILL)
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                said[key.data] += data
                if not data:
                    selector.unregister(key.fileobj)
    return said, ended


# ---- the server -------------------------------------------------------------------------------


def preload() -> None:
    """Import what commands need, also late, so that their processes have it."""
    sys.path.insert(0, str(ROOT))
    for package in PACKAGES:
        found = importlib.import_module(package)
        for module in pkgutil.walk_packages(found.__path__, f"{package}."):
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    # A loaded machine may keep a controller from answering for longer than people would wait; that
    # the commands wait no longer than that is tests/orchestrator/cli/test_reading.py's.
    from orchestrator.client import client

    client.READ_TIMEOUT = client.REQUEST_TIMEOUT
    client.Client.get.__kwdefaults__["patience"] = client.REQUEST_TIMEOUT
    gc.collect()
    gc.freeze()


_libc = ctypes.CDLL(None, use_errno=True)


def serve(door: socket.socket) -> None:
    """Fork for every request until the other end is closed, and tell of each command's end.

    One fork a command: its pages' tables, copied twice, were a quarter of what a short one takes.
    """
    own = os.open("/proc/self/ns/pid", os.O_RDONLY)
    running: dict[int, tuple[int, int]] = {}  # pidfd -> pid and where its end is told
    with selectors.EpollSelector() as selector:
        selector.register(door, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not door:
                    selector.unregister(key.fd)
                    _tell(key.fd, *running.pop(key.fd))
                    continue
                message, descriptors, _, _ = socket.recv_fds(door, MESSAGE_MAX, 5)
                if not message:
                    return
                status = descriptors[3]
                try:
                    others = [own, selector.fileno(), door.fileno(), *running]
                    others += [status, *(where for _, where in running.values())]
                    pid = _fork(own, json.loads(message), descriptors, others)
                    os.write(status, f"{pid}\n".encode())
                    pidfd = os.pidfd_open(pid)
                    running[pidfd] = pid, status
                    selector.register(pidfd, selectors.EVENT_READ)
                    descriptors.remove(status)
                except OSError:
                    with suppress(OSError):
                        os.write(descriptors[2], traceback.format_exc().encode())
                for descriptor in descriptors:
                    os.close(descriptor)


def _fork(own: int, request: dict[str, Any], descriptors: list[int], others: list[int]) -> int:
    """Start the command and return its pid on the machine. Raises OSError: the host has gone."""
    if request["pid"] is not None:
        _enter(os.open(f"/proc/{request['pid']}/ns/pid", os.O_RDONLY), close=True)  # of children
    try:
        pid = os.fork()
        if pid == 0:
            for descriptor in others:
                os.close(descriptor)
            _command(request, descriptors)
        return pid
    finally:
        _enter(own)


def _tell(pidfd: int, pid: int, status: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):
        os.write(status, f"{code}\n".encode())
    os.close(status)
    os.close(pidfd)


def _enter(space: int, *, close: bool = False) -> None:
    result = _libc.setns(space, 0)
    code = ctypes.get_errno()
    if close:
        os.close(space)
    if result != 0:
        raise OSError(code, "setns")


def _join(pid: int) -> None:
    for space in [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in NAMESPACES]:
        _enter(space, close=True)


def _command(request: dict[str, Any], descriptors: list[int]) -> None:
    code = 1
    try:
        for number, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, number)
            os.close(descriptor)
        for descriptor in descriptors[4:]:
            os.set_inheritable(descriptor, False)
        for group in request["cgroups"]:
            Path(group).write_text("0")  # who writes
        if request["pid"] is not None:
            _join(request["pid"])
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if len(descriptors) > 4:
            from tests import warm_daemons

            host = {"pid": request["pid"], "cgroups": request["cgroups"]}
            warm_daemons.lend(socket.socket(fileno=descriptors[4]), host)
        sys.argv = ["corral", *request["argv"]]
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stderr = open(  # noqa: SIM115
            2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        for number in request.get("closed", ()):  # as an interpreter that finds them closed
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)
        code = CALLS[request["call"]](request["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]  # what an interpreter's end does
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except BaseException as exc:  # as at an end of an interpreter
                code = 120
                with suppress(BaseException):
                    print(f"Exception ignored while flushing: {exc!r}", file=sys.stderr)
        os._exit(code & 0xFF)


def _call_corral(argv: list[str]) -> int:
    from orchestrator.cli.main import main

    return main(argv)


def _call_leaks(kinds: list[str]) -> int:
    from tests import leaks

    json.dump(leaks.here(kinds or leaks.ALL), sys.stdout)
    return 0


CALLS: dict[str, Callable[[list[str]], int]] = {"corral": _call_corral, "leaks": _call_leaks}


if __name__ == "__main__":
    preload()
    serve(socket.socket(fileno=int(sys.argv[1])))
