"""How much a stack can have, and a secret or config: one law for the file and every command.

The controller looks at every task in every pass, and every node holds every published port. Both
bounds at once cost it a turn of 1.4 s; a node counts as silent after 9 (docs/benchmarks.md). Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from specs.stack import StackSpec

MOST_TASKS: Final = 3000  # copies of a stack's services together
MOST_PORTS: Final = 1000  # published ports of a stack together
MOST_BYTES: Final = 500 * 1024  # of a secret or config, as Swarm; in base64 it fits a store value
_NAMED = 3


def copies(spec: StackSpec, overrides: Mapping[str, int]) -> dict[str, int]:
    """Return how many tasks each service has that is not global: by the file, or scaled."""
    return {
        name: overrides.get(name, service.replicas)
        for name, service in spec.services.items()
        if not service.per_node
    }


def ports(spec: StackSpec) -> dict[str, int]:
    """Return how many ports each service publishes."""
    return {name: len(service.task.ports) for name, service in spec.services.items()}


def beyond(counts: Mapping[str, int], most: int) -> str:
    """Return the first service with which the sum is more than ``most``, "" where it is not."""
    total = 0
    for name, count in counts.items():
        total += count
        if count and total > most:
            return name
    return ""


def excess(counts: Mapping[str, int], most: int, what: str) -> str:
    """Return in words that a stack has too many of something, "" where it has not."""
    if not beyond(counts, most):
        return ""
    large = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_NAMED]
    named = ", ".join(f"{name} {count}" for name, count in large if count)
    more = ", ..." if sum(1 for count in counts.values() if count) > _NAMED else ""
    return f"{sum(counts.values())} {what} ({named}{more}): a stack can have {most}"
