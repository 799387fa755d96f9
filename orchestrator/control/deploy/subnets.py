"""Subnets a release asks for that nodes route elsewhere: refused before anything is made of them.

Every node routes a network's pool into the overlay. Where the subnet covers the hosts' own LAN, a
node could not be reached by its peers (nor by anybody) any more, so that is said when the release
is made, with the node, its route and a range to write instead. What exists already is warned of
only: its stack must stay possible to update. Called by ``release``.
"""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address
from typing import TYPE_CHECKING

from orchestrator.control.mirror.network_names import network_behind
from specs import subnets
from specs.subnets import Taken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.control.deploy.deployment import Deployment
    from orchestrator.control.mirror.cluster import Cluster
    from specs.stack import NetworkSpec, StackSpec


def check_subnets(deployment: Deployment, spec: StackSpec) -> None:
    """Refuse subnets that overlap what somebody has already."""
    cluster = deployment.cluster
    if not any(_subnet(network) for network in spec.networks.values()):
        return  # every address of every node is looked at
    elsewhere = taken_from(cluster, deployment.stack)
    asked: list[Taken] = []
    for key, network in spec.networks.items():
        subnet = _subnet(network)
        if subnet is None:
            continue
        taken = [*elsewhere, *asked]
        found = subnets.hit(subnet, taken)
        asked.append(Taken(subnet, f"{subnet} of network {key} of this file"))
        if found is None:
            continue
        path = f"networks.{key}.ipam.config[0].subnet"
        text = f"subnet {subnet} of network {key} overlaps {found.whose}"
        others = [other for other in spec.networks.values() if other is not network]
        rest = (Taken(net, "") for other in others if (net := _subnet(other)) is not None)
        instead = subnets.free(subnet, [*taken, *rest])
        hint = f"write {instead}, which is free, " if instead else "write another range, "
        hint += "or no subnet at all: corral takes one"
        if network_behind(list(cluster.networks.values()), deployment.stack, network) is not None:
            deployment.warn(path, text, hint=hint)
        else:
            deployment.error(path, text, code="subnet-in-use", hint=hint)


def taken_from(cluster: Cluster, stack: str | None) -> list[Taken]:
    """Return what a subnet of the stack's (None = of nobody's) must not overlap."""
    return [*_nodes(cluster), *_ranges(cluster), *_networks(cluster, stack)]


def _subnet(network: NetworkSpec) -> IPv4Network | None:
    if network.external or not network.subnets:
        return None
    return IPv4Network(network.subnets[0], strict=False)


def _nodes(cluster: Cluster) -> Iterator[Taken]:
    for node in cluster.nodes.values():
        for text in (node.underlay, *node.facts.addresses):
            if not text or ":" in text:
                continue
            address = ip_address(text.split("/")[0])
            if not any(address in IPv4Network(one) for one in cluster.ranges):
                yield Taken(IPv4Network(str(address)), f"{address}, an address of node {node.name}")
        for text in node.facts.routes:
            found = subnets.route(text)
            if found is not None:
                whose = f"{found.network}, which node {node.name} routes to {found.whose}"
                yield Taken(found.network, whose)


def _ranges(cluster: Cluster) -> Iterator[Taken]:
    for text in cluster.ranges:
        whose = f"{text}, the cluster's own range, which other networks get theirs from"
        yield Taken(IPv4Network(text), whose)


def _networks(cluster: Cluster, stack: str | None) -> Iterator[Taken]:
    """Yield the pools of other stacks; what this one had under another subnet makes room."""
    for network in cluster.networks.values():
        if network.stack != stack and not network.retired:
            for pool in network.pools:
                yield Taken(IPv4Network(pool), f"{pool} of network {network.name}")
