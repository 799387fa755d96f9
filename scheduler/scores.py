"""Soft preferences among nodes that may run a task; smaller is better.

Order: nodes where this spec failed lately sink; then spread (tasks of the same
spec, then of the same service); then the dominant share of what is reserved;
then whether the image is there; then the number of tasks; then a seeded tie-break.
Preferences (``spread over node.labels.zone``) come before all but failures and
are ``scheduler.place``'s own, because they count branches, not nodes.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.view import Load, Pending

# What a task that reserves nothing counts as, so that many small ones still spread.
NOMINAL_CPUS = 0.05
NOMINAL_MEMORY = 32 * 1024 * 1024

Score = tuple[int, int, int, int, int, int, int]


def dominant_share(load: Load) -> float:
    """Return the larger of the shares of CPUs and memory that tasks take, 0..1 and above."""
    cpus = max(load.cpus, load.tasks * NOMINAL_CPUS)
    memory = max(load.memory, load.tasks * NOMINAL_MEMORY)
    share = cpus / load.node.cpus if load.node.cpus else 1.0
    if load.node.memory:
        share = max(share, memory / load.node.memory)
    return share


def tie_break(seed: int, service: str, node: str) -> int:
    """Return a number that is the same for the same input and differs between services."""
    return zlib.crc32(f"{seed}/{service}/{node}".encode())


def score(pending: Pending, load: Load, seed: int) -> Score:
    """Return the node's key for this task."""
    same_service = load.services.get(pending.service, 0)
    return (
        load.node.failures.get(pending.spec_hash, 0),
        load.specs.get(pending.spec_hash, 0),
        same_service,
        int(dominant_share(load) * 1000),
        0 if pending.image and pending.image in load.node.images else 1,
        load.tasks,
        tie_break(seed, pending.service, load.node.id),
    )
