"""The watched files as they were at the last look, and what has changed since.

A notice of the kernel only says that looking again is worth while: what changed is found by
comparing with the last look. So notices may be lost, doubled or early, and a file that was
written and removed between two looks is no change.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orchestrator.cli.develop.rules import WatchRule


class SeenFile(NamedTuple):
    """What a look tells of a path; times of folders say nothing new."""

    kind: int
    inode: int
    mode: int
    size: int = 0
    changed: int = 0


class WatchedTree:
    """All that lies below the rules' paths and can be somebody's.

    ``watched`` is told of each folder before it is read, and ``unwatched`` of those that went.
    """

    def __init__(
        self,
        rules: Sequence[WatchRule],
        *,
        watched: Callable[[str], None] = lambda _: None,
        unwatched: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._rules = rules
        self._tops = sorted({rule.path for rule in rules})
        self._top: dict[str, SeenFile | None] = {}
        self._folders: dict[str, dict[str, SeenFile]] = {}
        self._watched = watched
        self._unwatched = unwatched
        self.look(None)

    def look(self, folders: Iterable[str] | None) -> set[str]:
        """Return the paths that changed in these folders (None: everywhere) since the last look."""
        changed: set[str] = set()
        for top in self._tops:
            self._look_at_top(top, changed)
        for folder in sorted(self._folders if folders is None else set(folders)):
            if folder in self._folders:  # neither gone by now nor nobody's
                self._compare(folder, changed)
        return changed

    def below(self, path: str) -> list[str]:
        """Return all known paths below this one, the one itself where it is a file."""
        if path not in self._folders:
            return [path] if self._top.get(path) is not None else []
        found: list[str] = []
        for name, seen in self._folders[path].items():
            inner = f"{path}/{name}"
            found.append(inner)
            if stat.S_ISDIR(seen.kind) and inner in self._folders:
                found += self.below(inner)
        return sorted(found)

    def _look_at_top(self, top: str, changed: set[str]) -> None:
        parent = os.path.dirname(top)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        self._watched(parent)
        before, now = self._top.get(top), _look(top)
        self._top[top] = now
        was, is_ = _folder(before), _folder(now)
        if was and (not is_ or _other(before, now)):
            self._leave(top, changed)
        if before is not None and not was and (now is None or is_):
            changed.add(top)
        if is_:
            if top not in self._folders:
                self._enter(top, changed)
        elif now is not None and before != now:
            changed.add(top)

    def _enter(self, folder: str, changed: set[str]) -> None:
        if any(not rule.closes(folder) for rule in self._rules):
            self._folders[folder] = {}
            self._watched(folder)
            self._compare(folder, changed)

    def _leave(self, folder: str, changed: set[str]) -> None:
        names = self._folders.pop(folder, {})
        if names is not None:
            self._unwatched(folder)
        for name, seen in names.items():
            changed.add(f"{folder}/{name}")
            if _folder(seen):
                self._leave(f"{folder}/{name}", changed)

    def _compare(self, folder: str, changed: set[str]) -> None:
        before, now = self._folders[folder], _listed(folder)
        self._folders[folder] = now
        for name in before.keys() | now.keys():
            path = f"{folder}/{name}"
            old, new = before.get(name), now.get(name)
            if old != new:
                changed.add(path)
            if _folder(old) and (not _folder(new) or _other(old, new)):
                self._leave(path, changed)
            if _folder(new) and path not in self._folders:
                self._enter(path, changed)


def _look(path: str) -> SeenFile | None:
    try:
        info = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    kind, mode = stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode)
    if kind == stat.S_IFDIR:
        return SeenFile(kind, info.st_ino, mode)
    if kind in (stat.S_IFREG, stat.S_IFLNK):
        return SeenFile(kind, info.st_ino, mode, info.st_size, info.st_mtime_ns)
    return None  # pipes, sockets and devices mean nothing elsewhere


def _listed(folder: str) -> dict[str, SeenFile]:
    try:
        names = os.listdir(folder)
    except OSError:
        return {}  # gone, or closed to us
    looked = {name: _look(f"{folder}/{name}") for name in names}
    return {name: seen for name, seen in looked.items() if seen is not None}


def _folder(seen: SeenFile | None) -> bool:
    return seen is not None and stat.S_ISDIR(seen.kind)


def _other(old: SeenFile | None, new: SeenFile | None) -> bool:
    return old is None or new is None or old.inode != new.inode
