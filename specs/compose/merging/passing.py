"""Give what an included file passes through its value: its own env files count there only.

In the project itself this is done once everything is merged (``project.environment``); what an
include leaves open is looked up there, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from specs.compose.reading.tree import Map, Seq

if TYPE_CHECKING:
    from collections.abc import Mapping


def pass_through(tree: Map, variables: Mapping[str, str]) -> None:
    """Fill in the bare names in the services' ``environment``, in place."""
    services = tree.get("services")
    if not isinstance(services, Map):
        return
    for service in services.values():
        entries = service.get("environment") if isinstance(service, Map) else None
        if isinstance(entries, Map):
            for name, value in entries.items():
                if value is None and name in variables:
                    entries[name] = variables[name]
        elif isinstance(entries, Seq):
            for index, item in enumerate(entries):
                if isinstance(item, str) and "=" not in item and item in variables:
                    entries[index] = f"{item}={variables[item]}"
