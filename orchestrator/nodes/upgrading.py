"""What `corral upgrade` does with each node, decided before anything is touched (pure).

The agent of every node is brought to the controller's own version, never beyond, and where it says
so to its build of that: code that changed under the same version is other code. Then
bootstrap/upgrade.py does what stands here, in this order. The controller's machine comes first:
its agent is renewed with the controller (orchestrator/embedded/renewal.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from specs.kit import versions
from specs.node import NodeCondition
from specs.states import FINAL, NodeStatus

if TYPE_CHECKING:
    from collections.abc import Collection

    from orchestrator.contracts import Mirror
    from specs.node import Node

HEARD = (NodeStatus.READY, NodeStatus.UNREADY)

# ship: send the agent and change over; done: nothing is left to do; skip: named, and the command
# does not end with success.
Act = Literal["ship", "done", "skip"]


@dataclass(frozen=True)
class NodePlan:
    """One node: what is done, and what the user reads of it."""

    node: Node
    act: Act
    message: str
    hint: str = ""

    @property
    def was(self) -> str:
        """Its agent's version, as it was last heard."""
        return self.node.facts.agent_version or versions.UNKNOWN


def plan(
    cluster: Mirror, version: str, selected: Collection[str] = (), *, build: str = ""
) -> tuple[NodePlan, ...]:
    """Return what to do, in order: the controller's machine, then by name. Empty = all nodes.

    ``build``: the bundle that agents of that version would run from, where it is known.
    """
    wanted = [n for n in cluster.nodes.values() if not selected or n.name in selected]
    return tuple(
        _decide(node, cluster.conditions.get(node.id) or NodeCondition(), version, build)
        for node in sorted(wanted, key=lambda n: (bool(n.address), n.name))
    )


def foretell(
    cluster: Mirror,
    version: str,
    selected: Collection[str] = (),
    *,
    here: bool,
    build: str = "",
) -> tuple[NodePlan, ...]:
    """Return the plan in words of what would be done, for `--dry-run`.

    ``here``: the controller's own machine is renewed by who asks.
    """
    found = []
    for one in plan(cluster, version, selected, build=build):
        condition = cluster.conditions.get(one.node.id) or NodeCondition()
        change = f"{one.node.name}: {one.was} -> {version}"
        if one.act == "ship":
            change = one.message
        running = _running(len(processes(cluster, one.node.id)))
        if here and not one.node.address and versions.age(one.was, version) not in ("", "newer"):
            found.append(NodePlan(one.node, "done", f"{change} with the controller; {running}"))
        elif one.act != "ship":
            found.append(one)
        elif condition.status in HEARD:
            words = f"{change}; its agent would be restarted, {running}"
            found.append(NodePlan(one.node, "ship", words))
        else:
            words = f"{change}, but it is not reached now ({condition.reason})"
            found.append(
                NodePlan(one.node, "skip", words, "it is tried, and skipped if nobody lets us in")
            )
    return tuple(found)


def other_build(node: Node, version: str, build: str) -> bool:
    """Say whether the agent has that version and is other code all the same."""
    facts = node.facts
    return facts.agent_version == version and build not in ("", facts.build) and bool(facts.build)


def _decide(node: Node, condition: NodeCondition, version: str, build: str) -> NodePlan:
    was = node.facts.agent_version or versions.UNKNOWN
    heard = condition.status in HEARD
    act: Act = "skip"
    hint = ""
    match versions.age(was, version):
        case _ if node.removing:
            words = "it is being removed"
        case "" if other_build(node, version, build):
            act, words = "ship", f"another build of {version}: {node.facts.build} -> {build}"
        case "" if heard:
            act, words = "done", f"{version} already"
        case "":
            words = f"not reached ({condition.reason}); it had {version} when it was last heard"
            hint = "corral upgrade again when it is back"
        case "newer":
            words = f"{was} is newer than the controller's {version}; it is left as it is"
            hint = f"install corral {was} on the controller's machine, then corral upgrade there"
        case _ if not node.address:
            words = f"{was}, the controller {version}: its agent is renewed on that machine itself"
            hint = "corral upgrade on the controller's machine, as root"
        case _:
            # Also one that is away: what keeps it away may be its agent, and SSH lets us in.
            act, words = "ship", f"{was} -> {version}"
    return NodePlan(node, act, f"{node.name}: {words}", hint)


def _running(count: int) -> str:
    if not count:
        return "no container runs there"
    return "1 container that runs stays" if count == 1 else f"{count} containers that run stay"


def processes(cluster: Mirror, node_id: str) -> dict[str, tuple[str, int]]:
    """Return the containers that run on a node, as it said last: task -> name, pid."""
    found = {}
    for task in cluster.tasks_on(node_id):
        run = task.status.run
        if task.state not in FINAL and run is not None and run.alive:
            found[task.id] = (task.name, run.pid)
    return found
