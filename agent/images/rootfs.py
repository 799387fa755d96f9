"""Root file systems of tasks: shared layers below, the task's own writable layer on top.

Called by the store's mount, unmount, borrow and discard. All mounts go through one thread whose
current directory is the store's root: overlayfs reads at most a page of options, and names
like ``l/abcd`` keep 127 layers within it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from agent.errors import Later, Refusal
from agent.linux import calls as kernel
from agent.linux import mounts
from specs.kit import disk
from specs.kit.errnos import in_words
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from pathlib import Path

    from agent.images.content import ImageFiles
    from agent.images.layers import LayerStore

_PAGE: Final = 4096
# Directories the runtime mounts on first; a link here would lead its mounts elsewhere.
_MUST_BE_REAL: Final = ("dev", "proc", "sys")


class RootFs:
    """Mounts the merged roots of one store below ``run_dir``."""

    def __init__(self, content: ImageFiles, layers: LayerStore, run_dir: Path) -> None:
        self._content = content
        self._layers = layers
        self._mounts = run_dir / "rootfs"
        self._mounts.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Roots others look into: how many do, and the copy kept of one that is not mounted now.
        # Two overlay mounts of one writable layer are undefined (kernel, overlayfs.rst).
        self._lent: Counter[str] = Counter()
        self._kept: dict[str, int] = {}
        self.thread = ThreadPoolExecutor(1, "mount", initializer=self._enter)

    def _enter(self) -> None:
        kernel.unshare(kernel.CLONE_FS)  # this thread's directory becomes its own
        os.chdir(self._content.root)

    def close(self) -> None:
        self.thread.shutdown()

    def chain(self, diff_ids: tuple[str, ...]) -> list[str]:
        """Return the layers to mount, top first: no duplicates, nothing below an opaque root.

        Overlayfs refuses the same directory twice, and a layer repeated further up hides
        its lower twin wholly.
        """
        chain: list[str] = []
        for diff_id in reversed(diff_ids):
            if diff_id not in chain:
                chain.append(diff_id)
            done = self._layers.done(diff_id)
            if done and done.opaque_root:
                break
        return chain

    def check(self, diff_ids: tuple[str, ...]) -> None:
        """Refuse an image in which a directory the runtime mounts on is something else."""
        chain = self.chain(diff_ids)
        for name in _MUST_BE_REAL:
            for diff_id in chain:
                try:
                    mode = (self._layers.directory(diff_id) / name).lstat()
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(mode.st_mode):
                    break
                if stat.S_ISCHR(mode.st_mode) and mode.st_rdev == 0:
                    break  # a whiteout: absent
                raise Refusal(f"the image's /{name} is not a directory; it will not be run")

    def point(self, task: str) -> Path:
        """Return where the root of a task is mounted."""
        if not task or "/" in task or task.startswith("."):
            raise Refusal(f"{task!r} is not a task id")
        return self._mounts / task

    def mounted(self, task: str) -> bool:
        try:
            return kernel.filesystem_type(str(self.point(task))) == kernel.OVERLAY_MAGIC
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                return False
            raise

    def mount(self, task: str, digest: str, diff_ids: tuple[str, ...]) -> Path:
        """Mount, or find mounted, the merged root. Blocks; runs in ``thread``."""
        point = self.point(task)
        home = self._content.writable / task
        mark = home / "image"
        try:
            known = mark.read_text()
        except FileNotFoundError:
            known = ""
        try:
            if known != digest:  # new, half made, half deleted, or of another image
                self.discard(task)
                for path in (home, home / "upper", home / "work"):
                    path.mkdir(mode=0o700)
                self._dress(home / "upper", diff_ids)
                disk.write_file(mark, digest.encode())
            if self.mounted(task):
                return point
            # With its parent: people tidy up below /run.
            point.mkdir(parents=True, exist_ok=True, mode=0o700)
            if (kept := self._kept.pop(task, None)) is not None:
                try:
                    kernel.place_mount(kept, str(point))
                finally:
                    os.close(kept)
                return point
            reached("fs.before_overlay_mount")
            kernel.mount("corral", str(point), "overlay", 0, self._options(task, diff_ids))
            reached("fs.after_overlay_mount")
        except OSError as error:
            raise Later(f"cannot mount the root of {task}: {in_words(error)}") from error
        return point

    def borrow(self, task: str, digest: str, diff_ids: tuple[str, ...]) -> tuple[int, str]:
        """Return a copy of the mount, also where it is not mounted now. Runs in ``thread``.

        Who asks mounts the copy at the place returned, in a mount namespace of his own, and says
        ``returned`` when that has ended. Until then whatever mounts the root mounts this one.
        A task whose writable layer is gone, or another image's, has nothing to be lent.
        """
        mark = self._content.writable / task / "image"
        if not mark.exists() or mark.read_text() != digest:
            raise Refusal("the container was removed, and what was written in it")
        was = self.mounted(task)
        point = self.mount(task, digest, diff_ids)
        try:
            copy = kernel.copy_mount(str(point))
            self._lent[task] += 1
        finally:
            if not was:  # nobody else mounts or unmounts meanwhile: all that is this thread's
                self.unmount(task)
        return copy, str(self._mounts)

    def returned(self, task: str) -> None:
        """Note that one borrower has ended. Runs in ``thread``."""
        self._lent[task] -= 1
        if self._lent[task] <= 0:
            del self._lent[task]
            self._drop(task)

    def _drop(self, task: str) -> None:
        if (kept := self._kept.pop(task, None)) is not None:
            os.close(kept)

    def _dress(self, upper: Path, diff_ids: tuple[str, ...]) -> None:
        """Give the merged "/" the owner and mode of the image's: they come from the top."""
        upper.chmod(0o755)
        for diff_id in self.chain(diff_ids)[:1]:
            top = self._layers.directory(diff_id).stat()
            os.chown(upper, top.st_uid, top.st_gid)
            upper.chmod(stat.S_IMODE(top.st_mode))

    def _options(self, task: str, diff_ids: tuple[str, ...]) -> str:
        chain = [self._layers.short_name(diff_id) for diff_id in self.chain(diff_ids)]
        options = (
            f"lowerdir={':'.join(chain or ['empty'])},upperdir=writable/{task}/upper,"
            f"workdir=writable/{task}/work,index=off,metacopy=off,redirect_dir=nofollow"
        )
        if len(options) >= _PAGE:
            raise Refusal(f"the image has too many layers to mount ({len(chain)})")
        return options

    def unmount(self, task: str) -> None:
        """Unmount the root and remove its mount point. Blocks; runs in ``thread``."""
        point = self.point(task)
        if task in self._lent and task not in self._kept and self.mounted(task):
            self._kept[task] = kernel.copy_mount(str(point))
        while self.mounted(task):
            mounts.take_off(str(point))
        with contextlib.suppress(FileNotFoundError):
            point.rmdir()

    def discard(self, task: str) -> None:
        """Unmount and delete the writable layer. Blocks; runs in ``thread``."""
        self.unmount(task)
        self._drop(task)
        home = self._content.writable / task
        # The mark goes first: a half deleted layer must never be mounted again.
        (home / "image").unlink(missing_ok=True)
        # All mounts wait for this thread, and a container may have written any number of files.
        self._content.leave_to_remover(home)

    def tasks(self) -> dict[str, str]:
        """Return the digest each task's writable layer was made for."""
        found = {}
        for home in self._content.writable.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[home.name] = (home / "image").read_text()
        return found
