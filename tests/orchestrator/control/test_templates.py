"""Swarm's templates in hostname, environment and mounts: filled in for each task, where it is."""

from __future__ import annotations

import asyncio

import pytest

from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime

CASES = {
    # what the file says -> what the second task gets, which is on n2
    "{{.Task.Slot}}": "2",
    "{{.Service.Name}}": "app_web",
    "{{.Task.Name}}": "app-web-2",
    "{{.Node.Hostname}}": "host2",
    "{{ .Node.ID }}": "n2",
    "{{.Node.Platform.Architecture}}": "amd64",
    "{{.Node.Platform.OS}}": "linux",
    "a-{{.Task.Slot}}-{{.Node.Hostname}}": "a-2-host2",
    "{{.Name}}": "{{.Name}}",
    "{{.Labels.x}} {{end}}": "{{.Labels.x}} {{end}}",
    "{{": "{{",
}


@pytest.mark.parametrize("text", CASES)
async def test_what_a_task_is_told(text):
    legal = "{{.N" not in text.replace("{{.Node", "") and "{{.L" not in text and text != "{{"
    spread = {"placement": {"max_replicas_per_node": 1}}
    web = replicas(2, deploy=spread, environment={"A": text, "B": "plain"})
    web["volumes"] = [
        {"type": "bind", "source": f"/srv/{text}", "target": f"/data/{text}"},
        {"type": "tmpfs", "target": f"/memory/{text}"},
        {"type": "volume", "source": "kept", "target": "/kept", "volume": {"subpath": f"d/{text}"}},
    ]
    if legal:
        web["hostname"] = text
    async with Rig(nodes=2) as rig:
        kept = {"kept": {"name": "kept-{{.Task.Slot}}"}}
        await rig.up(project(web=web, top={"volumes": kept}))
        await rig.deployed()
        (task,) = [t for t in rig.live() if t.slot == 2]
        assert task.node == "n2"
        (held,) = rig.nodes["n2"].wanted.tasks.values()
        assert held.spec.environment == {"A": CASES[text], "B": "plain"}
        bound, memory, kept = held.spec.mounts
        assert (bound.source, bound.target) == (f"/srv/{CASES[text]}", f"/data/{CASES[text]}")
        assert memory.target == f"/memory/{CASES[text]}"
        assert (kept.source, kept.subpath) == ("kept", f"d/{CASES[text]}")
        assert held.spec.hostname == (CASES[text] if legal else None)
        assert len({t.spec_hash for t in rig.live()}) == 1


async def test_a_name_with_a_template_is_found_as_it_is_filled_in():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2, hostname="web-{{.Task.Slot}}")))
        await rig.deployed()
        names = {
            endpoint.hostname
            for service in rig.nodes["n1"].wanted.services.values()
            for endpoint in service.endpoints
        }
        assert names == {"web-1", "web-2"}


MOUNT = [{"type": "volume", "source": "data", "target": "/d"}]
VOLUMES = {
    # the name in the file, is the service global -> names by task, does a node keep the tasks
    ("{{.Service.Name}}-x", False): (["app_web-x"] * 2, True),
    ("d-{{.Task.Slot}}", False): (["d-1", "d-2"], True),
    ("{{.Service.Name}}.{{.Task.Slot}}", False): (["app_web.1", "app_web.2"], True),
    ("d-{{.Node.Hostname}}", False): (["d-host1", "d-host2"], False),
    ("d-{{.Node.ID}}-{{.Task.Slot}}", False): (["d-n1-1", "d-n2-2"], False),
    ("{{.Service.Name}}-{{.Node.Hostname}}", True): (["app_web-host1", "app_web-host2"], False),
    ("plain", True): (["plain"] * 2, False),
}


@pytest.mark.parametrize("case", VOLUMES, ids=lambda case: case[0])
async def test_a_volume_is_called_by_its_task_and_is_where_its_data_is(case):
    name, everywhere = VOLUMES[case][0], not VOLUMES[case][1]
    deploy = {"placement": {"max_replicas_per_node": 1}}
    web = {"deploy": {"mode": "global"}} if case[1] else replicas(2, deploy=deploy)
    top = {"volumes": {"data": {"name": case[0]}}}
    one_node = len(set(name)) == 1 and not case[1]
    if one_node:
        web = replicas(2)
    async with Rig(nodes=2) as rig:
        await rig.up(project(web={**web, "volumes": MOUNT}, top=top))
        await rig.deployed()
        tasks = sorted(rig.live(), key=lambda task: (task.node, task.slot))
        held = [rig.nodes[task.node].wanted.tasks[task.id] for task in tasks]
        assert [one.volumes["data"] for one in held] == name
        assert set(rig.cluster.volumes) == set(name)
        for task, real in zip(tasks, name, strict=True):
            record = rig.cluster.volumes[real]
            assert record.everywhere is everywhere
            assert record.node == ("" if everywhere else task.node)
        # What is made anew goes where its data is.
        before = {task.slot: task.node for task in tasks}
        await rig.up(project(web={**web, "volumes": MOUNT, "environment": {"A": "1"}}, top=top))
        await rig.deployed()
        if not everywhere:
            assert {task.slot: task.node for task in rig.live()} == before
        assert set(rig.cluster.volumes) == set(name)
        await rig.control.remove("app", volumes=True, timeout=0)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        assert {removed for _, removed in rig.agents.removed} == set(name)


async def test_what_a_lost_node_had_is_made_anew_elsewhere_only_by_the_node_s_own_name():
    """A name with the node's in it ties nothing; one with the slot's is one volume, at home."""
    for name, moves in (("d-{{.Node.Hostname}}", True), ("d-{{.Task.Slot}}", False)):
        async with Rig(nodes=3) as rig:
            deploy = {"placement": {"constraints": ["node.hostname != host1"]}}
            top = {"volumes": {"data": {"name": name}}}
            await rig.up(project(web={**replicas(1, deploy=deploy), "volumes": MOUNT}, top=top))
            await rig.deployed()
            (task,) = rig.live()
            await rig.nodes[task.node].cut()
            await asyncio.sleep(60)
            assert {t.node for t in rig.ready("web")} - {task.node} != set() or not moves
            assert moves or {t.node for t in rig.tasks("web")} == {task.node}


@pytest.mark.parametrize(
    ("template", "name", "goes"),
    [
        ("data-{{.Node.Hostname}}", "data-prod", True),
        ("data-{{.Node.Hostname}}", "data-host1", False),
        ("data-{{.Node.Hostname}}-{{.Task.Slot}}", "data-prod-1", True),
        ("data-{{.Node.Hostname}}-{{.Task.Slot}}", "data-host2-7", False),
        ("data-{{.Node.ID}}", "data-host1", True),
        ("data-{{.Node.ID}}", "data-n1", False),
        ("data-{{.Task.Slot}}", "data-2", False),
        ("{{.Service.Name}}-{{.Node.Hostname}}", "app_db-prod", True),
    ],
)
async def test_a_template_means_volumes_of_another_stack_only_where_a_node_is_called_so(
    template, name, goes
):
    web = {"volumes": MOUNT}
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=web, top={"volumes": {"data": {"name": name}}}), stack="b")
        await rig.deployed("b")
        await rig.up(project(web=web, top={"volumes": {"data": {"name": template}}}))
        await rig.deployed()
        await rig.control.remove("b", volumes=True, timeout=0)
        await rig.until(lambda: "b" not in rig.cluster.stacks)
        assert (name not in rig.cluster.volumes) is goes
