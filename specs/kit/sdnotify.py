"""Tell systemd how a daemon is doing: sd_notify(3) without its library.

Does nothing where there is no systemd, so daemons call it unconditionally.
"""

from __future__ import annotations

import contextlib
import os
import socket


def notify(message: str, *, wait: bool = True) -> None:
    """Send e.g. ``READY=1`` or ``STATUS=...`` to the service manager, if there is one.

    Without ``wait`` what it has no room for is dropped: one that reads nothing holds nobody up.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.sendto(message.encode(), 0 if wait else socket.MSG_DONTWAIT, address)
