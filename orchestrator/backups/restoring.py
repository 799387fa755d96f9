"""Put a backup back where a controller is to start from it: all of it, or nothing.

`corral restore` calls it with no controller running. The pieces are taken apart and checked beside
their place, and exchanged with the controller's folder in one step: whenever it is killed, there is
the former one or the new one, whole. What was there before keeps a name, and is never deleted.
``restored`` in the folder tells the next start that what runs knows more than the store: it asks
the agents patiently before it takes an epoch.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from typing import TYPE_CHECKING

from orchestrator.backups import contents
from orchestrator.backups.envelope import BadBackup
from orchestrator.config import RESTORED
from specs.kit.disk import exchange, make_folder, sync, write_file
from specs.kit.errnos import in_words
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.config import ControllerConfig

SSH_PORT = 22
CANNOT = frozenset({errno.EINVAL, errno.ENOSYS})  # exchange two names
LOOK = 2.0  # seconds a machine has to answer


def occupied(config: ControllerConfig) -> str:
    """Return why a backup must not simply be put here; empty = there is no controller's state."""
    if config.database.exists():
        return f"a controller keeps its state here ({config.database})"
    return ""


def place(folder: Path, config: ControllerConfig) -> Path | None:
    """Make the checked pieces the controller's folder; return where the former one is now.

    Raises BadBackup where a controller runs, or the disk fails.
    """
    try:
        make_folder(config.state_dir, mode=0o755)
        config.run_dir.mkdir(parents=True, exist_ok=True)
        with _alone(config):
            (folder / contents.SETTINGS).unlink()
            write_file(folder / RESTORED, b"restored\n")
            folder.chmod(0o700)
            for path in folder.iterdir():
                sync(path)
            sync(folder)
            if not config.folder.exists():
                reached("restore.before_rename")
                folder.rename(config.folder)
                reached("restore.after_rename")
                sync(config.state_dir)
                return None
            return _exchanged(folder, config.folder)
    except OSError as exc:
        raise BadBackup(f"{exc.filename or config.folder}: {in_words(exc)}") from exc


def _exchanged(new: Path, folder: Path) -> Path:
    """Give a folder's name to a new one; return where the former one is.

    The new one gets the name to keep first: it is what the former one has from the exchange on, so
    that no sweep of what was being taken apart can meet it.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = folder.with_name(f"controller.before-{stamp}-{os.urandom(2).hex()}")
    new.rename(aside)
    try:
        reached("restore.before_rename")
        exchange(aside, folder)
    except OSError as exc:
        aside.rename(new)
        if exc.errno not in CANNOT:
            raise
        # A file system without exchanges has no other way than one after the other.
        folder.rename(aside)
        try:
            new.rename(folder)
        except OSError:
            aside.rename(folder)
            raise
    reached("restore.after_rename")
    sync(folder.parent)
    return aside


@contextlib.contextmanager
def _alone(config: ControllerConfig) -> Iterator[None]:
    """Hold the running controller's lock, so that none is running and none starts."""
    descriptor = os.open(config.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadBackup(
                "a controller runs here", hint="corral controller stop ends it; containers run on"
            ) from None
        yield
    finally:
        os.close(descriptor)


def is_own(address: str) -> bool:
    """Say whether an address is one of this machine's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True


def answers(address: str) -> bool:
    """Say whether a machine answers there: sshd does, or its kernel says that none listens."""
    try:
        with socket.create_connection((address, SSH_PORT), timeout=LOOK):
            return True
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
