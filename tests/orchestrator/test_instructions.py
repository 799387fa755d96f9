"""What is sent to a node takes it exactly to the wanted set, and is as small as it can be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.dispatch.instructions import difference, is_empty
from specs.wire import KINDS, Content, Objects, Peer

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
