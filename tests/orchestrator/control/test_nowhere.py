"""Tasks that no node takes: told after ten seconds, with each node's reason and what would help.

Every case says what waits and what else goes on; the release itself goes on in all of them.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

GOLD = {"deploy": {"placement": {"constraints": ["node.labels.disk == gold"]}}}
GIB = 1 << 30


def reserve(**amounts):
    return {"deploy": {"resources": {"reservations": amounts}}}


def port(number, **more):
    published = {"target": 80, "published": str(number), "mode": "host", "protocol": "tcp"}
    return {"ports": [published], **more}


# what waits -> (services, tasks without a node, what nodes say, what is advised)
CASES = {
    "a constraint no node has": (
        {"web": GOLD},
        {"web": 1},
        "host1, host2, host3: does not satisfy 'node.labels.disk == gold' (it has no label disk)",
        "corral node label host1 disk=gold, or change deploy.placement.constraints of web",
    ),
    "a host name no node has": (
        {"web": {"deploy": {"placement": {"constraints": ["node.hostname == host9"]}}}},
        {"web": 1},
        "host2: does not satisfy 'node.hostname == host9' (its hostname is host2)",
        "change deploy.placement.constraints of web",
    ),
    "a port taken everywhere": (
        {"web": port(8080, **replicas(4))},
        {"web": 1},
        "host1, host2, host3: has port 8080/tcp taken by another task",
        "publish another port of web",
    ),
    "a memory reservation that is too big": (
        {"web": reserve(memory=str(64 * GIB))},
        {"web": 1},
        "host1, host2, host3: lacks memory: 8 GiB unreserved, 64 GiB needed",
        "lower deploy.resources.reservations of web",
    ),
    "a CPU reservation that is too big": (
        {"web": reserve(cpus="9")},
        {"web": 1},
        "host1, host2, host3: lacks CPUs: 4 unreserved, 9 needed",
        "corral node add USER@HOST",
    ),
    "max_replicas_per_node": (
        {"web": replicas(5, deploy={"placement": {"max_replicas_per_node": 1}})},
        {"web": 2},
        "host1, host2, host3: has 1 of web already (max_replicas_per_node: 1)",
        "raise max_replicas_per_node",
    ),
    "three of five replicas fit": (
        {"web": replicas(5, **{k: v for k, v in reserve(cpus="3").items() if k != "deploy"})},
        {"web": 2},
        "host1, host2, host3: lacks CPUs: 1 unreserved, 3 needed",
        "lower deploy.resources.reservations",
    ),
    "and what depends on it": (
        {"db": GOLD, "web": after("service_healthy", "db")},
        {"db": 1},
        "host1, host2, host3: does not satisfy",
        "corral node label host1 disk=gold",
    ),
    "two services": (
        {"db": GOLD, "web": reserve(cpus="9")},
        {"db": 1, "web": 1},
        "does not satisfy",
        "corral node label",
    ),
}
CASES["three of five replicas fit"][0]["web"]["deploy"].update(reserve(cpus="3")["deploy"])


class Told:
    """What the reader of a release's progress is told, and when."""

    def __init__(self, rig):
        self.rig, self.began = rig, rig.clock.monotonic()
        self.lines, self.stalled_at, self.told_at, self.end = [], None, None, None
        self._reader = asyncio.create_task(self._read())

    async def _read(self):
        async with contextlib.aclosing(self.rig.control.progress("app", None)) as lines:
            async for line in lines:
                now = self.rig.clock.monotonic() - self.began
                if line.kind == "homeless":
                    self.lines.append(line)
                    self.told_at = self.told_at or now
                    if line.stalled and self.stalled_at is None:
                        self.stalled_at = now
                if line.kind == "end":
                    self.end = line


@pytest.mark.parametrize("case", CASES)
async def test_what_no_node_takes_is_told_after_ten_seconds(case):
    services, missing, said, advised = CASES[case]
    async with Rig(nodes=3) as rig:
        await rig.up(project(**services), deadline=100.0)
        told = Told(rig)
        await rig.until(lambda: told.stalled_at)
        assert 10 <= told.stalled_at <= 12
        found = {homeless.service: homeless for homeless in rig.release().homeless}
        assert {name: len(homeless.tasks) for name, homeless in found.items()} == missing
        first = next(iter(found.values()))
        assert any(said in line for line in first.nodes), first.nodes
        assert advised in first.hint
        assert {line.service for line in told.lines} == set(missing)
        assert rig.release().state == "deploying", "the release goes on"
        await rig.until(lambda: told.end, within=200)
        assert told.end.state == "failed"
        assert not rig.release().stalled


async def test_a_release_goes_on_when_a_node_arrives():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=GOLD), deadline=100.0)
        told = Told(rig)
        await rig.until(lambda: told.stalled_at)
        node = await rig.add_node(3, labels={"disk": "gold"})
        await rig.nodes[node.id].connect()
        await rig.deployed()
        assert rig.ready("web")[0].node == node.id
        assert not rig.release().homeless


async def test_a_node_that_joins_after_eight_seconds_is_in_time():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=GOLD), deadline=100.0)
        told = Told(rig)
        await asyncio.sleep(8)
        node = await rig.add_node(3, labels={"disk": "gold"})
        await rig.nodes[node.id].connect()
        await rig.deployed()
        assert not told.lines


async def test_who_still_starts_is_waited_for():
    async with Rig(nodes=2) as rig:
        rig.how["slow"] = Behaviour(healthy=25.0)
        await rig.up(project(web=GOLD, slow=CHECK), deadline=200.0)
        told = Told(rig)
        await rig.until(lambda: told.told_at)
        assert told.told_at <= 12, "it is said at once"
        assert told.stalled_at is None, "and the other service is under way"
        await rig.until(lambda: told.stalled_at, within=90)
        assert told.stalled_at >= 25
        assert rig.ready("slow")


async def test_an_image_that_is_fetched_is_waited_for():
    async with Rig(nodes=2) as rig:
        rig.how["slow"] = Behaviour(prepare=40.0)
        await rig.up(project(web=GOLD, slow={}), deadline=200.0)
        told = Told(rig)
        await rig.until(lambda: told.stalled_at, within=120)
        assert told.stalled_at >= 40
        assert rig.ready("slow")


async def test_an_optional_dependency_without_a_node_is_a_warning_only():
    async with Rig(nodes=2) as rig:
        await rig.up(project(dep=GOLD, web=after("service_healthy", "dep", required=False)))
        told = Told(rig)
        await rig.deployed()
        assert not told.lines


async def test_a_volume_on_a_node_that_is_down():
    async with Rig(nodes=3) as rig:
        stored = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
        top = {"volumes": {"data": {"name": "app_data"}}}
        await rig.up(project(db=stored, top=top))
        await rig.deployed()
        home = rig.ready("db")[0].node
        await rig.nodes[home].cut()
        await rig.until(lambda: rig.cluster.conditions[home].status == "down")
        await rig.up(project(db={**stored, "image": "db:2"}, top=top), deadline=100.0)
        told = Told(rig)
        await rig.until(lambda: told.stalled_at)
        (homeless,) = rig.release().homeless
        name = rig.cluster.nodes[home].name
        assert any(line.startswith(f"{name}: is down") for line in homeless.nodes)
        assert any(f"volume app_data (its data is on {name})" in line for line in homeless.nodes)
        assert homeless.hint == f"bring {name} back: corral node ls"
        await rig.nodes[home].connect()
        await rig.deployed(within=120)


async def test_all_nodes_drained():
    async with Rig(nodes=2) as rig:
        for node in list(rig.cluster.nodes.values()):
            await rig.put_node(node.with_availability("drain"))
        await rig.up(project(web={}), deadline=100.0)
        told = Told(rig)
        await rig.until(lambda: told.stalled_at)
        (homeless,) = rig.release().homeless
        assert homeless.nodes == ("host1, host2: is draining",)
        assert homeless.hint.startswith("corral node activate host")
        await rig.put_node(rig.cluster.nodes["n2"].with_availability("active"))
        await rig.deployed()


async def test_a_controller_that_starts_anew_begins_to_count_anew():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=GOLD), deadline=100.0)
        await asyncio.sleep(6)
        await rig.restart_controller()
        told = Told(rig)
        await rig.until(lambda: told.stalled_at)
        assert 10 <= told.stalled_at <= 13
