"""Run a further command inside a running container: `exec`, and health probes.

The command is started by ``crun exec`` from a process description made of the
task's own config.json, so that it gets the same user, capabilities, filter and
environment. With a terminal the runtime hands us the pty's master over a socket;
without one, pipes. A client that goes away takes the terminal (SIGHUP) or stdin
with it; the command is not killed, as in Docker.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import termios
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import Refusal
from agent.runtime import exits
from agent.runtime.capabilities import grantable_capabilities
from agent.runtime.crun import scratch
from agent.runtime.failure import RuntimeFailure, from_runtime
from agent.runtime.rootfs import resolve_user
from agent.runtime.spawner import abandon, ended, readable, writable
from specs.kit.amounts import as_set
from specs.kit.patience import Patience
from specs.names import line_fault, text_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.runtime.containers import OciContainers
    from specs.wire import ExecRequest

START_TIMEOUT = 30.0
KILL_TIMEOUT = 10.0  # seconds a killed command has to end: one in the kernel may not
KILL_AGAIN = 0.02
UNTIL_KNOWN, TRIES = 0.02, 250  # seconds between looks for a command's number, and how many
CHUNK = 32768
AFTERWARDS = 1 << 20  # bytes taken after the command's end: more than a pipe or a terminal holds
FLUSH = 0.2  # seconds a terminal may take to hand over what was written before the end
STDOUT, STDERR = 1, 2


def describe(config: dict[str, Any], request: ExecRequest) -> dict[str, Any]:
    """Return the OCI process of an exec (pure but for looking up a user in the image)."""
    for text in (*request.command, *request.environment.values(), request.working_dir or ""):
        if why := text_fault(text):
            raise Refusal(f"the command: {why}")
    for text in (*request.environment, request.user or ""):
        if why := line_fault(text):
            raise Refusal(f"the command: {why}")
    process = dict(config["process"])
    env = list(process.get("env", []))
    terminal = request.tty and not request.detach
    if terminal:
        env.append("TERM=xterm")
    env += [f"{name}={value}" for name, value in request.environment.items()]
    process.update(
        terminal=terminal,
        args=list(request.command),
        env=env,
        cwd=request.working_dir or process.get("cwd") or "/",
    )
    process.pop("consoleSize", None)
    if terminal and request.rows and request.columns:
        process["consoleSize"] = {"height": request.rows, "width": request.columns}
    if request.user:
        user = resolve_user(Path(config["root"]["path"]), request.user)
        process["user"] = {
            "uid": user.uid,
            "gid": user.gid,
            "additionalGids": list(user.groups),
        }
        bounding = config["process"]["capabilities"]["bounding"]
        allowed = bounding if user.uid == 0 else []
        process["capabilities"] = {
            **config["process"]["capabilities"],
            "effective": allowed,
            "permitted": allowed,
        }
    if request.privileged:
        names = privileged_capabilities()
        process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
        process.pop("apparmorProfile", None)  # as a privileged container has none
    return process


def privileged_capabilities() -> list[str]:
    """Return every capability this agent itself could hand on."""
    return sorted(grantable_capabilities())


@dataclass
class ExecSession:
    """A command running inside a container. ``output`` yields (channel, bytes); then ``wait``."""

    program: subprocess.Popen[bytes]
    folder: Path
    stdin: int = -1
    master: int = -1
    readers: dict[int, int] = field(default_factory=dict)  # fd -> channel
    ends: dict[int, int] = field(default_factory=dict)  # the same fd -> a pidfd of the program
    late: int = 0  # bytes read after the end

    def __post_init__(self) -> None:
        try:
            for fd in self.readers:
                self.ends[fd] = os.pidfd_open(self.program.pid)
        except BaseException:
            self.close()
            raise

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal its size."""
        if self.master >= 0:
            size = struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def signal(self, number: int, *, tries: int = TRIES) -> None:
        """Send a signal to the command (not to the helper that waits for it).

        Its number is written down after it has begun, so it may have said something before that.
        """
        try:
            process = exits.identify(int((self.folder / "pid").read_text()))
        except (OSError, ValueError):
            if tries and self.program.poll() is None:
                again = partial(self.signal, number, tries=tries - 1)
                asyncio.get_running_loop().call_later(UNTIL_KNOWN, again)
            return
        if process is not None and 0 < number < signal.NSIG:
            with contextlib.suppress(OSError):
                exits.send(process, number)

    async def write(self, data: bytes) -> None:
        """Feed standard input; empty = end."""
        fd = self.master if self.master >= 0 else self.stdin
        if fd < 0:
            return
        if not data:
            if self.master >= 0:
                data = b"\x04"  # what a terminal calls the end of input
            else:
                os.close(self.stdin)
                self.stdin = -1
                return
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                await writable(fd)
            except OSError:
                return  # the command does not read any more

    async def read(self, fd: int) -> bytes:
        """Return the next output of one of ``readers``; empty = it ended.

        A command that has ended has written all it had to say, however slowly that is taken;
        what a process it left behind may say is not waited for.
        """
        while self.late < AFTERWARDS:
            over = self.program.poll() is not None  # before looking: then empty is empty
            try:
                data = os.read(fd, CHUNK)
            except BlockingIOError:
                if over and not await self._flushed(fd):
                    return b""
                await _either(fd, self.ends[fd])
            except OSError:
                return b""  # EIO: the last process closed the terminal
            else:
                self.late += len(data) if over else 0
                return data
        return b""

    async def _flushed(self, fd: int) -> bool:
        """Say whether a terminal has something after all; the kernel hands it over later."""
        if fd != self.master:
            return False
        try:
            async with asyncio.timeout(FLUSH):
                await readable(fd)
        except TimeoutError:
            return False
        return True

    def drop(self, channel: int) -> None:
        """Close a pipe nobody reads any more: the next write into it tells the command.

        Nobody may be inside :meth:`read` of it. A terminal stays: it is both directions.
        """
        for fd in [fd for fd, its in self.readers.items() if its == channel and fd != self.master]:
            del self.readers[fd]
            os.close(fd)
            os.close(self.ends.pop(fd))

    async def over(self) -> None:
        """Wait for the program's end; who waits no longer leaves it as it is."""
        if self.program.poll() is None:
            pidfd = os.pidfd_open(self.program.pid)
            try:
                await readable(pidfd)
            finally:
                os.close(pidfd)

    async def wait(self, timeout: float | None = None) -> int:
        """Return the exit code. Raises RuntimeFailure when the command could not be started."""
        code = await ended(self.program, timeout)
        with contextlib.suppress(OSError, ValueError):
            text = (self.folder / "log").read_text().strip().splitlines()
            if code != 0 and text:
                raise from_runtime(str(json.loads(text[-1]).get("msg", "exec failed")))
        return 128 - code if code < 0 else code

    def close(self) -> None:
        """Let go of terminal, pipes and files."""
        for fd in {self.stdin, self.master, *self.readers, *self.ends.values()}:
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self.stdin = self.master = -1
        self.readers = {}
        self.ends = {}
        for name in ("process.json", "pid", "log", "console"):
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


async def begin(
    containers: OciContainers, task: str, request: ExecRequest, prefix: str = "exec-"
) -> ExecSession:
    """Start a command in the task's container. Raises RuntimeFailure, Refusal.

    ``prefix``: of the name of the folder with its pid, in the task's bundle.
    """
    if not request.command:
        raise RuntimeFailure("exec needs a command")
    process = describe(containers.config(task), request)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=containers.bundle(task)))
    (folder / "process.json").write_text(json.dumps(process))
    argv = [
        *containers.runtime.argv(f"--log={folder / 'log'}", "--log-format=json"),
        *("exec", "--process", str(folder / "process.json"), "--pid-file", str(folder / "pid")),
    ]
    try:
        if request.detach:
            return await _detached(containers, task, argv, folder)
        if request.tty:
            return await _with_terminal(containers, task, request, argv, folder)
        return await _with_pipes(containers, task, request, argv, folder)
    except BaseException:
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
        raise


async def _detached(
    containers: OciContainers, task: str, argv: list[str], folder: Path
) -> ExecSession:
    """Start a command that nobody listens to: the session is over once it runs."""
    program = await containers.runtime.spawner.spawn(
        [*argv, "--detach", task],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        environment=scratch(folder),
    )
    return ExecSession(program, folder)


async def _with_pipes(
    containers: OciContainers, task: str, request: ExecRequest, argv: list[str], folder: Path
) -> ExecSession:
    theirs: list[int] = []
    ours: list[int] = []

    def pipe(*, write: bool) -> tuple[int, int]:
        r, w = os.pipe2(os.O_CLOEXEC)
        mine, yours = (w, r) if write else (r, w)
        ours.append(mine)
        theirs.append(yours)
        os.set_blocking(mine, False)
        return mine, yours

    try:
        stdin, child_in = pipe(write=True) if request.stdin else (-1, subprocess.DEVNULL)
        out, child_out = pipe(write=False)
        err, child_err = pipe(write=False)
        program = await containers.runtime.spawner.spawn(
            [*argv, task],
            stdin=child_in,
            stdout=child_out,
            stderr=child_err,
            environment=scratch(folder),
        )
    except BaseException:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return ExecSession(program, folder, stdin=stdin, readers={out: STDOUT, err: STDERR})


async def _with_terminal(
    containers: OciContainers, task: str, request: ExecRequest, argv: list[str], folder: Path
) -> ExecSession:
    path = folder / "console"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        here = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # A socket's path has 107 bytes: bind through the directory, wherever it is.
            listener.bind(f"/proc/self/fd/{here}/console")
        finally:
            os.close(here)
        listener.listen(1)
        argv = [*argv, "--console-socket", str(path)]
        if containers.runtime.name != "crun":
            argv.append("--detach")  # runc hands the terminal over only so
        # crun lets the command go and gives its terminal the size in the very next step
        # (libcrun_container_exec); what starts in between would see a terminal of 0 by 0.
        program = await containers.runtime.spawner.spawn(
            [*argv, task], environment=scratch(folder), unpreempted=True
        )
        master = await _receive(listener, program)
    finally:
        listener.close()
    readers = {master: STDOUT} if master >= 0 else {}
    session = ExecSession(program, folder, master=master, readers=readers)
    if master >= 0:
        os.set_blocking(master, False)
        session.resize(request.rows, request.columns)  # for a runtime that ignores consoleSize
    return session


async def _receive(listener: socket.socket, program: subprocess.Popen[bytes]) -> int:
    """Return the pty's master; -1 when the runtime ended without one (its log tells why)."""
    pidfd = os.pidfd_open(program.pid)
    try:
        async with asyncio.timeout(START_TIMEOUT):
            await _either(listener.fileno(), pidfd)
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return -1
            with connection:
                connection.setblocking(False)  # noqa: FBT003 - its signature
                await readable(connection.fileno())
                _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
                return fds[0] if fds else -1
    except TimeoutError:
        abandon(program)
        raise RuntimeFailure(f"the terminal did not come within {START_TIMEOUT:g} s") from None
    finally:
        os.close(pidfd)


async def _either(first: int, second: int) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def seen() -> None:
        if not future.done():
            future.set_result(None)

    loop.add_reader(first, seen)
    loop.add_reader(second, seen)
    try:
        await future
    finally:
        loop.remove_reader(first)
        loop.remove_reader(second)


async def _kill(session: ExecSession) -> None:
    """Kill the command and see it end, also one that the runtime is only about to begin.

    On a busy machine the patience with a probe may end before there is a pid to kill. A runtime
    that is killed then leaves the command to itself, and the next one would run beside it.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_TIMEOUT):
            while session.program.poll() is None:
                session.signal(signal.SIGKILL, tries=0)
                await asyncio.sleep(KILL_AGAIN)


async def probe(
    containers: OciContainers, task: str, request: ExecRequest, timeout: float, keep: int = 4096
) -> tuple[int, str]:
    """Run a command for its exit code and the beginning of its output; killed at ``timeout``."""
    session = await begin(containers, task, request)
    said = bytearray()

    def take(_: int, data: bytes) -> None:
        said.extend(data[: max(keep - len(said), 0)])

    try:
        code = await to_end(session, take, Patience(timeout))
        return code, said.decode(errors="replace")
    except TimeoutError:
        text = said.decode(errors="replace")
        return -1, f"no answer within {as_set(timeout)}{': ' + text if text else ''}"


async def to_end(
    session: ExecSession, take: Callable[[int, bytes], None], patience: Patience
) -> int:
    """Return the exit code of a command, its output given to ``take`` by channel; closes it.

    Raises TimeoutError when it did not end by itself, and was killed, RuntimeFailure when it
    could not be started. Who waits no longer ends it.
    """

    async def collect(fd: int, channel: int) -> None:
        with contextlib.suppress(OSError):  # what was said is less, the verdict is the same
            while data := await session.read(fd):
                take(channel, data)
        take(channel, b"")

    readers = [asyncio.create_task(collect(*one)) for one in session.readers.items()]
    try:
        async with patience.limit():
            await session.over()  # `wait` would end the runtime when the time is up
            code = await session.wait()
            # A grandchild may hold the pipes open for ever: what is there is enough.
            if readers:
                await asyncio.wait(readers, timeout=0.1)
    except TimeoutError:
        await _kill(session)
        raise
    except asyncio.CancelledError:
        # Also one that has no pid yet, and however often we are asked: it is the last chance.
        killing = asyncio.create_task(_kill(session))
        while not killing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([killing])
        raise
    else:
        return code
    finally:
        for reader in readers:
            reader.cancel()
        if readers:
            await asyncio.wait(readers)
        if session.program.poll() is None:
            abandon(session.program)
        session.close()
