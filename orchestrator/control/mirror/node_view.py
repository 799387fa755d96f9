"""One node as everybody here sees it: whether it answers, what role it has, what it is.

A node's condition is observed and its record is stored; both are joined here and nowhere
else, so that planning, the rows people read and the scheduler cannot disagree about it.
Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from scheduler.view import NodeUse, NodeView
from specs.node import successor
from specs.states import HEARD, NodeStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.contracts import Mirror
    from specs.node import Node

LEFT = "which left the cluster"


def node_status(cluster: Mirror, node: str | None) -> NodeStatus:
    """Return how the node answers; a node without a record is down.

    A task that has no node yet has nobody to wait for: that reads as ready.
    """
    if node is None:
        return NodeStatus.READY
    if node not in cluster.nodes:
        return NodeStatus.DOWN
    condition = cluster.conditions.get(node)
    return condition.status if condition is not None else NodeStatus.UNKNOWN


def former(cluster: Mirror, node: str, called: str) -> str:
    """Return a node that left in words; ``called``: its name, which its successor has now."""
    heir = successor(cluster.nodes.values(), node)
    return f"the machine that {heir.name} replaces" if heir else f"{called or node}, {LEFT}"


def node_role(node: Node) -> str:
    """Return what ``node.role`` compares with: the controller reaches its own node without SSH."""
    return "worker" if node.address else "manager"


def availability(node: Node) -> Literal["active", "pause", "drain"]:
    """Return whether the node takes tasks; one that is being removed is drained first."""
    return "drain" if node.removing else node.availability


def node_view(
    cluster: Mirror,
    node: Node,
    *,
    use: NodeUse | None = None,
    failures: Mapping[str, int] | None = None,
    crowded: frozenset[str] = frozenset(),
) -> NodeView:
    """Return the node in the scheduler's words, with what is taken of it where that matters."""
    condition = cluster.conditions.get(node.id)
    facts = node.facts
    return NodeView(
        id=node.id,
        name=node.name,
        status=node_status(cluster, node.id),
        availability=availability(node),
        reason=condition.reason if condition is not None else "",
        hostname=facts.hostname,
        role=node_role(node),
        labels=node.labels,
        os=facts.os,
        arch=facts.arch,
        cpus=facts.cpus,
        memory=facts.memory,
        wire=facts.wire,
        listening=frozenset(facts.listening),
        images=frozenset(facts.images),
        failures=failures or {},
        crowded=crowded,
        use=use or NodeUse(),
    )


def heard(cluster: Mirror) -> list[str]:
    """Return the ids of the members that answer, ready or not, in order."""
    return sorted(
        n for n, c in cluster.conditions.items() if c.status in HEARD and n in cluster.nodes
    )


def node_of_client(nodes: Mapping[str, Node], boot_id: str) -> str | None:
    """Return the id of the node with that boot id; of the only node where none was told."""
    for node in nodes.values():
        if boot_id and node.facts.boot_id == boot_id:
            return node.id
    if not boot_id and len(nodes) == 1:
        return next(iter(nodes))
    return None


def node_words(node: Node) -> dict[str, str]:
    """Return Swarm's words for a node (:mod:`specs.templates`)."""
    return {
        "Node.ID": node.id,
        "Node.Hostname": node.facts.hostname or node.name,
        "Node.Platform.OS": node.facts.os,
        "Node.Platform.Architecture": node.facts.arch,
    }
