"""What nobody needs any more: old releases, spec parts, contents, empty address blocks.

Bounded history keeps the store small; a release that a task or a rollback may still
need is never dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.records import CONTENTS, RELEASES
from orchestrator.control.planning.addresses import empty_leases
from orchestrator.store import keys

if TYPE_CHECKING:
    from orchestrator.control.planning.passes import Pass
    from specs.api import Stack

RELEASES_KEPT = 20
REQUEST_GRACE = 24 * 3600.0  # seconds in which a repeated request is recognised
CONTENT_GRACE = 3600.0  # seconds a version may be unused: a deploy under way may want it


def trim_releases(pass_: Pass, stack: Stack) -> None:
    """Drop the stack's oldest releases beyond the limit."""
    known = pass_.cluster.stack_releases.get(stack.name, {})
    if len(known) <= RELEASES_KEPT:
        return
    needed = {task.release for task in pass_.draft.tasks(stack.name).values()}
    needed |= {stack.release, stack.running}
    for number in sorted(known)[: len(known) - RELEASES_KEPT]:
        if number not in needed:
            pass_.draft.delete(RELEASES, known[number])


def sweep(pass_: Pass) -> None:
    """Drop parts and contents that no kept release refers to, unused leases, old requests."""
    empty_leases(pass_.draft, pass_.observed.blocks_held)
    for key, made in pass_.cluster.requests.items():
        if pass_.wall - made.at > REQUEST_GRACE:
            pass_.draft.writes[keys.idempotency(key)] = None
    used_parts = {release.spec for release in pass_.cluster.releases.values()}
    for digest in pass_.cluster.parts:
        if digest not in used_parts:
            pass_.draft.writes[keys.part(digest)] = None
    if not pass_.cluster.contents:
        return
    used = {
        ref.content
        for one in pass_.draft.oneoffs()
        for ref in (*one.service.task.secrets, *one.service.task.configs)
    }
    for digest in used_parts:
        spec = pass_.cluster.parts.get(digest)
        if spec is not None:
            used |= {c.content for c in (*spec.secrets.values(), *spec.configs.values())}
            for service in spec.services.values():
                used |= {r.content for r in (*service.task.secrets, *service.task.configs)}
    for content in pass_.cluster.contents.values():
        if not content.stack:
            continue  # made by hand, and taken away so
        if content.id not in used and pass_.wall - content.created_at > CONTENT_GRACE:
            pass_.draft.delete(CONTENTS, content)
