"""The controller's figures, of the mirror as it is: what `/v1/metrics` answers. Pure.

No figure is kept for them but what is counted while it happens; nothing of a spec is in a label
but the names of stacks, services and nodes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from orchestrator.control.mirror.serving import serving
from specs.kit.metrics import Family, Histogram, by, counter, gauge
from specs.states import FINAL, NodeStatus, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.keys.identity import ClusterRecord
    from specs.task import Task


@dataclass(slots=True)
class LoopFigures:
    """What the control loop counts of itself."""

    passes: Histogram = field(
        default_factory=lambda: Histogram(
            "corral_pass_seconds", "One look of the control loop, with its write"
        )
    )
    dropped: int = 0

    def families(self, *, waiting: int, brake: bool) -> list[Family]:
        """Return them; ``waiting``: reports that are not looked at yet."""
        again = "Looks that were taken again because something moved"
        return [
            self.passes.family(),
            counter("corral_passes_dropped_total", again, self.dropped),
            gauge("corral_reports_waiting", "Reports not looked at yet", waiting),
            gauge("corral_brake", "Most nodes are silent: nothing is replaced", brake),
        ]


def figures(cluster: Cluster, identity: ClusterRecord, *, version: str) -> list[Family]:
    """Return the figures of one moment."""
    tasks = list(cluster.tasks.values())
    # Every state is there from the start: what appears later is no rise to Prometheus.
    states = {state.value: 0 for state in TaskState} | Counter(t.state.value for t in tasks)
    statuses = {status.value: 0 for status in NodeStatus} | Counter(
        condition.status.value for condition in cluster.conditions.values()
    )
    releases = {state.value: 0 for state in ReleaseState} | Counter(
        release.state.value for release in cluster.releases.values()
    )
    info = {"version": version, "cluster": identity.id}
    services: defaultdict[tuple[str, str], list[Task]] = defaultdict(list)
    for task in tasks:
        services[task.stack, task.service].append(task)
    wanted = {(task.stack, task.service) for task in tasks if task.state not in FINAL}
    ready = {key: serving(cluster, services[key]) for key in wanted}
    restarts: Counter[tuple[str, str]] = Counter()
    for task in tasks:
        restarts[task.stack, task.service] += task.status.restarts
    return [
        Family("corral_info", "gauge", "Which corral this is", (("", info, 1),)),
        gauge("corral_epoch", "How often a controller of this cluster began", identity.epoch),
        gauge("corral_store_revision", "Changes of the store so far", cluster.revision),
        gauge("corral_stacks", "Stacks", len(cluster.stacks)),
        by("corral_nodes", "Nodes by what is known of them", "status", statuses),
        by("corral_tasks", "Tasks by state", "state", states),
        by("corral_releases", "Kept releases by state", "state", releases),
        gauge("corral_tasks_unplaced", "Tasks that wait for a node", len(cluster.unplaced)),
        _of_services("corral_service_ready", "Ready tasks", ready),
        _of_services("corral_service_restarts", "Restarts of its present tasks", restarts),
        *_schedules(cluster),
        Family(
            "corral_node_ready",
            "gauge",
            "Whether a node is ready",
            tuple(
                ("", {"node": node.name}, float(_ready(cluster, node.id)))
                for node in sorted(cluster.nodes.values(), key=lambda one: one.name)
            ),
        ),
    ]


def _schedules(cluster: Cluster) -> list[Family]:
    """Return what to be alarmed by: when a schedule's work was done last, and how often not."""
    of = cluster.schedules
    names = ("corral_schedule_failures_total", "corral_schedule_skipped_total")
    return [
        _of_services(
            "corral_schedule_last_success_timestamp_seconds",
            "When an iteration completed last, 0 = none did",
            {key: one.succeeded_at for key, one in of.items()},
        ),
        _of_services(
            names[0],
            "Iterations that failed, were late or lost",
            {key: one.failed for key, one in of.items()},
            "counter",
        ),
        _of_services(
            names[1],
            "Due times that passed without an iteration",
            {key: one.skipped for key, one in of.items()},
            "counter",
        ),
        _of_services(
            "corral_schedule_running",
            "Iterations that have not ended",
            {key: len(one.going) for key, one in of.items()},
        ),
    ]


def _ready(cluster: Cluster, node: str) -> bool:
    condition = cluster.conditions.get(node)
    return condition is not None and condition.status is NodeStatus.READY


def _of_services(
    name: str,
    text: str,
    values: Mapping[tuple[str, str], float],
    kind: Literal["gauge", "counter"] = "gauge",
) -> Family:
    samples = tuple(
        ("", {"stack": stack, "service": service}, float(value))
        for (stack, service), value in sorted(values.items())
    )
    return Family(name, kind, text, samples)
