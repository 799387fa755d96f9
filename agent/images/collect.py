"""Delete images, layers and blobs that nothing refers to any more.

Called by the store's prune and forget, alone: the store's lock keeps additions out meanwhile.
The order is names, records, layers, blobs, so that a kill in the middle leaves garbage, never
an image that looks complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.images.reference import parse
from specs.images import ForgottenImages

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agent.images.content import ImageFiles, ImageRecord
    from agent.images.layers import LayerStore
    from agent.images.rootfs import RootFs
    from specs.images import StackImage


def collect(
    content: ImageFiles, layers: LayerStore, rootfs: RootFs, keep: Collection[str], *, named: bool
) -> tuple[str, ...]:
    """Remove every image but those in ``keep``, in use or (unless ``named``) named. Blocks."""
    with content.using(alone=True):
        refs = content.refs()
        kept = set(keep) | set(rootfs.tasks().values())
        if not named:
            kept |= {ref.digest for ref in refs}
        records = content.records()
        removed = tuple(record.digest for record in records if record.digest not in kept)
        for ref in refs:
            if ref.digest not in kept:
                content.remove_ref(ref.name)
        for digest in removed:
            content.remove_record(digest)
        _sweep(content, layers, [record for record in records if record.digest in kept])
    return removed


def forget(
    content: ImageFiles,
    layers: LayerStore,
    rootfs: RootFs,
    asked: Collection[StackImage],
    used: Mapping[str, str],
) -> ForgottenImages:
    """Take names and digests away that nobody uses, and what only they held. Blocks.

    ``used``: digest -> who uses it, in words. An image with another name only loses this one.
    All else stays, also what has no name: an older release of another stack may go back to it.
    """
    with content.using(alone=True):
        users = {digest: f"task {task}" for task, digest in rootfs.tasks().items()} | dict(used)
        names = {ref.name: ref.digest for ref in content.refs()}
        records = content.records()
        there = {record.digest for record in records}
        meant = {one.name: names.get(parse(one.name).name, "") for one in asked}
        mine = {
            one.name: {*one.digests, meant[one.name]} & (there | {meant[one.name]}) - {""}
            for one in asked
        }
        untagged = [name for name, digest in meant.items() if digest and digest not in users]
        for name in untagged:
            content.remove_ref(parse(name).name)
            names.pop(parse(name).name, None)
        others = {digest: name for name, digest in names.items()}
        gone = {d for found in mine.values() for d in found if d not in users and d not in others}
        for digest in gone & there:
            content.remove_record(digest)
        if gone & there:
            _sweep(content, layers, [record for record in records if record.digest not in gone])
    kept: dict[str, str] = {}
    for name, found in mine.items():
        by = [users[digest] for digest in sorted(found) if digest in users]
        also = [parse(others[digest]).familiar for digest in sorted(found) if digest in others]
        if by:
            kept[name] = f"{by[0]} uses it"
        elif also and name not in untagged:
            kept[name] = f"it is {also[0]} too"
    went = (name for name, found in mine.items() if found and name not in kept)
    return ForgottenImages(removed=tuple(went), kept=kept)


def forget_halves(content: ImageFiles, layers: LayerStore, rootfs: RootFs) -> None:
    """Remove what was fetched of images that never became whole. Blocks.

    Raises Later while images are being added.
    """
    with content.using(alone=True):
        records = content.records()
        whole = {record.digest for record in records}
        if whole.issuperset(rootfs.tasks().values()):  # else one that runs is to be fetched anew
            _sweep(content, layers, records)


def _sweep(content: ImageFiles, layers: LayerStore, left: Collection[ImageRecord]) -> None:
    """Remove the layers and blobs that none of these images has."""
    used_layers = {diff_id for record in left for diff_id in record.diff_ids}
    used_blobs = {
        digest
        for record in left
        for digest in (record.digest, record.manifest, record.config, *record.blobs)
    }
    for path in content.layers.iterdir():
        if f"sha256:{path.name}" not in used_layers:
            layers.remove(f"sha256:{path.name}")
    for path in content.blobs.iterdir():
        if f"sha256:{path.name}" not in used_blobs:
            path.unlink(missing_ok=True)
