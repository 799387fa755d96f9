"""A node: what the machine is, what it can do, and what people said about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from specs.base import Model
from specs.states import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class NodeFacts(Model):
    """What an agent says of its machine in its hello; probed at start.

    ``missing`` holds one sentence per kernel feature or tool that is not there.
    ``listening`` are ports local processes hold, as ``"80/tcp"``.
    """

    hostname: str = ""
    boot_id: str = ""
    os: str = "linux"
    arch: str = "amd64"
    kernel: str = ""
    cpus: float = 1.0
    memory: int = 0
    agent_version: str = ""
    build: str = ""  # what the agent runs from, as node add sent it: 0.2.0-0123456789ab; "": else
    python: str = ""
    runtime: str = ""  # e.g. "crun 1.8.1"
    cgroups: Literal["v1", "v2", "hybrid"] = "v2"
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()  # the machine's own IPv4 and IPv6 addresses
    listening: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()  # its IPv4 networks but the default, as "192.0.2.0/24 eth0"
    images: tuple[str, ...] = ()  # manifest digests complete on this node
    wire: int = 1  # the newest version of the wire the agent speaks
    unread: tuple[str, ...] = ()  # what it keeps and cannot read, by name, and why
    cramped: str = ""  # why no further image fits on its disk

    def with_unread(self, unread: tuple[str, ...], warnings: tuple[str, ...] = ()) -> NodeFacts:
        """Return the facts with what the agent keeps and cannot read, and more warnings."""
        update = {"unread": unread, "warnings": (*self.warnings, *warnings)}
        return self.model_copy(update=update)


class Node(Model):
    """The store's record of one node."""

    id: str
    name: str
    address: str = ""  # user@host[:port], empty = the local agent socket
    host_key: str = ""  # pinned, OpenSSH public key format
    underlay: str = ""  # address other nodes reach it by (VXLAN, image blobs)
    mtu: int = 0  # of the device with that address, as its agent last said
    underlay_asked: bool = False  # somebody named that address: it is not changed by itself
    overlay: str = ""  # its own address inside the overlay
    labels: dict[str, str] = Field(default_factory=dict)
    availability: Literal["active", "pause", "drain"] = "active"
    facts: NodeFacts = NodeFacts()
    joined_at: float = 0.0
    removing: bool = False
    replaces: tuple[str, ...] = ()  # ids of the lost nodes whose place it took, the last first

    def instead_of(self, lost: Node) -> Node:
        """Return the node in the place of one that is lost: its name, labels, availability."""
        update = {
            "name": lost.name,
            "labels": lost.labels,
            "availability": lost.availability,
            "replaces": (lost.id, *lost.replaces),
        }
        return self.model_copy(update=update)

    def replacing(self, lost: str) -> Node:
        """Return the node as one that took the place of another, by its id."""
        return self.model_copy(update={"replaces": (lost, *self.replaces)})

    def with_facts(self, facts: NodeFacts) -> Node:
        """Return the node with what its agent says of the machine now."""
        return self.model_copy(update={"facts": facts})

    def with_underlay(self, address: str, *, asked: bool) -> Node:
        """Return the node reached by its peers at another address."""
        return self.model_copy(update={"underlay": address, "underlay_asked": asked})

    def with_mtu(self, mtu: int) -> Node:
        """Return the node with another MTU towards its peers."""
        return self.model_copy(update={"mtu": mtu})

    def with_labels(self, changes: Mapping[str, str | None]) -> Node:
        """Return the node with these labels set; None takes one away."""
        merged = {**self.labels, **changes}
        kept = {key: value for key, value in merged.items() if value is not None}
        return self.model_copy(update={"labels": kept})

    def with_availability(self, availability: str) -> Node:
        """Return the node open for tasks, closed for new ones, or being emptied."""
        return self.model_copy(update={"availability": availability})

    def with_removing(self, *, removing: bool) -> Node:
        """Return the node on its way out of the cluster, or kept after all."""
        return self.model_copy(update={"removing": removing})


def successor(nodes: Iterable[Node], node_id: str) -> Node | None:
    """Return the node that took the place of one that is lost, or None."""
    return next((node for node in nodes if node_id in node.replaces), None)


BRAKED: Final = "most nodes are silent, so nothing it ran is replaced"


class NodeCondition(Model):
    """Observed, never stored: whether the controller hears from the node, and why not."""

    status: NodeStatus = NodeStatus.UNKNOWN
    reason: str = "not heard from yet"
    full: str = ""  # what is short on its disk: nothing new fits, and nothing begins anew
    since: float = 0.0
    returning: bool = False  # down, but it answers again: it only has to stay for a while
    returned_at: float = 0.0  # the controller's monotonic clock; 0 = it never was down
    replaced_at: float = 0.0  # when its tasks are replaced, if the agent alone stays away; wall
    ahead: float = 0.0  # seconds its clock is ahead of the controller's; 0 where they agree
    # It fell silent together with most others: likelier the controller's fault than its own. Stays
    # until that is over, also once the node is heard again.
    doubted: bool = False
    braked: bool = False  # not heard, and nothing it ran is replaced, since most are not heard

    @property
    def why(self) -> str:
        """Return the reason as users read it."""
        return f"{self.reason}; {BRAKED}" if self.braked else self.reason
