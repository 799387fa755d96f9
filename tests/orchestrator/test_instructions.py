"""What is sent to a node takes it exactly to the wanted set, and is as small as it can be."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.dispatch.instructions import Spelled, difference, is_empty, spell, whole
from specs.kit.layers import Layers, Without, changes, plain
from specs.wire import KINDS, Content, Instructions, NodeSelf, Objects, Peer, Stamp

peers = st.dictionaries(
    st.sampled_from("abcd"),
    st.builds(Peer, node=st.just("n"), name=st.sampled_from("xy"), underlay=st.just("u"),
              overlay=st.just("o")),
)  # fmt: skip
contents = st.dictionaries(
    st.sampled_from("abcd"), st.builds(Content, id=st.just("i"), data=st.sampled_from("xy"))
)
sets = st.builds(Objects, peers=peers, contents=contents)


def apply(old, put, remove):
    merged = {}
    for kind in KINDS:
        objects = {**getattr(old, kind), **getattr(put, kind)}
        for key in remove.get(kind, ()):
            del objects[key]
        merged[kind] = objects
    return Objects(**merged)


@given(sets, sets)
def test_applying_the_difference_gives_the_new_set(old, new):
    put, remove = difference(old, new)
    assert apply(old, put, remove) == new


@given(sets, sets)
def test_only_what_changed_is_sent(old, new):
    put, remove = difference(old, new)
    for kind in KINDS:
        for key, value in getattr(put, kind).items():
            assert getattr(old, kind).get(key) != value
        assert not set(remove.get(kind, ())) & getattr(new, kind).keys()


@given(sets)
def test_no_change_is_empty(objects):
    assert is_empty(*difference(objects, Objects(**dict(objects))))


@given(sets, sets)
def test_a_difference_survives_the_wire(old, new):
    put, _ = difference(old, new)
    assert Objects.model_validate_json(put.encode()) == put


# Mappings that share their parts.

parts = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2))
layered = st.builds(
    # A key has the name of its layer, as a service's has its network's.
    lambda found: Layers({n: {n + k: v for k, v in d.items()} for n, d in found.items()}),
    st.dictionaries(st.sampled_from("xyz"), parts),
)
hiding = st.builds(Without, parts, st.sampled_from("abcd"))


@given(st.one_of(st.tuples(layered, layered), st.tuples(hiding, hiding), st.tuples(parts, parts)))
def test_shared_mappings_change_as_dictionaries_do(pair):
    old, new = pair
    assert changes(old, new) == changes(dict(old), dict(new))
    assert len(new) == len(dict(new)) == len(list(new))
    assert plain(new) == {key: new[key] for key in new}
    assert all(key in new and new.get(key) == value for key, value in new.items())
    assert "none" not in new


def test_a_layer_that_is_the_very_same_is_not_looked_at():
    class Unread(dict):
        def items(self):
            raise AssertionError("law: what did not change is not walked along")

        __iter__ = items

    same = Unread(a=1)
    old, new = Layers({"x": same, "y": {"b": 1}}), Layers({"x": same, "y": {"b": 2}})
    assert changes(old, new) == ({"b": 2}, [])
    assert changes(Without(same, "a"), Without(same, "a")) == ({}, [])


# Their JSON.


@given(sets, st.sampled_from([None, 3]), st.booleans())
def test_what_many_get_is_spelled_once_and_says_the_same(objects, base, gone):
    spelled = Spelled(room=40)  # hardly anything is kept: both generations turn over
    told = Instructions(
        stamp=Stamp(cluster="c", epoch=1, generation=4),
        me=NodeSelf(node="n", name='na"me'),
        base=base,
        put=objects,
        remove={"peers": ("a",)} if gone else {},
        protocol=2,
        revision=9,
    )
    for _ in range(3):
        assert json.loads(spell(told, spelled)) == json.loads(told.encode())
    assert Instructions.model_validate_json(spell(told, spelled)) == told


def test_a_secret_is_not_kept_open():
    spelled = Spelled()
    secret = Content(id="i", data="c2VjcmV0", secret=True)
    told = Instructions(
        stamp=Stamp(cluster="c", epoch=1),
        me=NodeSelf(node="n", name="n"),
        put=Objects(
            contents={"i": secret}, peers={"p": Peer(node="p", name="p", underlay="", overlay="")}
        ),
    )
    assert b"c2VjcmV0" in spell(told, spelled)
    kept = [data for _, data in (*spelled._new.values(), *spelled._old.values())]
    assert len(kept) == 1
    assert b"c2VjcmV0" not in b"".join(kept)


@given(sets)
def test_a_whole_set_is_of_dictionaries(objects):
    shared = objects.model_copy(update={"peers": Without({**objects.peers, "me": None}, "me")})
    assert whole(shared) == objects
    assert type(whole(shared).peers) is dict
