"""Which network record is behind a network of a stack's file: the one lookup. Pure.

Several records may bear one name: what another stack calls so, and what an earlier
version of the file had under other subnets and is still used until its last task goes.
Planning asks with the changes of its pass, the sets for nodes ask with the mirror; both
must find the same record, or a task would hold an address its node is not told about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.control.mirror.records import NetworkRecord
    from specs.stack import NetworkSpec


def network_behind(
    networks: Iterable[NetworkRecord], stack: str, wanted: NetworkSpec
) -> NetworkRecord | None:
    """Return the network the stack means.

    An external one is anybody's, but not one that nobody wants any more: its addresses
    are on their way out. Its own may be retired: the stack that comes back takes it over.
    Another stack's is never meant without ``external``, whatever its name.
    """
    found = [
        network
        for network in networks
        if network.name == wanted.name
        and (
            not network.retired
            if wanted.external
            else network.stack in (stack, "") and network.subnets == wanted.subnets
        )
    ]
    return min(found, key=lambda n: (n.stack != stack, n.retired, n.id), default=None)


def name_holder(networks: Iterable[NetworkRecord], stack: str, name: str) -> NetworkRecord | None:
    """Return the network of another stack that has this name and is in use."""
    return next(
        (n for n in networks if n.name == name and n.stack != stack and not n.retired), None
    )
