"""What keeps a service on one node: named volumes and paths, for `corral lint` and `up` to say.

Which node that is the controller decides when the first task gets there (``scheduler.place``); an
absolute path that is on every node of the service keeps it on none (``scheduler.paths``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from specs import paths
from specs.shares import is_shared

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from specs.stack import Mount, ServiceSpec, StackSpec


def pins(spec: StackSpec) -> dict[str, tuple[str, ...]]:
    """Return what keeps each service on one node; services that nothing keeps are left out."""
    found = {}
    for name, service in spec.services.items():
        whats = (_pin(spec.seen_by(name), service, mount) for mount in service.task.mounts)
        if what := tuple(dict.fromkeys(filter(None, whats))):
            found[name] = what
    return found


def sentence(found: Mapping[str, Iterable[str]]) -> str:
    """Return who stays where: ``db (volume shop_data), web (path /srv/html)``."""
    return ", ".join(f"{name} ({', '.join(whats)})" for name, whats in sorted(found.items()))


def _pin(spec: StackSpec, service: ServiceSpec, mount: Mount) -> str:
    source = mount.source or ""
    if mount.type == "volume" and source:
        volume = spec.volumes.get(source)
        elsewhere_too = volume is not None and (
            volume.per_slot or volume.per_node or is_shared(volume.options)
        )
        if elsewhere_too or service.per_node:  # of which each node has its own
            return ""
        return f"volume {volume.name if volume is not None else source}"
    if mount.type != "bind":
        return ""
    if mount.relative:
        return f"path {source} of the machine with the file"
    each = service.per_node or "{{" in source  # another path for each task or node
    if mount.read_only or each or paths.never_made(source):
        return ""
    return f"path {source}, unless every node has it"
