"""What a bind mount takes of this node: paths that are there, and folders made where one is not.

Called by :mod:`agent.volumes.store` for each bind of a task, and by the controller's question
which nodes have a path (``POST /v1/paths``). A folder made here for a bind is remembered: it
holds what its containers wrote here, and nobody else's data, whatever other nodes have there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import Refusal, of_disk
from agent.vocabulary import BoundMount
from specs import paths, sent
from specs.kit import disk
from specs.kit.errnos import in_words

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from specs.paths import PathState
    from specs.stack import Mount

log = logging.getLogger(__name__)

_PROPAGATION: Final = frozenset(
    {"private", "rprivate", "shared", "rshared", "slave", "rslave"},
)
_TMPFS_MODE: Final = 0o1777


class BindSources:
    """The node's paths as binds see them; ``memory`` is the file of folders made for binds."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._lock = threading.Lock()  # tasks are prepared side by side

    def source(self, mount: Mount, elsewhere: Container[str] = ()) -> str:
        """Return the path to mount, made where it is missing. Raises Refusal, Later.

        ``elsewhere``: paths whose data is on other nodes, so that an empty folder would lie.
        """
        source = mount.source or ""
        if not source.startswith("/"):
            raise Refusal(f"bind source {source!r} is not an absolute path on this node")
        if mount.relative and sent.leaves_tree(source):
            raise Refusal(
                f"bind source {source} is a link out of what was sent: it means a file of the "
                "machine it was sent from; send that file itself"
            )
        try:
            if not _exists(source):
                if why := _not_made(mount, source, elsewhere):
                    raise Refusal(f"bind source {source} does not exist on this node{why}")
                self._make(Path(source))
        except OSError as error:
            raise of_disk(error, f"bind source {source}: {in_words(error)}") from None
        return source

    def look(self, sources: Iterable[str]) -> dict[str, PathState]:
        """Say of paths whether they are there, and whether corral made them."""
        made = self._read()
        return {source: _state(source, made) for source in sources}

    def _make(self, path: Path) -> None:
        new = [path, *(parent for parent in path.parents if not parent.exists())]
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o755)
            with self._lock:
                known = self._read().items()
                made = {folder: place for folder, place in known if _place(folder) == place}
                made.update({str(folder): _place(str(folder)) for folder in new})
                disk.write_file(self._memory, json.dumps(made).encode())
        except OSError:
            # One that is not remembered would be taken for somebody's data at the next try.
            for folder in new:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._memory.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            log.warning("what was made for binds cannot be read", extra={"path": str(self._memory)})
            return {}
        return found if isinstance(found, dict) else {}


def _not_made(mount: Mount, source: str, elsewhere: Container[str]) -> str:
    """Return why a missing path is not made, as the end of a sentence; empty = it is."""
    if why := paths.never_made(source):
        return f" and is never made: {why}; take the mount out, or run it where the path is"
    if source in elsewhere:
        return ", and its data is on other nodes: mount it here too"
    if not mount.create_host_path:
        return "; make it, or leave create_host_path on"
    return ""


def _state(source: str, made: dict[str, str]) -> PathState:
    place = _place(source)
    if not place:
        return "absent"
    return "made" if made.get(source) == place else "there"


def _place(source: str) -> str:
    """Return which file system and inode a path leads to; empty where it leads nowhere."""
    try:
        found = os.stat(source)  # noqa: PTH116 - of what the path leads to
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def _exists(source: str) -> bool:
    """Say whether a path of the node is there; raise OSError where it leads round in a circle."""
    try:
        Path(source).stat()
    except FileNotFoundError:
        if Path(source).is_symlink():
            raise Refusal(
                f"bind source {source} is a symbolic link to {Path(source).readlink()}, which is "
                "not there on this node; make that, or mount another path"
            ) from None
        return False
    return True


def propagation_of(name: str) -> str:
    """Return a propagation that the kernel has. Raises Refusal."""
    if name not in _PROPAGATION:
        raise Refusal(f"mount propagation {name!r} is none of {', '.join(sorted(_PROPAGATION))}")
    return name


def tmpfs(mount: Mount) -> BoundMount:
    """Return the mount of a tmpfs, with what every one has here."""
    mode = _TMPFS_MODE if mount.tmpfs_mode is None else mount.tmpfs_mode
    # An option of the file's comes last: `exec` undoes what every tmpfs has here.
    off = [f"no{flag}" for flag in ("exec", "suid", "dev") if flag not in mount.tmpfs_options]
    options = [*off, *mount.tmpfs_options, f"mode={mode:o}"]
    if mount.tmpfs_size:
        options.append(f"size={mount.tmpfs_size}")
    if mount.read_only:
        options.append("ro")
    return BoundMount("tmpfs", mount.target, "tmpfs", tuple(options))
