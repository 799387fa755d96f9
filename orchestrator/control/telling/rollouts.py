"""How far a stack's rollout is, for people: the newest release, and its services' rows.

The rows are made of what a pass decided (``planning.rollout_rows``) and kept beside the records,
for time alone moves some of it; a controller that starts makes them anew in its first look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from specs.api import RolloutStatus
from specs.states import ReleaseState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.contracts import Mirror
    from specs.api import RolloutRow, Stack


def status(cluster: Mirror, stack: Stack, rows: Iterable[RolloutRow]) -> RolloutStatus:
    """Return the rollout of the stack's newest release."""
    release = cluster.releases.get((stack.name, stack.release))
    if release is None:
        return RolloutStatus(stack=stack.name)
    found = tuple(rows)
    if release.over:
        ended = "failed" if release.state is ReleaseState.FAILED else "done"
        found = tuple(_ended(row, ended) for row in found)
    return RolloutStatus(
        stack=stack.name,
        release=release.number,
        state=release.state.value,
        reason=release.reason,
        running=stack.running,
        back=release.back,
        back_reason=release.back_reason,
        services=found,
    )


def _ended(row: RolloutRow, how: str) -> RolloutRow:
    done = row.updated == row.total and row.state != "failed"
    update = {"state": "done" if done else how, "waits": "", "until": 0.0}
    return row.model_copy(update=update)
