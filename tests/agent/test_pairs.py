"""Tasks that share namespaces of another one, on its node: what they take, and when they begin."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.runtime import bundle
from agent.runtime.containers import joined
from agent.runtime.failure import RuntimeFailure
from agent.tasks import pairs
from agent.tasks.record import Phase
from agent.vocabulary import BoundMount, ImageConfig, Process
from specs.stack import RestartPolicy
from tests.agent.test_lifecycle import task
from tests.agent.test_worker import Node

pytestmark = pytest.mark.looptime

ETC = {"/etc/hosts": "/t/web/hosts", "/etc/hostname": "/t/web/hostname"}
PRIVATE = ["pid", "ipc", "uts", "mount", "cgroup", "network"]


def config(netns="/run/netns/web", mounts=(), **keys):
    inputs = bundle.Inputs(
        assignment=task(**keys),
        image=ImageConfig(digest="sha256:1", command=("x",)),
        root="/r",
        user=bundle.User(),
        netns=netns,
        hostname="front",
        etc=ETC,
        mounts=mounts,
    )
    return bundle.build(inputs, bundle.NodeTraits(runtime="runc")).config


def namespaces(made):
    return {one["type"]: one.get("path", "") for one in made["linux"]["namespaces"]}


@pytest.mark.parametrize(
    ("keys", "netns"),
    [
        ({}, "/run/netns/web"),
        ({"network_mode": "none", "netns": "/run/netns/web"}, "/run/netns/web"),
        ({"network_mode": "host", "netns": None}, None),
        ({"network_mode": "partner", "netns": "/run/netns/first"}, "/run/netns/first"),
        ({"pid": "host", "ipc": "host"}, "/run/netns/web"),
    ],
)
def test_what_a_partner_lends_is_what_it_has(keys, netns):
    """Whatever its own network is; the one of a chain is the first one's."""
    lent = pairs.lent(config(**keys))
    assert (lent.netns, lent.hostname, lent.etc) == (netns, "front", ETC)


def test_who_is_in_the_network_of_the_node_has_its_name():
    lent = pairs.lent(config(uts="host"))
    assert lent.hostname


@pytest.mark.parametrize(
    ("keys", "sysctls"),
    [
        ({}, {"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"}),
        ({"network_mode": "partner"}, set()),
        ({"network_mode": "partner", "sysctls": {"kernel.sem": "1"}}, {"kernel.sem"}),
        ({"pid": "partner"}, {"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"}),
    ],
)
def test_nothing_is_set_in_a_network_of_somebody_else(keys, sysctls):
    made = config(**keys)
    assert set(made["linux"].get("sysctl", {})) == sysctls
    assert list(namespaces(made)) == PRIVATE


@pytest.mark.parametrize(
    ("keys", "paths"),
    [
        ({}, {}),
        ({"network_mode": "partner"}, {}),
        ({"pid": "partner"}, {"pid": "/proc/77/ns/pid"}),
        ({"pid": "partner", "network_mode": "partner"}, {"pid": "/proc/77/ns/pid"}),
        ({"pid": "host"}, {}),
    ],
)
def test_a_run_joins_what_its_partner_s_process_has(keys, paths):
    made = config(**keys)
    joined = pairs.joined(made, pairs.joins(task(**keys).spec), Process(pid=77, start=1))
    found = namespaces(joined)
    assert found == {**namespaces(made), **paths}
    assert "path" not in made["linux"]["namespaces"][0], "what was there is not changed"
    assert pairs.joined(joined, ("pid",), Process(pid=78, start=1)) == pairs.joined(
        made, ("pid",), Process(pid=78, start=1)
    )


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({}, None),  # the runtime's own, which nobody else can mount
        ({"ipc": "host"}, "/dev/shm"),
        ({"ipc": "shareable", "mounts": True}, "/run/shm/web"),
        ({"ipc": "partner", "mounts": True}, "/run/shm/web"),  # of a chain the first one's
    ],
)
def test_whose_shared_memory_is_mounted(keys, place):
    mounts = ()
    if keys.pop("mounts", False):
        mounts = (BoundMount("/run/shm/web", "/dev/shm", "bind", ("rbind", "rw")),)
    made = config(mounts=mounts, **keys)
    found = pairs.memory(made)
    assert (found.source if found else None) == place
    assert sum(mount["destination"] == "/dev/shm" for mount in made["mounts"]) == 1
    assert pairs.joins(task(**keys).spec) == (("ipc",) if keys.get("ipc") == "partner" else ())


# on a node


@pytest.fixture
async def node(tmp_path):
    made = Node(tmp_path)
    yield made
    if made.running is not None:
        await made.kill()


def web(**keys):
    return task(**keys).model_copy(update={"id": "web", "name": "s-web-1"})


def side(**keys):
    keys.setdefault("network_mode", "partner")
    made = task(partner="web", **keys)
    return made.model_copy(update={"id": "side", "name": "s-side-1", "partner": "web"})


def both_run(node):
    found = [node.holdings.record(name) for name in ("web", "side")]
    return all(record is not None and record.phase is Phase.RUNNING for record in found)


async def test_the_network_of_a_partner_is_waited_for(node):
    await node.put(side())
    await node.until(lambda: "whose network" in (node.status("side").reason or ""))
    assert node.status("side").reason == "waits for web, whose network it shares"
    await node.put(web())
    await node.until(lambda: both_run(node))
    assert node.network.attached == {"web"}
    files = {m["destination"]: m["source"] for m in node.containers.written["side"]["mounts"]}
    assert Path(files["/etc/hosts"]).parent == node.base / "tasks" / "web" / "etc"
    assert node.containers.written["side"]["hostname"] == "s-web-1"


async def test_who_waits_for_a_partner_can_be_removed(node):
    await node.put(side())
    await node.until(lambda: node.status("side").state == "preparing")
    await node.put(remove=("side",))
    await node.until(lambda: node.holdings.record("side") is None)


async def test_a_partner_s_crash_costs_nobody_the_network(node):
    await node.put(web(policy=RestartPolicy(condition="any")), side())
    await node.until(lambda: both_run(node))
    process = node.holdings.record("side").process
    node.containers.end(node.holdings.record("web").process.pid, 1)
    await node.until(lambda: node.holdings.record("web").number == 2 and both_run(node))
    assert node.holdings.record("side").process == process
    assert "web" in node.network.attached


def ends(node, name, code):
    node.containers.end(node.holdings.record(name).process.pid, code)


@pytest.mark.parametrize("first", ["web", "side"])
@pytest.mark.parametrize("policy", ["none", "any", "on-failure"])
async def test_who_shares_processes_ends_with_them_and_runs_again(node, first, policy):
    """Whichever end is heard first, and whatever the policy: it was no end of its own."""
    again = RestartPolicy(condition="any", delay=3.0)
    await node.put(
        web(policy=again),
        side(network_mode="overlay", pid="partner", policy=RestartPolicy(condition=policy)),
    )
    await node.until(lambda: both_run(node))
    joined = node.holdings.record("web").process
    assert node.holdings.record("side").beside == joined
    ends(node, first, 1 if first == "web" else 137)
    await asyncio.sleep(0.1)
    ends(node, "side" if first == "web" else "web", 137 if first == "web" else 1)
    await node.until(lambda: node.status("side").restarts == 1)
    assert node.status("side").runs[0].reason == "ended with web, whose processes it shares"
    await node.until(lambda: "to run" in node.status("side").reason)
    await node.until(lambda: both_run(node))
    record = node.holdings.record("side")
    assert record.beside == node.holdings.record("web").process != joined
    assert (record.restarts, record.crashes) == (1, 0)
    written = namespaces(node.containers.written["side"])
    assert written["pid"] == f"/proc/{record.beside.pid}/ns/pid"


async def test_what_is_left_with_old_memory_is_ended(node):
    """Of memory that is shared nothing ends by itself with whom it was of."""
    await node.put(
        web(policy=RestartPolicy(condition="any"), ipc="shareable"),
        side(network_mode="overlay", ipc="partner"),
    )
    await node.until(lambda: both_run(node))
    ends(node, "web", 1)
    await node.until(lambda: node.status("side").restarts == 1 and both_run(node))
    assert node.holdings.record("side").beside == node.holdings.record("web").process


@pytest.mark.parametrize(("policy", "state"), [("none", "failed"), ("any", "running")])
async def test_its_own_end_is_its_own(node, policy, state):
    await node.put(
        web(), side(network_mode="overlay", pid="partner", policy=RestartPolicy(condition=policy))
    )
    await node.until(lambda: both_run(node))
    ends(node, "side", 137)
    await node.until(lambda: node.status("side").runs[0].finished_at is not None)
    await node.until(lambda: node.status("side").state == state)
    assert node.status("side").runs[0].reason == "ended by signal 9 (exit code 137)"
    assert node.holdings.record("web").number == 1


async def test_another_agent_finds_both_as_they_are(node):
    await node.put(web(), side(pid="partner"))
    await node.until(lambda: both_run(node))
    before = {name: node.holdings.record(name).process for name in ("web", "side")}
    await node.kill()
    await node.start()
    await node.put()
    await asyncio.sleep(3)
    assert {name: node.holdings.record(name).process for name in ("web", "side")} == before
    # What ended while nobody looked is seen, too.
    await node.kill()
    node.containers.end(before["web"].pid, 1)
    node.containers.end(before["side"].pid, 137)
    await node.start()
    await node.until(lambda: node.status("side").runs[0].finished_at is not None)
    assert node.status("side").state == "running"


async def test_a_partner_that_ends_while_one_joins_it_is_no_failure(node):
    node.containers.broken["side"] = RuntimeFailure("no such process")
    await node.put(
        web(policy=RestartPolicy(condition="any")), side(network_mode="overlay", pid="partner")
    )
    await node.until(lambda: "side" in node.containers.written)
    await node.until(lambda: node.holdings.record("side").phase is Phase.CREATING)
    ends(node, "web", 1)
    await asyncio.sleep(0.3)
    node.containers.broken.clear()
    await node.until(lambda: both_run(node))
    assert node.status("side").state == "running"


@pytest.mark.parametrize("kind", ["pid", "ipc"])
@pytest.mark.parametrize("lost", ["web", "side"])
async def test_nobody_is_ended_because_a_record_cannot_be_read(node, kind, lost):
    """What runs is left alone until the controller has said what it is."""
    extra = {"ipc": "shareable"} if kind == "ipc" else {}
    await node.put(web(**extra), side(network_mode="overlay", **{kind: "partner"}))
    await node.until(lambda: both_run(node))
    await node.kill()
    unread = [node.base / "run/records" / lost, node.base / "tasks" / lost / "record.json"]
    for path in (*unread, *node.base.rglob("set.log")):
        path.write_bytes(b"garbage")
    await node.start()
    await asyncio.sleep(5)
    assert set(node.holdings.strays) == {lost}
    assert node.containers.sent == []
    assert set(node.containers.alive) == {"web", "side"}


@pytest.mark.parametrize("kind", ["pid", "ipc"])
@pytest.mark.parametrize("when", ["later", "while no agent runs"])
async def test_a_record_that_is_made_anew_knows_whom_its_run_has_joined(node, kind, when):
    """Of memory that is shared nothing ends by itself: it lived on beside nobody, for ever."""
    again = RestartPolicy(condition="any")
    extra = {"ipc": "shareable"} if kind == "ipc" else {}
    await node.put(
        web(policy=again, **extra), side(network_mode="overlay", policy=again, **{kind: "partner"})
    )
    await node.until(lambda: both_run(node))
    before = {name: node.holdings.record(name).process for name in ("web", "side")}
    await node.kill()
    for path in (node.base / "run/records/side", node.base / "tasks/side/record.json"):
        path.write_bytes(b"garbage")
    if when != "later":
        node.containers.end(before["web"].pid, 1)
    await node.start()
    await node.put(web(policy=again, **extra))
    if when == "later":
        await asyncio.sleep(3)
        assert {name: node.holdings.record(name).process for name in before} == before
        assert node.holdings.record("side").beside == before["web"]
        ends(node, "web", 1)
    await node.until(lambda: node.status("side").restarts == 1 and both_run(node))
    assert node.status("side").runs[-2].reason.startswith("ended with web, whose ")
    assert node.holdings.record("side").beside == node.holdings.record("web").process


@pytest.mark.parametrize(
    ("keys", "pid"),
    [({}, 0), ({"pid": "host"}, 0), ({"pid": "partner"}, 77), ({"ipc": "partner"}, 77)],
)
def test_a_bundle_says_whom_its_run_has_joined(keys, pid):
    made = config(**keys)
    kinds = pairs.joins(task(**keys).spec)
    assert joined(pairs.joined(made, kinds, Process(pid=77, start=1))) == pid
