"""`corral upgrade` as the controller does it: one node after the other, by its plan, as progress.

Like ``join.py`` it uses the operator's login, which the cluster's key cannot replace: it sends this
controller's own agent beside the one that runs (bundle.py, install.py) and has the node change
over by itself (agent/upgrade.py), back again too when the new agent is no good. What is said of a
node counts only once the controller hears from it in the new version.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Literal, Protocol

from orchestrator.errors import Conflict, Invalid, RequestError, Unavailable
from orchestrator.nodes import upgrading
from orchestrator.nodes.bootstrap import bundle, check, install, probe
from orchestrator.nodes.bootstrap.remote import StepFailed, login
from orchestrator.nodes.bootstrap.telling import Lines
from orchestrator.transport.address import parse
from specs.kit import versions
from specs.node import NodeCondition
from specs.states import NodeStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from orchestrator.contracts import Mirror
    from orchestrator.nodes.bootstrap.remote import Remote
    from orchestrator.nodes.upgrading import NodePlan
    from specs.api import Progress, Upgrade
    from specs.kit.clock import Clock
    from specs.node import Node

HEARD = 15.0  # seconds nodes have, at first, to be heard at all: a controller may just have started
BACK = 60.0  # seconds a node that changed over has until we hear from its new agent
LATER = 240.0  # and one whose connection was lost meanwhile: it may be changing back by itself
LOOK = 0.1


class Login(Protocol):
    """How a machine is reached; remote.login."""

    def __call__(
        self, address: Any, *, host_key: str, identity: str | None
    ) -> AbstractAsyncContextManager[Remote]: ...


class _Stopped(Exception):
    """A node did not come up as the new version: no other one is touched."""

    def __init__(self, message: str, log: tuple[str, ...] = ()) -> None:
        self.log = log
        super().__init__(message)


class Upgrades:
    """One for a controller's life: two upgrades at once are refused."""

    def __init__(
        self,
        *,
        cluster: Mirror,
        cluster_id: str,
        public_key: str,
        folder: Path,
        clock: Clock,
        pack: Callable[[Path], bundle.Package] = bundle.provide,
        login: Login = login,
        version: str | None = None,
    ) -> None:
        self._cluster = cluster
        self._cluster_id = cluster_id
        self._public_key = public_key
        self._folder = folder
        self._clock = clock
        self._line = Lines(clock)
        self._pack = pack
        self._login = login
        self._version = version or versions.installed()
        self._at = ""  # which node another upgrade is at

    async def run(
        self, request: Upgrade, selected: frozenset[str]
    ) -> AsyncGenerator[Progress, None]:
        """Do what the plan says; the last line tells how it ended. Raises Conflict at once."""
        if request.dry_run:
            version = request.version or self._version
            build = await self._build() if version == self._version else ""
            plan = upgrading.foretell(
                self._cluster, version, selected, here=request.here, build=build
            )
            for one in plan:
                yield self._said(one)
            said = f"nothing was changed; the controller has {self._version}"
            if version != self._version:
                said += f", agents would have {version}"
            yield self._line("end", "", said, ok=all(one.act != "skip" for one in plan))
            return
        if self._at:
            raise Conflict(
                f"another corral upgrade is under way: it is at {self._at}",
                hint="wait for it; corral node ls shows versions",
            )
        self._at = "its beginning"
        try:
            await self._heard(selected)
            async with contextlib.aclosing(self._all(request, selected)) as lines:
                async for line in lines:
                    yield line
        finally:
            self._at = ""

    async def _all(
        self, request: Upgrade, selected: frozenset[str]
    ) -> AsyncGenerator[Progress, None]:
        skipped: list[str] = []
        done = 0
        build = await self._build()
        plan = upgrading.plan(self._cluster, self._version, selected, build=build)
        for place, one in enumerate(plan):
            yield self._said(one)
            if one.act == "skip":
                skipped.append(one.node.name)
            if one.act != "ship":
                continue
            self._at = f"node {one.node.name}"
            try:
                async with contextlib.aclosing(self._change(one, request.identity)) as lines:
                    async for line in lines:
                        yield line
                done += 1
            except _Stopped as stopped:
                left = [n.node.name for n in plan[place + 1 :] if n.act == "ship"]
                untouched = f"; not touched: {', '.join(left)}" if left else ""
                yield self._end(
                    one.node.name,
                    f"{one.node.name}: {stopped}{untouched}",
                    hint="its containers run on; once the cause is mended, corral upgrade goes on",
                    log=stopped.log,
                )
                return
            except (RequestError, StepFailed, bundle.BundleFailed) as error:
                # Nothing of what runs there was touched.
                skipped.append(one.node.name)
                hint = error.hint if isinstance(error, RequestError) else ""
                words = f"{one.node.name}: skipped: {error}"
                yield self._line("warning", one.node.name, words, hint=hint)
        if skipped:
            yield self._end(
                "",
                f"not upgraded: {', '.join(skipped)}",
                hint="corral upgrade again does what is left",
            )
        else:
            plural = "" if done == 1 else "s"
            said = f"{done} agent{plural} upgraded" if done else "nothing to do"
            yield self._line("end", "", f"{said}: all have {self._version}", ok=True)

    async def _build(self) -> str:
        """Return the build that nodes would get; "" where no agent's depends on it, or unknown."""
        nodes = self._cluster.nodes.values()
        if not any(n.facts.build and n.facts.agent_version == self._version for n in nodes):
            return ""
        try:
            packed = await asyncio.to_thread(self._pack, self._folder)
        except bundle.BundleFailed:
            return ""  # said when a node has to get it
        return packed.name if packed.name.rpartition("-")[0] == self._version else ""

    async def _heard(self, selected: frozenset[str]) -> None:
        """Give nodes the time to be heard at all."""

        def unheard() -> bool:
            conditions = self._cluster.conditions
            return any(
                conditions.get(node.id, NodeCondition()).status is NodeStatus.UNKNOWN
                for node in self._cluster.nodes.values()
                if not selected or node.name in selected
            )

        until = self._clock.monotonic() + HEARD
        while unheard() and self._clock.monotonic() < until:
            await asyncio.sleep(LOOK)

    # ---- one node ---------------------------------------------------------------------------

    async def _change(self, one: NodePlan, identity: str | None) -> AsyncGenerator[Progress, None]:
        node = one.node
        packed = await asyncio.to_thread(self._pack, self._folder)
        if packed.name.rpartition("-")[0] != self._version:
            raise Unavailable(
                f"this controller runs {self._version}, but {packed.name.rpartition('-')[0]} is"
                " installed on its machine now",
                hint="run corral upgrade there: it starts the controller that is installed",
            )
        address = parse(node.address)
        async with self._login(address, host_key=node.host_key, identity=identity) as remote:
            plan = await self._judge(packed, remote)
            for step in install.shipping(plan, packed.archive):
                yield self._line("step", node.name, f"{node.name}: {step.what}")
                await _perform(remote, step)
            yield self._line("step", node.name, f"{node.name}: changing over")
            try:
                outcome = await self._change_over(node, plan, remote)
            except StepFailed as failed:
                outcome = await self._found_out(node, one.was, packed.name, failed)
            if not outcome["ok"]:
                raise _Stopped(_failure(one.was, outcome), tuple(outcome.get("log") or ()))
            if why := await self._answers(node, BACK, packed.name):
                undone = await self._back(node, plan, remote)
                raise _Stopped(f"its new agent answers there, but not us: {why}; {undone}")
        kept = int(outcome.get("kept") or 0)
        same = f"; {kept} container{'s' * (kept != 1)} kept running" if kept else ""
        words = f"{node.name}: {self._version} (was {one.was}){same}"
        yield self._line("step", node.name, words)

    async def _judge(self, packed: bundle.Package, remote: Remote) -> install.Installation:
        """Look at the machine; raise Invalid when it cannot run the new agent."""
        said = await remote.must("looking around", probe.SCRIPT, *probe.TOOLS)
        machine = probe.read(said)
        if machine is None:
            raise StepFailed("looking around: the machine's answer is not complete", said)
        expected = check.Expected(
            cluster=self._cluster_id,
            ranges=self._cluster.ranges,
            python=packed.python,
            arch=packed.arch,
            glibc=packed.glibc,
            now=self._clock.wall(),
        )
        verdict = check.judge_again(machine, expected)
        if verdict.errors or verdict.python is None:
            raise Invalid(
                detail="; ".join(error.message for error in verdict.errors),
                hint=next((error.hint for error in verdict.errors if error.hint), ""),
            )
        return install.Installation(
            cluster=self._cluster_id,
            public_key=self._public_key,
            bundle=packed.name,
            digest=packed.digest,
            python=verdict.python.path,
            systemd=bool(machine.get("systemd")),
        )

    async def _change_over(
        self, node: Node, plan: install.Installation, remote: Remote, *, back: bool = False
    ) -> dict[str, Any]:
        request = {
            "bundle": plan.bundle,
            "version": self._version,
            "starter": install.starter(systemd=plan.systemd),
            "systemd": plan.systemd,
            "told": upgrading.processes(self._cluster, node.id),
            "back": back,
        }
        said = await _perform(remote, install.change_over(plan, json.dumps(request).encode()))
        try:
            outcome = json.loads(said)
        except ValueError:
            raise StepFailed("the node's answer cannot be read", said) from None
        return outcome if isinstance(outcome, dict) else {"ok": False, "message": said[:200]}

    async def _found_out(
        self, node: Node, was: str, build: str, failed: StepFailed
    ) -> dict[str, Any]:
        """Return how it went on a machine we lost sight of: it goes on there by itself.

        Where its work was killed there, the agent it had started may come up all the same.
        """
        killed = failed.code is not None
        why = await self._answers(node, BACK if killed else LATER, build)
        if not why:
            return {"ok": True}
        return {"ok": False, "back": self._has(node) == was, "message": f"{failed}; {why}"}

    async def _answers(self, node: Node, patience: float, build: str) -> str:
        """Wait until the controller hears from the new agent; return why it does not."""
        until = self._clock.monotonic() + patience
        while True:
            condition = self._cluster.conditions.get(node.id) or NodeCondition()
            now = self._cluster.nodes.get(node.id, node)
            old = upgrading.other_build(now, self._version, build)
            if condition.status in upgrading.HEARD and self._has(node) == self._version and not old:
                return ""
            if self._clock.monotonic() >= until:
                has = now.facts.build if old else self._has(node)
                return condition.reason or f"it still answers as {has}"
            await asyncio.sleep(LOOK)

    def _has(self, node: Node) -> str:
        found = self._cluster.nodes.get(node.id)
        return found.facts.agent_version if found is not None else ""

    async def _back(self, node: Node, plan: install.Installation, remote: Remote) -> str:
        try:
            outcome = await self._change_over(node, plan, remote, back=True)
        except StepFailed as failed:
            return f"the former one was not put back: {failed}"
        return "the former one is in place again" if outcome["ok"] else str(outcome["message"])

    # ---- words ------------------------------------------------------------------------------

    def _said(self, one: NodePlan) -> Progress:
        kind: Literal["step", "warning"] = "warning" if one.act == "skip" else "step"
        return self._line(kind, one.node.name, one.message, hint=one.hint)

    def _end(
        self, node: str, message: str, *, hint: str = "", log: tuple[str, ...] = ()
    ) -> Progress:
        return self._line("end", node, message, hint=hint, ok=False, said=log)


def _failure(was: str, outcome: dict[str, Any]) -> str:
    why = f"the new agent is no good: {outcome['message']}"
    return f"{why}; {was or 'the former one'} is in place again" if outcome.get("back") else why


async def _perform(remote: Remote, step: install.Step) -> str:
    return await remote.must(
        step.what, install.locked(step.script), stdin=step.stdin, timeout=step.timeout
    )
