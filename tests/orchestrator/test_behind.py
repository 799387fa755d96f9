"""Whether a store is behind what runs: one table, and what is said."""

from __future__ import annotations

import pytest

from orchestrator.dispatch.behind import StoreSays, compare
from specs.wire import Hello, Stamp


def says(epoch=5, revision=100, stacks=None, ended=None, trusted=0):
    return StoreSays("c", epoch, revision, stacks or {}, ended or {}, trusted)


def hello(epoch=5, revision=100, stacks=None, cluster="c"):
    return Hello(stamp=Stamp(cluster=cluster, epoch=epoch), revision=revision, stacks=stacks or {})


SHOP, NEWER = {"shop": (5, 3)}, {"shop": (5, 4)}


@pytest.mark.parametrize(
    ("store", "hellos", "behind", "drifts"),
    [
        # equal, ahead, nobody there
        (says(stacks=SHOP), [hello(stacks=SHOP)], False, []),
        (says(revision=140, stacks=NEWER), [hello(stacks=SHOP)], False, []),
        (says(epoch=6, stacks=NEWER), [hello(stacks=SHOP)], False, []),
        (says(stacks=SHOP), [], False, []),
        (says(), [Hello()], False, []),
        # an agent of a version that does not say
        (says(stacks=SHOP), [hello(revision=0)], False, []),
        # a node that has not heard of a removal
        (says(revision=140), [hello(stacks=SHOP)], False, []),
        # behind by one stack
        (says(stacks=SHOP), [hello(stacks=NEWER)], True, [("shop", "older")]),
        # and only one of two nodes knows
        (
            says(stacks=SHOP),
            [hello(stacks=SHOP), hello(stacks=NEWER)],
            True,
            [("shop", "older")],
        ),
        # an unknown stack, of a revision that was never here
        (says(revision=90), [hello(stacks=SHOP)], True, [("shop", "unknown")]),
        # an empty store
        (says(epoch=0, revision=0), [hello(stacks=SHOP)], True, [("shop", "unknown")]),
        # a stack that was deleted since the copy was made: nobody has it
        (
            says(revision=90, stacks={"blog": (5, 1), **SHOP}),
            [hello(stacks=SHOP)],
            True,
            [("blog", "gone")],
        ),
        # only tasks moved since the copy
        (says(revision=99, stacks=SHOP), [hello(stacks=SHOP)], True, []),
        # a higher epoch was seen
        (says(epoch=4, stacks={"shop": (4, 3)}), [hello(stacks={"shop": (4, 3)})], True, []),
        # the copy lived on for two starts while no agent was reached
        (says(epoch=7, ended={5: 90}, stacks=SHOP), [hello(stacks=SHOP)], True, []),
        (says(epoch=7, ended={5: 100}, stacks=SHOP), [hello(stacks=SHOP)], False, []),
        (
            says(epoch=7, ended={5: 100}, stacks=SHOP),
            [hello(epoch=6, revision=300, stacks={"shop": (6, 4)})],
            True,
            [("shop", "older")],
        ),
        # another cluster's agent says nothing of ours
        (says(), [hello(epoch=9, stacks=NEWER, cluster="d")], False, []),
        # what was discarded counts no more
        (says(epoch=6, trusted=6, stacks=SHOP), [hello(stacks=NEWER)], False, []),
    ],
)
def test_when_a_store_is_behind(store, hellos, behind, drifts):
    found = compare(store, {f"n{i}": one for i, one in enumerate(hellos)})
    assert (found is not None) == behind
    if found is not None:
        assert [(d.stack, d.what) for d in found.drifts] == drifts
        assert found.nodes
        for word in ("Nothing is changed", "state adopt", "state discard", found.nodes[0]):
            assert word in found.words


def test_many_stacks_are_counted():
    found = compare(says(revision=1), {"n1": hello(stacks={f"s{i}": (5, 1) for i in range(9)})})
    assert found is not None
    assert "and 6 more" in found.words
