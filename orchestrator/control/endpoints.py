"""How a service is reached: its endpoints on each network, as nodes are told them.

Built for all services of a network in one go and kept by what they were made of, so that a task
that changes costs its own service and the other tasks of that are the very same objects.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from orchestrator.control.mirror.effective import gateway_key
from orchestrator.control.mirror.network_names import network_behind
from orchestrator.control.mirror.placed import spec_there
from orchestrator.control.mirror.serving import (
    SHOWN,
    answers,
    canary_share,
    comes_back,
    is_leaving,
    stands_by,
)
from orchestrator.control.oneoff_endpoints import aliases_on, joined, ports_through
from specs.wire import Endpoint, ServiceEndpoints

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.effective import Effective, Specs
    from orchestrator.control.mirror.records import NetworkRecord
    from specs.oneoff import OneOff
    from specs.stack import Port
    from specs.task import Task


MadeEndpoints = dict[tuple[str, bool, int], Endpoint]


class Endpoints:
    """Builds and caches services' endpoints."""

    def __init__(self, cluster: Cluster, specs: Specs) -> None:
        self._cluster = cluster
        self._specs = specs
        # By (stack, service), then network and doubting: a task's change drops its own service's.
        self._services: dict[tuple[str, str], dict[tuple[str, bool], ServiceEndpoints]] = {}
        # By task, then network, whether it is ready and its share; with what they were made of.
        self._made: dict[str, tuple[Task, Effective | None, MadeEndpoints]] = {}
        self._network_services: dict[str, set[tuple[str, str]]] = {}
        # By network and doubting, what ``on`` returns.
        self._on: dict[tuple[str, bool], dict[str, ServiceEndpoints]] = {}

    def forget_service(self, stack: str, service: str, networks: Iterable[str]) -> None:
        """Drop cached endpoints of a service one of whose tasks changed.

        ``networks``: on which that one is, or was.
        """
        known = self._services.pop((stack, service), {})
        for network in {*networks, *(network for network, _ in known)}:
            self._network_services.pop(network, None)
            for doubting in (False, True):
                self._on.pop((network, doubting), None)

    def forget_networks(self, name: str) -> None:
        """Drop what was made of networks of that name: which of them is meant may have changed."""
        for network in [n.id for n in self._cluster.networks.values() if n.name == name]:
            for task in self._cluster.by_network.get(network, {}).values():
                self._made.pop(task, None)
            for stack, service in self.services_on(network):
                self.forget_service(stack, service, (network,))

    def forget_all(self) -> None:
        """Drop cached endpoints of everything: a node came or went, or most are doubted."""
        self._services.clear()
        self._made.clear()
        self._network_services.clear()
        self._on.clear()

    # networks

    def network_of(self, effective: Effective, key: str) -> NetworkRecord | None:
        """Return the record behind a network key of the service's spec."""
        wanted = effective.spec.networks.get(key)
        if wanted is None:
            return None
        return network_behind(self._cluster.networks.values(), effective.stack, wanted)

    def gateway(self, effective: Effective) -> NetworkRecord | None:
        key = gateway_key(effective)
        return self.network_of(effective, key) if key is not None else None

    # endpoints

    def services_on(self, network: str) -> list[tuple[str, str]]:
        """Return the services that have an address on a network."""
        found = self._network_services.get(network)
        if found is None:
            found = set(self._cluster.vips.get(network, {}))
            for task_id in self._cluster.by_network.get(network, {}).values():
                task = self._cluster.tasks.get(task_id)
                if task is not None:
                    found.add((task.stack, task.service))
                elif (one := self._cluster.oneoffs.get(task_id)) is not None:
                    found.add((one.stack, one.task.name))
                    if one.aliases:
                        found.add((one.stack, one.service.name))
            self._network_services[network] = found
        return sorted(found)

    def on(self, network: str, *, doubting: bool) -> dict[str, ServiceEndpoints]:
        """Return a network's services as a node is told them, by their keys.

        The very same until one of them changes. Do not change the mapping.
        """
        found = self._on.get((network, doubting))
        if found is None:
            self._build(network, doubting=doubting)
            found = self._on[network, doubting] = {
                f"{stack}/{service}/{network}": self._services[stack, service][network, doubting]
                for stack, service in self.services_on(network)
            }
        return found

    def _build(self, network: str, *, doubting: bool) -> None:
        """Build the missing services of one network in one go: O(tasks on it)."""
        tasks: dict[tuple[str, str], list[Task]] = defaultdict(list)
        beside: dict[tuple[str, str], list[OneOff]] = defaultdict(list)
        for task_id in self._cluster.by_network.get(network, {}).values():
            task = self._cluster.tasks.get(task_id)
            if task is not None:
                tasks[(task.stack, task.service)].append(task)
            elif (one := self._cluster.oneoffs.get(task_id)) is not None:
                beside[(one.stack, one.task.name)].append(one)
                if one.aliases:
                    beside[(one.stack, one.service.name)].append(one)
        for stack, service in self.services_on(network):
            known = self._services.setdefault((stack, service), {})
            if (network, doubting) not in known:
                mine = sorted(tasks.get((stack, service), ()), key=lambda t: (t.slot, t.id))
                known[network, doubting] = self._service(
                    network, stack, service, mine, self._answering(mine, doubting=doubting)
                )
                if found := beside.get((stack, service)):
                    made = known[network, doubting]
                    known[network, doubting] = joined(made, found, self.network_of)

    def _answering(self, tasks: list[Task], *, doubting: bool) -> frozenset[str]:
        """Return which of a service's tasks get traffic: none of a job's.

        One whose node still has to show that it stays is better than none at all.
        """
        newest = max(tasks, key=lambda task: task.release, default=None)
        if newest is not None:
            effective = self._specs.of(newest.stack, newest.release, newest.service)
            if effective is not None and effective.service.is_job:
                return frozenset()
        shown = [
            t
            for t in tasks
            if not is_leaving(t) and t.state in SHOWN and not stands_by(self._cluster, t)
        ]
        found = frozenset(t.id for t in shown if answers(self._cluster, t, doubting=doubting))
        return found or frozenset(t.id for t in shown if comes_back(self._cluster, t))

    def _service(
        self, network: str, stack: str, service: str, tasks: list[Task], ready: frozenset[str]
    ) -> ServiceEndpoints:
        vip = self._cluster.vips.get(network, {}).get((stack, service))
        ports: tuple[Port, ...] = ()
        aliases: set[str] = set()
        serving = [t for t in tasks if not stands_by(self._cluster, t)]
        newest = max((t.release for t in serving or tasks), default=0)
        effective = self._specs.of(stack, newest, service) if newest else None
        endpoints = []
        specs: dict[int, Effective | None] = {}  # by release
        for task in tasks:
            if task.release not in specs:
                specs[task.release] = self._specs.of(stack, task.release, service)
            endpoint = self._endpoint(task, specs[task.release], network, ready=task.id in ready)
            if endpoint is not None:
                endpoints.append(endpoint)
                aliases.update(endpoint.aliases)
        if effective is not None:
            ports = ports_through(effective, network, self.network_of) or ()
        return ServiceEndpoints(
            stack=stack,
            service=service,
            network=network,
            vip=vip.address if vip is not None and _wants_vip(effective) else None,
            aliases=tuple(sorted(aliases)),
            endpoints=tuple(endpoints),
            ports=ports,
        )

    def _endpoint(
        self, task: Task, effective: Effective | None, network: str, *, ready: bool
    ) -> Endpoint | None:
        address = task.addresses.get(network)
        if address is None or is_leaving(task) or task.state not in SHOWN:
            return None
        # Of a thousand tasks one changes; the others' endpoints are the very same objects.
        known = self._made.get(task.id)
        if known is None or known[0] is not task or known[1] is not effective:
            if len(self._made) > 2 * len(self._cluster.tasks) + 64:
                self._made.clear()
            known = self._made[task.id] = (task, effective, {})
        share = canary_share(self._cluster, task) if task.turn == "beside" else 0
        found = known[2].get((network, ready, share))
        if found is None:
            made = self._make_endpoint(task, effective, network, address, ready=ready, share=share)
            found = known[2][network, ready, share] = made.to_keep()
        return found

    def _make_endpoint(
        self,
        task: Task,
        effective: Effective | None,
        network: str,
        address: str,
        *,
        ready: bool,
        share: int,
    ) -> Endpoint:
        aliases: tuple[str, ...] = ()
        hostname = ""
        if effective is not None:
            hostname = spec_there(self._cluster, task, effective).hostname or ""
            aliases = aliases_on(effective, network, self.network_of)
        return Endpoint(
            task=task.id,
            name=task.name,
            node=task.node or "",
            address=address,
            ready=ready,
            share=share,
            aliases=aliases,
            hostname=hostname,
        )


def _wants_vip(effective: Effective | None) -> bool:
    service = effective.service if effective is not None else None
    return service is None or (service.endpoint_mode == "vip" and not service.is_job)
