"""Hold a bound socket for every port this node publishes, so that nobody else can have it.

DNAT happens before any socket sees a packet: without the socket a published
port would silently take over a daemon's. Binding fails instead, and the port
is withheld from the ruleset and named. The sockets never listen or read.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from specs.kit.errnos import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.network.rules import PortKey

_KINDS = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_SEQPACKET, 132),
}


class PortSockets:
    """The ports this node holds, and what to tell about those it could not get."""

    def __init__(self) -> None:
        self._held: dict[PortKey, socket.socket] = {}
        self.refused: dict[PortKey, str] = {}
        self._elsewhere: set[PortKey] = set()  # of addresses this machine does not have

    def decided(self, key: PortKey) -> bool:
        """Say whether the port has been tried: it is held, or ``refused`` says why not."""
        return key in self._held or key in self.refused

    @property
    def warnings(self) -> list[str]:
        """Return what to tell people; that an address is another node's is no fault here."""
        return [text for key, text in self.refused.items() if key not in self._elsewhere]

    def hold(self, wanted: Iterable[PortKey]) -> frozenset[PortKey]:
        """Hold exactly these; return those that cannot be had (see ``refused``)."""
        keys = set(wanted)
        self.release(self._held.keys() - keys)
        self.refused, self._elsewhere = {}, set()
        for key in sorted(keys - self._held.keys(), key=str):
            try:
                self._held[key] = _bind(key)
            except OSError as error:
                self.refused[key] = explain(key, error)
                if error.errno == errno.EADDRNOTAVAIL:
                    self._elsewhere.add(key)
        return frozenset(self.refused)

    def check(self, keys: Iterable[PortKey]) -> list[str]:
        """Return a sentence for each of these ports that could not be had now."""
        found = []
        for key in keys:
            if key in self._held:
                continue
            try:
                _bind(key).close()
            except OSError as error:
                found.append(explain(key, error))
        return found

    def release(self, keys: Iterable[PortKey]) -> None:
        """Give ports back."""
        for key in list(keys):
            made = self._held.pop(key, None)
            if made is not None:
                made.close()

    def close(self) -> None:
        """Give all back."""
        self.release(list(self._held))


def _bind(key: PortKey) -> socket.socket:
    if ":" in key.host_ip:
        raise OSError(errno.EAFNOSUPPORT, "IPv6")
    kind, protocol = _KINDS[key.protocol]
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC, protocol)
    if kind == socket.SOCK_DGRAM:
        # Nobody reads it: broadcasts that reach it must not pile up.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    try:
        where = (key.host_ip or "0.0.0.0", key.published)
        try:
            made.bind(where)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or key.protocol != "tcp":
                raise
            # Connections of a former owner in TIME_WAIT also say "in use"; with SO_REUSEADDR
            # only a socket that listens does.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(where)
    except OSError:
        made.close()
        raise
    return made


def explain(key: PortKey, error: OSError) -> str:
    """Return why the port cannot be published here, for users."""
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"port {key} is in use by another program on this node; "
                "stop it or publish another port"
            )
        case errno.EADDRNOTAVAIL:
            return (
                f"port {key}: this node has no address {key.host_ip}, so it does not answer there"
            )
        case errno.EAFNOSUPPORT:
            return (
                f"port {key}: publishing on an IPv6 address is not supported yet; "
                "leave the address out or give an IPv4 one"
            )
        case errno.EACCES:
            return f"port {key} may not be bound: the agent lacks the right to (run it as root)"
        case _:
            return f"port {key} cannot be bound: {in_words(error)}"
