"""``corral node add`` and ``node rm``: the steps in order, as progress the API streams.

The straight line: who is it (hostkey.py), may we in (remote.py), what is it (probe.py, check.py),
put the agent there (bundle.py, install.py), reach it with the cluster's key (transport/ssh.py),
make it a member (nodes/members.py). Until that last step everything is undone on failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
from typing import TYPE_CHECKING, Protocol

import aiohttp
import asyncssh

from orchestrator.dispatch.talking import talking
from orchestrator.errors import Conflict, Invalid, RequestError, Unavailable
from orchestrator.nodes.bootstrap import bundle, check, clusterkey, hostkey, install, probe
from orchestrator.nodes.bootstrap.remote import StepFailed, login
from orchestrator.nodes.bootstrap.telling import Lines
from orchestrator.nodes.members import check_labels
from orchestrator.transport.address import SshAddress, parse
from specs.kit.failpoints import reached
from specs.node import Node

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
    from pathlib import Path

    from orchestrator.contracts import Mirror
    from orchestrator.nodes.bootstrap.remote import Remote
    from orchestrator.transport.base import Transport
    from specs.api import AddNode, Progress
    from specs.kit.clock import Clock
    from specs.node import NodeFacts
    from specs.wire import Hello

log = logging.getLogger(__name__)

ANSWER = 60.0  # seconds a started agent has until it answers over the cluster's key
READY = 20.0  # seconds a new member has until its first report
GONE = 30.0  # seconds a leaving machine has to remove everything
UNDO = 120.0


class Members(Protocol):
    """What of orchestrator/nodes/members.py is used here."""

    def find(self, name: str) -> Node: ...

    async def join(
        self,
        facts: NodeFacts,
        *,
        name: str,
        address: str = "",
        host_key: str = "",
        underlay: str = "",
        asked: bool = False,
        labels: Mapping[str, str] | None = None,
        node_id: str = "",
        replaces: str = "",
    ) -> Node: ...

    def lost(self, name: str) -> Node: ...

    def remove(self, name: str, *, force: bool) -> AsyncIterator[Progress]: ...


class Bootstrap:
    """Adds and removes machines. ``folder`` is the controller's state folder for packed agents."""

    def __init__(
        self,
        *,
        members: Members,
        cluster: Mirror,
        cluster_id: str,
        key: asyncssh.SSHKey,
        transport: Transport,
        folder: Path,
        clock: Clock,
        pack: Callable[[Path], bundle.Package] = bundle.provide,
    ) -> None:
        self._members = members
        self._cluster = cluster
        self._cluster_id = cluster_id
        self._key = key
        self._transport = transport
        self._folder = folder
        self._clock = clock
        self._line = Lines(clock)
        self._pack = pack

    # ---- adding -----------------------------------------------------------------------------

    async def add_node(self, request: AddNode) -> AsyncGenerator[Progress, None]:
        """Make a machine a node.

        What can be refused without touching the machine is raised before the first line:
        Invalid, Conflict, hostkey.HostKeyUnknown and HostKeyWrong. Afterwards the last line
        tells how it ended.
        """
        address = parse(request.address)
        self._refuse_early(request, address)
        key = await hostkey.identify(address, request.host_key)
        yield self._step(address, f"{address} has the confirmed host key {request.host_key}")
        try:
            async with login(address, host_key=key, identity=request.identity) as remote:
                async for line in self._install(request, address, key, remote):
                    yield line
        except (RequestError, StepFailed, bundle.BundleFailed) as error:
            yield self._failed(address, error)

    def _refuse_early(self, request: AddNode, address: SshAddress) -> None:
        check_labels(request.labels)
        lost = self._members.lost(request.replaces) if request.replaces else None
        for node in self._cluster.nodes.values():
            if node == lost:  # what stands there now may well have its address
                continue
            if node.address and _same_machine(parse(node.address), address):
                raise Conflict(f"{address} is already node {node.name}", hint="corral node ls")
            if request.name is not None and request.name == node.name:
                raise Conflict(
                    f"there is a node {node.name} already",
                    hint=f"it is at {node.address or 'the controller'}; choose another --name",
                )

    async def _install(
        self, request: AddNode, address: SshAddress, key: str, remote: Remote
    ) -> AsyncIterator[Progress]:
        """Check the machine, change it, make it a member; undo the changes on failure."""
        yield self._step(
            address, f"logged in{' (with sudo)' if remote.sudo else ''}; looking around"
        )
        packed = await asyncio.to_thread(self._pack, self._folder)
        reached("node.after_login")
        machine = await self._probe(remote)
        verdict = await self._judge(machine, packed, request, remote)
        for warning in verdict.warnings:
            yield self._warning(address, warning)
        if not verdict.ok or verdict.python is None:
            for error in verdict.errors[:-1]:
                yield self._warning(address, error)
            last = verdict.errors[-1]
            raise Invalid(detail=f"{address} cannot be a node: {last.message}", hint=last.hint)
        plan = install.Installation(
            cluster=self._cluster_id,
            public_key=clusterkey.public(self._key),
            bundle=packed.name,
            digest=packed.digest,
            python=verdict.python.path,
            systemd=bool(machine.get("systemd")),
        )
        if machine.get("installed"):
            yield self._step(address, "removing what an earlier membership left")
            await _perform(remote, install.UNDO)
        member: Node | None = None
        try:
            for step in install.steps(plan, packed.archive):
                yield self._step(address, step.what)
                await _perform(remote, step)
                reached("node.after_step")
            yield self._step(address, "waiting for the agent's answer")
            hello = await self._hello(address, key, remote)
            reached("node.after_hello")
            underlay = request.underlay or await _reached_at(remote, machine)
            member = await self._members.join(
                hello.facts,
                name=request.name or hello.facts.hostname or machine.get("hostname"),
                address=str(address),
                host_key=key,
                underlay=underlay,
                asked=bool(request.underlay),
                labels=request.labels,
                node_id=hello.node if hello.stamp is not None else "",
                replaces=request.replaces,
            )
        finally:
            # Also when this is cancelled: nothing half-installed stays behind.
            if member is None:
                await self._undo(remote, address)
        reached("node.after_record")
        await _perform(remote, install.mark(self._cluster_id, member.id))
        how = "in the place of the lost" if request.replaces else "joined as"
        yield self._step(address, f"{how} {member.name}; waiting for its first report")
        reason = await self._ready(member)
        if reason:
            yield self._warning(address, check.Finding(f"not ready yet: {reason}"))
        yield self._line("end", member.name, f"node {member.name} joined ({address})", ok=True)

    async def _probe(self, remote: Remote) -> probe.Machine:
        said = await remote.must("looking around", probe.SCRIPT, *probe.TOOLS)
        machine = probe.read(said)
        if machine is None:
            raise StepFailed("looking around: the machine's answer is not complete", said)
        return machine

    async def _judge(
        self, machine: probe.Machine, packed: bundle.Package, request: AddNode, remote: Remote
    ) -> check.Suitability:
        hello = ""
        if machine.pythons:
            command = f"{shlex.quote(machine.pythons[0].path)} -I -c {shlex.quote(probe.HELLO)}"
            hello = (await remote.run(command)).out
        expected = check.Expected(
            cluster=self._cluster_id,
            ranges=self._cluster.ranges,
            python=packed.python,
            arch=packed.arch,
            glibc=packed.glibc,
            now=self._clock.wall(),
            node_ids=frozenset(self._cluster.nodes),
            underlay=request.underlay,
            chosen=self._cluster.chosen,
        )
        return check.judge(machine, expected, hello)

    async def _hello(self, address: SshAddress, key: str, remote: Remote) -> Hello:
        """Return the new agent's greeting, over the very way the controller will use."""
        node = Node(id="", name=str(address), address=str(address), host_key=key)
        reason = "it said nothing"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER):
                while True:
                    try:
                        async with self._transport.connect(node) as connector:
                            return await self._greet(connector, node)
                    except Unavailable as error:
                        reason = error.detail
                        if isinstance(error.__cause__, asyncssh.PermissionDenied):
                            break
                    await asyncio.sleep(0.2)
        said = (await remote.run(install.LAST_WORDS)).out
        raise StepFailed(f"the agent does not answer: {reason}", said)

    async def _greet(self, connector: aiohttp.BaseConnector, node: Node) -> Hello:
        """Ask until the agent listens; keep the connection meanwhile."""
        async with talking(connector, node.name) as client:
            while True:
                try:
                    hello = await client.hello()
                except Unavailable as error:
                    if isinstance(error.__cause__, aiohttp.ClientConnectorError):
                        await asyncio.sleep(0.05)
                        continue
                    raise
                if hello.stamp is not None and hello.stamp.cluster != self._cluster_id:
                    raise Conflict(
                        f"{node.name} belongs to another cluster ({hello.stamp.cluster})",
                        hint="take it out there first: corral node rm",
                    )
                return hello

    async def _undo(self, remote: Remote, address: SshAddress) -> None:
        try:
            async with asyncio.timeout(UNDO):
                await _perform(remote, install.UNDO)
        except (StepFailed, TimeoutError) as error:
            log.warning("machine not cleaned", extra={"node": str(address), "reason": str(error)})

    async def _ready(self, node: Node) -> str:
        """Return "" once the control loops hear from the node, else why not."""
        deadline = self._clock.monotonic() + READY
        reason = "not heard from yet"
        while self._clock.monotonic() < deadline:
            condition = self._cluster.conditions.get(node.id)
            if condition is not None:
                if condition.status == "ready":
                    return ""
                reason = condition.reason
            await asyncio.sleep(0.05)
        return reason

    # ---- removing ---------------------------------------------------------------------------

    async def remove_node(self, name: str, *, force: bool) -> AsyncIterator[Progress]:
        """Take a node out of the cluster; its agent then takes everything off the machine."""
        node = self._members.find(name)
        left = True
        async for line in self._members.remove(name, force=force):
            if line.kind == "step" and line.message.startswith("not cleaned up"):
                left = False
            if line.kind == "end" and line.ok and left and node.address:
                yield self._line("step", node.name, "the machine removes what corral put there")
                if not await self._gone(node):
                    text = f"{node.name} still accepts the cluster's key after {GONE:g} s"
                    hint = f"run {install.UNINSTALL} there"
                    yield self._line("warning", node.name, text, hint=hint)
            yield line

    async def _gone(self, node: Node) -> bool:
        """Say whether the machine let go of the cluster's key, the last thing but the files."""
        deadline = self._clock.monotonic() + GONE
        while self._clock.monotonic() < deadline:
            try:
                async with self._transport.connect(node):
                    pass
            except Unavailable as error:
                if isinstance(error.__cause__, asyncssh.PermissionDenied):
                    return True
            await asyncio.sleep(0.25)
        return False

    # ---- words ------------------------------------------------------------------------------

    def _step(self, address: SshAddress, message: str) -> Progress:
        return self._line("step", str(address), message)

    def _warning(self, address: SshAddress, finding: check.Finding) -> Progress:
        words = finding.message + (f" ({finding.hint})" if finding.hint else "")
        return self._line("warning", str(address), words, hint=finding.hint)

    def _failed(self, address: SshAddress, error: Exception) -> Progress:
        hint = error.hint if isinstance(error, RequestError) else ""
        said = error.output.splitlines()[-10:] if isinstance(error, StepFailed) else []
        shown = error.fingerprint if isinstance(error, hostkey.HostKeyUnknown) else ""
        return self._line(
            "end",
            str(address),
            str(error),
            hint=hint,
            ok=False,
            said=tuple(said),
            host_key=shown,
        )


async def _perform(remote: Remote, step: install.Step) -> None:
    await remote.must(
        step.what, install.locked(step.script), stdin=step.stdin, timeout=step.timeout
    )


async def _reached_at(remote: Remote, machine: probe.Machine) -> str:
    """Return the address under which we reached the machine, if it is one of its own."""
    words = (await remote.as_user("echo $SSH_CONNECTION")).out.split()
    own = check.addresses(machine)
    if len(words) == 4 and words[2] in own:
        return words[2]
    return ""  # behind NAT: the agent's own first address


def _same_machine(one: SshAddress, other: SshAddress) -> bool:
    return (one.host.lower(), one.port) == (other.host.lower(), other.port)
