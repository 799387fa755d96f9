"""Files that a command writes for its user: there whole or not at all, and nothing else is lost.

What is there already stays unless the user said so; a link is followed; a device or a pipe is
written into, as every program does, and never replaced.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.errors import CliError
from specs.kit import disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO


def check(path: str, *, force: bool) -> None:
    """Refuse early what :func:`whole` could not write, or should not. Raises CliError."""
    if not path:
        raise CliError("the file to write has no name")
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # a link to nothing, a folder that is not there: found by whoever opens it
    if stat.S_ISDIR(mode):
        raise CliError(f"{path} is a folder, not a file to write")
    if stat.S_ISREG(mode) and not force:
        raise CliError(f"{path} is there already", "-f writes over it")


@contextlib.contextmanager
def whole(path: str) -> Iterator[BinaryIO]:
    """Yield a file to write; it has its name when the block ends well, for its user alone (0600).

    Raises CliError where the disk or the path does not take it.
    """
    real, part = os.path.realpath(path), ""
    try:
        if os.path.exists(real) and not os.path.isfile(real):
            with open(os.open(real, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC), "wb") as file:
                yield file
            return
        folder, name = os.path.split(real)
        part = os.path.join(folder, f".{name}.{os.urandom(4).hex()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(part, flags, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, real)
        part = ""
        disk.sync(Path(folder))
    except OSError as error:
        from specs.kit.errnos import in_words  # only after a fault

        raise CliError(f"{path}: {in_words(error)}", "nothing was left of it") from None
    finally:
        if part:
            with contextlib.suppress(OSError):
                os.unlink(part)
