"""Hear which peers accept connections: what passes anyway says more than an echo.

A peer whose echoes are eaten, by a firewall that came later or a limit on ICMP, is not gone while
it accepts connections from here. Listened to only while a peer is in doubt (probing.py), by a
packet socket on the overlay device whose filter lets SYN-ACKs alone pass: such an answer proves
both directions, which no other packet does (a peer that hears us no more still sends).
"""

from __future__ import annotations

import ctypes
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.network import names

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 1024  # packets read in one look
_IPV4 = 0x0800
_ATTACH_FILTER = 26  # asm-generic/socket.h
# Classic BPF over the IPv4 header: TCP, no later fragment, SYN and ACK set (linux/filter.h).
_FILTER = (
    (0x30, 0, 0, 9),  # protocol
    (0x15, 0, 7, 6),  # TCP, or nothing
    (0x28, 0, 0, 6),  # fragment offset
    (0x45, 5, 0, 0x1FFF),  # none, or nothing
    (0xB1, 0, 0, 0),  # X = length of the header
    (0x50, 0, 0, 13),  # TCP flags
    (0x54, 0, 0, 0x12),
    (0x15, 0, 1, 0x12),  # SYN and ACK, or nothing
    (0x06, 0, 0, 64),
    (0x06, 0, 0, 0),
)


def attach_filter(link: socket.socket) -> None:
    """Let nothing but SYN-ACKs into the socket."""
    program = b"".join(struct.pack("=HBBI", *line) for line in _FILTER)
    kept = ctypes.create_string_buffer(program, len(program))
    argument = struct.pack("@HP", len(_FILTER), ctypes.addressof(kept))
    link.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, argument)


class Handshakes:
    """The socket; open only between the first doubt and the last."""

    def __init__(self) -> None:
        self._link: socket.socket | None = None

    def heard(self, doubtful: Mapping[str, str]) -> set[str]:
        """Return which of these peers (node -> overlay address) accepted a connection lately."""
        if not doubtful:
            self.close()
            return set()
        if self._link is None and not self._open():
            return set()
        by_mac = {
            bytes.fromhex(names.overlay_mac(overlay).replace(":", "")): node
            for node, overlay in doubtful.items()
        }
        found: set[str] = set()
        assert self._link is not None
        for _ in range(MOST):
            try:
                _, (_, _, direction, _, mac) = self._link.recvfrom(1)
            except BlockingIOError:
                break
            except OSError:
                self.close()
                break
            if direction == socket.PACKET_HOST and mac in by_mac:
                found.add(by_mac[mac])
                if len(found) == len(by_mac):
                    break
        return found

    def _open(self) -> bool:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        link = None
        try:
            link = socket.socket(socket.AF_PACKET, kind, 0)  # hears nothing before it is bound
            attach_filter(link)
            link.bind((names.VXLAN, _IPV4))
        except OSError:  # the device is not there (yet)
            if link is not None:
                link.close()
            return False
        self._link = link
        return True

    def close(self) -> None:
        """Let go of the socket."""
        if self._link is not None:
            with suppress(OSError):
                self._link.close()
            self._link = None
