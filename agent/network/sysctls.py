"""The few machine-wide sysctls the network needs: set, remembered, restored at leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from specs.kit import disk

if TYPE_CHECKING:
    from collections.abc import Mapping

# "all" is OR-ed with each device's own value: 0 leaves other devices as they were and lets ours
# be without redirects (they would eat the ICMP rate limit our refusals need).
GLOBAL: Mapping[str, str] = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/send_redirects": "0",
}
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
            disk.write_file(record, json.dumps(known).encode())
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
