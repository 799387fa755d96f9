"""Secrets and configs of a task as files on a tmpfs of its own.

Called by agent.volumes.store. Each task with files has one tmpfs below the run directory, which
never reaches a disk (without swap where the kernel can promise it) and goes with the task.
Contents are immutable: a file that is there is never rewritten, so a running container
keeps what it has mounted. It must never log or raise a message with content in it.

Inside the container everybody may read them unless the file says otherwise; on the node
nobody but root comes near: the directory above all of them is closed.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
from typing import TYPE_CHECKING, Final

from agent.errors import Later, Refusal
from agent.linux import calls as kernel
from agent.vocabulary import BoundMount
from agent.volumes.taskfs import TaskFs
from specs.kit import disk
from specs.kit.errnos import in_words
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from specs.stack import FileRef
    from specs.wire import Content

_MODE: Final = 0o444  # the mode of the file on the user's machine says nothing about readers here
_OPTIONS: Final[tuple[str, ...]] = ("rbind", "rprivate", "ro", "nosuid", "nodev")
_SECRET_OPTIONS: Final = (*_OPTIONS, "noexec")  # a config may be a start script
_ROOM: Final = 1 << 20  # beside the contents: page rounding, inodes
_FLAGS: Final = kernel.MS_NOSUID | kernel.MS_NODEV


class SecretFs(TaskFs):
    """Those with secrets and configs."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir / "files")

    def _make_root(self) -> None:
        super()._make_root()
        self._root.chmod(0o700)  # an earlier version let others pass

    def place(
        self,
        task: str,
        secrets: tuple[FileRef, ...],
        configs: tuple[FileRef, ...],
        contents: Mapping[str, Content],
        owner: tuple[int, int],
    ) -> list[BoundMount]:
        """Write the task's files and return their mounts. Raises Refusal, Later."""
        files = [(ref, _SECRET_OPTIONS) for ref in secrets]
        files += [(ref, _OPTIONS) for ref in configs]
        if not files:
            return []
        data = [_decode(ref, contents) for ref, _ in files]
        home = self._home(task)
        try:
            self._make_root()
            home.mkdir(mode=0o700, exist_ok=True)
            if not self.mounted(task):
                _mount_tmpfs(home, sum(len(item) + 4096 for item in data) + _ROOM)
            reached("fs.after_secret_tmpfs")
            disk.sweep(home)  # a killed agent's half file would take room from these
            mounts = []
            for number, ((ref, options), item) in enumerate(zip(files, data, strict=True)):
                path = home / str(number)
                _write(path, item, *access(ref, owner))
                mounts.append(BoundMount(str(path), ref.target, "bind", options))
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise Later(f"cannot place its secrets and configs: {in_words(error)}{where}") from None
        return mounts


def access(ref: FileRef, owner: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """Return a file's mode and its (uid, gid); ``owner`` is the container's own user."""
    uid = owner[0] if ref.uid is None else ref.uid
    gid = owner[1] if ref.gid is None else ref.gid
    return (_MODE if ref.mode is None else ref.mode), (uid, gid)


def _decode(ref: FileRef, contents: Mapping[str, Content]) -> bytes:
    content = contents.get(ref.content)
    if content is None:
        raise Later(f"the content of {ref.source} has not reached this node yet")
    try:
        return base64.b64decode(content.data, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(f"the content of {ref.source} is not base64") from None


def _mount_tmpfs(home: Path, size: int) -> None:
    options = f"mode=0700,size={size},nr_inodes=2048"
    try:
        kernel.mount("corral-files", str(home), "tmpfs", _FLAGS, options + ",noswap")
    except OSError as error:
        if error.errno != errno.EINVAL:  # noswap came with 6.4
            raise
        kernel.mount("corral-files", str(home), "tmpfs", _FLAGS, options)


def _write(path: Path, data: bytes, mode: int, owner: tuple[int, int]) -> None:
    """Make the file whole at once; one that is right already stays the same inode."""
    try:
        if path.read_bytes() == data:
            os.chown(path, *owner)
            path.chmod(mode)
            return
    except FileNotFoundError:
        pass
    disk.write_file(path, data, durable=False, mode=mode, owner=owner)
