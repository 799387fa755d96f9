"""`deploy.labels` are the service's: kept, shown, and no reason to replace a container."""

from __future__ import annotations

import pytest

from orchestrator.api.rows import service_rows, task_row
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime


def labelled(**labels):
    return project(web=replicas(2, deploy={"labels": labels}))


async def test_they_are_shown_as_the_newest_file_has_them_and_replace_nothing():
    async with Rig() as rig:

        def shown():
            (service,) = service_rows(rig.cluster, rig.cluster.stacks["app"], rig.live())
            (labels,) = {
                tuple(task_row(rig.cluster, task, now=0.0).service_labels.items())
                for task in rig.live()
            }
            assert tuple(service.labels.items()) == labels
            return dict(labels)

        await rig.up(labelled(team="a", API_TOKEN="hush"))
        await rig.deployed()
        assert shown() == {"team": "a", "API_TOKEN": "***"}
        before = {task.id for task in rig.live()}
        await rig.up(labelled(team="b"))
        await rig.deployed()
        assert shown() == {"team": "b"}
        assert {task.id for task in rig.live()} == before
        assert all(not task_row(rig.cluster, t, now=0.0).labels for t in rig.live())
