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

TYPE_CHECKING = False  # not from typing: its import is a tenth of what `corral ps` may cost
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeVar

    T = TypeVar("T")

REQUEST_TIMEOUT = 30.0  # seconds for a whole request and its answer
CONNECT_TIMEOUT = 5.0
RESTART_TIMEOUT = 8.0  # seconds a controller that is restarted here is waited for
PERSIST_TIMEOUT = 60.0
PULSE_TIMEOUT = 60.0  # a living controller sends an empty line into a silent stream every 10 s
MAX_HEAD = 64 * 1024
MAX_LINE = 16 * 1024 * 1024

_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


class ClientError(Exception):
    """Root of what the client raises; ``hint`` says what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


class BadHost(ClientError):
    """CORRAL_HOST or --host cannot be used."""


class Unavailable(ClientError):
    """Nobody answered, or the answer broke off. Trying again may help."""


class NoController(Unavailable):
    """Nothing listens on the controller's socket."""


class Forbidden(ClientError):
    """The socket is there, but this user may not use it."""


class BadAnswer(ClientError):
    """The answer is not what this version understands."""


class Refused(ClientError):
    """The controller answered with a problem (RFC 9457)."""

    def __init__(self, problem: Mapping[str, Any], status: int) -> None:
        self.status = status
        self.type = str(problem.get("type", ""))
        self.detail = str(problem.get("detail", ""))
        self.problems: list[dict[str, Any]] = list(problem.get("problems") or ())
        title = str(problem.get("title") or f"the controller answered {status}")
        # The detail is a whole sentence; the title only says of which kind it is.
        super().__init__(self.detail or title, hint=str(problem.get("hint", "")))


class NotFound(Refused):
    """What was asked for does not exist."""


class Conflict(Refused):
    """It changed meanwhile, or another operation is under way."""


class Invalid(Refused):
    """The input is refused; ``problems`` holds the findings."""


_BY_STATUS: dict[int, type[Refused]] = {
    400: Invalid,
    404: NotFound,
    409: Conflict,
    422: Invalid,
}


def run_dir() -> str:
    """Return the directory of the sockets."""
    return os.environ.get("CORRAL_RUN_DIR") or "/run/corral"


def state_dir() -> str:
    """Return the directory of durable state."""
    return os.environ.get("CORRAL_STATE_DIR") or "/var/lib/corral"


def default_host() -> str:
    """Return where this machine's own controller listens."""
    return f"unix://{run_dir()}/controller.sock"


def kept_alive() -> bool:
    """Say whether something on this machine starts the controller again when it ends."""
    try:
        with open(f"{run_dir()}/supervisor.pid", encoding="ascii") as file:  # noqa: PTH123 - as below
            keeper = f"/proc/{int(file.read().split()[0])}"
    except (OSError, ValueError, IndexError):
        keeper = "/etc/systemd/system/corral-controller.service"
    return os.path.exists(keeper)  # noqa: PTH110 - pathlib costs start-up time


def quote(text: str) -> str:
    """Return ``text`` percent-encoded for one path segment or query value."""
    return "".join(chr(b) if b in _SAFE else f"%{b:02X}" for b in text.encode())


def target(path: str, query: Mapping[str, Any] | None = None) -> str:
    """Return the request target; None leaves a query value out, bools become 0 and 1."""
    pairs: list[str] = []
    for key, value in (query or {}).items():
        for item in value if isinstance(value, list | tuple) else (value,):
            if item is not None:
                shown = str(int(item)) if isinstance(item, bool) else str(item)
                pairs.append(f"{quote(key)}={quote(shown)}")
    return f"{path}?{'&'.join(pairs)}" if pairs else path


class Connection:
    """One socket with a read buffer; reads honour a deadline or an idle limit."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.deadline: float | None = None  # monotonic; of everything until it is moved
        self.idle: float | None = None  # seconds between two reads, when there is no deadline

    def fill(self) -> bool:
        """Read once into the buffer; False at the end of the stream."""
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise Unavailable("the controller did not answer in time")
            self.sock.settimeout(left)
        else:
            self.sock.settimeout(self.idle)
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise Unavailable("the controller did not answer in time") from None
        except OSError as exc:
            raise Unavailable(f"the connection to the controller broke: {exc.strerror}") from exc
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes, limit: int) -> bytes | None:
        """Return the bytes before ``mark`` and drop both; None at the end of the stream."""
        start = 0
        while (at := self.buffer.find(mark, start)) < 0:
            if len(self.buffer) > limit:
                raise BadAnswer("the controller's answer has no end of line")
            start = max(0, len(self.buffer) - len(mark))
            if not self.fill():
                return None
        found = bytes(self.buffer[:at])
        del self.buffer[: at + len(mark)]
        return found

    def exactly(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        while len(self.buffer) < size:
            if not self.fill():
                raise Unavailable("the controller's answer broke off")
        found = bytes(self.buffer[:size])
        del self.buffer[:size]
        return found

    def send(self, data: bytes) -> None:
        """Send all of ``data`` before the deadline."""
        left = None if self.deadline is None else max(0.001, self.deadline - time.monotonic())
        self.sock.settimeout(left)
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise Unavailable("the controller did not take the request in time") from None
        except OSError as exc:
            raise Unavailable(f"the connection to the controller broke: {exc.strerror}") from exc

    def close(self) -> None:
        self.sock.close()


class Answer:
    """Status, headers and, on demand, the body of one response."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        head = connection.until(b"\r\n\r\n", MAX_HEAD)
        if head is None:
            raise Unavailable("the controller closed the connection without an answer")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise BadAnswer("what listens there does not speak HTTP")
        self.status = int(rest[:3])
        self.headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()

    def chunks(self) -> Iterator[bytes]:
        """Yield the body's parts as they arrive."""
        if self.status in (204, 304):
            return
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            yield from self._chunked()
        elif "content-length" in self.headers:
            left = self._number(self.headers["content-length"], 10)
            while left > 0:
                part = self.connection.exactly(min(left, 65536))
                left -= len(part)
                yield part
        else:
            while self.connection.buffer or self.connection.fill():
                part = bytes(self.connection.buffer)
                self.connection.buffer.clear()
                yield part

    def _chunked(self) -> Iterator[bytes]:
        while True:
            size = self.connection.until(b"\r\n", MAX_HEAD)
            if size is None:
                raise Unavailable("the controller's answer broke off")
            length = self._number(size.decode("latin-1").partition(";")[0], 16)
            if length == 0:
                return
            yield self.connection.exactly(length)
            self.connection.exactly(2)

    @staticmethod
    def _number(text: str, base: int) -> int:
        try:
            return int(text.strip(), base)
        except ValueError:
            raise BadAnswer("the controller's answer has a broken length") from None

    def json(self) -> Any:
        """Return the whole body as JSON; an empty one is None."""
        return _parsed(b"".join(self.chunks()))

    def raise_for_status(self) -> None:
        """Raise the problem the answer carries, if it carries one."""
        if self.status < 400:
            return
        try:
            problem = self.json()
        except BadAnswer:
            problem = None
        known = _BY_STATUS.get(self.status, Refused)
        raise known(problem if isinstance(problem, dict) else {}, self.status)


def _parsed(data: bytes) -> Any:
    if not data.strip():
        return None
    try:
        return json.loads(data)
    except ValueError:
        raise BadAnswer(
            "the controller's answer is not JSON",
            hint="is it a corral controller of this version? corral version",
        ) from None


class Stream:
    """An NDJSON answer: iterate over its objects; ``close`` from any thread ends it."""

    def __init__(self, connection: Connection, answer: Answer) -> None:
        self._connection = connection
        self._answer = answer
        self._closed = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rest = b""
        try:
            for part in self._answer.chunks():
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield _parsed(line)
                if len(rest) > MAX_LINE:
                    raise BadAnswer("the controller sent a line without end")
            if rest.strip():
                yield _parsed(rest)
        except Unavailable:
            if not self._closed:
                raise
        finally:
            self._connection.close()

    def close(self) -> None:
        """End the stream; a blocked reader wakes up and finishes quietly."""
        self._closed = True
        try:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            self._connection.close()


class Client:
    """Requests to one controller; each opens its own connection."""

    def __init__(self, host: str | None = None, *, timeout: float = REQUEST_TIMEOUT) -> None:
        self.host = host or os.environ.get("CORRAL_HOST") or default_host()
        self.timeout = timeout
        self.path = _socket_path(self.host)
        self.patient = True  # wait for a controller that is being restarted

    @property
    def local(self) -> bool:
        """Whether this is the controller `corral up` may start on this machine."""
        return self.host == default_host()

    def connect(self, timeout: float = CONNECT_TIMEOUT) -> Connection:
        """Open a connection. Raises NoController, Forbidden, Unavailable.

        Where something restarts the controller, one that has just died is waited for.
        """
        return self._over_restart(lambda: self._connect(timeout), NoController)

    def _over_restart(self, ask: Callable[[], T], fault: type[Unavailable]) -> T:
        until = time.monotonic() + RESTART_TIMEOUT
        while True:
            try:
                return ask()
            except fault:
                if time.monotonic() > until or not (self.local and self.patient and kept_alive()):
                    raise
                time.sleep(0.05)

    def _connect(self, timeout: float) -> Connection:
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
            raise Unavailable(f"the controller on {self.path} does not take connections") from None
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
            connection.deadline = time.monotonic() + (timeout or self.timeout)
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
            except Unavailable as exc:
                if time.monotonic() > until or (isinstance(exc, NoController) and not tried):
                    raise
            tried = True
            time.sleep(0.2)

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of a GET."""
        return self._over_restart(lambda: self.request("GET", path, query=query), Unavailable)

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        idle: float = PULSE_TIMEOUT,
    ) -> Stream:
        """Open an NDJSON stream; ``idle`` seconds without even a pulse end it with Unavailable."""

        def opened() -> Stream:
            connection = self.connect()
            try:
                connection.deadline = time.monotonic() + self.timeout
                answer = self._ask(connection, method, target(path, query), body)
            except BaseException:
                connection.close()
                raise
            connection.deadline = None
            connection.idle = idle
            return Stream(connection, answer)

        return self._over_restart(opened, Unavailable) if method == "GET" else opened()

    def _ask(self, connection: Connection, method: str, where: str, body: Any) -> Answer:
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        head = [
            f"{method} {where} HTTP/1.1",
            "Host: corral",
            "Accept: application/json",
            "Connection: close",
        ]
        if data or method in ("POST", "PUT", "PATCH"):
            head += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        try:
            connection.send("\r\n".join(head).encode() + b"\r\n\r\n" + data)
        except Unavailable:
            # A server that refuses early closes while we still send; its answer says why.
            if not connection.buffer and not _readable(connection):
                raise
        answer = Answer(connection)
        answer.raise_for_status()
        return answer


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
    if scheme in ("ssh", "http", "https", "tcp"):
        raise BadHost(
            f"{scheme}:// is not supported yet as the controller's address ({host})",
            hint="log in to the controller's machine and use corral there, "
            "or forward its socket: ssh -L /tmp/corral.sock:/run/corral/controller.sock HOST "
            "and CORRAL_HOST=unix:///tmp/corral.sock",
        )
    raise BadHost(
        f"{host!r} is not the address of a controller",
        hint="write unix:///path/to/controller.sock",
    )
