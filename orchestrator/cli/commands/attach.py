"""`corral attach SERVICE`: the terminal of a container's own process, from now on.

Ctrl-P Ctrl-Q leaves it as it is. Signals go to the process (not with --sig-proxy=false), so Ctrl-C
ends what it would end there. A connection that is lost is taken up again: the container runs on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from orchestrator.cli.commands import exec as execs
from orchestrator.cli.commands.exec import STDIN, STDOUT, Channel, terminal_size
from orchestrator.cli.errors import INTERRUPTED, USAGE, CliError
from orchestrator.client import websocket
from orchestrator.client.errors import ClientError, NoAnswer
from orchestrator.client.http import quote

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from orchestrator.cli.session import Invocation

KEYS = "ctrl-p,ctrl-q"
AWAY = 60.0  # seconds a lost connection is tried again
RETRY = 0.2


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("service", metavar="SERVICE|CONTAINER")
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
    named = [row for row in rows if row.get("name") == args.service and execs.alive(row)]
    row = named[-1] if named else execs.choose(rows, args.service, args.index)
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
        stop: Callable[[], None] | None = None,
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
        self._stop = stop
        self._left = False
        self._detach = detach
        self._early: list[bytes | str] = []
        self._wants_input = reads
        super().__init__(self._open(size, reads=reads), size=size, reads_input=reads)

    def _open(self, size: tuple[int, int] | None, *, reads: bool) -> websocket.WebSocket:
        path = f"/v1/tasks/{quote(self._task)}/attach"
        socket = websocket.open_websocket(self._session.client, path)
        request: dict[str, Any] = {"detach": True} if self._detach else {"stdin": reads}
        if size is not None:
            request["rows"], request["columns"] = size
        socket.send(json.dumps(request))
        socket.push()
        return socket

    def listen(self) -> int:
        """Return the exit code of the process; 0 when it was left running. Raises CliError."""
        try:
            self._until_attached()
            for message in self._early:
                self._take(message)
            code = self._exit
            return self.run() if code is None else code
        finally:
            self._socket.close()

    def _until_attached(self) -> None:
        """Wait until the process is heard, in a terminal that is as it was: Ctrl-C ends that."""
        while True:
            messages = list(self._socket.receive())
            for at, message in enumerate(messages):
                said = _said(message)
                if "waits" in said:
                    print(f"{self._name} waits: {said['waits']}", file=sys.stderr, flush=True)
                elif "attached" in said:
                    self._early = messages[at + 1 :]
                    return
                else:
                    self._take(message)
            if self._exit is not None:
                return
            if self._socket.closed:
                self._again(wait=True)
            self._socket.push()

    def _cut_off(self) -> None:
        print(f"\r\n{self._name}: the connection was lost; coming back\r", file=sys.stderr)
        lost_input = self._wants_input and self._size is None
        self._again(wait=False)
        if lost_input:
            # What was on its way is lost, and the process has seen the end of its input.
            self._reads = False
            print(f"{self._name}: its input ended there, before its end here", file=sys.stderr)

    def _again(self, *, wait: bool) -> None:
        """Open the connection anew. Raises CliError when that takes too long."""
        until = time.monotonic() + AWAY
        while True:
            time.sleep(RETRY)
            try:
                self._socket.close()
                reads = self._wants_input and (wait or self._size is not None)
                self._socket = self._open(self._size, reads=reads)
            except NoAnswer as exc:
                if time.monotonic() < until:
                    continue
                raise CliError(
                    f"{self._name} cannot be reached any more: {exc}",
                    hint="it runs on, if it ran; corral ps -a shows it",
                ) from None
            return

    def _signalled(self, number: int) -> int | None:
        if number == signal.SIGWINCH:
            return super()._signalled(number)
        if not self._proxies:
            return INTERRUPTED
        self._interrupts += 1
        if self._interrupts == 1:
            self._socket.send(json.dumps({"signal": number}))
            return None
        if self._interrupts == 2 and self._stop is not None:
            print(f"stopping {self._name}; once more leaves it alone", file=sys.stderr, flush=True)
            try:
                self._stop()
            except ClientError as exc:
                print(f"corral: {exc}", file=sys.stderr)
            return None
        return INTERRUPTED

    def _input(self) -> None:
        if self._keys is None:
            super()._input()
            return
        try:
            data = os.read(STDIN, 32768)
        except OSError:
            data = b""
        if not data:
            self._socket.send(b"\x00")
            self._reads = False
            return
        passed, left = self._keys.feed(data)
        if passed:
            self._socket.send(b"\x00" + passed)
        if left:
            self._left, self._exit = True, 0

    def _take(self, message: bytes | str) -> None:
        said = _said(message)
        if "attached" in said or "waits" in said:
            return
        if "lost" in said:
            return  # it is closed next, and tried again
        super()._take(message)

    @property
    def left(self) -> bool:
        """Whether the user went, and the process runs on."""
        return self._left


def _said(message: bytes | str) -> dict[str, Any]:
    if isinstance(message, bytes):
        return {}
    try:
        found = json.loads(message)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
