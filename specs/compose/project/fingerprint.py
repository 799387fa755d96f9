"""A stable hash of each service: the same on every machine, in every release of corral.

``corral config --hash`` prints it. Two services have the same hash when their
containers would be the same: it covers the service and the content of the configs
it mounts, because a changed configuration is a changed service. Contents of secrets
stay out of it, since a printed hash would let anybody test guesses.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from specs.compose.project.content import read_contents

if TYPE_CHECKING:
    from specs.compose.project.model import Project

# What changes how many there are, when they start or where the image comes from, but
# not the container itself.
_APART = frozenset({"build", "pull_policy", "scale", "depends_on", "profiles", "attach", "develop"})
_VERSION = b"corral-service-1\n"  # changes when the same service would get another hash


def service_hashes(project: Project) -> dict[str, str]:
    """Return service name -> hex sha256. Raises SpecError when a config cannot be read."""
    contents = read_contents(project, ("configs",))
    return {
        name: service_hash(service, project.model, contents)
        for name, service in sorted(project.model["services"].items())
    }


def service_hash(service: dict[str, Any], model: dict[str, Any], contents: dict[str, bytes]) -> str:
    """Return the hash of one service of a canonical model."""
    body = {key: value for key, value in service.items() if key not in _APART}
    if body.get("deploy"):
        body["deploy"] = {
            key: value
            for key, value in body["deploy"].items()
            if key not in ("replicas", "update_config", "rollback_config")
        }
    configs = {}
    for item in service.get("configs") or ():
        key = item.get("source", "")
        data = contents.get(f"configs.{key}")
        configs[key] = (
            hashlib.sha256(data).hexdigest()
            if data is not None
            else (model.get("configs", {}).get(key) or {}).get("name", key)
        )
    made = {"service": body, "configs": configs}
    text = json.dumps(made, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(_VERSION + text.encode("utf-8", "surrogateescape")).hexdigest()
