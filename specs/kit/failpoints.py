"""Named places where state changes hands, at which tests end, hang or fail a daemon exactly.

``reached(name)`` stands between two effects that a kill may part. It is a look at one variable
where nothing is armed, which is always but in tests: :func:`arm` does something only when
CORRAL_FAILPOINTS names a folder at the daemon's start, and that folder is ours and closed to
everybody else (who may write there may end the daemon). docs/failpoints.md has the names and how
they are used; a test holds that page, :data:`POINTS` and the code against each other.

In the folder, each daemon looks in one of its own name (``agent``, ``controller``)::

    NAME             what is to happen there: KIND [N [SECONDS]], at the N-th time, once
    reached/NAME     made when a daemon came there first
    hit/NAME         made when it happened

The kinds: ``kill`` (SIGKILL to ourselves), ``hang`` (this thread stands still for SECONDS, 10),
``error`` (OSError EIO) and ``enospc`` (OSError ENOSPC), these two only where an effect that the
file system may refuse is next.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger(__name__)

VARIABLE = "CORRAL_FAILPOINTS"
HANG = 10.0  # seconds
# Whose they are -> the names there. Those in FALLIBLE precede an effect that may be refused.
POINTS: Mapping[str, tuple[str, ...]] = {
    "controller": (
        "api.before_txn",
        "api.after_txn_before_ack",
        "store.before_commit",
        "store.after_commit",
        "store.checkpoint",
        "store.created",
        "store.mid_migration",
        "pass.decided",
        "pass.mid",
        "pass.written",
        "secret.after_encrypt",
        "epoch.before_write",
        "epoch.after_write",
        "dispatch.before_send",
        "dispatch.after_send",
        "backup.mid",
        "backup.before_rename",
        "backup.after_rename",
        "restore.before_rename",
        "restore.after_rename",
        "node.after_login",
        "node.after_step",
        "node.after_hello",
        "node.after_record",
    ),
    "agent": (
        "cmd.received",
        "cmd.persisted",
        "cmd.before_reply",
        "epoch.noted",
        "journal.before_sync",
        "journal.after_sync",
        "journal.mid_forget",
        "record.before_write",
        "record.mid_write",
        "record.after_write",
        "image.before_rename",
        "image.before_layer",
        "image.before_record",
        "image.before_name",
        "net.after_netns",
        "net.after_veth",
        "net.after_addr",
        "net.after_dns",
        "nft.before_commit",
        "nft.after_commit",
        "dns.reload_mid",
        "fs.before_overlay_mount",
        "fs.after_overlay_mount",
        "fs.before_volume",
        "fs.after_volume",
        "fs.after_secret_tmpfs",
        "rt.after_bundle",
        "rt.after_conmon_spawn",
        "rt.after_create",
        "rt.before_record",
        "rt.after_start",
        "health.after_verdict",
        "stop.before_signal",
        "stop.after_signal",
        "stop.after_kill",
        "stop.after_delete",
        "stop.after_net_out",
        "stop.mid_cleanup",
        "stop.before_forget",
        "log.rotate_mid",
        "adopt.mid_scan",
        "adopt.after_scan",
    ),
    # In whatever writes a file that is trusted after a crash.
    "both": ("disk.before_sync", "disk.before_rename", "disk.after_rename"),
}
FALLIBLE = frozenset(
    (
        *("store.before_commit", "backup.mid", "backup.before_rename", "restore.before_rename"),
        *("epoch.noted", "journal.before_sync", "record.before_write", "record.mid_write"),
        *("image.before_rename", "image.before_layer", "image.before_record", "image.before_name"),
        *("net.after_netns", "net.after_veth", "nft.before_commit"),
        *("fs.before_overlay_mount", "fs.before_volume", "fs.after_secret_tmpfs"),
        *("rt.after_bundle", "log.rotate_mid", "stop.after_delete", "stop.mid_cleanup"),
        *("disk.before_sync", "disk.before_rename"),
    )
)

_look: Callable[[str], None] | None = None


def reached(name: str) -> None:
    """Say that this place is reached; costs nothing where no test wants to know.

    Raises OSError where a test has the next effect refused.
    """
    if _look is not None:
        _look(name)


def names_of(daemon: str) -> tuple[str, ...]:
    """Return every point a daemon may reach."""
    return (*POINTS[daemon], *POINTS["both"])


def arm(environment: Mapping[str, str], daemon: str) -> None:
    """Look at the daemon's folder from now on, if the environment names one."""
    global _look  # noqa: PLW0603 - one for the process, so that off it costs a look at it
    named = environment.get(VARIABLE, "")
    if not named:
        return
    folder = Path(named, daemon)
    if why := _unfit(Path(named)) or _unfit(folder):
        log.warning("%s is ignored: %s", VARIABLE, why)
        return
    log.warning("failpoints are on: this daemon ends where %s says so", folder)
    _look = _Folder(folder, frozenset(names_of(daemon))).look


@contextlib.contextmanager
def watched(look: Callable[[str], None]) -> Iterator[None]:
    """Have ``look`` called with each name that is reached, for tests in one process."""
    global _look  # noqa: PLW0603 - as in arm()
    before, _look = _look, look
    try:
        yield
    finally:
        _look = before


def act(kind: str, seconds: float = HANG) -> None:
    """Do what a kind says. Raises OSError for ``error`` and ``enospc``, ValueError for others."""
    match kind:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(seconds)  # of this thread, and where that is the loop's of all
        case "error":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        case "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case _:
            raise ValueError(f"{kind!r} is no kind of failure: kill, hang, error, enospc")


def _unfit(folder: Path) -> str:
    """Return why a folder cannot be trusted to say when we end."""
    try:
        there = folder.lstat()
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if not stat.S_ISDIR(there.st_mode):
        return f"{folder} is not a folder"
    if there.st_uid != os.geteuid() or there.st_mode & 0o077:
        return f"{folder} is not ours alone (0700)"
    return ""


class _Folder:
    """What is armed is looked for each time: tests arm while the daemon runs."""

    def __init__(self, folder: Path, known: frozenset[str]) -> None:
        self._folder = folder
        self._known = known
        self._counts: dict[str, int] = {}
        self._seen: set[str] = set()
        for name in ("reached", "hit"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)

    def look(self, name: str) -> None:
        if name not in self._seen:
            self._seen.add(name)
            (self._folder / "reached" / name).touch()
        armed = self._folder / name
        try:
            words = armed.read_text().split()
        except FileNotFoundError:
            return
        kind, *numbers = words
        count = self._counts[name] = self._counts.get(name, 0) + 1
        if count < int(numbers[0] if numbers else 1):
            return
        refused = kind in ("error", "enospc") and name not in FALLIBLE
        if name not in self._known or refused:
            log.error("%s cannot have %r happen", name, kind)
            return
        try:
            armed.unlink()  # of two threads that come here at once one takes it
        except FileNotFoundError:
            return
        self._counts[name] = 0
        (self._folder / "hit" / name).touch()
        act(kind, float(numbers[1]) if len(numbers) > 1 else HANG)
