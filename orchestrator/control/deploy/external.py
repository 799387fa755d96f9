"""What a file calls external must be there: a missing network or volume is refused, never made.

Secrets and configs are looked up where their versions are (``contents``). What a stack made itself
and now calls external is nobody's from here on: its `down` leaves it. Called by ``release``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.mirror.network_names import name_holder, network_behind
from orchestrator.control.mirror.records import NETWORKS, VOLUMES
from specs import shares

if TYPE_CHECKING:
    from orchestrator.control.deploy.deployment import Deployment
    from orchestrator.control.mirror.records import Volume
    from specs.stack import StackSpec

# Docker makes these on every host; here a service says it without a network.
_DOCKERS = {"host": "network_mode: host", "none": "network_mode: none", "bridge": "no networks:"}


def check_external(deployment: Deployment, spec: StackSpec) -> None:
    """Refuse external networks and volumes that are not there."""
    _networks(deployment, spec)
    _volumes(deployment, spec)


def _networks(deployment: Deployment, spec: StackSpec) -> None:
    there = list(deployment.cluster.networks.values())
    for key, network in spec.networks.items():
        if not network.external:
            other = name_holder(there, deployment.stack, network.name)
            if other is not None and not other.stack:
                deployment.error(
                    f"networks.{key}",
                    f"network {network.name} was made by hand, and is not this stack's",
                    code="in-use",
                    hint="write external: true to join it, or give this one another name:",
                )
            continue
        found = network_behind(there, deployment.stack, network)
        if found is None:
            hint = f"corral network create {network.name}, or deploy the stack that has it first"
            if network.name in _DOCKERS:
                hint = f"it is Docker's own; write {_DOCKERS[network.name]} at the service"
            text = f"external network {network.name} does not exist"
            deployment.error(f"networks.{key}", text, code="missing", hint=hint)
        elif found.stack == deployment.stack:
            deployment.draft.put(NETWORKS, found.model_copy(update={"stack": ""}))


def _check_level(deployment: Deployment, spec: StackSpec, key: str, found: Volume) -> None:
    """Refuse a path of the node, which the file does not show, to services that may have none."""
    for service in spec.services.values():
        level = service.task.security
        mounted = any(m.type == "volume" and m.source == key for m in service.task.mounts)
        if mounted and level != "default" and shares.is_bind(found.options):
            deployment.error(
                f"volumes.{key}",
                f"volume {found.name} is a path of the node, which is not allowed at "
                f"x-corral.security: {level}",
                hint=f"{service.name} mounts it; use a volume without options",
            )


def _volumes(deployment: Deployment, spec: StackSpec) -> None:
    for key, volume in spec.volumes.items():
        found = deployment.cluster.volumes.get(volume.name)
        if found is not None:
            _check_level(deployment, spec, key, found)
        if found is not None and found.removing:
            deployment.error(
                f"volumes.{key}",
                f"volume {volume.name} is being removed",
                code="in-use",
                hint="corral volume ls says what it waits for",
            )
        elif volume.external and found is not None and found.stack == deployment.stack:
            deployment.draft.put(VOLUMES, found.model_copy(update={"stack": ""}))
        elif volume.external and found is None and not volume.per_slot:
            deployment.error(
                f"volumes.{key}",
                f"external volume {volume.name} does not exist",
                code="missing",
                hint=f"corral volume create {volume.name} makes it, corral volume ls shows what "
                "there is",
            )
        elif not volume.external and found is not None and found.stack != deployment.stack:
            whose = f"stack {found.stack}" if found.stack else "somebody, by hand"
            deployment.warn(
                f"volumes.{key}",
                f"volume {volume.name} was made by {whose}; `down -v` of this stack leaves it",
                hint="write external: true to say that this is meant",
            )
