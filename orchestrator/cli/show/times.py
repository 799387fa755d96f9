"""Ages, sizes and points in time, as people write and read them.

Used by ps, ls, logs, events, node and controller; pure, no clock of its own.
"""

from __future__ import annotations

import time

from orchestrator.cli.errors import USAGE, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def duration(text: str) -> float:
    """Return the seconds of ``90``, ``1m30s``, ``1.5h``. Raises ValueError."""
    try:
        return float(text)
    except ValueError:
        pass
    total, number, rest = 0.0, "", text
    while rest:
        if rest[0].isdigit() or rest[0] == ".":
            number += rest[0]
            rest = rest[1:]
            continue
        unit = "ms" if rest.startswith("ms") else rest[0]
        if unit not in _UNITS or not number:
            raise ValueError(text)
        total += float(number) * _UNITS[unit]
        number, rest = "", rest[len(unit) :]
    if number or not text:
        raise ValueError(text)
    return total


def moment(text: str, *, now: float, flag: str) -> float:
    """Return seconds since the epoch of ``10m`` (ago), a date and time, or an epoch number."""
    try:
        value = float(text)
    except ValueError:
        pass
    else:
        # A bare number is Compose's Unix timestamp.
        return value
    try:
        return now - duration(text)
    except ValueError:
        pass
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CliError(
            f"{flag} {text!r} is neither a duration nor a time",
            hint=f"write {flag} 10m, {flag} 2026-01-31T12:00:00Z or seconds since 1970",
            code=USAGE,
        ) from None
    # Like docker: a time without zone is local time.
    return (found if found.tzinfo else found.astimezone()).astimezone(UTC).timestamp()


def age(seconds: float) -> str:
    """Return ``seconds`` as Docker shows ages: one unit, rounded down."""
    if seconds < 1:
        return "less than a second"
    for size, name in ((31536000, "year"), (2592000, "month"), (604800, "week"), (86400, "day")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {name}s"
    for size, name in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'s' if count > 1 else ''}"
    raise AssertionError(seconds)


def since(moment_s: Any, now: float) -> str:
    """Return ``3 minutes ago`` for a time in seconds since the epoch."""
    if not isinstance(moment_s, int | float) or not moment_s:
        return ""
    return f"{age(max(0.0, now - moment_s))} ago"


def elapsed(seconds: float) -> str:
    """Return a short running time: ``4.1s``, ``2m05s``."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"


def rfc3339(moment_s: float) -> str:
    """Return the time in UTC with microseconds, as ``logs -t`` prints it."""
    whole = int(moment_s // 1)
    micro = int((moment_s - whole) * 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{micro:06d}Z"


def size(count: float) -> str:
    """Return bytes as ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
