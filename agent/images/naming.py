"""What a name means on a node that got its images for tasks, by digest, and resolved none itself.

A name means the newest image that came by it, as on the node where it was built: a task of an
older release that is placed here later does not turn it back. Former digests stay where they are.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent.images.content import Ref

if TYPE_CHECKING:
    from agent.images.content import ImageFiles


def follow(content: ImageFiles, name: str, digest: str, *, came: bool) -> None:
    """Have a canonical name mean a complete image, unless what it means is newer. Blocks.

    ``came``: the image was not on this node before. Where both are as old (imported ones have
    no time) that decides. Where the name's first image was made stays known: no registry has
    what was built here.
    """
    ref = content.ref(name)
    if ref is None:
        content.set_ref(Ref(name, digest, "pulled"))
    elif ref.digest != digest and _newer(content, digest, ref.digest, came=came):
        content.set_ref(dataclasses.replace(ref, digest=digest, note=""))


def _newer(content: ImageFiles, digest: str, than: str, *, came: bool) -> bool:
    mine, other = content.record(digest), content.record(than)
    if mine is None or other is None:
        return mine is not None  # a name whose image is gone means nothing
    new, old = _when(mine.created), _when(other.created)
    return new > old or (new == old and came)


def _when(created: str) -> datetime:
    """Return an image's time; the beginning of time where it has none that can be read."""
    try:
        when = datetime.fromisoformat(created)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)
