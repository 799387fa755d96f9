"""The watched files as they were at the last look, and what has changed since.

A notice of the kernel only says that looking again is worth while: what changed is found by
comparing with the last look. So notices may be lost, doubled or early, and a file that was
written and removed between two looks is no change.

Only what the kernel says is not there is gone. What cannot be reached for another reason (rights, a
broken disk, a network that is away) stays as it was at the last look, until it is seen again.

A folder that went is told twice: by its name, and with a slash behind it, for what takes its name
afterwards may be something else (``pack`` in ``watching``).
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

    ``watched`` is told of each folder before it is read, and says whether it was not watched till
    now: then it is another one, whatever its number (disks give those again). ``unwatched`` is told
    of those that went, ``unread`` once of what cannot be reached, and why.
    """

    def __init__(
        self,
        rules: Sequence[WatchRule],
        *,
        watched: Callable[[str], bool] = lambda _: False,
        unwatched: Callable[[str], None] = lambda _: None,
        unread: Callable[[str, str], None] = lambda _, __: None,
    ) -> None:
        self._rules = rules
        self._tops = sorted({rule.path for rule in rules})
        self._top: dict[str, SeenFile | None] = {}
        self._folders: dict[str, dict[str, SeenFile]] = {}
        self._watched = watched
        self._unwatched = unwatched
        self._unread = unread
        self.shut: set[str] = set()  # what could not be reached: looked at again each time
        self.look(None)

    def look(self, folders: Iterable[str] | None) -> set[str]:
        """Return the paths that changed in these folders (None: everywhere) since the last look."""
        changed: set[str] = set()
        for top in self._tops:
            self._look_at_top(top, changed)
        asked = self._folders if folders is None else {*folders, *self.shut}
        for folder in sorted(asked):
            if folder in self._folders:  # neither gone by now nor nobody's
                self._compare(folder, changed)
        return changed

    def holds(self, path: str) -> bool:
        """Say whether a file of this name was there at the last look."""
        folder, name = os.path.split(path)
        seen = self._folders.get(folder, {}).get(name) or self._top.get(path)
        return seen is not None and not _folder(seen)

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
        if self._watched(parent) and parent in self._folders:
            self._compare(parent, changed)
        before = self._top.get(top)
        try:
            now = _look(top, follow=True)
        except OSError as error:
            self._unreached(top, error)
            return
        if top in self.shut and top not in self._folders:
            self.shut.discard(top)
            changed.add(top)  # it may not have been sent
        self._top[top] = now
        was, is_ = _folder(before), _folder(now)
        if was and (not is_ or _other(before, now)):
            self._leave(top, changed)
        if before is not None and not was and (now is None or is_):
            changed.add(top)
        if is_:
            self._enter(top, changed)
        elif now is not None and before != now:
            changed.add(top)

    def _enter(self, folder: str, changed: set[str]) -> None:
        """Look into a folder that may be a new one; a known one is looked at when it is told of."""
        new = folder not in self._folders
        if new and all(rule.closes(folder) for rule in self._rules):
            return
        if self._watched(folder) or new:
            self._folders.setdefault(folder, {})
            self._compare(folder, changed)

    def _unreached(self, path: str, error: OSError) -> None:
        if path in self.shut:
            return
        if not any(path.startswith(f"{other}/") for other in self.shut):
            self._unread(str(error.filename or path), error.strerror or str(error))
        self.shut.add(path)

    def _leave(self, folder: str, changed: set[str]) -> None:
        names = self._folders.pop(folder, {})
        self.shut.discard(folder)
        self._unwatched(folder)
        for name, seen in names.items():
            inner = f"{folder}/{name}"
            changed.add(inner)
            if _folder(seen):
                changed.add(f"{inner}/")
                self._leave(inner, changed)

    def _compare(self, folder: str, changed: set[str]) -> None:
        before = self._folders[folder]
        self._watched(folder)
        try:
            now = _listed(folder)
        except OSError as error:
            self._unreached(folder, error)
            return
        if folder in self.shut:
            self.shut.discard(folder)
            changed.update(f"{folder}/{name}" for name in now)  # it may not have been sent
        self._folders[folder] = now
        for name in before.keys() | now.keys():
            path = f"{folder}/{name}"
            old, new = before.get(name), now.get(name)
            if old != new:
                changed.add(path)
            if _folder(old) and (not _folder(new) or _other(old, new)):
                changed.add(f"{path}/")
                self._leave(path, changed)
            if _folder(new):
                self._enter(path, changed)


def _look(path: str, *, follow: bool = False) -> SeenFile | None:
    """Return what is there, or None. A link is looked through where it leads to a folder.

    Raises OSError where that cannot be said.
    """
    try:
        info = os.stat(path, follow_symlinks=False)
        if follow and stat.S_ISLNK(info.st_mode):
            info = _through(path, info)
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind, mode = stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode)
    if kind == stat.S_IFDIR:
        return SeenFile(kind, info.st_ino, mode)
    if kind in (stat.S_IFREG, stat.S_IFLNK):
        return SeenFile(kind, info.st_ino, mode, info.st_size, info.st_mtime_ns)
    return None  # pipes, sockets and devices mean nothing elsewhere


def _through(path: str, link: os.stat_result) -> os.stat_result:
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return link
    return info if stat.S_ISDIR(info.st_mode) else link


def _listed(folder: str) -> dict[str, SeenFile]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    looked = {name: _look(f"{folder}/{name}") for name in names}
    return {name: seen for name, seen in looked.items() if seen is not None}


def _folder(seen: SeenFile | None) -> bool:
    return seen is not None and stat.S_ISDIR(seen.kind)


def _other(old: SeenFile | None, new: SeenFile | None) -> bool:
    return old is None or new is None or old.inode != new.inode
