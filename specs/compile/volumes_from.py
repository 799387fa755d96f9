"""``volumes_from``: a service mounts what another one does, at the same places.

Named volumes and binds, as they are written; they keep both on one node. What has no name
belongs to the other's container alone: Compose would share that, too, so it is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from specs.compile.values import mapping

if TYPE_CHECKING:
    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]
_Known: TypeAlias = dict[str, list[Json]]


def with_inherited(services: Json, name: str, verdicts: Verdicts) -> Json:
    """Return a service's mapping with the mounts of others it names among its ``volumes``."""
    raw = mapping(services.get(name))
    if not raw.get("volumes_from"):
        return raw
    mounts = _mounts(services, name, verdicts, (name,), {})
    return {**raw, "volumes": [*(raw.get("volumes") or ()), *mounts]}


def _mounts(
    services: Json, name: str, verdicts: Verdicts, chain: tuple[str, ...], known: _Known
) -> list[Json]:
    """Return what a service inherits; ``known`` has those looked at, which many may name."""
    if name in known:
        return known[name]
    raw = mapping(services.get(name))
    taken = {mapping(mount).get("target") for mount in raw.get("volumes") or ()}
    found: list[Json] = []
    for index, entry in enumerate(raw.get("volumes_from") or ()):
        path = f"services.{name}.volumes_from[{index}]"
        other, _, access = str(entry).partition(":")
        if other == "container" or other not in services:
            what = f"container {access}" if other == "container" else f"service {other}"
            hint = "name a service of this file, or mount the same named volume in both"
            if len(chain) == 1:
                verdicts.refuse(path, f"there is no {what} here to take volumes from", hint)
            continue
        if other in chain:
            continue  # a circle of dependencies, which loading refuses
        theirs = mapping(services[other]).get("volumes") or ()
        for mount in (*theirs, *_mounts(services, other, verdicts, (*chain, other), known)):
            if mapping(mount).get("target") in taken:
                continue
            taken.add(mount["target"])
            if mount.get("type") == "volume" and not mount.get("source"):
                verdicts.warn(
                    path,
                    f"the volume of {other} at {mount['target']} has no name and is not shared",
                    "give it one: `data:/path`",
                )
            elif mount.get("type") in ("volume", "bind"):
                found.append({**mount, "read_only": access == "ro" or mount.get("read_only")})
    known[name] = found
    return found
