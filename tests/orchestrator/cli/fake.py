"""A scripted controller on a unix socket: threads and the standard library only."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    body: Any
    headers: dict[str, str] = field(default_factory=dict)  # the names in lower case


@dataclass
class Problem(Exception):
    status: int
    body: dict[str, Any] = field(default_factory=dict)


class Lines(list):
    """An NDJSON answer; floats are pauses, ``Hold`` keeps the stream open, ``Cut`` breaks it,
    ``Until`` waits for the test."""


PULSE = "pulse"  # an empty line, as a silent controller sends


class Hold:
    pass


class Until:
    """Nothing more is said before the test has seen what it waits for."""

    def __init__(self, seen: threading.Event) -> None:
        self.seen = seen


class Cut:
    pass


class FakeController:
    """Routes are (METHOD, regex) -> callable(request, *groups) or a fixed answer."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.requests: list[Request] = []
        self.routes: list[tuple[str, re.Pattern[str], Any]] = []
        self.frames: list[tuple[int, bytes]] = []  # what exec clients sent
        self.closing = threading.Event()
        self.on("GET", "/v1/version", {"version": "0.1.0", "api": 1, "cluster": "c1", "epoch": 1})
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(path)
        self._server.listen(64)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def on(self, method: str, pattern: str, answer: Any) -> None:
        self.routes.insert(0, (method, re.compile(pattern + r"\Z"), answer))

    def asked(self, method: str, pattern: str) -> list[Request]:
        return [r for r in self.requests if r.method == method and re.fullmatch(pattern, r.path)]

    def close(self) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(300)
            data = b""
            while b"\r\n\r\n" not in data:
                part = connection.recv(65536)
                if not part:
                    return
                data += part
            head, _, rest = data.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
            while len(rest) < int(headers.get("content-length", "0")):
                part = connection.recv(65536)
                if not part:
                    return  # the client was killed in the middle of it
                rest += part
            method, where, _ = first.split(" ")
            parts = urlsplit(where)
            request = Request(
                method,
                unquote(parts.path),
                parse_qs(parts.query),
                json.loads(rest) if rest else None,
                headers,
            )
            self.requests.append(request)
            self._answer(connection, request, headers)

    def _answer(self, connection: socket.socket, request: Request, headers: dict[str, str]) -> None:
        try:
            for method, pattern, answer in self.routes:
                match = pattern.fullmatch(request.path)
                if method == request.method and match:
                    found = answer(request, *match.groups()) if callable(answer) else answer
                    break
            else:
                missing = {"type": "not-found", "title": "Not found", "status": 404}
                self._json(connection, missing, 404)
                return
        except Problem as problem:
            self._json(connection, problem.body, problem.status)
            return
        if isinstance(found, Exec):
            found.serve(self, connection, headers)
        elif isinstance(found, Lines):
            self._stream(connection, found)
        elif isinstance(found, bytes):
            connection.sendall(found)
        else:
            self._json(connection, found, 200)

    @staticmethod
    def _json(connection: socket.socket, body: Any, status: int) -> None:
        data = json.dumps(body).encode()
        connection.sendall(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode()
            + data
        )

    def _stream(self, connection: socket.socket, lines: Lines) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        for line in lines:
            if isinstance(line, float):
                if self.closing.wait(line):
                    return
            elif isinstance(line, Hold):
                self.closing.wait(300)
            elif isinstance(line, Until):
                while not line.seen.wait(0.05):
                    if self.closing.is_set():
                        return
            elif isinstance(line, Cut):
                return
            else:
                data = (b"" if line == PULSE else json.dumps(line).encode()) + b"\n"
                connection.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        connection.sendall(b"0\r\n\r\n")


class Exec:
    """The agent's end of an exec WebSocket: a callable that talks to the client."""

    def __init__(self, talk: Any) -> None:
        self.talk = talk

    def serve(
        self, fake: FakeController, connection: socket.socket, headers: dict[str, str]
    ) -> None:
        guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(
            hashlib.sha1((headers["sec-websocket-key"] + guid).encode()).digest()
        ).decode()
        connection.sendall(
            f"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        self.connection, self.fake = connection, fake
        self.buffer = b""
        self.talk(self)

    def read(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next client frame; it must be masked."""
        head = self._exactly(2)
        assert head[1] & 0x80, "client frames must be masked"
        size = head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(self._exactly(2 if size == 126 else 8), "big")
        key = self._exactly(4)
        data = bytes(b ^ key[i % 4] for i, b in enumerate(self._exactly(size)))
        self.fake.frames.append((head[0] & 15, data))
        return head[0] & 15, data

    def _exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            part = self.connection.recv(65536)
            if not part:
                raise OSError("gone")
            self.buffer += part
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def send(
        self, data: bytes | dict[str, Any], *, final: bool = True, kind: int | None = None
    ) -> None:
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        opcode = kind if kind is not None else 2 if isinstance(data, bytes) else 1
        size = len(payload)
        head = bytes([(0x80 if final else 0) | opcode])
        if size < 126:
            head += bytes([size])
        elif size < 65536:
            head += bytes([126]) + size.to_bytes(2, "big")
        else:
            head += bytes([127]) + size.to_bytes(8, "big")
        self.connection.sendall(head + payload)
