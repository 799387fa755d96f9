"""Which containers have which changes: what is sent to whom, whenever one comes or goes (pure).

The law: a container that takes part has every change since its image was made, in whatever order
files change, containers are replaced and sending fails. So what changed is kept by name, never
what happened to it: who sends looks at the disk, and a file that is not there is one to remove.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    Key = tuple[int, str]  # rule, path below the rule's


class Ledger:
    """The changes of one service."""

    def __init__(self) -> None:
        self._last: dict[Key, int] = {}  # the number of a path's last change
        self._has: dict[str, int] = {}  # container -> the number it has everything up to
        self.number = 0

    def note(self, keys: Iterable[Key]) -> None:
        """Take a batch of changes."""
        self.number += 1
        self._last.update(dict.fromkeys(keys, self.number))

    def fresh(self, container: str) -> bool:
        """Say whether nothing was ever brought to the container."""
        return container not in self._has

    def behind(self, container: str) -> list[Key]:
        """Return what the container lacks, in order."""
        has = self._has.get(container, 0)
        return sorted(key for key, number in self._last.items() if number > has)

    def brought(self, container: str, number: int) -> None:
        """Take it that the container has everything up to this number."""
        self._has[container] = max(number, self._has.get(container, 0))

    def built(self, number: int) -> None:
        """Forget what an image has that was begun at this number and now runs everywhere."""
        self._last = {key: at for key, at in self._last.items() if at > number}

    def keep(self, containers: Collection[str]) -> None:
        """Forget containers that are gone."""
        self._has = {name: has for name, has in self._has.items() if name in containers}
