"""Each node's reason, and the advice that is nearest to helping."""

from __future__ import annotations

import pytest

from scheduler.filters import FILTERS
from scheduler.refusals import WORDS, no_place
from scheduler.view import Fleet, Home, HostPort, NodeUse, NodeView, Pending
from specs.states import NodeStatus

GIB = 1 << 30


def fleet(**changes):
    """Return three nodes of 4 CPUs and 8 GiB; ``changes`` by name."""
    nodes = {}
    for name in ("a", "b", "c"):
        fields = {"hostname": f"{name}.example", "cpus": 4.0, "memory": 8 * GIB}
        nodes[name] = NodeView(id=name, name=name, **{**fields, **changes.get(name, {})})
    return Fleet(nodes)


def task(**more):
    return Pending(task="t", service="app/web", spec_hash="h", **more)


DOWN = {"status": NodeStatus.DOWN, "reason": "no route to host"}

# task, nodes -> lines, advice
CASES = {
    "labels": (
        task(constraints=("node.labels.disk == ssd",)),
        fleet(b={"labels": {"disk": "hdd"}}),
        (
            "a, c: does not satisfy 'node.labels.disk == ssd' (it has no label disk)",
            "b: does not satisfy 'node.labels.disk == ssd' (its label disk is hdd)",
        ),
        "corral node label a disk=ssd, or change deploy.placement.constraints of web",
    ),
    "a label that must not be there": (
        task(constraints=("node.labels.old != yes",)),
        fleet(**{name: {"labels": {"old": "yes"}} for name in "abc"}),
        ("a, b, c: does not satisfy 'node.labels.old != yes' (its label old is yes)",),
        "corral node label a old-, or change deploy.placement.constraints of web",
    ),
    "no label would help": (
        task(constraints=("node.hostname == z",)),
        fleet(b=DOWN, c=DOWN),
        (
            "a: does not satisfy 'node.hostname == z' (its hostname is a.example)",
            "b, c: is down (no route to host)",
        ),
        "change deploy.placement.constraints of web",
    ),
    "one is nearer than the others": (
        task(homes=(Home("volume v (its data is on c)", "volume v", "c"),)),
        fleet(c=DOWN),
        ("a, b: does not have volume v (its data is on c)", "c: is down (no route to host)"),
        "bring c back: corral node ls",
    ),
    "drained": (
        task(),
        fleet(**{name: {"availability": "drain"} for name in "abc"}),
        ("a, b, c: is draining",),
        "corral node activate a",
    ),
    "memory and CPUs": (
        task(cpus=3.0, memory=6 * GIB),
        fleet(**{name: {"use": NodeUse(cpus=2.0, memory=4 * GIB)} for name in "abc"}),
        ("a, b, c: lacks memory: 4 GiB unreserved, 6 GiB needed, CPUs: 2 unreserved, 3 needed",),
        "lower deploy.resources.reservations of web, or corral node add USER@HOST",
    ),
    "a port of the host": (
        task(ports=(HostPort(80, "tcp"),)),
        fleet(**{name: {"listening": frozenset({"80/tcp"})} for name in "abc"}),
        ("a, b, c: has port 80/tcp held by a process of the host",),
        "publish another port of web, free that one, or corral node add USER@HOST",
    ),
    "an older corral": (
        task(needs=((3, "gpus"),)),
        fleet(**{name: {"wire": 2} for name in "abc"}),
        ("a, b, c: runs an older corral that does not honour gpus",),
        "update corral on a, or do without gpus",
    ),
    "nobody": (task(), Fleet({}), (), "there is no node in the cluster: corral node add USER@HOST"),
    "somebody": (task(), fleet(b=DOWN), (), ""),
}


@pytest.mark.parametrize("case", CASES)
def test_why_no_node_takes_it(case):
    wanted, view, lines, hint = CASES[case]
    found = no_place(view, wanted)
    assert (found.nodes, found.hint) == (lines, hint)


def test_every_rule_has_words_for_a_single_node():
    assert set(WORDS) == {rule.name for rule in FILTERS}
