"""Addresses that services ask for by number: of each stack kept until it has another spec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specs.names import ipv4_fault

if TYPE_CHECKING:
    from orchestrator.contracts import Mirror
    from specs.stack import NetworkSpec, StackSpec

Asked = tuple[str, "NetworkSpec", str]  # stack, network, address


class FixedAddresses:
    """Asked in every pass, for every network; a thousand services name hardly any address."""

    def __init__(self, cluster: Mirror) -> None:
        self._cluster = cluster
        self._known: dict[str, tuple[StackSpec, list[Asked]]] = {}  # by stack

    def all(self) -> list[Asked]:
        """Return (stack, network, address) for every fixed address of a newest release."""
        found: list[Asked] = []
        stacks = self._cluster.stacks
        for name, stack in stacks.items():
            release = self._cluster.releases.get((name, stack.release))
            spec = self._cluster.parts.get(release.spec) if release is not None else None
            if spec is None:
                continue
            known = self._known.get(name)
            if known is None or known[0] is not spec:
                known = self._known[name] = (spec, _asked(name, spec))
            found += known[1]
        if len(self._known) > 2 * len(stacks) + 64:
            self._known = {name: one for name, one in self._known.items() if name in stacks}
        return found


def _asked(stack: str, spec: StackSpec) -> list[Asked]:
    found = []
    for service in spec.services.values():
        asked = [a for a in service.task.networks if a.ipv4_address is not None]
        networks = spec.seen_by(service.name).networks if asked else {}
        for attachment in asked:
            wanted = networks.get(attachment.network)
            fixed = attachment.ipv4_address
            if fixed is not None and wanted is not None and not ipv4_fault(fixed):
                found.append((stack, wanted, fixed))
    return found
