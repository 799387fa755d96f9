"""Laws of the means by which scheduler.place is quick: what they answer is what looking would."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import choice, order, scores, sets
from scheduler.filters import FILTERS
from scheduler.index import Candidates
from scheduler.place import place
from scheduler.steps import whole
from scheduler.view import Fleet, Home, HostPort, Load, NodeUse, NodeView, Only, Pending
from tests.laws.plain_place import plain, score

GIB = 1 << 30
IDS = ["n1", "n2", "node-3", "node-4", "node-5", "é", "n7"]  # of several lengths, in bytes too
counts = st.dictionaries(st.sampled_from(["app/s0", "app/s1", "app/s2"]), st.integers(1, 2))
hashes = st.dictionaries(st.sampled_from(["h0", "h1", "h2"]), st.integers(1, 2))
ports = st.sets(
    st.builds(
        HostPort, st.sampled_from([80, 81]), st.just("tcp"), st.sampled_from(["", "10.0.0.1"])
    ),
    max_size=2,
)
uses = st.builds(
    NodeUse,
    cpus=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    memory=st.sampled_from([0, GIB // 2, GIB]),
    tasks=st.integers(0, 3),
    services=counts,
    specs=hashes,
    ports=ports.map(frozenset),
)
views = st.builds(
    NodeView,
    id=st.just(""),
    name=st.sampled_from(["a", "b"]),
    status=st.sampled_from(["ready", "ready", "ready", "ready", "unready", "down"]),
    availability=st.sampled_from(["active", "active", "active", "drain"]),
    labels=st.fixed_dictionaries(
        {}, optional={"zone": st.sampled_from(["", "a", "A", "b"]), "rack": st.sampled_from("xy")}
    ),
    arch=st.sampled_from(["amd64", "x86_64", "arm64"]),
    cpus=st.sampled_from([0.0, 1.0, 2.0]),
    memory=st.sampled_from([0, GIB, 4 * GIB]),
    wire=st.sampled_from([1, 2]),
    listening=st.sampled_from([frozenset(), frozenset(), frozenset({"80/tcp"})]),
    images=st.sampled_from([frozenset(), frozenset({"i0"}), frozenset({"i0", "i1"})]),
    failures=st.one_of(st.just({}), hashes),
    crowded=st.sampled_from([frozenset(), frozenset(), frozenset({"h0"}), frozenset({"h1"})]),
    use=uses,
)
fleets = st.lists(views, max_size=len(IDS)).map(
    lambda some: Fleet({n: replace(view, id=n) for n, view in zip(IDS, some, strict=False)})
)
maybe = st.one_of(st.none(), st.none(), st.none(), st.sampled_from(IDS))
RULES = ["node.labels.zone == a", "node.labels.zone != a", "node.labels.rack in x, y",
         "node.platform.arch == amd64", "node.name == b"]  # fmt: skip
homes = st.builds(
    lambda key, node: Home(f"volume {key}", key, node), st.sampled_from(["v", "w"]), maybe
)
onlies = st.builds(Only, st.just("path /x"), st.frozensets(st.sampled_from(IDS)))
tasks = st.builds(
    Pending,
    task=st.just(""),
    service=st.just(""),
    spec_hash=st.just(""),
    cpus=st.sampled_from([0.0, 0.0, 0.1, 0.5]),
    memory=st.sampled_from([0, 0, GIB // 4, GIB]),
    constraints=st.lists(st.sampled_from(RULES), max_size=2).map(tuple),
    preferences=st.sampled_from(
        [(), (), ("node.labels.zone",), ("spread: node.labels.zone", "node.labels.rack")]
    ),
    max_per_node=st.sampled_from([0, 0, 1, 2]),
    pack=st.sampled_from([False, False, True]),
    platform=st.sampled_from(["", "", "linux", "linux/amd64", "linux/arm64/v8", "windows"]),
    ports=st.sampled_from([(), (), (), (HostPort(80, "tcp"),), (HostPort(81, "tcp", "10.0.0.2"),)]),
    homes=st.one_of(st.just(()), st.just(()), st.lists(homes, max_size=2).map(tuple)),
    only=st.one_of(st.just(()), st.just(()), st.lists(onlies, max_size=2).map(tuple)),
    image=st.sampled_from(["", "i0", "i1"]),
    needs=st.sampled_from([(), (), ((2, "init"),)]),
    node=maybe,
    instead_of=maybe,
    instead_use=st.sampled_from([(0.0, 0), (0.5, GIB)]),
    aside=st.sampled_from([(0.0, 0), (0.5, GIB)]),
    prefers=maybe,
)  # fmt: skip
several = st.lists(st.tuples(tasks, st.integers(0, 2), st.integers(1, 9)), max_size=5)


def named(groups) -> list[Pending]:
    return [
        replace(
            one, task=f"t{place_}.{slot}", service=f"app/s{n}", spec_hash=f"h{n}", slot=slot
        )
        for place_, (one, n, count) in enumerate(groups)
        for slot in range(1, count + 1)
    ]  # fmt: skip


@pytest.mark.parametrize("at_once", [0, choice.ALL, 1000], ids=["one by one", "as it is", "heap"])
@settings(deadline=None, max_examples=100)
@given(fleets, several, st.integers(0, 3))
def test_every_task_gets_what_looking_at_all_nodes_for_each_would_give(
    at_once, fleet, groups, seed
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "ALL", at_once)
        found = place(fleet, named(groups), seed)
    assigned, refused, decided = plain(fleet, named(groups), seed)
    assert found.assigned == assigned, "law: the best node for each"
    assert dict(found.refused) == refused, "law: the same sentence"
    assert found.homes == decided


@settings(deadline=None, max_examples=100)
@given(fleets, tasks)
def test_a_set_holds_exactly_the_nodes_a_filter_admits(fleet, one):
    task = replace(one, task="t", service="app/s0", spec_hash="h0")
    index = Candidates()
    whole(index.fill(fleet, [task]))
    for rule in FILTERS:
        if rule.applies(task):
            said = {index.ids[p] for p in sets.positions(index.admits(rule, task, index.all))}
            asked = {n for n, node in fleet.nodes.items() if rule.admits(task, Load(node))}
            assert said == asked, rule.name


@settings(deadline=None, max_examples=100)
@given(st.sets(st.integers(0, 3000)))
def test_a_set_is_what_it_was_made_of(positions):
    made = sets.of(positions, 3001)
    assert sets.positions(made) == sorted(positions)
    assert made == sum(1 << position for position in positions)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.text(min_size=1, max_size=5), unique=True, min_size=1, max_size=40),
    st.integers(0, 9),
    st.text(max_size=5),
    st.data(),
)
def test_the_first_of_a_set_has_the_least_tie_break(ids, seed, service, data):
    index = Candidates(seed)
    whole(index.fill(Fleet({n: NodeView(id=n, name=n) for n in ids}), []))
    among = data.draw(st.sets(st.sampled_from(range(len(ids))), min_size=1))
    ties = index.ties(service)
    for position in among:
        assert ties(position) == scores.tie_break(seed, service, index.ids[position])
    runs = index._runs
    assert order.first(runs, index.set_of(among), seed, service) == min(among, key=ties)


def test_a_score_is_what_it_says():
    """The plain answer has its own; both must mean the same."""
    node = NodeView(id="n1", name="n", cpus=2.0, memory=GIB, use=NodeUse(tasks=3, memory=GIB // 8))
    task = Pending("t", "app/s0", "h0")
    index = Candidates(1)
    whole(index.fill(Fleet({"n1": node}), [task]))
    chosen = choice.Choice(index, task, 1, 1)
    assert chosen._score(0)[:-1] == score(task, Load(node), 1) == (0, 0, 0, 125, 1, 3, 369572770)
