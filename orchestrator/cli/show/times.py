"""Points in time, as people write and read them.

Used by ps, logs, events; pure, no clock of its own.
"""

from __future__ import annotations

import time

from orchestrator.cli.errors import USAGE, CliError
from specs.kit.amounts import span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def moment(text: str, *, now: float, flag: str) -> float:
    """Return seconds since the epoch of ``10m`` (ago), a date and time, or an epoch number."""
    try:
        value = float(text)
    except ValueError:
        pass
    else:
        # A bare number is Compose's Unix timestamp.
        return value
    from specs.units import parse_duration

    try:
        return now - parse_duration(text) / 1e9
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


def since(moment_s: Any, now: float) -> str:
    """Return ``3 min ago`` for a time in seconds since the epoch."""
    if not isinstance(moment_s, int | float) or not moment_s:
        return ""
    return f"{span(now - moment_s)} ago"


def of_day(moment_s: Any) -> str:
    """Return the local time of day, ``14:05:09``."""
    known = isinstance(moment_s, int | float) and moment_s
    return time.strftime("%H:%M:%S", time.localtime(moment_s)) if known else "an unknown time"


def rfc3339(moment_s: float) -> str:
    """Return the time in UTC with microseconds, as ``logs -t`` prints it."""
    whole = int(moment_s // 1)
    micro = int((moment_s - whole) * 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{micro:06d}Z"
