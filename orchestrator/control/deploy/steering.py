"""`corral rollout`: pause what is being rolled out, go on, go back, promote a canary.

What is asked is written into the release, so that whoever plans next goes by it. A release that
ended stays as it ended: to go on with one that failed, or back from one that was deployed, is
another release of the same content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.control.deploy.starting import check_known
from orchestrator.control.mirror.records import RELEASES, STACKS, Idempotency
from orchestrator.control.mirror.released import beside, finish, spec_of, supersede
from orchestrator.errors import Conflict
from orchestrator.store import keys
from specs.api import Steered
from specs.stack import StackSpec
from specs.states import ReleaseState

if TYPE_CHECKING:
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.draft import Draft
    from specs.api import Release, Stack, Steer


class Steering:
    """One request about one stack."""

    def __init__(
        self, cluster: Cluster, draft: Draft, stack: Stack, asked: Steer, wall: float
    ) -> None:
        self._cluster = cluster
        self._draft = draft
        self._stack = stack
        self._asked = asked
        self._wall = wall

    def run(self) -> Steered:
        """Put what was asked into the draft. Raises NotFound, Conflict."""
        if self._stack.desired != "up":
            raise Conflict(f"stack {self._stack.name} is {self._stack.desired}", hint="corral up")
        release = self._cluster.releases.get((self._stack.name, self._stack.release))
        spec = spec_of(self._cluster, release)
        if release is None or spec is None:
            raise Conflict(f"stack {self._stack.name} has no release", hint="corral up")
        check_known(self._stack, spec, self._asked.services)
        about = set(spec.services) - set(beside(spec, release))
        if release.updates is not None and release.state is not ReleaseState.PENDING:
            about &= {*release.updates}
        foreign = sorted({*self._asked.services} - about)
        if foreign and self._asked.action != "abort":
            raise Conflict(
                f"release {release.number} does not update {', '.join(foreign)}",
                hint=f"it updates {', '.join(sorted(about)) or 'nothing'}",
            )
        services = tuple(sorted(self._asked.services or about))
        match self._asked.action:
            case "pause":
                return self._pause(release, services)
            case "resume":
                return self._resume(release, services)
            case "promote":
                return self._promote(release, services)
            case "abort":
                return self._abort(release)

    def _pause(self, release: Release, services: tuple[str, ...]) -> Steered:
        if release.over:
            raise self._nothing(release, "to pause")
        self._draft.put(RELEASES, release.with_paused({*release.paused, *services}))
        text = f"release {release.number} is paused: {', '.join(services) or 'nothing to update'}"
        return Steered(services=services, message=text)

    def _resume(self, release: Release, services: tuple[str, ...]) -> Steered:
        number = release.number
        if not release.over:
            if not {*release.paused} & {*services}:
                raise Conflict(f"release {number} is not paused: it is {release.state.value}")
            self._draft.put(RELEASES, release.with_paused({*release.paused} - {*services}))
            return Steered(release=number, services=services, message=f"release {number} goes on")
        if release.state is ReleaseState.FAILED and release.updates is not None:
            made = self._again(release, promoted=())
            text = f"release {number} goes on as release {made.number}"
            return Steered(release=made.number, services=services, message=text)
        raise self._nothing(release, "to go on with")

    def _promote(self, release: Release, services: tuple[str, ...]) -> Steered:
        spec = spec_of(self._cluster, release)
        if release.state is not ReleaseState.DEPLOYING or spec is None:
            raise self._nothing(release, "to promote")
        canaries = {n for n in services if spec.services[n].update.canary is not None}
        plain = sorted({*self._asked.services} - canaries)
        if plain:
            raise Conflict(
                f"{', '.join(plain)} has no canary",
                hint="x-corral: {canary: {replicas: 1}} at the service makes one",
            )
        left = tuple(sorted(canaries - {*release.promoted}))
        if not left:
            raise self._nothing(release, "to promote")
        self._draft.put(RELEASES, release.with_promoted(left))
        text = f"{', '.join(left)}: the others follow"
        return Steered(release=release.number, services=left, message=text)

    def _abort(self, release: Release) -> Steered:
        stack = self._stack
        if self._asked.services:
            raise Conflict(
                "a release goes back as a whole",
                hint="`corral rollout abort`; `corral rollout pause SERVICE` stops one service",
            )
        if not release.over:
            if not 0 < stack.running < release.number:
                raise Conflict(
                    f"nothing ran well before release {release.number}",
                    hint="corral down removes what there is of it",
                )
            if release.state is ReleaseState.PENDING:
                finish(self._draft, release, ReleaseState.FAILED, "it was aborted", at=self._wall)
                return Steered(message=f"release {release.number} is aborted before it began")
            reason = f"it was aborted; rolled back to release {stack.running}"
            finish(self._draft, release, ReleaseState.ROLLED_BACK, reason, at=self._wall)
            text = f"release {release.number} is aborted; back to release {stack.running}"
            return Steered(services=release.updates or (), message=text)
        source = self._before(release)
        if source is None:
            raise self._nothing(release, "to abort")
        everything = (spec_of(self._cluster, source) or StackSpec(name="")).services
        made = self._again(source, promoted=tuple(sorted(everything)))  # it ran: nothing is tried
        text = f"back to release {source.number}, as release {made.number}"
        return Steered(release=made.number, message=text)

    def _before(self, release: Release) -> Release | None:
        """Return the release to go back to from one that has ended."""
        stack, releases = self._stack, self._cluster.releases
        if release.state is ReleaseState.FAILED and release.updates is not None:
            return releases.get((stack.name, stack.running))
        if release.state is not ReleaseState.DEPLOYED:
            return None
        kept = {h for one in stack.standby.values() if one.since for h in one.hashes}
        mine = self._draft.tasks(stack.name).values()
        found = {t.release for t in mine if t.live and t.spec_hash in kept}
        return releases.get((stack.name, max(found))) if found else None

    def _again(self, source: Release, promoted: tuple[str, ...]) -> Release:
        """Make another release of what one asked for, with the same images."""
        stack, cluster = self._stack, self._cluster
        known = cluster.stack_releases.get(stack.name, {})
        newest = cluster.releases[(stack.name, stack.release)]
        updates = {*(newest.updates or ()), *(source.updates or ())}
        spec = spec_of(cluster, source)
        there = spec.services if spec is not None else {}
        update = {
            "number": max([*known, stack.release]) + 1,
            "by": self._asked.by.model_copy(update={"to": source.number if promoted else 0}),
            "key": self._asked.key,
            "state": ReleaseState.DEPLOYING,
            "reason": "",
            "created_at": self._wall,
            "finished_at": None,
            "starts": tuple(sorted({*source.starts} - {*stack.stopped_services})),
            "again": (),
            "notes": (),
            "updates": tuple(sorted(updates & {*there})),
            "overrides": None,
            "paused": (),
            "promoted": promoted,
            "homeless": (),
            "stalled": False,
            "culprit": None,
            "back": "",
            "back_reason": "",
        }
        if promoted:  # it brings back what that release was, however it was asked for then
            plain = {"only_starts": False, "keeps": (), "grace": None, "no_deps": False}
            update |= {**plain, "services": (), "remove_orphans": False, "renew_volumes": False}
            update["rollback_to"] = source.number
        made = source.model_copy(update=update)
        supersede(self._draft, known.values(), made, at=self._wall)
        self._draft.put(RELEASES, made)
        begun = stack.with_release(made.number)
        self._draft.put(STACKS, begun.with_asked(made.starts) if made.starts else begun)
        asked = Idempotency(stack=stack.name, number=made.number, at=self._wall)
        self._draft.put_key(keys.idempotency(self._asked.key), asked)
        return made

    @staticmethod
    def _nothing(release: Release, what: str) -> Conflict:
        number, state = release.number, release.state.value.replace("_", " ")
        return Conflict(
            f"there is nothing {what}: release {number} is {state}", hint="corral rollout status"
        )
