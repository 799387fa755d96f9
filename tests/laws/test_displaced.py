"""Laws of moving tasks whose node breaks their constraints: scheduler.displaced with rollout.

A cluster in small: labels change under a running service, its tasks get on in any order, and
what is decided is carried out as orchestrator.control does it.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.constraints import parse
from scheduler.displaced import Settled, displaced
from scheduler.place import place
from scheduler.reconcile import WantedService, reconcile
from scheduler.replicas import Replica
from scheduler.rollout import advance
from scheduler.view import Fleet, Home, NodeUse, NodeView, Pending
from specs.stack import UpdateConfig
from specs.states import Desired, NodeStatus, TaskState

RULE = "node.labels.disk == ssd"
RELEASE = 1
READY, UNKNOWN = NodeStatus.READY, NodeStatus.UNKNOWN

nodes = st.lists(
    st.builds(
        lambda ssd, status, room: (ssd, status, room),
        st.booleans(),
        st.sampled_from([READY, READY, READY, UNKNOWN]),
        st.integers(1, 4),  # CPUs; each task reserves one
    ),
    min_size=1,
    max_size=5,
)
updates = st.builds(
    UpdateConfig,
    parallelism=st.integers(0, 3),
    order=st.sampled_from(["stop-first", "start-first"]),
    delay=st.sampled_from([0.0, 0.0, 1.0]),
)


class Small:
    """One service on a few nodes."""

    def __init__(self, shape, update, *, tied=False, brake=False, exclusive=False):
        self.update, self.tied, self.brake = update, tied, brake
        self.nodes = {
            f"n{i}": NodeView(
                id=f"n{i}",
                name=f"host{i}",
                status=status,
                labels={"disk": "ssd" if ssd else "hdd"},
                cpus=float(room),
            )
            for i, (ssd, status, room) in enumerate(shape)
        }
        self.now, self.made, self.tasks, self.marks = 0.0, 0, {}, {}
        self.started_on_wrong = []
        self.exclusive = exclusive

    def settle(self, where):
        """Have one running task on each of these nodes."""
        for slot, node in enumerate(where, 1):
            self.add(slot, node=node, state=TaskState.RUNNING, ready=True, ready_since=0.0)
            (last,) = list(self.tasks)[-1:]
            self.tasks[last] = replace(self.tasks[last], desired=Desired.RUNNING)
        self.wanted = WantedService(
            dict.fromkeys(range(1, len(where) + 1), "h"), exclusive=self.exclusive
        )

    def add(self, slot, **more):
        self.made += 1
        task = Replica(
            id=f"t{self.made:03}",
            slot=slot,
            spec_hash="h",
            release=RELEASE,
            created_at=self.now + self.made / 1000,
            **{"state": TaskState.PENDING, "desired": Desired.PREPARED, **more},
        )
        self.tasks[task.id] = task

    def needs(self, task):
        home = (Home("volume v", "volume v", task.node),) if self.tied else ()
        return Pending(
            task=task.id, service="app/web", spec_hash="h", cpus=1.0, slot=task.slot,
            constraints=(RULE,), homes=home,
        )  # fmt: skip

    def fleet(self):
        used = dict.fromkeys(self.nodes, 0.0)
        for task in self.tasks.values():
            if task.node is not None and not task.ended:
                used[task.node] += 1.0
        return Fleet({n: replace(v, use=NodeUse(cpus=used[n])) for n, v in self.nodes.items()})

    def wrong(self, task):
        return task.node is not None and not parse(RULE).admits(self.nodes[task.node])

    def control(self):
        """One pass of the control loop; return what was decided."""
        here = [t for t in self.tasks.values() if t.live and t.node is not None]
        right = {t.slot for t in here if not self.wrong(t)}
        verdict = displaced(
            self.fleet(),
            [Settled(self.needs(t), t.node, succeeded=t.slot in right) for t in here],
            brake=self.brake,
        )
        self.marks = dict(verdict.stays)
        tasks = [
            replace(
                t,
                displaced=t.id in verdict.moves,
                unheard=t.node is not None and self.nodes[t.node].status != READY,
            )
            for t in self.tasks.values()
        ]
        plan = reconcile(self.wanted, tasks, self.now)
        moves = advance(
            self.wanted, tasks, self.update, release=RELEASE, gate=True, updating=False,
            now=self.now,
        )  # fmt: skip
        for stop in (*plan.stop, *moves.stop):
            task = self.tasks[stop.task]
            if task.node is None:
                del self.tasks[stop.task]
            else:
                self.tasks[stop.task] = replace(task, leaving=True, ready=False, ready_since=None)
        for create in (*plan.create, *moves.create):
            self.add(create.slot, attempt=create.attempt)
        self.let_run(verdict.moves)
        waiting = [t for t in self.tasks.values() if t.state is TaskState.PENDING and t.live]
        found = place(self.fleet(), [replace(self.needs(t), homes=()) for t in waiting])
        for name, node in found.assigned.items():
            self.tasks[name] = replace(self.tasks[name], node=node, state=TaskState.ASSIGNED)
        return verdict, plan, moves

    def let_run(self, moving):
        for task in list(self.tasks.values()):
            held = self.update.order == "stop-first" and any(
                o.slot == task.slot
                and o.id != task.id
                and not o.ended
                and (not o.live or o.id in moving)
                for o in self.tasks.values()
            )
            if task.live and task.desired is Desired.PREPARED and not held:
                self.tasks[task.id] = replace(task, desired=Desired.RUNNING)

    def next_of(self, task):
        if task.node is None or self.nodes[task.node].status != READY:
            return None
        if task.leaving:
            return "gone"
        if task.state is TaskState.ASSIGNED:
            return TaskState.PREPARED
        if task.state is TaskState.PREPARED and task.desired is Desired.RUNNING:
            return TaskState.RUNNING
        return None

    def choices(self):
        return sorted(t.id for t in self.tasks.values() if self.next_of(t) is not None)

    def step(self, name):
        self.now += 0.1
        task, to = self.tasks[name], self.next_of(self.tasks[name])
        if to == "gone":
            del self.tasks[name]
        elif to is TaskState.RUNNING:
            self.tasks[name] = replace(
                task, state=to, ready=True, was_ready=True, ready_since=self.now
            )
        else:
            self.tasks[name] = replace(task, state=to)

    def under_way(self):
        """Return the slots that are being moved: a twin that comes, or nobody that serves.

        As in an update, what still leaves after its successor serves takes nobody's place.
        """
        serve = {t.slot for t in self.tasks.values() if t.live and t.ready}
        coming = {t.slot for t in self.tasks.values() if t.live and not t.ready}
        return coming | (set(self.wanted.slots) - serve)

    def available(self):
        return len({t.slot for t in self.tasks.values() if t.ready and t.live})


def placed(data, shape):
    """Draw where the tasks are: within each node's room, whatever its labels are by now."""
    seats = [f"n{i}" for i, (_, _, room) in enumerate(shape) for _ in range(room)]
    return data.draw(st.lists(st.sampled_from(range(len(seats))), max_size=6, unique=True)), seats


def small(data, shape, update, **more):
    chosen, seats = placed(data, shape)
    sim = Small(shape, update, **more)
    sim.settle([seats[i] for i in chosen])
    return sim


def converge(sim, data, each=lambda _: None):
    """Carry out what is decided until nothing more is; return the last decision."""
    quiet = 0
    for _ in range(600):
        decided = sim.control()
        each(decided)
        choices = sim.choices()
        if choices:
            quiet = 0
            sim.step(data.draw(st.sampled_from(choices)))
            continue
        quiet += 1
        sim.now += 1.0
        if quiet > 3:
            return decided
    raise AssertionError("law: moving ends")


@given(nodes, updates, st.booleans(), st.data())
def test_after_it_converged_no_task_breaks_its_constraints_unless_it_is_marked(
    shape, update, exclusive, data
):
    if exclusive:
        update = update.model_copy(update={"order": "stop-first"})
    sim = small(data, shape, update, exclusive=exclusive)
    count = len(sim.wanted.slots)
    width = update.parallelism or max(count, 1)
    satisfied = {t.id for t in sim.tasks.values() if not sim.wrong(t)}
    silent = {t.id for t in sim.tasks.values() if sim.nodes[t.node].status != READY}

    def each(_):
        assert len(sim.under_way()) <= width, "law: never more moves at once than an update's"
        assert satisfied <= set(sim.tasks), "law: no move when the constraint holds"
        assert silent <= set(sim.tasks), "law: what cannot be heard is not moved by a label"
        if update.order == "start-first" and not exclusive:
            assert sim.available() == count, "law: start-first keeps all available"
        else:
            assert sim.available() >= count - width, "law: at most parallelism are missing"

    converge(sim, data, each)
    fleet = sim.fleet()
    for task in sim.tasks.values():
        if not sim.wrong(task):
            continue
        assert task.id in sim.marks, "law: what breaks its constraints in the end is marked"
        room = place(fleet, [sim.needs(task)]).assigned
        quiet = sim.nodes[task.node].status != READY
        assert quiet or not room, "law: and only where no node is eligible"
        assert task.ready, "law: it serves where it is"
    assert sim.available() == count


@given(nodes, updates, st.sampled_from(["tied", "brake"]), st.data())
def test_the_brake_and_a_volume_hold_everything_where_it_is(shape, update, what, data):
    sim = small(data, shape, update, **{what: True})
    before = dict(sim.tasks)

    def each(decided):
        verdict, plan, moves = decided
        assert not verdict.moves
        assert plan.create == plan.stop == moves.create == moves.stop == ()

    converge(sim, data, each)
    assert sim.tasks == before
    assert set(sim.marks) == {t.id for t in before.values() if sim.wrong(t)}, (
        "law: what stays although it should not says so"
    )


@given(nodes, st.data())
def test_every_task_is_right_or_moves_or_says_why_not(shape, data):
    sim = small(data, shape, UpdateConfig())
    tasks = list(sim.tasks.values())
    settled = [Settled(sim.needs(t), t.node) for t in tasks]
    verdict = displaced(sim.fleet(), settled, brake=False)
    wrong = {t.id for t in tasks if sim.wrong(t)}
    assert verdict.moves | set(verdict.stays) == wrong
    assert not verdict.moves & set(verdict.stays)
    assert all(stay.reason for stay in verdict.stays.values())
    assert displaced(sim.fleet(), settled[::-1], brake=False) == verdict, "law: order is nothing"


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
@pytest.mark.parametrize("width", [1, 2, 0])
def test_as_many_move_at_once_as_an_update_replaces(order, width):
    shape = [(False, READY, 4), (True, READY, 4)]
    sim = Small(shape, UpdateConfig(parallelism=width, order=order))
    sim.settle(["n0"] * 4)
    most = 0
    for _ in range(200):
        sim.control()
        most = max(most, len(sim.under_way()))
        choices = sim.choices()
        if not choices:
            break
        sim.step(choices[-1])
    assert most == (width or 4)
    assert {t.node for t in sim.tasks.values()} == {"n1"}
    assert sim.available() == 4


def test_the_pause_between_two_moves_is_that_of_an_update():
    shape = [(False, READY, 2), (True, READY, 2)]
    sim = Small(shape, UpdateConfig(delay=5.0, order="start-first"))
    sim.settle(["n0"] * 2)
    done = []
    for _ in range(200):
        sim.control()
        moved = sum(t.node == "n1" and t.ready for t in sim.tasks.values())
        if moved > len(done):
            done.append(sim.now)
        choices = sim.choices()
        if choices:
            sim.step(choices[0])
        else:
            sim.now += 0.5
        if len(done) == 2:
            break
    assert done[1] - done[0] >= 5.0


def test_a_move_that_failed_is_tried_again_later_and_later():
    shape = [(False, READY, 1), (True, READY, 1)]
    sim = Small(shape, UpdateConfig(order="start-first"))
    sim.settle(["n0"])
    made = []
    for _ in range(100):
        _, _, moves = sim.control()
        for twin in [t for t in sim.tasks.values() if t.state is TaskState.ASSIGNED]:
            made.append(sim.now)
            sim.tasks[twin.id] = replace(twin, state=TaskState.REJECTED, ended_at=sim.now)
        assert sim.available() == 1, "the one that serves is kept meanwhile"
        sim.now = moves.wake if moves.wake is not None and moves.wake > sim.now else sim.now + 0.01
        if len(made) == 4:
            break
    pauses = [b - a for a, b in itertools.pairwise(made)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= 1.0
