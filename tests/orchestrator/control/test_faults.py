"""Nodes die and return, controllers die and return, releases cross each other."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.store import keys
from orchestrator.store.base import Put
from specs.states import Desired, ReleaseState, TaskState
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime


async def test_tasks_of_a_dead_node_are_replaced_in_time():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(6)))
        await rig.deployed()
        dead = rig.nodes["n2"]
        start = rig.clock.monotonic()
        await dead.crash()
        await rig.until(
            lambda: len([t for t in rig.ready("web") if t.node != "n2"]) == 6, within=20
        )
        # The session itself ends 9 s after the last word: 20 s in all.
        assert rig.clock.monotonic() - start < 11
        assert rig.cluster.conditions["n2"].status == "down"


async def test_a_node_that_returns_with_its_tasks_gives_the_surplus_up():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(6)))
        await rig.deployed()
        await rig.nodes["n2"].cut()
        await rig.until(lambda: len([t for t in rig.ready("web") if t.node != "n2"]) == 6)
        newer = {t.id for t in rig.live("web") if t.node != "n2"}
        await rig.nodes["n2"].connect()
        await rig.until(lambda: len(rig.tasks("web")) == 6)
        assert {t.id for t in rig.live("web")} == newer, "law: of two ready copies the newer stays"
        assert not rig.nodes["n2"].tasks


async def test_a_short_cut_changes_nothing():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(6)))
        await rig.deployed()
        before = {t.id for t in rig.live("web")}
        await rig.nodes["n2"].cut()
        await asyncio.sleep(3)
        assert rig.cluster.conditions["n2"].status == "unknown"
        await rig.nodes["n2"].connect()
        await asyncio.sleep(20)
        assert {t.id for t in rig.tasks("web")} == before


async def test_a_node_back_before_its_replacement_is_ready_keeps_what_serves():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        before = {t.id for t in rig.live("web")}
        rig.how["web"] = Behaviour(prepare=60)
        await rig.nodes["n2"].cut()
        await rig.until(lambda: len(rig.tasks("web")) == 4)
        await rig.nodes["n2"].connect()
        await rig.until(lambda: len(rig.tasks("web")) == 3)
        assert {t.id for t in rig.live("web")} == before


async def test_a_task_with_a_volume_waits_for_its_node_and_says_so():
    async with Rig(nodes=3) as rig:
        await rig.up(
            project(
                db={"volumes": [{"type": "volume", "source": "data", "target": "/data"}]},
                top={"volumes": {"data": {"name": "app_data"}}},
            )
        )
        await rig.deployed()
        (task,) = rig.live("db")
        assert rig.cluster.volumes["app_data"].node == task.node
        await rig.nodes[task.node].crash()
        await asyncio.sleep(30)
        assert [t.id for t in rig.tasks("db")] == [task.id]
        from orchestrator.api.rows import task_row

        row = task_row(rig.cluster, rig.cluster.tasks[task.id], now=rig.clock.wall())
        assert "volume app_data" in row.status
        assert "down" in row.status
        await rig.nodes[task.node].connect()
        await rig.until(lambda: rig.ready("db"))


async def test_when_most_nodes_are_down_nothing_is_moved():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(6)))
        await rig.deployed()
        before = {t.id for t in rig.live("web")}
        await rig.nodes["n2"].cut()
        await rig.nodes["n3"].cut()
        await asyncio.sleep(30)
        assert {t.id for t in rig.tasks("web")} == before
        await rig.nodes["n3"].connect()
        # One of three is a fault of that node again, not ours.
        await rig.until(lambda: len([t for t in rig.ready("web") if t.node != "n2"]) == 6)


async def test_a_flapping_node_is_trusted_later_each_time():
    async with Rig(nodes=3) as rig:
        waits = []
        for _ in range(3):
            await rig.nodes["n2"].cut()
            await rig.until(lambda: rig.cluster.conditions["n2"].status == "down")
            start = rig.clock.monotonic()
            await rig.nodes["n2"].connect()
            await rig.until(lambda: rig.cluster.conditions["n2"].status == "ready")
            waits.append(rig.clock.monotonic() - start)
        assert waits == sorted(waits)
        assert waits[2] > 3 * waits[0]


async def test_a_removed_node_is_forgotten_and_its_tasks_replaced():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        await rig.nodes["n3"].crash()
        await rig.remove_node("n3")
        await rig.until(lambda: {t.node for t in rig.ready("web")} == {"n1", "n2"})
        await rig.until(lambda: len(rig.ready("web")) == len(rig.tasks("web")) == 3)


@pytest.mark.parametrize("kill_at", [0.0, 0.005, 0.02, 0.05, 0.1, 0.3, 0.7, 1.2])
async def test_a_controller_killed_anywhere_goes_on(kill_at):
    async with Rig(nodes=2) as rig:
        rig.how["db"] = Behaviour(healthy=0.2)
        rig.how["web"] = Behaviour(healthy=0.2)
        rig.agents.delay = 0.02
        services = {
            "db": dict(CHECK),
            "web": replicas(4, **CHECK, **after("service_healthy", "db")),
        }
        await rig.up(project(**services))
        await asyncio.sleep(kill_at)
        await rig.restart_controller()
        await rig.deployed()
        assert len(rig.ready("web")) == 4
        started = [line for line in rig.history if line.endswith("starting")]
        assert len(started) == len(set(started)), "law: nothing is started twice"
        # An update, killed at the same place.
        services["web"]["image"] = "web:2"
        await rig.up(project(**services))
        await asyncio.sleep(kill_at)
        await rig.restart_controller()
        await rig.deployed()
        assert all(t.release == 2 for t in rig.live("web"))
        await rig.control.remove("app", volumes=False, timeout=None)
        await asyncio.sleep(kill_at / 4)
        await rig.restart_controller()
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        assert not any(node.tasks for node in rig.nodes.values())


async def test_a_new_up_supersedes_one_under_way():
    async with Rig(nodes=2) as rig:
        rig.how["web"] = Behaviour(healthy=1.0)
        await rig.up(project(web=replicas(4, **CHECK)))
        await rig.deployed()
        await rig.up(project(web=replicas(4, **CHECK, image="web:2")))
        await asyncio.sleep(1.5)
        await rig.up(project(web=replicas(4, **CHECK, image="web:3")))
        await rig.deployed()
        assert rig.cluster.releases[("app", 2)].state == "superseded"
        assert {t.release for t in rig.live("web")} == {3}
        await rig.until(lambda: len(rig.tasks("web")) == 4)


async def test_the_same_key_never_makes_two_releases():
    async with Rig() as rig:
        from specs.api import Deploy

        request = Deploy(key="once", project=project(web={}))
        first = await rig.control.deploy("app", request)
        second = await rig.control.deploy("app", request)
        assert first.number == second.number == 1
        assert len(rig.cluster.releases) == 1


async def test_down_does_not_wait_for_a_dead_node_and_cleans_up_when_it_returns():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(4)))
        await rig.deployed()
        await rig.nodes["n2"].cut()
        await rig.until(lambda: rig.cluster.conditions["n2"].status == "down")
        await rig.control.remove("app", volumes=False, timeout=0)
        lines = [line async for line in rig.control.progress("app", None)]
        assert lines[-1].ok
        assert any(line.kind == "warning" and "host2" in line.message for line in lines)
        assert all(t.desired is Desired.REMOVED for t in rig.tasks())
        await rig.nodes["n2"].connect()
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        assert not rig.nodes["n2"].tasks


async def test_a_status_from_the_wrong_node_or_backwards_is_not_taken():
    async with Rig(nodes=2) as rig:
        from specs.task import TaskStatus
        from specs.wire import Report

        await rig.up(project(web={}))
        await rig.deployed()
        (task,) = rig.live("web")
        other = "n2" if task.node == "n1" else "n1"
        lie = TaskStatus(state=TaskState.FAILED)
        await rig.control.ingest(other, Report(tasks={task.id: lie}))
        back = TaskStatus(state=TaskState.PREPARING)
        await rig.control.ingest(task.node, Report(tasks={task.id: back}))
        await asyncio.sleep(1)
        assert rig.cluster.tasks[task.id].state is TaskState.RUNNING


async def test_draining_a_node_moves_tasks_before_it_stops_them():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        least = []
        rig.watchers.append(lambda *_: least.append(len(rig.ready("web"))))
        node = rig.cluster.nodes["n2"]
        await rig.put_node(node.model_copy(update={"availability": "drain"}))
        await rig.until(lambda: not rig.nodes["n2"].tasks)
        assert len(rig.ready("web")) == 3
        assert min(least) >= 3


async def test_a_mistake_about_one_stack_does_not_stop_the_others(monkeypatch, caplog):
    from orchestrator.control.planning import stacks

    plan = stacks.plan_services

    def mistaken(pass_, stack, *rest):
        if stack.name == "bad":
            raise ZeroDivisionError
        return plan(pass_, stack, *rest)

    async with Rig() as rig:
        monkeypatch.setattr(stacks, "plan_services", mistaken)
        await rig.up(project(web={}), stack="bad")
        await rig.up(project(web={}), stack="good")
        await rig.deployed("good")
        assert "planning failed" in caplog.text
        monkeypatch.setattr(stacks, "plan_services", plan)
        await rig.deployed("bad")


async def test_a_store_that_cannot_be_written_is_tried_again(monkeypatch):
    from orchestrator.store.base import StoreUnavailable

    async with Rig() as rig:
        await rig.up(project(web=replicas(2)))
        txn = rig.store.txn

        async def full(*_):
            raise StoreUnavailable("no space left on device")

        monkeypatch.setattr(rig.store, "txn", full)
        await asyncio.sleep(5)
        with pytest.raises(StoreUnavailable):
            await rig.control.scale("app", {"web": 3})
        assert not rig.live()
        monkeypatch.setattr(rig.store, "txn", txn)
        await rig.deployed()
        assert len(rig.ready("web")) == 2


async def test_a_change_that_crosses_ours_is_not_overwritten():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(4)))
        for number in range(20):
            node = rig.cluster.nodes["n1"]
            await rig.put_node(node.model_copy(update={"labels": {"n": str(number)}}))
            fake = rig.nodes["n1"]
            facts = node.facts.model_copy(update={"images": (f"sha256:{number}",)})
            from specs.wire import Report

            await rig.control.ingest("n1", Report(facts=facts))
            await asyncio.sleep(0.003)
            assert fake.node.id == "n1"
        await rig.deployed()
        await asyncio.sleep(0.1)
        assert rig.cluster.nodes["n1"].labels == {"n": "19"}
        assert rig.cluster.nodes["n1"].facts.images == ("sha256:19",)


async def test_a_pass_whose_key_another_writer_changed_writes_nothing_and_looks_again(monkeypatch):
    async with Rig() as rig:
        await rig.up(project(web={}))
        txn, revisions = rig.store.txn, []

        async def crossed(compares=(), writes=()):
            done = any(w.key == keys.stack("app") for w in writes)
            pending = rig.release().state is ReleaseState.PENDING  # has numbers of its own
            if not done or revisions or pending:
                return await txn(compares, writes)
            # Between the pass's look and its write somebody scales the stack.
            scaled = rig.cluster.stacks["app"].with_overrides({"web": 3})
            theirs = await txn((), (Put(keys.stack("app"), scaled.encode()),))
            revisions.append(theirs.revision)
            ours = await txn(compares, writes)
            assert not ours.ok, "law: a write that another one crossed is refused"
            assert ours.failed == keys.stack("app")
            snapshot = await rig.store.list("/")
            assert snapshot.revision == theirs.revision, "law: nothing of it is written"
            return ours

        monkeypatch.setattr(rig.store, "txn", crossed)
        await rig.deployed()
        await rig.until(lambda: len(rig.ready("web")) == 3)
        assert revisions
        stack = rig.cluster.stacks["app"]
        assert stack.overrides == {"web": 3}, "law: the other's change is not overwritten"
        assert stack.running == 1, "law: ours comes with the next look"


async def test_a_global_task_comes_back_on_its_own_node_while_no_release_moves():
    """After a release that failed the stack is kept as it is: one task on every node."""
    worldwide = {"deploy": {"mode": "global", "restart_policy": {"condition": "any"}}}
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=worldwide))
        await rig.deployed()
        rig.how["web:2"] = Behaviour(reject="no such image")
        await rig.up(project(web={**worldwide, "image": "web:2"}))
        assert not (await rig.end_of()).ok
        await rig.until(lambda: rig.ready("web"))
        assert any(t.release == 2 for t in rig.tasks()), "what failed is kept to be seen"
        started = []
        rig.watchers.append(lambda node, _, what: started.append((node.node.id, what)))
        lost = rig.ready("web")[-1]
        rig.fake_of(lost).end(lost.id, 1)
        await rig.until(lambda: any(what == "started" for _, what in started))
        nodes = [node for node, what in started if what == "started"]
        assert nodes == [lost.node], "law: each node has its own task"
