"""A stop in the middle of an update: of each name one row is left, and it can be started again."""

from __future__ import annotations

from collections import Counter

import pytest

from orchestrator.api.rows import shown_tasks
from specs.states import FINAL, Desired
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

SLOW = Behaviour(prepare=5.0)
NEVER = Behaviour(never_ready=True)
FIRST = replicas(2, update={"order": "start-first", "parallelism": 0}, restart="always")
LATER = replicas(2, update={"order": "stop-first", "parallelism": 0}, restart="always")
NOWHERE = {"placement": {"constraints": ["node.labels.disk == gold"]}}
PAUSED = replicas(2, update={"order": "start-first"}, restart="no")

# what is there, how the new ones turn out, until when, what is stopped
CASES = {
    "while its image comes": (FIRST, SLOW, lambda rig: len(rig.tasks("web")) == 4, ()),
    "both run": (FIRST, NEVER, lambda rig: _running(rig) == 4, ()),
    "the old one goes": (LATER, NEVER, lambda rig: any(not t.live for t in rig.tasks("web")), ()),
    "it alone": (FIRST, NEVER, lambda rig: _running(rig) == 4, ("web",)),
    "it alone, while its image comes": (
        FIRST,
        SLOW,
        lambda rig: len(rig.tasks("web")) == 4,
        ("web",),
    ),
    "after the update failed": (
        PAUSED,
        Behaviour(exit_code=3, runs_for=0.1),
        lambda rig: rig.release().over,
        (),
    ),
    "nothing is updated": (FIRST, None, lambda rig: rig.release().over, ()),
    "a one-off that runs again": (
        replicas(1, restart="no"),
        Behaviour(exit_code=0, runs_for=60),
        lambda rig: _running(rig) == 1,
        (),
    ),
}


def _running(rig):
    return sum(bool(t.status.run and t.status.run.alive) for t in rig.tasks("web"))


@pytest.mark.parametrize("case", CASES)
async def test_of_each_name_one_row_is_left(case):
    web, new, until, services = CASES[case]
    async with Rig() as rig:
        if "one-off" in case:
            rig.how["web:1"] = Behaviour(exit_code=0)
        await rig.up(project(web=web, other={}))
        await rig.deployed()
        if new is not None:
            rig.how["web:2"] = new
            await rig.up(project(web={**web, "image": "web:2"}, other={}))
            await rig.until(lambda: until(rig))
        await rig.control.stop("app", 0, services)

        def settled():
            mine = rig.tasks("web")
            return all(t.state in FINAL and t.desired is not Desired.REMOVED for t in mine)

        await rig.until(settled)
        rows = Counter(task.name for task in shown_tasks(rig.tasks(), every=True))
        names = {f"app-web-{n}" for n in range(1, web["deploy"]["replicas"] + 1)}
        assert rows == Counter(names | {"app-other-1"}), "law: one row of each name"
        assert all(t.status.run for t in rig.tasks("web")), "what ran, and has logs, is kept"
        rig.how["web:2"] = Behaviour()
        await rig.start()
        await rig.deployed()
        assert {t.name for t in rig.ready("web")} == names


async def test_what_waits_for_a_node_goes_with_the_stop():
    async with Rig() as rig:
        await rig.up(project(web=replicas(1, update={"order": "start-first"})))
        await rig.deployed()
        (old,) = rig.live("web")
        new = replicas(1, update={"order": "start-first"}, deploy=NOWHERE, image="web:2")
        await rig.up(project(web=new))
        await rig.until(lambda: len(rig.tasks("web")) == 2)
        await rig.control.stop("app", 0)
        await rig.until(lambda: [t.state in FINAL for t in rig.tasks("web")] == [True])
        assert rig.tasks("web")[0].id == old.id
