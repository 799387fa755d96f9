"""`up --no-start` and `up --no-recreate`: what is missing is made, what exists is left alone.

Without a start the tasks come as far as they can before somebody says ``start``: they have a
node, their image, networks and root there, and no process (``Stack.created``). A service that
runs is not touched by that: what has changed in its file would have to be started to serve.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.control.mirror.serving import is_leaving
from specs.compose.project.selection import with_dependencies
from specs.states import FINAL, Desired

if TYPE_CHECKING:
    from orchestrator.control.deploy.deployment import Deployment
    from specs.api import Deploy, Stack
    from specs.stack import StackSpec


def narrowed(deployment: Deployment, present: Stack | None) -> Deployment | None:
    """Return the deployment of what does not run; None where that is nothing."""
    request = deployment.request
    files = request.project.get("services") or {}
    asked = [*request.services] or [*files]
    if not request.no_deps and all(name in files for name in asked):
        asked = sorted(with_dependencies(files, asked))
    running = _running(deployment, present)
    left = [name for name in asked if name not in running]
    if left == asked:
        return deployment
    several = sum(name in running for name in asked) > 1
    deployment.findings.warn(
        f"{', '.join(n for n in asked if n in running)} {'run' if several else 'runs'} and "
        f"{'are' if several else 'is'} left as {'they are' if several else 'it is'}",
        code="runs",
        hint="up without --no-start brings what has changed, where anything has",
    )
    if not left:
        return None
    asked_for = request.model_copy(update={"services": tuple(left), "no_deps": True})
    return _of_request(deployment, asked_for)


def _of_request(deployment: Deployment, request: Deploy) -> Deployment:
    """Return the deployment of another request, with what was found so far."""
    found = replace(deployment, request=request)
    found.findings = deployment.findings
    return found


def created(deployment: Deployment, spec: StackSpec, present: Stack | None) -> tuple[str, ...]:
    """Return the services whose tasks wait to be started, once this release is stored."""
    before = set(present.created) if present is not None and present.desired == "up" else set()
    if not deployment.request.no_start:
        return tuple(sorted(before & set(spec.services)))
    fresh = set(spec.services) - set(spec.carried) - existing(deployment, present)
    return tuple(sorted((before | fresh) & set(spec.services)))


def existing(deployment: Deployment, present: Stack | None) -> set[str]:
    """Return the services that have tasks, whatever has become of those."""
    if present is None or present.desired == "removed":
        return set()
    tasks = deployment.cluster.by_stack.get(present.name, {}).values()
    return {task.service for task in tasks if task.desired is not Desired.REMOVED}


def _running(deployment: Deployment, present: Stack | None) -> set[str]:
    if present is None or present.desired != "up":
        return set()
    tasks = deployment.cluster.by_stack.get(present.name, {}).values()
    return {
        task.service
        for task in tasks
        if task.state not in FINAL and not is_leaving(task) and task.service not in present.created
    }
