"""`corral upgrade` as the controller drives it, over fake machines in virtual time.

Each case: what was touched, what is said, how it ends; and that nothing goes on after a node
did not come up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.errors import Conflict, Unavailable
from orchestrator.nodes.bootstrap.bundle import Package
from orchestrator.nodes.bootstrap.remote import StepFailed
from orchestrator.nodes.bootstrap.upgrade import Upgrades
from specs.api import Upgrade
from specs.node import NodeCondition, NodeFacts
from tests.fakes.simulator import LoopClock
from tests.orchestrator.test_node_check import END, GOOD
from tests.orchestrator.test_upgrading import a_cluster, a_node, a_task

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]
OLD, NEW = "0.1.0", "0.2.0"


@dataclass
class FakeNodes:
    """Nodes by name: what happens on each when it is told to change over."""

    names: tuple[str, ...] = ("n2", "n3")
    closed: dict[str, str] = field(default_factory=dict)  # nobody lets us in: why
    unfit: tuple[str, ...] = ()
    full: tuple[str, ...] = ()  # the archive does not fit
    broken: dict[str, str] = field(default_factory=dict)  # goes back: why
    cut: dict[str, bool] = field(default_factory=dict)  # SSH is lost: does it become new?
    mute: tuple[str, ...] = ()  # comes up there, but not for us
    killed: tuple[str, ...] = ()  # its own work is killed there
    packed: str = NEW
    stuck: tuple[str, ...] = ()  # answers as before, whatever is in place
    running: int = 1

    def __post_init__(self):
        nodes = [a_node(name, OLD, address=f"root@{name}") for name in self.names]
        tasks = [a_task(i, name) for i, name in enumerate(self.names)]
        self.cluster = a_cluster(a_node("n1", NEW), *nodes, tasks=tasks)
        self.cluster.ranges = ("10.210.0.0/16",)
        self.log = []
        self.requests = []
        self.inside = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    def upgrades(self):
        def pack(_folder):
            return Package(f"{self.packed}-abc", Path("/nowhere"), "d" * 64, "3.11", "x86_64", None)

        return Upgrades(
            cluster=self.cluster, cluster_id="c-ours", public_key="key", folder=Path("/f"),
            clock=LoopClock(), pack=pack, login=self.login, version=NEW,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def login(self, address, *, host_key, identity):
        name = address.host
        if name in self.closed:
            raise Unavailable(f"{address}: {self.closed[name]}", hint="is it on?")
        yield FakeRemote(self, name)

    def has(self, name, version, build=""):
        node = self.cluster.nodes[f"n-{name}"]
        facts = NodeFacts(agent_version=version, build=build)
        self.cluster.nodes[node.id] = node.with_facts(facts)

    def heard(self, name, status, reason=""):
        self.cluster.conditions[f"n-{name}"] = NodeCondition(status=status, reason=reason)

    def versions(self):
        return {n.name: n.facts.agent_version for n in self.cluster.nodes.values()}


@dataclass
class FakeRemote:
    nodes: FakeNodes
    name: str

    async def must(self, what, script, *arguments, stdin=b"", timeout=60.0):
        nodes, name = self.nodes, self.name
        if what == "looking around":
            text = GOOD + 'member\t{"cluster": "c-ours", "node": "n-1"}\n'
            return (text.replace("tool\tconmon\n", "") if name in nodes.unfit else text) + END
        nodes.log.append((name, what.partition(" 0.")[0]))
        if what.startswith("sending"):
            if name in nodes.full:
                raise StepFailed(f"{what}: No space left on device", "No space left on device")
            return ""
        return await self.change_over(stdin) if what == "changing over" else ""

    async def change_over(self, stdin):
        nodes, name = self.nodes, self.name
        request = json.loads(stdin)
        nodes.requests.append((name, request))
        nodes.inside.set()
        await nodes.go_on.wait()
        await asyncio.sleep(5.0)
        if request["back"]:
            nodes.has(name, OLD)
            return json.dumps({"ok": True, "message": ""})
        if name in nodes.broken:
            return json.dumps({"ok": False, "was": OLD, "back": True, "kept": nodes.running,
                               "message": nodes.broken[name], "log": ["Traceback"]})  # fmt: skip
        if name in nodes.cut:
            nodes.heard(name, "down", "no answer in time")
            if nodes.cut[name]:
                asyncio.get_running_loop().call_later(30.0, self.comes_up)
            else:
                asyncio.get_running_loop().call_later(30.0, nodes.heard, name, "ready")
            raise StepFailed("the SSH connection was lost: reset")
        if name in nodes.killed:
            raise StepFailed("changing over: exit code -9", code=-9)
        if name in nodes.mute:
            nodes.heard(name, "unknown", "agent not answering, host reachable (500)")
        else:
            self.comes_up()
        return json.dumps({"ok": True, "was": OLD, "kept": nodes.running, "message": ""})

    def comes_up(self):
        build = f"{NEW}-old" if self.name in self.nodes.stuck else f"{NEW}-abc"
        self.nodes.has(self.name, NEW, build)
        self.nodes.heard(self.name, "ready")


async def run(machines, upgrades=None, **request):
    lines = upgrades or machines.upgrades()
    asked = Upgrade(**request)
    return [line async for line in lines.run(asked, frozenset(asked.nodes))]


def said(lines):
    return [line.message for line in lines]


async def test_one_after_the_other_each_heard_before_the_next():
    nodes = FakeNodes()
    lines = await run(nodes)
    assert lines[-1].ok
    assert said(lines)[-1] == "2 agents upgraded: all have 0.2.0"
    assert f"n2: {NEW} (was {OLD}); 1 container kept running" in said(lines)
    assert said(lines)[0] == f"n1: {NEW} already"
    assert [name for name, what in nodes.log if what == "changing over"] == ["n2", "n3"]
    assert nodes.log.index(("n2", "changing over")) < nodes.log.index(("n3", "sending agent"))
    assert nodes.requests[0][1]["told"] == {"t0": ["s-web-0", 100]}
    again = await run(nodes)
    assert said(again)[-1] == "nothing to do: all have 0.2.0"


async def test_other_code_under_the_same_version_is_sent_and_waited_for():
    nodes = FakeNodes()
    for name in nodes.names:
        nodes.has(name, NEW, f"{NEW}-old")
    dry = await run(nodes, dry_run=True)
    assert f"another build of {NEW}: {NEW}-old -> {NEW}-abc" in said(dry)[1]
    lines = await run(nodes)
    assert said(lines)[-1] == f"2 agents upgraded: all have {NEW}"
    assert {n.facts.build for n in nodes.cluster.nodes.values()} == {"", f"{NEW}-abc"}
    assert said(await run(nodes))[-1] == f"nothing to do: all have {NEW}"


async def test_an_agent_that_answers_as_the_former_build_is_taken_back():
    nodes = FakeNodes(names=("n2",), stuck=("n2",))
    nodes.has("n2", NEW, f"{NEW}-old")
    lines = await run(nodes)
    assert not lines[-1].ok
    assert f"it still answers as {NEW}-old" in said(lines)[-1]
    assert nodes.requests[-1][1]["back"]


async def test_dry_run_touches_nothing():
    nodes = FakeNodes()
    lines = await run(nodes, dry_run=True)
    assert lines[-1].ok
    assert "its agent would be restarted, 1 container that runs stays" in said(lines)[1]
    assert not nodes.log
    nodes.heard("n3", "down", "no answer in time")
    lines = await run(nodes, dry_run=True)
    assert not lines[-1].ok
    assert "not reached now (no answer in time)" in said(lines)[2]


async def test_only_the_nodes_that_are_named():
    nodes = FakeNodes()
    lines = await run(nodes, nodes=("n3",))
    assert lines[-1].ok
    assert nodes.versions() == {"n1": NEW, "n2": OLD, "n3": NEW}


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"closed": {"n2": "no route to host"}}, "n2: skipped: root@n2: no route to host"),
        ({"unfit": ("n2",)}, "n2: skipped: missing on this machine: conmon"),
        ({"full": ("n2",)}, "No space left on device"),
    ],
)
async def test_a_node_that_cannot_be_begun_with_is_named_and_the_others_are_done(fault, says):
    nodes = FakeNodes(**fault)
    lines = await run(nodes)
    assert any(line.kind == "warning" and says in line.message for line in lines), said(lines)
    assert lines[-1].ok is False
    assert lines[-1].message == "not upgraded: n2"
    assert nodes.versions() == {"n1": NEW, "n2": OLD, "n3": NEW}
    assert ("n2", "changing over") not in nodes.log


async def test_a_new_agent_that_is_no_good_stops_before_the_next_node():
    nodes = FakeNodes(broken={"n2": "it ends as soon as it starts"})
    lines = await run(nodes)
    assert lines[-1].ok is False
    assert lines[-1].message == (
        "n2: the new agent is no good: it ends as soon as it starts; 0.1.0 is in place again;"
        " not touched: n3"
    )
    assert lines[-1].log_tail == ("Traceback",)
    assert not any(name == "n3" for name, _ in nodes.log)


async def test_one_that_answers_there_but_not_us_is_taken_back():
    nodes = FakeNodes(mute=("n2",))
    lines = await run(nodes)
    assert "answers there, but not us: agent not answering" in lines[-1].message
    assert "the former one is in place again; not touched: n3" in lines[-1].message
    assert [request["back"] for _, request in nodes.requests] == [False, True]
    assert nodes.versions()["n2"] == OLD


async def test_a_lost_connection_is_waited_out():
    nodes = FakeNodes(cut={"n2": True})
    lines = await run(nodes)
    assert lines[-1].ok, said(lines)
    assert nodes.versions() == {"n1": NEW, "n2": NEW, "n3": NEW}


async def test_a_lost_connection_to_one_that_went_back_is_told_at_the_deadline():
    nodes = FakeNodes(cut={"n2": False})
    lines = await run(nodes)
    assert lines[-1].ok is False
    assert "the SSH connection was lost" in lines[-1].message
    assert "0.1.0 is in place again; not touched: n3" in lines[-1].message


async def test_work_that_was_killed_on_a_node_is_not_waited_for_as_long():
    nodes = FakeNodes(killed=("n2",))
    began = asyncio.get_running_loop().time()
    lines = await run(nodes)
    assert lines[-1].ok is False
    assert "exit code -9; it still answers as 0.1.0" in lines[-1].message
    assert asyncio.get_running_loop().time() - began < 100


async def test_a_second_one_at_once_is_refused_by_name():
    nodes = FakeNodes()
    nodes.go_on.clear()
    upgrades = nodes.upgrades()
    first = asyncio.create_task(run(nodes, upgrades))
    await nodes.inside.wait()
    with pytest.raises(Conflict, match="another corral upgrade is under way: it is at node n2"):
        await run(nodes, upgrades)
    assert (await run(nodes, upgrades, dry_run=True))[-1].ok, "asking is free"
    nodes.go_on.set()
    assert (await first)[-1].ok


async def test_interrupted_it_touches_no_further_node_and_goes_on_when_asked_again():
    nodes = FakeNodes()
    nodes.go_on.clear()
    upgrades = nodes.upgrades()
    first = asyncio.create_task(run(nodes, upgrades))
    await nodes.inside.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    # The node goes on by itself.
    FakeRemote(nodes, "n2").comes_up()
    nodes.go_on.set()
    await asyncio.sleep(60)
    assert nodes.versions() == {"n1": NEW, "n2": NEW, "n3": OLD}
    lines = await run(nodes, upgrades)
    assert said(lines)[-1] == "1 agent upgraded: all have 0.2.0"


async def test_a_controller_whose_installation_was_changed_sends_nothing():
    nodes = FakeNodes(packed="0.3.0")
    lines = await run(nodes)
    assert any("0.3.0 is installed on its machine now" in message for message in said(lines))
    assert not nodes.log


async def test_nodes_of_a_controller_that_was_just_started_are_waited_for():
    nodes = FakeNodes()
    for name in ("n1", "n2", "n3"):
        nodes.heard(name, "unknown", "not heard from yet")
    loop = asyncio.get_running_loop()
    loop.call_later(3.0, nodes.heard, "n1", "ready")
    loop.call_later(4.0, nodes.heard, "n2", "ready")
    loop.call_later(5.0, nodes.heard, "n3", "ready")
    assert (await run(nodes))[-1].ok
