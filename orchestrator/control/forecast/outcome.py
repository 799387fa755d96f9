"""What a forecast came to, as ``specs.plans`` has it: signs, reasons, order, what moves.

Pure: the mirror as it is, the fork as it was at the end, and what happened in between.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.control.forecast.known_images import is_known
from orchestrator.control.mirror.released import newest_of, spec_of
from orchestrator.control.mirror.serving import copies, is_leaving, queued
from orchestrator.control.telling.words import words_of
from specs.api import ProblemRow
from specs.base import content_hash
from specs.changes import SpecChange, changes, port_text, short
from specs.plans import (
    Does,
    Plan,
    PlannedChange,
    PlannedImage,
    PlannedJob,
    PlannedPort,
    PlannedService,
    PlannedTask,
    Sign,
)
from specs.states import FINAL, ReleaseState, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.control.forecast.known_images import KnownImages
    from orchestrator.control.forecast.playing import Played
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.effective import Effective, Specs
    from specs.api import Deploy, Release
    from specs.problems import Problem
    from specs.stack import ServiceSpec, StackSpec
    from specs.task import Task


@dataclass(frozen=True)
class PlanOutcome:
    """Everything a plan is told from. ``spec``: what the release asks for."""

    real: Cluster
    fork: Cluster
    specs: Specs  # of the fork
    request: Deploy
    release: Release
    spec: StackSpec
    played: Played
    images: KnownImages
    warnings: Iterable[Problem]

    def plan(self) -> Plan:
        """Return the plan."""
        before, digests = self._before()
        differ = self._changes(before, digests)
        services = self._services(before, differ)
        present = self.real.stacks.get(self.release.stack)
        fails, nodes, hint = self._fails()
        found = Plan(
            stack=self.release.stack,
            release=present.release if present is not None else 0,
            next=self.release.number,
            services=services,
            changes=tuple(map(_planned, differ)),
            images=tuple(self._images(digests)),
            ports=tuple(self._ports(before)),
            volumes=tuple(
                f"{name} on {self._node(volume.node)}" if volume.node else name
                for name, volume in sorted(self.fork.volumes.items())
                if name not in self.real.volumes
            ),
            networks=tuple(
                sorted(n.name for i, n in self.fork.networks.items() if i not in self.real.networks)
            ),
            order=self._order(),
            places=self._places(),
            orphans=self.spec.orphans,
            warnings=tuple(map(ProblemRow.of, self.warnings)),
            fails=fails,
            nodes=nodes,
            hint=hint,
            cut=self.played.cut,
            by_hand=self.played.by_hand,
            takes=round(self.played.takes, 1),
        )
        return found.model_copy(update={"decision": self._decision(found)})

    # what there is now

    def _before(self) -> tuple[StackSpec | None, dict[str, str]]:
        """Return what runs as a spec, each service as its newest task has it, and the digests."""
        present = self.real.stacks.get(self.release.stack)
        if present is None or present.desired == "removed":
            return None, {}
        base = None
        for number in (present.running, present.release):
            base = base or spec_of(self.real, self.real.releases.get((present.name, number)))
        services: dict[str, ServiceSpec] = {}
        digests: dict[str, str] = {}
        for name, effective in self._runs().items():
            services[name] = effective.service
            digests[name] = effective.task.image_digest
        if base is None:
            return None, {}
        for name, service in base.services.items():
            services.setdefault(name, service)
        there = base.model_copy(update={"services": services})
        return _scaled(there, present.overrides), digests

    def _runs(self) -> dict[str, Effective]:
        """Return the services that have tasks, as the newest of those has them."""
        found: dict[str, Effective] = {}
        tasks = sorted(self.played.before.values(), key=lambda t: (t.live, t.created_at, t.id))
        for task in tasks:
            effective = self.specs.of(task.stack, task.release, task.service)
            if effective is not None:
                found[task.service] = effective
        return found

    def _changes(
        self, before: StackSpec | None, digests: Mapping[str, str]
    ) -> tuple[SpecChange, ...]:
        numbers = self.fork.stacks[self.release.stack].overrides
        after = _scaled(_without(self.spec, self.spec.carried), numbers)
        known = {n: d for n, d in self.images.digests.items() if is_known(d)}
        if before is not None:
            before = _without(before, self.spec.carried)
            gone = set(before.services) - set(after.services)
            there = {task.service for task in self.played.before.values()}
            before = _without(before, gone - there)  # what ended with an earlier release is no news
            before = before.model_copy(update={"deadline": self.spec.deadline})
        return changes(before, after, images=(digests, known), origins=self.request.origins)

    # services

    def _services(
        self, before: StackSpec | None, differ: tuple[SpecChange, ...]
    ) -> tuple[PlannedService, ...]:
        names = dict.fromkeys([*self.spec.services, *(before.services if before else ())])
        mine: dict[str, list[SpecChange]] = defaultdict(list)
        for change in differ:
            if change.section == "services":
                mine[change.name].append(change)
        tasks = {name: self._tasks(name) for name in names}
        replaced = {
            name for name, found in tasks.items() if any(t.does == "replace" for t in found)
        }
        return tuple(
            self._service(name, tasks[name], mine[name], replaced, (before, differ))
            for name in names
            if tasks[name] or name in self.spec.services
        )

    def _service(
        self,
        name: str,
        tasks: tuple[PlannedTask, ...],
        differ: list[SpecChange],
        replaced: set[str],
        all_of_it: tuple[StackSpec | None, tuple[SpecChange, ...]],
    ) -> PlannedService:
        before, every = all_of_it
        service = self.spec.services.get(name)
        old = before.services.get(name) if before is not None else None
        serves = old is None or not old.is_job  # of a job nobody is served
        carried = self.spec.carried.get(name)
        sign = _sign(tasks, differ, went=service is None)
        was = sum(t.does != "create" for t in tasks)
        count = sum(t.does != "remove" for t in tasks)
        least = min(self.played.low.get(name, 0), count), self.played.served.get(name, 0)
        least = least if serves else (0, 0)
        waits = self.played.waits.get(name, "")
        return PlannedService(
            name=name,
            sign=sign,
            reason=self._reason(name, tasks, differ, replaced, every) if sign != "=" else "",
            order=service.update.order if service is not None else "stop-first",
            parallelism=service.update.parallelism if service is not None else 1,
            replicas=(was, count),
            tasks=tasks,
            after=tuple(filter(None, waits.split(", "))),
            down=self._down(name, service) if sign != "-" and serves else None,
            least=least,
            carried=carried.why if carried is not None else "",
            job=self._job(service, old, was) if service is not None and service.is_job else None,
        )

    def _job(self, service: ServiceSpec, old: ServiceSpec | None, was: int) -> PlannedJob:
        stack = self.fork.stacks[self.release.stack]
        then, now = (
            [task for task in tasks.values() if task.service == service.name]
            for tasks in (self.played.before, self.played.after)
        )
        again = old is not None and old.is_job and {t.spec_hash for t in then}
        counted = old is not None and old.is_job and not old.per_node
        return PlannedJob(
            completions=(
                old.replicas if old is not None and counted else was,
                len({t.slot for t in now if _counts(t)})
                if service.per_node
                else copies(stack, service),
            ),
            at_once=service.max_concurrent,
            queued=0 if service.per_node else queued(stack, service, now),
            anew=bool(again and {t.spec_hash for t in now if _counts(t)} - again),
        )

    def _tasks(self, name: str) -> tuple[PlannedTask, ...]:
        def slots(tasks: Mapping[str, Task]) -> dict[int, Task]:
            mine = [t for t in tasks.values() if t.service == name and _counts(t)]
            return newest_of(mine)

        old, new = slots(self.played.before), slots(self.played.after)
        return tuple(self._task(old.get(n), new.get(n)) for n in sorted({*old, *new}))

    def _task(self, old: Task | None, new: Task | None) -> PlannedTask:
        there = new or old
        assert there is not None, "a slot is one of both"
        before = self._node(old.node) if old is not None else ""
        if new is None:
            return PlannedTask(slot=there.slot, name=there.name, does="remove", before=before)
        node = self._node(new.node)
        does: Does = "keep"
        if old is None:
            does = "create"
        elif old.id != new.id:
            same = old.spec_hash == new.spec_hash and old.state not in FINAL
            does = "move" if same and old.node != new.node else "replace"
        return PlannedTask(
            slot=new.slot,
            name=new.name,
            does=does,
            node=node,
            before=before,
            why=self.played.reasons.get(new.id, "") if does != "keep" else "",
            waits=new.pending_reason if new.node is None else "",
        )

    def _reason(
        self,
        name: str,
        tasks: tuple[PlannedTask, ...],
        differ: list[SpecChange],
        replaced: set[str],
        every: tuple[SpecChange, ...],
    ) -> str:
        """Return what makes it, in one phrase."""
        whole = next((c for c in differ if not c.key), None)
        if whole is not None:
            return "new in the file" if whole.sign == "+" else "not in the file any more"
        does = {task.does for task in tasks} - {"keep"}
        told = [c for c in differ if c.replaces] or differ
        if told and (not does or does != {"move"}):
            more = len(told) - 1
            return str(told[0]) + (f", and {more} more" if more else "")
        if "move" in does and "replace" not in does:
            return next((t.why for t in tasks if t.does == "move"), "")
        if "replace" in does:
            found = self._why_replaced(name, replaced, every)
            return next(filter(None, found), "what runs is of another release")
        return "some of it is missing" if "create" in does else "fewer are wanted"

    def _why_replaced(
        self, name: str, replaced: set[str], every: tuple[SpecChange, ...]
    ) -> Iterable[str]:
        """Yield what may be why tasks are replaced though nothing of the service itself differs."""
        service = self.spec.services[name]
        for other, edge in service.depends_on.items():
            if edge.restart and other in replaced:
                yield f"depends on {other} (restart: true), which is replaced"
        if self.request.force_recreate or self.request.always_recreate_deps:
            yield "asked for by --force-recreate"
        for one in self.images.images:
            if name in one.services and not is_known(one.digest):
                what = "is built" if one.state == "built" else "is not here yet"
                yield f"image {one.image} {what}"
        used = {a.network for a in service.task.networks} | {m.source for m in service.task.mounts}
        for change in every:
            if change.section != "services" and change.name in used:
                yield f"{change.section}.{change.name}: {change}"
        if service.task.partner in replaced:
            yield f"shares the namespaces of {service.task.partner}, which is replaced"
        for task in self.played.before.values():
            if task.service == name and task.state in FINAL:
                yield f"it does not run: {words_of(self.real, task).text}"

    def _down(self, name: str, service: ServiceSpec | None) -> tuple[float, float] | None:
        if not self.played.served.get(name) or service is None or name in self.spec.carried:
            return None
        if self.played.low.get(name, 0) > 0:
            return None
        likely = round(self.played.idle.get(name, 0.0), 1)
        grace = self.request.timeout
        most = grace if grace is not None else service.task.stop_grace
        return likely, round(likely + most, 1)

    # the rest

    def _order(self) -> tuple[tuple[str, ...], ...]:
        """Return the services whose replicas start, together by when the first of each does."""
        first: dict[str, float] = {}
        for moment in self.played.moments:
            if moment.kind == "let-run":
                first.setdefault(moment.task.service, moment.at)
        gated: dict[float, list[str]] = defaultdict(list)
        for name, at in first.items():
            gated[at].append(name)
        return tuple(tuple(sorted(names)) for _, names in sorted(gated.items()))

    def _places(self) -> dict[str, str]:
        before = self.played.before
        return {
            f"{task.service}.{task.slot}": task.node
            for task in sorted(self.played.after.values(), key=lambda t: (t.service, t.slot))
            if task.id not in before and task.node is not None and _counts(task)
        }

    def _images(self, digests: Mapping[str, str]) -> Iterable[PlannedImage]:
        for one in self.images.images:
            old = {digests.get(name, "") for name in one.services}
            known = is_known(one.digest)
            sources = [
                node.name
                for node in self.real.nodes.values()
                if known and one.digest in node.facts.images
            ]
            made = {
                task.node
                for task in self.played.after.values()
                if task.id not in self.played.before and task.service in one.services
            }
            moves = sorted(
                self.real.nodes[n].name
                for n in made
                if n in self.real.nodes and one.digest not in self.real.nodes[n].facts.images
            )
            if old == {one.digest} and not moves:
                continue
            yield PlannedImage(
                image=one.image,
                services=one.services,
                state=one.state,
                old=" ".join(sorted(filter(None, map(short, old)))),
                new=short(one.digest) if known else "",
                size=self.images.sizes.get(one.digest, 0),
                moves=tuple(moves),
                sources=tuple(sorted(sources)),
            )

    def _ports(self, before: StackSpec | None) -> Iterable[PlannedPort]:
        def published(spec: StackSpec | None) -> dict[tuple[str, str], str]:
            return {
                (name, port_text(port)): _where(port.mode, port.host_ip)
                for name, service in (spec.services.items() if spec is not None else ())
                for port in service.task.ports
            }

        there = {task.service for task in self.played.before.values()}
        old = {k: v for k, v in published(before).items() if k[0] in there}
        new = published(self.spec)
        for key in sorted({*old, *new}):
            if key not in old:
                yield PlannedPort(service=key[0], port=key[1], where=new[key], sign="+")
            elif key not in new:
                yield PlannedPort(service=key[0], port=key[1], where=old[key], sign="-")

    def _fails(self) -> tuple[str, tuple[str, ...], str]:
        if self.images.missing:
            return self.images.missing, (), "pull or build it first"
        ended = self.played.release
        failed = ended.state in (ReleaseState.FAILED, ReleaseState.ROLLED_BACK)
        if not failed and not self.played.stalled:
            return "", (), ""
        if self.played.homeless:
            one = self.played.homeless[0]
            return f"{one.service}: {one.reason}", one.nodes, one.hint
        return ended.reason, (), ""

    def _node(self, node: str | None) -> str:
        record = self.fork.nodes.get(node or "")
        return record.name if record is not None else ""

    def _decision(self, plan: Plan) -> str:
        """Return what stands for all that is decided, and not for how it is said or how long."""
        contents = {c.id: c.fingerprint for c in self.fork.contents.values()}
        spec = self.spec.model_dump(mode="json", exclude_defaults=True)
        return content_hash(
            {
                "release": plan.release,
                "spec": _renamed(spec, contents),
                "digests": self.images.digests,
                "tasks": [
                    [s.name, t.slot, t.does, t.node, t.before, bool(t.waits)]
                    for s in plan.services
                    for t in s.tasks
                ],
                "order": plan.order,
                "overrides": self.release.overrides,
                "fails": bool(plan.fails),
            }
        )


def _renamed(value: object, names: Mapping[str, str]) -> object:
    """Return JSON with versions of contents called by their fingerprints: ids are random."""
    if isinstance(value, dict):
        return {key: _renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def _planned(change: SpecChange) -> PlannedChange:
    return PlannedChange(
        section=change.section,
        name=change.name,
        key=change.key,
        sign=change.sign,
        old=change.old,
        new=change.new,
        path=change.path,
        position=change.position,
        replaces=change.replaces,
        text=str(change),
    )


def _without(spec: StackSpec, names: Iterable[str]) -> StackSpec:
    left = {name: service for name, service in spec.services.items() if name not in set(names)}
    return spec.model_copy(update={"services": left})


def _scaled(spec: StackSpec, numbers: Mapping[str, int]) -> StackSpec:
    """Return the spec with the numbers that were set, in place of its own."""
    services = {
        name: service.model_copy(update={"replicas": numbers.get(name, service.replicas)})
        for name, service in spec.services.items()
    }
    return spec.model_copy(update={"services": services})


def _counts(task: Task) -> bool:
    """Say whether the task is its slot's: it runs, or it did and completed."""
    return not is_leaving(task) and (task.state not in FINAL or task.state is TaskState.COMPLETE)


def _sign(tasks: tuple[PlannedTask, ...], differ: list[SpecChange], *, went: bool) -> Sign:
    does = {task.does for task in tasks}
    if went:
        return "-" if "remove" in does else "="
    if does == {"create"}:
        return "+"
    if "replace" in does or "create" in does or "remove" in does:
        return "~"
    if "move" in does:
        return ">"
    return "~" if any(change.key for change in differ) else "="


def _where(mode: str, address: str | None) -> str:
    where = "every node" if mode == "ingress" else "its replicas' nodes"
    return f"{address} of {where}" if address else where
