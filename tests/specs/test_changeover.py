"""An agent is changed for another, or the former one is there again: every way it can go.

The machine is a fake in its own time; the law of each case: either the new version answers with
all that ran, or the former one does and the reason is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from specs.kit import changeover

OLD, NEW = "0.1.0", "0.2.0"


def a_status(pid, *, finished=None, code=None, oom=False):
    run = {"number": 1, "pid": pid, "started_at": 1.0, "finished_at": finished, "exit_code": code,
           "oom": oom}  # fmt: skip
    return {"state": "running", "runs": [run]}


@dataclass
class FakeMachine:
    """Two containers, an agent of a version, and one that comes in its place."""

    agent: str = OLD
    answers: bool = True
    starts_after: float = 1.0  # seconds the new agent takes
    new_answers: bool = True
    new_says: str = NEW
    crashes: bool = False
    kills: tuple[str, ...] = ()  # containers the new agent ends
    forgets: tuple[str, ...] = ()  # and those it does not know
    ended: dict[str, int] = field(default_factory=dict)  # end by themselves: exit code
    stops: tuple[str, ...] = ()  # the controller has these stopped meanwhile
    cannot: str = ""  # forward fails
    no_way_back: str = ""
    old_comes_back: bool = True
    knows_held: bool = True

    def __post_init__(self):
        self.time = 0.0
        self.pids = {"t1": 101, "t2": 102}
        self.living = {101: "s1", 102: "s2"}
        self.events = []
        self.ready_at = 0.0

    @property
    def in_place(self):
        return self.new_says if self.agent == NEW else self.agent

    def forward(self):
        self.events.append("forward")
        if self.cannot:
            raise OSError(self.cannot)
        self.agent, self.ready_at, self.answers = NEW, self.time + self.starts_after, True
        for task in (*self.kills, *self.ended, *self.stops):
            self.living.pop(self.pids[task], None)

    def back(self):
        self.events.append("back")
        if not self.no_way_back:
            self.agent, self.ready_at = OLD, self.time + self.starts_after
        return self.no_way_back

    def settle(self):
        self.events.append("settle")

    def ends(self):
        return int((self.time - self.ready_at) * 2) if self.crashes and self.agent == NEW else 0

    def last_words(self):
        return ("Traceback", "ImportError: no")

    def ask(self, path):
        silent = not (self.new_answers if self.agent == NEW else self.old_comes_back)
        if not self.answers or self.time < self.ready_at or silent or self.crashes_now():
            return None
        if path == "/v1/hello":
            return {"facts": {"agent_version": self.in_place}}
        if not self.knows_held:
            return {}
        tasks, wanted = {}, {}
        for task, pid in self.pids.items():
            wanted[task] = {"name": f"app-{task}", "desired": "running"}
            if self.agent == NEW and task in self.forgets:
                continue
            if self.agent == NEW and task in (*self.kills, *self.stops, *self.ended):
                code = self.ended.get(task, 137)
                tasks[task] = a_status(pid, finished=2.0, code=code)
            else:
                tasks[task] = a_status(pid)
            if self.agent == NEW and task in self.stops:
                wanted[task]["desired"] = "shutdown"
        return {"tasks": tasks, "objects": {"tasks": wanted}}

    def crashes_now(self):
        return self.crashes and self.agent == NEW

    def start_of(self, pid):
        return self.living.get(pid, "")

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds


@pytest.mark.parametrize(
    ("machine", "kept"),
    [
        (FakeMachine(), 2),
        (FakeMachine(starts_after=60.0), 2),  # a very busy machine
        (FakeMachine(answers=False), 2),  # the former agent was dead: what was told is compared
        (FakeMachine(agent=NEW), 2),  # an earlier upgrade was interrupted after it
        (FakeMachine(ended={"t2": 0}), 1),  # a one-off that ended just then
        (FakeMachine(ended={"t2": 3}), 1),
        (FakeMachine(stops=("t2",)), 1),  # `down` at the same moment
        (FakeMachine(knows_held=False), 2),  # agents that cannot say what they hold
    ],
)
def test_the_new_one_stays(machine, kept):
    told = {"t1": ("app-t1", 101), "t2": ("app-t2", 102)}
    found = changeover.change(machine, NEW, told=told)
    assert found.ok, found
    assert found.kept == kept
    assert machine.agent == NEW
    assert machine.events == ["forward", "settle"]


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (FakeMachine(crashes=True), "it ends as soon as it starts"),
        (FakeMachine(new_answers=False), "it does not answer within 90 s"),
        (FakeMachine(new_says="0.1.9"), "it answers as version 0.1.9, not 0.2.0 within 90 s"),
        (FakeMachine(new_says=""), "it answers as version unknown"),
        (FakeMachine(kills=("t2",)), "app-t2 (pid 102) does not run any more"),
        (FakeMachine(ended={"t1": 143}), "app-t1 (pid 101) does not run any more"),
        (FakeMachine(forgets=("t1",)), "app-t1 (pid 101) runs and is not known to it"),
        (FakeMachine(kills=("t1",), forgets=("t1",)), "app-t1 (pid 101) does not run any more"),
        (FakeMachine(cannot="systemctl restart: no"), "systemctl restart: no"),
        (FakeMachine(knows_held=False, kills=("t1",)), "app-t1 (pid 101) does not run any more"),
    ],
)
def test_the_former_one_is_there_again(machine, why):
    machine.crashes_now()
    told = {"t1": ("app-t1", 101), "t2": ("app-t2", 102)}
    found = changeover.change(machine, NEW, told=told)
    assert not found.ok
    assert why in found.message
    assert found.log == ("Traceback", "ImportError: no")
    assert machine.agent == OLD
    assert machine.events == ["forward", "back"], "what is older than the former one stays"
    assert found.was == OLD
    # What the new one killed cannot come back: it is said a second time.
    assert found.back is not bool(machine.kills or machine.ended)


def test_where_there_is_no_way_back_that_is_said():
    machine = FakeMachine(crashes=True, no_way_back="there is no former agent")
    found = changeover.change(machine, NEW)
    assert (found.ok, found.back) == (False, False)
    assert "ends as soon as it starts; there is no former agent" in found.message


def test_a_former_one_that_does_not_come_back_is_named():
    machine = FakeMachine(crashes=True)
    machine.ask("/v1/hello")
    original = machine.back

    def back():
        machine.old_comes_back = False
        return original()

    machine.back = back
    found = changeover.change(machine, NEW)
    assert (found.ok, found.back) == (False, False)
    assert "the former agent is in place again, but it does not answer within" in found.message


def test_a_broken_agent_is_noticed_long_before_the_deadline():
    machine = FakeMachine(crashes=True)
    changeover.change(machine, NEW)
    assert machine.time < 10


@pytest.mark.parametrize("moment", ["forward", "wait", "settle"])
def test_interrupted_anywhere_it_is_finished_by_doing_it_again(moment):
    machine = FakeMachine()
    original = {"forward": machine.forward, "wait": machine.sleep, "settle": machine.settle}

    def dies(*words):
        if moment != "settle":
            original[moment](*words)
        raise KeyboardInterrupt

    name = {"wait": "sleep"}.get(moment, moment)
    setattr(machine, name, dies)
    with pytest.raises(KeyboardInterrupt):
        changeover.change(machine, NEW)
    assert machine.agent in (OLD, NEW)
    setattr(machine, name, original[moment])
    assert changeover.change(machine, NEW).ok
    assert machine.living == {101: "s1", 102: "s2"}


@pytest.mark.parametrize(
    ("content", "offset", "said"),
    [
        (b"", 0, ()),
        (b"a\nb\nc\nd\n", 0, ("b", "c", "d")),
        (b"before\na\nb\n", 7, ("a", "b")),
        (b"trimmed\n", 100, ()),
        (b"\xff\n", 0, ("\N{REPLACEMENT CHARACTER}",)),
        (b"x\n" * changeover.SAID + b"last\n", 0, ("x", "x", "last")),
    ],
)
def test_last_words_are_those_behind_the_mark(tmp_path, content, offset, said):
    (tmp_path / "log").write_bytes(content)
    assert changeover.said_since(tmp_path / "log", offset, 3) == said
    assert changeover.said_since(tmp_path / "none", offset, 3) == ()
