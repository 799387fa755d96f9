"""Delete images, layers and blobs that nothing refers to any more.

Called by the store's prune, alone: the store's lock keeps additions out meanwhile. The order
is names, records, layers, blobs, so that a kill in the middle leaves garbage, never an image
that looks complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.images.content import ImageFiles
    from agent.images.layers import LayerStore
    from agent.images.rootfs import RootFs


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
        left = [record for record in records if record.digest in kept]
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
        return removed
