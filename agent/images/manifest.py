"""Manifests, indexes and image configs: JSON of strangers turned into checked values (pure).

Called by the store for every image, however it came. Nothing here trusts a type, a size or
a digest it reads; what does not fit is refused in words.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from agent.errors import Refusal
from agent.images.reference import check_digest
from agent.vocabulary import ImageConfig
from specs import names
from specs.stack import Healthcheck

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MAX_MANIFEST: Final = 4 * 1024 * 1024
MAX_CONFIG: Final = 8 * 1024 * 1024
MAX_LAYERS: Final = 127

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"

_LAYER_TYPES: Final = {
    f"{base}{suffix}": suffix.lstrip("+.") or "tar"
    for base in (OCI_LAYER, "application/vnd.oci.image.layer.nondistributable.v1.tar")
    for suffix in ("", "+gzip", "+zstd")
} | {
    DOCKER_LAYER: "tar",
    f"{DOCKER_LAYER}.gzip": "gzip",
    f"{DOCKER_LAYER}.zstd": "zstd",
}
_PACKINGS: Final = {"tar": "", "gzip": ".gzip", "zstd": ".zstd"}
_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
}


@dataclass(frozen=True, slots=True)
class Blob:
    """A descriptor: what to fetch and how many bytes it must have."""

    digest: str
    size: int
    media_type: str = ""


class BlobSource(Protocol):
    """Whoever gives an image's blobs: a registry, buildah's storage, another node."""

    async def get(self, blob: Blob, path: Path) -> None:
        """Write a blob to ``path``, whole. The bytes are not trusted; the store hashes them."""
        ...


def docker_type(media_type: str) -> str:
    """Return Docker's name for a layer's media type: one manifest holds one family only."""
    return DOCKER_LAYER + _PACKINGS[_LAYER_TYPES[media_type]]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One platform's image: its config and its compressed layers, base first."""

    config: Blob
    layers: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """Several platforms' manifests under one digest."""

    choices: tuple[tuple[str, Blob], ...]  # ("linux/arm64/v8", manifest)

    def choose(self, platform: str) -> Blob:
        """Return the manifest for ``platform``; raises Refusal naming what there is."""
        wanted = platform.split("/")
        for name, blob in self.choices:
            if name.split("/") == wanted:
                return blob
        for name, blob in self.choices:  # linux/arm64 and linux/arm64/v8 mean the same
            if name.split("/")[:2] == wanted[:2] and (len(wanted) == 2 or name.count("/") == 1):
                return blob
        there = ", ".join(sorted({name for name, _ in self.choices})) or "none"
        raise Refusal(f"the image is not made for {platform}; it has: {there}")


def host_platform() -> str:
    """Return this machine's platform in the words of an index, e.g. ``linux/amd64``."""
    machine = os.uname().machine
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return f"linux/{architecture}" + (f"/{variant}" if variant else "")


def _load(data: bytes, what: str, limit: int) -> dict[str, Any]:
    if len(data) > limit:
        raise Refusal(f"the image's {what} has {len(data)} bytes; the limit is {limit}")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise Refusal(f"the image's {what} is not JSON") from None
    if not isinstance(value, dict):
        raise Refusal(f"the image's {what} is not a JSON object")
    return value


def _blob(value: Any, what: str) -> Blob:
    if not isinstance(value, dict):
        raise Refusal(f"the image's {what} is not a descriptor")
    digest, size, media_type = (value.get(key) for key in ("digest", "size", "mediaType"))
    if not isinstance(digest, str):
        raise Refusal(f"the image's {what} has no digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise Refusal(f"the image's {what} has no valid size")
    return Blob(check_digest(digest), size, media_type if isinstance(media_type, str) else "")


def parse_manifest(data: bytes) -> Manifest | Index:
    """Read a manifest or an index as a registry serves it. Raises Refusal."""
    value = _load(data, "manifest", MAX_MANIFEST)
    kind = value.get("mediaType", "")
    if value.get("schemaVersion") != 2:
        raise Refusal("the image has an old (schema 1) manifest; push it again with a newer tool")
    if "manifests" in value and "layers" in value:
        raise Refusal("the image's manifest claims to be an index too")
    if "manifests" in value:
        if kind not in ("", OCI_INDEX, DOCKER_LIST):
            raise Refusal(f"the image index has the unknown type {str(kind)[:80]!r}")
        return _index(value["manifests"])
    if kind not in ("", OCI_MANIFEST, DOCKER_MANIFEST):
        raise Refusal(f"the image manifest has the unknown type {str(kind)[:80]!r}")
    layers = value.get("layers")
    if not isinstance(layers, list) or "config" not in value:
        raise Refusal("the image's manifest has no config or no layers")
    if len(layers) > MAX_LAYERS:
        raise Refusal(f"the image has {len(layers)} layers; the limit is {MAX_LAYERS}")
    blobs = tuple(_blob(layer, f"layer {place}") for place, layer in enumerate(layers, 1))
    for blob in blobs:
        if blob.media_type not in _LAYER_TYPES:
            raise Refusal(f"the image has a layer of the unknown type {blob.media_type[:80]!r}")
    return Manifest(_blob(value["config"], "config"), blobs)


def _index(entries: Any) -> Index:
    if not isinstance(entries, list):
        raise Refusal("the image index is not a list")
    choices = []
    for place, entry in enumerate(entries, 1):
        blob = _blob(entry, f"index entry {place}")
        platform = entry.get("platform")
        if not isinstance(platform, dict):
            continue
        parts = [platform.get(key) for key in ("os", "architecture", "variant")]
        if not all(isinstance(part, str) for part in parts[:2]):
            continue
        choices.append(("/".join(part for part in parts if isinstance(part, str) and part), blob))
    return Index(tuple(choices))


@dataclass(frozen=True, slots=True)
class ImageDocument:
    """An image config: what containers are told, and the layers' uncompressed digests."""

    image: ImageConfig
    diff_ids: tuple[str, ...]
    created: str
    platform: str


def parse_config(data: bytes, digest: str, layers: int) -> ImageDocument:
    """Read an image config; ``digest`` is its manifest's. Raises Refusal."""
    value = _load(data, "config", MAX_CONFIG)
    rootfs = value.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(item, str) for item in diff_ids):
        raise Refusal("the image's config has no list of layers; it is not a container image")
    if len(diff_ids) != layers:
        raise Refusal(
            f"the image's config names {len(diff_ids)} layers, its manifest {layers}: damaged"
        )
    run = value.get("config") or {}
    if not isinstance(run, dict):
        raise Refusal("the image's config is malformed")
    created = value.get("created")
    _check_names(run, value)
    return ImageDocument(
        image=ImageConfig(
            digest=digest,
            entrypoint=_strings(run, "Entrypoint"),
            command=_strings(run, "Cmd"),
            environment=_environment(_strings(run, "Env")),
            user=_string(run, "User"),
            working_dir=_string(run, "WorkingDir"),
            stop_signal=_string(run, "StopSignal"),
            healthcheck=_healthcheck(run.get("Healthcheck")),
            volumes=tuple(sorted(_mapping(run, "Volumes"))),
            labels={key: str(item) for key, item in _mapping(run, "Labels").items()},
        ),
        diff_ids=tuple(check_digest(item) for item in diff_ids),
        created=created if isinstance(created, str) else "",
        platform="/".join(
            part
            for key in ("os", "architecture", "variant")
            if isinstance(part := value.get(key), str) and part
        ),
    )


# Field -> what it has to be where a container is made of it.
_NAMES: Final = {
    "User": names.user_fault,
    "WorkingDir": names.line_fault,
    "StopSignal": names.line_fault,
}


def _check_names(run: Mapping[str, Any], value: Mapping[str, Any]) -> None:
    """Refuse what would mean something else where it ends: a path, a line, an argument."""
    for field, fault in _NAMES.items():
        text = run.get(field)
        if isinstance(text, str) and (why := fault(text)):
            raise Refusal(f"the image's {field}: {why}")
    for target in _mapping(run, "Volumes"):
        # A relative one, and "/", were never honoured and do no harm.
        honoured = target.startswith("/") and target.strip("/")
        if why := (names.target_fault if honoured else names.line_fault)(target):
            raise Refusal(f"the image's Volumes: {why}")
    for name in _environment(_strings(run, "Env")):
        if why := names.line_fault(name):
            raise Refusal(f"the image's Env: {why}")
    for field in ("Env", "Entrypoint", "Cmd"):
        _check_texts(field, _strings(run, field))
    health = run.get("Healthcheck")
    if isinstance(health, dict):
        _check_texts("Healthcheck", _strings(health, "Test"))
    for key, text in _mapping(run, "Labels").items():
        _check_texts("Labels", (key, str(text)))
    for field in ("created", "os", "architecture", "variant"):
        if isinstance(text := value.get(field), str) and (why := names.line_fault(text)):
            raise Refusal(f"the image's {field}: {why}")


def _check_texts(field: str, texts: Iterable[str]) -> None:
    for text in texts:
        if why := names.text_fault(text):
            raise Refusal(f"the image's {field}: {why}")


def _strings(run: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = run.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal(f"the image's {key} is not a list of strings")
    return tuple(value)


def _string(run: Mapping[str, Any], key: str) -> str:
    value = run.get(key) or ""
    if not isinstance(value, str):
        raise Refusal(f"the image's {key} is not a string")
    return value


def _mapping(run: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = run.get(key) or {}
    if not isinstance(value, dict):
        raise Refusal(f"the image's {key} is not a mapping")
    return value


def _environment(lines: tuple[str, ...]) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, _, value in pairs if name}


def _healthcheck(value: Any) -> Healthcheck | None:
    """Read Docker's form: durations in nanoseconds, 0 = the default."""
    if not isinstance(value, dict):
        return None
    test = _strings(value, "Test")
    if not test:
        return None

    def seconds(key: str, default: float) -> float:
        number = value.get(key)
        valid = isinstance(number, int) and not isinstance(number, bool) and number > 0
        return number / 1e9 if valid and isinstance(number, int) else default

    retries = value.get("Retries")
    return Healthcheck(
        test=test,
        interval=seconds("Interval", 30.0),
        timeout=seconds("Timeout", 30.0),
        start_period=seconds("StartPeriod", 0.0),
        start_interval=seconds("StartInterval", 5.0),
        retries=retries if isinstance(retries, int) and retries > 0 else 3,
    )
