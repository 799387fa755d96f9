"""Constraints and refusals, as tables."""

from __future__ import annotations

import pytest

from scheduler import constraints
from scheduler.place import place
from scheduler.view import Fleet, Home, HostPort, NodeUse, NodeView, Pending

GIB = 1 << 30
NODE = NodeView(
    id="n1",
    name="alpha",
    hostname="alpha.example",
    role="manager",
    labels={"zone": "EU-1", "empty": ""},
    arch="x86_64",
)


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("node.id == n1", True),
        ("node.id==n1", True),
        ("node.id != n1", False),
        ("node.name == alpha", True),
        ("node.hostname == alpha.example", True),
        ("node.role == manager", True),
        ("node.labels.zone == eu-1", True),
        ("node.labels.zone in us-1, EU-1", True),
        ("node.labels.zone in (us-1 us-2)", False),
        ("node.labels.missing == x", False),
        ("node.labels.missing != x", True),
        ("engine.labels.zone == eu-1", True),
        ("node.platform.os == linux", True),
        ("node.platform.arch == amd64", True),
        ("node.platform.arch == x86_64", True),
        ("node.platform.arch != aarch64", True),
    ],
)
def test_constraints(rule, holds):
    assert constraints.parse(rule).admits(NODE) is holds


@pytest.mark.parametrize(
    "rule", ["", "zone", "node.labels.x = 1", "node.labels.x ==", "node.color == red", "== x"]
)
def test_bad_constraints_are_refused_with_a_sentence(rule):
    with pytest.raises(ValueError, match=r"constraint|node\.labels"):
        constraints.parse(rule)


def a_task(**more) -> Pending:
    return Pending(task="t", service="app/web", spec_hash="h", **more)


def three(**more) -> Fleet:
    return Fleet(
        {
            f"n{i}": NodeView(id=f"n{i}", name=f"host{i}", cpus=2.0, memory=i * GIB, **more)
            for i in (1, 2, 3)
        }
    )


@pytest.mark.parametrize(
    ("task", "nodes", "sentence"),
    [
        (
            a_task(memory=8 * GIB),
            {},
            (
                "no node fits: of 3 nodes, 3 lack memory "
                "(needs 8 GiB, most unreserved is 3 GiB on host3)"
            ),
        ),
        (
            a_task(cpus=4),
            {},
            "no node fits: of 3 nodes, 3 lack CPUs (needs 4, most unreserved is 2 on host1)",
        ),
        (
            a_task(constraints=("node.labels.gpu == yes",)),
            {},
            "no node fits: of 3 nodes, 3 do not satisfy 'node.labels.gpu == yes'",
        ),
        (
            a_task(),
            {"status": "down"},
            "no node fits: of 3 nodes, 3 are down (host1, host2, host3)",
        ),
        (
            a_task(),
            {"availability": "drain"},
            "no node fits: of 3 nodes, 3 are draining (host1, host2, host3)",
        ),
        (
            a_task(ports=(HostPort(80, "tcp"),)),
            {"listening": frozenset({"80/tcp"})},
            (
                "no node fits: of 3 nodes, 3 have port 80/tcp held by a process of the host "
                "(host1, host2, host3)"
            ),
        ),
        (
            a_task(ports=(HostPort(22, "tcp"),)),
            {},
            (
                "no node fits: of 3 nodes, 3 have port 22/tcp reserved for the node itself "
                "(host1, host2, host3)"
            ),
        ),
        (
            a_task(max_per_node=1),
            {"use": NodeUse(services={"app/web": 1})},
            (
                "no node fits: of 3 nodes, 3 have max_replicas_per_node = 1 tasks of the service "
                "already"
            ),
        ),
        (
            a_task(platform="linux/arm64"),
            {},
            "no node fits: of 3 nodes, 3 are not linux/arm64",
        ),
        (
            a_task(homes=(Home("volume data (its data is on host9)", "data", "n9"),)),
            {},
            "no node fits: of 3 nodes, 3 do not have volume data (its data is on host9)",
        ),
    ],
)
def test_a_refusal_names_counts_and_reasons(task, nodes, sentence):
    assert place(three(**nodes), [task]).refused == {"t": sentence}


def test_reasons_are_told_most_frequent_first():
    view = three()
    nodes = dict(view.nodes)
    nodes["n4"] = NodeView(id="n4", name="host4", memory=64 * GIB, status="down")
    sentence = place(Fleet(nodes), [a_task(memory=32 * GIB)]).refused["t"]
    assert sentence.index("3 lack memory") < sentence.index("1 is down (host4)")


def test_without_nodes_it_says_so():
    assert place(Fleet({}), [a_task()]).refused["t"] == "there is no node in the cluster"


def test_a_node_where_the_spec_failed_is_taken_last():
    view = three()
    nodes = {**view.nodes}
    nodes["n1"] = NodeView(id="n1", name="host1", cpus=64, memory=99 * GIB, failures={"h": 1})
    assert place(Fleet(nodes), [a_task()]).assigned["t"] != "n1"


def test_an_image_already_there_decides_between_equals():
    nodes = {
        f"n{i}": NodeView(id=f"n{i}", name=f"host{i}", memory=GIB, images=images)
        for i, images in enumerate([frozenset(), frozenset({"sha256:a"}), frozenset()])
    }
    for seed in range(5):
        result = place(Fleet(nodes), [a_task(image="sha256:a")], seed)
        assert result.assigned["t"] == "n1"


def test_a_replacement_may_use_the_room_of_the_task_that_stops_first():
    node = NodeView(id="n1", name="host1", cpus=1.0, memory=GIB, use=NodeUse(memory=GIB, cpus=1.0))
    view = Fleet({"n1": node})
    full = a_task(memory=GIB, cpus=1.0)
    assert "t" in place(view, [full]).refused
    swap = a_task(memory=GIB, cpus=1.0, instead_of="n1", instead_use=(1.0, GIB))
    assert place(view, [swap]).assigned == {"t": "n1"}


@pytest.mark.parametrize(
    ("held", "asked", "fits"),
    [
        ("", "", False),
        ("", "192.0.2.1", False),
        ("192.0.2.1", "", False),
        ("192.0.2.1", "192.0.2.1", False),
        ("192.0.2.1", "192.0.2.2", True),
    ],
)
def test_a_port_on_all_addresses_clashes_with_the_same_port_on_one(held, asked, fits):
    """Both ways: whoever comes second, and between two tasks placed in one go."""
    one, two = HostPort(80, "tcp", held), HostPort(80, "tcp", asked)
    node = NodeView(id="n1", name="host1", use=NodeUse(ports=frozenset({one})))
    assert ("t" in place(Fleet({"n1": node}), [a_task(ports=(two,))]).assigned) is fits
    free = Fleet({"n1": NodeView(id="n1", name="host1")})
    first = Pending(task="a", service="app/a", spec_hash="a", ports=(one,))
    second = Pending(task="b", service="app/b", spec_hash="b", ports=(two,))
    assert len(place(free, [first, second]).assigned) == (2 if fits else 1)
    other = HostPort(80, "udp", asked)
    assert place(Fleet({"n1": node}), [a_task(ports=(other,))]).assigned


SCORED = {
    "failures": {"failures": {"h": 1}},
    "the same spec": {"use": NodeUse(specs={"h": 1})},
    "the same service": {"use": NodeUse(services={"app/web": 1})},
    "the dominant share": {"use": NodeUse(memory=GIB)},
    "the image": {},
}


@pytest.mark.parametrize("worse", list(SCORED)[:-1])
def test_the_order_of_scores(worse):
    """What comes earlier in the order decides against everything later, the image included."""
    later = list(SCORED)[list(SCORED).index(worse) + 1 :]
    image = frozenset({"sha256:a"})
    bad = NodeView(id="n1", name="host1", cpus=4, memory=4 * GIB, images=image, **SCORED[worse])
    for name in later:
        burden = SCORED[name]
        good = NodeView(id="n2", name="host2", cpus=4, memory=4 * GIB, **burden)
        for seed in range(5):
            placed = place(Fleet({"n1": bad, "n2": good}), [a_task(image="sha256:a")], seed)
            assert placed.assigned["t"] == "n2", f"law: {worse} counts before {name}"


@pytest.mark.parametrize(
    ("crowded", "statuses", "goes_to", "words"),
    [
        ((), "rr", "any", ""),
        (("n0",), "rr", "n1", ""),
        (("n1",), "rr", "n0", ""),
        (("n0", "n1"), "rr", None, "of 2 nodes, 2 have no room on the disk for it (n0, n1)"),
        (("n0",), "ru", None, "1 has no room on the disk for it (n0)"),
        (("n0",), "ru", None, "n1 is not ready: no room is left"),
    ],
)
def test_a_node_whose_disk_has_no_room_is_no_candidate(crowded, statuses, goes_to, words):
    nodes = {}
    for name, status in zip(("n0", "n1"), statuses, strict=True):
        unready = {"status": "unready", "reason": "no room is left: /v has 0 of 9 MiB free"}
        more = unready if status == "u" else {}
        hashes = frozenset({"h"} if name in crowded else {"other"})
        nodes[name] = NodeView(id=name, name=name, cpus=4, memory=GIB, crowded=hashes, **more)
    placed = place(Fleet(nodes), [a_task()], 1)
    assert (placed.assigned.get("t") or "") in (
        {"n0", "n1"} if goes_to == "any" else {goes_to or ""}
    )
    assert words in placed.refused.get("t", "")


@pytest.mark.parametrize(
    ("wires", "needs", "goes_to", "words"),
    [
        ((1, 2), ((2, "security_opt: seccomp"),), "n1", ""),
        ((1,), (), "n0", ""),
        ((2,), ((2, "security_opt: seccomp"),), "n0", ""),
        (
            (1, 1),
            ((2, "security_opt: seccomp"),),
            None,
            "2 run an older corral that does not honour security_opt: seccomp (n0, n1)",
        ),
        (
            (1, 2),
            ((2, "a"), (3, "b")),
            None,
            "not honour a, b (n0), 1 runs an older corral that does not honour b (n1)",
        ),
        ((4,), ((2, "a"), (3, "b")), "n0", ""),
    ],
)
def test_an_agent_gets_no_task_with_a_key_its_version_does_not_honour(wires, needs, goes_to, words):
    nodes = {
        f"n{i}": NodeView(id=f"n{i}", name=f"n{i}", cpus=4.0, memory=GIB, wire=wire)
        for i, wire in enumerate(wires)
    }
    task = Pending(task="t", service="s/w", spec_hash="h", needs=needs)
    placed = place(Fleet(nodes), [task], 1)
    assert placed.assigned.get("t") == goes_to
    if words:
        assert words in placed.refused["t"]
