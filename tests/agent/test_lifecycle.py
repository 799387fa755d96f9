"""The life of one task, decided: tables, and laws over random histories in virtual time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tasks import hooks
from agent.tasks import lifecycle as life
from agent.tasks.reboot import rebooted
from agent.tasks.record import Phase
from agent.tasks.steps import (
    BeforeStop,
    Clear,
    Erase,
    Freeze,
    Gone,
    Launch,
    Prepare,
    Resume,
    Settle,
    Signal,
    Tidy,
    Undo,
    Wait,
)
from agent.vocabulary import Exit, ImageConfig, Process
from specs.stack import Healthcheck, Hook, RestartPolicy, TaskSpec
from specs.states import FINAL, Desired, TaskState, may_move
from specs.wire import Assignment

IMAGE = ImageConfig(digest="sha256:" + "0" * 64)
WALL = 1_700_000_000.0
CHECK = Healthcheck(test=("CMD", "true"), interval=1.0, retries=3)


def task(desired="running", **keys):
    outer = {
        k: keys.pop(k)
        for k in ("restart", "grace", "local_restarts", "after", "paused")
        if k in keys
    }
    if "policy" in keys:
        keys["restart"] = keys.pop("policy")
    return Assignment(
        id="t1",
        stack="s",
        service="web",
        slot=1,
        name="s-web-1",
        spec=TaskSpec(image="i", **keys),
        desired=Desired(desired),
        **outer,
    )


def running(assignment=None, now=0.0):
    """A record whose first run has just been started."""
    record = life.fresh(assignment or task(), "boot")
    record = life.prepared(life.preparing(record), IMAGE)
    record = life.created(
        life.creating(record, 1), Process(pid=9, start=1), Process(pid=8, start=1)
    )
    return life.started(record, now, WALL)


def wanting(record, **changes):
    return life.assigned(record, record.assignment.model_copy(update=changes))


def test_the_straight_line():
    record = life.fresh(task("prepared"), "boot")
    assert life.next_step(record, 0) == Prepare()
    record = life.preparing(record)
    assert record.state == "preparing"
    record = life.prepared(record, IMAGE)
    assert record.state == "prepared"
    assert life.next_step(record, 0) == Wait()
    record = wanting(record, desired=Desired.RUNNING)
    assert life.next_step(record, 0) == Launch(1)
    record = wanting(wanting(record, desired=Desired.SHUTDOWN), desired=Desired.RUNNING)
    assert record.assignment.desired == "shutdown", "a late message revives nothing"


def left_with(phase, state="running", **changes):
    return running().model_copy(
        update={"phase": Phase(phase), "state": TaskState(state), **changes}
    )


@pytest.mark.parametrize(
    ("record", "desired", "holds"),
    [
        (life.fresh(task("prepared"), "boot"), "prepared", True),
        (left_with("none", "preparing"), "running", True),
        (left_with("none"), "running", True),  # between two runs
        (left_with("creating"), "removed", True),
        (left_with("created"), "shutdown", True),
        (left_with("running"), "running", True),
        (left_with("running"), "shutdown", True),
        (left_with("running"), "removed", True),
        (left_with("running", stopping="shutdown", stop_at=1.0), "removed", True),
        (left_with("running", stopping="shutdown", stop_at=1.0, killed=True), "removed", True),
        (left_with("ended", "shutdown"), "removed", True),
        (left_with("none", "shutdown"), "removed", True),  # what it sent last may be under way
        (left_with("none", "failed"), "running", True),
        (left_with("none", "preparing"), "removed", True),  # half of it may be there
        (life.fresh(task("running"), "boot"), "removed", False),
        (life.fresh(task("running"), "boot"), "shutdown", False),
        (left_with("none", "shutdown", tidied=True), "shutdown", False),
        (left_with("none", "complete", tidied=True), "running", False),
        (left_with("none", "shutdown", erased=True), "removed", False),
    ],
)
def test_the_network_stays_until_the_process_has_ended(record, desired, holds):
    record = record.having(
        assignment=record.assignment.model_copy(update={"desired": Desired(desired)})
    )
    assert life.holds_network(record) is holds


def test_prepared_then_running():
    record = life.prepared(life.preparing(life.fresh(task(), "boot")), IMAGE)
    assert life.next_step(record, 0) == Launch(1)
    record = life.creating(record, 1)
    assert record.state == "starting"
    record = life.created(record, Process(pid=9, start=1), Process(pid=8, start=1))
    assert not record.ready
    record = life.started(record, 0, WALL)
    assert record.ready
    assert record.state == "running"
    assert life.next_step(record, 0) == Wait()


@pytest.mark.parametrize(
    ("condition", "code", "state", "next_at"),
    [
        ("any", 0, "running", 0.1),
        ("any", 1, "running", 0.1),
        ("any", None, "running", 0.1),
        ("on-failure", 0, "complete", 0.0),
        ("on-failure", 1, "running", 0.1),
        ("on-failure", None, "running", 0.1),
        ("none", 0, "complete", 0.0),
        ("none", 1, "failed", 0.0),
        ("none", None, "failed", 0.0),
    ],
)
def test_restart_policy(condition, code, state, next_at):
    record = running(task(policy=RestartPolicy(condition=condition)))
    record = life.ended(record, Exit(code), 0.0, WALL)
    assert life.next_step(record, 0.0) == Clear()
    record = life.cleared(record)
    assert record.state == state
    assert record.run.exit_code == code
    if state == "running":
        assert life.next_step(record, 0.0) == Wait(next_at)
        assert life.next_step(record, next_at) == Launch(2)
    else:
        assert life.next_step(record, 0.0) == Tidy()
        assert life.next_step(life.tidied(record), 0.0) == Wait()


def crash(record, now, code=1):
    """End the run, and start the next one as soon as it may."""
    record = life.cleared(life.ended(record, Exit(code), now, WALL))
    if record.state in FINAL:
        return record, now
    now = max(now, record.next_at)
    step = life.next_step(record, now)
    assert isinstance(step, Launch)
    record = life.creating(record, step.number)
    record = life.created(record, Process(pid=9, start=1), Process(pid=8, start=1))
    return life.started(record, now, WALL), now


@pytest.mark.parametrize(
    ("seen", "stopping", "reason"),
    [
        (Exit(3), "", "exited with 3"),
        (Exit(137), "", "ended by signal 9 (exit code 137)"),
        (Exit(137, oom=True), "", "killed: out of memory (its limit)"),
        (Exit(None), "", "its exit code is unknown"),
        (Exit(143), "unhealthy", "stopped because it was unhealthy"),
        (Exit(143), "restart", "stopped (restart)"),
        # Who saw the end knows better than what the code alone would tell.
        (Exit(None, reason="its monitor was killed"), "", "its monitor was killed"),
        (Exit(1, reason="the machine was restarted"), "restart", "the machine was restarted"),
    ],
)
def test_the_end_of_a_run_says_why(seen, stopping, reason):
    record = life.ended(running().having(stopping=stopping), seen, 1.0, WALL)
    assert record.run.reason == reason
    assert record.reason == reason


def test_backoff_doubles_to_a_minute_and_is_forgotten_after_ten_seconds():
    record, now = running(), 0.0
    delays = []
    for _ in range(12):
        record, now = crash(record, now)
        delays.append(record.backoff)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60.0
    record, _ = crash(record, now + 10.0)
    assert record.backoff == 0.1
    assert record.crashes == 1


def test_a_checked_run_is_forgiven_only_after_a_healthy_spell():
    record = running(task(healthcheck=CHECK))
    record = life.ended(record, Exit(1), 20.0, WALL)
    assert record.crashes == 1
    record, now = crash(record.having(phase=Phase.RUNNING), 40.0)
    assert record.crashes == 2, "alive but never healthy is a crash in a row"
    record = life.probed(record, healthy=True, output="", counts=True, now=now)
    record = life.ended(record, Exit(1), now + 10.0, WALL)
    assert record.crashes == 1


def test_local_restarts_then_failed():
    record, now = running(task(local_restarts=2)), 0.0
    for _ in range(2):
        record, now = crash(record, now)
        assert record.state == "running"
    record, _ = crash(record, now)
    assert record.state == "failed"
    assert "3 crashes in a row" in record.reason


def test_max_attempts_in_a_window():
    policy = RestartPolicy(max_attempts=2, window=5.0)
    record, now = running(task(policy=policy)), 0.0
    record, now = crash(record, now)
    record, now = crash(record, now + 6.0)
    record, now = crash(record, now + 0.1)
    assert record.state == "running", "restarts before the window do not count"
    record, now = crash(record, now + 0.1)
    assert record.state == "failed"
    assert "the limit" in record.reason


def test_stop_signal_then_kill_after_grace_once():
    record = wanting(running(task(stop_grace=3.0)), desired=Desired.SHUTDOWN)
    step = life.next_step(record, 10.0)
    assert step == Signal("shutdown")
    record = life.stopping(record, step, 10.0)
    assert not record.ready
    assert life.next_step(record, 12.9) == Wait(13.0)
    step = life.next_step(record, 13.0)
    assert step == Signal("shutdown", kill=True)
    record = life.stopping(record, step, 13.0)
    assert life.next_step(record, 99.0) == Wait(), "SIGKILL is not repeated"
    record = life.cleared(life.ended(record, Exit(137), 14.0, WALL))
    assert record.state == "shutdown"


def test_no_grace_kills_at_once_and_the_assignment_overrides_the_spec():
    record = wanting(running(task(stop_grace=30.0)), desired=Desired.REMOVED, grace=0.0)
    assert life.next_step(record, 1.0) == Signal("shutdown", kill=True)


PAUSED = Freeze(paused=True)
GOES_ON = Freeze(paused=False)


@pytest.mark.parametrize(
    ("changes", "wanted", "steps"),
    [
        ({}, {"paused": True}, [PAUSED, Wait()]),
        ({"paused": True}, {"paused": True}, [Wait()]),
        ({"paused": True}, {"paused": False}, [GOES_ON, Wait()]),
        # What is frozen takes no signal: it is sent, then it goes on, then its grace runs.
        ({"paused": True}, {"paused": True, "desired": Desired.SHUTDOWN},
         [Signal("shutdown"), GOES_ON, Wait(10.0)]),
        ({"paused": True}, {"paused": False, "desired": Desired.REMOVED, "grace": 0.0},
         [Signal("shutdown", kill=True), GOES_ON, Wait()]),
        ({"paused": True}, {"paused": False, "restart": 1},
         [Signal("restart"), GOES_ON, Wait(10.0)]),
        # Asked for while it ends: not any more.
        ({"stopping": "shutdown", "stop_at": 0.0}, {"paused": True, "desired": Desired.SHUTDOWN},
         [Wait(10.0)]),
        ({"phase": Phase.CREATED}, {"paused": True}, [Resume(undo=False)]),
    ],
)  # fmt: skip
def test_what_is_frozen_and_when_it_goes_on(changes, wanted, steps):
    record = wanting(running().having(**changes), **wanted)
    for step in steps:
        assert life.next_step(record, 0.0) == step
        if isinstance(step, Freeze):
            record = life.frozen(record, step)
        elif isinstance(step, Signal):
            record = life.stopping(record, step, 0.0)


def test_a_new_run_is_frozen_anew_while_that_is_wanted():
    record = wanting(running().having(paused=True), paused=True)
    record = life.cleared(life.ended(record, Exit(1), 0.0, WALL))
    assert not record.status().paused
    record = life.created(
        life.creating(record, 2), Process(pid=9, start=1), Process(pid=8, start=1)
    )
    assert life.next_step(life.started(record, 1.0, WALL), 1.0) == PAUSED


def test_removal_erases_whatever_the_state():
    for record in (
        life.fresh(task("removed"), "boot"),
        wanting(
            life.prepared(life.preparing(life.fresh(task(), "boot")), IMAGE),
            desired=Desired.REMOVED,
        ),
        wanting(
            life.settled(running().having(phase=Phase.NONE), Settle(TaskState.FAILED, "x")),
            desired=Desired.REMOVED,
        ),
    ):
        assert life.next_step(record, 0.0) == Erase()
        gone = life.erased(record)
        assert life.next_step(gone, 0.0) == Gone()
        assert gone.state in FINAL


def test_shutdown_before_the_first_run_settles():
    record = life.fresh(task("shutdown"), "boot")
    step = life.next_step(record, 0.0)
    assert step == Settle(TaskState.SHUTDOWN, "stopped as asked")


def test_restart_request_is_no_crash_and_has_no_backoff():
    record = wanting(running(task(local_restarts=0)), restart=1)
    step = life.next_step(record, 5.0)
    assert step == Signal("restart")
    record = life.stopping(record, step, 5.0)
    record = life.cleared(life.ended(record, Exit(143), 5.1, WALL))
    assert record.state == "running"
    assert life.next_step(record, 5.1) == Launch(2)
    record = life.creating(record, 2)
    record = life.started(
        life.created(record, Process(pid=9, start=1), Process(pid=8, start=1)), 5.2, WALL
    )
    assert record.restart_done == 1
    assert record.crashes == 0
    assert life.next_step(record, 5.2) == Wait()


def test_restart_request_during_backoff_starts_at_once():
    record = life.cleared(life.ended(running(), Exit(1), 0.0, WALL))
    assert life.next_step(record, 0.0) == Wait(0.1)
    assert life.next_step(wanting(record, restart=1), 0.0) == Launch(2)


def sick(**keys):
    """A record whose run was healthy, and then failed its check three times in a row."""
    record = running(task(healthcheck=CHECK, **keys))
    assert (record.state, record.ready) == ("starting", False)
    record = life.probed(record, healthy=True, output="", counts=True, now=1.0)
    assert (record.state, record.ready) == ("running", True)
    for now in (2.0, 3.0):
        record = life.probed(record, healthy=False, output="no", counts=True, now=now)
        assert record.ready
    return life.probed(record, healthy=False, output="no", counts=True, now=4.0)


@pytest.mark.parametrize(
    ("policy", "on_unhealthy", "restarted"),
    [
        ("none", "policy", False),  # as Compose: it is only marked
        ("on-failure", "policy", True),  # Compose marks it only; see docs/differences.md
        ("any", "policy", True),
        ("none", "restart", True),
        ("on-failure", "restart", True),
        ("any", "restart", True),
        ("none", "keep", False),
        ("on-failure", "keep", False),
        ("any", "keep", False),
    ],
)
def test_what_becomes_of_an_unhealthy_container(policy, on_unhealthy, restarted):
    record = sick(policy=RestartPolicy(condition=policy), on_unhealthy=on_unhealthy)
    assert not record.ready, "no traffic, whatever follows"
    assert (record.health, record.health_output) == ("unhealthy", "no")
    step = life.next_step(record, 4.0)
    assert step == (Signal("unhealthy") if restarted else Wait())
    if not restarted:
        record = life.probed(record, healthy=True, output="", counts=True, now=5.0)
        assert record.ready, "it may get well"
        return
    record = life.ended(life.stopping(record, step, 4.0), Exit(0), 4.5, WALL)
    assert record.crashes == 1, "a clean exit when stopped for ill health is still a crash"
    assert life.next_step(life.cleared(record), 60.0) == Launch(2), "in place"


def test_a_container_that_is_only_marked_ends_by_its_policy():
    record = life.ended(sick(policy=RestartPolicy(condition="none")), Exit(3), 5.0, WALL)
    assert record.state == "failed"
    assert record.reason == "exited with 3"


def test_a_good_probe_resets_the_failure_count():
    record = running(task(healthcheck=CHECK))
    for _ in range(5):
        for healthy in (False, False, True):
            record = life.probed(record, healthy=healthy, output="", counts=True, now=1.0)
    for _ in range(CHECK.retries - 1):
        record = life.probed(record, healthy=False, output="", counts=True, now=2.0)
    assert record.ready, "only failures in a row count"


def test_failures_that_do_not_count_change_nothing_but_the_output():
    record = running(task(healthcheck=CHECK))
    for _ in range(10):
        record = life.probed(record, healthy=False, output="early", counts=False, now=0.1)
    assert record.health == "starting"
    assert record.health_output == "early"


@pytest.mark.parametrize(
    ("own", "image", "test"),
    [
        (None, None, None),
        (None, CHECK, ("CMD", "true")),
        (Healthcheck(interval=9), CHECK, ("CMD", "true")),
        (Healthcheck(interval=9), None, None),
        (Healthcheck(test=("NONE",)), CHECK, None),
        (Healthcheck(test=("CMD", "x")), CHECK, ("CMD", "x")),
        (None, Healthcheck(test=("NONE",)), None),
    ],
)
def test_which_check_is_in_force(own, image, test):
    saved = IMAGE.model_copy(update={"healthcheck": image})
    record = life.fresh(task(healthcheck=own), "b").having(image=saved)
    check = life.check_of(record)
    assert (check.test if check else None) == test


def test_half_made_runs_after_a_restart_of_the_agent():
    record = life.creating(life.prepared(life.fresh(task(), "b"), IMAGE), 1)
    assert life.next_step(record, 0) == Undo()
    again = life.undone(record)
    assert again.runs == ()
    assert life.next_step(again, 0) == Launch(1)
    record = life.created(record, Process(pid=9, start=1), Process(pid=8, start=1))
    assert life.next_step(record, 0) == Resume(undo=False)
    assert life.next_step(wanting(record, desired=Desired.SHUTDOWN), 0) == Resume(undo=True)


def test_a_signal_recorded_but_maybe_not_sent_is_sent_again():
    record = wanting(running(), desired=Desired.SHUTDOWN, grace=0.0)
    record = life.stopping(record, Signal("shutdown", kill=True), 0.0)
    assert life.next_step(record, 9.0) == Wait()
    assert life.next_step(life.adopted(record), 9.0) == Signal("shutdown", kill=True)


def test_launch_failures():
    record = life.creating(life.prepared(life.fresh(task(), "b"), IMAGE), 1)
    never = life.launch_failed(record, "no such command", 127, 1.0, WALL)
    assert never.state == "rejected"
    assert never.run.exit_code == 127
    assert life.next_step(never, 1.0) == Clear()
    later = life.launch_failed(record, "no memory", None, 1.0, WALL)
    assert later.state == "starting"
    assert later.next_at == pytest.approx(1.1)
    again = life.creating(life.cleared(life.ended(running(), Exit(1), 0.0, WALL)), 2)
    assert life.launch_failed(again, "gone", 127, 1.0, WALL).state == "failed"


def test_preparation_failures():
    record = life.preparing(life.fresh(task(), "b"))
    assert life.refused(record, "no such image").state == "rejected"
    waits = []
    for _ in range(9):
        record = life.postponed(record, "registry down", 0.0)
        waits.append(record.next_at)
    assert waits[:3] == [0.5, 1.0, 2.0]
    assert waits[-1] == 30.0
    assert (record.reason, record.status().retry_in) == ("registry down", 30.0)
    assert life.next_step(record, 29.9) == Wait(30.0)
    assert life.next_step(wanting(record, desired=Desired.REMOVED), 0.0) == Erase()


# Laws over random histories: a little world that performs steps and throws events.

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("exit"), st.sampled_from([0, 1, 137, None])),
        st.tuples(st.just("desired"), st.sampled_from(list(Desired))),
        st.tuples(st.just("restart"), st.integers(1, 3)),
        st.tuples(st.just("probe"), st.booleans()),
        st.tuples(st.just("hook"), st.booleans()),
        st.tuples(st.just("time"), st.floats(0.01, 70.0)),
        st.tuples(st.just("refuse"), st.booleans()),
        st.tuples(st.just("agent dies"), st.just(None)),
        st.tuples(st.just("reboot"), st.just(None)),
        st.tuples(st.just("admit"), st.just(None)),
    ),
    max_size=25,
)
POLICIES = st.builds(
    RestartPolicy,
    condition=st.sampled_from(["any", "none", "on-failure"]),
    max_attempts=st.sampled_from([None, 0, 1, 3]),
    window=st.sampled_from([0.0, 5.0]),
)


class World:
    def __init__(self, assignment, walls=()):
        self.walls = itertools.cycle(walls or (WALL,))  # what the clock shows, look by look
        self.steps_taken = []
        self.record = life.fresh(assignment, "boot0")
        self.now, self.boots = 100.0, 0
        self.history = [self.record.state]
        self.steps = 0

    def set(self, record):
        old = self.record
        assert may_move(old.state, record.state, by="agent"), f"{old.state} -> {record.state}"
        if old.state in FINAL:
            assert record.state == old.state, "a final state is final"
        assert record.restart_done >= old.restart_done
        assert record.restarts >= old.restarts
        self.record = record

    def settle(self, refuse=False):
        """Perform steps until the task waits."""
        for _ in range(40):
            step = life.next_step(self.record, self.now)
            self.steps_taken.append(step)
            match step:
                case Wait(until):
                    assert until is None or until > self.now, "never wait for the past"
                    return
                case Gone():
                    return
                case Prepare():
                    record = life.preparing(self.record)
                    self.set(record)
                    self.set(life.refused(record, "no") if refuse else life.prepared(record, IMAGE))
                case Launch(number):
                    assert self.record.assignment.desired is Desired.RUNNING
                    assert number == self.record.number + 1
                    self.set(life.creating(self.record, number))
                    one = Process(pid=number, start=1)
                    self.set(life.created(self.record, one, one))
                    self.set(life.started(self.record, self.now, next(self.walls)))
                case BeforeStop(why):
                    assert self.record.pre_stop == "", "hooks of a stop run once"
                    self.set(hooks.leaving(self.record, why, self.now))
                case Signal():
                    self.set(life.stopping(self.record, step, self.now))
                    if step.kill:
                        self.set(life.ended(self.record, Exit(137), self.now, next(self.walls)))
                case Clear():
                    self.set(life.cleared(self.record))
                case Settle():
                    self.set(life.settled(self.record, step))
                case Tidy():
                    assert self.record.phase is Phase.NONE
                    self.set(life.tidied(self.record))
                case Erase():
                    assert self.record.phase is Phase.NONE, "nothing is erased under a process"
                    self.set(life.erased(self.record))
                case Undo():
                    self.set(life.undone(self.record))
                case Resume():
                    self.set(life.started(self.record, self.now, next(self.walls)))
        raise AssertionError(f"it never comes to rest: {self.record}")

    def throw(self, event, value):
        record = self.record
        match event:
            case "exit" if record.phase is Phase.RUNNING:
                self.set(life.ended(record, Exit(value), self.now, next(self.walls)))
            case "desired":
                self.set(
                    life.assigned(record, record.assignment.model_copy(update={"desired": value}))
                )
            case "restart":
                self.set(
                    life.assigned(record, record.assignment.model_copy(update={"restart": value}))
                )
            case "probe" if life.check_of(record) is not None:
                self.set(life.probed(record, healthy=value, output="", counts=True, now=self.now))
            case "hook" if record.pre_stop == "running":
                self.set(hooks.left(record))
            case "hook" if record.phase is Phase.RUNNING and record.hooks_left:
                failing = not value and not record.hook_failed
                over = hooks.failed(record, "no") if failing else hooks.hooked(record, self.now)
                self.set(over)
            case "time":
                self.now += value
            case "agent dies":
                self.set(life.adopted(record))
            case "admit":
                changes = {"admitted": record.boot}
                self.set(life.assigned(record, record.assignment.model_copy(update=changes)))
            case "reboot":
                self.boots += 1
                self.now = 1.0
                self.set(
                    life.adopted(rebooted(record, f"boot{self.boots}", self.now, next(self.walls)))
                )


@settings(max_examples=300, deadline=None)
@given(EVENTS, POLICIES, st.booleans(), st.sampled_from([None, 0, 2]), st.booleans(), st.booleans())
def test_laws_of_any_history(events, policy, checked, local, gated, hooked):
    check = CHECK if checked else None
    after = ("db to be healthy",) if gated else ()
    begins = (Hook(command=("x",)),) * 2 if hooked else ()
    spec = {"healthcheck": check, "post_start": begins, "pre_stop": begins[:1]}
    world = World(task(policy=policy, local_restarts=local, after=after, **spec))
    for event, value in events:
        if event == "refuse":
            world.settle(refuse=value)
        else:
            world.throw(event, value)
            world.settle()
        record = world.record
        assert not record.ready or record.phase is Phase.RUNNING, "ready without a process"
        assert len(record.runs) <= 5
        assert record.status().ready == record.ready
    world.throw("desired", Desired.REMOVED)
    world.settle()
    world.now += 100.0
    world.settle()
    assert world.record.erased, "a removed task is gone, whatever happened before"


@settings(max_examples=150, deadline=None)
@given(
    EVENTS,
    POLICIES,
    st.booleans(),
    st.lists(st.floats(0, 4e9), min_size=1, max_size=9),
)
def test_what_the_clock_shows_decides_nothing(events, policy, checked, walls):
    """Law: however it jumps, each step and each wait is as with a clock that is right."""
    spec = {"healthcheck": CHECK if checked else None}
    right, wrong = (World(task(policy=policy, **spec), shown) for shown in ((), walls))
    for world in (right, wrong):
        for event, value in events:
            if event == "refuse":
                world.settle(refuse=value)
            else:
                world.throw(event, value)
                world.settle()
    assert wrong.steps_taken == right.steps_taken
    assert wrong.record.state == right.record.state
    assert (wrong.record.restarts, wrong.record.next_at) == (
        right.record.restarts,
        right.record.next_at,
    )
