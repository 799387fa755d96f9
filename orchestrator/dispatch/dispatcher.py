"""The dispatcher: one session per node, kept for as long as the node is a member.

In the straight line it stands between the control loops and the agents: it takes
the wanted set from Control and brings back what nodes report (session.py does that
for one connection). It also is the ``agents`` seam: calls to one node for the API
and the loops. Before the first instruction it takes an epoch above everything any
reachable agent has seen, and where the store is older than what they know (behind.py) it waits
for somebody to decide; once superseded it instructs nobody any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeGuard, TypeVar

from orchestrator.dispatch.behind import Behind, StoreSays, compare
from orchestrator.dispatch.instructions import Spelled
from orchestrator.dispatch.session import AgentSession, Certified, Superseded
from orchestrator.dispatch.talking import talking
from orchestrator.errors import NotFound, RequestError, Unavailable
from orchestrator.keys import identity
from orchestrator.store.base import StoreError
from specs.kit.backoff import Backoff
from specs.kit.turns import OneATurn
from specs.wire import HEARTBEAT, Stamp

if TYPE_CHECKING:
    import random
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Collection,
        Mapping,
        Sequence,
    )

    from aiohttp.web import WebSocketResponse

    from orchestrator.contracts import Control, LogQuery, Mirror
    from orchestrator.dispatch.agent import AgentClient
    from orchestrator.keys.ca import Authority
    from orchestrator.keys.identity import ClusterRecord
    from orchestrator.store.base import Store
    from orchestrator.transport.base import Transport
    from specs.images import ForgetImages, ForgottenImages
    from specs.inside import Copied, NodeProcesses, NodeUsage, SignalTasks
    from specs.kit.clock import Clock
    from specs.node import Node
    from specs.objects import Restored, VolumeLook
    from specs.paths import PathState
    from specs.wire import (
        BuildEvent,
        BuildImage,
        HeldSet,
        Hello,
        ImageInfo,
        LogLine,
        ResolvedImage,
        ResolveImage,
    )

log = logging.getLogger(__name__)

T = TypeVar("T")

ASK = 2.0  # seconds all agents have to say what they saw, at start
ASK_ON = 8.0  # and while the one that surely comes back, or anybody, has not answered yet
ASK_RESTORED = 20.0  # the same where the store is a backup's: they surely know more than it
ASK_ONE = 5.0  # of these, what all together have to answer one question
ASK_AGAIN = 0.25  # seconds until who did not answer then is asked again
ASK_HELD = 15.0  # and all they hold
FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
LONGEST_DELAY_LOCAL = 1.0  # no network to spare, and a person is likely to be waiting
SETTLED = 10.0  # a session this long starts the back-off over


class _AgentAway(Exception):
    """The machine let us in, its agent did not answer or refused us."""


def agent_away(node: Node, error: RequestError) -> str:
    """Return the words for an agent that is not there, or that says why it will not have us."""
    before, silent, why = error.detail.partition(f"node {node.name} is not reached: ")
    return f"agent not answering, host reachable ({why})" if silent and not before else error.detail


class Dispatcher:
    """Sessions with all nodes, and calls to each. Run it once, with the control loops."""

    def __init__(
        self,
        *,
        store: Store,
        cluster: Mirror,
        identity: ClusterRecord,
        transport: Transport,
        clock: Clock,
        rng: random.Random,
        heartbeat: float = HEARTBEAT,
        silence: float = 0.0,
        authority: Authority | None = None,
        patient: bool = False,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._heartbeat = heartbeat
        self._silence = silence
        self._authority = authority
        self._patient = patient  # the store is a backup's that was put back
        self.identity = identity
        self.superseded = ""  # why this controller instructs nobody any more
        self.behind: Behind | None = None  # the store is older than what runs: somebody decides
        self.settled = asyncio.Event()  # whether it is, is known
        self.ready = asyncio.Event()  # the epoch is taken: from now on something may change
        # Our own machine, where its agent answered last and was never told anything: the
        # controller was restored here, and there is nothing to be taken over.
        self.blank: frozenset[str] = frozenset()
        self._decided = asyncio.Event()
        self._discard = False
        self._taken: dict[int, int] = {}
        self._sessions: dict[str, AgentSession] = {}
        self._left: set[str] = set()  # members still, that forgot us: they are left alone
        self._reasons: dict[str, str] = {}  # node -> why there is no client
        self._generations: dict[str, int] = {}
        self._turns = OneATurn()
        self._spelled = Spelled()
        # Certificates are compared by their dates: they come from a clock that does not jump.
        self._zero = clock.wall() - clock.monotonic()

    async def run(self, control: Control) -> None:
        """Take the epoch, then keep a session with every node until cancelled."""
        hellos = await self.ask()
        self.behind = compare(self.known(), hellos)
        self.settled.set()
        if self.behind is not None:
            log.error(self.behind.words)
            await self._decided.wait()
            hellos = {**hellos, **await self.ask()}
        # What was taken over of the agents that answered then is decided, whatever epoch they had
        # heard last: they would be asked about it for ever. What others know is not.
        self.identity = await identity.take_epoch(
            self._store,
            self.identity,
            [hello.stamp.epoch for hello in hellos.values() if self._ours(hello.stamp)],
            revision=self._cluster.revision,
            taken=self._taken,
            trust=self._discard,
        )
        self.behind = None
        log.info("epoch taken", extra={"epoch": self.identity.epoch})
        self.ready.set()
        try:
            async with asyncio.TaskGroup() as group:
                await self._follow_nodes(control, group)
        except* Superseded as found:
            self.superseded = str(found.exceptions[0])
            log.error(self.superseded)  # noqa: TRY400 - a sentence for the operator, not a crash
        for node_id in self._cluster.nodes:
            control.disconnected(node_id, self.superseded)
        # Not an exit: whoever restarts us would only make two controllers outbid each other.
        await asyncio.Event().wait()

    # A store that is older than what runs.

    def known(self) -> StoreSays:
        """Return what the store knows of its own past."""
        return StoreSays(
            cluster=self.identity.id,
            epoch=self.identity.epoch,
            revision=self._cluster.revision,
            stacks={name: stack.stamp for name, stack in self._cluster.stacks.items()},
            ended=self.identity.ended,
            trusted=self.identity.trusted,
        )

    def decide(self, *, discard: bool, taken: Mapping[int, int] = MappingProxyType({})) -> None:
        """Go on: with the store as it is by now, or (``discard``) whatever agents have seen.

        ``taken``: epoch -> the last revision of what was taken over from agents.
        """
        self._discard, self._taken = discard, dict(taken)
        self._decided.set()

    async def begun(self) -> None:
        """Wait until the epoch is taken: nothing is asked any more, and changes are possible."""
        await self.ready.wait()

    def _ours(self, stamp: Stamp | None) -> TypeGuard[Stamp]:
        return stamp is not None and stamp.cluster == self.identity.id

    # The agents seam.

    async def resolve_image(self, node: str, request: ResolveImage) -> ResolvedImage:
        return await self._client(node).resolve_image(request)

    def build(self, node: str, request: BuildImage) -> AsyncGenerator[BuildEvent, None]:
        return self._client(node).build(request)

    def logs(self, node: str, task: str, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        return self._client(node).logs(task, query)

    async def exec(self, node: str, task: str, websocket: WebSocketResponse) -> None:
        await self._client(node).exec(task, websocket)

    async def attach(self, node: str, task: str, websocket: WebSocketResponse) -> None:
        await self._client(node).attach(task, websocket)

    def read_archive(
        self, node: str, task: str, query: Mapping[str, str]
    ) -> AsyncGenerator[bytes, None]:
        return self._client(node).read_archive(task, query)

    async def write_archive(
        self, node: str, task: str, query: Mapping[str, str], pieces: AsyncIterator[bytes]
    ) -> Copied:
        return await self._client(node).write_archive(task, query, pieces)

    def read_volume(self, node: str, name: str) -> AsyncGenerator[bytes, None]:
        return self._client(node).read_volume(name)

    async def write_volume(
        self, node: str, name: str, query: Mapping[str, str], pieces: AsyncIterator[bytes]
    ) -> Restored:
        return await self._client(node).write_volume(name, query, pieces)

    def volume_tree(
        self, node: str, name: str, query: Mapping[str, str]
    ) -> AsyncGenerator[bytes, None]:
        return self._client(node).volume_tree(name, query)

    def volume_differences(
        self, node: str, name: str, paths: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        return self._client(node).volume_differences(name, paths)

    async def look_at_volume(self, node: str, name: str) -> VolumeLook:
        return await self._client(node).look_at_volume(name)

    async def change_volume(
        self,
        node: str,
        method: str,
        name: str,
        rest: str,
        query: Mapping[str, str] = MappingProxyType({}),
        pieces: AsyncIterator[bytes] | None = None,
    ) -> None:
        await self._client(node).change_volume(method, name, rest, query, pieces)

    async def remove_volume(self, node: str, name: str) -> None:
        await self._client(node).remove_volume(name)

    async def images(self, node: str) -> tuple[ImageInfo, ...]:
        return await self._client(node).images()

    async def transfer(self, node: str, image: str) -> tuple[int, int]:
        return await self._client(node).transfer(image)

    async def forget_images(self, node: str, request: ForgetImages) -> ForgottenImages:
        return await self._client(node).forget_images(request)

    async def metrics(self, node: str) -> str:
        return await self._client(node).metrics()

    @property
    def sessions(self) -> int:
        """Return how many agents are instructed right now."""
        return len(self._sessions)

    async def listening(self, node: str) -> tuple[str, ...]:
        return await self._client(node).listening()

    async def paths(self, node: str, asked: Sequence[str]) -> dict[str, PathState]:
        return await self._client(node).paths(asked)

    async def usage(self, node: str, stack: str) -> NodeUsage:
        return await self._client(node).usage(stack)

    async def processes(self, node: str, stack: str) -> NodeProcesses:
        return await self._client(node).processes(stack)

    async def signal(self, node: str, request: SignalTasks) -> tuple[str, ...]:
        return await self._client(node).signal(request)

    async def leave(self, node: str) -> None:
        """Have a node forget us; nobody tells it anything from then on, a new session neither."""
        if node in self._left:
            return
        await self._session(node).leave()
        self._left.add(node)

    def connected(self, node: str) -> bool:
        """Say whether the node is instructed right now."""
        return node in self._sessions

    def _client(self, node: str) -> AgentClient:
        return self._session(node).client

    def _session(self, node: str) -> AgentSession:
        if session := self._sessions.get(node):
            return session
        member = self._cluster.nodes.get(node)
        if member is None:
            raise NotFound(f"there is no node {node}", hint="corral node ls")
        reason = self._reasons.get(node, "it was not heard from yet")
        if member.name not in reason:
            reason = f"node {member.name} is not reached: {reason}"
        raise Unavailable(reason)

    # Sessions.

    async def ask(self) -> dict[str, Hello]:
        """Return what agents say of themselves, by node name, of all that answer in time.

        Who does not answer is asked again, since an agent may just be starting, too, and one that
        is met later could only be told to wait: each, where the store was restored; else until
        somebody knows what was told last. That is this machine's own agent, if it is a member.
        """
        members = list(self._cluster.nodes.values())
        own = {node.name for node in members if not node.address}
        found: dict[str, Hello] = {}

        def missing() -> list[Node]:
            if not self._patient and (own & found.keys() if own else found):
                return []
            return [node for node in members if node.name not in found]

        patience = ASK_ONE if self._patient else ASK
        if not self._patient:
            found |= await self._of_all(members, lambda client: client.hello(), patience)
        until = self._clock.monotonic() + (ASK_RESTORED if self._patient else ASK_ON - ASK)
        while (asked := missing()) and (left := until - self._clock.monotonic()) > 0:
            await asyncio.sleep(min(ASK_AGAIN, left))
            patience = min(patience, left)
            found |= await self._of_all(asked, lambda client: client.hello(), patience)
        return found

    async def held(self, nodes: Collection[Node] | None = None) -> dict[str, HeldSet]:
        """Return what nodes hold, by node id, of all that answer; of all members by default."""
        asked = list(self._cluster.nodes.values()) if nodes is None else list(nodes)
        found = await self._of_all(asked, lambda client: client.held(), ASK_HELD)
        ids = {node.name: node.id for node in asked}
        if nodes is None:
            own = {node.name for node in asked if not node.address}
            self.blank = frozenset(
                ids[name] for name, held in found.items() if name in own and held.stamp is None
            )
        return {ids[name]: held for name, held in found.items() if self._ours(held.stamp)}

    async def _of_all(
        self,
        nodes: Collection[Node],
        question: Callable[[AgentClient], Awaitable[T]],
        patience: float,
    ) -> dict[str, T]:
        answers: dict[str, T] = {}

        async def ask(node: Node) -> None:
            with contextlib.suppress(RequestError, TimeoutError):
                async with asyncio.timeout(patience), self._reach(node) as client:
                    answers[node.name] = await question(client)

        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(ask(node), name=f"ask-{node.name}")
        return answers

    async def _follow_nodes(self, control: Control, group: asyncio.TaskGroup) -> None:
        """Have one running task for every member, by id and address."""
        changed = self._cluster.nodes_changed()
        running: dict[tuple[str, str], asyncio.Task[None]] = {}
        while True:
            changed.clear()
            members = {(node.id, node.address) for node in self._cluster.nodes.values()}
            self._left &= {node for node, _ in members}
            for key in [key for key in running if key not in members]:
                running.pop(key).cancel()
            for key in sorted(members - running.keys()):
                running[key] = group.create_task(
                    self._keep(key[0], control), name=f"session-{key[0]}"
                )
            await changed.wait()

    async def _keep(self, node_id: str, control: Control) -> None:
        """Connect, and connect again, with growing and scattered pauses."""
        backoff: Backoff | None = None
        while (node := self._cluster.nodes.get(node_id)) is not None:
            longest = LONGEST_DELAY if node.address else LONGEST_DELAY_LOCAL
            backoff = backoff or Backoff(FIRST_DELAY, longest, rng=self._rng)
            began = self._clock.monotonic()
            try:
                await self._connect(node, control)
            except _AgentAway as exc:
                self._lost(node, control, str(exc), host=True)
            except RequestError as exc:
                self._lost(node, control, exc.detail)
            except StoreError as exc:
                # What it said could not be kept; a new session begins with its full report.
                self._lost(node, control, str(exc))
            except Superseded:
                raise
            except Exception as exc:
                # Our mistake, not the node's; the session is made again, and the log has it all.
                log.exception("session failed", extra={"node": node_id})
                self._lost(node, control, f"internal error ({type(exc).__name__}), see the log")
            if self._clock.monotonic() - began > SETTLED:
                backoff.reset()
            await asyncio.sleep(backoff.pause())

    async def _connect(self, node: Node, control: Control) -> None:
        if node.id in self._left:
            raise Unavailable("it has left the cluster, and its record is not dropped yet")
        async with self._reach(node) as client:
            control.reached(node.id)
            session = AgentSession(
                node=node,
                client=client,
                control=control,
                cluster=self._cluster,
                stamp=Stamp(cluster=self.identity.id, epoch=self.identity.epoch),
                generation=self._generations.get(node.id, 0),
                heartbeat=self._heartbeat,
                silence=self._silence,
                certify=partial(self._certify, node.id),
                known=self.known,
                turns=self._turns,
            )
            try:
                hello = await session.open()
            except RequestError as exc:
                raise _AgentAway(agent_away(node, exc)) from exc
            await control.connected(node.id, hello)
            self._sessions[node.id] = session
            self._reasons.pop(node.id, None)
            log.info("connected", extra={"node": node.id})
            try:
                await session.run()
            finally:
                self._generations[node.id] = session.generation
                self._sessions.pop(node.id, None)

    def _certify(self, node_id: str, hello: Hello) -> Certified:
        if self._authority is None or not hello.signing_request:
            return Certified()
        try:
            now = self._zero + self._clock.monotonic()
            signed = self._authority.issue(hello.signing_request, node_id, now=now)
        except ValueError as exc:
            log.warning("no certificate: %s", exc, extra={"node": node_id})
            return Certified()
        return Certified(signed, self._authority.pem)

    def _lost(self, node: Node, control: Control, reason: str, *, host: bool = False) -> None:
        if self._reasons.get(node.id) != reason:
            log.info("not connected: %s", reason, extra={"node": node.id})
        self._reasons[node.id] = reason
        control.disconnected(node.id, reason, host=host)

    @contextlib.asynccontextmanager
    async def _reach(self, node: Node) -> AsyncIterator[AgentClient]:
        async with (
            self._transport.connect(node) as connector,
            talking(connector, node.name, self._spelled) as client,
        ):
            yield client
