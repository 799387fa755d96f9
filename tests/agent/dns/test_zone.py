"""Who may know which name, and what a change of services does to it."""

from hypothesis import given
from hypothesis import strategies as st

from agent.dns.zone import NameFound, Zones


def view(*networks, stack="shop", forward=True):
    return {"networks": list(networks), "stack": stack, "forward": forward, "upstreams": []}


def part(network, names, *, stack="shop", reverse=None):
    return {
        "network": network,
        "stack": stack,
        "names": {name: [list(addresses), 5] for name, addresses in names.items()},
        "reverse": reverse or {},
    }


def data(services, views, networks=("a", "b"), **more):
    return {
        "pools": ["10.210.0.0/16"],
        "networks": {key: f"shop_{key}" for key in networks},
        "views": views,
        "services": services,
        **more,
    }


def zones(services, views, **more):
    made = Zones()
    made.load(data(services, views, **more))
    return made


def test_a_name_exists_only_in_the_networks_of_the_task():
    made = zones({"s": part("a", {"web": ["10.0.0.1"]})}, {"in": view("a"), "out": view("b")})

    assert made.lookup("in", "web") == NameFound(("10.0.0.1",), 5)
    assert made.lookup("in", "web.shop_a") == NameFound(("10.0.0.1",), 5)
    assert made.lookup("out", "web") is None
    assert made.lookup("out", "web.shop_a") is None
    assert made.lookup("nobody", "web") is None
    assert made.is_secret("web")


def test_the_first_network_with_the_name_decides():
    services = {"s": part("a", {"web": ["10.0.0.1"]}), "t": part("b", {"web": ["10.0.1.1"]})}
    made = zones(services, {"ab": view("a", "b"), "ba": view("b", "a")})

    assert made.lookup("ab", "web") == NameFound(("10.0.0.1",), 5)
    assert made.lookup("ba", "web") == NameFound(("10.0.1.1",), 5)


def test_the_own_stacks_meaning_comes_first_on_a_shared_network():
    services = {
        "x": part("a", {"web": ["10.0.0.1"]}, stack="x"),
        "y": part("a", {"web": ["10.0.0.2"]}, stack="y"),
    }
    views = {s: view("a", stack=s) for s in ("x", "y", "z")}
    made = zones(services, views)

    assert made.lookup("x", "web") == NameFound(("10.0.0.1",), 5)
    assert made.lookup("y", "web") == NameFound(("10.0.0.2",), 5)
    assert made.lookup("z", "web") == NameFound(("10.0.0.1", "10.0.0.2"), 5)


def test_reverse_names_only_of_own_networks():
    made = zones(
        {"s": part("a", {"web": ["10.210.0.9"]}, reverse={"10.210.0.9": "web"})},
        {"in": view("a"), "out": view("b")},
    )

    assert made.reverse("in", "10.210.0.9") == "web.shop_a"
    assert made.reverse("out", "10.210.0.9") is None
    assert made.is_ours("10.210.0.9")
    assert not made.is_ours("192.0.2.1")


NAMES = st.sampled_from(["web", "db", "tasks.web", "x"])
PARTS = st.builds(
    part,
    st.sampled_from(["a", "b"]),
    st.dictionaries(NAMES, st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2"]), max_size=2)),
    stack=st.sampled_from(["shop", "other"]),
)
STATES = st.dictionaries(st.sampled_from(["s1", "s2", "s3"]), PARTS)


@given(STATES, STATES)
def test_changes_give_what_the_whole_would(before, after):
    views = {"t": view("a", "b")}
    changed = {
        key: after.get(key)
        for key in before.keys() | after.keys()
        if before.get(key) != after.get(key)
    }
    patched = zones(before, views)
    patched.load(data(changed, views, patch=True))
    whole = zones(after, views)

    for name in ("web", "db", "tasks.web", "x"):
        one, other = patched.lookup("t", name), whole.lookup("t", name)
        assert (one is None) == (other is None)
        assert one is None or set(one.addresses) == set(other.addresses)  # type: ignore[union-attr]
        assert patched.is_secret(name) == whole.is_secret(name)
