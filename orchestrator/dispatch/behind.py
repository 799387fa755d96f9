"""Is the store older than what runs? Asked before anything is changed. Pure.

Agents keep the highest epoch, the revision of the store their set was taken from, and the stamp
of every stack they have tasks of. A store that was restored from a copy, or was lost, is behind
one of them: what it would do then is end what runs. So the controller compares at its start,
before it takes an epoch, and again with every agent it meets later; where it is behind it
changes nothing and asks (``corral state adopt`` or ``corral state discard``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from specs.wire import Hello

SHOWN = 3


@dataclass(frozen=True)
class StoreSays:
    """What the store knows of its past.

    ``ended``: epoch -> its last revision; ``trusted``: the first epoch that counts, because
    somebody decided at its beginning that the store is right.
    """

    cluster: str
    epoch: int
    revision: int
    stacks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    ended: Mapping[int, int] = field(default_factory=dict)
    trusted: int = 0


@dataclass(frozen=True)
class Drift:
    """One stack of which the store and the agents say different things."""

    stack: str
    what: Literal["older", "unknown", "gone"]
    nodes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        where = f" ({', '.join(self.nodes)})" if self.nodes else ""
        match self.what:
            case "older":
                return f"stack {self.stack} is older here than on its nodes{where}"
            case "unknown":
                return f"stack {self.stack} is not known here and runs{where}"
            case "gone":
                return f"stack {self.stack} is known here and runs nowhere any more"


@dataclass(frozen=True)
class Behind:
    """The store is behind these nodes."""

    nodes: tuple[str, ...]
    drifts: tuple[Drift, ...] = ()

    @property
    def newer(self) -> tuple[str, ...]:
        """Return the stacks of which the nodes know something later, in words."""
        return tuple(drift.words for drift in self.drifts if drift.what != "gone")

    @property
    def words(self) -> str:
        shown = self.newer[:SHOWN]
        rest = len(self.newer) - len(shown)
        details = "; ".join(shown) + (f"; and {rest} more" if rest > 0 else "")
        return (
            f"the controller's state is older than what runs on {', '.join(self.nodes)}"
            + (f": {details}" if details else "")
            + ". Nothing is changed; `corral state` shows it, `corral state adopt` takes over"
            " what runs, `corral state discard` goes by the state and stops what it does not know."
            " Neither, where another machine has been made the controller since: take this one off"
        )


def compare(store: StoreSays, hellos: Mapping[str, Hello]) -> Behind | None:
    """Return in what the store is behind these agents, by node name; None = in nothing."""
    nodes: list[str] = []
    drifts: dict[tuple[str, str], list[str]] = {}
    seen: set[str] = set()
    for name, hello in sorted(hellos.items()):
        stamp = hello.stamp
        seen |= set(hello.stacks)
        if stamp is None or stamp.cluster != store.cluster or stamp.epoch < store.trusted:
            continue
        behind = _older(store, stamp.epoch, hello.revision)
        for stack, newest in hello.stacks.items():
            here = store.stacks.get(stack)
            if here is None and not behind:
                continue  # removed since: this node has not heard of it yet
            if here is None or newest > here:
                drifts.setdefault((stack, "unknown" if here is None else "older"), []).append(name)
                behind = True
        if behind:
            nodes.append(name)
    if not nodes:
        return None
    found = [
        Drift(stack, "unknown" if what == "unknown" else "older", tuple(where))
        for (stack, what), where in sorted(drifts.items())
    ]
    gone = [Drift(stack, "gone") for stack in sorted(set(store.stacks) - seen)]
    return Behind(tuple(nodes), (*found, *gone))


def _older(store: StoreSays, epoch: int, revision: int) -> bool:
    """Say whether somebody has written a later revision of an epoch than the store has."""
    if epoch > store.epoch:
        return True
    last = store.revision if epoch == store.epoch else store.ended.get(epoch)
    return last is not None and revision > last
