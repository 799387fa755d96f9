"""The keys of ``x-corral.schedule`` and ``x-corral.autoscale``: the JSON schema of them."""

from __future__ import annotations

from typing import Any, Final

# As text, too, for that is what a variable puts in (specs/compile/booleans.py).
BOOLEAN: Final[dict[str, Any]] = {
    "anyOf": [{"type": "boolean"}, {"type": "string", "pattern": r"^(true|false)$|\$"}]
}
_SPAN: Final = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}
OVERLAPS: Final = ("allow", "forbid", "replace")
MISSED: Final = ("skip", "run-once")
KEYS: Final[dict[str, dict[str, Any]]] = {
    "cron": {"type": "string"},
    "timezone": {"type": "string"},
    "jitter": _SPAN,
    "overlap": {"enum": [*OVERLAPS]},
    "missed": {"enum": [*MISSED]},
    "missed_within": _SPAN,
    "keep": {"type": "integer", "minimum": 1, "maximum": 100},
    "deadline": _SPAN,
    "paused": BOOLEAN,
}
SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": KEYS,
            "required": ["cron"],
            "additionalProperties": False,
        },
    ]
}


_SHARE: Final = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}
AUTOSCALE: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "min": {"type": "integer", "minimum": 1},
        "max": {"type": "integer", "minimum": 1},
        "cpu": _SHARE,
        "memory": _SHARE,
        "cooldown": _SPAN,
        "hold": _SPAN,
    },
    "required": ["max"],
    "additionalProperties": False,
}


def has_one(raw: dict[str, Any]) -> bool:
    """Say whether a service of the file has a schedule."""
    extension = raw.get("x-corral")
    return isinstance(extension, dict) and bool(extension.get("schedule"))
