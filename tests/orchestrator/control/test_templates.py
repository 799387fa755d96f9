"""Swarm's templates in hostname, environment and binds: filled in for each task, where it is."""

from __future__ import annotations

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
    web["volumes"] = [{"type": "bind", "source": f"/srv/{text}", "target": "/data"}]
    if legal:
        web["hostname"] = text
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=web))
        await rig.deployed()
        (task,) = [t for t in rig.live() if t.slot == 2]
        assert task.node == "n2"
        (held,) = rig.nodes["n2"].wanted.tasks.values()
        assert held.spec.environment == {"A": CASES[text], "B": "plain"}
        assert held.spec.mounts[0].source == f"/srv/{CASES[text]}"
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
