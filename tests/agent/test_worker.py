"""Worker and runners on fakes, in virtual time: what is reported, in which order, how often."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING

import pytest

from agent.errors import Later, Refusal
from agent.runtime.bundle import NodeTraits
from agent.runtime.failure import RuntimeFailure
from agent.tasks import lifecycle
from agent.tasks.compose import compose
from agent.tasks.effects import Effects
from agent.tasks.journal import Journal
from agent.tasks.networking import SETTLE, SPACING
from agent.tasks.record import Phase
from agent.tasks.reports import STEPS, is_a_step
from agent.vocabulary import ImageConfig
from specs.kit import cancelled
from specs.node import NodeFacts
from specs.stack import Healthcheck, Mount, RestartPolicy
from specs.states import Desired, TaskState
from specs.wire import (
    Content,
    Instructions,
    LeaseAnswer,
    LeaveCluster,
    NetworkState,
    NodeSelf,
    Objects,
    Refused,
    StackSlots,
    Stamp,
    TaskNetwork,
)
from tests.agent.test_lifecycle import task
from tests.fakes.containers import FakeContainers
from tests.fakes.hooks import FakeHooks
from tests.fakes.node import FakeImages, FakeNetwork, FakeVolumes, NoPeers

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.looptime


class LoopClock:
    def monotonic(self):
        return asyncio.get_running_loop().time() + 1000.0

    def wall(self):
        return asyncio.get_running_loop().time() + 1_700_000_000.0


class Node:
    """A node without a kernel; ``restart`` is what a SIGKILL and a new start are."""

    def __init__(self, base: Path):
        self.base = base
        self.images = FakeImages(base / "images", known={"i": "sha256:" + "a" * 64})
        self.images.config = ImageConfig(digest="sha256:" + "a" * 64, command=("serve",))
        self.volumes, self.network = FakeVolumes(base / "volumes"), FakeNetwork()
        self.containers, self.hooks = FakeContainers(), FakeHooks()
        self.probes: dict[str, list[int]] = {}
        self.probed: list[str] = []
        self.generation = 0
        self.tasks = {}
        self.running: asyncio.Task | None = None

    async def start(self):
        self.journal = Journal(self.base / "journal", self.base / "tasks", self.base / "run")
        parts = compose(
            Effects(self.images, self.volumes, self.network, NoPeers()),
            journal=self.journal,
            containers=self.containers,
            prober=self.probe,
            hooks=self.hooks,
            clock=LoopClock(),
            boot="boot",
            traits=NodeTraits(runtime="runc"),
            tasks=self.base / "tasks",
            facts=NodeFacts(),
            look=self.facts,
        )
        self.worker, self.reports, self.holdings = parts.worker, parts.reports, parts.holdings
        self.listeners, self.leases = parts.listeners, parts.leases
        self.running = asyncio.get_running_loop().create_task(self.worker.run())
        await self.worker.adopted.wait()

    async def facts(self):
        return NodeFacts()

    async def kill(self):
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running
        self.journal.close()  # a thread of ours is not killed; it ends before the next life

    async def probe(self, task, command, timeout):
        self.probed.append(task)
        answers = self.probes.get(task, [])
        return (answers.pop(0) if len(answers) > 1 else answers[0] if answers else 0), "said"

    async def put(self, *assignments, remove=(), **more):
        if self.running is None:
            await self.start()
        for one in assignments:
            self.tasks[one.id] = one
        for name in remove:
            self.tasks.pop(name, None)
        self.generation += 1
        return await self.worker.accept(
            Instructions(
                stamp=Stamp(cluster="c", epoch=1, generation=self.generation),
                me=NodeSelf(node="n", name="n"),
                put=Objects(tasks=self.tasks, **more),
            )
        )

    def instructions(self, *assignments, base=None, remove=(), cluster="c", epoch=1, **more):
        return Instructions(
            stamp=Stamp(cluster=cluster, epoch=epoch, generation=self.generation),
            me=NodeSelf(node="n", name="n"),
            base=base,
            put=Objects(tasks={one.id: one for one in assignments}, **more),
            remove={"tasks": tuple(remove)} if remove else {},
        )

    async def increment(self, *assignments, remove=()):
        """Send changes on top of what it has."""
        self.tasks |= {one.id: one for one in assignments}
        for name in remove:
            self.tasks.pop(name, None)
        self.generation += 1
        return await self.worker.accept(
            self.instructions(*assignments, base=self.generation - 1, remove=remove)
        )

    async def until(self, condition, timeout=300.0):
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.01)

    def status(self, task):
        record = self.holdings.record(task)
        return record.status() if record else None


@pytest.fixture
async def node(tmp_path):
    # Started by the first put(): virtual time holds inside the test function only.
    made = Node(tmp_path)
    yield made
    if made.running is not None:
        await made.kill()


def named(name, desired="running", **keys):
    return task(desired, **keys).model_copy(update={"id": name, "name": f"s-{name}"})


async def test_a_task_runs_and_is_removed_without_a_trace(node):
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready)
    assert node.network.attached == node.images.mounted == {"a"}
    await node.put(named("a", "removed"))
    await node.until(lambda: "a" in node.reports.full().gone)
    assert not node.network.attached
    assert not node.images.kept
    assert not node.volumes.prepared
    assert not node.containers.written
    assert not (node.base / "tasks/a").exists()
    await node.put(remove=("a",))
    await node.until(lambda: node.status("a") is None)
    assert "a" in node.reports.full().gone


async def test_a_task_dropped_from_the_set_is_removed_too(node):
    await node.put(named("a"), named("b"))
    await node.until(lambda: node.status("a").ready and node.status("b").ready)
    await node.put(remove=("a",))
    await node.until(lambda: "a" in node.reports.full().gone)
    assert node.status("b").ready


async def test_a_network_that_is_not_in_order_is_told_until_it_is(node):
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready)
    assert node.reports.full().trouble == ""
    node.network.failures = 3
    await node.put(named("a"), named("b"))
    await node.until(lambda: "nft failed" in node.reports.full().trouble)
    await node.until(lambda: node.reports.full().trouble == "")
    node.network.troubled = "the MTU is too small"
    assert node.reports.full().trouble == "the MTU is too small"


NETWORK = NetworkState(id="n1", name="s_n", stack="s", key="n", pool="10.210.16.0/24")


@pytest.mark.parametrize("way", ["removed", "shutdown", "dropped from the set", "node leaves"])
async def test_a_stopping_task_keeps_its_network_until_its_process_has_ended(node, way):
    place = TaskNetwork(network="n1", address="10.210.16.2", gateway=True)
    mine = named("a", grace=20.0).model_copy(update={"networks": (place,)})
    node.containers.deaf.add("a")
    await node.put(mine, networks={"n1": NETWORK})
    await node.until(lambda: node.status("a").ready)
    leaving = None
    if way == "dropped from the set":
        await node.put(remove=("a",))
    elif way == "node leaves":
        leaving = asyncio.create_task(node.worker.leave())
    else:
        await node.put(mine.model_copy(update={"desired": Desired(way)}))
    await asyncio.sleep(19.0)  # it finishes the requests it has

    now = node.network.wanted[-1]
    assert "a" in node.containers.alive
    assert not now.ready["a"], "new connections go elsewhere"
    assert now.assignments["a"].networks == (place,)
    assert now.networks["n1"] == NETWORK
    assert node.network.attached == {"a"}

    await node.until(lambda: not node.network.attached, 30)
    await asyncio.sleep(1.0)
    assert "a" not in node.network.wanted[-1].assignments
    if leaving is not None:
        assert await leaving == []
        assert not node.network.wanted[-1].networks


async def test_a_start_waits_for_one_application_of_the_network(node):
    await node.start()
    await asyncio.sleep(1.0)  # what it does at its start is done
    before = len(node.network.applied)
    await node.put(named("a"))
    began = asyncio.get_running_loop().time()
    await node.until(lambda: "a" in node.containers.alive)
    assert len(node.network.applied) == before + 1
    assert asyncio.get_running_loop().time() - began < SPACING


async def test_at_most_four_at_once_and_network_calls_are_few(node):
    await node.put(*(named(f"t{i:02d}") for i in range(40)))
    before = len(node.network.applied)
    await node.until(lambda: all(node.status(t).ready for t in node.tasks))
    took = asyncio.get_running_loop().time()
    await asyncio.sleep(1.0)
    assert node.containers.most_at_once == 4
    assert len(node.network.applied) - before <= took / SPACING + 2, "coalesced, not one per task"
    assert all(node.network.applied[-1].values())


async def test_prepared_waits_for_running(node):
    await node.put(named("a", "prepared"))
    await node.until(lambda: node.status("a").state == "prepared")
    await asyncio.sleep(60)
    assert not node.containers.alive
    await node.put(named("a", "running"))
    await node.until(lambda: node.status("a").ready, timeout=1.0)


async def test_a_start_finds_the_endpoints_it_was_made_to_wait_for(node):
    node.network.delay = 1.0
    await node.put(named("db"), named("migrate", "prepared"))
    await node.until(lambda: node.status("db").ready)
    await node.until(lambda: node.status("migrate").state == "prepared")
    await node.put(named("db"), named("migrate"))
    await node.until(lambda: "migrate" in node.containers.alive)
    assert node.network.applied[-1]["db"], "it is reached at its VIP"


async def test_a_network_in_trouble_delays_a_start_and_does_not_refuse_it(node):
    await node.put(named("a", "prepared"))
    await node.until(lambda: node.status("a").state == "prepared")
    node.network.failures = 1_000_000
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready, timeout=SETTLE + 1.0)


async def test_what_cannot_be_prepared_is_rejected_or_tried_again(node):
    node.images.broken["i"] = Refusal("image i: manifest unknown")
    await node.put(named("a"))
    await node.until(lambda: node.status("a").state == "rejected")
    assert node.status("a").reason == "image i: manifest unknown"
    node.images.broken["i"] = Later("the registry does not answer")
    await node.put(named("b"))
    await node.until(lambda: "registry does not answer" in node.status("b").reason)
    assert node.status("b").retry_in > 0
    assert node.status("b").state == "preparing"
    node.images.broken.clear()
    await node.until(lambda: node.status("b").ready)


async def test_removal_interrupts_a_long_pull(node):
    node.images.delay = 3600.0
    await node.put(named("a"))
    await node.until(lambda: "getting image" in node.status("a").reason)
    await node.put(named("a", "removed"))
    await node.until(lambda: "a" in node.reports.full().gone, timeout=1.0)


async def test_a_preparation_whose_parts_failed_together_is_tried_again(node):
    """Layers come side by side: one fails, and the others fail as they are ended (Python 3.11)."""
    ensure, failing = node.images.ensure, [True, True]

    async def layer(seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        finally:
            raise Later("the nodes that have it stopped giving it")

    async def fails(*arguments, **more):
        if failing:
            failing.pop()
            group = asyncio.TaskGroup()
            try:
                async with group:
                    for seconds in (0.01, 5):
                        group.create_task(layer(seconds))
            except ExceptionGroup:
                cancelled.settle(group)
                raise
        return await ensure(*arguments, **more)

    node.images.ensure = fails
    await node.put(named("a"))
    await node.until(lambda: node.status("a").state == "running")
    assert not failing


async def test_an_agent_ends_though_a_step_fails_as_it_is_cancelled(node):
    """What clears up on its way out may fail: that is no step to be tried again."""
    ensure, begun = node.images.ensure, []

    async def fails_on_its_way_out(*arguments, **more):
        begun.append(arguments)
        if len(begun) > 1:
            return await ensure(*arguments, **more)
        try:
            await asyncio.sleep(3600.0)
        finally:
            raise OSError("the stage cannot be removed")

    node.images.ensure = fails_on_its_way_out
    await node.put(named("a"))
    await node.until(lambda: begun)
    node.running.cancel()
    _, still = await asyncio.wait({node.running}, timeout=60.0)
    if still:  # so that the node of this test ends
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
    assert (still, len(begun)) == (set(), 1)


async def test_crash_loop_backs_off_and_fails_with_its_last_lines(node):
    node.containers.behaviour["a"] = (0.05, 3)
    await node.put(named("a", local_restarts=3))
    began = asyncio.get_running_loop().time()
    await node.until(lambda: node.status("a").state == "failed")
    assert node.status("a").restarts == 3
    assert node.status("a").log_tail == ("the last line",)
    assert asyncio.get_running_loop().time() - began >= 0.1 + 0.2 + 0.4


async def test_one_off_completes_and_is_tidied_but_not_forgotten(node):
    node.containers.behaviour["a"] = (0.05, 0)
    await node.put(named("a", policy=RestartPolicy(condition="none")))
    await node.until(lambda: node.status("a").state == "complete" and not node.network.attached)
    assert node.images.kept == {"a"}, "the writable layer stays until removal"
    assert not node.images.mounted


async def test_health_gates_ready_and_traffic(node):
    node.probes["a"] = [1, 1, 1, 0]
    check = Healthcheck(test=("CMD", "x"), interval=1.0, retries=2)
    await node.put(named("a", healthcheck=check))
    await node.until(lambda: node.status("a").ready)
    await asyncio.sleep(0.1)
    assert node.network.applied[-1] == {"a": True}
    node.probes["a"] = [1]
    await node.until(lambda: not node.status("a").ready)
    await asyncio.sleep(0.1)
    assert {"a": False} in node.network.applied
    assert (node.containers.sent[-1][1]) == 15, "unhealthy is stopped with grace"


@pytest.mark.parametrize(("own", "sent"), [(None, 3), ("SIGINT", 2)])
async def test_the_images_stop_signal_is_sent_unless_the_service_names_one(node, own, sent):
    digest = "sha256:" + "a" * 64
    node.images.config = ImageConfig(digest=digest, command=("serve",), stop_signal="SIGQUIT")
    await node.put(named("a", stop_signal=own))
    await node.until(lambda: node.status("a").ready)
    await node.put(named("a", "shutdown", stop_signal=own))
    await node.until(lambda: node.status("a").state == "shutdown")
    assert [number for _, number in node.containers.sent] == [sent]


async def test_a_deaf_process_is_killed_after_its_grace(node):
    node.containers.deaf.add("a")
    await node.put(named("a", stop_grace=7.0))
    await node.until(lambda: node.status("a").ready)
    began = asyncio.get_running_loop().time()
    await node.put(named("a", "shutdown", stop_grace=7.0))
    await node.until(lambda: node.status("a").state == "shutdown")
    assert 7.0 <= asyncio.get_running_loop().time() - began < 12.0  # threads: see virtual_time
    assert [number for _, number in node.containers.sent] == [15, 9]


async def test_agent_death_adopts_without_touching(node):
    await node.put(*(named(f"t{i}") for i in range(10)))
    await node.until(lambda: all(node.status(t).ready for t in node.tasks))
    before = dict(node.containers.alive)
    await node.kill()
    node.containers.end(before["t3"].pid, 5)
    await node.start()
    await node.until(lambda: node.status("t3").run.number == 2)
    assert node.network.adopted == set(node.tasks)
    assert node.status("t3").runs[0].exit_code == 5
    for name, process in before.items():
        if name != "t3":
            assert node.containers.alive[name] == process


async def test_adoption_at_every_moment_of_a_start(tmp_path):
    """Kill the agent after each of the first virtual milliseconds; it must always converge."""
    for moment in range(12):
        node = Node(tmp_path / str(moment))
        await node.start()
        await node.put(named("a"), named("b"))
        await asyncio.sleep(moment * 0.004)
        await node.kill()
        await node.start()
        await node.until(lambda node=node: node.status("a").ready and node.status("b").ready)
        assert node.status("a").run.number == 1, "a half-made run is finished or undone"
        await node.put(named("a", "removed"), named("b", "removed"))
        await asyncio.sleep(moment * 0.004)
        await node.kill()
        await node.start()
        await node.until(lambda node=node: set(node.reports.full().gone) == {"a", "b"})
        assert not node.containers.written
        assert not node.network.attached
        await node.kill()


async def test_reports_full_first_then_changes_then_heartbeats(node):
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready)
    stream = node.reports.stream()
    first = await anext(stream)
    assert first.full
    assert first.tasks["a"].ready
    began = asyncio.get_running_loop().time()
    beat = await anext(stream)
    assert not beat.tasks
    assert asyncio.get_running_loop().time() - began <= 3.1
    node.containers.end(node.containers.alive["a"].pid, 1)
    change = await anext(stream)
    assert list(change.tasks) == ["a"]
    assert not change.tasks["a"].ready
    await stream.aclose()


@pytest.mark.parametrize("heartbeat", [0.5, 1.0, 3.0])
async def test_heartbeats_come_as_often_as_they_are_asked_for(node, heartbeat):
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready)
    stream = node.reports.stream(heartbeat)
    await anext(stream)
    began = asyncio.get_running_loop().time()
    for _ in range(3):
        await anext(stream)
    took = asyncio.get_running_loop().time() - began
    assert 2 * heartbeat < took < 3 * heartbeat + 0.3
    await stream.aclose()


async def test_applied_is_told_only_when_it_is_in_force(node):
    node.network.failures = 3
    await node.put(named("a"))
    assert node.holdings.applied < node.generation
    await asyncio.sleep(0.05)
    assert "nft failed" in node.reports.full().warnings[0]
    await node.until(lambda: node.holdings.applied == node.generation)
    assert node.reports.full().warnings == ()


async def test_a_network_that_never_comes_is_said(node):
    node.network.failures = 10**6
    await node.put(named("a"))
    await node.until(lambda: "network is not set up yet" in node.status("a").reason)
    assert node.status("a").state == "preparing"


async def test_launch_failures_are_told(node):
    node.containers.broken["a"] = RuntimeFailure("executable file `x` not found", 127)
    await node.put(named("a"))
    await node.until(lambda: node.status("a").state == "rejected")
    assert node.status("a").run.exit_code == 127
    node.containers.broken["b"] = RuntimeFailure("the kernel says no")
    await node.put(named("b"))
    await node.until(lambda: node.status("b").restarts >= 2)
    del node.containers.broken["b"]
    await node.until(lambda: node.status("b").ready)


async def test_bad_ids_and_old_controllers_are_refused(node):
    with pytest.raises(Refusal):
        await node.put(named("a").model_copy(update={"id": "../x"}))
    node.tasks.clear()
    await node.put(named("a"))
    node.generation -= 1
    stale = Instructions(
        stamp=Stamp(cluster="c", epoch=0, generation=9), me=NodeSelf(node="n", name="n")
    )
    assert isinstance(await node.worker.accept(stale), Refused)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "a..b", ".x", "", "x" * 129])
async def test_a_content_cannot_choose_where_it_is_written(node, name):
    await node.start()
    outside = set(node.base.rglob("*"))
    with pytest.raises(Refusal, match="content id"):
        await node.put(contents={name: Content(id=name, data="eA==")})
    assert set(node.base.rglob("*")) == outside, "nothing is written before the ids are judged"
    assert node.holdings.held.stamp is None, "and nothing of the message is held"


async def test_a_half_made_run_is_undone_once_and_begun_anew(node):
    """Killed between "run 1 is being made" and its end: the next life takes it back, once."""
    begun, clears = asyncio.Event(), []
    create, clear = node.containers.create, node.containers.clear

    async def unfinished(task, run, spec, **_):
        begun.set()
        await asyncio.Event().wait()

    async def counted(task):
        clears.append(task)
        assert len(clears) < 4, "law: an undone run is not undone again"
        await clear(task)

    node.containers.create, node.containers.clear = unfinished, counted
    await node.put(named("a"))
    await begun.wait()
    assert node.holdings.record("a").phase is Phase.CREATING
    await node.kill()
    node.containers.create = create
    await node.start()
    await node.until(lambda: node.status("a").ready)
    assert clears == ["a"]
    assert [run.number for run in node.status("a").runs] == [1]


async def test_a_run_that_was_made_and_not_started_is_forgotten_when_it_is_not_wanted(node):
    started = asyncio.Event()

    async def never(task):
        started.set()
        await asyncio.Event().wait()

    node.containers.start = never
    await node.put(named("a"))
    await started.wait()
    assert node.holdings.record("a").phase is Phase.CREATED
    await node.put(named("a", "shutdown"))
    await node.kill()
    await node.start()
    await node.until(lambda: node.status("a").state == "shutdown")
    assert node.status("a").runs == (), "law: what never ran is not told as a run that ended"


@pytest.mark.parametrize("when", ["before it is known", "afterwards"])
async def test_an_erased_task_leaves_no_record_where_records_are_written_again(
    node, monkeypatch, when
):
    """Somebody tidied up below /run while a task was being erased, or while it was in the set."""
    await node.put(named("a"), named("b"))
    await node.until(lambda: all(node.status(t).ready for t in "ab"))
    forget = node.journal.forget

    def tidied() -> None:
        shutil.rmtree(node.base / "run/records")
        node.journal.restore(node.holdings.records())

    def forgets(task: str) -> None:
        forget(task)
        if when == "before it is known":
            tidied()

    monkeypatch.setattr(node.journal, "forget", forgets)
    await node.put(named("a", "removed"), named("b"))
    await node.until(lambda: "a" in node.reports.full().gone)
    if when == "afterwards":
        tidied()
    await node.put(named("b"))
    assert [path.name for path in (node.base / "run/records").iterdir()] == ["b"]


@pytest.mark.parametrize("when", ["its lease is answered", "it is assigned anew"])
async def test_what_is_heard_of_a_task_while_it_is_erased_writes_no_record(node, monkeypatch, when):
    await node.put(named("a", exclusive=True), named("b"))
    await node.until(lambda: node.status("b").ready and node.status("a").state == "prepared")
    forget_again = node.journal.forget_again

    def heard(task: str) -> None:
        forget_again(task)
        if when == "its lease is answered":
            stamp = Stamp(cluster="c", epoch=1, generation=node.generation)
            node.leases.answered(LeaseAnswer(stamp=stamp, question=1, tasks={"a": "it waits"}))

    monkeypatch.setattr(node.journal, "forget_again", heard)
    await node.put(named("a", "removed", exclusive=True), named("b"))
    await node.until(lambda: "a" in node.reports.full().gone)
    if when == "it is assigned anew":
        await node.put(named("a", "removed", exclusive=True).with_restart(2), named("b"))
    await asyncio.sleep(1.0)
    await node.put(named("b"), remove=["a"])
    await asyncio.sleep(1.0)
    assert [path.name for path in (node.base / "run/records").iterdir()] == ["b"]


LATE = {
    "of another cluster": ({"cluster": "other"}, {}, "cluster"),
    "of an older epoch": ({"epoch": 1}, {}, "epoch"),
    "of before it was told to stay": ({"generation": 1}, {}, "base"),
    "of before it was added again": ({}, {"node": "before"}, "base"),
}


@pytest.mark.parametrize("case", LATE)
async def test_to_leave_is_refused_where_it_comes_late(node, case):
    stamp, who, reason = LATE[case]
    await node.put(named("a"))
    newer = Stamp(cluster="c", epoch=2, generation=3)
    asked = Instructions(
        stamp=newer, me=NodeSelf(node="n", name="n"), put=Objects(tasks=node.tasks)
    )
    assert not isinstance(await node.worker.accept(asked), Refused)
    await node.until(lambda: node.status("a").ready)
    late = LeaveCluster(stamp=newer.model_copy(update=stamp), node=who.get("node", "n"))
    refused = await node.worker.leave(late)
    assert isinstance(refused, Refused)
    assert refused.reason == reason
    assert node.status("a").ready
    assert await node.worker.leave(LeaveCluster(stamp=newer.at(4), node="n")) == []
    assert await node.worker.leave(LeaveCluster(stamp=newer.at(4), node="n")) == [], "again"


async def test_leave_takes_everything_and_forgets_the_cluster(node):
    await node.put(*(named(f"t{i}") for i in range(5)))
    await node.until(lambda: all(node.status(t).ready for t in node.tasks))
    assert await node.worker.leave() == []
    assert not node.containers.written
    assert not node.network.attached
    other = Instructions(
        stamp=Stamp(cluster="other", epoch=1, generation=1), me=NodeSelf(node="n", name="n")
    )
    assert not isinstance(await node.worker.accept(other), Refused)


async def test_what_is_paused_is_frozen_not_probed_and_ends_when_asked(node):
    check = Healthcheck(test=("CMD", "true"), interval=1.0)
    await node.put(named("a", healthcheck=check))
    await node.until(lambda: node.status("a").ready)
    await node.put(named("a", healthcheck=check, paused=True))
    await node.until(lambda: node.status("a").paused)
    assert node.containers.frozen == {"a"}
    asked = len(node.probed)
    await asyncio.sleep(10)
    assert len(node.probed) == asked, "nobody asks what cannot answer"
    assert node.status("a").ready, "it is as it was"
    await node.put(named("a", healthcheck=check))
    await node.until(lambda: not node.status("a").paused and len(node.probed) > asked)
    await node.put(named("a", healthcheck=check, paused=True))
    await node.until(lambda: node.status("a").paused)
    await node.put(named("a", "shutdown", healthcheck=check, paused=True))
    await node.until(lambda: node.status("a").state == "shutdown")
    assert node.status("a").run.exit_code == 128 + 15


async def test_what_does_not_freeze_says_so_and_is_tried_again(node):
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready)
    node.containers.stubborn["a"] = RuntimeFailure("its processes did not freeze within 10 s")
    await node.put(named("a", paused=True))
    await node.until(lambda: "did not freeze" in node.status("a").reason)
    assert node.status("a").ready
    del node.containers.stubborn["a"]
    await node.until(lambda: node.status("a").paused)


async def test_a_frozen_run_whose_record_is_lost_goes_on_when_asked(node):
    await node.put(named("a", paused=True))
    await node.until(lambda: node.status("a").paused)
    await node.kill()
    (node.base / "run/records/a").unlink()
    (node.base / "tasks/a/record.json").unlink()
    await node.start()
    await node.until(lambda: node.status("a").paused)
    await node.put(named("a"))
    await node.until(lambda: not node.status("a").paused)
    assert node.containers.frozen == set()


async def test_a_restart_is_asked_for_once(node):
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready)
    await node.put(named("a", restart=2))
    await node.until(lambda: node.status("a").restart_done == 2)
    await asyncio.sleep(30)
    assert node.status("a").run.number == 2
    assert node.holdings.record("a").assignment.desired is Desired.RUNNING


@pytest.mark.parametrize("in_set", [True, False])
async def test_what_was_erased_and_is_wanted_again_is_begun_anew(node, in_set):
    """By a controller that was told to believe an older state."""
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready)
    await node.put(named("a", "removed"))
    if in_set:
        await node.until(lambda: not node.containers.alive)
    await node.put(named("a"))
    await node.until(lambda: node.status("a") and node.status("a").ready)
    assert len(node.containers.alive) == 1
    assert [run.number for run in node.status("a").runs] == [1]


def unnamed(name, desired="running", **keys):
    """A task of slot 1 with an anonymous volume."""
    one = named(name, desired, mounts=(Mount(type="volume", target="/data"),), **keys)
    return one.model_copy(update={"stack": "s", "service": "w", "slot": 1})


ONE_SLOT = {"s": StackSlots(services={"w": 1})}


async def test_the_next_task_of_a_slot_waits_for_the_end_of_the_last_one_and_has_its_volume(node):
    node.containers.deaf.add("a")
    await node.put(unnamed("a", grace=20.0), slots=ONE_SLOT)
    await node.until(lambda: node.status("a").ready)
    # Made ready while the old one runs, and told to run before that one's process is gone.
    await node.put(unnamed("a", "shutdown", grace=20.0), unnamed("b"), slots=ONE_SLOT)
    await node.until(lambda: "waits for the end of a" in node.status("b").reason)
    assert node.volumes.owners == {"a": "a", "b": "b"}
    assert not node.status("b").runs
    await node.kill()
    await node.start()  # a SIGKILL of the agent in between changes nothing
    await node.until(lambda: node.status("b").ready)
    assert node.volumes.owners == {"b": "a"}, "one owner, and it has what the first one made"
    await node.put(unnamed("a", "removed", grace=20.0), unnamed("b"), slots=ONE_SLOT)
    await node.until(lambda: "a" in node.reports.full().gone)
    assert node.volumes.owners == {"b": "a"}


@pytest.mark.parametrize("way", ["down", "the slot goes first", "the slot goes last", "leave"])
async def test_nothing_is_left_of_a_slot_that_is_gone(node, way):
    await node.put(unnamed("a"), slots=ONE_SLOT)
    await node.until(lambda: node.status("a").ready)
    if way == "leave":
        assert await node.worker.leave() == []
    else:
        if way == "the slot goes first":
            await node.put(unnamed("a"))
        keeps = {"slots": ONE_SLOT} if way == "the slot goes last" else {}
        await node.put(unnamed("a", "removed"), **keeps)
        await node.until(lambda: "a" in node.reports.full().gone)
        assert bool(node.volumes.left) == (way == "the slot goes last")
        await node.put(remove=("a",))
    await node.until(lambda: not node.volumes.left and not node.volumes.owners)


async def test_a_task_that_cannot_be_ended_passes_nothing_on(node):
    await node.put(unnamed("a"), slots=ONE_SLOT)
    await node.until(lambda: node.status("a").ready)
    erase, failing = node.containers.erase, [True]

    async def fails(task):
        if failing:
            raise RuntimeFailure("busy")
        await erase(task)

    node.containers.erase = fails
    await node.put(unnamed("a", "removed"), unnamed("b"), slots=ONE_SLOT)
    await node.until(lambda: "busy" in node.status("a").reason)
    assert node.volumes.owns("a")
    assert not node.status("b").runs
    failing.clear()
    await node.until(lambda: node.status("b").ready)
    assert node.volumes.owners == {"b": "a"}


@pytest.mark.parametrize(
    ("state", "desired", "step"),
    [
        (TaskState.PREPARING, Desired.RUNNING, True),
        (TaskState.PREPARED, Desired.RUNNING, True),
        (TaskState.STARTING, Desired.RUNNING, True),
        (TaskState.PREPARING, Desired.PREPARED, True),
        (TaskState.PREPARED, Desired.PREPARED, False),  # all that was asked for
        (TaskState.PREPARING, Desired.REMOVED, False),
        (TaskState.RUNNING, Desired.RUNNING, False),
        (TaskState.COMPLETE, Desired.RUNNING, False),
        (TaskState.REJECTED, Desired.RUNNING, False),
    ],
)
def test_only_steps_of_a_start_are_told_together(state, desired, step):
    record = lifecycle.fresh(named("a").with_desired(desired), "boot").having(state=state)
    assert is_a_step(record) is step


@pytest.mark.parametrize("pressing", [True, False])
async def test_what_is_pressing_waits_for_no_other_change(node, pressing):
    await node.put(named("a"))
    await node.until(lambda: node.status("a").ready)
    await asyncio.sleep(1)  # what else its start brings is over
    stream = node.reports.stream()
    await anext(stream)
    clock = asyncio.get_running_loop().time
    began = clock()
    line = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    (reader,) = node.reports._subscribers
    reader.facts = True
    reader.woken(pressing=pressing)
    assert (await line).facts is not None
    assert (clock() - began < STEPS) is pressing
    await stream.aclose()
