"""The tasks of exclusive services, and which of their addresses are fenced off. Pure, kept.

Looked for only where some spec has such a service; what was found is kept until a record changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from specs.states import FINAL, Desired

if TYPE_CHECKING:
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.effective import Specs
    from specs.task import Task


class ExclusiveTasks:
    """What the mirror has of exclusive services."""

    def __init__(self, cluster: Cluster, specs: Specs) -> None:
        self._cluster = cluster
        self._specs = specs
        self._parts: dict[str, bool] = {}  # content hash -> whether it has an exclusive service
        self._services: tuple[int, dict[str, list[Task]]] = (-1, {})
        self._fenced: tuple[int, dict[str, tuple[str, ...]]] = (-1, {})

    def services(self) -> dict[str, list[Task]]:
        """Return the exclusive tasks on nodes by STACK/SERVICE."""
        at, known = self._services
        if at == self._cluster.changes:
            return known
        found: dict[str, list[Task]] = {}
        for stack in self._stacks():
            for task in self._cluster.by_stack.get(stack, {}).values():
                if task.node is not None and self._is_exclusive(task):
                    found.setdefault(f"{stack}/{task.service}", []).append(task)
        self._services = (self._cluster.changes, found)
        return found

    def fenced(self) -> dict[str, tuple[str, ...]]:
        """Return, by network, the addresses of copies whose place another has taken.

        Whatever such a copy sends later, because its machine was asleep, nobody takes.
        """
        at, known = self._fenced
        if at == self._cluster.changes:
            return known
        found: dict[str, set[str]] = {}
        for tasks in self.services().values():
            for task in tasks:
                if task.state not in FINAL and any(_instead(other, task) for other in tasks):
                    for network, address in task.addresses.items():
                        found.setdefault(network, set()).add(address)
        sorted_ = {network: tuple(sorted(addresses)) for network, addresses in found.items()}
        self._fenced = (self._cluster.changes, sorted_)
        return sorted_

    def _stacks(self) -> list[str]:
        parts = self._cluster.parts
        if len(self._parts) > 2 * len(parts) + 64:
            self._parts = {key: has for key, has in self._parts.items() if key in parts}
        for key, spec in parts.items():
            if key not in self._parts:
                self._parts[key] = any(s.task.exclusive for s in spec.services.values())
        return sorted({spec.name for key, spec in parts.items() if self._parts[key]})

    def _is_exclusive(self, task: Task) -> bool:
        effective = self._specs.of(task.stack, task.release, task.service)
        return effective is not None and effective.task.exclusive


def _instead(other: Task, task: Task) -> bool:
    """Say whether one copy may run in the place of another, which was not heard to have ended."""
    newer = (other.created_at, other.id) > (task.created_at, task.id)
    return newer and other.desired is Desired.RUNNING and other.state not in FINAL
