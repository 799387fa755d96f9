"""The node's network: composes plan, rules, kernel and resolver (agent.tasks.effects.Networking).

Level-triggered: every apply() hands over the whole wanted state, the newest
one wins, and what differs in the kernel is put right. Three threads do the
blocking work: "cr-net" speaks netlink and is the only one that ever changes
its namespace, "cr-nft" runs nft, "cr-dns" talks to the resolver process.
run() keeps repairing between calls. Nothing here stops a container's traffic
when the agent goes away.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agent.errors import Later, Refusal
from agent.network import attach as attaching
from agent.network import (
    converge,
    files,
    messages,
    names,
    namespaces,
    netlink,
    nft,
    records,
    sysctls,
)
from agent.network.endpoints import PerService, of_peers
from agent.network.filtering import PacketFilter
from agent.network.overlay import overlay_mtu, reachable_peers, smallest_mtu, unfit
from agent.network.plan import TaskPlan, host_plan, task_plan
from agent.network.probing import PeerProbes
from agent.network.resolver import Resolver, ResolverDown
from agent.network.returning import Return
from agent.network.wanted import Wanted
from agent.vocabulary import Attachment
from specs.wire import NodeSelf

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from specs.stack import Port
    from specs.wire import Assignment

log = logging.getLogger(__name__)

T = TypeVar("T")

_RESOLVER_CHECK = 0.5  # seconds between looks at the dns process
_LAST_WORDS = 5.0  # seconds a slow client gets for the end of an answer whose sender has ended
_VERIFY = 5.0  # seconds between looks at the kernel
_NOTHING = Wanted(NodeSelf(node="", name=""), {}, {}, {}, {}, {})


class NodeNetwork:
    """Implements agent.tasks.effects.Networking on a real kernel."""

    def __init__(
        self, run_dir: Path, state_dir: Path, *, resolv_conf: Path = Path("/etc/resolv.conf")
    ) -> None:
        self._netns = run_dir / "agent" / "netns"
        self._record = state_dir / "agent" / "network" / "sysctls.json"
        self._resolv_conf = resolv_conf
        self._net = ThreadPoolExecutor(1, thread_name_prefix="cr-net")
        self._nft = ThreadPoolExecutor(1, thread_name_prefix="cr-nft")
        self._dns = ThreadPoolExecutor(1, thread_name_prefix="cr-dns")
        self._resolver = Resolver(run_dir / "agent" / "dns")
        self._filter = PacketFilter()
        self._probes = PeerProbes(run_dir / "agent" / "network" / "peers.json")
        self._unreachable: frozenset[str] = frozenset()
        self._return = Return(run_dir / "agent" / "network" / "returned")
        self._lock = asyncio.Lock()
        self._wanted = _NOTHING
        self._doomed: dict[str, Path] = {}  # to be detached, taken by the network thread
        self._undead: dict[str, OSError] = {}  # could not be
        self._extra: dict[str, Assignment] = {}  # attached before an apply() named them
        self._revision = 0
        self._enforced = -1
        self._name_parts = PerService(records.service_part)
        self._unpublished: set[str] = set()  # services the resolver may have old names of
        self._snapshot: dict[str, Any] = {}
        self._mtu = 1450  # of the overlay
        self._underlay_mtu = 0
        self._unfit = ""  # why this node cannot take part in its overlay
        self._broken = ""  # why the last repair failed
        self._inside: dict[str, TaskPlan] = {}  # what each attached task's links were made by
        self._home = -1
        self._host: netlink.Netlink | None = None

    # --- what others may ask ---

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what people should know now: ports not to be had, foreign firewalls."""
        return (*self._filter.warnings, *self._silent_peers())

    @property
    def trouble(self) -> str:
        """Return why the network is not as it should be; "" when it is."""
        return self._broken or self._unfit

    @property
    def underlay_mtu(self) -> int:
        """Return the MTU of the device other nodes reach this one by; 0 where there is none."""
        return self._underlay_mtu

    def _silent_peers(self) -> list[str]:
        known = self._wanted.peers
        lost = sorted(known[node].name for node in self._unreachable if node in known)
        return [
            f"{name} does not answer over the overlay: its tasks get no new connections from here "
            "while others can take them"
            for name in lost
        ]

    async def check_ports(self, ports: Iterable[Port]) -> list[str]:
        """Return a sentence for each published port that is taken on this node."""
        return await self._in(self._nft, lambda: self._filter.check_ports(ports))

    # --- agent.tasks.effects.Networking ---

    async def apply(self, wanted: Wanted) -> None:
        """Bring kernel and resolver to this whole state; newer calls overtake waiting ones."""
        self._wanted = wanted
        peers = reachable_peers(wanted)
        overlays = {peer.node: peer.overlay for peer in peers}
        self._probes.meet(wanted.me.overlay, overlays, of_peers(wanted))
        for task in wanted.assignments:
            self._extra.pop(task, None)
        await self._enforce_newest()

    async def attach(self, assignment: Assignment) -> Attachment:
        """Make the task's namespace, links and resolver."""
        path = self._netns / assignment.id
        mode = assignment.spec.network_mode
        try:
            if mode == "host":
                await self._in(self._net, lambda: attaching.keep_host(path))
            else:
                await self._attach_own(assignment, path)
        except OSError as error:
            raise Later(f"the network of {assignment.name} cannot be made: {error}") from error
        node = files.read(self._resolv_conf)
        gateway = self._wanted.me.underlay or files.own_address() or self._wanted.gateway
        return Attachment(
            netns=path,
            resolv_conf=files.resolv_conf(assignment, node),
            hosts=files.hosts(assignment, host_gateway=gateway),
        )

    async def _attach_own(self, assignment: Assignment, path: Path) -> None:
        overlay = assignment.spec.network_mode == "overlay"
        if not overlay:
            assignment = assignment.model_copy(update={"networks": ()})
        for place in assignment.networks:
            network = self._wanted.networks.get(place.network)
            if network is None:
                raise Later(f"network {place.network} is not known to this node yet")
            if network.encrypted:
                raise Refusal(
                    f"network {network.name} is encrypted, and this node cannot encrypt traffic "
                    "(no WireGuard); use a network without `encrypted: true`"
                )
        if overlay:
            await self._announce(assignment)
        plan = task_plan(assignment, self._wanted.networks, mtu=self._mtu)
        source = self._wanted.me.overlay if self._wanted.me.underlay else ""

        aside = attaching.serves_names(assignment.spec)
        named = overlay and not self._resolver.holds(assignment.id)

        def work() -> tuple[socket.socket, socket.socket] | None:
            home, host = self._kernel()
            attaching.attach(plan, path, home=home, host=host, source=source)
            self._inside[assignment.id] = plan
            return attaching.resolver_sockets(path, home=home, aside=aside) if named else None

        sockets = await self._in(self._net, work)
        if named:
            await self._hold(assignment.id, sockets)

    async def _announce(self, assignment: Assignment) -> None:
        """Have filters in force before the first packet; refuse ports that cannot be had."""
        if not self._filter.knows(assignment):
            known = self._wanted.assignments.get(assignment.id)
            if known is None or not _same_network(known, assignment):
                self._extra[assignment.id] = assignment
            await self._enforce_newest()
        reason = self._filter.refused_port(assignment)
        if reason:
            raise Refusal(f"{assignment.name}: {reason}")

    async def _resolve(self, assignment: Assignment) -> None:
        task = assignment.id
        if self._resolver.holds(task):
            return
        aside = attaching.serves_names(assignment.spec)

        def make() -> tuple[socket.socket, socket.socket] | None:
            path = self._netns / task
            return attaching.resolver_sockets(path, home=self._kernel()[0], aside=aside)

        await self._hold(task, await self._in(self._net, make))

    async def _hold(self, task: str, sockets: tuple[socket.socket, socket.socket] | None) -> None:
        """Hand the sockets of a task's names to the resolver."""
        try:
            if sockets is not None:
                pair = sockets
                await self._in(self._dns, lambda: self._resolver.hold(task, pair))
            else:  # a resolver from before our restart has them
                await self._in(self._dns, lambda: self._resolver.adopt_one(task))
        except ResolverDown as error:
            raise Later(f"name resolution of this node is down: {error}") from error

    async def detach(self, task: str) -> None:
        """Remove everything attach made; calls at the same time share the kernel's work."""
        await self._last_words(self._netns / task)
        self._extra.pop(task, None)
        self._doomed[task] = self._netns / task

        def work() -> None:
            doomed, self._doomed = self._doomed, {}
            if doomed:  # an earlier call may have taken ours along
                self._undead |= attaching.detach(doomed, host=self._kernel()[1])

        await self._in(self._net, work)
        # After the namespace's file is gone nobody can make new sockets in it behind our back.
        await self._in(self._dns, lambda: self._resolver.drop([task]))
        failed = self._undead.pop(task, None)
        if failed is not None:
            raise Later(f"the network of task {task} cannot be removed: {failed}") from failed

    async def _last_words(self, path: Path) -> None:
        """Wait until what ended processes sent last has been taken, a few seconds at most."""
        clock = asyncio.get_running_loop().time
        until = clock() + _LAST_WORDS
        while clock() < until:
            if not await self._in(
                self._net, lambda: attaching.unsent(path, home=self._kernel()[0])
            ):
                return
            await asyncio.sleep(0.05)

    async def adopt(self, tasks: set[str]) -> None:
        """Keep these tasks' objects and remove every other task's."""

        def work() -> None:
            _, host = self._kernel()
            self._netns.mkdir(parents=True, exist_ok=True)
            there = {path.name for path in self._netns.iterdir()}
            gone = {task: self._netns / task for task in sorted(there - tasks)}
            for task, error in attaching.detach(gone, host=host).items():
                log.warning("namespace of task %s stays: %s", task, error)
            known = {names.task_prefix(task) for task in tasks}
            stray = [
                name
                for name in host.links()
                if name.startswith(names.VETH_PREFIX)
                and name[: len(names.VETH_PREFIX) + 7] not in known
            ]
            host.run([messages.delete_link(name) for name in stray])

        await self._in(self._net, work)
        # Tasks whose resolver sockets died with both processes get new ones at the next apply().
        try:
            await self._in(self._dns, lambda: self._resolver.adopt(tasks))
        except ResolverDown as error:
            log.warning("dns process: %s", error)

    # --- enforcement ---

    def _effective(self) -> Wanted:
        silent = self._return.silent(self._wanted, asyncio.get_running_loop().time())
        wanted = self._wanted
        if self._unreachable or silent:
            wanted = replace(wanted, unreachable=self._unreachable, silent=silent)
        if self._extra:
            wanted = replace(wanted, assignments={**wanted.assignments, **self._extra})
        return wanted

    async def _enforce_newest(self) -> None:
        self._revision += 1
        mine = self._revision
        async with self._lock:
            if self._enforced >= mine:
                return  # a later call's state was put in force while we waited
            target = self._revision
            try:
                await self._enforce(self._effective())
            except (OSError, nft.NftFailed, ResolverDown) as error:
                raise Later(f"the node's network cannot be brought up to date: {error}") from error
            self._enforced = target

    async def _enforce(self, wanted: Wanted) -> None:
        if wanted.idle and not await self._in(self._net, self._kept):
            # Nothing to serve: the machine is as before, also when a former agent left something.
            if self._filter.in_force or self._enforced < 0:
                await self._withdraw()
            return
        await self._in(self._net, lambda: self._put_right(wanted))
        await self._in(self._nft, lambda: self._filter.apply(wanted))
        await self._in(self._dns, lambda: self._publish_names(wanted))
        for task, assignment in wanted.assignments.items():
            silent = not self._resolver.holds(task) and assignment.spec.network_mode == "overlay"
            if silent and (self._netns / task).exists():
                await self._resolve(assignment)

    def _kernel(self) -> tuple[int, netlink.Netlink]:
        """Return the node's namespace and a socket in it (network thread)."""
        if self._host is None:
            self._home = namespaces.open_current()
            self._host = netlink.Netlink()
        return self._home, self._host

    def _put_right(self, wanted: Wanted) -> list[str]:
        """Bring the node's own objects and the tasks' links to what they should be."""
        _, host = self._kernel()
        found = converge.look(host)
        return self._converge(wanted, found) + self._refresh(wanted, found)

    def _converge(self, wanted: Wanted, found: converge.KernelState) -> list[str]:
        _, host = self._kernel()
        sysctls.ensure(self._record)
        underlay = wanted.me.underlay
        own = converge.underlay_mtu(found, underlay)
        present = converge.has_address(found, underlay)
        self._unfit = unfit(wanted, mtu=overlay_mtu(underlay, own), present=present)
        self._underlay_mtu = own if wanted.in_overlay and present else 0
        peers = reachable_peers(wanted)
        self._mtu = max(overlay_mtu(underlay, smallest_mtu(own, peers)), names.SMALLEST_MTU)
        plan = host_plan(wanted, mtu=self._mtu, present=converge.veths(found))
        return converge.converge(plan, found, host)

    def _publish_names(self, wanted: Wanted) -> None:
        upstreams = files.nameservers(files.read(self._resolv_conf))
        parts, changed = self._name_parts.update(wanted)
        fresh = records.snapshot(wanted, parts, upstreams)
        if not fresh["views"] and not self._snapshot:
            self._unpublished |= changed  # nobody here to ask: no process needed yet
            return
        if changed or {**fresh, "services": 0} != {**self._snapshot, "services": 0}:
            self._unpublished |= changed
            self._resolver.publish(fresh, self._unpublished)
            self._unpublished = set()
            self._snapshot = fresh

    # --- looking after it ---

    async def run(self) -> None:
        """Repair what others break, restart the resolver and ask the peers, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repair(), name="network-repair")
            group.create_task(self._ask_peers(), name="peer-probes")

    async def _ask_peers(self) -> None:
        """Take the endpoints of peers that cannot be reached out, and put them back."""
        clock = asyncio.get_running_loop().time
        in_force: tuple[frozenset[str], bool] = frozenset(), False
        while True:
            try:
                self._unreachable = lost = self._probes.look(clock())
                target = lost, self._return.silent(self._wanted, clock())
                if target != in_force:
                    if lost != in_force[0]:
                        names_of = ", ".join(sorted(lost)) or "none any more"
                        log.warning("peers that do not answer over the overlay: %s", names_of)
                    await self._enforce_newest()
                    in_force = target
            except Exception:  # as in _repair: containers need the rest; the next look tries again
                log.exception("peers cannot be judged, will try again")
                await asyncio.sleep(_RESOLVER_CHECK)
            await asyncio.sleep(self._probes.pause(clock()))

    async def _repair(self) -> None:
        since = 0.0
        while True:
            await asyncio.sleep(_RESOLVER_CHECK)
            since += _RESOLVER_CHECK
            try:
                if self._snapshot:
                    await self._in(self._dns, self._look_after_resolver)
                if since >= _VERIFY:
                    since = 0.0
                    await self.verify()
                    self._broken = ""
            except (OSError, ResolverDown, nft.NftFailed) as error:
                self._broken = f"the network cannot be repaired: {error}"
                log.warning("network repair failed, will try again: %s", error)
            except Exception as error:  # of ours; must not end the agent: containers need the rest
                self._broken = f"the network cannot be repaired: {error!r}"
                log.exception("network repair failed, will try again")

    def _look_after_resolver(self) -> None:
        if self._resolver.ensure():
            log.warning("the dns process had ended; started it again")
        self._resolver.save()

    async def verify(self) -> list[str]:
        """Compare the kernel with the wanted state, put right what differs, and say what did."""
        async with self._lock:
            # Asked with the lock held: leave() may have been at work until now.
            if not self._filter.in_force:
                return []  # nothing is in force: nothing is wanted, or the first apply() is to come
            wanted = self._effective()
            repaired = await self._in(self._net, lambda: self._put_right(wanted))
            repaired += await self._in(self._nft, lambda: self._filter.verify(wanted))
        if repaired:
            log.warning("the network was changed from outside; restored: %s", ", ".join(repaired))
        return repaired

    def _refresh(self, wanted: Wanted, found: converge.KernelState) -> list[str]:
        """Bring the links of attached tasks to what they should be (network thread).

        A link that somebody deleted is made again; a network that grew gets its new routes inside
        running containers, and a changed MTU its links. What the agent made itself and has not
        changed costs a comparison; after a restart of the agent each task is looked at once.
        """
        home, host = self._kernel()
        there = converge.veths(found)
        source = wanted.me.overlay if wanted.me.underlay else ""
        restored = []
        for task, assignment in wanted.assignments.items():
            if assignment.spec.network_mode != "overlay":
                continue
            if any(place.network not in wanted.networks for place in assignment.networks):
                continue  # it is ending, and its networks went before it
            plan = task_plan(assignment, wanted.networks, mtu=self._mtu)
            known = self._inside.get(task)
            whole = all(link.host in there for link in plan.links)
            if (known == plan and whole) or not (self._netns / task).exists():
                continue
            attaching.attach(plan, self._netns / task, home=home, host=host, source=source)
            self._inside[task] = plan
            if known is not None:
                restored.append(f"links of {assignment.name}")
        for task in self._inside.keys() - wanted.assignments.keys():
            del self._inside[task]
        return restored

    async def leave(self) -> None:
        """Remove everything of ours from the machine and restore its sysctls."""
        async with self._lock:
            self._wanted, self._extra, self._enforced = _NOTHING, {}, -1

            def work() -> None:
                _, host = self._kernel()
                tasks = {path.name: path for path in self._kept()}
                attaching.detach(tasks, host=host)
                stray = [n for n in host.links() if n.startswith(names.VETH_PREFIX)]
                host.run([messages.delete_link(name) for name in stray])
                sysctls.restore(self._record)

            await self._in(self._net, work)
            await self._withdraw()

    def _kept(self) -> list[Path]:
        """Return the namespace files that are there."""
        return list(self._netns.iterdir()) if self._netns.exists() else []

    async def _withdraw(self) -> None:
        """Take away what serves all tasks together; the next task brings it back."""
        self._filter.forget()
        self._probes.forget()
        self._snapshot = {}

        def work() -> None:
            _, host = self._kernel()
            plan = host_plan(_NOTHING, mtu=1500, present=frozenset())
            converge.converge(plan, converge.look(host), host)

        await self._in(self._dns, self._resolver.quit)
        await self._in(self._net, work)
        await self._in(self._nft, self._filter.withdraw)

    async def close(self) -> None:
        """Let go of threads and sockets; kernel state and resolver stay."""
        await self._in(self._dns, self._resolver.close)
        self._probes.close()
        self._filter.close()
        if self._host is not None:
            self._host.close()
        for executor in (self._net, self._nft, self._dns):
            executor.shutdown(wait=False)

    @staticmethod
    async def _in(executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work)


def _same_network(one: Assignment, other: Assignment) -> bool:
    return one.networks == other.networks and one.host_ports == other.host_ports
