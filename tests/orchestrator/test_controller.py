"""The controller as a whole: start, refusals to start, end, and being killed at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from orchestrator import controller
from orchestrator.config import ControllerConfig, from_environment
from orchestrator.errors import Conflict, Unavailable
from orchestrator.store.base import Damaged
from specs.wire import ExecRequest, LogLine, Stamp
from tests.fakes.agent import FakeAgent
from tests.fakes.simulator import Behaviour

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    # Whatever the machine of the tests has routes to.
    monkeypatch.setattr(controller, "machine_routes", list)
    return ControllerConfig(state_dir=tmp_path / "state", run_dir=tmp_path / "run")


@pytest.fixture
async def agent(config):
    async with FakeAgent(config.agent_socket, heartbeat=0.1) as agent:
        yield agent


@contextlib.asynccontextmanager
async def running(config, *, embedded=True):
    """The controller in this process; ended as by SIGTERM."""
    task = asyncio.create_task(controller.run(config, embedded=embedded))
    async with asyncio.timeout(300):
        while not config.socket.exists():
            if task.done():
                task.result()
            await asyncio.sleep(0.005)
    connector = aiohttp.UnixConnector(str(config.socket))
    async with aiohttp.ClientSession("http://corral", connector=connector) as http:
        yield Client(http)
    if not task.done():  # else the signal would be for the tests' own process
        os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(300):
        await task


@dataclass
class Client:
    http: aiohttp.ClientSession

    async def call(self, method, path, **more):
        async with self.http.request(method, path, **more) as answer:
            body = json.loads(await answer.read())
            assert answer.status == 200, body
            return body

    async def until(self, path, condition):
        async with asyncio.timeout(300):
            while not condition(found := await self.call("GET", path)):
                await asyncio.sleep(0.01)
        return found

    async def deploy(self, replicas, key="k"):
        project = {
            "name": "shop",
            "services": {"web": {"image": "nginx", "deploy": {"replicas": replicas}}},
        }
        return await self.call(
            "POST", "/v1/stacks/shop/releases", json={"key": key, "project": project}
        )


def all_ready(count):
    return lambda answer: [t["ready"] for t in answer["tasks"]] == [True] * count


def test_the_environment_says_where(tmp_path):
    found = from_environment({"CORRAL_STATE_DIR": str(tmp_path), "CORRAL_RUN_DIR": ""})
    assert found.database == tmp_path / "controller" / "state.db"
    assert found.socket == Path("/run/corral/controller.sock")


@pytest.mark.parametrize(
    ("name", "text", "right"),
    [
        ("CORRAL_HEARTBEAT", "", True),
        ("CORRAL_HEARTBEAT", "1", True),
        ("CORRAL_HEARTBEAT", "0.5", True),
        ("CORRAL_HEARTBEAT", "0.4", False),
        ("CORRAL_HEARTBEAT", "4", False),
        ("CORRAL_HEARTBEAT", "fast", False),
        ("CORRAL_HEARTBEAT", "nan", False),
        ("CORRAL_AGENT_PATIENCE", "0", True),
        ("CORRAL_AGENT_PATIENCE", "600", True),
        ("CORRAL_AGENT_PATIENCE", "-1", False),
        ("CORRAL_AGENT_PATIENCE", "inf", False),
    ],
)
def test_how_long_is_waited_is_read_or_refused_by_name(name, text, right):
    if right:
        from_environment({name: text})
    else:
        with pytest.raises(ValueError, match=f"{name} is a number of seconds.*, not '{text}'"):
            from_environment({name: text})


async def test_the_machines_agent_becomes_the_first_node(config, agent):
    async with running(config) as client:
        found = await client.until(
            "/v1/nodes", lambda a: [n["status"] for n in a["nodes"]] == ["ready"]
        )
        (node,) = found["nodes"]
        detail = await client.call("GET", f"/v1/nodes/{node['name']}")
        assert (node["name"], detail["overlay"], detail["underlay"]) == (
            "fake",
            "10.210.0.1",
            "192.0.2.1",
        )
        await agent.instructed(1)
        assert agent.stamp.epoch == 1
        known = len(agent.received)
    async with running(config) as client:
        again = await client.until("/v1/nodes", lambda a: a["nodes"][0]["status"] == "ready")
        assert [n["id"] for n in again["nodes"]] == [node["id"]]
        await agent.instructed(known + 1)
        assert agent.stamp.epoch == 2


async def test_it_waits_for_an_agent_that_comes_later(config):
    async with running(config) as client:
        assert (await client.call("GET", "/v1/nodes"))["nodes"] == []
        async with FakeAgent(config.agent_socket):
            await client.until("/v1/nodes", lambda a: a["nodes"] and a["nodes"][0]["name"])


async def test_from_deploy_to_down(config, agent):
    async with running(config) as client:
        row = await client.deploy(2)
        assert row["number"] == 1
        found = await client.until("/v1/stacks/shop/tasks", all_ready(2))
        assert {t["name"] for t in found["tasks"]} == {"shop-web-1", "shop-web-2"}
        await client.call("DELETE", "/v1/stacks/shop")
        await client.until("/v1/stacks", lambda a: a["stacks"] == [])
        async with asyncio.timeout(300):
            while agent.objects.tasks or agent.objects.networks:
                await asyncio.sleep(0.01)


async def test_logs_and_exec_reach_the_agent_and_come_back(config, agent):
    async with running(config) as client:
        await client.deploy(2)
        found = await client.until("/v1/stacks/shop/tasks", all_ready(2))
        first, second = (t["id"] for t in found["tasks"])
        await agent.log(first, LogLine(time=1.0, stream="stdout", line="one"))
        await agent.log(second, LogLine(time=2.0, stream="stderr", line="two"))
        async with client.http.get("/v1/stacks/shop/logs?follow=1") as answer:
            lines = [json.loads(await answer.content.readline()) for _ in range(2)]
            await agent.log(first, LogLine(time=3.0, stream="stdout", line="three"))
            lines.append(json.loads(await answer.content.readline()))
        assert [(line["name"], line["line"]) for line in lines] == [
            ("web-1", "one"),
            ("web-2", "two"),
            ("web-1", "three"),
        ]

        async with client.http.ws_connect("/v1/tasks/shop-web-1/exec") as websocket:
            await websocket.send_str(ExecRequest(command=("sh",), stdin=True).model_dump_json())
            assert (await websocket.receive()).data == b"\x01sh\n"
            await websocket.send_bytes(b"\x00hello")
            assert (await websocket.receive()).data == b"\x01HELLO"
            await websocket.send_bytes(b"\x00exit 7")
            assert json.loads((await websocket.receive()).data) == {"exit": 7}
        assert agent.exec_requests[0].command == ("sh",)


async def test_its_end_does_not_wait_for_readers(config, agent):
    async with running(config) as client:
        answer = await client.http.get("/v1/events")
    answer.close()


async def test_an_agent_that_restarts_is_taken_up_again(config, agent):
    async with running(config) as client:
        await client.deploy(2)
        before = await client.until("/v1/stacks/shop/tasks", all_ready(2))
        await agent.restart()
        await client.until("/v1/nodes", lambda a: a["nodes"][0]["status"] == "ready")
        after = await client.until("/v1/stacks/shop/tasks", all_ready(2))
        assert [t["id"] for t in after["tasks"]] == [t["id"] for t in before["tasks"]]


async def test_after_its_end_nothing_is_left_but_the_state(config, agent):
    async with running(config):
        pass
    assert sorted(p.name for p in config.run_dir.iterdir()) == ["agent.sock", "controller.lock"]
    assert sorted(p.name for p in config.folder.iterdir()) == ["key", "lock", "state.db"]
    assert config.folder.stat().st_mode & 0o777 == 0o700
    assert agent.socket.exists()


async def test_a_second_controller_is_refused_with_the_firsts_pid(config):
    async with running(config, embedded=False):
        with pytest.raises(Unavailable, match=f"pid {os.getpid()}") as refused:
            await controller.run(config, embedded=False)
        assert "controller stop" in refused.value.hint


async def test_a_machine_of_another_cluster_is_refused(config, agent):
    agent.stamp = Stamp(cluster="theirs", epoch=3)
    with pytest.raises(ExceptionGroup) as refused:
        await controller.run(config, embedded=True)
    (error,) = controller.leaves(refused.value)
    assert isinstance(error, Conflict)
    assert "another cluster (theirs)" in error.detail
    assert agent.received == []
    assert not config.socket.exists()


async def test_a_damaged_state_is_refused_and_left_alone(config):
    config.folder.mkdir(parents=True)
    config.database.write_bytes(b"x" * 5000)
    with pytest.raises(Damaged):
        await controller.run(config, embedded=False)
    assert config.database.read_bytes() == b"x" * 5000


async def test_a_state_without_its_key_is_refused(config):
    async with running(config, embedded=False):
        pass
    config.key.unlink()
    with pytest.raises(Unavailable, match="is missing"):
        await controller.run(config, embedded=False)
    assert not config.key.exists()


async def test_a_state_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    config = ControllerConfig(state_dir=tmp_path / "file" / "state", run_dir=tmp_path / "run")
    with pytest.raises(Unavailable, match="file"):
        await controller.run(config, embedded=False)


async def test_a_run_folder_too_deep_for_a_socket_is_said(tmp_path):
    config = ControllerConfig(state_dir=tmp_path / "state", run_dir=tmp_path / ("x" * 100))
    with pytest.raises(Unavailable, match="too long") as refused:
        await controller.run(config, embedded=False)
    assert "CORRAL_RUN_DIR" in refused.value.hint


async def test_systemd_is_told(config, monkeypatch, tmp_path):
    path = tmp_path / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(300)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        said = []

        def listen():  # all the time: the kernel keeps ten words, then who speaks waits
            while b"STOPPING=1" not in said:
                said.append(listener.recv(100))

        listening = asyncio.create_task(asyncio.to_thread(listen))
        async with running(config, embedded=False):
            pass
        await listening
    assert said[0] == b"WATCHDOG=1", "it beats from the start, however long that takes"
    assert [word for word in said if word != b"WATCHDOG=1"] == [b"READY=1", b"STOPPING=1"]


# The process itself.


WATCH_IMPORTS = """\
import asyncio.events, os, sys, threading
class Watch:
    def find_spec(self, name, path=None, target=None):
        main = threading.current_thread() is threading.main_thread()
        if main and asyncio.events._get_running_loop() is not None:
            with open(os.environ["IMPORTS"], "a") as file:
                print(name, file=file)
sys.meta_path.insert(0, Watch())
"""


class Process:
    """``python -m orchestrator --embedded`` as a child that notes what its loop imports."""

    def __init__(self, config):
        self.config = config
        self.site = config.run_dir / "site"
        self.site.mkdir()
        (self.site / "sitecustomize.py").write_text(WATCH_IMPORTS)

    def imported(self):
        path = self.site / "imports"
        return path.read_text().split() if path.exists() else []

    async def start(self):
        self.child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "orchestrator", "--embedded",
            env={
                **os.environ,
                "CORRAL_STATE_DIR": str(self.config.state_dir),
                "CORRAL_RUN_DIR": str(self.config.run_dir),
                "PYTHONPATH": f"{ROOT}:{self.site}",
                "IMPORTS": str(self.site / "imports"),
            },
            cwd="/", stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(300):
            while not self.answers():
                assert self.child.returncode is None, await self.child.stderr.read()
                await asyncio.sleep(0.01)

    def answers(self):
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(self.config.socket)) == 0

    async def kill(self, number=signal.SIGKILL):
        self.child.send_signal(number)
        _, errors = await self.child.communicate()
        return self.child.returncode, errors.decode()

    @contextlib.asynccontextmanager
    async def client(self):
        connector = aiohttp.UnixConnector(str(self.config.socket))
        async with aiohttp.ClientSession("http://corral", connector=connector) as http:
            yield Client(http)


async def test_what_was_acknowledged_survives_being_killed_and_nothing_is_restarted(config, agent):
    process = Process(config)
    await process.start()
    async with process.client() as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        await client.deploy(3, key="one")
        before = await client.until("/v1/stacks/shop/tasks", all_ready(3))
        agent.behave("web", Behaviour(prepare=0.05, start=0.05))
        row = await client.deploy(5, key="two")
    await process.kill()  # the instant after the acknowledgement
    assert set(agent.objects.tasks) >= {t["id"] for t in before["tasks"]}

    await process.start()
    async with process.client() as client:
        again = await client.deploy(5, key="two")
        assert (row["number"], again["number"]) == (2, 2), "the same key is the same release"
        after = await client.until("/v1/stacks/shop/tasks", all_ready(5))
        assert {t["id"] for t in after["tasks"]} >= {t["id"] for t in before["tasks"]}
        version = await client.call("GET", "/v1/version")
        assert version["epoch"] == agent.stamp.epoch == 2
    removed = [keys for i in agent.received for keys in i.remove.get("tasks", ())]
    assert removed == []

    code, errors = await process.kill(signal.SIGTERM)
    assert code == 0
    assert "Traceback" not in errors
    told = [json.loads(line) for line in errors.splitlines()]
    # A turn of 30 ms may take 60 where four others share the processor's caches.
    assert [t for t in told if t["level"] != "info" and t["logger"] != "specs.kit.stalls"] == []


async def test_what_takes_long_to_load_is_loaded_beside_the_loop(config, agent):
    process = Process(config)
    await process.start()
    async with process.client() as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        await client.deploy(3, key="one")
        await client.until("/v1/stacks/shop/tasks", all_ready(3))
    await process.kill()
    await process.start()  # now there is a stack before anybody asks for one
    async with process.client() as client:
        await client.until("/v1/nodes", lambda a: a["nodes"][0]["status"] == "ready")
        await client.until("/v1/stacks/shop/tasks", all_ready(3))
    await process.kill(signal.SIGTERM)
    loaded = process.imported()
    assert len(loaded) < 30, loaded
    assert not {"networkx", "asyncssh"} & set(loaded)


async def test_a_refusal_to_start_is_one_sentence_and_a_hint(config):
    config.folder.mkdir(parents=True)
    config.database.write_bytes(b"")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "orchestrator",
        env={**os.environ, "CORRAL_STATE_DIR": str(config.state_dir),
             "CORRAL_RUN_DIR": str(config.run_dir), "PYTHONPATH": str(ROOT)},
        cwd="/", stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await child.communicate()
    assert child.returncode == controller.EXIT_REFUSED
    assert errors.decode().startswith(f"corral controller: {config.database} is empty")
    assert "Traceback" not in errors.decode()


def refused(number):
    def fails(*_, **__):
        raise OSError(number, os.strerror(number), "/x")

    return fails


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_lock_is_held_where_its_holder_cannot_be_written(config, monkeypatch, number):
    """A full /run kept a controller that was killed from coming up again."""
    with controller.locked(config.lock):
        pass
    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", refused(number))
        patched.setattr(os, "pwrite", refused(number))
        held, other = controller.locked(config.lock), controller.locked(config.lock)
        with held, pytest.raises(Unavailable, match="another controller"):
            other.__enter__()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refused(number))
        with pytest.raises(Unavailable, match="/controller") as caught:
            controller.locked(config.folder / "lock").__enter__()
    assert caught.value.hint == ""


def test_folders_that_are_right_are_not_touched(config, monkeypatch):
    controller.folders(config)
    monkeypatch.setattr(Path, "chmod", refused(errno.EROFS))
    controller.folders(config)
    config.folder.rmdir()
    monkeypatch.setattr(Path, "mkdir", refused(errno.EROFS))
    with pytest.raises(Unavailable, match="the file system is read-only"):
        controller.folders(config)
