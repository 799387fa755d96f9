"""Soft preferences among nodes that may run a task; smaller is better.

Order: nodes where this spec failed lately sink; then spread (tasks of the same
spec, then of the same service); then the dominant share of what is reserved;
then whether the image is there; then the number of tasks; then a seeded tie-break.
A service that is packed has instead, behind failures: nodes less than full by their dominant share,
the fullest first; then full ones (of tasks that reserve nothing), the emptiest first; then image;
then most tasks; then the tie-break.
Preferences (``spread over node.labels.zone``) come before all but failures and
are ``scheduler.choice``'s own, because they count branches, not nodes.

The tie-break is the CRC of seed, service and node. It is affine: of nodes whose ids are equally
long, those of two services differ by one number only (``flip``). So the nodes are sorted once, by
``code``, and who comes first for a service is found from the top bit down.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scheduler.view import Load, Pending

# What a task that reserves nothing counts as, so that many small ones still spread.
NOMINAL_CPUS = 0.05
NOMINAL_MEMORY = 32 * 1024 * 1024

FULL = 1000  # thousandths

# failures, tasks of the spec, of the service, share, image missing, tasks, tie-break, position
Score = tuple[int, int, int, int, int, int, int, int]


def dominant_share(load: Load) -> int:
    """Return the larger of the shares of CPUs and memory that tasks take, in thousandths."""
    node, tasks = load.node, load.tasks
    cpus, memory = max(load.cpus, tasks * NOMINAL_CPUS), max(load.memory, tasks * NOMINAL_MEMORY)
    share = cpus / node.cpus if node.cpus else 1.0
    if node.memory:
        share = max(share, memory / node.memory)
    return int(share * 1000)


def spread(pending: Pending, load: Load) -> tuple[int, int, int, int, int, int]:
    """Return how little a node has of what counts for a service that is spread, but the tie."""
    node, spec_hash = load.node, pending.spec_hash
    return (
        node.failures.get(spec_hash, 0),
        load.specs.get(spec_hash, 0),
        load.services.get(pending.service, 0),
        dominant_share(load),
        0 if pending.image and pending.image in node.images else 1,
        load.tasks,
    )


def packing(shares: Sequence[int]) -> Iterator[int]:
    """Return sorted shares in the order in which a service that is packed takes nodes."""
    full = bisect_left(shares, FULL)
    yield from (shares[n] for n in range(full - 1, -1, -1))
    yield from (shares[n] for n in range(full, len(shares)))


def tie_break(seed: int, service: str, node: str) -> int:
    """Return a number that is the same for the same input and differs between services."""
    return zlib.crc32(f"{seed}/{service}/{node}".encode())


def code(node: str) -> int:
    """Return the node's part of every tie-break."""
    return zlib.crc32(node.encode())


def flip(seed: int, service: str, length: int) -> int:
    """Return the service's part for nodes whose ids have so many bytes: code ^ flip = tie-break."""
    zeros = bytes(length)
    return zlib.crc32(zeros, zlib.crc32(f"{seed}/{service}/".encode())) ^ zlib.crc32(zeros)
