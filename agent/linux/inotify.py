"""Wake up when something in a directory changes: what log followers wait for.

One inotify instance for all watches, read by the event loop. A missed or coalesced
event is harmless: waiters look again by themselves after a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from typing import TYPE_CHECKING

from agent.linux import calls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_IN_MODIFY, _IN_CREATE, _IN_MOVED_TO, _IN_DELETE_SELF = 0x2, 0x100, 0x80, 0x400
_HEADER = struct.Struct("iIII")


class Inotify:
    """Hands out events per watched directory."""

    def __init__(self) -> None:
        self._fd = -1
        self._waiting: dict[int, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watch(self, directory: Path) -> Iterator[asyncio.Event]:
        """Return an event that is set when something in ``directory`` changed."""
        event = asyncio.Event()
        number = self._add(directory)
        self._waiting.setdefault(number, set()).add(event)
        try:
            yield event
        finally:
            events = self._waiting.get(number, set())
            events.discard(event)
            if not events and self._waiting.pop(number, None) is not None and number >= 0:
                with contextlib.suppress(OSError):  # the directory went, and its watch with it
                    calls.inotify_forget(self._fd, number)

    def _add(self, directory: Path) -> int:
        """Return the watch's number; -1 when the kernel's limit is reached (waiters poll then)."""
        mask = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO | _IN_DELETE_SELF
        try:
            if self._fd < 0:
                self._fd = calls.inotify_open()
                asyncio.get_running_loop().add_reader(self._fd, self._read)
            return calls.inotify_watch(self._fd, str(directory), mask)
        except OSError:
            return -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return
        at = 0
        while at < len(data):
            number, _, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size + length
            for event in self._waiting.get(number, ()):
                event.set()

    def close(self) -> None:
        """Stop watching."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
