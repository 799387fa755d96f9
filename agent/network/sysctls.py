"""The few machine-wide sysctls the network needs: set, remembered, restored at leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

GLOBAL: Mapping[str, str] = {"net/ipv4/ip_forward": "1"}
_PROC = Path("/proc/sys")


def ensure(record: Path, wanted: Mapping[str, str] = GLOBAL) -> list[str]:
    """Set what differs and note the former value first; return what was set."""
    known: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    changed = []
    for key, value in wanted.items():
        path = _PROC / key
        now = path.read_text().strip()
        if now == value:
            continue
        if key not in known:
            known[key] = now
            record.parent.mkdir(parents=True, exist_ok=True)
            fresh = record.with_suffix(".new")
            fresh.write_text(json.dumps(known))
            fresh.replace(record)
        path.write_text(value)
        changed.append(key)
    return changed


def restore(record: Path) -> None:
    """Put the former values back and forget them."""
    if not record.exists():
        return
    for key, value in json.loads(record.read_text()).items():
        (_PROC / key).write_text(value)
    record.unlink()
