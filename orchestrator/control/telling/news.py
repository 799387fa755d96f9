"""What a record says that the one before it did not: the lines of ``corral events``.

A task's state is told when it is reached; in between, what a container does in its place: its
runs end and begin again, and its health changes. Of other records only what people ask for or
wait for is told: a release's way, replicas, a stop, where a volume goes, what a node is for.
Pure, of two records of one thing.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.control.mirror.records import Volume
from orchestrator.control.telling.words import exit_words, homeless_words
from specs.api import Release, Stack
from specs.kit.amounts import size
from specs.node import Node
from specs.states import FINAL, UNPLACED, WANTED, Health, TaskState
from specs.task import START_HOOK, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from specs.base import Model
    from specs.task import Run

# Steps on the way to something that is kept: told to who follows, and not stored.
PASSING = frozenset(
    {
        "task.preparing",
        "task.prepared",
        "task.starting",
        "task.removed",
        "task.new",
    }
)


class News(NamedTuple):
    """One event of a record: its kind, the words, and the fields of Event beside them."""

    kind: str
    text: str
    more: Mapping[str, Any] = {}

    @property
    def kept(self) -> bool:
        """Whether it is stored; the steps of a start are only told, unless there is a reason."""
        return self.kind not in PASSING or bool(self.more.get("reason"))


def end_fields(run: Run) -> dict[str, Any]:
    """Return how a run ended, for programs."""
    code, name = run.exit_code, ""
    if code is not None and code > 128:
        try:
            name = signal.Signals(code - 128).name
        except ValueError:
            name = ""
    return {"exit_code": code, "signal": name, "oom": run.oom, "reason": _end_reason(run, name)}


def _end_reason(run: Run, by_signal: str) -> str:
    found = (
        (run.oom, "oom"),
        (run.cut_off, "machine-restarted"),
        (not run.its_own_end, "restart-asked"),
        (START_HOOK in run.reason, "hook"),
        (run.reason.startswith("unhealthy"), "unhealthy"),
        ("lease" in run.reason, "lease-lost"),
        (run.exit_code is None, "unknown"),
        (bool(by_signal), "signal"),
    )
    return next((word for so, word in found if so), "exit")


def news_of(
    old: Task | None,
    new: Task | None,
    *,
    why: str = "",
    there: str = "",
    where: Callable[[str], str] = str,
) -> Iterator[News]:
    """Yield the events between two records of a task; ``new`` None: it was removed.

    ``why``: what the planner did it for; ``there``: why its node was
    taken. ``where`` names a node by its id.
    """
    if new is None:
        if old is not None:
            unseen = old.node is not None and old.state not in FINAL  # how it ended nobody said
            yield News(
                "task.removed", f"{old.name} is removed", {"reason": "gone"} if unseen else {}
            )
        return
    if old is None and why:
        yield News("task.new", f"{new.name} is made: {why}", {"reason": _code(why)})
    placed = new.state is TaskState.ASSIGNED and new.node is not None
    if old is None or old.state is not new.state:
        end = new.status.last_end if new.state in FINAL else None
        if placed:
            because = f": {there}" if there else ""
            yield News("task.assigned", f"{new.name} is placed on {where(new.node or '')}{because}")
        elif new.state is TaskState.PENDING and new.pending_reason:
            yield _pending(new)
        else:
            how = f": {exit_words(end)}" if end is not None else ""
            if end is None and new.state in FINAL and new.status.reason:
                how = f": {new.status.reason}"
            fields = end_fields(end) if end is not None else {}
            text = f"{new.name} is {new.state.value}{how}"
            yield News(f"task.{new.state.value}", text, fields)
    elif new.state is TaskState.PENDING and new.pending_reason != old.pending_reason:
        yield _pending(new)
    if old is not None:
        yield from _asked(old, new, why)
        if new.state not in FINAL:
            yield from _in_place(old, new)


def _code(why: str) -> str:
    """Return the word of a reason that begins with one: ``update: release 2 ...``."""
    word, mark, _ = why.partition(": ")
    return word if mark and " " not in word else "planned"


def _pending(task: Task) -> News:
    return News(
        "task.pending",
        f"{task.name} is pending: {task.pending_reason}",
        {"reason": "no-node" if task.pending_reason.startswith("no node fits") else "waits"},
    )


def _asked(old: Task, new: Task, why: str) -> Iterator[News]:
    """Yield what the controller wants of a task now that it did not want before."""
    wanted = old.desired in WANTED and not old.leaving
    if wanted and (new.desired not in WANTED or new.leaving) and new.state not in FINAL:
        reason = _code(why) if why else "asked"
        because = f": {why}" if why else ""
        yield News("task.stopping", f"{new.name} is stopped{because}", {"reason": reason})
    if new.restart_asked > max(old.restart, old.restart_asked):
        text = f"{new.name} is to be restarted"
        yield News("restart.asked", text, {"reason": "asked"})
    if new.misplaced and new.misplaced != old.misplaced:
        text = f"{new.name} stays although it breaks its constraints: {new.misplaced}"
        yield News("task.misplaced", text, {"reason": "misplaced"})
    waits = new.pending_reason
    if waits and waits != old.pending_reason and new.state not in (*UNPLACED, *FINAL):
        yield News("task.waits", f"{new.name} {waits}", {"reason": "waits"})


def _in_place(old: Task, new: Task) -> Iterator[News]:
    """Yield what happened to a task that goes on: several runs may lie between two reports."""
    ended, before = new.status.last_end, old.status.last_end
    if ended is not None and (before is None or ended.number > before.number):
        more = f"; {new.status.restarts} restarts" if new.status.restarts > 1 else ""
        text = f"{new.name} ended: {exit_words(ended)}{more}"
        yield News("run.ended", text, end_fields(ended))
    run = new.status.run
    if run is not None and run.alive and run.number > 1 and run.number != _alive(old):
        by = "asked" if new.status.restart_done > old.status.restart_done else "policy"
        how = "as it was asked" if by == "asked" else "by its restart policy"
        if ended is not None and ended.cut_off:
            by, how = "machine-restarted", "as its machine is back"
        yield News("run.started", f"{new.name} was started again, {how}", {"reason": by})
    health = new.status.health
    if health is not old.status.health and health in (Health.HEALTHY, Health.UNHEALTHY):
        said = ""
        if health is Health.UNHEALTHY and new.status.health_output.strip():
            said = f": {new.status.health_output.strip().splitlines()[-1][:200]}"
        yield News(f"health.{health.value}", f"{new.name} is {health.value}{said}")
    if new.status.doing == "image" and old.status.doing != "image":
        total = new.status.arrived[1]
        much = f" ({size(total)})" if total else ""
        fields = {"figure": float(total)} if total else {}
        yield News("image.pulling", f"the image of {new.name} is fetched{much}", fields)
    if new.status.paused is not old.status.paused:
        word = "paused" if new.status.paused else "unpaused"
        yield News(f"task.{word}", f"{new.name} is {word}", {"reason": "asked"})


def _alive(task: Task) -> int:
    """Return the number of the run that goes on, 0 if none does."""
    run = task.status.run
    return run.number if run is not None and run.alive else 0


# Other records.


def news_of_release(old: Release | None, new: Release | None) -> Iterator[News]:
    """Yield what became of a release."""
    if new is None:
        return
    fields: dict[str, Any] = {"release": new.number}
    if old is None or old.state is not new.state:
        text = f"release {new.number} is {new.state.value}"
        if new.reason:
            text = new.reason if old is not None and new.over else f"{text}: {new.reason}"
        yield News(f"release.{new.state.value}", text, {**fields, "reason": new.state.value})
    known = old.homeless if old is not None else ()
    for homeless in new.homeless:
        if homeless.service not in {one.service for one in known}:
            why = "; ".join(homeless.nodes) or homeless.reason
            text = f"{homeless_words(new.stack, homeless)}: {why}"
            more = {**fields, "service": homeless.service, "reason": "no-node"}
            yield News("release.homeless", text, more)
    for note in new.notes[len(old.notes) if old is not None else 0 :]:
        yield News("release.note", note, {**fields, "reason": "note"})


def news_of_stack(old: Stack | None, new: Stack | None) -> Iterator[News]:
    """Yield what was asked of a stack, and that it is gone."""
    if new is None:
        if old is not None:
            yield News("stack.removed", f"stack {old.name} is gone", {"reason": "removed"})
        return
    if old is None:
        return  # its first release tells of it
    if new.desired != old.desired:
        kind = {"up": "started", "stopped": "stopped", "removed": "removing"}[new.desired]
        words = {"up": "wanted up", "stopped": "to be stopped", "removed": "to be removed"}
        text = f"stack {new.name} is {words[new.desired]}"
        if new.desired == "removed" and new.remove_volumes:
            text += ", with its volumes"
        yield News(f"stack.{kind}", text, {"reason": "asked"})
    for service in sorted(set(new.stopped_services) - set(old.stopped_services)):
        fields = {"service": service, "reason": "asked"}
        yield News("service.stopped", f"{service} is to be stopped", fields)
    for service in sorted(new.overrides.keys() | old.overrides.keys()):
        before, after = old.overrides.get(service), new.overrides.get(service)
        if before != after:
            said = ("the file's number" if n is None else str(n) for n in (before, after))
            first, then = said
            text = f"{service} is scaled from {first} to {then}"
            yield News(
                "service.scaled",
                text,
                {
                    "service": service,
                    "reason": "asked",
                    "before": "" if before is None else str(before),
                    "after": "" if after is None else str(after),
                },
            )


def news_of_volume(old: Volume | None, new: Volume | None) -> Iterator[News]:
    """Yield where a volume came to be, that it moves, and that it is gone.

    How a move ended is told by who ends it.
    """
    if new is None:
        if old is not None:
            yield News("volume.removed", f"volume {old.name} is removed", {"node": old.home})
        return
    if new.home and (old is None or not old.home):
        text = f"volume {new.name} is at home on {new.home}"
        yield News("volume.placed", text, {"node": new.home})
    if new.move is not None and (old is None or old.move is None or old.move.id != new.move.id):
        back = " back" if new.move.back else ""
        text = f"volume {new.name} is moved{back} from {new.home} to {new.move.called}"
        fields = {"reason": "asked", "before": new.home, "after": new.move.called}
        yield News("volume.moving", text, fields)
    kept = old.kept if old is not None else None
    if kept is not None and new.kept is None:
        text = f"what volume {new.name} left on {kept.home} is removed"
        yield News("volume.confirmed", text, {"node": kept.home})


def news_of_node(old: Node | None, new: Node | None) -> Iterator[News]:
    """Yield who joined or left, and what people set; not what its machine says of itself."""
    if new is None:
        if old is not None:
            yield News("node.left", f"node {old.name} left the cluster", {"node": old.name})
        return
    fields: dict[str, Any] = {"node": new.name, "reason": "asked"}
    if old is None:
        text = f"node {new.name} joined"
        yield News("node.joined", text, {"node": new.name, "reason": "asked"})
        return
    if new.availability != old.availability:
        kind = {"active": "activated", "pause": "paused", "drain": "drained"}
        words = {
            "active": "takes tasks again",
            "pause": "is paused: nothing new comes to it",
            "drain": "is drained: what can run elsewhere moves away",
        }
        yield News(
            f"node.{kind[new.availability]}",
            f"node {new.name} {words[new.availability]}",
            {**fields, "before": old.availability, "after": new.availability},
        )
    if new.removing and not old.removing:
        yield News("node.removing", f"node {new.name} is being removed", fields)
    if new.labels != old.labels:
        before, after = (
            ", ".join(
                f"{k}={v}" if v else k
                for k, v in sorted(node.labels.items())
                if other.labels.get(k) != v
            )
            for node, other in ((old, new), (new, old))
        )
        text = f"labels of node {new.name}: {before or 'none'} became {after or 'none'}"
        yield News("node.labelled", text, {**fields, "before": before, "after": after})
    if new.facts.agent_version != old.facts.agent_version and old.facts.agent_version:
        text = f"node {new.name} runs corral {new.facts.agent_version} now"
        more = {"before": old.facts.agent_version, "after": new.facts.agent_version}
        yield News("node.upgraded", text, {"node": new.name, **more})


def of_record(
    old: Model | None,
    new: Model | None,
    *,
    why: str,
    where: Callable[[str], str],
    there: str = "",
) -> Iterator[News]:
    """Yield the news between two records of whatever kind."""
    match new if new is not None else old:
        case Task():
            yield from news_of(_as(Task, old), _as(Task, new), why=why, there=there, where=where)
        case Release():
            yield from news_of_release(_as(Release, old), _as(Release, new))
        case Stack():
            yield from news_of_stack(_as(Stack, old), _as(Stack, new))
        case Volume():
            yield from news_of_volume(_as(Volume, old), _as(Volume, new))
        case Node():
            yield from news_of_node(_as(Node, old), _as(Node, new))
        case _:
            pass  # of what else there is nobody asks


def _as(kind: type[Any], record: Model | None) -> Any:
    return record if isinstance(record, kind) else None
