"""The dependency graph as tables."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.control.mirror.dependencies import Cycle, Dependencies
from specs.stack import Dependency, ServiceSpec, StackSpec, TaskSpec


def spec(**edges: str) -> StackSpec:
    return StackSpec(
        name="app",
        services={
            name: ServiceSpec(
                name=name,
                task=TaskSpec(image="i"),
                depends_on={other: Dependency() for other in others.split()},
            )
            for name, others in edges.items()
        },
    )


GUESTBOOK = spec(redis="", migrate="redis", web="migrate redis", nginx="web", log="")


def test_generations_are_as_parallel_as_can_be():
    assert Dependencies(GUESTBOOK).generations == (
        ("log", "redis"),
        ("migrate",),
        ("web",),
        ("nginx",),
    )


def test_a_service_may_stop_when_all_that_depend_on_it_are_gone():
    graph = Dependencies(GUESTBOOK)
    assert graph.may_stop("nginx", lambda _: False)
    assert not graph.may_stop("redis", {"migrate"}.__contains__)
    assert graph.may_stop("redis", {"migrate", "web", "nginx"}.__contains__)


def test_closure_and_dependents():
    graph = Dependencies(GUESTBOOK)
    assert graph.closure(["web"]) == {"web", "migrate", "redis"}
    assert graph.all_dependents(["migrate"]) == {"web", "nginx"}
    assert graph.all_dependents(["unknown"]) == set()


def test_a_ring_is_named_in_the_order_people_read_it():
    with pytest.raises(Cycle) as caught:
        Dependencies(spec(a="b", b="c", c="a", d=""))
    path = caught.value.path
    assert path[0] == path[-1]
    assert set(path) == {"a", "b", "c"}
    needs = {"a": "b", "b": "c", "c": "a"}
    assert all(needs[left] == right for left, right in itertools.pairwise(path))


def test_an_edge_to_nobody_is_no_edge():
    assert Dependencies(spec(a="ghost")).order == ("a",)
