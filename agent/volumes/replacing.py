"""What takes the place of a volume's data: made beside it, then exchanged with it in one step.

At every moment the volume has either all of its old data or all of the new; what is left over has a
name that the next start removes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from typing import TYPE_CHECKING

from agent.errors import Later, Refusal
from agent.linux import calls as kernel
from specs.kit import disk
from specs.kit.amounts import some
from specs.kit.errnos import in_words
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


MOVE = ".move-"  # of what comes from another node, under the move's id; no volume is called so
KEPT = ".kept-"  # of what a move left behind, under the volume's name
ABANDONED = 7 * 86400.0  # seconds after which what came of a move that nobody goes on with goes


def check_unused(name: str, users: Sequence[str]) -> None:
    """Raise Refusal where containers have a volume that is to get other data."""
    if users:
        raise Refusal(
            f"volume {name} is in use by {some(users, 3)}: corral stop ends them and keeps it"
        )


def check_not_moved(path: Path) -> None:
    """Raise Refusal where a volume would begin empty beside what a move left of it.

    Who asks for it here knows nothing of the move: a controller's state from before it.
    """
    kept = path.with_name(f"{KEPT}{path.name}")
    if kept.is_dir():
        raise Refusal(
            f"volume {path.name} was moved to another node, and this one keeps what it was in "
            f"{kept}: bring the data back (corral volume restore), or rename that to {path.name}"
        )


def begin(parent: Path) -> Path:
    """Make an empty volume beside the others; nobody knows its name."""
    new = parent / f".new-{secrets.token_hex(8)}"
    try:
        new.mkdir(mode=0o701)
        data = new / "_data"
        data.mkdir(mode=0o755)
        data.chmod(0o755)
    except OSError as error:
        discard(new)
        raise Later(f"no new volume can be made: {in_words(error)}") from None
    return new


def place(new: Path, path: Path, *, replace: bool) -> None:
    """Give a volume that is whole its name; ``new`` holds the old one's data then.

    Raises Refusal where there is data already and ``replace`` is not said.
    """
    data = path / "_data"
    if not replace and data.is_dir() and any(data.iterdir()):
        raise Refusal(f"volume {path.name} holds data already")
    try:
        with opened(new / "_data") as fd:
            kernel.syncfs(fd)
        reached("fs.before_volume")
        if path.exists():
            disk.exchange(new, path)
        else:
            new.rename(path)
        reached("fs.after_volume")
        disk.sync(path.parent)
    except OSError as error:
        raise Later(f"volume {path.name} cannot be put in place: {in_words(error)}") from None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a folder of ours that a container cannot exchange for a link."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def discard(new: Path) -> None:
    """Remove what has no name."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):  # the next start tries again
        disk.remove_tree(new)


def abandoned(parent: Path, now: float) -> list[Path]:
    """Return what came of moves of which nobody has heard for a week."""
    found = []
    for path in parent.glob(f"{MOVE}*"):
        with contextlib.suppress(FileNotFoundError):
            if now - path.stat().st_mtime > ABANDONED:
                found.append(path)
    return found
