"""What goes wrong when, and what users do meanwhile: made from the seed alone (pure)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from tests.sim.user import GLOBAL, files

SETTLE = 25.0  # seconds before the first fault: all stacks come up
FAULTS = 22  # in 60 seconds
ACTIONS = 8


@dataclass(frozen=True)
class Event:
    """One fault or action; ``at`` seconds after the beginning of the schedule."""

    number: int
    at: float
    what: str
    args: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.number}: {self.at:.1f} s {self.what} {' '.join(map(str, self.args))}"


NODES = tuple(f"n{n}" for n in range(1, 6))
# fault -> (weight, how its arguments are drawn)
FAULT_KINDS: dict[str, tuple[float, Any]] = {
    "kill_controller": (3, lambda r: (round(r.choice((0.1, 0.5, 2.0, 8.0)), 1),)),
    "controller_dies_at_commit": (2, lambda r: (r.randint(1, 30), r.random() < 0.5)),
    "kill_agent": (3, lambda r: (r.choice(NODES),)),
    "agent_dies_at_write": (2.5, lambda r: (r.choice(NODES), r.randint(1, 60))),
    "agent_away": (1.5, lambda r: (r.choice(NODES), round(r.uniform(3, 75), 1))),
    "power": (1.5, lambda r: (r.choice(NODES[1:]), round(r.uniform(1, 30), 1), r.random() < 0.5)),
    "power_home": (0.4, lambda r: (round(r.uniform(1, 10), 1), r.random() < 0.5)),
    "cut": (2.5, lambda r: (r.choice(NODES[1:]), round(r.uniform(1, 30), 1), "both")),
    "cut_one_way": (
        2,
        lambda r: (r.choice(NODES[1:]), round(r.uniform(1, 30), 1), r.choice(("to", "from"))),
    ),
    "isolate": (1, lambda r: (round(r.uniform(3, 30), 1),)),
    "cut_most": (0.8, lambda r: (round(r.uniform(8, 30), 1), round(r.uniform(0, 3), 1))),
    "loss": (
        1.5,
        lambda r: (r.choice(NODES[1:]), round(r.uniform(5, 30), 1), round(r.uniform(0.1, 0.5), 2)),
    ),
    "late": (
        1,
        lambda r: (r.choice(NODES[1:]), round(r.uniform(5, 30), 1), round(r.uniform(0.05, 1.0), 2)),
    ),
    "twice": (1.5, lambda r: (r.choice(NODES), round(r.uniform(10, 40), 1))),
    "flap": (1, lambda r: (r.choice(NODES[1:]), r.randint(2, 6), round(r.uniform(1, 10), 1))),
    "slow_disk": (
        1,
        lambda r: (r.choice(NODES), round(r.uniform(5, 30), 1), round(r.uniform(0.02, 1.5), 2)),
    ),
    "full_disk": (1, lambda r: (r.choice(NODES), round(r.uniform(2, 20), 1))),
    "failing_disk": (0.7, lambda r: (r.choice(NODES), round(r.uniform(0.5, 8), 1))),
    "store_slow": (0.7, lambda r: (round(r.uniform(2, 15), 1), round(r.uniform(0.02, 0.6), 2))),
    "store_full": (0.7, lambda r: (round(r.uniform(1, 12), 1),)),
    "store_failing": (0.7, lambda r: (round(r.uniform(0.5, 6), 1),)),
    "hang": (
        1.2,
        lambda r: (
            r.choice(NODES),
            r.choice(("create", "start", "clear", "attach", "network")),
            round(r.uniform(1, 25), 1),
        ),
    ),
    "freeze": (1, lambda r: (r.choice(NODES), round(r.uniform(2, 25), 1))),
    "slow_runtime": (
        0.7,
        lambda r: (r.choice(NODES), round(r.uniform(5, 20), 1), round(r.uniform(5, 60), 0)),
    ),
    "crash": (2, lambda r: (r.choice(NODES), r.randint(0, 9))),
    "lost_monitor": (1, lambda r: (r.choice(NODES), r.randint(0, 9))),
    "sick": (1, lambda r: (r.choice(NODES), r.randint(0, 9), round(r.uniform(5, 30), 1))),
    "clock": (0.8, lambda r: (r.choice(NODES), r.choice((-3600.0, 3600.0, 86400.0 * 400, -5.0)))),
    "registry_down": (0.7, lambda r: (round(r.uniform(2, 20), 1),)),
    "older_store": (0.6, lambda r: (round(r.uniform(2, 30), 1),)),
    "journal_damaged": (
        0.6,
        lambda r: (r.choice(NODES), r.choice(("first", "last", "gone", "torn"))),
    ),
    "record_damaged": (0.5, lambda r: (r.choice(NODES), r.randint(0, 9))),
    "run_wiped": (0.4, lambda r: (r.choice(NODES),)),
    "older_agent": (0.6, lambda r: (r.choice(NODES), round(r.uniform(10, 40), 1))),
    "network_broken": (0.5, lambda r: (r.choice(NODES), round(r.uniform(1, 15), 1))),
}
_SERVICES = [(stack, key) for stack, file in files().items() for key in file["services"]]
_CHANGING = [(stack, key) for stack, key in _SERVICES if stack != "calm"]
_SCALED = [pair for pair in _CHANGING if pair not in GLOBAL and pair[0] != "data"]
ACTION_KINDS: dict[str, tuple[float, Any]] = {
    "up": (3, lambda r: (*r.choice(_CHANGING),)),
    "scale": (2, lambda r: (*r.choice(_SCALED), r.randint(0, 8))),
    "stop_start": (1, lambda r: (*r.choice(_CHANGING), round(r.uniform(1, 15), 1))),
    "restart": (1, lambda r: (*r.choice(_CHANGING),)),
    "down_up": (1, lambda r: (r.choice(("front", "data", "jobs")), round(r.uniform(0.5, 15), 1))),
    "drain": (1.2, lambda r: (r.choice(NODES), round(r.uniform(3, 25), 1))),
    "pause_node": (0.6, lambda r: (r.choice(NODES), round(r.uniform(3, 25), 1))),
    "node_rm": (0.7, lambda r: (r.choice(NODES[1:]), round(r.uniform(2, 15), 1))),
}


def make(seed: int, length: float) -> list[Event]:
    """Return the schedule of a seed over ``length`` seconds."""
    chance = random.Random(f"{seed} schedule")
    share = length / 60.0
    # A seed has its own mixture: some kinds not at all, others often.
    faults = _mixture(chance, FAULT_KINDS)
    actions = _mixture(chance, ACTION_KINDS)
    found = [
        (chance.uniform(0, length), *_draw(chance, faults, FAULT_KINDS))
        for _ in range(round(FAULTS * share))
    ]
    found += [
        (chance.uniform(0, length), *_draw(chance, actions, ACTION_KINDS))
        for _ in range(round(ACTIONS * share))
    ]
    found.sort(key=lambda one: (one[0], one[1], str(one[2])))
    return [Event(n, round(at, 2), what, args) for n, (at, what, args) in enumerate(found)]


def _mixture(chance: random.Random, kinds: dict[str, tuple[float, Any]]) -> dict[str, float]:
    return {
        name: weight * chance.choice((0, 0.5, 1, 1, 2, 4)) + 0.02
        for name, (weight, _) in kinds.items()
    }


def _draw(
    chance: random.Random, weights: dict[str, float], kinds: dict[str, tuple[float, Any]]
) -> tuple[str, tuple[Any, ...]]:
    name = chance.choices(list(weights), list(weights.values()))[0]
    return name, kinds[name][1](chance)
