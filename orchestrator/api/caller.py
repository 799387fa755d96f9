"""Who asks: the kernel's word for the process at the other end of a unix socket.

Over ssh that is the sshd of the login, which runs as the remote user. What a request says of
itself is taken for the rest (where it ran, what for), never for who it was. Releases and events
have it from here, and from nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import pwd
import socket
import struct
from functools import lru_cache
from typing import TYPE_CHECKING

from aiohttp import web

from specs.kit.log import ASKED_BY
from specs.made_by import ASKER, MadeBy

if TYPE_CHECKING:
    from specs.made_by import MadeKind

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)
NAMING = 2.0  # seconds a directory service has for a name; then it is the number
_BY = web.RequestKey("asked_by", MadeBy)  # of a request: who sent it


async def note(request: web.Request) -> None:
    """Take note of who sends what is to change something: what comes of it is said to be his."""
    uid = uid_of(request)
    name = ""
    if uid is not None:
        # A directory service may take its time, which is not the loop's.
        with contextlib.suppress(TimeoutError):
            name = await asyncio.wait_for(asyncio.to_thread(name_of, uid), NAMING)
    by = request[_BY] = MadeBy.asker(request.headers.get(ASKER, ""), name, uid)
    ASKED_BY.set(by.who)


def made_by(request: web.Request, said: MadeBy, kind: MadeKind) -> MadeBy:
    """Return who makes a release by this request, with what he ``said`` of it."""
    by = said.asked_by(kind, request[_BY])
    ASKED_BY.set(by.who)  # a body may name the machine where no header does
    return by


def uid_of(request: web.Request) -> int | None:
    """Return the user at the other end; None where the kernel does not know him."""
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return None
    _, uid, _ = _CREDENTIALS.unpack(data)
    return int(uid) if uid >= 0 else None


@lru_cache(maxsize=256)
def name_of(uid: int) -> str:
    """Return the user's name on this machine, or "" where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return ""
