"""What happens in a round: faults and commands, from a seed (pure).

The hosts are real, so a seed gives the same schedule, not the same run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

NODES = ("n1", "n2", "n3", "n4", "n5")
OTHERS = NODES[1:]  # n1 has the controller and is where users type
EVERY = 3.0  # seconds between two faults' beginnings, on average
AT_ONCE = 2  # nodes that something is wrong with; three of five is the brake's business
LONGEST = 14.0  # seconds a fault stays


@dataclass(frozen=True)
class Event:
    """Something from ``at`` to ``until`` seconds; a kill ends as it begins."""

    at: float
    until: float
    what: str
    node: str
    details: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.node, self.what, *map(str, self.details)])


Drawn = tuple[Any, ...]
# kind: (weight, which nodes, whether it lasts, its details)
FAULTS: dict[str, tuple[float, tuple[str, ...], bool, Callable[[random.Random], Drawn]]] = {
    "cut": (1.5, NODES, True, lambda r: ()),
    "cut-out": (0.7, OTHERS, True, lambda r: ()),
    "cut-pair": (0.8, OTHERS, True, lambda r: ()),
    "loss": (1.2, NODES, True, lambda r: (r.choice((3, 8, 15, 30)),)),
    "slow": (1.2, NODES, True, lambda r: (r.choice((500, 1000, 4000)),)),
    "mtu": (1.0, NODES, True, lambda r: (r.choice((1100, 1280, 1400)), False)),
    "black-hole": (0.8, OTHERS, True, lambda r: (r.choice((1100, 1280, 1400)), True)),
    "freeze": (1.0, NODES, True, lambda r: ()),
    "power": (1.5, NODES, True, lambda r: ()),
    "clock": (0.8, NODES, True, lambda r: (r.choice((-86400 * 400, -3600, 3600, 86400 * 400)),)),
    "disk-full": (1.0, NODES, True, lambda r: ()),
    "kill-agent": (1.2, NODES, False, lambda r: ()),
    "kill-controller": (1.5, NODES[:1], False, lambda r: ()),
    "kill-dns": (0.6, NODES, False, lambda r: ()),
    "kill-supervisor": (0.6, NODES, False, lambda r: ()),
    "kill-conmon": (1.0, OTHERS, False, lambda r: ()),
    "kill-task": (1.0, OTHERS, False, lambda r: ()),
}
ACTIONS: dict[str, tuple[float, Callable[[random.Random], Drawn]]] = {
    "change": (3, lambda r: ()),
    "scale": (3, lambda r: (r.randint(1, 5),)),
    "again": (1, lambda r: ()),
    "killed": (1, lambda r: (round(r.uniform(0.05, 1.5), 2),)),
    "restart": (1, lambda r: (r.choice(("roll", "base")),)),
    "drain": (1.5, lambda r: (r.choice(OTHERS),)),
    "down-up": (1.5, lambda r: ()),
}


def faults(seed: int, seconds: float) -> list[Event]:
    """Return the faults of a round, in order; none begins in the last seconds of it."""
    chance = random.Random(f"{seed} faults")
    weights = {kind: row[0] * chance.choice((0, 1, 1, 2)) + 0.05 for kind, row in FAULTS.items()}
    found: list[Event] = []
    now = 2.0
    while now < seconds - 3.0:
        busy = {event.node for event in found if event.until > now}
        peers = {event.details[0] for event in found if event.until > now if "pair" in event.what}
        kind = chance.choices(list(weights), list(weights.values()))[0]
        _, nodes, lasts, details = FAULTS[kind]
        node = chance.choice(nodes)
        peer = (chance.choice([other for other in OTHERS if other != node]),)
        given = peer if kind == "cut-pair" else details(chance)
        hold = chance.uniform(3.0, LONGEST) if lasts else 0.0
        taken = busy | peers
        free = node not in taken and not (kind == "cut-pair" and given[0] in taken)
        if free and (len(taken) < AT_ONCE or not lasts):
            until = min(now + hold, seconds)
            found.append(Event(round(now, 1), round(until, 1), kind, node, given))
            now += chance.expovariate(1 / EVERY)
        else:
            now += 0.5
    return found


def actions(seed: int, seconds: float) -> list[tuple[float, str, Drawn]]:
    """Return what the user types: not before, what, details. A late command delays the next."""
    chance = random.Random(f"{seed} actions")
    found, now = [], 1.0
    weights = [weight for weight, _ in ACTIONS.values()]
    while now < seconds:
        what = chance.choices(list(ACTIONS), weights)[0]
        found.append((round(now, 1), what, ACTIONS[what][1](chance)))
        now += chance.uniform(2.0, 9.0)
    return found
