"""Sessions with agents: who may instruct, full sets and increments, reports, coming back."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, replace

import pytest

from orchestrator.contracts import LogQuery
from orchestrator.dispatch import dispatcher as dispatch
from orchestrator.dispatch import session
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.session import AgentSession
from orchestrator.errors import Invalid, NotFound, Unavailable
from orchestrator.keys import identity
from orchestrator.store.base import StoreUnavailable
from orchestrator.store.memory import MemoryStore
from orchestrator.transport.local import LocalTransport
from specs.api import Stack
from specs.kit.clock import SystemClock
from specs.node import Node, NodeFacts
from specs.stack import BuildSpec, TaskSpec
from specs.states import Desired, TaskState
from specs.wire import (
    HEARTBEAT,
    PROTOCOL,
    Acknowledged,
    Assignment,
    BuildEvent,
    BuildImage,
    Hello,
    Instructions,
    LeaveCluster,
    LogLine,
    Objects,
    Peer,
    Refused,
    Report,
    ResolveImage,
    Stamp,
)
from tests.fakes.agent import FakeAgent, digest
from tests.fakes.control import FakeCluster, FakeControl
from tests.fakes.simulator import Behaviour

CLUSTER = "c1"


def assignment(task="t1", **changes):
    fields = {
        "id": task, "stack": "s", "service": "web", "slot": 1, "name": f"s-web-{task}",
        "spec": TaskSpec(image="web"), "desired": Desired.RUNNING,
    }  # fmt: skip
    return Assignment(**{**fields, **changes})


def tasks(*assignments, **others):
    return Objects(tasks={a.id: a for a in assignments}, **others)


@dataclass
class World:
    agent: FakeAgent
    control: FakeControl
    cluster: FakeCluster
    dispatcher: Dispatcher
    store: MemoryStore
    silence: float
    running: asyncio.Task[None]

    async def connected(self):
        """Return when the first full set was taken."""
        await self.control.until(lambda: self.dispatcher.connected("n1"))
        await self.control.until(lambda: any(r.full for _, r in self.control.reports))

    async def heard(self, heartbeats=2):
        """Return when the controller has dealt with so many more heartbeats.

        Reports come in order: when facts said after them are there, so were they.
        """
        await self.connected()
        await self.agent.beats(heartbeats)
        name = f"after {self.agent.heartbeats}"
        self.agent.say_facts(NodeFacts(hostname=name))
        await self.control.until(
            lambda: any(r.facts and r.facts.hostname == name for _, r in self.control.reports)
        )

    async def restart_controller(self):
        """As a kill and a new start: the store stays, everything else is made again."""
        await stop(self.running)
        self.control = FakeControl()
        self.dispatcher, self.running = await start(
            self.store, self.cluster, self.control, self.agent.socket, self.silence
        )


async def start(store, cluster, control, socket, silence):
    entry = await store.get("/cluster")
    dispatcher = Dispatcher(
        store=store,
        cluster=cluster,
        identity=identity.decode(entry.value),
        transport=LocalTransport(socket),
        clock=SystemClock(),
        rng=random.Random(1),
        silence=silence,
    )
    return dispatcher, asyncio.create_task(dispatcher.run(control))


class Listened:
    """An agent that notes how its reports are asked for, and says no more."""

    def __init__(self, shortest: float) -> None:
        self.shortest = shortest
        self.asked: list[dict[str, float]] = []

    async def hello(self) -> Hello:
        return Hello(node="n1", heartbeat=self.shortest)

    async def instruct(self, instructions: Instructions) -> Acknowledged:
        return Acknowledged(generation=instructions.stamp.generation)

    async def reports(self, **how: float):
        self.asked.append(how)
        raise Unavailable("nothing came") from TimeoutError()
        yield Report()


@pytest.mark.parametrize(
    ("wanted", "shortest", "heartbeat", "silence"),
    [
        (3.0, 0.5, 3.0, 9.0),
        (1.0, 0.5, 1.0, 3.0),
        (0.5, 0.5, 0.5, 1.5),
        (0.5, 1.0, 1.0, 3.0),
        (1.0, 3.0, 3.0, 9.0),  # an agent one release older knows no other than this
        (3.0, 3.0, 3.0, 9.0),
    ],
)
async def test_an_agent_is_asked_for_no_more_heartbeats_than_it_keeps(
    wanted, shortest, heartbeat, silence
):
    agent = Listened(shortest)
    session = AgentSession(
        node=Node(id="n1", name="n1"),
        client=agent,
        control=FakeControl(),
        cluster=FakeCluster(),
        stamp=Stamp(cluster="c", epoch=1),
        generation=0,
        heartbeat=wanted,
    )
    await session.open()
    with pytest.raises(Unavailable, match=f"said nothing for {silence:g} s"):
        await session.run()
    assert agent.asked == [{"silence": silence, "heartbeat": heartbeat}]


def test_agents_of_before_say_the_heartbeat_they_have():
    assert Hello.model_validate({}).heartbeat == HEARTBEAT


async def stop(running):
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.fixture
async def agent(tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(dispatch, "LONGEST_DELAY_LOCAL", 0.02)
    monkeypatch.setattr(dispatch, "ASK_AGAIN", 0.02)
    async with FakeAgent(tmp_path / "agent.sock", heartbeat=0.05) as agent:
        yield agent


@pytest.fixture
def silence():
    """Return what no busy machine holds agent and controller up for: both are in this process."""
    return 60.0


@pytest.fixture
async def world(agent, silence):
    store, cluster, control = MemoryStore(), FakeCluster(), FakeControl()
    cluster_record = identity.ClusterRecord(CLUSTER, 0, "10.210.0.0/16", 0.0)
    from orchestrator.store.base import Put

    await store.txn(writes=(Put("/cluster", identity.encode(cluster_record)),))
    cluster.add_node(Node(id="n1", name="one"))
    dispatcher, running = await start(store, cluster, control, agent.socket, silence)
    world = World(agent, control, cluster, dispatcher, store, silence, running)
    yield world
    await stop(world.running)


async def test_a_new_agent_gets_the_full_set_and_the_first_epoch(world):
    world.control.want("n1", tasks(assignment()))
    await world.agent.instructed(1)

    (first,) = world.agent.received[:1]
    assert first.base is None
    assert first.stamp == Stamp(cluster=CLUSTER, epoch=1, generation=1)
    assert first.me.node == "n1"
    await world.control.until(
        lambda: any("t1" in report.tasks for _, report in world.control.reports)
    )
    node_id, hello = world.control.hellos[0]
    assert (node_id, hello.facts.hostname) == ("n1", "fake")


async def test_changes_go_out_as_increments(world):
    world.control.want("n1", tasks(assignment("t1"), assignment("t2")))
    await world.agent.instructed(1)
    world.control.want("n1", tasks(assignment("t2", restart=1), assignment("t3")))
    await world.agent.instructed(2)

    second = world.agent.received[1]
    assert second.base == 1
    assert set(second.put.tasks) == {"t2", "t3"}
    assert second.remove == {"tasks": ("t1",)}
    assert set(world.agent.objects.tasks) == {"t2", "t3"}


async def test_a_change_that_comes_alone_is_sent_at_once(world, monkeypatch):
    monkeypatch.setattr(session, "COALESCE", 3600.0)
    monkeypatch.setattr(session, "ALONE", 0.01)
    await world.connected()
    await asyncio.sleep(0.05)
    world.control.want("n1", tasks(assignment()))
    await world.agent.instructed(2)
    assert set(world.agent.objects.tasks) == {assignment().id}


async def test_changes_that_come_together_go_out_together(world, monkeypatch):
    # Long enough for a busy machine to make all of them meanwhile.
    monkeypatch.setattr(session, "COALESCE", 0.5)
    await world.connected()
    for wanted in [tasks(*(assignment(f"t{m}") for m in range(n))) for n in range(50)]:
        world.control.want("n1", wanted)
        await asyncio.sleep(0)
    await world.agent.instructed(2)
    if len(world.agent.objects.tasks) < 49:
        await world.agent.instructed(3)
    await world.heard()
    assert len(world.agent.received) <= 3
    assert len(world.agent.objects.tasks) == 49


async def test_nothing_is_sent_when_nothing_changed_but_it_is_acknowledged(world):
    world.control.want("n1", tasks(assignment()))
    await world.agent.instructed(1)
    world.cluster.revision = 41
    world.control.changed("n1").set()
    await world.control.until(lambda: ("n1", 41) in world.control.acknowledgements)
    assert len(world.agent.received) == 1


async def test_removal_is_acknowledged_only_when_it_is_in_the_kernel(world):
    world.agent.hold_network()
    world.cluster.revision = 7
    world.control.want("n1", tasks(assignment()))
    await world.agent.instructed(1)
    await world.heard()
    assert world.control.acknowledgements == []

    world.agent.apply()
    await world.control.until(lambda: world.control.acknowledgements == [("n1", 7)])


async def test_an_old_applied_number_acknowledges_nothing_of_a_new_controller(world):
    for n in range(3):
        world.control.want("n1", tasks(*(assignment(f"t{m}") for m in range(n + 1))))
        await world.agent.instructed(n + 1)
    await world.control.until(lambda: world.agent.applied == 3)
    world.agent.hold_network()

    world.cluster.revision = 9
    await world.restart_controller()
    await world.agent.instructed(4)
    await world.heard()

    assert world.agent.received[3].stamp == Stamp(cluster=CLUSTER, epoch=2, generation=4)
    assert world.control.acknowledgements == []
    world.agent.apply()
    await world.control.until(lambda: world.control.acknowledgements == [("n1", 9)])


async def test_a_store_that_is_behind_changes_nothing_until_somebody_decides(world):
    await world.connected()
    world.agent.stamp = Stamp(cluster=CLUSTER, epoch=41, generation=2)
    before = (await world.store.get("/cluster")).value
    await world.restart_controller()
    await asyncio.wait_for(world.dispatcher.settled.wait(), 300)
    await asyncio.sleep(0.1)  # five times its longest pause before it would try again
    assert "state adopt" in world.dispatcher.behind.words
    assert not world.dispatcher.ready.is_set(), "law: no loop runs"
    assert len(world.agent.received) == 1, "law: nobody is instructed"
    assert (await world.store.get("/cluster")).value == before, "law: no epoch is taken"

    world.dispatcher.decide(discard=False)
    await world.agent.instructed(2)
    assert world.agent.received[-1].stamp.epoch == 42
    assert world.dispatcher.identity.epoch == 42
    taken = identity.decode((await world.store.get("/cluster")).value)
    assert (taken.epoch, taken.trusted) == (42, 0)
    assert world.dispatcher.behind is None


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside one told less"])
async def test_an_agent_that_is_just_starting_is_waited_for(world, monkeypatch, others):
    """At a boot both start; nobody else may know that the store is an older one."""
    monkeypatch.setattr(dispatch, "ASK_ON", 300.0)
    await world.connected()
    world.agent.stamp = Stamp(cluster=CLUSTER, epoch=41, generation=2)
    before = (await world.store.get("/cluster")).value
    await world.agent.stop()
    if others:
        world.cluster.nodes["n2"] = Node(id="n2", name="two", address="root@192.0.2.2")
    hello = Hello(node="n2", stamp=Stamp(cluster=CLUSTER, epoch=1, generation=1))
    await stop(world.running)
    world.control = FakeControl()
    asked = []

    class Told(Dispatcher):
        async def _of_all(self, nodes, question, patience):
            asked.append({node.name for node in nodes})
            found = await super()._of_all(nodes, question, patience)
            return {**found, "two": hello} if others else found

    monkeypatch.setattr("tests.orchestrator.test_dispatch.Dispatcher", Told)
    world.dispatcher, world.running = await start(
        world.store, world.cluster, world.control, world.agent.socket, world.silence
    )
    async with asyncio.timeout(300):
        while len(asked) < 3:
            await asyncio.sleep(0.01)
    assert not world.dispatcher.settled.is_set()
    assert (await world.store.get("/cluster")).value == before, "law: no epoch is taken"
    await world.agent.start()
    await asyncio.wait_for(world.dispatcher.settled.wait(), 300)
    assert "state adopt" in world.dispatcher.behind.words


async def test_an_agent_that_does_not_come_is_not_waited_for_for_ever(world, monkeypatch):
    monkeypatch.setattr(dispatch, "ASK_ON", dispatch.ASK + 0.2)
    await world.connected()
    await world.agent.stop()
    epoch = world.dispatcher.identity.epoch
    await world.restart_controller()
    await asyncio.wait_for(world.dispatcher.ready.wait(), 300)
    assert world.dispatcher.identity.epoch == epoch + 1


@pytest.mark.parametrize("again", [False, True], ids=["once", "over a restart"])
@pytest.mark.parametrize("heard", [3, 2, 1, 7], ids=["the same", "before", "earlier", "lost"])
async def test_a_copy_of_the_same_epoch_is_taken_over_for_good(world, again, heard):
    """It was made, and put back, while one controller lived: its epoch is not the older one.

    An agent that was away while others were asked comes back with an epoch before; or with one
    that the store has lost.
    """
    await world.connected()
    for number in (2, 3):
        await world.restart_controller()
        await world.agent.instructed(number)
    assert world.dispatcher.identity.epoch == 3
    held = world.agent.simulated.holdings.held
    told, stamp = held.revision + 1000, held.stamp.model_copy(update={"epoch": heard})
    world.agent._remember(replace(held, revision=told, stamp=stamp))
    await world.restart_controller()
    await asyncio.wait_for(world.dispatcher.settled.wait(), 300)
    assert "state adopt" in world.dispatcher.behind.words
    world.dispatcher.decide(discard=False, taken={heard: told})
    await world.agent.instructed(4)
    assert world.dispatcher.identity.ended[heard] == told
    if again:
        await world.restart_controller()
        await world.agent.instructed(5)
    assert world.dispatcher.behind is None
    assert world.dispatcher.superseded == "", "law: what was decided is not asked about again"


async def test_our_own_agent_that_was_never_told_anything_is_known_as_such(world):
    """A controller restored on another machine has a new agent beside it: it is nobody's."""
    await world.connected()
    (known,) = await world.dispatcher.held()
    assert world.dispatcher.blank == frozenset()
    world.agent._remember(replace(world.agent.simulated.holdings.held, stamp=None))
    assert await world.dispatcher.held() == {}
    assert world.dispatcher.blank == {known}


async def test_what_nobody_took_over_is_asked_about_again(world):
    """It answers only after somebody decided: what it has was not taken over."""
    await world.connected()
    held = world.agent.simulated.holdings.held
    world.agent._remember(replace(held, revision=held.revision + 1000))
    await world.restart_controller()
    await asyncio.wait_for(world.dispatcher.settled.wait(), 300)
    world.dispatcher.decide(discard=False, taken={1: held.revision + 1})
    await world.control.until(lambda: world.dispatcher.superseded)
    assert "older than what runs on one" in world.dispatcher.superseded
    assert len(world.agent.received) == 1


async def test_what_was_discarded_is_not_asked_about_again(world):
    await world.connected()
    world.agent.stamp = Stamp(cluster=CLUSTER, epoch=41, generation=2)
    await world.restart_controller()
    await asyncio.wait_for(world.dispatcher.settled.wait(), 300)
    world.dispatcher.decide(discard=True)
    await world.agent.instructed(2)
    assert world.dispatcher.identity.trusted == 42
    await world.restart_controller()
    await world.agent.instructed(3)
    assert world.dispatcher.behind is None


async def test_an_agent_that_knows_a_newer_stack_is_met_late_and_nothing_more_is_done(world):
    """It was away when the controller started, and asked nobody else who knew."""
    await world.connected()
    newer = Stack(name="shop", epoch=1, generation=9)
    world.agent.remember_stack(newer)
    world.cluster.stacks["shop"] = newer.stamped(1, 4)
    await world.agent.restart()
    await world.control.until(lambda: world.dispatcher.superseded)
    assert "shop is older here" in world.dispatcher.superseded
    count = len(world.agent.received)
    world.control.want("n1", tasks(assignment("t3")))
    await asyncio.sleep(0.1)  # five times its longest pause before it would try again
    assert len(world.agent.received) == count


async def test_an_older_agent_gets_no_spec_it_does_not_honour_and_the_words_say_which(world):
    world.agent.speaks = 1
    world.control.want("n1", tasks(assignment("t1", after=("db to be healthy",))))
    await world.agent.restart()
    await world.agent.instructed(1)
    assert world.agent.received[-1].put.tasks["t1"].after == (), "law: it gets what it knows"
    spec = TaskSpec(image="web", no_new_privileges=True)
    world.control.want("n1", tasks(assignment("t1"), assignment("t2", spec=spec)))
    await world.control.until(
        lambda: any(
            "security_opt: no-new-privileges of s-web-t2" in r for _, r in world.control.lost
        )
    )
    assert set(world.agent.objects.tasks) == {"t1"}, "law: and what runs there runs on"


async def test_an_agent_too_far_away_is_refused_with_the_words(world):
    world.agent.speaks = PROTOCOL + 2
    await world.agent.restart()
    await world.control.until(
        lambda: any("containers run on" in reason for _, reason in world.control.lost)
    )


async def test_a_report_that_cannot_be_read_whole_is_told_with_the_node(world):
    await world.connected()
    await world.agent.say(b'{"tasks":{"t1":{"state":"dreaming"}},"mood":"good"}')
    await world.control.until(
        lambda: any(
            r.facts and any("dreaming" in u or "state" in u for u in r.facts.unread)
            for _, r in world.control.reports
        )
    )
    assert world.dispatcher.connected("n1"), "law: the session lives on"


async def test_an_agent_that_lost_its_set_gets_it_whole(world):
    world.control.want("n1", tasks(assignment("t1")))
    await world.agent.instructed(1)
    world.agent.stamp = Stamp(cluster=CLUSTER, epoch=1, generation=0)  # an older journal

    world.control.want("n1", tasks(assignment("t1"), assignment("t2")))
    await world.agent.instructed(2)
    assert world.agent.received[1].base is None
    assert set(world.agent.objects.tasks) == {"t1", "t2"}


@pytest.mark.parametrize("when", ["from the start", "later", "of a new controller"])
async def test_a_node_whose_disk_keeps_nothing_is_listened_to_and_told_again(
    world, monkeypatch, when
):
    """It is no node that fell silent: what runs there counts, and nobody replaces it."""
    monkeypatch.setattr(session, "TELL_AGAIN", 0.02)
    world.control.want("n1", tasks(assignment("t1")))
    if when != "from the start":
        await world.agent.instructed(1)
    world.agent.unkept = "seen: the file system is read-only"
    if when == "of a new controller":
        await world.restart_controller()
    lost = len(world.control.lost)
    world.control.want("n1", tasks(assignment("t1"), assignment("t2")))
    count = len(world.control.reports)
    await world.heard()
    assert len(world.control.reports) > count
    assert len(world.control.lost) == lost, "law: the session lives on"
    assert set(world.agent.objects.tasks) <= {"t1"}
    told = len(world.agent.received)
    world.agent.unkept = ""
    await world.agent.instructed(told + 1)
    assert set(world.agent.objects.tasks) == {"t1", "t2"}
    assert world.agent.stamp.epoch == world.dispatcher.identity.epoch


async def test_after_an_agents_restart_the_full_set_is_sent_again(world):
    world.control.want("n1", tasks(assignment("t1")))
    await world.connected()
    await world.agent.restart()
    await world.agent.instructed(2)

    assert world.agent.received[1].base is None
    assert world.agent.received[1].stamp.generation == 2
    assert ("n1", "fake") in [(n, h.facts.hostname) for n, h in world.control.hellos[1:]]
    assert world.control.lost


async def test_a_controller_that_is_behind_stops_and_says_so(world, caplog):
    world.control.want("n1", tasks(assignment("t1")))
    await world.agent.instructed(1)
    world.agent.stamp = Stamp(cluster=CLUSTER, epoch=5, generation=3)
    world.control.want("n1", tasks(assignment("t2")))
    await world.control.until(lambda: world.dispatcher.superseded)

    assert "newer controller (epoch 5, ours is 1)" in world.dispatcher.superseded
    assert "restart this one" in world.control.lost[-1][1]
    greeted = world.agent.greeted
    world.control.want("n1", tasks(assignment("t3")))
    await asyncio.sleep(0.1)  # five times its longest pause before it would try again
    assert world.agent.greeted == greeted, "it speaks to nobody any more"
    assert len(world.agent.received) == 1, "it instructs nobody any more"
    assert not world.running.done()
    assert "newer controller" in caplog.text


async def test_a_node_of_another_cluster_is_not_touched(world):
    await world.connected()
    await stop(world.running)
    world.agent.stamp = Stamp(cluster="theirs", epoch=3, generation=3)
    world.agent.received.clear()
    await world.restart_controller()
    await world.control.until(lambda: world.control.lost)

    assert "belongs to another cluster (theirs)" in world.control.lost[0][1]
    assert world.agent.received == []
    assert world.dispatcher.identity.epoch == 2, "their epochs are not ours"


async def test_another_node_at_the_address_is_not_touched(world):
    await world.connected()
    await stop(world.running)
    world.agent.be_node("n9")
    world.agent.received.clear()
    await world.restart_controller()
    await world.control.until(lambda: world.control.lost)
    assert "another node of this cluster answers" in world.control.lost[0][1]
    assert world.agent.received == []


@pytest.mark.parametrize("silence", [0.4])
async def test_an_agent_that_falls_silent_is_given_up(world):
    await world.connected()
    world.agent.mute = True
    await world.control.until(lambda: "said nothing for 0.4 s" in str(world.control.lost))
    said = [reason for _, reason in world.control.lost]
    first = next(i for i, reason in enumerate(said) if "said nothing" in reason)
    assert len(world.control.agentless) <= len(said) - 1 - first, "the host is asked again first"


async def test_an_agent_that_is_not_there_is_said_to_be_so_and_found_when_it_comes(world):
    await world.agent.stop()
    await world.control.until(
        lambda: any("no such file" in reason for _, reason in world.control.lost)
    )
    # The machine lets us in, so it is the agent that is away, and that is said.
    await world.control.until(lambda: "n1" in world.control.agentless)
    words = "agent not answering, host reachable (no such file"
    assert any(words in reason for _, reason in world.control.lost)
    assert "n1" in world.control.machines
    with pytest.raises(Unavailable, match="node one is not reached"):
        await world.dispatcher.images("n1")
    await world.agent.start()
    await world.connected()


async def test_heartbeats_do_not_reach_the_control_loops(world):
    await world.heard(4)
    *before, facts = (report for _, report in world.control.reports)
    assert facts.facts is not None
    assert len(before) <= 2


async def test_facts_and_task_moves_do(world):
    world.agent.behave("web", Behaviour(exit_code=3, log_tail=("boom",)))
    world.control.want("n1", tasks(assignment("t1")))
    await world.control.until(
        lambda: any(
            (status := report.tasks.get("t1")) and status.state is TaskState.FAILED
            for _, report in world.control.reports
        )
    )
    world.agent.say_facts(NodeFacts(hostname="renamed"))
    await world.control.until(
        lambda: any(r.facts and r.facts.hostname == "renamed" for _, r in world.control.reports)
    )


@pytest.mark.parametrize("error", [Unavailable, StoreUnavailable])
async def test_a_report_that_could_not_be_stored_comes_again(world, error, caplog):
    await world.connected()
    world.control.error = error("no space is left")
    world.control.want("n1", tasks(assignment("t1")))
    await world.control.until(lambda: world.control.lost)
    assert "no space is left" in world.control.lost[-1][1]

    world.control.error = None
    await world.control.until(
        lambda: any(r.full and "t1" in r.tasks for _, r in world.control.reports)
    )
    # Of ours: what other tests left behind may be told of at any time.
    assert not [r for r in caplog.records if r.exc_info and r.name.startswith("orchestrator")]


async def test_a_mistake_of_ours_ends_one_session_not_the_dispatcher(world, caplog):
    await world.connected()
    world.control.error = KeyError("ours")
    world.control.want("n1", tasks(assignment("t1")))
    await world.control.until(lambda: "internal error" in str(world.control.lost))
    world.control.error = None
    await world.control.until(lambda: any("t1" in r.tasks for _, r in world.control.reports))
    assert "session failed" in caplog.text


async def test_a_removed_node_is_left_alone(world):
    await world.connected()
    received, greeted = len(world.agent.received), world.agent.greeted
    world.cluster.drop_node("n1")
    # Another one is tried again and again meanwhile: the dispatcher looks, and not at this one.
    world.cluster.add_node(Node(id="n2", name="two", address="root@192.0.2.2"))
    await world.control.until(lambda: not world.dispatcher.connected("n1"))
    world.control.want("n1", tasks(assignment("t1")))
    rounds = len(world.control.lost) + 3
    await world.control.until(lambda: len(world.control.lost) >= rounds)
    assert (len(world.agent.received), world.agent.greeted) == (received, greeted)
    with pytest.raises(NotFound):
        await world.dispatcher.images("n1")


async def test_only_nodes_without_an_address_are_on_this_machine(world):
    world.cluster.add_node(Node(id="n2", name="two", address="root@192.0.2.2"))
    await world.control.until(lambda: any(n == "n2" for n, _ in world.control.lost))
    assert "is at root@192.0.2.2, not on this machine" in str(world.control.lost)
    assert "n2" not in world.control.machines
    assert "n2" not in world.control.agentless


async def test_peers_change_without_the_rest(world):
    world.control.want("n1", tasks(assignment("t1")))
    await world.agent.instructed(1)
    peer = Peer(node="n2", name="two", underlay="192.0.2.2", overlay="10.210.0.2")
    world.control.want("n1", tasks(assignment("t1"), peers={"n2": peer}))
    await world.agent.instructed(2)
    assert world.agent.received[1].put == Objects(peers={"n2": peer})


# Calls to one agent.


async def test_an_image_is_resolved_on_the_node(world):
    await world.connected()
    found = await world.dispatcher.resolve_image("n1", ResolveImage(image="web"))
    assert found.digest == digest("web")
    assert [i.names for i in await world.dispatcher.images("n1")] == [("web",)]


async def test_a_missing_image_is_refused_and_a_dead_registry_is_later(world):
    await world.connected()
    world.agent.missing_images.add("nope")
    world.agent.later_images.add("slow")
    with pytest.raises(Invalid, match="node one: image nope does not exist") as refused:
        await world.dispatcher.resolve_image("n1", ResolveImage(image="nope"))
    assert refused.value.hint == "check the name"
    with pytest.raises(Unavailable, match="does not answer"):
        await world.dispatcher.resolve_image("n1", ResolveImage(image="slow"))


async def test_a_build_streams_its_output(world):
    await world.connected()
    request = BuildImage(tag="x", build=BuildSpec(context="/src"))
    events = [event async for event in world.dispatcher.build("n1", request)]
    assert events[0] == BuildEvent(line="building x")
    assert events[-1].digest


async def test_logs_come_as_asked(world):
    world.control.want("n1", tasks(assignment("t1")))
    await world.agent.instructed(1)
    lines = [LogLine(time=float(n), stream="stdout", line=f"l{n}") for n in range(5)]
    await world.agent.log("t1", *lines)

    async def read(query):
        return [line.line async for line in world.dispatcher.logs("n1", "t1", query)]

    assert await read(LogQuery()) == ["l0", "l1", "l2", "l3", "l4"]
    assert await read(LogQuery(tail=2)) == ["l3", "l4"]
    assert await read(LogQuery(tail=0)) == []
    assert await read(LogQuery(since=3.0)) == ["l3", "l4"]
    with pytest.raises(NotFound):
        [line async for line in world.dispatcher.logs("n1", "t9", LogQuery())]


async def test_volumes_and_leaving(world):
    await world.connected()
    await world.dispatcher.remove_volume("n1", "data")
    await world.dispatcher.leave("n1")
    assert (world.agent.removed_volumes, world.agent.left) == (["data"], 1)


@pytest.mark.parametrize("then", ["a change", "a new connection"])
async def test_a_node_that_has_left_is_told_nothing_more(world, then):
    """It would be a member again, by the old name, and the record of it is dropped next."""
    world.control.want("n1", tasks(assignment("t1")))
    await world.connected()
    await world.dispatcher.leave("n1")
    told = len(world.agent.received)
    assert world.agent.stamp is None
    world.control.want("n1", tasks(assignment("t1"), assignment("t2")))
    if then == "a change":
        await world.heard()
    else:
        lost = len(world.control.lost)
        await world.agent.restart()
        await world.control.until(lambda: len(world.control.lost) >= lost + 3)
    assert len(world.agent.received) == told
    assert world.agent.stamp is None
    await world.dispatcher.leave("n1")  # again, as `node rm` does when its record stayed
    world.cluster.drop_node("n1")
    world.cluster.add_node(Node(id="n9", name="one"))
    await world.agent.instructed(told + 1)
    assert world.agent.received[-1].me.node == "n9"


async def test_a_node_that_is_leaving_is_told_nothing(world):
    world.control.want("n1", tasks(assignment("t1")))
    await world.connected()
    world.agent.leaving = asyncio.Event()
    leaving = asyncio.create_task(world.dispatcher.leave("n1"))
    await world.control.until(lambda: world.agent.left == 1)
    told = len(world.agent.received)
    world.control.want("n1", tasks(assignment("t2")))
    await world.heard()
    assert len(world.agent.received) == told
    world.agent.leaving.set()
    await leaving
    await world.heard()
    assert len(world.agent.received) == told


async def test_a_node_that_would_not_leave_is_told_its_whole_set_again(world):
    """What it gave up meanwhile is not known: an increment could build on what is gone."""
    world.control.want("n1", tasks(assignment("t1")))
    await world.connected()
    await world.agent.instructed(1)
    world.agent.stays = "t1 would not go"
    told = len(world.agent.received)
    with pytest.raises(Unavailable, match="t1 would not go"):
        await world.dispatcher.leave("n1")
    await world.agent.instructed(told + 1)
    assert world.agent.received[told].base is None
    assert set(world.agent.objects.tasks) == {"t1"}
    late = LeaveCluster(stamp=world.agent.asked_to_leave.stamp, node="n1")
    refused = await world.agent.simulated.leave(late)
    assert isinstance(refused, Refused), "that it stays is newer than a leave that comes late"
