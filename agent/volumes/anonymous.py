"""Anonymous volumes: each set has one owner, and passes to the next task of its slot.

The folder with a task's id for its name is that task's alone: that is the law of one writer. What
a task leaves that ran is renamed to the slot's name, and from there to the id of the next task of
the slot when that one's first run begins: a rename is whole or not at all, so a cut at any place
leaves one owner. Two tasks of one slot at a time (``start-first``) have one set each; that of the
task that stays is the slot's. Which slots are wanted the caller says: the rest is removed.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

from specs.kit import disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SLOT = "slot"  # the file that says whose a set is; written when a run of its task begins
_LEFT = ".slot-"


class AnonymousVolumes:
    """The sets of anonymous volumes below one folder. Blocking; callers choose the thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()  # what is wanted is asked inside, so that none slips through

    def home(self, task: str) -> Path:
        """Return the folder of the task's own set, made when missing."""
        home = self._folder / task
        home.mkdir(exist_ok=True, mode=0o700)
        return home

    def owns(self, task: str) -> bool:
        """Say whether the task has a set."""
        return (self._folder / task).is_dir()

    def whose(self, task: str, slot: str) -> Path | None:
        """Return the folder of the task's set, or of what it left to its slot; None = neither."""
        for folder in (self._folder / task, self._left(slot)):
            if folder.is_dir():
                return folder
        return None

    def tasks(self) -> set[str]:
        """Return the tasks that have a set."""
        return {path.name for path in self._folder.iterdir() if path.name[0] != "."}

    def take(self, task: str, slot: str) -> None:
        """Give a task that is being prepared what its slot has, where nobody has that."""
        with self._lock:
            left, own = self._left(slot), self._folder / task
            if left.is_dir() and not own.exists():
                left.rename(own)
                disk.sync(self._folder)

    def claim(self, task: str, slot: str, *, fresh: bool = False) -> None:
        """Make the set the slot's own: the task's first run begins.

        What was made for it ahead, while its predecessor still ran, gives way to what that left;
        where the task is to begin with ``fresh`` ones, that goes instead.
        """
        with self._lock:
            left, own = self._left(slot), self._folder / task
            if fresh and not (own / _SLOT).exists():
                disk.take_away(left)
            if left.is_dir() and not (own / _SLOT).exists():
                if own.is_dir():
                    for made in own.iterdir():
                        if not (left / made.name).exists():  # a mount the slot had not before
                            made.rename(left / made.name)
                    disk.take_away(own)
                left.rename(own)
            if own.is_dir() and _slot_of(own) != slot:
                disk.write_file(own / _SLOT, slot.encode())
                disk.sync(self._folder)

    def release(self, task: str, kept: Callable[[str], bool]) -> None:
        """Leave a task's set to its slot, or remove it: where it never ran, or nobody is to come.

        Nothing of the task may run any more.
        """
        with self._lock:
            own = self._folder / task
            slot = _slot_of(own)
            if not slot or not kept(slot) or self._lives_on(slot, task):
                disk.take_away(own)
                return
            disk.take_away(self._left(slot))
            own.rename(self._left(slot))
            disk.sync(self._folder)

    def sweep(self, kept: Callable[[str], bool]) -> None:
        """Remove what is left of slots that are not wanted any more."""
        with self._lock:
            for path in list(self._folder.glob(f"{_LEFT}*")):
                slot = _slot_of(path)
                if not slot or not kept(slot):
                    disk.take_away(path)

    def _lives_on(self, slot: str, but: str) -> bool:
        """Say whether another task of the slot has begun with a set of its own."""
        others = self.tasks() - {but}
        return any(_slot_of(self._folder / other) == slot for other in others)

    def _left(self, slot: str) -> Path:
        return self._folder / (_LEFT + hashlib.sha256(slot.encode()).hexdigest()[:32])


def _slot_of(home: Path) -> str:
    """Return whose a set is; empty = no run ever began with it."""
    try:
        return (home / _SLOT).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return ""
