"""`inspect`: any object by its name, with the keys scripts ask Docker for."""

from __future__ import annotations

import json

import pytest

from orchestrator.cli.commands import inspect
from tests.orchestrator.cli.test_objects import network, volume
from tests.orchestrator.cli.test_reading import NOW, row

WEB = row(
    "web-1", "web", slot=1, id="task1", health="healthy", image_digest="sha256:aa", restarts=2,
    command="nginx -g x", started_at=NOW - 9, labels={"team": "a"}, mounts=["data", "/etc/app"],
    ports=["0.0.0.0:8080->80/tcp", "443/tcp"], network_ids=["net1"], addresses=["10.210.0.2"],
)  # fmt: skip
JOB = row(
    "job-1",
    "job",
    slot=1,
    id="task2",
    state="failed",
    health="none",
    exit_code=3,
    finished_at=NOW - 1,
)


@pytest.fixture
def shop(fake):
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": [WEB, JOB]})
    fake.on("GET", "/v1/tasks/(shop-web-1|task1)", lambda *_: {"id": "task1", "stack": "shop"})
    fake.on("GET", "/v1/networks", {"networks": [{**network("back"), "id": "net1"}]})
    fake.on("GET", "/v1/networks/back", network("back"))
    fake.on("GET", "/v1/volumes/data", volume("data"))
    fake.on("GET", "/v1/nodes/alpha", {"id": "n1", "name": "alpha", "status": "ready"})
    return fake


@pytest.mark.parametrize("word", ["web", "web-1", "shop-web-1", "task1", "shop_web_1"])
@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("{{.Id}} {{.Name}}", "task1 /shop-web-1"),
        ("{{.State.Status}} {{.State.Running}} {{.State.Health.Status}}", "running true healthy"),
        ("{{.RestartCount}} {{.Image}} {{.Node}}", "2 sha256:aa alpha"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "10.210.0.2"),
        ("{{.NetworkSettings.Networks.back.NetworkID}}", "net1"),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{json .Config.Labels}}", '{"team":"a"}'),
        ("{{range .Mounts}}{{.Type}} {{end}}", "volume bind "),
    ],
)
def test_what_scripts_ask_docker_for(shop, corral, word, form, says):
    done = corral("-p", "shop", "inspect", "-f", form, word)
    assert (done.code, done.out) == (0, f"{says}\n"), done.err


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"state": "failed", "exit_code": None}, 1),
        ({"state": "failed", "exit_code": 3}, 3),
        ({"state": "complete", "exit_code": 0}, 0),
        ({"state": "running", "exit_code": None}, 0),
    ],
)
def test_an_exit_code_nobody_knows_is_not_0(more, code):
    row = {"id": "t1", "started_at": 1.0, **more}
    assert inspect.as_docker(row, "shop", {})["State"]["ExitCode"] == code


def test_what_has_ended(shop, corral):
    (found,) = json.loads(corral("-p", "shop", "inspect", "job").out)
    state = found["State"]
    assert (state["Status"], state["Running"], state["ExitCode"]) == ("exited", False, 3)
    assert "Health" not in state
    assert found["corral"]["id"] == "task2"


def test_where_no_stack_is_near_a_whole_name_is_enough(shop, corral):
    assert corral("inspect", "-f", "{{.Project}}", "shop-web-1").out == "shop\n"
    assert corral("inspect", "web-1").code == 1


def test_other_objects_and_what_is_none(shop, corral):
    done = corral("inspect", "back", "data", "alpha", "nope")
    assert done.code == 1
    assert [one["Name"] for one in json.loads(done.out)] == ["back", "data", "alpha"]
    assert "there is no object nope" in done.err
    assert corral("inspect", "--type", "volume", "back").code == 1
    done = corral("inspect", "--type", "node", "nope")
    assert (done.code, json.loads(done.out)) == (1, [])
    assert "there is no node nope" in done.err
