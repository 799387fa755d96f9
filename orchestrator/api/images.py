"""Images a removed stack leaves behind: which they are, who else uses them, and their end.

``down --rmi`` asks for them before the stack goes, and has them removed after its tasks have.
Every node is asked at once; one that does not answer is named, and what it has stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.api.everywhere import ask_each
from orchestrator.api.routes import flag
from orchestrator.api.stacks import find
from orchestrator.control.mirror.released import newest_spec, spec_at, spec_of
from specs.images import ForgetImages, ImageLeft, ImagesLeft, StackImage, StackImages
from specs.references import built_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web

    from orchestrator.api.routes import ApiParts
    from orchestrator.contracts import Mirror

ASK = 40.0  # seconds: a node waits until nothing is being pulled, and deletes layers
OLDER = "its agent is of an older version that removes no images: corral upgrade"


async def images(parts: ApiParts, request: web.Request, _: None) -> StackImages:
    stack = find(parts, request).name
    return StackImages(images=images_of(parts.cluster, stack, built=flag(request, "built")))


async def forget(parts: ApiParts, _request: web.Request, body: StackImages) -> ImagesLeft:
    """Remove images on every node; what another stack or a one-off has stays."""
    asked = ForgetImages(images=body.images, keep=users(parts.cluster))
    if not asked.images:
        return ImagesLeft()

    nodes = sorted(parts.cluster.nodes.values(), key=lambda node: node.name)
    answers, reasons = await ask_each(
        [node.id for node in nodes],
        lambda node: parts.agents.forget_images(node, asked),
        seconds=ASK,
        older=OLDER,
    )
    rows: list[ImageLeft] = []
    for node in nodes:
        done = answers.get(node.id)
        if done is None:
            rows.append(ImageLeft(node=node.name, reason=reasons[node.id]))
            continue
        rows += [ImageLeft(node=node.name, image=image) for image in done.removed]
        rows += [ImageLeft(node=node.name, image=i, reason=why) for i, why in done.kept.items()]
    return ImagesLeft(rows=tuple(rows))


def images_of(cluster: Mirror, stack: str, *, built: bool) -> tuple[StackImage, ...]:
    """Return the images of a stack's services; ``built``: only those with no name of the user's.

    Names are those of the newest release and of what runs. With each go the digests it had in
    every release that is kept: an earlier build has no name any more.
    """
    record = cluster.stacks.get(stack)
    specs = [newest_spec(cluster, record), record and spec_at(cluster, stack, record.running)]
    services = [one for spec in specs if spec for one in spec.services.values()]
    names = {
        one.task.image
        for one in services
        if not built or (one.build is not None and one.task.image == built_name(stack, one.name))
    }
    digests: dict[str, set[str]] = {name: set() for name in names if name}
    for owner, name, digest in _pinned(cluster):
        if owner == stack and name in digests:
            digests[name].add(digest)
    return tuple(
        StackImage(name=name, digests=tuple(sorted(digests[name]))) for name in sorted(digests)
    )


def users(cluster: Mirror) -> dict[str, str]:
    """Return who has each digest, of what is not being removed: other stacks, and one-offs.

    Every release that is kept counts: nobody could pull again what was built.
    """
    found = {
        digest: f"stack {owner}"
        for owner, _, digest in _pinned(cluster)
        if cluster.stacks[owner].desired != "removed"
    }
    for one in cluster.oneoffs.values():
        if one.shown:
            found.setdefault(one.service.task.image_digest, f"{one.task.name} (corral run)")
    found.pop("", None)
    return found


def _pinned(cluster: Mirror) -> Iterator[tuple[str, str, str]]:
    """Yield (stack, image, digest) of every service of every release of the stacks there are."""
    for (owner, _), release in sorted(cluster.releases.items()):
        spec = spec_of(cluster, release)
        if owner not in cluster.stacks or spec is None:
            continue
        for key, service in spec.services.items():
            digest = release.images.get(key, service.task.image_digest)
            if digest:
                yield owner, service.task.image, digest
