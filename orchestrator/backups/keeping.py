"""The files of backups in a folder: how they are called, which there are, which may go."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from orchestrator.backups.envelope import BadBackup, peek
from specs.api import BackupRow

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SUFFIX = ".backup"
MOST = 1000  # backups of a folder that are looked at, by their names the newest


def file_name(cluster: str, made_at: float) -> str:
    """Return what a backup is called: its cluster, and when it was made (UTC)."""
    when = dt.datetime.fromtimestamp(made_at, dt.UTC)
    return f"corral-{cluster}-{when:%Y%m%dT%H%M%SZ}{SUFFIX}"


def rows(folder: Path) -> list[BackupRow]:
    """Return the backups of a folder, the newest first; what cannot be read says why."""
    named = [p for p in folder.iterdir() if p.suffix == SUFFIX and not p.name.startswith(".")]
    named.sort(key=lambda path: (path.name.rpartition("-")[2], path.name), reverse=True)
    found = [_row(path) for path in named[:MOST] if path.is_file()]
    return sorted(found, key=lambda row: (-row.made_at, row.file))


def surplus(found: Iterable[BackupRow], cluster: str, keep: int, *, now: float) -> list[str]:
    """Return the files to remove: of this cluster's scheduled ones all but the ``keep`` newest.

    What was made by hand, of another cluster, or cannot be read stays. What says that it is of the
    future was made before the clock was set back: it is older than all that was made since.
    """
    ours = [row for row in found if row.scheduled and row.cluster == cluster and not row.trouble]
    ours.sort(key=lambda row: (row.made_at > now, -row.made_at))
    return [row.file for row in ours[max(keep, 1) :]]


def _row(path: Path) -> BackupRow:
    try:
        head, size = peek(path), path.stat().st_size
    except (BadBackup, OSError) as exc:
        return BackupRow(file=str(path), trouble=str(exc))
    return BackupRow(
        file=str(path),
        cluster=head.cluster,
        made_at=head.made_at,
        size=size,
        corral=head.corral,
        encrypted=head.lock is not None,
        scheduled=head.scheduled,
    )
