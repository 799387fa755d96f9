"""One connection's life with one agent: full set, then increments; its reports, until it is lost.

dispatch/dispatcher.py makes one for every connection and runs it in the node's own task. It
turns the control loops' wanted set into instructions and the agent's reports into
calls of Control, and decides nothing else. A node whose disk does not keep what it is told is
listened to all the same, and told again: by its own word it is unready. It ends by raising:
Unavailable (try again), Superseded (a newer controller has spoken: stop everywhere).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from orchestrator.dispatch.behind import compare
from orchestrator.dispatch.instructions import difference, is_empty, whole
from orchestrator.errors import Conflict, Unavailable, Unkept
from specs import skew
from specs.kit import cancelled
from specs.kit.failpoints import reached
from specs.kit.turns import OneATurn
from specs.lease import RENEW
from specs.states import WANTED
from specs.wire import (
    HEARTBEAT,
    PROTOCOL,
    Hello,
    Instructions,
    LeaveCluster,
    Objects,
    Refused,
    Report,
    Stamp,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.contracts import Control, Mirror
    from orchestrator.dispatch.agent import AgentClient
    from orchestrator.dispatch.behind import StoreSays
    from specs.node import Node, NodeFacts
    from specs.wire import NodeSelf

log = logging.getLogger(__name__)

RENEW_AFTER = 45 * 86400.0  # seconds: half of a certificate's life
LEASE_SOON = 0.5  # seconds between answers where a task waits for its lease
TELL_AGAIN = 5.0  # seconds after which a node whose disk did not keep it is told again
COALESCE = 0.015  # seconds: changes that come together go out together
ALONE = 0.1  # seconds without any before a change that is sent at once
UNREAD = 10  # things that cannot be read, told of one node
MISSED = 3  # heartbeats without a report after which a node counts as not heard


class Certified(NamedTuple):
    """A node's certificate and the authority that signed it, PEM; empty where it asked for none."""

    certificate: str = ""
    authority: str = ""


class Superseded(Exception):
    """An agent has taken instructions from a newer controller of this cluster."""


class AgentSession:
    """``stamp`` carries cluster and epoch; ``generation`` is the last one this node was sent."""

    def __init__(
        self,
        *,
        node: Node,
        client: AgentClient,
        control: Control,
        cluster: Mirror,
        stamp: Stamp,
        generation: int,
        heartbeat: float = HEARTBEAT,
        silence: float = 0.0,
        certify: Callable[[Hello], Certified] | None = None,
        known: Callable[[], StoreSays] | None = None,
        turns: OneATurn | None = None,
    ) -> None:
        self._node = node
        self.client = client
        self._control = control
        self._cluster = cluster
        self._stamp = stamp
        self.generation = generation
        self._heartbeat = heartbeat
        self._silence = silence  # 0 = MISSED heartbeats
        self._certify = certify
        self._known = known
        self._turns = turns or OneATurn()  # all sessions' together: each makes its node's set
        self._certified = Certified()
        self._hello: Hello | None = None
        self._facts: NodeFacts | None = None
        self._sent: tuple[NodeSelf, Objects] | None = None
        # (generation, mirror revision its set was computed from), not applied yet, oldest first.
        self._unapplied: deque[tuple[int, int]] = deque()
        self._applied = 0
        self._unkept = ""  # why the node's disk does not keep what it is told
        self._telling = asyncio.Lock()  # one at a time: the set, an increment, that it leaves
        self._left = False  # it forgot us: whatever it is told now would make it a member again

    async def open(self) -> Hello:
        """Greet, and check that this is our node and that we may instruct it."""
        hello = await self.client.hello()
        check(hello, self._node, self._stamp)
        if self._known is not None and (found := compare(self._known(), {self._node.name: hello})):
            # Met only now: what was done meanwhile is done, nothing more is.
            raise Superseded(f"{found.words}. Restart the controller first")
        if hello.stamp is not None:
            # Above everything the agent ever applied, so that an old ``applied`` acknowledges
            # nothing of ours.
            self.generation = max(self.generation, hello.stamp.generation)
        self._hello, self._facts = hello, hello.facts
        # Of an agent that came before quicker heartbeats only the usual ones are expected.
        self._heartbeat = max(self._heartbeat, hello.heartbeat)
        self._silence = self._silence or MISSED * self._heartbeat
        self._renew()
        return hello

    async def run(self) -> NoReturn:
        """Instruct and listen until the connection is lost."""
        changed = self._control.changed(self._node.id)
        changed.clear()
        # STRICTLY BEFORE the reports: the first full report then knows every task it was sent.
        kept = await self._keeps()
        group = asyncio.TaskGroup()
        try:
            async with group:
                group.create_task(
                    self._instruct(changed, kept=kept), name=f"instruct-{self._node.name}"
                )
                group.create_task(self._listen(), name=f"listen-{self._node.name}")
                group.create_task(self._keep_certified(changed), name="certificate")
                group.create_task(self._lease(), name="leases")
        except BaseExceptionGroup as group_error:
            cancelled.settle(group)  # the node is tried again, with timeouts
            raise _first(group_error) from group_error
        raise Unavailable(f"node {self._node.name}: the session ended")

    async def _instruct(self, changed: asyncio.Event, *, kept: bool) -> None:
        clock = asyncio.get_running_loop().time
        last = clock()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if kept else TELL_AGAIN):
                    await changed.wait()
            if clock() - last < ALONE:
                await asyncio.sleep(COALESCE)
            changed.clear()
            kept = await self._keeps()
            last = clock()

    async def _keeps(self) -> bool:
        """Bring the node up to date; False: its disk does not keep what it is told."""
        try:
            await self._bring_up_to_date()
        except Unkept as exc:
            if self._unkept != exc.detail:
                log.warning("not told: %s", exc.detail)
            self._unkept = exc.detail
            return False
        self._unkept = ""
        return True

    def _renew(self) -> None:
        if self._certify is not None and self._hello is not None:
            self._certified = self._certify(self._hello)

    async def _keep_certified(self, changed: asyncio.Event) -> NoReturn:
        while True:
            await asyncio.sleep(RENEW_AFTER)
            self._renew()
            changed.set()

    async def leave(self) -> None:
        """Have the node forget us; it is told nothing from then on, and while it leaves.

        Raises as the client does. Then it stays, and is told its whole set again: what it still
        holds of the last one is not known.
        """
        async with self._telling:
            self._left = True
            # A number of its own: what is told later is newer than a leave that comes late.
            self.generation += 1
            asked = LeaveCluster(stamp=self._stamp.at(self.generation), node=self._node.id)
            try:
                self._check_left(await self.client.leave(asked))
            except BaseException:
                self._left, self._sent = False, None
                self._control.changed(self._node.id).set()
                raise

    def _check_left(self, refused: Refused | None) -> None:
        if refused is not None:
            self._refused(refused)
            raise Unavailable(f"node {self._node.name} does not leave: {refused.message}")

    async def _lease(self) -> NoReturn:
        """Answer the node's questions for leases, while there are exclusive services."""
        leases, question = self._control.leases, 0
        while True:
            await leases.some.wait()
            answer = leases.answer(self._node.id, question, self._stamp)
            told = await self.client.lease(answer)
            if isinstance(told, Refused):
                self._refused(told)
                raise Unavailable(f"node {self._node.name} takes no leases: {told.message}")
            leases.asked(self._node.id, answer, told)
            began, question = not question, told.question
            waits = any(answer.tasks.values())
            await asyncio.sleep(0.0 if began else LEASE_SOON if waits else RENEW)

    async def _bring_up_to_date(self) -> None:
        async with self._telling:
            if not self._left:
                await self._tell()

    async def _tell(self) -> None:
        async with self._turns.mine():
            # The revision STRICTLY BEFORE the set: the set then contains at least that revision.
            revision = self._cluster.revision
            me, wanted = self._control.wanted(self._node.id)
            me = me.certified(*self._certified)
            old_me, old = self._sent or (None, Objects())
            put, remove = difference(old, wanted)
        if old_me is None:
            await self._send(revision, me, wanted)
            return
        if me == old_me and is_empty(put, remove):
            self._sent = (me, wanted)  # keeps what is compared by identity next time fresh
            self._note(self.generation, revision)
            return
        await self._send(revision, me, wanted, put=put, remove=remove)

    async def _send(
        self,
        revision: int,
        me: NodeSelf,
        wanted: Objects,
        *,
        put: Objects | None = None,
        remove: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Send the increment, or the full set without one or when the agent asks for it."""
        self._check_fit(wanted if put is None else put)
        base = self.generation if put is not None else None
        generation = self.generation + 1
        reached("dispatch.before_send")
        answer = await self.client.instruct(
            Instructions(
                stamp=self._stamp.at(generation),
                me=me,
                base=base,
                put=whole(wanted) if put is None else put,
                remove=remove or {},
                protocol=PROTOCOL,
                revision=revision,
            )
        )
        reached("dispatch.after_send")
        if isinstance(answer, Refused):
            self._refused(answer)  # returns only when the full set is asked for
            if put is None:
                raise Unavailable(f"node {self._node.name} refuses a full set: {answer.message}")
            if answer.seen is not None:
                self.generation = max(self.generation, answer.seen.generation)
            await self._send(revision, me, wanted)
            return
        self.generation = generation
        self._sent = (me, wanted)
        self._note(generation, revision)

    def _check_fit(self, put: Objects) -> None:
        """Send nothing that an older agent would run otherwise than asked. Raises Conflict."""
        version = self._hello.protocol if self._hello is not None else PROTOCOL
        if version >= PROTOCOL:
            return
        for one in put.tasks.values():
            if one.desired in WANTED and (why := skew.unfit(one.spec, version)):
                raise Conflict(
                    f"node {self._node.name} runs an older corral (wire {version}) that does not"
                    f" honour {why} of {one.name}: it is not instructed, its containers run on",
                    hint="bring its agent to this version of corral",
                )

    def _refused(self, answer: Refused) -> None:
        name = self._node.name
        match answer.reason:
            case "epoch":
                raise Superseded(superseded(name, answer.seen, self._stamp))
            case "cluster":
                raise Conflict(f"node {name} refuses: {answer.message}")
            case "base":
                log.debug("full set asked for", extra={"node": self._node.id})

    async def _listen(self) -> None:
        last = Report()
        found = self.client.reports(silence=self._silence, heartbeat=self._heartbeat)
        try:
            async with contextlib.aclosing(found) as reports:
                async for read in reports:
                    if read.clock:
                        self._control.shows(self._node.id, read.clock)
                    report = self._with_unread(read)
                    if says_something(report, last):
                        await self._control.ingest(self._node.id, report)
                    last = report
                    self._apply(report.applied)
        except Unavailable as exc:
            if isinstance(exc.__cause__, TimeoutError):
                raise Unavailable(
                    f"node {self._node.name} said nothing for {self._silence:g} s"
                ) from exc
            raise
        raise Unavailable(f"node {self._node.name}: the agent ended its reports; it may restart")

    def _with_unread(self, report: Report) -> Report:
        """Have what cannot be read of the reports be told with the node's facts."""
        if report.facts is not None:
            self._facts = report.facts
        if not report.unread or self._facts is None:
            return report
        unread = dict.fromkeys((*self._facts.unread, *(f"its reports: {n}" for n in report.unread)))
        if tuple(unread)[:UNREAD] == self._facts.unread:
            return report
        log.warning("not all of a report can be read", extra={"unread": report.unread[:5]})
        self._facts = self._facts.with_unread(tuple(unread)[:UNREAD])
        return report.with_facts(self._facts)

    def _note(self, generation: int, revision: int) -> None:
        """Remember which revision a generation stands for, until it is applied."""
        if self._unapplied and self._unapplied[-1][0] == generation:
            self._unapplied.pop()
        self._unapplied.append((generation, revision))
        self._apply(self._applied)

    def _apply(self, applied: int) -> None:
        self._applied = applied
        newest = None
        while self._unapplied and self._unapplied[0][0] <= applied:
            newest = self._unapplied.popleft()[1]
        if newest is not None:
            self._control.acknowledged(self._node.id, newest)


def check(hello: Hello, node: Node, stamp: Stamp) -> None:
    """Raise unless the agent is the node's, of our cluster, and has seen nothing newer."""
    if why := skew.refusal(node.name, hello.protocol):
        raise Conflict(why, hint="bring both to the same version of corral")
    if hello.stamp is None:
        return
    if hello.stamp.cluster != stamp.cluster:
        raise Conflict(
            f"node {node.name} belongs to another cluster ({hello.stamp.cluster})",
            hint="remove it there first: corral node rm",
        )
    if hello.node and hello.node != node.id:
        raise Conflict(f"at {node.name}'s address another node of this cluster answers")
    if hello.stamp.epoch > stamp.epoch:
        raise Superseded(superseded(node.name, hello.stamp, stamp))


def superseded(name: str, seen: Stamp | None, ours: Stamp) -> str:
    """Return the words for the operator of a controller that must not go on."""
    epoch = seen.epoch if seen else "a higher one"
    return (
        f"node {name} has been instructed by a newer controller (epoch {epoch}, ours is"
        f" {ours.epoch}); this one has stopped instructing. If no other controller runs, restart"
        " this one: it will take a higher epoch"
    )


def says_something(report: Report, last: Report) -> bool:
    """Say whether a report holds more than a heartbeat; ``last`` is the one before."""
    return bool(
        report.full
        or report.tasks
        or report.gone
        or report.facts is not None
        or report.warnings != last.warnings
        or report.trouble != last.trouble
        or report.room != last.room
        or report.mtu != last.mtu
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that decides: being superseded before anything else."""
    found = [
        _first(error) if isinstance(error, BaseExceptionGroup) else error
        for error in group.exceptions
    ]
    return next((error for error in found if isinstance(error, Superseded)), found[0])
