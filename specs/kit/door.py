"""A daemon's door: the unix socket that only root and one group may open, and keeping it there.

A tidy-up of /run must not leave a daemon that lives, holds its lock and answers nobody: the
path is opened again when somebody deleted it. Used by orchestrator.api.app and
agent.daemon for their servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import socket
from typing import TYPE_CHECKING

from specs.kit.room import lacks_room

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import NoReturn

log = logging.getLogger(__name__)

GROUP = "corral"  # who may use the daemons besides root
EVERY = 1.0  # seconds between two looks: one stat each


def listen(path: Path, group: str = GROUP) -> socket.socket:
    """Return a listening unix socket that appears at ``path`` complete: owner and mode too.

    It is bound under another name and renamed, so that clients never meet a closed door
    while a daemon is replaced. The caller holds the lock that says no other one lives.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        return _listen(path, group)
    except OSError as error:
        if not lacks_room(error) or not path.is_socket():
            raise
        # A full /run: the name of the dead one's socket is all the room there is.
        path.unlink()
        return _listen(path, group)


def _listen(path: Path, group: str) -> socket.socket:
    temporary = path.with_name(f".{path.name}.new")  # what a kill leaves is taken over
    temporary.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mask = os.umask(0o177)
        try:
            # Through a descriptor: a socket's own path ends at 108 bytes, a directory's does not.
            here = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                server.bind(f"/proc/self/fd/{here}/{temporary.name}")
            finally:
                os.close(here)
        finally:
            os.umask(mask)
        with contextlib.suppress(KeyError):  # no such group: root only
            os.chown(temporary, -1, grp.getgrnam(group).gr_gid)
        temporary.chmod(0o660)
        server.listen(128)
        server.settimeout(0)
        temporary.rename(path)
    except BaseException:
        server.close()
        temporary.unlink(missing_ok=True)
        raise
    return server


class Door:
    """The server at a path: opened anew as often as need be; what is connected stays so."""

    def __init__(
        self,
        protocol: Callable[[], asyncio.BaseProtocol],
        path: Path,
        *,
        group: str = GROUP,
        backlog: int = 100,
    ) -> None:
        self._protocol = protocol
        self._path = path
        self._group = group
        self._backlog = backlog
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen at the path. Raises OSError."""
        loop = asyncio.get_running_loop()
        sock = listen(self._path, self._group)
        old = self._server
        self._server = await loop.create_server(self._protocol, sock=sock, backlog=self._backlog)
        if old is not None:
            old.close()

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()


async def keep_open(path: Path, reopen: Callable[[], Awaitable[None]]) -> NoReturn:
    """Call ``reopen`` whenever nothing is at ``path``.

    What another process has put there is left alone: it replaces us.
    """
    while True:
        await asyncio.sleep(EVERY)
        if path.exists():
            continue
        try:
            await reopen()
        except OSError as error:
            log.warning(
                "the deleted socket cannot be opened again",
                extra={"socket": str(path), "why": str(error)},
            )
        else:
            log.warning("the socket had been deleted; opened again", extra={"socket": str(path)})
