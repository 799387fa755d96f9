"""The agent's socket over SSH: many channels of one pinned connection, and what its loss means."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import aiohttp
import asyncssh
import pytest

from orchestrator.dispatch.agent import AgentClient
from orchestrator.errors import Unavailable
from orchestrator.lab.host import CHECKOUT
from orchestrator.nodes.bootstrap import clusterkey, install
from orchestrator.transport import ssh
from orchestrator.transport.ssh import SshTransport
from specs.node import Node

pytestmark = pytest.mark.real

STAND_IN = Path(__file__).parent / "stand_in"
SETUP = """
useradd --system --user-group -M --home-dir /var/lib/corral/ssh -s /bin/sh -p '*' corral
mkdir -p /var/lib/corral/ssh/.ssh
"""


@pytest.fixture
def node(lab, tmp_path):
    """A node on n2 with a stand-in agent behind sshd; the test itself is on n1."""
    host = lab.host("n2")
    key = clusterkey.load(tmp_path / "key")
    host.run(["sh", "-ec", SETUP])
    line = install.authorized_key(clusterkey.public(key))
    host.write("/var/lib/corral/ssh/.ssh/authorized_keys", line)
    start_agent(host)
    node = Node(id="n", name="n2", address=f"root@{host.address.ipv4}", host_key=host.host_key)
    with lab.host("n1").network():
        yield host, node, SshTransport(key)
    end_agent(host)
    # sshd still serves a login whose line was cut; userdel refuses a user who has a process.
    end_logins = "while pgrep -u corral; do kill -9 $(pgrep -u corral); sleep 0.05; done"
    host.run(["sh", "-c", f"{end_logins}; userdel corral && rm -rf /run/corral"], timeout=90)


def start_agent(host):
    start = f"{sys.executable} -m agent </dev/null >/dev/null 2>&1 &"
    # Its name is there before it listens, and before its group may connect.
    opened = '[ "$(stat -c %a.%G /run/corral/agent.sock 2>/dev/null)" = 660.corral ]'
    wait = f"until {opened}; do sleep 0.05; done"
    path = f"{STAND_IN}:{CHECKOUT}"
    host.run(
        ["setsid", "sh", "-c", f"{start} {wait}"],
        env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=90,
    )


def end_agent(host):
    # Ended, not only told to.
    gone = "while pgrep -f '[-]m agent' >/dev/null; do sleep 0.05; done"
    end = f"kill $(pgrep -f '[-]m agent') && {gone}; rm -f /run/corral/agent.sock"
    host.run(["sh", "-c", end], timeout=90)


def session(connector):
    return aiohttp.ClientSession("http://agent", connector=connector, connector_owner=False)


async def ends(answer):
    """Wait until the stream breaks off."""
    async with asyncio.timeout(60):
        with contextlib.suppress(aiohttp.ClientError):
            while await answer.content.readline():
                pass


async def test_a_hundred_channels_share_one_connection(node):
    host, member, transport = node

    async def follow(http):
        answer = await http.get("/v1/reports")
        assert await answer.content.readline() == b"{}\n"
        return answer

    async with transport.connect(member) as connector, session(connector) as http:
        async with asyncio.TaskGroup() as group:
            streams = [group.create_task(follow(http)) for _ in range(100)]
        # More than sshd's ten sessions, and others still get through.
        assert (await AgentClient(http, "n2").hello()).facts.hostname == "n2"
        logins = host.run(["pgrep", "-fc", "sshd: corral$"]).stdout.strip()
        assert logins == "1"
        for stream in streams:
            stream.result().close()


async def test_large_answers_arrive_whole_and_slow_readers_wait(node):
    _, member, transport = node
    size = 8 << 20
    async with (
        transport.connect(member) as connector,
        session(connector) as http,
        http.get("/blob", params={"size": size}) as answer,
    ):
        await asyncio.sleep(0.1)  # flow control, not memory, holds it back
        got = 0
        async for chunk in answer.content.iter_chunked(1 << 16):
            got += len(chunk)
    assert got == size


async def test_a_websocket_carries_bytes_both_ways(node):
    _, member, transport = node
    async with (
        transport.connect(member) as connector,
        session(connector) as http,
        http.ws_connect("/echo") as websocket,
    ):
        for size in (1, 70_000, 3):
            await websocket.send_bytes(b"x" * size)
            assert await websocket.receive_bytes() == b"x" * size


async def test_an_agent_that_is_down_is_unavailable_and_then_found_again(node):
    host, member, transport = node
    async with transport.connect(member) as connector, session(connector) as http:
        client = AgentClient(http, "n2")
        await client.hello()
        end_agent(host)
        with pytest.raises(Unavailable):
            await client.hello()
        start_agent(host)
        await client.hello()  # over the same SSH connection


async def test_a_lost_connection_fails_open_streams_at_once(node, monkeypatch):
    host, member, transport = node
    monkeypatch.setattr(ssh, "KEEPALIVE", 600.0)  # it is not what notices
    async with transport.connect(member) as connector, session(connector) as http:
        async with http.get("/v1/reports") as answer:
            await answer.content.readline()
            host.run(["sh", "-c", "kill $(pgrep -f 'sshd: corral$')"])
            await ends(answer)
        with pytest.raises(Unavailable):
            await AgentClient(http, "n2").hello()
    async with transport.connect(member) as connector, session(connector) as http:
        await AgentClient(http, "n2").hello()


async def test_a_cut_line_is_noticed_by_keepalive(node, lab, monkeypatch):
    _, member, transport = node
    monkeypatch.setattr(ssh, "KEEPALIVE", 1.0)  # three unanswered: of a busy machine's sshd, too
    async with (
        transport.connect(member) as connector,
        session(connector) as http,
        http.get("/v1/reports") as answer,
    ):
        await answer.content.readline()
        lab.cut("n2")
        await ends(answer)
    lab.heal("n2")


async def test_who_notices_a_cut_line_does_not_wait_for_its_goodbye(node, lab, monkeypatch):
    """Missing reports tell of it before keepalive does; others' streams are still open then."""
    _, member, transport = node
    monkeypatch.setattr(ssh, "KEEPALIVE", 600.0)
    async with (
        asyncio.timeout(60),
        transport.connect(member) as connector,
        session(connector) as http,
    ):
        somebodys = await http.get("/v1/reports")
        await somebodys.content.readline()
        reader = asyncio.create_task(ends(somebodys))
        await asyncio.sleep(0.1)
        lab.cut("n2")
    await reader  # law: whoever reads over it is told; a followed log waited for ever
    somebodys.close()
    lab.heal("n2")


async def test_the_host_key_is_checked_whatever_the_users_configuration_says(
    node, tmp_path, monkeypatch
):
    _, member, transport = node
    (tmp_path / ".ssh").mkdir()
    config = tmp_path / ".ssh/config"
    proxied = tmp_path / "proxied"
    config.write_text(
        "Host *\n  UserKnownHostsFile none\n  StrictHostKeyChecking no\n"
        f"  ProxyCommand touch {proxied}\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    changed = member.model_copy(update={"host_key": other})
    with pytest.raises(Unavailable, match="is not the pinned one"):
        async with transport.connect(changed):
            pass
    async with transport.connect(member):
        pass
    assert not proxied.exists()


async def test_unusable_records_are_named(node):
    _, member, transport = node
    with pytest.raises(Unavailable, match="pinned host key cannot be read"):
        async with transport.connect(member.model_copy(update={"host_key": ""})):
            pass
    with pytest.raises(Unavailable, match=r"is not reached|does not answer"):
        async with transport.connect(member.model_copy(update={"address": "root@10.77.0.12:23"})):
            pass
