"""Laws of rolling updates: scheduler.rollout with scheduler.reconcile, simulated.

The simulation performs moves as orchestrator.control does and lets tasks get on in any
order a machine may choose.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.reconcile import WantedService, reconcile
from scheduler.replicas import Replica
from scheduler.rollout import advance
from specs.stack import UpdateConfig
from specs.states import Desired, TaskState

RELEASE = 2


class Simulation:
    """Tasks of one service that is updated from "old" to "new"."""

    def __init__(self, replicas, update, *, exclusive=False):
        self.wanted = WantedService(
            dict.fromkeys(range(1, replicas + 1), "new"), exclusive=exclusive
        )
        self.update = update
        self.now = 0.0
        self.made = 0
        self.tasks = {}
        for slot in self.wanted.slots:
            self.add(slot, "old", 1, state=TaskState.RUNNING, ready=True, ready_since=0.0)
        self.broken = False  # new tasks fail

    def add(self, slot, spec_hash, release, **more):
        self.made += 1
        task = Replica(
            id=f"t{self.made:03}",
            slot=slot,
            spec_hash=spec_hash,
            release=release,
            created_at=self.now + self.made / 1000,
            **{"state": TaskState.ASSIGNED, "desired": Desired.PREPARED, **more},
        )
        self.tasks[task.id] = replace(task, desired=more.get("desired", task.desired))
        if more.get("ready"):
            self.tasks[task.id] = replace(task, desired=Desired.RUNNING)

    def control(self, *, gate=True):
        """One pass of the control loop."""
        tasks = list(self.tasks.values())
        plan = reconcile(self.wanted, tasks, self.now)
        moves = advance(
            self.wanted, tasks, self.update, release=RELEASE, gate=gate, updating=True, now=self.now
        )
        for stop in (*plan.stop, *moves.stop):
            task = self.tasks[stop.task]
            self.tasks[stop.task] = replace(task, leaving=True, ready=False, ready_since=None)
        for create in (*plan.create, *moves.create):
            self.add(create.slot, create.spec_hash, RELEASE)
        for task in list(self.tasks.values()):
            waits = task.live and task.desired is Desired.PREPARED and task.spec_hash == "new"
            held = self.update.order == "stop-first" and any(
                o.slot == task.slot
                and o.id != task.id
                and not o.ended
                and (not o.live or o.spec_hash != "new")
                for o in self.tasks.values()
            )
            if waits and gate and not held:
                self.tasks[task.id] = replace(task, desired=Desired.RUNNING)
        return moves

    def choices(self):
        return [t.id for t in self.tasks.values() if self.next_of(t) is not None]

    def next_of(self, task):
        if task.leaving:
            return "gone"
        if task.ended:
            return None
        if task.state is TaskState.ASSIGNED:
            return TaskState.PREPARED
        if task.state is TaskState.PREPARED and task.desired is Desired.RUNNING:
            return TaskState.STARTING
        if task.state is TaskState.STARTING:
            return TaskState.FAILED if self.broken else TaskState.RUNNING
        return None

    def step(self, task_id):
        """Let one task get on."""
        self.now += 0.1
        task = self.tasks[task_id]
        to = self.next_of(task)
        if to == "gone":
            del self.tasks[task_id]
        elif to is TaskState.RUNNING:
            self.tasks[task_id] = replace(
                task, state=to, ready=True, was_ready=True, ready_since=self.now
            )
        elif to is TaskState.FAILED:
            self.tasks[task_id] = replace(task, state=to, ended_at=self.now)
        else:
            self.tasks[task_id] = replace(task, state=to)

    def goes_on(self, data):
        """Let a task that is drawn get on, or a second pass where none can."""
        choices = self.choices()
        if choices:
            self.step(data.draw(st.sampled_from(sorted(choices))))
        else:
            self.now += 1.0

    def available(self):
        return len({t.slot for t in self.tasks.values() if t.ready and t.live})


updates = st.builds(
    UpdateConfig,
    parallelism=st.integers(0, 3),
    order=st.sampled_from(["stop-first", "start-first"]),
    delay=st.sampled_from([0.0, 0.0, 1.0]),
)


@given(st.integers(1, 6), updates, st.booleans(), st.data())
def test_an_update_keeps_its_promises_and_ends(replicas, update, exclusive, data):
    if exclusive:
        update = update.model_copy(update={"order": "stop-first"})
    sim = Simulation(replicas, update, exclusive=exclusive)
    width = update.parallelism or replicas
    for _ in range(400):
        moves = sim.control()
        live = [t for t in sim.tasks.values() if not t.ended]
        for slot in sim.wanted.slots:
            here = [t for t in live if t.slot == slot]
            assert len(here) <= 2, "law: one copy of each spec at most"
            if update.order == "stop-first":
                starting = [t for t in here if t.state in (TaskState.STARTING, TaskState.RUNNING)]
                assert len(starting) <= 1, "law: stop-first never runs two of a slot"
        if update.order == "start-first":
            assert sim.available() == replicas, "law: start-first keeps all available"
        else:
            assert sim.available() >= replicas - width, "law: at most parallelism are missing"
        if moves.state == "done":
            break
        for stop in moves.stop:
            slot = sim.tasks[stop.task].slot
            here = [t for t in sim.tasks.values() if t.slot == slot and t.spec_hash == "new"]
            assert exclusive or any(t.state is not TaskState.ASSIGNED for t in here), (
                "law: what serves is not stopped before its replacement is prepared"
            )
        sim.goes_on(data)
    else:
        raise AssertionError("law: when tasks get on, an update ends")
    assert all(t.spec_hash == "new" and t.ready for t in sim.tasks.values() if t.live)
    assert len([t for t in sim.tasks.values() if t.live]) == replicas


@given(
    st.integers(2, 6), st.integers(1, 2), st.sampled_from(["stop-first", "start-first"]), st.data()
)
def test_a_failing_update_stops_where_it_is(replicas, parallelism, order, data):
    sim = Simulation(replicas, UpdateConfig(parallelism=parallelism, order=order))
    sim.broken = True
    for _ in range(200):
        moves = sim.control()
        if moves.state == "failed":
            break
        choices = sim.choices()
        assert choices
        sim.step(data.draw(st.sampled_from(sorted(choices))))
    assert moves.state == "failed"
    assert moves.create == moves.stop == (), "law: a failed update moves nothing"
    assert sim.available() >= replicas - parallelism


@given(st.integers(2, 5), st.integers(1, 2), updates, st.data())
def test_what_runs_beside_the_old_ones_takes_nothing_away(replicas, canaries, update, data):
    """A canary's slots have both tasks until somebody decides, whatever the order; then it ends."""
    sim = Simulation(replicas, update)
    slots = dict.fromkeys(sim.wanted.slots, "old")
    first = sorted(slots)[: min(canaries, replicas)]
    slots |= dict.fromkeys(first, "new")
    sim.wanted = WantedService(slots, beside=frozenset(first))
    order, sim.update = update, update.model_copy(update={"order": "start-first"})
    for _ in range(60):
        moves = sim.control()
        assert not moves.stop, "law: nothing is stopped for a canary"
        assert sim.available() == replicas
        assert {c.slot for c in moves.create} <= {*first}, "law: the others wait"
        sim.goes_on(data)
    new = [t for t in sim.tasks.values() if t.spec_hash == "new"]
    assert sorted(t.slot for t in new) == first
    assert all(t.ready for t in new)
    assert len(sim.tasks) == replicas + len(first)
    sim.update = order
    sim.wanted = WantedService(dict.fromkeys(slots, "new"))
    width = update.parallelism or replicas
    for _ in range(400):
        moves = sim.control()
        assert sim.available() >= replicas - width
        if moves.state == "done":
            break
        sim.goes_on(data)
    assert all(t.spec_hash == "new" for t in sim.tasks.values() if t.live)


@given(st.integers(1, 4), st.data())
def test_a_closed_gate_stops_nothing(replicas, data):
    sim = Simulation(replicas, UpdateConfig(parallelism=2))
    for _ in range(30):
        sim.control(gate=False)
        assert sim.available() == replicas, "law: while a dependency is awaited the old ones serve"
        choices = sim.choices()
        if choices:
            sim.step(data.draw(st.sampled_from(sorted(choices))))


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("order", ["stop-first", "start-first"])
@pytest.mark.parametrize("pending", [False, True], ids=["of two slots", "of one"])
def test_what_is_awaited_is_not_updated_again(exclusive, order, pending):
    """The new task of a slot is on a node that is silent with most others: it is waited for."""
    sim = Simulation(1 if pending else 2, UpdateConfig(order=order), exclusive=exclusive)
    sim.add(1, "new", RELEASE, node="n2", lost=True, awaited=True, unheard=True)
    for _ in range(2):
        tasks = list(sim.tasks.values())
        moves = advance(
            sim.wanted, tasks, sim.update, release=RELEASE, gate=True, updating=True, now=0.0
        )
        assert 1 not in [c.slot for c in moves.create], "law: what is awaited is not replaced"
        assert "t001" not in [s.task for s in moves.stop], "law: it serves until another does"
        assert moves.state == "going"
    if not pending:
        begun = [c.slot for c in moves.create] or [sim.tasks[s.task].slot for s in moves.stop]
        assert begun == [2], "law: others go on meanwhile"
