"""Where tasks of a service go among nodes that may run them: ``x-corral.strategy``.

A stack's strategy holds for its services; a service may name its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.compile.values import mapping, placement

if TYPE_CHECKING:
    from specs.compile.verdicts import Verdicts
    from specs.stack import Placement

Json = dict[str, Any]
STRATEGIES = ("spread", "pack")


def strategy(path: str, holder: Json, verdicts: Verdicts) -> str:
    """Return the strategy that ``x-corral`` at ``path`` names; empty where it names none."""
    if holder.get("strategy") == "":
        return ""
    return verdicts.word(holder, f"{path}.strategy", STRATEGIES) or ""


def placed(path: str, raw: Json, stacks: str, verdicts: Verdicts) -> Placement:
    """Return the placement of the service at ``path``; ``stacks``: its stack's strategy."""
    deploy = mapping(raw.get("deploy"))
    found = placement(mapping(deploy.get("placement")))
    own = strategy(f"{path}.x-corral", mapping(raw.get("x-corral")), verdicts)
    everywhere = str(deploy.get("mode") or "").startswith("global")
    if own == "pack" and everywhere:
        verdicts.refuse(
            f"{path}.x-corral.strategy",
            "a global service has a task on every node, which none can be packed on",
            "leave it out, or deploy.mode",
        )
    if (own or stacks) != "pack" or everywhere:
        return found
    if own and not _reserves(raw, deploy):
        verdicts.warn(
            f"{path}.x-corral.strategy",
            "it reserves nothing, so a node is full only by a small share for each task",
            "write what a task needs at deploy.resources.reservations",
            code="packed-without-reservations",
        )
    return found.model_copy(update={"strategy": "pack"})


def _reserves(raw: Json, deploy: Json) -> bool:
    given = mapping(mapping(deploy.get("resources")).get("reservations"))
    return bool(given.get("cpus") or given.get("memory") or raw.get("mem_reservation"))
