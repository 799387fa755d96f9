"""How the connections to a service are shared out among its ready tasks. Pure.

All alike, unless some are to have a share of their own (``Endpoint.share``, a canary's): then the
places of the round robin are as many as it takes to have exactly that, and each task's lie as far
apart as they can, so that a client of few connections meets both kinds.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from specs.wire import Endpoint

MOST: Final = 1000  # places; with more the share is rounded to what so many can have


def places(ready: Sequence[Endpoint]) -> tuple[str, ...]:
    """Return the addresses in the order in which they get connections, over and over.

    Where only one kind is ready it gets all of them.
    """
    some = [one for one in ready if one.share]
    rest = [one for one in ready if not one.share]
    if not some or not rest:
        return tuple(one.address for one in ready)
    share = some[0].share
    mine, theirs = share * len(rest), (100 - share) * len(some)
    common = gcd(mine, theirs)
    mine, theirs = mine // common, theirs // common
    total = mine * len(some) + theirs * len(rest)
    if total > MOST:
        mine, theirs = max(1, mine * MOST // total), max(1, theirs * MOST // total)
    found = [
        ((place + 0.5) / count, one.address)
        for kind, count in ((some, mine), (rest, theirs))
        for one in kind
        for place in range(count)
    ]
    return tuple(address for _, address in sorted(found))
