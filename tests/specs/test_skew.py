"""One release apart works both ways; what is unknown is named, and half a spec is not executed.

``goldens/wire-N.json`` is what the released version N wrote: messages, a journal, the fields it
knew. They are never made again.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from agent.tasks.record import Record
from agent.vocabulary import Process
from specs import node, skew, stack, task, wire
from specs.base import Model
from specs.node import NodeFacts
from specs.stack import RestartPolicy, TaskSpec
from specs.states import Desired, TaskState
from specs.task import TaskStatus
from specs.wire import (
    PROTOCOL,
    Assignment,
    Hello,
    Instructions,
    LogLine,
    NodeSelf,
    Objects,
    Report,
    Stamp,
)

GOLDENS = Path(__file__).parent / "goldens"
KINDS = {
    "Hello": Hello, "Instructions": Instructions, "Report": Report, "LogLine": LogLine,
    "Record": Record, "Refused": wire.Refused, "Acknowledged": wire.Acknowledged,
}  # fmt: skip
# Renamed, and said in the old words to who knows only those (skew._as_then, _as_now).
RENAMED = {("Hello", "request"), ("TaskSpec", "security_opt")}


def golden(version):
    return json.loads((GOLDENS / f"wire-{version}.json").read_text())


def told(version):
    """Yield (kind, JSON) of everything the version said."""
    for name, found in golden(version)["messages"].items():
        for one in found if isinstance(found, list) else [found]:
            yield name, one


def models():
    """Return every model that travels, or is kept by an agent."""
    found = {"Record": Record, "Process": Process}
    for module in (wire, task, stack, node):
        found |= {
            name: kind
            for name, kind in vars(module).items()
            if isinstance(kind, type) and issubclass(kind, Model) and kind is not Model
        }
    return found


@pytest.mark.parametrize("version", range(1, PROTOCOL + 1))
def test_what_a_released_version_said_is_read_whole(version):
    if not (GOLDENS / f"wire-{version}.json").exists():
        pytest.skip("not released yet")
    for name, one in told(version):
        read = skew.decode(KINDS[name], json.dumps(one).encode())
        assert read.whole, f"{name}: {read.notes()}"


def test_the_words_of_version_1_mean_what_they_meant():
    said = dict(told(1))
    hello = skew.decode(Hello, json.dumps(said["Hello"]).encode()).value
    assert (hello.protocol, hello.signing_request, hello.facts.wire) == (1, "PEM", 1)
    record = skew.decode(Record, json.dumps(said["Record"]).encode()).value
    assert record.assignment.spec.no_new_privileges
    assert record.assignment.spec.seccomp == "unconfined"
    assert record.state is TaskState.RUNNING


def samples():
    facts = NodeFacts(hostname="x", wire=PROTOCOL, unread=("a",))
    spec = TaskSpec(image="i", restart=RestartPolicy(condition="none"), on_reboot="keep")
    one = Assignment(
        id="t1", stack="s", service="w", slot=1, name="s-w-1", spec=spec,
        desired=Desired.RUNNING, after=("db",), admitted="b",
    )  # fmt: skip
    status = TaskStatus(state=TaskState.RUNNING, doing="image", arrived=(1, 2), retry_in=3.0)
    return [
        Hello(protocol=2, facts=facts, signing_request="PEM"),
        Instructions(
            protocol=2, stamp=Stamp(cluster="c", epoch=1), me=NodeSelf(node="n", name="n"),
            put=Objects(tasks={"t1": one}), remove={"tasks": ("t0",)},
        ),
        Report(full=True, tasks={"t1": status}, facts=facts, unread=("x",)),
        LogLine(time=1.0, stream="stdout", line="x", place=(1, 2, 3)),
        Record(id="t1", assignment=one, wire=2, doing="image", held_until=3.0),
    ]  # fmt: skip


@pytest.mark.parametrize("model", samples(), ids=lambda m: type(m).__name__)
def test_version_1_gets_nothing_it_does_not_know(model):
    known = golden(1)["fields"]

    def walk(kind, value):
        for name, content in value.items():
            assert name in known[kind.__name__], f"{kind.__name__}.{name} was not known"
            field = models()[kind.__name__].model_fields.get(name)
            if field is not None:
                walk_into(field.annotation, content)

    def walk_into(annotation, content):
        inner = [annotation, *getattr(annotation, "__args__", ())]
        kinds = [k for k in inner if isinstance(k, type) and issubclass(k, Model)]
        if isinstance(content, dict) and kinds:
            is_one = kinds[0] is annotation or type(None) in inner
            for one in [content] if is_one else content.values():
                walk(kinds[0], one)
        elif isinstance(content, list) and kinds:
            for one in content:
                walk(kinds[0], one)

    walk(type(model), json.loads(skew.encode(model, 1)))


def test_version_1_restarts_the_unhealthy_as_the_file_says():
    for condition, then in (("none", "keep"), ("any", "restart")):
        spec = TaskSpec(image="i", restart=RestartPolicy(condition=condition))
        assert json.loads(skew.encode(spec, 1))["on_unhealthy"] == then


def test_our_own_version_is_the_plain_encoding():
    for model in samples():
        assert skew.encode(model, PROTOCOL) == model.encode()
        assert skew.encode(model, PROTOCOL + 1) == model.encode()


def test_every_field_that_came_later_is_in_the_table():
    known = golden(1)["fields"]
    found = models()
    for name, fields in known.items():
        later = set(found[name].model_fields) - set(fields)
        assert later == set(skew.SINCE.get(name, {})), (
            f"law: a new field of {name} gets a line in specs/skew.py SINCE with its version"
            f" ({PROTOCOL} until the next release), and in NEEDS where its loss changes what runs"
        )
        gone = {(name, field) for field in set(fields) - set(found[name].model_fields)}
        assert gone <= RENAMED, f"a field of version 1 has nobody who reads it: {gone - RENAMED}"


@pytest.mark.parametrize(
    ("spec", "version", "unfit"),
    [
        ({}, 1, ""),
        ({"no_new_privileges": True}, 1, "security_opt: no-new-privileges"),
        ({"no_new_privileges": True}, 2, ""),
        ({"seccomp": "unconfined"}, 1, "security_opt: seccomp"),
        (
            {"seccomp": "unconfined", "no_new_privileges": True},
            1,
            "security_opt: no-new-privileges, security_opt: seccomp",
        ),
        ({"on_reboot": "keep"}, 1, ""),
        ({"security": "default"}, 1, ""),
        ({"security": "baseline"}, 1, "x-corral.security"),
        ({"security": "restricted"}, 2, ""),
    ],
)
def test_what_a_version_does_not_honour_is_named_by_its_key(spec, version, unfit):
    assert skew.unfit(TaskSpec(image="i", **spec), version) == unfit


@pytest.mark.parametrize(
    ("version", "refused"), [(0, True), (1, False), (2, False), (3, False), (4, True)]
)
def test_further_than_one_release_apart_is_refused_with_the_words(version, refused):
    words = skew.refusal("n2", version)
    assert bool(words) == refused
    if refused:
        assert "containers run on" in words


FULL = {"applied": 3, "full": True, "tasks": {"a": {"state": "running"}, "b": {"ready": True}}}


@pytest.mark.parametrize(
    ("change", "tasks", "note"),
    [
        ({"colour": "red"}, {"a", "b"}, "unknown field colour"),
        ({"tasks": {"a": {"state": "running", "mood": 1}}}, {"a"}, "tasks.a.mood"),
        ({"tasks": {"a": {"state": "dreaming"}, "b": {}}}, {"b"}, "tasks.a: state"),
        ({"tasks": {"a": {"state": 5}, "b": {}}}, {"b"}, "tasks.a: state"),
        ({"tasks": {"a": [], "b": {}}}, {"b"}, "tasks.a"),
        ({"tasks": {"a": {"runs": [{"number": 1, "x": 2}]}}}, {"a"}, "tasks.a.runs.0.x"),
        ({"tasks": {"a": {"doing": "magic", "health": "?"}, "b": {}}}, {"b"}, "tasks.a"),
    ],
)
def test_of_a_report_only_what_makes_no_sense_is_left_out(change, tasks, note):
    read = skew.decode(Report, json.dumps({**FULL, **change}).encode())
    assert set(read.value.tasks) == tasks
    assert not read.whole
    assert any(note in one for one in read.notes()), read.notes()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"\0" * 64, "zeros"),
        (b"\xff\xfe{", "UTF-8"),
        (b'{"applied": 1', "no JSON"),
        (b"[1]", "list"),
        (b'{"applied": "many"}', "applied"),
        (b"[" * 100_000, "no JSON"),
    ],
)
def test_what_is_nothing_says_why(data, why):
    with pytest.raises(skew.Unreadable, match=why):
        skew.decode(Report, data)


def test_the_journal_of_version_1_has_good_checksums():
    for line in golden(1)["journal"]:
        check, _, body = line.rstrip("\n").partition(" ")
        assert int(check, 16) == zlib.crc32(body.encode())
