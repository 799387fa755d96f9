"""`corral attach SERVICE`: the terminal of a container's own process, from now on.

Ctrl-P Ctrl-Q leaves it as it is. Signals go to the process (not with --sig-proxy=false), so Ctrl-C
ends what it would end there. A connection that is lost is taken up again: the container runs on.
A terminal that is closed leaves it, too, but ends what `run` started for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time

from orchestrator.cli import said
from orchestrator.cli.commands import exec as execs
from orchestrator.cli.commands.exec import STDIN, STDOUT, Channel, terminal_size
from orchestrator.cli.errors import INTERRUPTED, USAGE, CliError
from orchestrator.client import websocket
from orchestrator.client.errors import ClientError, NoAnswer
from orchestrator.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any

    from orchestrator.cli.session import Invocation

KEYS = "ctrl-p,ctrl-q"
AWAY = 60.0  # seconds a lost connection is tried again
RETRY = 0.2
LASTED = 5.0  # seconds; a connection open for longer was heard, whatever was said on it
CTRL_C = b"\x03"
# Passed on as often as they come. INT and TERM are, too, but somebody who insists wants to go.
PASSED = (
    *(signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPWR),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("service", metavar="SERVICE")
    add("--index", type=int, default=0, metavar="N", help="replica N (default: the first)")
    add("--no-stdin", action="store_true", help="only listen")
    add(
        "--sig-proxy",
        nargs="?",
        const="true",
        default="true",
        choices=("true", "false"),
        help="pass signals on (default: true)",
    )
    add("--detach-keys", default=KEYS, metavar="KEYS", help=f"leave with these (default: {KEYS})")


def run(args: argparse.Namespace, session: Invocation) -> int:
    keys = Keys(args.detach_keys)
    rows = session.client.get(session.path("tasks"), all=True, oneoffs=True)["tasks"]
    row = execs.choose(rows, args.service, args.index)
    whole = session.client.get(f"/v1/tasks/{quote(str(row['id']))}/streams")
    opened, tty = bool(whole.get("stdin_open")), bool(whole.get("tty"))
    reads = opened and not args.no_stdin
    with_tty = tty and os.isatty(STDOUT) and (os.isatty(STDIN) or not reads)
    listener = Attached(
        session,
        str(row["id"]),
        str(row["name"]),
        reads=reads,
        size=terminal_size() if with_tty else None,
        keys=keys if with_tty and reads else None,
        proxies=args.sig_proxy == "true",
    )
    return listener.listen()


class Keys:
    """Finds the keys that leave a container running in what is typed."""

    def __init__(self, text: str) -> None:
        """``ctrl-p,ctrl-q``, ``ctrl-@,x``: as Docker writes them. Raises CliError."""
        self._wanted = b"".join(_key(word) for word in text.split(",")) if text else b""
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is to be passed on, and whether the keys were there, all in a row.

        The beginning of them is held back until it is known what follows.
        """
        if not self._wanted:
            return data, False
        passed = b""
        for at, one in enumerate(data):
            self._held += bytes((one,))
            while self._held and not self._wanted.startswith(self._held):
                passed, self._held = passed + self._held[:1], self._held[1:]
            if self._held == self._wanted:
                return passed, at >= 0
        return passed, False


def _key(word: str) -> bytes:
    if len(word) == 1:
        return word.encode()
    front, _, key = word.lower().partition("-")
    if front == "ctrl" and len(key) == 1 and "@" <= key.upper() <= "_":
        return bytes((ord(key.upper()) & 0x1F,))
    raise CliError(f"--detach-keys: {word!r} is no key", hint=f"like {KEYS}", code=USAGE)


class Attached(Channel):
    """Moves bytes between this terminal and a task's own process until it has ended."""

    def __init__(
        self,
        session: Invocation,
        task: str,
        name: str,
        *,
        reads: bool,
        size: tuple[int, int] | None,
        keys: Keys | None,
        proxies: bool = True,
        stop: Callable[[bool], None] | None = None,
        detach: bool = False,
    ) -> None:
        """``stop``: ends it, for a second Ctrl-C; without it a second one leaves.

        ``detach``: it is not listened to; who asks wants to know that it has begun.
        """
        self._session = session
        self._task = task
        self._name = name
        self._keys = keys
        self._proxies = proxies
        self._of_terminal = _terminal()
        self._stop = stop
        self._left = False
        self._detach = detach
        self._early: list[bytes | str] = []
        self._wants_input = reads
        self._wake: int | None = None  # tells of signals, once they are caught
        self._lost_at: float | None = None  # since when nobody is heard
        self._opened = 0.0
        self._why = ""  # the last word on why nobody is heard
        self._refused = False  # it was said on this connection
        self._told: set[str] = set()
        self._typed = b""  # on a terminal, while nobody is heard
        super().__init__(self._open(size, reads=reads), size=size, reads_input=reads)

    def _open(self, size: tuple[int, int] | None, *, reads: bool) -> websocket.WebSocket:
        path = f"/v1/tasks/{quote(self._task)}/attach"
        socket = websocket.open_websocket(self._session.client, path)
        request: dict[str, Any] = {"detach": True} if self._detach else {"stdin": reads}
        if size is not None:
            request["rows"], request["columns"] = size
        socket.send(json.dumps(request))
        socket.push()
        self._opened, self._refused = time.monotonic(), False
        return socket

    def listen(self) -> int:
        """Return the exit code of the process; 0 when it was left running. Raises CliError."""
        try:
            self._until_attached()
            code = self._exit
            return self.run() if code is None else code
        finally:
            self._socket.close()

    def _loop(self, wake: int) -> int:
        self._wake = wake
        for message in self._early:  # shown only now: whoever sees it may send a signal
            self._take(message)
        self._early = []
        return super()._loop(wake)

    def _until_attached(self) -> None:
        """Wait until the process is heard, in a terminal that is as it was: Ctrl-C ends that."""
        while True:
            messages = list(self._socket.receive())
            for at, message in enumerate(messages):
                said = _said(message)
                self._take(message)
                if "attached" in said:
                    self._early = messages[at + 1 :]
                    return
            if self._exit is not None:
                return
            if self._socket.closed:
                self._again(wait=True)
            self._socket.push()

    def _cut_off(self) -> None:
        # What was on its way is lost, and the process has seen the end of its input.
        lost_input = self._reads and self._size is None
        if self._lost_at is None:
            self._tell(f"{self._name}: the connection was lost; coming back")
        self._again(wait=False)
        if lost_input and self._exit is None:
            self._reads = False
            self._tell(f"{self._name}: its input ended there, before its end here")

    def _again(self, *, wait: bool) -> None:
        """Open the connection anew, or leave. Raises CliError when nobody is heard for long."""
        now = time.monotonic()
        if self._lost_at is None or (not self._refused and now - self._opened > LASTED):
            self._lost_at = now
        while True:
            if time.monotonic() - self._lost_at > AWAY:
                self._left = True
                raise CliError(
                    f"{self._name} cannot be reached any more: {self._why or 'nobody answers'}",
                    hint="it runs on, if it ran; corral ps -a shows it",
                )
            self._pause()
            if self._exit is not None:
                return
            self._socket.close()
            self._size = terminal_size() if self._size is not None else None
            reads = self._wants_input and (wait or self._size is not None)
            try:
                self._socket = self._open(self._size, reads=reads)
            except NoAnswer as exc:
                self._why = str(exc)
            else:
                return

    def _pause(self) -> None:
        """Wait a moment before the next try; Ctrl-C, as a signal or typed, leaves."""
        if self._wake is None:
            time.sleep(RETRY)
            return
        until = time.monotonic() + RETRY
        while self._exit is None and (left := until - time.monotonic()) > 0:
            typed = [STDIN] if self._reads and self._keys is not None else []
            ready, _, _ = select.select([self._wake, *typed], [], [], left)
            if self._wake in ready:
                for number in os.read(self._wake, 64):
                    if number != signal.SIGWINCH:  # the size is told anyway
                        self._signalled(number)
            if STDIN in ready and self._exit is None:
                self._input()

    def _leave(self) -> int:
        self._tell(f"{self._name} is left alone; it runs on, if it ran")
        self._left, self._exit = True, INTERRUPTED
        return INTERRUPTED

    def _tell(self, text: str) -> None:
        raw = self._wake is not None and self._keys is not None
        with contextlib.suppress(OSError):  # nobody is there to read it
            said.tell(f"\r\n{text}\r" if raw else text, said.WARNING)

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(text)

    def _deafened(self, fd: int) -> None:
        """Go as a process of a pipeline does, and stop what was started for it."""
        if fd != STDOUT or self._exit is not None:
            return
        self._left, self._exit = True, 128 + signal.SIGPIPE
        self._end()

    def _caught(self) -> list[int]:
        """Return those that are passed on; of the others what was to be ignored (nohup) stays so.

        Without --sig-proxy they mean this command line, and do what they do to any.
        """
        more = PASSED if self._proxies else ()
        return super()._caught() + [n for n in more if signal.getsignal(n) != signal.SIG_IGN]

    def _signalled(self, number: int) -> int | None:
        if number == signal.SIGWINCH:
            return super()._signalled(number)
        if number == signal.SIGHUP and self._of_terminal and not _terminal():
            return self._hung_up()
        if self._lost_at is not None:
            return self._leave()  # nobody is there to be told
        if number in PASSED:
            self._socket.send(json.dumps({"signal": number}))
            return None
        return self._interrupted(number)

    def _interrupted(self, number: int) -> int | None:
        if not self._proxies:
            self._left = True
            return INTERRUPTED
        self._interrupts += 1
        if self._interrupts == 1:
            self._socket.send(json.dumps({"signal": number}))
            return None
        if self._interrupts == 2 and self._stop is not None:
            self._tell(f"stopping {self._name}; once more leaves it alone")
            self._end(patient=False)
            return None
        self._left = True
        return INTERRUPTED

    def _hung_up(self) -> int:
        """Go with the terminal: nobody sees or ends any more what was started in it."""
        self._left, self._exit = True, 128 + signal.SIGHUP
        if self._stop is not None:
            if self._lost_at is None:
                self._socket.send(json.dumps({"signal": int(signal.SIGHUP)}))
                self._socket.push()
            self._end()
        return self._exit

    def _end(self, *, patient: bool = True) -> None:
        """Stop what was started; ``patient``: nobody is there to say it once more."""
        if self._stop is None:
            return
        try:
            self._stop(patient)
        except ClientError as exc:
            self._tell(f"corral: {exc}")

    def _input(self) -> None:
        if self._keys is None:
            super()._input()
            return
        try:
            data = os.read(STDIN, 32768)
        except BlockingIOError:
            return  # another process shares the terminal and was quicker
        except OSError:
            data = b""
        if not data:
            self._socket.send(b"\x00")
            self._reads = False
            return
        away = self._lost_at is not None
        if away and CTRL_C in data:
            self._leave()
            return
        passed, left = self._keys.feed(data)
        if away:
            self._typed += passed
        elif passed:
            self._socket.send(b"\x00" + passed)
        if left:
            self._left, self._exit = True, 0

    def _take(self, message: bytes | str) -> None:
        said = _said(message)
        if "attached" in said or "waits" in said:
            self._lost_at = None
            if "waits" in said:
                self._tell_once(f"{self._name} waits: {said['waits']}")
                return
            self._told.clear()
            if self._typed:
                self._socket.send(b"\x00" + self._typed)
                self._typed = b""
        elif "lost" in said:  # it is closed next, and tried again
            self._why, self._refused = str(said["lost"]), True
            self._tell_once(f"{self._name}: {self._why}; trying again")
        else:
            super()._take(message)

    @property
    def left(self) -> bool:
        """Whether the user went, and the process runs on."""
        return self._left


def _terminal() -> bool:
    """Say whether this process has a terminal it was started in, be it redirected or not."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _said(message: bytes | str) -> dict[str, Any]:
    if isinstance(message, bytes):
        return {}
    try:
        found = json.loads(message)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
