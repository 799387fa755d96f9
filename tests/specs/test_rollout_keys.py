"""``x-corral`` keys of how a service is updated: what they mean, and what does not go with them."""

import pytest

from specs.compile.stack import compile_stack
from specs.problems import SpecError
from specs.stack import Canary


def rollouts_of(body):
    web = {"image": "i:1", **body}
    return {"name": "app", "services": {"web": web}, "networks": {}, "volumes": {"data": {}}}


ONCE = [
    ({"ports": [{"target": 80, "published": "80", "mode": "host"}]}, "services.web.ports[0]"),
    ({"networks": {"n": {"ipv4_address": "10.0.0.9"}}}, "services.web.networks.n.ipv4_address"),
    ({"deploy": {"mode": "global-job"}}, "services.web.deploy.mode"),
    ({"network_mode": "host"}, "services.web.network_mode"),
    (
        {"volumes": [{"type": "volume", "source": "data", "target": "/d"}]},
        "services.web.volumes[0]",
    ),
    ({"volumes": [{"type": "bind", "source": "/srv", "target": "/d"}]}, "services.web.volumes[0]"),
    ({"x-corral": {"exclusive": True}}, "services.web.x-corral.exclusive"),
]


@pytest.mark.parametrize("way", [{"canary": {}}, {"update": "blue-green"}], ids=str)
@pytest.mark.parametrize(("body", "path"), ONCE, ids=[path for _, path in ONCE])
def test_what_there_can_be_only_once_has_nothing_beside_it(way, body, path):
    extension = {**body.get("x-corral", {}), **way}
    with pytest.raises(SpecError) as caught:
        compile_stack(rollouts_of({**body, "x-corral": extension}), {}, "app")
    (problem,) = [p for p in caught.value.problems if p.path == path]
    assert "new tasks beside the old ones, and" in problem.message
    assert f"or leave out services.web.x-corral.{next(iter(way))}" in problem.hint


@pytest.mark.parametrize(
    "body",
    [
        {"volumes": [{"type": "volume", "source": "data", "target": "/d", "read_only": True}]},
        {
            "volumes": [{"type": "volume", "source": "data", "target": "/d"}],
            "deploy": {"replicas": 2},
        },
        {"volumes": [{"type": "tmpfs", "target": "/d"}]},
        {"ports": [{"target": 80, "published": "80"}]},
    ],
    ids=["only read", "shared by replicas", "memory", "published everywhere"],
)
def test_what_two_may_have_has_a_canary_beside_it(body):
    spec, _ = compile_stack(rollouts_of({**body, "x-corral": {"canary": {}}}), {}, "app")
    assert spec.services["web"].update.canary == Canary()


CANARIES = [
    ({"replicas": 2}, Canary(replicas=2)),
    ({"weight": "10%"}, Canary(weight=10)),
    ({"weight": 25, "replicas": 2}, Canary(weight=25, replicas=2)),
    ({"promote": "manual"}, Canary()),
    ({"promote": "after 10m"}, Canary(promote="after", seconds=600.0)),
    ({"promote": "healthy-for 1m30s"}, Canary(promote="healthy", seconds=90.0)),
]


@pytest.mark.parametrize(("written", "meant"), CANARIES, ids=str)
def test_a_canary_is_read(written, meant):
    spec, _ = compile_stack(rollouts_of({"x-corral": {"canary": written}}), {}, "app")
    assert spec.services["web"].update.canary == meant


@pytest.mark.parametrize(
    ("written", "path", "words"),
    [
        (3, "", "3 is no canary"),
        ({"replicas": 0}, ".replicas", "0 is no count"),
        ({"replicas": "two"}, ".replicas", "'two' is no count"),
        ({"promote": "later"}, ".promote", "'later' says no time"),
        ({"promote": "after"}, ".promote", "'after' says no time"),
        ({"promote": "after soon"}, ".promote", "'after soon' says no time"),
        ({"weight": "0%"}, ".weight", "'0%' is no share"),
        ({"weight": 100}, ".weight", "100 is no share"),
        ({"weight": "much"}, ".weight", "'much' is no share"),
        ({"many": 1}, ".many", "unknown setting `many`"),
    ],
    ids=str,
)
def test_a_canary_that_makes_no_sense_is_refused(written, path, words):
    with pytest.raises(SpecError) as caught:
        compile_stack(rollouts_of({"x-corral": {"canary": written}}), {}, "app")
    (problem,) = caught.value.problems
    assert (problem.path, words in problem.message) == (f"services.web.x-corral.canary{path}", True)


BLUE_GREEN = [
    ({"update": "blue-green"}, (True, 600.0)),
    ({"update": "blue-green", "keep_old": "1m30s"}, (True, 90.0)),
    ({"update": "rolling"}, (False, 600.0)),
    ({}, (False, 600.0)),
]


@pytest.mark.parametrize(("written", "meant"), BLUE_GREEN, ids=str)
def test_a_blue_green_update_is_read(written, meant):
    spec, _ = compile_stack(rollouts_of({"x-corral": written}), {}, "app")
    update = spec.services["web"].update
    assert (update.blue_green, update.keep_old) == meant


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ({"update": "green"}, "update"),
        ({"keep_old": "10m"}, "keep_old"),
        ({"update": "blue-green", "keep_old": "soon"}, "keep_old"),
        ({"update": "blue-green", "canary": {}}, "canary"),
    ],
    ids=str,
)
def test_a_blue_green_update_that_makes_no_sense_is_refused(written, path):
    with pytest.raises(SpecError) as caught:
        compile_stack(rollouts_of({"x-corral": written}), {}, "app")
    assert [p.path for p in caught.value.problems] == [f"services.web.x-corral.{path}"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2m", {"db": 120.0, "cache": 120.0}),
        (30, {"db": 30.0, "cache": 30.0}),
        ({"db": "10s"}, {"db": 10.0, "cache": 0.0}),
        (None, {"db": 0.0, "cache": 0.0}),
    ],
    ids=str,
)
def test_how_long_a_service_waits_for_others(written, meant):
    others = {"db": {"condition": "service_started"}, "cache": {"condition": "service_started"}}
    project = rollouts_of({"depends_on": others, "x-corral": {"depends_deadline": written}})
    project["services"] |= {"db": {"image": "d"}, "cache": {"image": "c"}}
    spec, _ = compile_stack(project, {}, "app")
    found = {name: edge.deadline for name, edge in spec.services["web"].depends_on.items()}
    assert found == meant


@pytest.mark.parametrize(
    ("written", "path", "words"),
    [
        ("soon", "", "'soon' is not a duration"),
        ("0s", "", "'0s' is not a duration"),
        ({"db": "soon"}, ".db", "'soon' is not a duration"),
        ({"nope": "3s"}, ".nope", "it does not depend on nope"),
    ],
    ids=str,
)
def test_a_time_to_wait_that_makes_no_sense_is_refused(written, path, words):
    project = rollouts_of({"depends_on": {"db": {}}, "x-corral": {"depends_deadline": written}})
    project["services"]["db"] = {"image": "d"}
    with pytest.raises(SpecError) as caught:
        compile_stack(project, {}, "app")
    (problem,) = caught.value.problems
    assert problem.path == f"services.web.x-corral.depends_deadline{path}"
    assert words in problem.message


def test_who_depends_on_nothing_waits_for_nobody():
    with pytest.raises(SpecError) as caught:
        compile_stack(rollouts_of({"x-corral": {"depends_deadline": "2m"}}), {}, "app")
    assert "the service depends on nothing" in caught.value.problems[0].message


def test_who_chooses_by_name_knows_no_weight():
    body = {"deploy": {"endpoint_mode": "dnsrr"}, "x-corral": {"canary": {"weight": "10%"}}}
    with pytest.raises(SpecError) as caught:
        compile_stack(rollouts_of(body), {}, "app")
    (problem,) = caught.value.problems
    assert problem.path == "services.web.x-corral.canary.weight"
    assert "endpoint_mode dnsrr" in problem.message
