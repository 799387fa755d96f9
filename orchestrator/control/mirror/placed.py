"""What of a task's spec depends on where it was placed: Swarm's templates, and paths of nodes.

Used where a node is told what to hold (:mod:`orchestrator.control.wanted`). The hash of a service
does not know of it: all of its tasks have one spec. Pure.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from orchestrator.control.mirror.node_view import node_words
from specs.templates import fill

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.contracts import Mirror
    from orchestrator.control.mirror.effective import Effective
    from specs.stack import Mount, TaskSpec
    from specs.task import Task


def spec_there(cluster: Mirror, task: Task, effective: Effective) -> TaskSpec:
    """Return the task's spec with templates filled in: hostname, environment, mounts.

    Of a mount its place in the container, the folder of its volume, and the source of a bind; a
    volume is called by its own words (``VolumeSpec.name_of``).
    """
    spec = effective.task
    texts = (
        spec.hostname or "",
        *spec.environment.values(),
        *(text for m in spec.mounts for text in (m.source or "", m.target, m.subpath)),
    )
    if not any("{{" in text for text in texts):
        return spec
    filled = _filler(cluster, task, effective)
    return spec.model_copy(
        update={
            "hostname": filled(spec.hostname) if spec.hostname else spec.hostname,
            "environment": {key: filled(value) for key, value in spec.environment.items()},
            "mounts": tuple(_mount(mount, filled) for mount in spec.mounts),
        }
    )


def _mount(mount: Mount, filled: Callable[[str], str]) -> Mount:
    bound = mount.type == "bind" and mount.source
    return mount.model_copy(
        update={
            "source": filled(mount.source or "") if bound else mount.source,
            "target": filled(mount.target),
            "subpath": filled(mount.subpath),
        }
    )


def _filler(cluster: Mirror, task: Task, effective: Effective) -> Callable[[str], str]:
    node = cluster.nodes.get(task.node or "")
    values = {
        "Service.ID": effective.key,
        "Service.Name": f"{task.stack}_{task.service}",
        "Task.ID": task.id,
        "Task.Name": task.name,
        "Task.Slot": str(task.slot),
    }
    if node is not None:
        values |= node_words(node)
    return partial(fill, values=values)


def made_elsewhere(cluster: Mirror, task: Task, effective: Effective) -> tuple[str, ...]:
    """Return the paths that are not made on the task's node: their data is on others."""
    if effective.service.per_node:
        return ()
    found = set()
    for mount in effective.task.mounts:
        if mount.type == "bind" and mount.source:
            home = cluster.path_home(task.stack, mount.source)
            if home is not None and home != task.node:
                found.add(mount.source)
    return tuple(sorted(found))
