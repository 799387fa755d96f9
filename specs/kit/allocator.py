"""Keep a daemon's memory near what it uses, and its start short: libc's allocator and Python's.

Both daemons call :func:`frugal` first thing, and import the rest :func:`uncollected` and
:func:`without_authorities`. Where the C library has no mallopt(3) (musl), nothing happens; that
is why it asks libc itself and not through the agent's calls (agent/linux/calls.py), which raise.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_THRESHOLD = 128 * 1024
_ARENAS = 2


def frugal() -> None:
    """Return large buffers to the kernel when they are freed, and share the threads' arenas.

    By default the first freed large buffer raises the limit above which buffers are mapped
    by themselves, and from then on they leave holes in the heap; and each of our dozen
    threads gets an arena of its own, which is never given back.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
    mallopt(_M_ARENA_MAX, _ARENAS)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Make what lives as long as the process, without the cyclic collector looking at it.

    It would look ten times at ever more modules and models while they are imported, and find
    nothing: 0.3 of an agent's 0.85 s.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def without_authorities() -> Iterator[None]:
    """Import aiohttp without the machine's list of certificate authorities.

    It reads all of them, twice, for HTTPS to anybody: 0.12 of an agent's 0.53 s. The daemons
    speak TLS to each other only, by the cluster's own authority. A list that was given to us
    (and by us to skopeo) stays.
    """
    if "SSL_CERT_FILE" in os.environ:
        yield
        return
    os.environ["SSL_CERT_FILE"] = os.devnull
    try:
        yield
    finally:
        del os.environ["SSL_CERT_FILE"]
