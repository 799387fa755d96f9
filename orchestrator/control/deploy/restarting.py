"""`corral restart`: what runs ends and runs again in place, what had ended runs anew.

Here it is only asked for. When each task may go is ``planning.restarts``'s to say, and the
gate's where a task begins anew: along ``restart: true`` edges, as in Compose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.deploy.starting import check_known, whole_down
from orchestrator.control.mirror.dependencies import dependencies_of
from orchestrator.control.mirror.records import STACKS
from orchestrator.control.mirror.serving import stands_by
from orchestrator.errors import Conflict
from specs.api import Restarted
from specs.states import FINAL, Desired

if TYPE_CHECKING:
    from orchestrator.control.mirror.draft import Draft
    from specs.api import Restart, Stack
    from specs.stack import StackSpec


def restart(draft: Draft, stack: Stack, spec: StackSpec, request: Restart) -> Restarted:
    """Put the request into the draft. Raises NotFound, Conflict."""
    if stack.desired == "removed":
        raise Conflict(f"stack {stack.name} is being removed", hint="corral up, once it is gone")
    check_known(stack, spec, request.services, draft.oneoffs(stack.name))
    wanted = set(request.services) or set(() if request.tasks else spec.services)
    if not request.no_deps:
        wanted = _with_followers(spec, wanted)
    tasks = [
        t
        for t in draft.tasks(stack.name).values()
        if t.service in wanted
        and t.desired is not Desired.REMOVED
        # What stands by is kept as it is, to go back to; by its id it is restarted.
        and (t.id in request.tasks or not stands_by(draft.cluster, t))
    ]
    down = stack.desired == "stopped"
    tasks += [
        t
        for t in draft.tasks(stack.name).values()
        if t.id in request.tasks and t.service not in wanted and t.desired is not Desired.REMOVED
    ]
    running = [t for t in tasks if t.live and t.desired is Desired.RUNNING and not down]
    live = {(t.service, t.slot) for t in tasks if t.live and not down}
    gone = {
        t.service
        for t in tasks
        if (t.service, t.slot) not in live and (down or not t.live or t.state in FINAL)
    }
    begun = {t.service for t in running} | gone
    if not begun:
        return Restarted()
    draft.put(STACKS, whole_down(stack, spec).with_asked(begun, again=True))
    for task in running:
        draft.put_task(task.with_restart_asked(request.timeout))
    return Restarted(tasks=tuple(t.id for t in running), started=tuple(sorted(gone)))


def _with_followers(spec: StackSpec, services: set[str]) -> set[str]:
    """Return the services and those that want to be restarted whenever one of them is."""
    wanted = set(services)
    for name in dependencies_of(spec).order:
        edges = spec.services[name].depends_on
        if any(edge.restart and other in wanted for other, edge in edges.items()):
            wanted.add(name)
    return wanted
