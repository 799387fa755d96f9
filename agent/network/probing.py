"""Ask every peer's kernel for an echo over the overlay, from one socket. Decisions are reach.py's.

A peer in doubt that accepts connections from here has answered as well (handshakes.py).

A raw ICMP socket that only sees echo replies, bound to the overlay device. The agent's event
loop looks at it every tick; a look is a handful of system calls and never waits.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.network import names, reach
from agent.network.handshakes import Handshakes
from agent.network.knocking import Knocks
from agent.network.reach import History
from specs.kit import disk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TICK = 0.25  # seconds between two looks
_SOL_RAW, _ICMP_FILTER = 255, 1  # linux/socket.h, linux/icmp.h
_ECHO, _ECHO_REPLY = 8, 0
_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, id, sequence
_MOST = 1024  # replies read in one look
NOBODY: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    return ~total & 0xFFFF


def echo(ident: int, sequence: int) -> bytes:
    """Return an echo request."""
    body = _HEADER.pack(_ECHO, 0, 0, ident, sequence)
    return _HEADER.pack(_ECHO, 0, checksum(body), ident, sequence)


def replied(packet: bytes) -> int | None:
    """Return the id of an echo reply, given with its IP header; None for anything else."""
    if len(packet) < 20:
        return None
    start = (packet[0] & 0xF) * 4
    if len(packet) < start + _HEADER.size:
        return None
    kind, _, _, ident, _ = _HEADER.unpack_from(packet, start)
    return int(ident) if kind == _ECHO_REPLY else None


@dataclass
class PeerProbes:
    """What this node found out about its peers by asking them.

    Who has answered once is kept in a file on tmpfs: a peer that dies while the agent is away is
    missed all the same.
    """

    path: Path
    histories: dict[str, History] = field(default_factory=dict)
    _overlays: dict[str, str] = field(default_factory=dict)
    _known: dict[str, str] | None = None  # as it is in the file
    _link: socket.socket | None = None
    _handshakes: Handshakes = field(default_factory=Handshakes)
    _knocks: Knocks = field(default_factory=Knocks)
    _source: str = ""
    _ident: int = field(default_factory=lambda: int.from_bytes(os.urandom(2), "big"))
    _sequence: int = 0

    def meet(
        self,
        source: str,
        peers: Mapping[str, str],
        tasks: Mapping[str, tuple[str, ...]] = NOBODY,
    ) -> None:
        """Take note of the peers (node -> overlay address) and of the own overlay address.

        ``tasks``: node -> addresses of its tasks that are ready.
        """
        self._knocks.meet({node: found for node, found in tasks.items() if node in peers})
        if source != self._source:
            self.close()
            self._source = source
        if peers == self._overlays:
            return
        before = self._remembered() if self._known is None else self._known
        kept = {
            node: self.histories.get(node, History(known=True))
            for node, overlay in peers.items()
            if before.get(node) == overlay or self._overlays.get(node) == overlay
        }
        self._overlays = dict(peers)
        self.histories = {node: kept.get(node, History()) for node in peers}
        self._known = before
        self._remember()

    def _remembered(self) -> dict[str, str]:
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        known = found.items() if isinstance(found, dict) else ()
        return {str(node): str(overlay) for node, overlay in known}

    def _remember(self) -> None:
        known = {n: self._overlays[n] for n, history in self.histories.items() if history.known}
        if known == self._known:
            return
        self._known = known
        with suppress(OSError):  # it is known all the same until the agent ends
            self.path.parent.mkdir(parents=True, exist_ok=True)
            disk.write_file(self.path, json.dumps(known).encode(), durable=False)

    def forget(self) -> None:
        """Forget everybody: the node leaves."""
        self.close()
        self.histories, self._overlays, self._known = {}, {}, None
        self.path.unlink(missing_ok=True)

    def look(self, now: float) -> frozenset[str]:
        """Read what came, ask whom it is time to ask, and return who cannot be reached."""
        if not self._source or not self._overlays:
            self.close()
            return frozenset()
        if self._link is None and not self._open():
            return self._unreachable()
        self._receive(now)
        doubts = {n for n, h in self.histories.items() if reach.in_doubt(h, now)}
        either = doubts | self._knocks.doubtful(now)
        passed = self._handshakes.heard({n: self._overlays[n] for n in either})
        for node in passed & doubts:
            self.histories[node] = reach.answered(self.histories[node], now)
        self._knocks.look(self._source, now, frozenset(passed))
        self._remember()
        self.histories = {n: reach.judged(h, now) for n, h in self.histories.items()}
        for node in reach.due(self.histories, now):
            if self._send(self._overlays[node]):
                self.histories[node] = reach.sent(self.histories[node], now)
        return self._unreachable()

    def _unreachable(self) -> frozenset[str]:
        return reach.unreachable(reach.together(self.histories, self._knocks.histories))

    def pause(self, now: float) -> float:
        """Return the seconds until the next look."""
        doubt = any(reach.in_doubt(history, now) for history in self.histories.values())
        return reach.HURRY if doubt or self._knocks.doubtful(now) else TICK

    def _open(self) -> bool:
        link = socket.socket(
            socket.AF_INET,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            socket.IPPROTO_ICMP,
        )
        try:
            everything_but = ~(1 << _ECHO_REPLY) & 0xFFFFFFFF
            link.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", everything_but))
            link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, names.VXLAN.encode())
            link.bind((self._source, 0))
        except OSError:  # the device or its address is not there (yet)
            link.close()
            return False
        self._link = link
        return True

    def _receive(self, now: float) -> None:
        assert self._link is not None
        by_overlay = {overlay: node for node, overlay in self._overlays.items()}
        for _ in range(_MOST):
            try:
                packet, (sender, _) = self._link.recvfrom(256)
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            node = by_overlay.get(sender)
            if node is not None and replied(packet) == self._ident:
                self.histories[node] = reach.answered(self.histories[node], now)

    def _send(self, overlay: str) -> bool:
        """Ask one peer; False where the question did not leave this node."""
        if self._link is None:
            return False
        self._sequence = (self._sequence + 1) & 0xFFFF
        try:
            self._link.sendto(echo(self._ident, self._sequence), (overlay, 0))
        except BlockingIOError:
            return False
        except OSError:  # no route, no device: that says nothing about the peer
            self.close()
            return False
        return True

    def close(self) -> None:
        """Let go of the sockets."""
        self._handshakes.close()
        self._knocks.close()
        if self._link is not None:
            with suppress(OSError):
                self._link.close()
            self._link = None
