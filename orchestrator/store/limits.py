"""What every engine refuses, whatever it could do itself; they all call this first.

The numbers are etcd's defaults (orchestrator/store/base.py), so that what works on
one machine with SQLite also works with several controllers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.store.base import (
    MAX_OPERATIONS,
    MAX_TRANSACTION,
    MAX_VALUE,
    Compare,
    Delete,
    Put,
    TooLarge,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def check(compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> None:
    """Raise TooLarge for a transaction over a limit, ValueError for a malformed one."""
    if len(writes) > MAX_OPERATIONS:
        raise TooLarge(
            f"{len(writes)} writes in one transaction, {MAX_OPERATIONS} are allowed;"
            " split the change into several"
        )
    size = 0
    seen = set()
    for write in writes:
        check_key(write.key)
        if write.key in seen:
            raise ValueError(f"{write.key} is written twice in one transaction")
        seen.add(write.key)
        size += len(write.key)
        if isinstance(write, Put):
            if len(write.value) > MAX_VALUE:
                raise TooLarge(
                    f"{write.key} would hold {len(write.value)} bytes, {MAX_VALUE} are allowed"
                )
            size += len(write.value)
    for compare in compares:
        check_key(compare.key)
    if size > MAX_TRANSACTION:
        raise TooLarge(
            f"a transaction of {size} bytes, {MAX_TRANSACTION} are allowed;"
            " split the change into several"
        )


def check_key(key: str) -> None:
    """Refuse keys that the engines would order or store differently."""
    if not key.startswith("/") or "\0" in key or not key.isprintable():
        raise ValueError(f"{key!r} is not a store key: it starts with / and is printable")


def prefix_end(prefix: str) -> str | None:
    """Return the first string after all that start with ``prefix``; None = there is none.

    Code points order like UTF-8 bytes, so Python, SQLite's BINARY and etcd agree.
    """
    for place in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[place])
        if code < 0x10FFFF:
            after = 0xE000 if code == 0xD7FF else code + 1  # surrogates cannot be encoded
            return prefix[:place] + chr(after)
    return None
