"""A machine joins over a real sshd, and leaves as it was; everything that must be refused is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from subprocess import run

import asyncssh
import pytest

from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.nodes.bootstrap import bundle, clusterkey, hostkey, install
from orchestrator.nodes.bootstrap.join import Bootstrap
from orchestrator.transport.address import SshAddress
from orchestrator.transport.ssh import SshTransport, dial
from specs.api import AddNode, Progress
from specs.kit.clock import SystemClock
from specs.node import Node, NodeCondition
from tests import leaks

pytestmark = pytest.mark.real

# A process with a monitor's name and command line, which waits for ever.
MONITOR = r"""
mkdir -p /run/stand-in
mkfifo /run/stand-in/never
printf '#!/bin/sh\nread -r _ </run/stand-in/never\n' > /run/stand-in/conmon
chmod 755 /run/stand-in/conmon
setsid /run/stand-in/conmon --cid t1 --bundle /run/corral/agent/bundles/t1 --log-path none \
  </dev/null >/dev/null 2>&1 &
"""
STAND_IN = Path(__file__).parent / "stand_in" / "agent"


@dataclass
class FakeCluster:
    """Members and mirror in one: what Bootstrap asks of the controller."""

    nodes: dict[str, Node] = field(default_factory=dict)
    conditions: dict[str, NodeCondition] = field(default_factory=dict)
    transport: SshTransport | None = None
    ranges: tuple[str, ...] = ("10.210.0.0/16",)
    chosen: dict[str, str] = field(default_factory=dict)

    def find(self, name):
        for node in self.nodes.values():
            if node.name == name:
                return node
        raise NotFound(name)

    async def join(
        self, facts, *, name, address="", host_key="", underlay="", asked=False, labels=None,
        node_id="", replaces="",
    ):  # fmt: skip
        assert not replaces, "nobody here is replaced"
        node = Node(
            id=node_id or f"n-{name}", name=name, address=address, host_key=host_key,
            underlay=underlay, labels=labels or {}, facts=facts,
        )  # fmt: skip
        self.nodes[node.id] = node
        self.conditions[node.id] = NodeCondition(status="ready")
        return node

    async def remove(self, name, *, force):
        import aiohttp

        from orchestrator.dispatch.agent import AgentClient

        node = self.find(name)
        if not force:
            async with (
                self.transport.connect(node) as connector,
                aiohttp.ClientSession("http://agent", connector=connector) as http,
            ):
                await AgentClient(http, node.name).leave()
        else:
            yield Progress(kind="step", message="not cleaned up: it was not asked")
        del self.nodes[node.id]
        yield Progress(kind="end", ok=True)


@cache
def packed_once(folder):
    """Pack as a controller does, once in its life: looking at all files again costs seconds."""
    return bundle.build(folder, ["specs", STAND_IN])


class Controller:
    """A controller on ``host``, as far as adding nodes needs one."""

    def __init__(self, host, folder, *, cluster="c-ours"):
        self.host = host
        self.key = clusterkey.load(folder / "ssh_key")
        self.cluster = FakeCluster(transport=SshTransport(self.key))
        self.bootstrap = Bootstrap(
            members=self.cluster,
            cluster=self.cluster,
            cluster_id=cluster,
            key=self.key,
            transport=self.cluster.transport,
            folder=folder,
            clock=SystemClock(),
            pack=packed_once,
        )

    async def run(self, stream):
        async with asyncio.timeout(240):
            with self.host.network():
                return [line async for line in stream]

    async def add(self, target, *, identity, user="root", host_key="", **options):
        request = AddNode(
            address=f"{user}@{target.address.ipv4}",
            identity=str(identity),
            host_key=target.fingerprint if host_key == "" else host_key,
            **options,
        )
        return await self.run(self.bootstrap.add_node(request))

    async def rm(self, name, *, force=False):
        return await self.run(self.bootstrap.remove_node(name, force=force))


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """A folder in which the bundle is packed once for all tests."""
    return tmp_path_factory.mktemp("controller")


@pytest.fixture
def controller(lab, packed):
    return Controller(lab.host("n1"), packed)


def identity(lab):
    return lab.layout.key


def untouched(host, before):
    left = leaks.settled(lambda: leaks.of_host(host), before)
    assert not left, "\n".join(left)


async def test_a_machine_joins_and_leaves_as_it_was(lab, controller):
    n2 = lab.host("n2")
    before = leaks.of_host(n2)
    lines = await controller.add(n2, identity=identity(lab), labels={"zone": "a"})
    assert lines[-1].ok, lines
    node = controller.cluster.find("n2")
    assert (node.underlay, node.labels) == (n2.address.ipv4, {"zone": "a"})
    assert node.host_key.split()[:2] == n2.host_key.split()[:2]
    owner = n2.run(["stat", "-c", "%U:%G %a", "/run/corral/agent.sock"]).stdout.strip()
    assert owner == "root:corral 660"
    lines = await controller.rm("n2")
    assert [line.kind for line in lines] == ["step", "end"], lines
    untouched(n2, before)


async def test_the_agent_comes_back_when_killed_and_after_a_power_cut(lab, controller):
    n2 = lab.host("n2")
    before = leaks.of_host(n2)
    assert (await controller.add(n2, identity=identity(lab)))[-1].ok

    def agent():
        found = n2.run(["pgrep", "-f", "[-]m agent"], check=False).stdout.split()
        return found[0] if found else ""

    old = agent()
    n2.run(["kill", "-9", old])
    wait(lambda: agent() not in ("", old))
    n2.power_off()
    n2.boot()
    wait(lambda: n2.run(["test", "-S", "/run/corral/agent.sock"], check=False).returncode == 0)
    assert (await controller.rm("n2"))[-1].ok
    untouched(n2, before)


def wait(condition, timeout=60.0):
    import time

    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_an_unknown_host_key_is_asked_about(lab, controller):
    n2 = lab.host("n2")
    before = leaks.of_host(n2)
    with pytest.raises(hostkey.HostKeyUnknown) as caught:
        await controller.add(n2, identity=identity(lab), host_key=None)
    assert caught.value.fingerprint == n2.fingerprint
    assert caught.value.problems[0].message == n2.fingerprint
    untouched(n2, before)


async def test_a_wrong_host_key_is_refused_and_nothing_is_sent(lab, controller):
    n2, n3 = lab.host("n2"), lab.host("n3")
    # What those of the tests before say at their ends comes late.
    wait(lambda: not n2.run(["pgrep", "-f", "^sshd: [^/]"], check=False).stdout)
    before = len((n2.dir / "console").read_text())
    with pytest.raises(hostkey.HostKeyWrong, match="does not have the host key"):
        await controller.add(n2, identity=identity(lab), host_key=n3.fingerprint)

    def console():
        return (n2.dir / "console").read_text()[before:]

    wait(lambda: "Connection closed by 10.77.0.11" in console())  # it was asked, and got
    console = console()
    assert "Accepted" not in console
    assert "user" not in console  # not even a name


async def test_a_wrong_key_is_refused(lab, controller, tmp_path):
    n2 = lab.host("n2")
    before = leaks.of_host(n2)
    wrong = tmp_path / "wrong"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(wrong)
    end = (await controller.add(n2, identity=wrong))[-1]
    assert not end.ok
    assert "does not accept the key for user root" in end.message
    untouched(n2, before)


async def test_bad_identities_are_named(lab, controller, tmp_path):
    n2 = lab.host("n2")
    end = (await controller.add(n2, identity=tmp_path / "none"))[-1]
    assert not end.ok
    assert "cannot be read" in end.message
    locked = tmp_path / "locked"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)], check=True)
    end = (await controller.add(n2, identity=locked))[-1]
    assert not end.ok
    assert "passphrase" in end.message


async def test_a_machine_that_is_off_is_named(lab, controller):
    lab.power_off("n3")
    with pytest.raises(Exception, match=r"10\.77\.0\.13"):
        await controller.add(lab.host("n3"), identity=identity(lab))
    lab.power_on("n3")


def make_user(host, name, sudoers=""):
    host.run(["useradd", "-m", "-s", "/bin/sh", "-p", "*", name])
    script = 'cp -r /root/.ssh "/home/$1/.ssh" && chown -R "$1:" "/home/$1/.ssh"'
    host.run(["sh", "-ec", script, "sh", name])
    if sudoers:
        host.write(f"/etc/sudoers.d/{name}", f"{name} {sudoers}\n", 0o440)


def remove_user(host, name):
    host.run(["sh", "-ec", 'userdel -r "$1" 2>/dev/null; rm -f "/etc/sudoers.d/$1"', "sh", name])


async def test_a_login_with_sudo_works_and_one_without_is_refused(lab, controller):
    n2 = lab.host("n2")
    clean = leaks.of_host(n2)
    make_user(n2, "ops")
    before = leaks.of_host(n2)
    end = (await controller.add(n2, user="ops", identity=identity(lab)))[-1]
    assert not end.ok
    assert "cannot become root without a password" in end.message
    assert "NOPASSWD" in end.hint
    untouched(n2, before)
    n2.write("/etc/sudoers.d/ops", "ops ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    before = leaks.of_host(n2)
    lines = await controller.add(n2, user="ops", identity=identity(lab))
    assert lines[-1].ok, lines
    assert (await controller.rm("n2"))[-1].ok
    untouched(n2, before)
    remove_user(n2, "ops")
    untouched(n2, clean)


async def test_missing_tools_are_all_named_with_the_command(lab, controller):
    n2 = lab.host("n2")
    n2.run(["sh", "-ec", "mkdir /srv/away; mv /usr/bin/conmon /usr/bin/skopeo /srv/away"])
    before = leaks.of_host(n2)
    end = (await controller.add(n2, identity=identity(lab)))[-1]
    assert not end.ok
    assert "conmon, skopeo" in end.message
    assert "apt-get install -y conmon skopeo" in end.hint
    untouched(n2, before)
    n2.run(["sh", "-ec", "mv /srv/away/* /usr/bin; rmdir /srv/away"])


async def test_a_machine_without_the_right_python_is_refused(fresh_lab, packed):
    lab = fresh_lab(2)
    controller = Controller(lab.host("n1"), packed)
    n2 = lab.host("n2")
    n2.run(["sh", "-ec", "rm -f /usr/bin/python3* /usr/local/bin/python3*"])
    end = (await controller.add(n2, identity=identity(lab)))[-1]
    assert not end.ok
    assert "needs Python 3." in end.message
    assert n2.run(["ls", "/opt/corral"], check=False).returncode


async def test_a_node_of_another_cluster_is_refused(lab, controller, packed):
    n2 = lab.host("n2")
    other = Controller(lab.host("n3"), packed, cluster="c-theirs")
    assert (await other.add(n2, identity=identity(lab)))[-1].ok
    before = leaks.at_rest(lambda: leaks.of_host(n2))
    end = (await controller.add(n2, identity=identity(lab)))[-1]
    assert not end.ok
    assert "node of another cluster (c-theirs)" in end.message
    untouched(n2, before)
    n2.run(["kill", *n2.run(["pgrep", "-f", "[s]upervisor.py"]).stdout.split()])
    end = (await controller.add(n2, identity=identity(lab)))[-1]
    assert "node of another cluster (c-theirs)" in end.message
    n2.run(["/opt/corral/uninstall"])


async def test_a_forgotten_node_can_be_added_again(lab, controller):
    n2 = lab.host("n2")
    before = leaks.of_host(n2)
    assert (await controller.add(n2, identity=identity(lab)))[-1].ok
    assert (await controller.rm("n2", force=True))[-1].ok
    # A container's monitor outlives its agent: what it watches is not ended by the way.
    n2.run(["sh", "-ec", MONITOR])
    end = (await controller.add(n2, identity=identity(lab)))[-1]
    assert not end.ok
    assert "runs a container for this cluster, which does not know it any more" in end.message
    n2.run(["kill", *n2.run(["pgrep", "-f", "[s]upervisor.py"]).stdout.split()])
    async with asyncio.timeout(60):
        while n2.run(["pgrep", "-f", "[s]upervisor.py"], check=False).stdout:
            await asyncio.sleep(0.05)
    end = (await controller.add(n2, identity=identity(lab)))[-1]
    assert not end.ok
    assert "runs a container for this cluster" in end.message
    n2.run(["kill", *n2.run(["pgrep", "-x", "conmon"]).stdout.split()])
    async with asyncio.timeout(60):
        while n2.run(["pgrep", "-x", "conmon"], check=False).stdout:
            await asyncio.sleep(0.05)
    n2.run(["rm", "-r", "/run/stand-in"])
    lines = await controller.add(n2, identity=identity(lab))
    assert any("earlier membership" in line.message for line in lines)
    assert lines[-1].ok, lines
    assert (await controller.rm("n2"))[-1].ok
    untouched(n2, before)


async def test_uninstall_stays_and_says_what_does_while_something_of_ours_does(lab):
    n2 = lab.host("n2")
    before = leaks.of_host(n2)
    script = Path(install.__file__).with_name("uninstall.sh").read_text()
    n2.run(["mkdir", "-p", "/opt/corral"])
    n2.write(install.UNINSTALL, script, 0o755)
    # No agent was ever here, and the tool that would take the link away is missing.
    ip = n2.run(["sh", "-c", "readlink -f $(command -v ip)"]).stdout.strip()
    away = [
        "sh",
        "-ec",
        'ip link add cr-left type veth peer name cr-right; mv "$1" "$1.away"',
        "sh",
        ip,
    ]
    n2.run(away)
    done = n2.run([install.UNINSTALL], check=False, timeout=120)
    n2.run(["mv", f"{ip}.away", ip])
    assert done.returncode == 1
    assert "still on this machine:\n  link: cr-" in done.stderr
    n2.run([install.UNINSTALL], timeout=120)
    untouched(n2, before)


async def test_overlapping_addresses_are_refused(lab, controller):
    n2 = lab.host("n2")
    n2.run(["ip", "route", "add", "10.210.5.0/24", "dev", "eth0"])
    end = (await controller.add(n2, identity=identity(lab)))[-1]
    assert not end.ok
    assert "routes 10.210.5.0/24 to eth0" in end.message
    n2.run(["ip", "route", "del", "10.210.5.0/24"])
    end = (await controller.add(n2, identity=identity(lab), underlay="192.0.2.9"))[-1]
    assert "192.0.2.9 is not an address of this machine" in end.message


async def test_another_firewall_is_a_warning(lab, controller):
    n2 = lab.host("n2")
    rules = (
        "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }"
    )
    n2.run(["nft", "-f", "-"], stdin=rules + "\n")
    lines = await controller.add(n2, identity=identity(lab))
    assert lines[-1].ok, lines
    warned = [line.message for line in lines if line.kind == "warning"]
    assert any("table ip filter, hook forward" in text for text in warned), warned
    assert (await controller.rm("n2"))[-1].ok
    n2.run(["nft", "delete", "table", "ip", "filter"])


async def test_an_agent_that_does_not_start_leaves_nothing(lab, controller, packed, tmp_path):
    broken = tmp_path / "agent"
    broken.mkdir()
    (broken / "__init__.py").write_text("")
    (broken / "__main__.py").write_text("raise SystemExit('the dog ate it')\n")
    n2 = lab.host("n2")
    before = leaks.of_host(n2)
    controller.bootstrap._pack = lambda folder: bundle.build(folder, ["specs", broken])
    from orchestrator.nodes.bootstrap import join

    hello = controller.bootstrap._hello

    async def once_it_ended(*given):
        wait(lambda: "the dog ate it" in n2.run(["sh", "-c", install.LAST_WORDS]).stdout)
        return await hello(*given)

    controller.bootstrap._hello = once_it_ended
    old, join.ANSWER = join.ANSWER, 2.0
    try:
        end = (await controller.add(n2, identity=identity(lab)))[-1]
    finally:
        join.ANSWER = old
    assert not end.ok
    assert "the agent does not answer" in end.message
    assert any("the dog ate it" in line for line in end.log_tail), end
    untouched(n2, before)


async def test_a_cancelled_add_leaves_nothing(lab, controller):
    n2 = lab.host("n2")
    before = leaks.of_host(n2)
    request = AddNode(
        address=f"root@{n2.address.ipv4}", identity=str(identity(lab)), host_key=n2.fingerprint
    )

    async def begin_and_stop():
        async def follow():
            async for line in controller.bootstrap.add_node(request):
                if line.message.startswith("starting the agent"):
                    started.set()

        started = asyncio.Event()
        task = asyncio.create_task(follow())
        await started.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])

    with lab.host("n1").network():
        await begin_and_stop()
    untouched(n2, before)


FORBIDDEN = (
    ["ssh", "-T", "TARGET", "id"],
    ["ssh", "-T", "TARGET"],
    ["scp", "-O", "/etc/hostname", "TARGET:/tmp/x"],
    ["scp", "-s", "/etc/hostname", "TARGET:/tmp/x"],
    ["ssh", "-N", "-o", "ExitOnForwardFailure=yes", "-R", "2222:127.0.0.1:22", "TARGET"],
    ["ssh", "-N", "-o", "ExitOnForwardFailure=yes", "-R", "/tmp/x:127.0.0.1:22", "TARGET"],
    ["ssh", "-W", "127.0.0.1:22", "TARGET"],
)


async def test_what_a_joined_machine_lets_in_and_refuses(lab, controller):
    """Joining costs seconds, so one machine stands for all of it: each part is a law by itself."""
    n2 = lab.host("n2")
    assert (await controller.add(n2, identity=identity(lab)))[-1].ok
    node = controller.cluster.find("n2")
    await a_changed_host_key_is_a_hard_error(lab, controller, node)
    await the_same_machine_twice_is_refused_also_by_another_address(lab, controller)
    await the_clusters_key_opens_the_agents_socket_and_nothing_else(lab, controller)
    assert (await controller.rm("n2"))[-1].ok
    with lab.host("n1").network(), pytest.raises(Exception, match="does not accept the key"):
        await dial_once(controller, node)  # at once: the key is gone


async def dial_once(controller, node):
    async with controller.cluster.transport.connect(node):
        pass


async def a_changed_host_key_is_a_hard_error(lab, controller, node):
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    changed = node.model_copy(update={"host_key": other})
    with lab.host("n1").network(), pytest.raises(Exception, match="is not the pinned one"):
        await dial_once(controller, changed)


async def the_same_machine_twice_is_refused_also_by_another_address(lab, controller):
    n2 = lab.host("n2")
    with pytest.raises(Conflict, match="is already node n2"):
        await controller.add(n2, identity=identity(lab))
    request = AddNode(
        address=f"root@[{n2.address.ipv6}]", identity=str(identity(lab)), host_key=n2.fingerprint
    )
    end = (await controller.run(controller.bootstrap.add_node(request)))[-1]
    assert not end.ok
    assert "already a node of this cluster" in end.message
    with pytest.raises(Conflict, match="there is a node n2 already"):
        await controller.add(lab.host("n3"), identity=identity(lab), name="n2")


async def the_clusters_key_opens_the_agents_socket_and_nothing_else(lab, controller):
    n1, n2 = lab.host("n1"), lab.host("n2")
    n1.write("/tmp/key", controller.key.export_private_key(), 0o600)
    n1.write("/tmp/known", f"{n2.address.ipv4} {n2.host_key}\n")
    options = ["-F", "none", "-i", "/tmp/key", "-o", "UserKnownHostsFile=/tmp/known",
               "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]  # fmt: skip
    for arguments in FORBIDDEN:
        words = [w.replace("TARGET", f"corral@{n2.address.ipv4}") for w in arguments]
        done = n1.run([words[0], *options, *words[1:]], check=False, timeout=60)
        assert done.returncode != 0, done
        assert "Permission denied (publickey)" not in done.stderr, "the key was not tried"
        assert "uid=" not in done.stdout
        assert "SSH-2.0" not in done.stdout
        assert n2.run(["ls", "/tmp/x"], check=False).returncode
    with n1.network():
        await _try_channels(n2, controller.key)
    n1.run(["rm", "-f", "/tmp/key", "/tmp/known"])


async def _try_channels(host, key):
    address = SshAddress("corral", host.address.ipv4)
    async with dial(address, host_key=host.host_key, keys=[key], name="n2") as link:
        for place in (("127.0.0.1", 22), (host.address.ipv4, 22)):  # -L and -D
            with pytest.raises(asyncssh.ChannelOpenError):
                await link.open_connection(*place)
        with pytest.raises(asyncssh.ChannelOpenError):
            await link.open_unix_connection("/run/other.sock")
        with pytest.raises(asyncssh.ChannelListenError):
            await link.start_server(lambda *_: None, "127.0.0.1", 2222)  # -R
        with pytest.raises(asyncssh.ChannelListenError):
            await link.start_unix_server(lambda: None, "/tmp/x")  # -R with a socket
        _, writer = await link.open_unix_connection("/run/corral/agent.sock")
        writer.close()


async def test_requests_that_make_no_sense_are_refused(lab, controller):
    for address in ("", "root@", "root@a b", "-oProxyCommand=x@h", "root@h:0", "root@h:99999"):
        with pytest.raises(Invalid):
            await controller.run(controller.bootstrap.add_node(AddNode(address=address)))
    with pytest.raises(Invalid, match="fingerprint"):
        await controller.add(lab.host("n2"), identity=identity(lab), host_key="md5:aa")


async def test_key_options_are_what_the_design_says():
    assert install.KEY_OPTIONS.startswith(
        'restrict,port-forwarding,permitopen="[/run/corral/agent.sock]:*",'
    )
    assert install.KEY_OPTIONS.endswith('command="/bin/false"')
