"""How a service is updated, from the model's fields back to the keys of the file. Pure."""

from __future__ import annotations

from typing import Any

from specs.kit.amounts import as_set


def as_written(service: dict[str, Any]) -> None:
    """Put what ``x-corral`` says of updates in place of the fields made of it, in JSON values.

    ``service``: a ServiceSpec's, changed in place: what is not asked for is not there.
    """
    service["depends_deadline"] = {
        other: as_set(seconds)
        for other, edge in service["depends_on"].items()
        if (seconds := edge.pop("deadline"))
    }
    for update in (service["update"], service["rollback"]):
        kept = update.pop("keep_old")
        if update.pop("blue_green"):
            update |= {"blue_green": "blue-green", "keep_old": as_set(kept)}
    if (canary := service["update"]["canary"]) is not None:
        seconds, way = as_set(canary.pop("seconds")), canary["promote"]
        told = {"after": f"after {seconds}", "healthy": f"healthy-for {seconds}"}
        canary["promote"] = told.get(way, way)
        weight = canary.pop("weight")
        if weight:
            canary["weight"] = f"{weight}%"
