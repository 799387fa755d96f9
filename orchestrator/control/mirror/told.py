"""What the mirror and its drafts know of the journal of events: that there may be one.

A draft hands it every change it is about to write, writes what comes back in the same
transaction, and says when that was done (``orchestrator.control.telling.journal``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.store.base import Delete, Put
    from specs.base import Model
    from specs.events import Event


@dataclass(slots=True)
class Recorded:
    """What is written for some events; ``live`` are those to be told once that is done."""

    writes: list[Put | Delete] = field(default_factory=list)
    live: list[Event] = field(default_factory=list)
    added: list[tuple[str, int]] = field(default_factory=list)  # key, bytes
    folds: dict[tuple[object, ...], tuple[int, str, Event]] = field(default_factory=dict)
    taken: int = 0  # of what waited


def there(task: str) -> str:
    """Return under what ``Draft.because`` has why a task's node was taken; the id: why it is."""
    return f"{task}/there"


class EventKeeper(Protocol):
    """See orchestrator.control.telling.journal."""

    @property
    def waits(self) -> bool:
        """Whether something is to be written that belongs to no record's change."""
        ...

    def record(
        self,
        changes: Iterable[tuple[Model | None, Model | None]],
        because: Mapping[str, str],
        notes: Sequence[Event],
        *,
        room: int,
    ) -> Recorded:
        """Return what is to be written beside these changes, in at most ``room`` operations."""
        ...

    def written(self, recorded: Recorded, revision: int) -> None:
        """Take note that this was written, as that revision of the store."""
        ...


class Silent:
    """Keeps nothing: of a mirror that nobody changes, and of tests."""

    waits = False

    def record(
        self,
        changes: Iterable[tuple[Model | None, Model | None]],  # noqa: ARG002 - the protocol's
        because: Mapping[str, str],  # noqa: ARG002 - the protocol's
        notes: Sequence[Event],  # noqa: ARG002 - the protocol's
        *,
        room: int,  # noqa: ARG002 - the protocol's
    ) -> Recorded:
        return Recorded()

    def written(self, recorded: Recorded, revision: int) -> None:
        pass
