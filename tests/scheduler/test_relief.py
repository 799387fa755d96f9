"""What would make a task fit: each proposal does, and the modest ones come first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.filters import FILTERS, first_refusal
from scheduler.place import place
from scheduler.relief import _WAYS, changes, chosen, verdicts
from scheduler.view import Fleet, Home, HostPort, Load, NodeUse, NodeView, Only, Pending
from specs.states import NodeStatus

GIB = 1 << 30
TAKEN = NodeUse(ports=frozenset({HostPort(8080, "tcp")}), services={"app/web": 1})


def fleet(**changed):
    nodes = {}
    for name in "abc":
        fields = {"hostname": name, "cpus": 4.0, "memory": 8 * GIB, **changed.get(name, {})}
        nodes[name] = NodeView(id=name, name=name, **fields)
    return Fleet(nodes)


def task(**more):
    return Pending(task="t", service="app/web", spec_hash="h", **more)


ALL_TAKEN = {name: {"use": TAKEN} for name in "abc"}
CLOSED = {name: {"availability": "drain"} for name in "abc"}
USED = {"b": {"use": NodeUse(memory=7 * GIB)}, "c": {"use": NodeUse(memory=6 * GIB)}}


@pytest.mark.parametrize(
    ("asked", "view", "first"),
    [
        (task(memory=9 * GIB), fleet(**USED), "reserve at most 8 GiB for web"),
        (task(memory=9 * GIB), fleet(**USED, a={"availability": "pause"}), "reserve at most 2 GiB"),
        (task(cpus=6.0), fleet(), "reserve at most 4 CPUs for web"),
        (task(memory=9 * GIB, cpus=5.0), fleet(), "reserve at most 8 GiB and 4 CPUs for web"),
        (task(ports=(HostPort(8080, "tcp"),)), fleet(**ALL_TAKEN), "drop host port 8080/tcp"),
        (task(constraints=("node.labels.gpu == yes",)), fleet(), "corral node label a gpu=yes"),
        (
            task(constraints=("node.hostname == z",)),
            fleet(),
            "remove constraint 'node.hostname == z' of web",
        ),
        (
            task(constraints=("node.labels.gpu == yes", "node.labels.zone == x")),
            fleet(b={"labels": {"zone": "x"}}),
            "corral node label a gpu=yes and corral node label a zone=x",
        ),
        (task(), fleet(**CLOSED), "corral node activate a"),
        (
            task(),
            fleet(**{n: {"status": NodeStatus.DOWN} for n in "abc"}),
            "bring a back (it is down)",
        ),
        (task(max_per_node=1), fleet(**ALL_TAKEN), "max_replicas_per_node: 2 for web"),
        (task(platform="linux/arm64"), fleet(), "build web for linux/amd64"),
        (task(only=(Only("path /srv/x", frozenset()),)), fleet(), "make path /srv/x on a"),
        (
            task(homes=(Home("volume app_data", "volume app_data", "gone"),)),
            fleet(),
            "corral volume restore app_data FILE --node a",
        ),
        (
            task(),
            fleet(**{n: {"crowded": frozenset({"h"})} for n in "abc"}),
            "free room on the disk of a",
        ),
        (
            task(needs=((3, "x"),)),
            fleet(**{n: {"wire": 2} for n in "abc"}),
            "corral upgrade a",
        ),
    ],
)
def test_the_first_proposal(asked, view, first):
    found = changes(view, asked)
    assert found[0].words.startswith(first)
    assert sum(v.binding for v in verdicts(view, asked)) >= 1


@pytest.mark.parametrize("view", [fleet(), Fleet({})])
def test_where_nothing_is_in_the_way_nothing_is_proposed(view):
    assert changes(view, task()) == ()
    assert not any(v.binding for v in verdicts(view, task()))


def test_what_belongs_to_one_node_is_told_and_not_talked_out_of_it():
    view = fleet(a={"availability": "drain"})
    assert [change.words for change in changes(view, task(node="a"))] == ["corral node activate a"]


def test_every_rule_has_a_way_or_none_is_meant():
    assert {rule.name for rule in FILTERS} - _WAYS.keys() == {"node"}


NODES = st.builds(
    NodeView,
    id=st.just(""),
    name=st.just(""),
    status=st.sampled_from([NodeStatus.READY, NodeStatus.READY, NodeStatus.DOWN]),
    availability=st.sampled_from(["active", "active", "drain"]),
    labels=st.dictionaries(st.sampled_from(["gpu", "zone"]), st.sampled_from(["yes", "x"])),
    cpus=st.sampled_from([1.0, 4.0]),
    memory=st.integers(0, 8).map(lambda n: n * GIB),
    arch=st.sampled_from(["amd64", "arm64"]),
    use=st.builds(
        NodeUse,
        cpus=st.sampled_from([0.0, 0.5, 3.0]),
        memory=st.integers(0, 8).map(lambda n: n * GIB),
        services=st.sampled_from([{}, {"app/web": 2}]),
        ports=st.sampled_from([frozenset(), frozenset({HostPort(80, "tcp")})]),
    ),
)
TASKS = st.builds(
    task,
    memory=st.integers(0, 10).map(lambda n: n * GIB),
    cpus=st.sampled_from([0.0, 0.5, 6.0]),
    constraints=st.lists(
        st.sampled_from(["node.labels.gpu == yes", "node.labels.zone != x", "node.hostname == z"]),
        unique=True,
    ).map(tuple),
    ports=st.sampled_from([(), (HostPort(80, "tcp"), HostPort(81, "tcp"))]),
    max_per_node=st.sampled_from([0, 1, 3]),
    platform=st.sampled_from(["", "linux/arm64"]),
)


@given(st.lists(NODES, min_size=1, max_size=4), TASKS)
def test_whatever_is_proposed_makes_a_node_admit_it(nodes, asked):
    from dataclasses import replace

    named = {f"n{i}": replace(n, id=f"n{i}", name=f"n{i}") for i, n in enumerate(nodes)}
    view = Fleet(named)
    found = changes(view, asked)
    fits = bool(place(view, [asked]).assigned)
    assert not (fits and found), "law: nothing is proposed where it fits"
    assert fits == any(v.fits for v in verdicts(view, asked))
    for change in found:
        assert first_refusal(change.pending, Load(change.view)) is None
        changed = Fleet({**named, change.view.id: change.view})
        assert place(changed, [change.pending]).assigned, "law: what is proposed helps"


@pytest.mark.parametrize(
    ("asked", "view", "words"),
    [
        (task(), fleet(), ""),  # nothing decided
        (task(), fleet(b=CLOSED["b"], c=CLOSED["c"]), "no other node takes it"),
        (task(), Fleet({"a": fleet().nodes["a"]}), ""),
        (task(), fleet(b=ALL_TAKEN["b"], c=ALL_TAKEN["c"]), "fewest of web are there"),
        (task(), fleet(**USED), "least is reserved there"),
        (task(image="sha"), fleet(a={"images": frozenset({"sha"})}), "its image is there"),
        (task(homes=(Home("volume d", "volume d", "a"),)), fleet(), "volume d is there"),
        (task(prefers="a"), fleet(), "its anonymous volumes are there"),
        (task(), fleet(a=CLOSED["a"]), ""),  # not where it may be
        (task(), fleet(a=ALL_TAKEN["a"]), ""),  # others of the moment decided
    ],
)
def test_why_a_node_was_taken(asked, view, words):
    assert chosen(view, asked, "a") in (words, "")
    if words:
        assert chosen(view, asked, "a") == words


def test_what_is_lost_with_its_machine_is_put_back_before_it_begins_empty():
    lost = task(homes=(Home("volume app_data", "volume app_data", "gone"),))
    assert [change.words for change in changes(fleet(), lost)] == [
        "corral volume restore app_data FILE --node a",
        "corral volume restore app_data FILE --node b",
        "corral volume restore app_data FILE --node c",
        "corral volume create --node a app_data",
    ]


def test_what_is_at_home_on_a_node_there_is_moves():
    home = task(
        homes=(Home("volume app_data", "volume app_data", "b"),),
        constraints=("node.hostname == a",),
    )
    words = [change.words for change in changes(fleet(), home)]
    assert "corral volume move app_data --to a" in words
    assert not any("restore" in said or "create" in said for said in words)
