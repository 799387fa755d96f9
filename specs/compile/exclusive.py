"""``x-corral.exclusive``: what a service may not ask for whose one copy runs under a lease.

Part of the compiler of stacks. Whatever would have a second copy begin beside the first is
refused, and so is what keeps others from telling a stale copy's packets from its machine's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.compile.values import mapping, yes

if TYPE_CHECKING:
    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]


def exclusive(path: str, raw: Json, verdicts: Verdicts) -> bool:
    """Say whether the service at ``path`` is exclusive; refuse what does not go with it."""
    if not yes(mapping(raw.get("x-corral")).get("exclusive")):
        return False
    deploy = mapping(raw.get("deploy"))
    for key, count in (
        (f"{path}.scale", raw.get("scale")),
        (f"{path}.deploy.replicas", deploy.get("replicas")),
    ):
        if count is not None and str(count).isdigit() and int(count) > 1:
            verdicts.refuse(key, f"an exclusive service has one copy, not {count}", "write 1")
    if deploy.get("mode") in ("global", "global-job"):
        verdicts.refuse(
            f"{path}.deploy.mode",
            "an exclusive service has one copy, not one on every node",
            "leave mode out",
        )
    for config in ("update_config", "rollback_config"):
        if mapping(deploy.get(config)).get("order") == "start-first":
            verdicts.refuse(
                f"{path}.deploy.{config}.order",
                "of an exclusive service the old copy ends before the new one starts",
                "write stop-first, or leave it out",
            )
    if raw.get("network_mode") == "host":
        verdicts.refuse(
            f"{path}.network_mode",
            "what an exclusive service sends must be told from what its machine sends",
            "leave network_mode out, and publish its ports",
        )
    elif str(raw.get("network_mode") or "").startswith("service:"):
        verdicts.refuse(
            f"{path}.network_mode",
            "an exclusive service has a network of its own: a stale copy is known by its address",
            "leave network_mode out",
        )
    return True
