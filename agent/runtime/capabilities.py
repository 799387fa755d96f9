"""The capabilities this node may hand on to containers; the kernel's list is specs.kernel's."""

from __future__ import annotations

import functools
from pathlib import Path

from specs.kernel import ALL_CAPABILITIES


@functools.cache
def grantable_capabilities() -> frozenset[str]:
    """Return the capabilities this process may hand on: its bounding set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            bits = int(line.split()[1], 16)
            return frozenset(
                name for number, name in enumerate(ALL_CAPABILITIES) if bits >> number & 1
            )
    return frozenset()
