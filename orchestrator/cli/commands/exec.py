"""`corral exec SERVICE COMMAND`: run a command in a running container.

With a terminal on standard input it behaves like a shell there: raw mode, resizes,
the command's exit code. The terminal is restored whatever happens. As in a pipeline
on one machine, output nobody reads is closed inside too: the command decides what then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import struct

from orchestrator.cli.errors import ERROR, INTERRUPTED, USAGE, CliError
from orchestrator.cli.show.order import natural
from orchestrator.client import websocket
from orchestrator.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from orchestrator.cli.session import Invocation

STDIN, STDOUT, STDERR = 0, 1, 2
HELD = 256 * 1024  # bytes of input waiting to be sent
KEPT = 4096  # bytes of standard error looked through for what the node says at the end


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = "corral exec [options] SERVICE COMMAND [ARGUMENT ...]"
    add("-d", "--detach", action="store_true", help="start it and return")
    add("-e", "--env", action="append", default=[], metavar="KEY=VALUE", help="(repeatable)")
    add("--index", type=int, default=0, metavar="N", help="replica N (default: the first)")
    add("-T", "--no-tty", action="store_true", help="no terminal, even if this is one")
    add("-i", "--interactive", action="store_true", help="accepted; input is always passed on")
    add("-t", "--tty", action="store_true", help="accepted; a terminal gets a terminal")
    add("--privileged", action="store_true", help="with all capabilities")
    add("-u", "--user", metavar="USER", help="as this user (name or uid[:gid])")
    add("-w", "--workdir", metavar="DIR", help="in this folder of the container")
    add("words", nargs="...", metavar="SERVICE COMMAND", help="")


def alive(row: dict[str, Any]) -> bool:
    """Say whether a process runs in the task: healthy or not, stopping or not."""
    return row.get("started_at") is not None and row.get("finished_at") is None


def choose(rows: list[dict[str, Any]], service: str, index: int) -> dict[str, Any]:
    """Return the task to enter: replica ``index``, or the first that runs. Raises CliError.

    ``service`` may be what a container is called (specs.kit.called). As in Compose a one-off is
    meant where nothing else of the service runs; it has a name, too.
    """
    mine = sorted(
        (row for row in rows if row.get("service") == service),
        key=lambda row: natural(str(row.get("name"))),
    )
    if not mine:
        from orchestrator.cli import called  # a service is what is mostly named

        mine = called.containers(service, rows)
    if any(row.get("beside") for row in mine):
        from orchestrator.cli import called

        mine = called.serving(mine)
    running = [row for row in mine if alive(row)]
    running = [row for row in running if not row.get("oneoff")] or running
    if index:
        running = [row for row in running if str(row.get("name")).endswith(f"-{index}")] or (
            running if index == 1 and len(mine) == 1 else []
        )
    if running:
        # A slot may hold two for a while: a lost one and its replacement, an old one and the new.
        return next((row for row in running if row.get("ready")), running[-1 if index else 0])
    if not mine:
        known = ", ".join(sorted({str(row.get("service")) for row in rows})) or "none"
        raise CliError(f"no service {service!r} has tasks", hint=f"services with tasks: {known}")
    states = ", ".join(f"{row.get('name')} {row.get('status') or row.get('state')}" for row in mine)
    which = f"replica {index} of {service}" if index else service
    raise CliError(f"{which} is not running: {states}", hint=f"corral logs {service}")


def environment(words: list[str]) -> dict[str, str]:
    """Return the mapping of -e; a bare KEY takes this shell's value, like Docker's."""
    found = {}
    for word in words:
        key, mark, value = word.partition("=")
        if not key:
            raise CliError(f"-e {word!r} is not KEY=VALUE", code=USAGE)
        if mark:
            found[key] = value
        elif key in os.environ:
            found[key] = os.environ[key]
    return found


def terminal_size() -> tuple[int, int]:
    """Return rows and columns of the terminal."""
    import termios  # who has no terminal does not load it

    try:
        data = fcntl.ioctl(STDOUT if os.isatty(STDOUT) else STDIN, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return 24, 80
    rows, columns, _, _ = struct.unpack("4H", data)
    return rows or 24, columns or 80


def run(args: argparse.Namespace, session: Invocation) -> int:
    if len(args.words) < 2:
        raise CliError("exec needs a service and a command", "corral exec web sh", code=USAGE)
    service, *command = args.words
    if command[0] == "--":
        command = command[1:]
    rows = session.client.get(session.path("tasks"), all=True, oneoffs=True)["tasks"]
    task = choose(rows, service, args.index)
    with_tty = os.isatty(STDIN) and os.isatty(STDOUT) and not (args.no_tty or args.detach)
    request: dict[str, Any] = {"command": command, "tty": with_tty, "stdin": not args.detach}
    wishes = {
        "user": args.user,
        "working_dir": args.workdir,
        "environment": environment(args.env),
        "privileged": args.privileged,
        "detach": args.detach,
    }
    request |= {key: value for key, value in wishes.items() if value}
    size = terminal_size() if with_tty else None
    if size is not None:
        request["rows"], request["columns"] = size
    socket = websocket.open_websocket(session.client, f"/v1/tasks/{quote(task['id'])}/exec")
    try:
        socket.send(json.dumps(request))
        return Channel(socket, size=size, reads_input=not args.detach).run()
    finally:
        socket.close()


class Channel:
    """Moves bytes between this terminal and the command until it has ended."""

    def __init__(
        self, socket: websocket.WebSocket, *, size: tuple[int, int] | None, reads_input: bool
    ) -> None:
        """``size``: of the terminal, as the node was told it; None = there is none."""
        self._socket = socket
        self._size = size
        self._tty = size is not None
        self._reads = reads_input
        self._interrupts = 0
        self._exit: int | None = None
        self._complaints = b""  # the end of what came on standard error
        self._deaf: set[int] = set()  # outputs whose reader has gone

    def run(self) -> int:
        """Return the command's exit code. Raises CliError with the node's reason."""
        saved = _settings() if self._tty and self._reads else None
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        # A typed Ctrl-C is a byte in raw mode; signals are caught there, too: they end nothing raw.
        signals = [*self._caught(), *([signal.SIGWINCH] if self._tty else [])]
        old_wake = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        old = {number: signal.signal(number, lambda *_: None) for number in signals}
        try:
            if saved is not None:
                _set(None)
            if self._tty and terminal_size() != self._size:
                self._signalled(signal.SIGWINCH)  # changed before anybody heard of it
            return self._loop(wake_read)
        finally:
            if saved is not None:
                _set(saved)
            signal.set_wakeup_fd(old_wake)
            for number, handler in old.items():
                signal.signal(number, handler)
            os.close(wake_read)
            os.close(wake_write)

    def _caught(self) -> list[int]:
        """Return the signals that end nothing here at once."""
        return [signal.SIGINT, signal.SIGTERM]

    def _loop(self, wake: int) -> int:
        while self._exit is None:
            # Input is taken only as fast as it can be passed on.
            takes = self._reads and len(self._socket.unsent) < HELD
            wanted: list[Any] = [self._socket, wake, *([STDIN] if takes else [])]
            full = [self._socket] if self._socket.unsent else []
            wait = 0.0 if self._socket.pending else None
            ready, room, _ = select.select(wanted, full, [], wait)
            if self._socket.pending and self._socket not in ready:
                ready.append(self._socket)
            if room:
                self._socket.push()
            if wake in ready:
                for number in os.read(wake, 64):
                    if (code := self._signalled(number)) is not None:
                        return code
            if self._socket in ready:
                for message in self._socket.receive():
                    self._take(message)
                if self._socket.closed and self._exit is None:
                    self._cut_off()
                    continue  # what was ready is long past
            if STDIN in ready and self._exit is None:
                self._input()
        return self._exit

    def _cut_off(self) -> None:
        """Do what can be done when the connection ended before the command. Raises CliError."""
        raise CliError(
            "the connection to the container ended before the command did",
            hint="corral ps shows whether it still runs",
        )

    def _signalled(self, number: int) -> int | None:
        if number == signal.SIGWINCH:
            self._socket.send(json.dumps({"resize": list(terminal_size())}))
            return None
        self._interrupts += 1
        if self._interrupts > 1:
            return INTERRUPTED  # it does not react: leave it alone
        self._socket.send(json.dumps({"signal": number}))
        return None

    def _input(self) -> None:
        try:
            data = os.read(STDIN, 32768)
        except BlockingIOError:
            return  # another process shares it and was quicker
        except OSError:
            data = b""  # a directory, a terminal hung up, opened for writing only: nothing comes
        self._socket.send(b"\x00" + data)
        if not data:
            self._reads = False

    def _take(self, message: bytes | str) -> None:
        if self._exit is not None:
            return  # whatever else is said: the command has ended
        if isinstance(message, bytes):
            if message[:1] in (b"\x01", b"\x02"):
                if message[:1] == b"\x02":
                    self._complaints = (self._complaints + message[1:])[-KEPT:]
                self._show(message[0], message[1:])
            return
        try:
            said = json.loads(message)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            return
        if "error" in said:
            code = said.get("exit")
            code = code & 0xFF if isinstance(code, int) else ERROR
            if str(said["error"]).encode() in self._complaints:
                self._exit = code  # the runtime said it itself
                return
            raise CliError(str(said["error"]), hint=str(said.get("hint", "")), code=code)
        if "exit" in said:
            code = said["exit"]
            self._exit = int(code) & 0xFF if isinstance(code, int) else ERROR

    def _show(self, fd: int, data: bytes) -> None:
        if fd in self._deaf:
            return
        try:
            write_all(fd, data)
        except OSError as exc:
            if exc.errno not in (errno.EPIPE, errno.EIO):  # EIO: the terminal was closed
                raise
            self._deaf.add(fd)
            self._deafened(fd)

    def _deafened(self, fd: int) -> None:
        """Do what is to be done once nobody reads an output here any more."""
        self._socket.send(json.dumps({"close": fd}))


# Who has no terminal loads nothing about terminals.


def _settings() -> list[Any]:
    import termios

    return termios.tcgetattr(STDIN)


def _set(settings: list[Any] | None) -> None:
    """Give the terminal its settings back; None: make it raw."""
    import termios
    import tty

    if settings is None:
        tty.setraw(STDIN, termios.TCSADRAIN)
    else:
        with contextlib.suppress(termios.error):  # it was closed meanwhile
            termios.tcsetattr(STDIN, termios.TCSADRAIN, settings)


def write_all(fd: int, data: bytes) -> None:
    """Write everything, also where another process made the output non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
