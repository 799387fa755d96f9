"""The synchronous HTTP client of the controller's API, for the command line.

The straight line enters the controller here: orchestrator.cli calls it, nothing
else does. It speaks HTTP/1.1 by hand over a unix socket, because http.client and
email cost more start-up time than everything else `corral ps` does together.
It returns the server's JSON as dictionaries and never imports the models. Every
wait has a deadline; a stream that is followed lives by the server's pulse.
"""

from __future__ import annotations

import json
import os
import socket
import time

from orchestrator.client.errors import (
    BadHost,
    ClientError,
    ControllerElsewhere,
    Forbidden,
    NoAnswer,
    NoController,
)
from orchestrator.client.http import Connection, Download, Response, Stream, quote, target
from orchestrator.client.places import (
    agent_host,
    default_host,
    had_controller,
    kept_alive,
    starting,
)

TYPE_CHECKING = False  # not from typing: its import is a tenth of what `corral ps` may cost
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from orchestrator.client.ssh import SshHost

    T = TypeVar("T")

REQUEST_TIMEOUT = 30.0  # seconds for a whole request and its answer
READ_TIMEOUT = 10.0  # the same for what the controller answers by itself: nobody stares at nothing
CONNECT_TIMEOUT = 5.0
HELLO_TIMEOUT = 5.0  # seconds this machine's agent has to say whose node it is
RESTART_TIMEOUT = 8.0  # seconds a controller that is restarted here is waited for
PERSIST_TIMEOUT = 60.0
BYTES_TIMEOUT = 300.0  # without a byte of an archive, either way
PULSE_TIMEOUT = 60.0  # a living controller sends an empty line into a silent stream every 10 s


class Client:
    """Requests to one controller; each opens its own connection."""

    def __init__(self, host: str | None = None, *, timeout: float = REQUEST_TIMEOUT) -> None:
        self.host = host or os.environ.get("CORRAL_HOST") or default_host()
        self.timeout = timeout
        self.ssh: SshHost | None = None
        if self.host.startswith("ssh://"):
            from orchestrator.client.ssh import SshHost  # noqa: PLC0415 - who reads here needs none

            self.ssh = SshHost(self.host)
        self.path = self.ssh.remote if self.ssh else _socket_path(self.host)
        self.patient = True  # wait for a controller that is being restarted

    @property
    def local(self) -> bool:
        """Whether this is the controller `corral up` may start on this machine."""
        return self.host == default_host()

    def connect(self, timeout: float = CONNECT_TIMEOUT) -> Connection:
        """Open a connection. Raises NoController, Forbidden, NoAnswer.

        Where something restarts the controller, one that has just died is waited for.
        """
        return self._over_restart(lambda: self._connect(timeout), NoController)

    def _over_restart(self, ask: Callable[[], T], fault: type[NoAnswer]) -> T:
        until = time.monotonic() + RESTART_TIMEOUT
        first = True
        while True:
            try:
                return ask()
            except fault as exc:
                if first and self.local and self.patient and isinstance(exc, NoController):
                    refuse_member()  # nobody starts one here: there is nothing to wait for
                first = False
                kept = self.local and self.patient and (kept_alive() or starting())
                if time.monotonic() > until or not kept:
                    if kept and isinstance(exc, NoController):
                        # Nobody has to start it: whoever keeps it does, or says why not.
                        exc.hint = "it is being started here; see corral controller status"
                    raise
                time.sleep(0.05)

    def _connect(self, timeout: float) -> Connection:
        if self.ssh:
            connection = Connection(self.ssh.connect(timeout))
            connection.nobody = (
                f"no controller answers on {self.ssh.host}:{self.path}",
                f"{self.ssh.login} corral controller status; your user must be in the group corral",
            )
            return connection
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            sock.connect(self.path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            sock.close()
            raise NoController(
                f"no controller answers on {self.path}",
                hint="`corral up` as root starts one on this machine; "
                "CORRAL_HOST or --host names another",
            ) from None
        except PermissionError:
            sock.close()
            raise Forbidden(
                f"this user may not open {self.path}",
                hint="run as root, or join the group corral: usermod -aG corral USER",
            ) from None
        except TimeoutError:
            sock.close()
            raise NoAnswer(f"the controller on {self.path} does not take connections") from None
        except OSError as exc:
            sock.close()
            raise BadHost(f"cannot connect to {self.path}: {exc.strerror or exc}") from exc
        return Connection(sock)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Make one request and return the JSON answer. Raises ClientError."""
        connection = self.connect()
        try:
            connection.wait(timeout or self.timeout)
            answer = self._ask(connection, method, target(path, query), body)
            return answer.json()
        finally:
            connection.close()

    def persist(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> Any:
        """Make a request that may be repeated, until the controller has surely taken it.

        For wishes that mean the same when said twice. Raises NoController at once when
        none was there to begin with.
        """
        until = time.monotonic() + PERSIST_TIMEOUT
        tried = False
        while True:
            try:
                return self.request(method, path, query=query, body=body)
            except NoAnswer as exc:
                if time.monotonic() > until or (isinstance(exc, NoController) and not tried):
                    raise
            tried = True
            time.sleep(0.2)

    def get(self, path: str, /, *, patience: float = READ_TIMEOUT, **query: Any) -> Any:
        """Return the JSON of a GET; ``patience`` is longer where nodes are asked for it."""
        limit = min(patience, self.timeout)
        return self._over_restart(
            lambda: self.request("GET", path, query=query, timeout=limit), NoAnswer
        )

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        idle: float = PULSE_TIMEOUT,
        until: float | None = None,
    ) -> Stream:
        """Open an NDJSON stream; ``idle`` seconds without even a pulse end it with NoAnswer.

        So does ``until`` (monotonic), whatever comes.
        """

        def opened() -> Stream:
            connection = self.connect()
            try:
                limit = READ_TIMEOUT if method == "GET" else REQUEST_TIMEOUT
                connection.wait(min(limit, self.timeout))
                answer = self._ask(connection, method, target(path, query), body)
            except BaseException:
                connection.close()
                raise
            connection.deadline = None
            connection.idle, connection.ends = idle, until
            return Stream(connection, answer)

        return self._over_restart(opened, NoAnswer) if method == "GET" else opened()

    def download(
        self, path: str, /, *, method: str = "GET", body: Any = None, **query: Any
    ) -> Download:
        """Open an answer of bytes. Raises ClientError where it is a refusal."""
        connection = self.connect()
        try:
            connection.deadline = time.monotonic() + BYTES_TIMEOUT
            answer = self._ask(connection, method, target(path, query), body)
        except BaseException:
            connection.close()
            raise
        connection.deadline, connection.idle = None, BYTES_TIMEOUT
        return Download(connection, answer)

    def upload(
        self, path: str, fill: Callable[[Callable[[bytes], None]], None], /, **query: Any
    ) -> Any:
        """Send what ``fill`` writes as a PUT's body and return the JSON answer.

        A refusal may come before all is sent: it is raised, whatever was under way.
        """
        connection = self.connect()
        try:
            connection.sock.settimeout(BYTES_TIMEOUT)
            head = (
                f"PUT {target(path, query)} HTTP/1.1\r\nHost: corral\r\nConnection: close\r\n"
                f"{_asker()}\r\n"
                "Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n"
            )

            def chunk(data: bytes) -> None:
                connection.deadline = time.monotonic() + BYTES_TIMEOUT
                connection.send(b"%x\r\n" % len(data) + data + b"\r\n")

            try:
                connection.send(head.encode())
                fill(chunk)
                connection.send(b"0\r\n\r\n")
            except NoAnswer:
                if not connection.buffer and not _readable(connection):
                    raise
            connection.deadline = time.monotonic() + BYTES_TIMEOUT
            answer = Response(connection)
            answer.raise_for_status()
            return answer.json()
        finally:
            connection.close()

    def _ask(self, connection: Connection, method: str, where: str, body: Any) -> Response:
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        head = [
            f"{method} {where} HTTP/1.1",
            "Host: corral",
            "Accept: application/json",
            "Connection: close",
        ]
        if method != "GET":
            head.append(_asker())
        if data or method in ("POST", "PUT", "PATCH"):
            head += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        try:
            connection.send("\r\n".join(head).encode() + b"\r\n\r\n" + data)
        except NoAnswer:
            # A server that refuses early closes while we still send; its answer says why.
            if not connection.buffer and not _readable(connection):
                raise
        answer = Response(connection)
        answer.raise_for_status()
        return answer


def refuse_member() -> None:
    """Raise ControllerElsewhere on a node of a cluster whose controller is on another machine.

    The one place that decides it, for every command.
    """
    if had_controller():
        return
    agent = Client(agent_host())
    try:
        hello = agent.request("GET", "/v1/hello", timeout=HELLO_TIMEOUT)
    except ClientError:
        return
    stamp = hello.get("stamp") if isinstance(hello, dict) else None
    if isinstance(stamp, dict):
        raise ControllerElsewhere(
            f"this machine is a node of the cluster {stamp.get('cluster', '?')}, "
            "whose controller runs elsewhere",
            hint="use corral on that controller's machine (or from here: corral -H ssh://user@it), "
            "or take this one out of the cluster there: corral node rm NAME",
        ) from None


def _asker() -> str:
    """Return the header that says who asks and where, for whoever reads later what was asked.

    It is specs.made_by.ASKER. The controller asks the kernel besides.
    """
    user = os.environ.get("SUDO_USER") or os.environ.get("LOGNAME") or os.environ.get("USER") or ""
    return f"Corral-By: {quote(user[:128])}@{quote(socket.gethostname()[:128])}"


def _readable(connection: Connection) -> bool:
    try:
        connection.sock.settimeout(0.2)
        connection.buffer += connection.sock.recv(65536)
    except OSError:
        return False
    return bool(connection.buffer)


def _socket_path(host: str) -> str:
    scheme, mark, rest = host.partition("://")
    if not mark and host.startswith("/"):
        return host
    if scheme == "unix" and rest.startswith("/"):
        return rest
    if scheme in ("http", "https", "tcp"):
        raise BadHost(
            f"{scheme}:// is not supported yet as the controller's address ({host})",
            hint="ssh://user@host reaches it through that machine's sshd",
        )
    raise BadHost(
        f"{host!r} is not the address of a controller",
        hint="write unix:///path/to/controller.sock or ssh://user@host; "
        "corral context ls has names",
    )
