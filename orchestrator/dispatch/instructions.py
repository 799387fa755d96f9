"""What to send a node: the difference between two sets of objects. Pure.

session.py keeps the set a node acknowledged and asks here what takes it to the
set the control loops want now.
"""

from __future__ import annotations

from typing import Any

from specs.wire import KINDS, Objects


def difference(old: Objects, new: Objects) -> tuple[Objects, dict[str, tuple[str, ...]]]:
    """Return what to put and what to remove, by kind, to get from ``old`` to ``new``."""
    put: dict[str, Any] = {}
    remove = {}
    for kind in KINDS:
        before, after = getattr(old, kind), getattr(new, kind)
        if before is after:
            continue
        changed = {
            key: value
            for key, value in after.items()
            # Most objects are the very same; comparing them field by field is the slow part.
            if (known := before.get(key)) is not value and known != value
        }
        gone = tuple(sorted(key for key in before if key not in after))
        if changed:
            put[kind] = changed
        if gone:
            remove[kind] = gone
    # The objects are validated already; running them through validation again costs more than
    # everything else here, and so does making what is left out.
    given = {kind: put.get(kind, {}) for kind in KINDS}
    return Objects.model_construct(_fields_set=set(put), **given), remove


def is_empty(put: Objects, remove: dict[str, tuple[str, ...]]) -> bool:
    """Say whether there is nothing to send."""
    return not remove and not any(getattr(put, kind) for kind in KINDS)
