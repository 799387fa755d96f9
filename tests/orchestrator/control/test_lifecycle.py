"""A stack's whole life: up, order, scale, update, down."""

from __future__ import annotations

import pytest

from orchestrator.contracts import EventQuery
from specs.states import TaskState
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime


async def test_up_runs_every_replica_and_deploys_the_release():
    async with Rig() as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        tasks = rig.live("web")
        assert [t.name for t in tasks] == ["app-web-1", "app-web-2", "app-web-3"]
        assert all(t.state is TaskState.RUNNING for t in tasks)
        assert rig.release().images == {"web": "sha256:web:1"}
        assert rig.cluster.stacks["app"].running == 1


async def test_fifty_replicas_reach_their_nodes_in_a_few_transactions():
    async with Rig(nodes=3) as rig:
        before = rig.cluster.revision
        await rig.up(project(web=replicas(50)))
        await rig.until(lambda: len([t for t in rig.tasks() if t.node]) == 50)
        assert rig.cluster.revision - before <= 5
        counts = sorted(len(rig.cluster.by_node[n]) for n in rig.nodes)
        assert counts == [16, 17, 17]
        await rig.deployed()
        await rig.control.remove("app", volumes=False, timeout=0)
        assert (await rig.end_of()).ok
        assert not rig.tasks()
        assert "app" not in rig.cluster.stacks
        assert not any(node.tasks for node in rig.nodes.values())


async def test_scale_adds_and_removes_the_highest_slots():
    async with Rig() as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        first = {t.id for t in rig.live("web")}
        await rig.control.scale("app", {"web": 5})
        await rig.until(lambda: len(rig.ready("web")) == 5)
        assert first <= {t.id for t in rig.live("web")}
        await rig.control.scale("app", {"web": 2})
        await rig.until(lambda: len(rig.tasks("web")) == 2)
        assert [t.slot for t in rig.live("web")] == [1, 2]
        assert {t.id for t in rig.live("web")} <= first


async def test_scale_survives_up_until_the_file_says_another_number():
    async with Rig() as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        await rig.control.scale("app", {"web": 4})
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        assert len(rig.live("web")) == 4
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        assert len(rig.live("web")) == 3


async def test_up_again_without_a_change_keeps_every_task():
    async with Rig() as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        before = [t.id for t in rig.live()]
        number = await rig.up(project(web=replicas(3)))
        await rig.deployed()
        assert number == 1, "it is no release"
        assert [t.id for t in rig.live()] == before
        await rig.up(project(web=replicas(3)), force_recreate=True)
        await rig.deployed()
        forced = [t.id for t in rig.live()]
        assert not set(forced) & set(before)
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        assert [t.id for t in rig.live()] == forced


async def test_services_start_after_what_they_depend_on_and_stop_before_it():
    async with Rig(nodes=2) as rig:
        rig.how["db"] = Behaviour(healthy=0.5)
        rig.how["web"] = Behaviour(healthy=0.1)
        rig.how["migrate"] = Behaviour(exit_code=0, runs_for=0.2)
        await rig.up(
            project(
                db={"healthcheck": {"test": ["CMD", "true"]}},
                migrate={"depends_on": {"db": {"condition": "service_healthy"}}, "restart": "no"},
                web=replicas(
                    2, depends_on={"migrate": {"condition": "service_completed_successfully"}}
                ),
                front={"depends_on": {"web": {"condition": "service_healthy"}}},
            )
        )
        await rig.deployed()
        at = rig.history.index
        assert at("app-db-1 running") < at("app-migrate-1 starting")
        assert at("app-migrate-1 complete") < at("app-web-1 starting")
        assert max(at("app-web-1 running"), at("app-web-2 running")) < at("app-front-1 starting")
        # Images and networks are made while dependencies are awaited.
        assert at("app-front-1 prepared") < at("app-migrate-1 complete")
        rig.history.clear()
        await rig.control.remove("app", volumes=False, timeout=None)
        assert (await rig.end_of()).ok
        assert at("app-front-1 shutdown") < at("app-web-1 shutdown") < at("app-db-1 shutdown")


async def test_a_failed_migration_fails_the_release_at_once_and_names_whom_it_blocks():
    async with Rig() as rig:
        rig.how["migrate"] = Behaviour(exit_code=3, log_tail=("boom", "no such table"))
        await rig.up(
            project(
                migrate={"restart": "no"},
                web={"depends_on": {"migrate": {"condition": "service_completed_successfully"}}},
                front={"depends_on": {"web": {"condition": "service_started"}}},
            )
        )
        end = await rig.end_of(within=5)
        assert not end.ok
        assert end.service == "migrate"
        assert end.exit_code == 3
        assert end.log_tail == ("boom", "no such table")
        assert "app-migrate-1 exited with code 3" in end.message
        assert "front, web are blocked by migrate" in end.message
        assert rig.release().state == "failed"
        assert "app-web-1 starting" not in rig.history


async def test_a_changed_service_is_replaced_one_by_one_and_stays_available():
    async with Rig(nodes=3) as rig:
        rig.how["web"] = Behaviour(healthy=0.3)
        await rig.up(project(web=replicas(3, healthcheck={"test": ["CMD", "true"]})))
        await rig.deployed()
        least = []
        rig.watchers.append(
            lambda node, task, what: least.append(
                len(rig.ready("web")) if what == "stopping" else 9
            )
        )
        await rig.up(project(web=replicas(3, healthcheck={"test": ["CMD", "true"]}, image="web:2")))
        await rig.deployed()
        assert {t.spec_hash for t in rig.live("web")} == {rig.live("web")[0].spec_hash}
        assert all(t.release == 2 for t in rig.live("web"))
        assert len(rig.live("web")) == 3
        # The one being stopped no longer counts; two others serve.
        assert min(least) == 2
        await rig.until(lambda: len(rig.tasks("web")) == 3)


async def test_start_first_never_falls_below_the_wanted_number():
    async with Rig(nodes=3) as rig:
        web = replicas(3, healthcheck={"test": ["CMD", "true"]})
        web["deploy"]["update_config"] = {"order": "start-first"}
        rig.how["web"] = Behaviour(healthy=0.3)
        await rig.up(project(web=web))
        await rig.deployed()
        least = []
        rig.watchers.append(lambda node, task, what: least.append(len(rig.ready("web"))))
        await rig.up(project(web={**web, "image": "web:2"}))
        await rig.deployed()
        assert min(least) >= 3
        assert all(t.release == 2 for t in rig.live("web"))


async def test_a_stop_waits_until_nodes_took_the_endpoint_out():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        for node in rig.nodes.values():
            node.late = 1.0
        stopped, seen = [], []

        def watch(node, task_id, what):
            if what != "stopping":
                return
            stopped.append(task_id)
            # What counts is what a kernel does, not what its node was told a moment ago.
            seen.extend(name for name, other in rig.nodes.items() if task_id in other.reached)

        rig.watchers.append(watch)
        start = rig.clock.monotonic()
        await rig.control.scale("app", {"web": 1})
        await rig.until(lambda: len(rig.tasks("web")) == 1)
        assert len(stopped) == 1
        assert seen == [], "no node sends traffic to a container that is told to stop"
        assert rig.clock.monotonic() - start >= 1.0


async def test_a_release_is_done_when_every_node_reaches_its_tasks():
    async with Rig(nodes=2) as rig:
        for node in rig.nodes.values():
            node.late = 1.0
        await rig.up(project(web=replicas(2, healthcheck={"test": ["CMD", "true"]})))
        await rig.deployed()
        ids = {task.id for task in rig.ready("web")}
        assert len(ids) == 2
        assert [node.reached >= ids for node in rig.nodes.values()] == [True, True]


async def test_a_node_that_never_hears_of_an_endpoint_is_not_waited_for_long():
    async with Rig(nodes=2) as rig:
        web = replicas(2)
        await rig.up(project(web=web))
        await rig.deployed()
        rig.nodes["n2"].late = 1000.0
        more = {
            "healthcheck": {"test": ["CMD", "true"]},
            "deploy": {"placement": {"constraints": ["node.name == host1"]}},
        }
        start = rig.clock.monotonic()
        await rig.up(project(web=web, more=more))
        await rig.deployed()
        (task,) = rig.ready("more")
        assert task.id not in rig.nodes["n2"].reached
        assert 4.9 <= rig.clock.monotonic() - start <= 8.0


async def test_a_node_that_never_acknowledges_is_named_and_not_waited_for():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        rig.nodes["n2"].late = 1000.0
        events = []

        async def read():
            async for event in rig.control.events(EventQuery("app")):
                events.append(event)  # noqa: PERF401 - one by one, as they come

        reader = rig.group.create_task(read())
        target = next(t for t in rig.live("web") if t.node == "n1")
        keep = 1 if target.slot == 2 else 0
        start = rig.clock.monotonic()
        await rig.control.scale("app", {"web": keep})
        await rig.until(lambda: "app-web-2 shutdown" in rig.history or keep == 0)
        if keep:
            assert 4.9 <= rig.clock.monotonic() - start <= 6.0
            assert any("host2" in e.message for e in events if e.kind == "endpoint.late")
        reader.cancel()
