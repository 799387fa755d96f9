"""The order in which people expect names."""

from __future__ import annotations

import re


def natural(text: str) -> list[tuple[int, str]]:
    """Return a sort key that puts web-2 before web-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
