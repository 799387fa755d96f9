"""The resolver of every container on the node: one process, one epoll loop, no threads.

The agent makes the sockets in the containers' namespaces and passes them here
(agent.network.resolver), so this process needs no rights and never enters a
namespace; it holds them while the agent restarts, and the agent holds copies
while this restarts. Questions come from a socket that exists only inside one
container, so who asks cannot be forged. Stdlib only: it stays small.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import socket
import struct
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.dns import forward, message
from agent.dns.answers import own_answer
from agent.dns.zone import Zones

if TYPE_CHECKING:
    from collections.abc import Callable


def code_version() -> int:
    """Return a number that differs when this package's code does."""
    total = 0
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total = zlib.crc32(path.read_bytes(), total)
    return total


VERSION = code_version()  # a process of another version hands its sockets over and leaves
_BURST = 32  # questions taken from one container before the others get their turn
_CACHE = 8192
_TCP_PER_TASK = 32
_TCP_IDLE = 10.0
_MAX_CONTROL = 60000


@dataclass
class Listener:
    """The two sockets of one task."""

    task: str
    udp: socket.socket
    tcp: socket.socket
    clients: int = 0
    waiting: int = 0


@dataclass
class TcpClient:
    """One TCP connection from a container."""

    listener: Listener
    link: socket.socket
    deadline: float
    received: bytes = b""
    out: bytes = b""


@dataclass
class Counters:
    """Figures for `stats`."""

    answered: int = 0
    forwarded: int = 0
    refused: int = 0
    failed: int = 0


@dataclass
class ResolverServer:
    """Everything the process holds."""

    control: socket.socket
    zones: Zones = field(default_factory=Zones)

    def __post_init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, Listener] = {}
        self._pending: dict[int, forward.Forwarded] = {}
        self._clients: dict[int, TcpClient] = {}
        self._cache: dict[tuple[str, bytes, int], bytes] = {}
        self._random = random.Random(os.urandom(16))  # noqa: S311 - it only spreads load
        self._counters = Counters()
        self._snapshot = 0
        self._stopping = False
        self._watch(self.control, self._accept_control)

    # --- loop ---

    def run(self) -> None:
        """Serve until told to quit."""
        while not self._stopping:
            for key, events in self._selector.select(self._timeout()):
                callback: Callable[[int], None] = key.data
                callback(events)
            self._expire(time.monotonic())

    def _watch(self, link: socket.socket, callback: Callable[[int], None], events: int = 1) -> None:
        self._selector.register(link, events, callback)

    def _timeout(self) -> float | None:
        moments = [p.next_event for p in self._pending.values()]
        moments += [c.deadline for c in self._clients.values()]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    # --- questions ---

    def _on_udp(self, listener: Listener) -> None:
        for _ in range(_BURST):
            try:
                data, address = listener.udp.recvfrom(4096)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                return

            def reply(out: bytes, address: Any = address) -> None:
                with suppress(OSError):
                    listener.udp.sendto(out, address)

            self._ask(listener, data, reply, over_tcp=False)

    def _ask(
        self, listener: Listener, data: bytes, reply: Callable[[bytes], None], *, over_tcp: bool
    ) -> None:
        # The id is the only part of equal questions that differs.
        key = (listener.task, data[2:], over_tcp)
        known = self._cache.get(key)
        if known is not None:
            self._counters.answered += 1
            reply(data[:2] + known)
            return
        try:
            query = message.parse_query(data)
        except message.Malformed as error:
            refusal = message.refusal(data, message.FORMERR) if error.answerable else None
            if refusal:
                reply(refusal)
            return
        if query.opcode != 0:
            reply(message.failure(query, message.NOTIMP))
            return
        if query.klass != message.IN:
            reply(message.failure(query, message.REFUSED))
            return
        limit = None if over_tcp else query.size
        out, cacheable = own_answer(self.zones, listener.task, query, limit, self._random)
        if out is not None:
            self._counters.answered += 1
            if cacheable:
                if len(self._cache) >= _CACHE:
                    self._cache.clear()
                self._cache[key] = out[2:]
            reply(out)
            return
        self._forward(listener, query, data, reply, over_tcp=over_tcp)

    # --- upstream ---

    def _forward(
        self,
        listener: Listener,
        query: message.Query,
        data: bytes,
        reply: Callable[[bytes], None],
        *,
        over_tcp: bool,
    ) -> None:
        view = self.zones.views[listener.task]
        busy = (
            len(self._pending) >= forward.IN_FLIGHT
            or listener.waiting >= forward.IN_FLIGHT_PER_TASK
        )
        if busy or not view.upstreams:
            self._counters.refused += 1
            reply(message.failure(query, message.SERVFAIL))
            return
        now = time.monotonic()
        pending = forward.Forwarded(
            task=listener.task,
            query=query,
            data=data,
            reply=reply,
            over_tcp=over_tcp,
            upstreams=view.upstreams,
            deadline=now + forward.TOTAL,
        )
        self._counters.forwarded += 1
        listener.waiting += 1
        self._try(pending, now)

    def _try(self, pending: forward.Forwarded, now: float, *, stream: bool = False) -> None:
        self._unwatch(pending)
        if not forward.start(pending, now, stream=stream):
            self._give_up(pending)
            return
        assert pending.socket is not None
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if stream else 0)
        self._pending[pending.socket.fileno()] = pending
        self._watch(pending.socket, lambda e: self._on_upstream(pending, e), events)

    def _on_upstream(self, pending: forward.Forwarded, events: int) -> None:
        try:
            writable = bool(events & selectors.EVENT_WRITE)
            answer = forward.on_ready(pending, writable=writable)
        except BlockingIOError:
            return
        except OSError:
            # This server is of no use (refused, unreachable): the next one, at once.
            if pending.attempt < 2 * len(pending.upstreams):
                self._try(pending, time.monotonic(), stream=pending.stream)
            else:
                self._give_up(pending)
            return
        if answer is None:
            if pending.stream and not pending.out and pending.socket is not None:
                callback = self._selector.get_key(pending.socket).data
                self._selector.modify(pending.socket, selectors.EVENT_READ, callback)
            return
        if message.truncated(answer) and pending.over_tcp and not pending.stream:
            pending.attempt -= 1
            self._try(pending, time.monotonic(), stream=True)
            return
        self._finish(pending, answer)

    def _give_up(self, pending: forward.Forwarded) -> None:
        self._counters.failed += 1
        self._finish(pending, message.failure(pending.query, message.SERVFAIL))

    def _finish(self, pending: forward.Forwarded, answer: bytes) -> None:
        self._unwatch(pending)
        forward.close(pending)
        listener = self._listeners.get(pending.task)
        if listener:
            listener.waiting = max(0, listener.waiting - 1)
        pending.reply(answer)

    def _unwatch(self, pending: forward.Forwarded) -> None:
        if pending.socket is not None:
            self._pending.pop(pending.socket.fileno(), None)
            with suppress(KeyError, ValueError):
                self._selector.unregister(pending.socket)

    def _expire(self, now: float) -> None:
        for pending in [p for p in self._pending.values() if p.next_event <= now]:
            if pending.deadline <= now:
                self._give_up(pending)
            else:
                self._try(pending, now, stream=pending.stream)
        for client in [c for c in self._clients.values() if c.deadline <= now]:
            self._drop_client(client)

    # --- TCP clients ---

    def _on_tcp(self, listener: Listener) -> None:
        try:
            link, _ = listener.tcp.accept()
        except OSError:
            return
        if listener.clients >= _TCP_PER_TASK:
            link.close()
            return
        link.settimeout(0)
        listener.clients += 1
        client = TcpClient(listener, link, time.monotonic() + _TCP_IDLE)
        self._clients[link.fileno()] = client
        self._watch(link, lambda events: self._on_client(client, events))

    def _on_client(self, client: TcpClient, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(client)
            return
        try:
            chunk = client.link.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._drop_client(client)
            return
        client.deadline = time.monotonic() + _TCP_IDLE
        client.received += chunk
        while len(client.received) >= 2:
            length = struct.unpack_from("!H", client.received)[0]
            if len(client.received) < 2 + length:
                break
            data = client.received[2 : 2 + length]
            client.received = client.received[2 + length :]
            self._ask(client.listener, data, lambda out: self._send(client, out), over_tcp=True)

    def _send(self, client: TcpClient, out: bytes) -> None:
        if client.link.fileno() < 0:
            return  # it went away while we asked upstream
        client.out += struct.pack("!H", len(out)) + out
        self._flush(client)

    def _flush(self, client: TcpClient) -> None:
        try:
            sent = client.link.send(client.out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop_client(client)
            return
        client.out = client.out[sent:]
        if len(client.out) > 1 << 18:  # it asks and does not read
            self._drop_client(client)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.out else 0)
        with suppress(KeyError, ValueError):
            key = self._selector.get_key(client.link)
            self._selector.modify(client.link, events, key.data)

    def _drop_client(self, client: TcpClient) -> None:
        if self._clients.pop(client.link.fileno(), None) is not None:
            client.listener.clients -= 1
            with suppress(KeyError, ValueError):
                self._selector.unregister(client.link)
        client.link.close()

    # --- the agent ---

    def _accept_control(self, _events: int) -> None:
        try:
            link, _ = self.control.accept()
        except OSError:
            return
        link.settimeout(2.0)  # the agent reads what it asked for; never let it block us
        self._watch(link, lambda _: self._on_control(link))

    def _on_control(self, link: socket.socket) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(link, _MAX_CONTROL, 8)
        except OSError:
            data, fds = b"", []
        if not data:
            self._selector.unregister(link)
            link.close()
            return
        lent: list[int] = []
        try:
            request = json.loads(data)
            answer, lent = self._command(request, fds)
        except (ValueError, KeyError, TypeError, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
            for fd in fds:
                with suppress(OSError):
                    os.close(fd)
        try:
            socket.send_fds(link, [json.dumps(answer).encode()], lent)
        except OSError:
            with suppress(KeyError, ValueError):
                self._selector.unregister(link)
            link.close()

    def _command(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        operations: dict[str, Callable[[], dict[str, Any]]] = {
            "hello": lambda: {"version": VERSION, "pid": os.getpid()},
            "load": lambda: self._load(fds[0]),
            "hold": lambda: self._hold(str(request["task"]), fds),
            "drop": lambda: self._drop_all(request["tasks"]),
            "held": lambda: {"tasks": sorted(self._listeners)},
            "stats": lambda: {**vars(self._counters), "in_flight": len(self._pending)},
            "quit": self._quit,
        }
        if request["op"] == "lend":
            listener = self._listeners[request["task"]]
            return {}, [listener.udp.fileno(), listener.tcp.fileno()]
        return operations[request["op"]](), []

    def _load(self, descriptor: int) -> dict[str, Any]:
        with os.fdopen(descriptor, "rb") as file:
            data = json.load(file)
        # A change to a snapshot we do not have is not taken: the agent then sends all of it.
        if not data.get("patch") or data["after"] == self._snapshot:
            self.zones.load(data)
            self._snapshot = int(data["number"])
            self._cache.clear()
        return {"snapshot": self._snapshot}

    def _quit(self) -> dict[str, Any]:
        self._stopping = True
        return {}

    def _drop_all(self, tasks: list[str]) -> dict[str, Any]:
        for task in tasks:
            self._drop(task)
        return {}

    def _hold(self, task: str, fds: list[int]) -> dict[str, Any]:
        self._drop(task)
        udp, tcp = (socket.socket(fileno=fd) for fd in fds)
        for link in (udp, tcp):
            link.settimeout(0)
        listener = Listener(task, udp, tcp)
        self._listeners[task] = listener
        self._watch(udp, lambda _: self._on_udp(listener))
        self._watch(tcp, lambda _: self._on_tcp(listener))
        return {}

    def _drop(self, task: str) -> None:
        listener = self._listeners.pop(task, None)
        if listener is None:
            return
        for client in [c for c in self._clients.values() if c.listener is listener]:
            self._drop_client(client)
        for link in (listener.udp, listener.tcp):
            self._selector.unregister(link)
            link.close()
        for key in [key for key in self._cache if key[0] == task]:
            del self._cache[key]
