"""Which ports of the machine sockets are bound to, asked of the kernel by sock_diag(7).

/proc/net/tcp goes through every slot of the machine's table of connections, whose size goes with
its memory: 5 ms of processor time on one of 24 GB, and the same again for IPv6. This goes
through those that listen. A kernel without the module says so, and /proc is there for it.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from agent.linux.netlink import NetlinkSocket

NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20  # linux/sock_diag.h
# linux/inet_diag.h, inet_diag_req_v2: family, protocol, extensions, padding, states, no socket
_REQUEST: Final = struct.Struct("=BBBBI48x")
_PORT: Final = struct.Struct("!4xH")  # of inet_diag_msg: family, state, timer, retransmits, port
_INODE: Final = struct.Struct("=68xI")
# linux/tcp_states.h; an unconnected UDP socket is "closed".
LISTEN, CLOSE = 10, 7
STATES: Final = {socket.IPPROTO_TCP: LISTEN, socket.IPPROTO_UDP: CLOSE}


def held(family: int, protocol: int) -> list[tuple[int, str]]:
    """Return port and inode of each socket that takes what anybody sends. Raises OSError."""
    question = _REQUEST.pack(family, protocol, 0, 0, 1 << STATES[protocol])
    with NetlinkSocket(NETLINK_SOCK_DIAG) as link:
        found = link.dump(_SOCK_DIAG_BY_FAMILY, question)
    return [(_PORT.unpack_from(one)[0], str(_INODE.unpack_from(one)[0])) for one in found]
