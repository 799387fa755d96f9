"""Reading values of the canonical Compose mapping: durations, sizes, modes, lists.

The mapping has passed the language's own checks, so these are small and total.
"""

from __future__ import annotations

from typing import Any, cast

from specs import units
from specs.stack import Placement, Port, Ulimit

Json = dict[str, Any]
_LAST_PORT = 65535


def duration_seconds(value: Any) -> float | None:
    """Return seconds of a duration (``1m30s``, ``500ms``, a number); None when it is not one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if value >= 0 else None
    try:
        seconds = units.parse_duration(str(value).strip()) / 1e9
    except ValueError:
        return None
    return seconds if seconds >= 0 else None


def size_bytes(value: Any) -> int | None:
    """Return bytes of a canonical size; None for none, unlimited (-1) and what is no size."""
    if value in (None, ""):
        return None
    try:
        size = value if isinstance(value, int) else units.parse_size(str(value).strip())
    except ValueError:
        return None
    return size if size > 0 else None


def octal(value: Any) -> int | None:
    """Return a file mode from canonical octal text (``"0440"``)."""
    if value in (None, ""):
        return None
    try:
        return value if isinstance(value, int) else int(str(value).removeprefix("0o"), 8)
    except ValueError:
        return None  # the loader lets no such thing through


def given(**fields: Any) -> Json:
    """Return the fields that are set, so that the model's own defaults stand for the others."""
    return {key: value for key, value in fields.items() if value is not None}


def mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def yes(value: Any) -> bool:
    """Say whether a setting of corral's own says true; what is neither was refused before."""
    return value is True or value == "true"


def listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(item) for item in value]


def text(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


def texts(value: Any) -> dict[str, str]:
    return {key: "" if item is None else str(item) for key, item in mapping(value).items()}


def number(value: Any) -> int | None:
    """Return a whole number from 0 on; None for none and for what is not one."""
    return int(str(value)) if str(value).isascii() and str(value).isdigit() else None


def words(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    return (value,) if isinstance(value, str) else tuple(str(word) for word in value)


def cores(value: Any) -> float | None:
    return float(value) if value not in (None, "", 0, "0") else None


def exposed(entry: Any) -> list[Port]:
    """Return the ports of one ``expose`` entry: ``80``, ``80-82/udp``; none when it is not one."""
    text, _, protocol = str(entry).partition("/")
    first, _, last = text.partition("-")
    low, high = number(first), number(last or first)
    if low is None or high is None or not 0 < low <= high <= _LAST_PORT:
        return []
    if protocol not in ("", "tcp", "udp", "sctp"):
        return []
    return [
        Port(target=port, protocol=cast("Any", protocol or "tcp")) for port in range(low, high + 1)
    ]


def ulimits(raw: Any) -> dict[str, Ulimit]:
    result = {}
    for key, value in mapping(raw).items():
        if isinstance(value, dict):
            result[key] = Ulimit(soft=int(value.get("soft", 0)), hard=int(value.get("hard", 0)))
        else:
            result[key] = Ulimit(soft=int(value), hard=int(value))
    return result


def extra_hosts(raw: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(raw, list):
        pairs = []
        for item in raw:
            name, separator, address = str(item).partition("=")
            if not separator:
                name, _, address = str(item).partition(":")
            pairs.append((name, address.strip("[]")))
        return tuple(pairs)
    return tuple(
        (name, address) for name, addresses in mapping(raw).items() for address in listed(addresses)
    )


def links(raw: Json) -> tuple[tuple[str, str], ...]:
    """Return the names a service gives to others: ``links`` to services, or to containers."""
    found = {}
    for entry in (*(raw.get("links") or ()), *(raw.get("external_links") or ())):
        name, _, alias = str(entry).partition(":")
        if alias not in ("", name):
            found[alias] = name
    return tuple(sorted(found.items()))


def placement(raw: Json) -> Placement:
    return Placement(
        constraints=tuple(raw.get("constraints") or ()),
        preferences=tuple(
            str(item["spread"]) for item in raw.get("preferences") or () if item.get("spread")
        ),
        max_replicas_per_node=int(raw.get("max_replicas_per_node") or 0),
    )
