"""`inspect`: any object by its name, with the keys scripts ask Docker for."""

from __future__ import annotations

import json

import pytest

from orchestrator.cli.commands import inspect
from specs.api import TaskMade
from specs.stack import (
    Healthcheck,
    Limits,
    Mount,
    NetworkAttachment,
    Port,
    Resources,
    RestartPolicy,
    TaskSpec,
)
from specs.states import TaskState
from specs.task import Run, Task, TaskStatus
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


MADE = TaskMade(
    task=Task(
        id="task1",
        stack="shop",
        service="web",
        slot=1,
        name="shop-web-1",
        release=1,
        spec_hash="h",
        status=TaskStatus(
            state=TaskState.RUNNING,
            command=("nginx", "-g", "x"),
            runs=(Run(number=1, pid=77, started_at=NOW - 9),),
        ),
    ),
    spec=TaskSpec(
        image="nginx",
        entrypoint=("nginx",),
        command=("-g", "x"),
        environment={"A": "b=c"},
        user="7:8",
        mounts=(
            Mount(type="volume", source="data", target="/data"),
            Mount(type="bind", source="/etc/app", target="/app", read_only=True),
            Mount(type="tmpfs", target="/run", tmpfs_options=("exec",)),
        ),
        networks=(NetworkAttachment(network="back"),),
        ports=(Port(target=80, published=8080, host_ip="127.0.0.1"),),
        healthcheck=Healthcheck(test=("CMD", "true"), interval=2.5),
        restart=RestartPolicy(condition="on-failure", max_attempts=3),
        resources=Resources(limits=Limits(cpus=0.5, memory=1 << 28)),
        cap_drop=("ALL",),
        read_only=True,
    ),
    volumes={"data": "shop_data"},
)


@pytest.fixture
def shop(fake):
    fake.on("GET", "/v1/tasks/task1/made", MADE.model_dump(mode="json"))
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
        ("{{range .Mounts}}{{.Type}} {{end}}", "volume bind tmpfs "),
        ("{{range .Mounts}}{{.Name}}{{end}}", "shop_data"),
        (
            "{{range .Mounts}}{{.Source}}:{{.Destination}}:{{.RW}} {{end}}",
            ":/data:true /etc/app:/app:false :/run:true ",
        ),
        (
            "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}",
            "on-failure:3",
        ),
        ("{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", "268435456 500000000"),
        ("{{json .HostConfig.Binds}}", '["shop_data:/data:rw","/etc/app:/app:ro"]'),
        ("{{.HostConfig.NetworkMode}} {{.HostConfig.ReadonlyRootfs}}", "back true"),
        (
            "{{json .HostConfig.PortBindings}}",
            '{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}]}',
        ),
        ("{{json .HostConfig.CapDrop}} {{json .HostConfig.CapAdd}}", '["ALL"] null'),
        ("{{json .Config.Env}} {{.Config.User}}", '["A=b=c"] 7:8'),
        ("{{json .Config.Cmd}} {{json .Config.Entrypoint}}", '["-g","x"] ["nginx"]'),
        ("{{.Path}} {{json .Args}} {{.State.Pid}}", 'nginx ["-g","x"] 77'),
        ("{{.Config.Healthcheck.Interval}}", "2500000000"),
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


def test_an_older_controller_is_asked_for_no_more_than_it_knows(shop, corral):
    shop.routes = [route for route in shop.routes if not route[1].match("/v1/tasks/task1/made")]
    (found,) = json.loads(corral("-p", "shop", "inspect", "web").out)
    assert found["HostConfig"] == {}
    assert [mount["Type"] for mount in found["Mounts"]] == ["volume", "bind"]
    assert found["Config"]["Cmd"] == ["nginx -g x"]


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
