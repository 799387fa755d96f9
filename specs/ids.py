"""Identifiers, and how new ones are made.

Ids are short, lower-case, sortable by creation time and safe in file names,
cgroup names, interface aliases and DNS labels. Time and randomness come in as
arguments, so the simulation makes the same ids for the same seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    import random

ClusterId = NewType("ClusterId", str)
NodeId = NewType("NodeId", str)
TaskId = NewType("TaskId", str)
NetworkId = NewType("NetworkId", str)
SecretId = NewType("SecretId", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no i, l, o, u


def _base32(value: int, width: int) -> str:
    digits = []
    for _ in range(width):
        value, rest = divmod(value, 32)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))


def new_id(prefix: str, *, now: float, rng: random.Random) -> str:
    """Return ``PREFIX`` + 7 time digits + 6 random digits (30 bits), e.g. ``t1m8kq3x9f0a2c``.

    ``now`` is seconds since the epoch; ids made in the same second still differ
    with probability 1 - 2**-30 a pair, and the store refuses a second create.
    """
    return prefix + _base32(int(now), 7) + _base32(rng.getrandbits(30), 6)
