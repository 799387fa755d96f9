"""Secrets and configs of a release: sealed, versioned, unchanged ones kept.

Every version has a random id; whether a value changed is told by a keyed fingerprint,
so neither ids nor the store say anything about the value. Called by ``release``.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from orchestrator.control.mirror.records import CONTENTS, StoredContent, fingerprint_of
from orchestrator.store.base import MAX_VALUE
from specs.ids import new_id
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from orchestrator.control.deploy.deployment import Deployment
    from specs.stack import ContentSpec, FileRef, StackSpec

LARGEST_CONTENT = MAX_VALUE // 2  # base64 and the record's own keys must fit a value


def with_contents(deployment: Deployment, spec: StackSpec) -> StackSpec:
    """Store new versions of secrets and configs and put their ids where they are used."""
    # Not those made by hand: they may be taken away while the stack goes on.
    known = {
        (c.secret, c.fingerprint): c.id for c in deployment.cluster.contents.values() if c.stack
    }
    versions: dict[tuple[bool, str], str] = {}
    sections: dict[str, dict[str, ContentSpec]] = {}
    for kind, secret in (("secrets", True), ("configs", False)):
        section = dict(getattr(spec, kind))
        for key, item in section.items():
            content = _version(deployment, kind, key, item, known, secret=secret)
            versions[(secret, key)] = content
            section[key] = item.model_copy(update={"content": content})
        sections[kind] = section
    services = {
        name: service.model_copy(
            update={
                "task": service.task.model_copy(
                    update={
                        "secrets": _filled(service.task.secrets, versions, secret=True),
                        "configs": _filled(service.task.configs, versions, secret=False),
                    }
                )
            }
        )
        for name, service in spec.services.items()
    }
    return spec.model_copy(update={**sections, "services": services})


def _filled(
    refs: tuple[FileRef, ...], versions: dict[tuple[bool, str], str], *, secret: bool
) -> tuple[FileRef, ...]:
    return tuple(
        ref.model_copy(update={"content": versions.get((secret, ref.source), ref.content)})
        for ref in refs
    )


def _version(
    deployment: Deployment,
    kind: str,
    key: str,
    item: ContentSpec,
    known: dict[tuple[bool, str], str],
    *,
    secret: bool,
) -> str:
    encoded = deployment.request.contents.get(f"{kind}.{key}")
    what = "secret" if secret else "config"
    if encoded is None or item.external:
        return _existing(deployment, kind, key, item, secret=secret)
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        deployment.error(f"{kind}.{key}", f"the contents of {what} {key} are not base64")
        return ""
    if len(data) > LARGEST_CONTENT:
        deployment.error(
            f"{kind}.{key}",
            f"{what} {key} is {len(data)} bytes; at most {LARGEST_CONTENT} are possible",
            hint="keep large files in an image or a volume",
        )
        return ""
    fingerprint = fingerprint_of(deployment.sealer, data, secret=secret)
    found = known.get((secret, fingerprint))
    if found is not None:
        return found
    content_id = new_id("s" if secret else "c", now=deployment.wall, rng=deployment.rng)
    sealed = base64.b64encode(deployment.sealer.seal(data)).decode()
    reached("secret.after_encrypt")
    deployment.draft.put(
        CONTENTS,
        StoredContent(
            id=content_id,
            name=item.name,
            stack=deployment.stack,
            secret=secret,
            fingerprint=fingerprint,
            sealed=sealed,
            size=len(data),
            created_at=deployment.wall,
        ),
    )
    known[(secret, fingerprint)] = content_id
    return content_id


def _existing(
    deployment: Deployment, kind: str, key: str, item: ContentSpec, *, secret: bool
) -> str:
    """Return the newest stored version: of an external one, or of one the request left out.

    What somebody made by hand comes before what another stack's file calls so.
    """
    found = [
        c
        for c in deployment.cluster.contents.values()
        if c.name == item.name
        and c.secret == secret
        and (item.external or c.stack == deployment.stack)
    ]
    if found:
        by_hand = item.external
        return max(found, key=lambda c: (by_hand and not c.stack, c.created_at, c.id)).id
    what = "secret" if secret else "config"
    if item.external:
        deployment.error(
            f"{kind}.{key}",
            f"external {what} {item.name} does not exist",
            code="missing",
            hint=f"corral {what} create {item.name} FILE makes it, corral {what} ls shows what "
            "there is",
        )
    else:
        deployment.error(f"{kind}.{key}", f"the contents of {what} {key} were not sent")
    return ""
