"""Knock at containers of every peer, to see whether TCP comes through to them, both ways.

An echo (probing.py) is answered by the peer's own kernel. What containers say to each other may
be lost all the same: a firewall on the peer that drops what is forwarded, a path that loses some
kinds of packet. So a few tasks of each peer that are ready are asked for a connection to a port
where nobody listens: a refusal is as good an answer as any, it came from inside the container's
own namespace. Tasks that never answered say nothing (a container may drop what it likes), and
while one of several answers the peer is fine. Judged as echoes are, by reach.py.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from agent.network import reach
from agent.network.reach import History

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PORT = 9  # discard; where somebody does listen, that is an answer as well
TASKS = 4  # of a peer that are asked in turn
ANSWER = 3.0  # seconds an answer may take: lines across the world, and busy machines
_UNDER_WAY = 32  # connections to one peer at once: as many as that time has room for in a hurry
_RESET = struct.pack("=ii", 1, 0)  # SO_LINGER: no waiting on either side
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h


def begin(source: str, address: str) -> socket.socket | None:
    """Begin a connection and return its socket; None where it did not leave this node."""
    link = socket.socket(
        socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        link.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        link.bind((source, 0))
        found = link.connect_ex((address, PORT))
    except OSError:
        found = errno.EADDRNOTAVAIL
    if found not in (0, errno.EINPROGRESS):
        link.close()
        return None
    return link


def answer(link: socket.socket) -> bool | None:
    """Say whether the other side answered a connection; None = nothing has come yet."""
    error = link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        return error == errno.ECONNREFUSED
    try:
        link.getpeername()
    except OSError:
        return None
    return True


class _Knock(NamedTuple):
    address: str
    link: socket.socket
    at: float


@dataclass
class _Peer:
    tasks: tuple[str, ...] = ()  # their addresses
    proved: set[str] = field(default_factory=set)  # those that answered once
    turn: int = 0
    links: list[_Knock] = field(default_factory=list)  # oldest first


@dataclass
class Knocks:
    """What became of the connections to each peer's tasks."""

    open: Callable[[str, str], socket.socket | None] = begin
    heard: Callable[[socket.socket], bool | None] = answer
    histories: dict[str, History] = field(default_factory=dict)
    _peers: dict[str, _Peer] = field(default_factory=dict)

    def meet(self, tasks: Mapping[str, tuple[str, ...]]) -> None:
        """Take note of the tasks (node -> addresses) that are ready on each peer."""
        for node in self._peers.keys() - tasks.keys():
            self._end(self._peers.pop(node))
            del self.histories[node]
        for node, addresses in tasks.items():
            peer = self._peers.setdefault(node, _Peer())
            kept = peer.proved & set(addresses)
            if not kept:
                # Nobody is left of whom an answer can be expected.
                self.histories[node] = History()
            # Who answered before is asked first: the others may never do.
            peer.tasks = tuple(sorted(addresses, key=lambda one: (one not in kept, one)))[:TASKS]
            peer.proved = kept

    def look(self, source: str, now: float, passed: frozenset[str]) -> None:
        """Hear what came, and knock where it is time to; ``passed``: peers heard otherwise."""
        for node, peer in self._peers.items():
            self._hear(node, peer, now)
            if node in passed and self.histories[node].known:
                self.histories[node] = reach.answered(self.histories[node], now)
        self.histories = {n: reach.judged(h, now) for n, h in self.histories.items()}
        for node in reach.due(self.histories, now):
            peer = self._peers[node]
            address = peer.tasks[peer.turn % len(peer.tasks)]
            peer.turn += 1
            if (link := self.open(source, address)) is None:
                continue  # that says nothing about the peer
            peer.links.append(_Knock(address, link, now))
            while len(peer.links) > _UNDER_WAY or peer.links[0].at < now - ANSWER:
                peer.links.pop(0).link.close()
            if address in peer.proved:
                self.histories[node] = reach.sent(self.histories[node], now)
            else:
                self.histories[node] = reach.asked(self.histories[node], now)

    def _hear(self, node: str, peer: _Peer, now: float) -> None:
        left = []
        for knock in peer.links:
            found = self.heard(knock.link)
            if found is None:
                left.append(knock)
                continue
            knock.link.close()
            if found:
                peer.proved.add(knock.address)
                self.histories[node] = reach.answered(self.histories[node], now)
        peer.links = left

    def doubtful(self, now: float) -> frozenset[str]:
        """Return the peers whose answer is overdue."""
        return frozenset(n for n, h in self.histories.items() if reach.in_doubt(h, now))

    def _end(self, peer: _Peer) -> None:
        for knock in peer.links:
            with suppress(OSError):
                knock.link.close()
        peer.links = []

    def close(self) -> None:
        """Let go of the sockets."""
        for peer in self._peers.values():
            self._end(peer)
