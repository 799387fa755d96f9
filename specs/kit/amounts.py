"""Sizes, spans of time and long lists in words, the same in every message and table.

The scheduler's reasons, the controller's rows and the command line write them; reading
what people write is ``specs.units``.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `corral ps` reads this module, and does without typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SPANS = (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 48 * 3600))


def size(count: float) -> str:
    """Return bytes in their largest unit: ``512 MiB``, ``1.5 GiB``, ``8 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return _amount(count, unit)
        count /= 1024
    return _amount(count, "TiB")


def some(names: Sequence[str], most: int) -> str:
    """Return names for a sentence: ``n1, n2, n3 and 4 more``."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return numbers as runs without a gap, the first and last of each, in order."""
    found: list[tuple[int, int]] = []
    for one in sorted(set(numbers)):
        if found and found[-1][1] == one - 1:
            found[-1] = found[-1][0], one
        else:
            found.append((one, one))
    return found


def _amount(count: float, unit: str) -> str:
    return f"{count:.1f}".removesuffix(".0") + f" {unit}"


def span(seconds: float) -> str:
    """Return a span of time in its largest unit, rounded down: ``8 s``, ``2 min``, ``12 days``."""
    whole = max(0, int(seconds))
    for unit, length, limit in _SPANS:
        if whole < limit:
            return f"{whole // length} {unit}"
    return f"{whole // 86400} days"


def as_set(amount: float) -> str:
    """Return a span as it was set: ``5 s``, ``0.25 s``, ``20 ms``, and no powers of ten."""
    if amount <= 0:
        return "0 s"
    if amount < 0.001:
        return "less than 1 ms"
    if amount < 0.1:
        return f"{amount * 1000:.3g} ms"
    return (f"{amount:.3f}".rstrip("0").rstrip(".") if amount < 1000 else f"{amount:.0f}") + " s"


def elapsed(seconds: float) -> str:
    """Return how long something took that somebody waited for: ``4.1s``, ``2m05s``."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
