"""Laws of keeping the right number of tasks: scheduler.reconcile, scheduler.restart."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from scheduler.reconcile import WantedService, reconcile
from scheduler.replicas import Replica, by_slot
from scheduler.restart import HEALTHY_SPELL, LONGEST_DELAY, delay, verdict
from specs.stack import RestartPolicy
from specs.states import FINAL, Desired, TaskState

NOW = 1000.0
HASHES = ["new", "old"]

replicas = st.builds(
    Replica,
    id=st.just(""),
    slot=st.integers(1, 4),
    spec_hash=st.sampled_from(HASHES),
    node=st.sampled_from(["n1", "n2", "n3", None]),
    state=st.sampled_from(list(TaskState)),
    desired=st.sampled_from([Desired.PREPARED, *[Desired.RUNNING] * 4, Desired.REMOVED]),
    ready=st.booleans(),
    leaving=st.sampled_from([False, False, False, True]),
    lost=st.sampled_from([False, False, True]),
    evicted=st.sampled_from([False, False, False, True]),
    displaced=st.sampled_from([False, False, False, True]),
    awaited=st.booleans(),
    unheard=st.booleans(),
    returned_at=st.sampled_from([0.0, NOW - 10, NOW - 3]),
    ended_at=st.sampled_from([NOW - 5000, NOW - 1]),
    lived=st.sampled_from([0.0, 100.0]),
    attempt=st.integers(0, 8),
    restarts=st.integers(0, 3),
)
policies = st.builds(
    RestartPolicy,
    condition=st.sampled_from(["none", "on-failure", "any"]),
    max_attempts=st.sampled_from([None, 0, 3]),
)


@st.composite
def services(draw):
    """A service's tasks in every state one may find them in, and what is wanted of it."""
    found = []
    for number, task in enumerate(draw(st.lists(replicas, max_size=8))):
        fixed = replace(task, id=f"t{number}", created_at=float(number))
        if fixed.state in FINAL:
            fixed = replace(fixed, ready=False, lost=False, displaced=False)
        if fixed.node is None:  # there is nobody to lose it, or not to answer
            fixed = replace(fixed, ready=False, lost=False, unheard=False, evicted=False)
        if fixed.lost:
            fixed = replace(fixed, ready=False, unheard=True)
        if fixed.unheard or fixed.node is None:
            fixed = replace(fixed, displaced=False)
        fixed = replace(fixed, awaited=fixed.awaited and fixed.lost)
        found.append(fixed)
    slots = dict.fromkeys(range(1, draw(st.integers(0, 4)) + 1), "new")
    at_once = draw(st.sampled_from([None, None, 1, 2]))
    exclusive = draw(st.booleans())
    return WantedService(slots, draw(policies), exclusive=exclusive, at_once=at_once), found


def applied(plan, wanted, tasks):
    """Return the tasks as they are once the plan was carried out."""
    stopped = {stop.task for stop in plan.stop}
    left = [replace(t, leaving=True) if t.id in stopped else t for t in tasks]
    for number, create in enumerate(plan.create):
        left.append(
            Replica(
                id=f"created{number}",
                slot=create.slot,
                spec_hash=create.spec_hash,
                node=None,  # whether one has room for it is not said yet
                state=TaskState.NEW,
                created_at=NOW,
                attempt=create.attempt,
            )
        )
    return left


@given(services(), st.randoms(use_true_random=False))
def test_reconcile(service, random):
    wanted, tasks = service
    plan = reconcile(wanted, tasks, NOW)
    again = reconcile(wanted, applied(plan, wanted, tasks), NOW)
    assert again.create == (), "law: a second look at the plan's own result creates nothing"
    assert again.stop == (), "law: a second look at the plan's own result stops nothing"

    created = [create.slot for create in plan.create]
    if wanted.at_once is not None:
        busy = {t.slot for t in tasks if not t.ended and not (t.lost and not t.awaited)}
        fresh = {create.slot for create in plan.create} - busy
        room = max(0, wanted.at_once - len(busy))
        assert len(fresh) <= room, "law: no more slots are busy at once than may be"
        assert not plan.queued or len(fresh) == room, "law: nobody waits while a turn is free"
        assert plan.queued <= set(wanted.slots), "law: only wanted slots wait for their turn"
    assert len(created) == len(set(created)), "law: at most one task is created for a slot"
    assert set(created) <= set(wanted.slots), "law: only wanted slots are filled"
    stopped = {stop.task for stop in plan.stop}
    assert not stopped & set(plan.keep), "law: nothing is both kept and stopped"
    slots = by_slot(tasks)
    for slot in created:
        here = [t for t in slots.get(slot, []) if t.sound]
        right = [t for t in here if not wanted.outdated(t)]
        staying = [t for t in right if not t.evicted] if right else here
        assert not staying, "law: creates only what is missing"
    for slot, found in slots.items():
        live = [t for t in found if t.live]
        left = [t for t in live if t.id not in stopped]
        if slot not in wanted.slots:
            assert not left, "law: a slot nobody wants is emptied"
            continue
        good = [t for t in live if t.sound and t.ready]
        if good:
            assert [t for t in left if t.sound and t.ready] or any(
                t.sound and t.spec_hash == "new" for t in left
            ), "law: the last copy that serves a wanted slot is never stopped"
        right = [t for t in live if t.sound and not wanted.outdated(t)]
        current = [t for t in right if not t.evicted]
        if any(t.awaited and t.spec_hash == "new" and not t.evicted for t in live):
            assert slot not in created, "law: what is awaited is not replaced"
            assert not [t for t in left if t in current and t.node is None], (
                "law: nor is it by what no node has yet"
            )
            current = [t for t in current if t.node is not None]
        heard = [t for t in current if not t.unheard]
        kept = [t for t in heard if t.id not in stopped]
        assert len(kept) == min(1, len(heard)), "law: of copies that answer one stays"
        if any(t.ready for t in heard):
            assert kept[0].ready, "law: one that serves stays rather than one that does not"
            same = (kept[0].started, kept[0].state is TaskState.RUNNING)
            equal = [
                t for t in heard if t.ready and (t.started, t.state is TaskState.RUNNING) == same
            ]
            assert kept[0].returned_at == min(t.returned_at for t in equal), (
                "law: of two that serve, the one on the node that stayed in reach stays"
            )
        unseen = {t.id for t in live if t.unheard and t.spec_hash == "new" and not t.evicted}
        assert not unseen & stopped, "law: nothing is stopped because of what we could not see"
        seen_ready = [t for t in kept if t.ready]
        moved = {t.id for t in right if t.evicted}
        if current and not seen_ready:
            assert not moved & stopped, "law: it serves until another is seen to"
        outdated = [t for t in left if t.sound and wanted.outdated(t) and not t.unheard]
        if not right:
            assert len(outdated) <= 1, "law: of what is to be replaced one copy stays"

    shuffled = list(tasks)
    random.shuffle(shuffled)
    other = reconcile(wanted, shuffled, NOW)
    assert set(other.create) == set(plan.create), "law: the order of the input does not matter"
    assert set(other.stop) == set(plan.stop), "law: the order of the input does not matter"
    renamed = [replace(t, id=f"x-{t.id}") for t in tasks]
    named = reconcile(wanted, renamed, NOW)
    assert {s.task for s in named.stop} == {f"x-{t}" for t in stopped}, "law: names do not matter"

    before = reconcile(wanted, tasks, NOW - 3600)
    assert {s.task for s in before.stop} == stopped, "law: time going back stops nothing more"
    assert len(before.create) <= len(plan.create), "law: time going back creates nothing more"


def test_what_moves_waits_for_where_it_moved_to():
    """Its node is being drained, and its replacement's was lost: that one is awaited."""
    moving = Replica(
        id="old",
        slot=1,
        spec_hash="new",
        node="n1",
        state=TaskState.RUNNING,
        ready=True,
        evicted=True,
    )
    lost = Replica(
        id="moved", slot=1, spec_hash="new", node="n2", lost=True, awaited=True, unheard=True
    )
    wanted = WantedService({1: "new"}, RestartPolicy())
    plan = reconcile(wanted, [moving, lost], NOW)
    assert plan.create == (), "law: what is awaited is not replaced"
    assert plan.stop == (), "law: it serves until another is seen to"
    again = reconcile(wanted, applied(plan, wanted, [moving, lost]), NOW)
    assert (again.create, again.stop) == ((), ())
    home = replace(lost, lost=False, awaited=False, unheard=False, state=TaskState.RUNNING)
    back = reconcile(wanted, [moving, replace(home, ready=True)], NOW)
    assert [stop.task for stop in back.stop] == ["old"]


@given(services())
def test_a_stopped_service_keeps_nothing_and_creates_nothing(service):
    wanted, tasks = service
    plan = reconcile(replace(wanted, slots={}), tasks, NOW)
    assert plan.create == ()
    assert {s.task for s in plan.stop} == {t.id for t in tasks if t.live}


@given(st.integers(0, 60))
def test_the_pause_before_a_replacement_grows_to_its_limit(attempt):
    assert 0 <= delay(attempt) <= delay(attempt + 1) <= LONGEST_DELAY, "law: monotone to the cap"


@given(st.integers(1, 20))
def test_a_healthy_spell_forgets_failures(attempt):
    last = Replica(
        id="t",
        slot=1,
        spec_hash="h",
        state=TaskState.FAILED,
        ended_at=NOW,
        attempt=attempt,
        lived=HEALTHY_SPELL,
    )
    assert verdict(RestartPolicy(), last, NOW).at == NOW
    assert verdict(RestartPolicy(), last, NOW).attempt == 1
    worse = replace(last, lived=0.0)
    assert verdict(RestartPolicy(), worse, NOW).at > NOW
    assert verdict(RestartPolicy(), worse, NOW).attempt == attempt + 1


def test_policies():
    failed = Replica(id="t", slot=1, spec_hash="h", state=TaskState.FAILED, ended_at=NOW)
    done = replace(failed, state=TaskState.COMPLETE)
    assert verdict(RestartPolicy(condition="none"), failed, NOW).give_up
    assert verdict(RestartPolicy(condition="any"), done, NOW).completed
    assert not verdict(RestartPolicy(condition="on-failure"), failed, NOW).give_up
    three = RestartPolicy(max_attempts=3)
    assert not verdict(three, replace(failed, restarts=2), NOW).give_up
    assert verdict(three, replace(failed, restarts=2, attempt=1), NOW).give_up
    windowed = RestartPolicy(max_attempts=3, window=60.0)
    assert not verdict(windowed, replace(failed, restarts=3, lived=61.0), NOW).give_up
    lost = replace(failed, state=TaskState.ORPHANED)
    assert not verdict(RestartPolicy(condition="none"), lost, NOW).give_up, (
        "law: what was lost with its node is replaced whatever the policy"
    )
