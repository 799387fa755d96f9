"""Anonymous volumes pass on in their slot: never two owners, nothing lost, nothing left."""

from __future__ import annotations

import pytest

from agent.tasks import slots
from agent.tasks.lifecycle import fresh
from agent.volumes.anonymous import AnonymousVolumes
from specs.states import Desired, TaskState
from specs.wire import EVERY_NODE, StackSlots
from tests.agent.test_lifecycle import task

SLOT = "s/w/1"
WANTED = {"s": StackSlots(services={"w": 2, "every": EVERY_NODE, "none": 0})}


class Sets:
    """The volumes of one folder; what a task has is the word that somebody wrote there."""

    def __init__(self, folder):
        self.folder = folder
        self.wanted = True
        self.made = AnonymousVolumes(folder)
        self.fresh = {"n"}  # the one that `up -V` made

    def prepare(self, name):
        if name not in self.fresh:
            self.made.take(name, SLOT)
        (self.made.home(name) / "mount").mkdir(exist_ok=True)

    def run(self, name, word=""):
        self.made.claim(name, SLOT, fresh=name in self.fresh)
        if word:
            (self.folder / name / "mount/word").write_text(word)

    def end(self, name):
        self.made.release(name, lambda _slot: self.wanted)

    def unwanted(self):
        self.wanted = False
        self.made.sweep(lambda _slot: self.wanted)

    def word(self, name):
        path = self.folder / name / "mount/word"
        return path.read_text() if path.exists() else ""


CASES = {
    # what happens, and what each task finds then (None = it has no volumes of its own)
    "stop and start": ("prepare a, run a DATA, end a, prepare b, run b", {"a": None, "b": "DATA"}),
    "renewed": ("prepare a, run a DATA, end a, prepare n, run n", {"a": None, "n": ""}),
    "renewed while the old one runs": (
        "prepare a, run a DATA, prepare n, end a, run n NEW, run n, end n, prepare b, run b",
        {"a": None, "n": None, "b": "NEW"},
    ),
    "renewed, and gone before it ran": (
        "prepare a, run a DATA, end a, prepare n, end n, prepare b, run b",
        {"n": None, "b": "DATA"},
    ),
    "made ready while the old one runs": (
        "prepare a, run a DATA, prepare b, end a, run b",
        {"a": None, "b": "DATA"},
    ),
    "start-first: one each, then the newer one's": (
        "prepare a, run a OLD, prepare b, run b NEW, end a, end b, prepare c, run c",
        {"a": None, "b": None, "c": "NEW"},
    ),
    "start-first that failed: the old one's stay": (
        "prepare a, run a OLD, prepare b, run b NEW, end b, end a, prepare c, run c",
        {"b": None, "c": "OLD"},
    ),
    "never started: takes nothing's place": (
        "prepare a, run a DATA, prepare b, end a, end b, prepare c, run c",
        {"b": None, "c": "DATA"},
    ),
    "got it and was never started: leaves it": (
        "prepare a, run a DATA, end a, prepare b, end b, prepare c, run c",
        {"b": None, "c": "DATA"},
    ),
    "prepared and begun again (restart, reboot)": (
        "prepare a, run a DATA, prepare a, run a, run a",
        {"a": "DATA"},
    ),
    "ended twice": (
        "prepare a, run a DATA, end a, prepare b, run b, end a, end a",
        {"a": None, "b": "DATA"},
    ),
    "the slot is gone before its task": ("prepare a, run a DATA, unwanted, end a", {"a": None}),
    "the slot is gone after its task": ("prepare a, run a DATA, end a, unwanted", {"a": None}),
    "gone, and there again": (
        "prepare a, run a DATA, end a, unwanted, prepare b, run b",
        {"b": ""},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_each_task_of_a_slot_finds(tmp_path, name):
    steps, found = CASES[name]
    sets = Sets(tmp_path)
    for step in steps.split(", "):
        verb, *words = step.split()
        getattr(sets, verb)(*words)
    for owner, word in found.items():
        assert sets.made.owns(owner) == (word is not None), owner
        assert sets.word(owner) == (word or "")
    sets.unwanted()
    for owner in ("a", "b", "c", "n"):
        sets.end(owner)
    assert list(tmp_path.iterdir()) == [], "nothing stays of a slot that is gone"


def test_a_mount_that_is_new_is_kept_beside_what_was_left(tmp_path):
    sets = Sets(tmp_path)
    sets.prepare("a")
    sets.run("a", "DATA")
    sets.prepare("b")
    (tmp_path / "b/more").mkdir()
    sets.end("a")
    sets.run("b")
    assert sets.word("b") == "DATA"
    assert (tmp_path / "b/more").is_dir()


@pytest.mark.parametrize(
    ("service", "number", "slot", "wanted"),
    [
        ("w", 1, "s/w/1", True),
        ("w", 2, "s/w/2", True),
        ("w", 3, "s/w/3", False),
        ("none", 1, "s/none/1", False),
        ("left-the-file", 1, "s/left-the-file/1", False),
        ("every", 7, "s/every/0", True),  # the node's, whatever number it has there
    ],
)
def test_which_slots_are_wanted(service, number, slot, wanted):
    one = task().model_copy(update={"stack": "s", "service": service, "slot": number})
    assert slots.slot_of(one, WANTED) == slot
    assert slots.is_wanted(slot, WANTED) is wanted
    assert not slots.is_wanted(slot, {}), "an older controller names none; or: `down`"


@pytest.mark.parametrize(
    ("change", "awaited"),
    [
        ({"desired": "shutdown"}, True),
        ({"desired": "removed"}, True),
        ({"state": TaskState.FAILED}, True),
        ({}, False),  # it is to stay: start-first, or nobody told it to go
        ({"desired": "removed", "touched": False}, False),
        ({"desired": "removed", "tidied": True}, False),
        ({"desired": "removed", "erased": True}, False),
        ({"desired": "removed", "service": "other"}, False),
    ],
)
def test_whose_end_is_awaited(change, awaited):
    def record(name, desired="running", service="w"):
        keys = {"id": name, "stack": "s", "service": service, "desired": Desired(desired)}
        return fresh(task().model_copy(update=keys), "boot")

    flags = {k: v for k, v in change.items() if k in ("touched", "tidied", "erased", "state")}
    old = record("a", change.get("desired", "running"), change.get("service", "w"))
    old = old.model_copy(update={"touched": True, **flags})
    assert bool(slots.predecessors(record("b"), [old])) is awaited
    assert not slots.predecessors(old, [old]), "nobody waits for itself"
