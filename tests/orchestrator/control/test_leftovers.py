"""What a pass gives back or tells although no task needs it: blocks, old requests, events."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from orchestrator.contracts import EventQuery
from orchestrator.control.mirror.records import Idempotency
from orchestrator.control.planning.reaper import REQUEST_GRACE
from orchestrator.store import keys
from orchestrator.store.base import Put
from specs.events import Event
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime


async def test_a_block_without_tasks_goes_back_while_its_network_lives_on():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        (network,) = rig.cluster.networks

        def holders():
            return {lease.node for lease in rig.cluster.leases[network].values()} & set(rig.nodes)

        assert holders() == {"n1", "n2"}
        (left,) = [t.node for t in rig.live() if t.slot == 1]
        await rig.control.scale("app", {"web": 1})
        await rig.until(lambda: len(rig.tasks()) == 1)
        await asyncio.sleep(30)
        assert holders() == {"n1", "n2"}, "law: an address that rests holds its block"
        await asyncio.sleep(90)
        assert holders() == {left}


async def test_a_request_is_known_for_a_day_and_then_forgotten():
    async with Rig() as rig:
        at = rig.clock.wall() - REQUEST_GRACE + 60
        made = Idempotency(stack="app", number=1, at=at)
        await rig.store.txn((), (Put(keys.idempotency("yesterday"), made.encode()),))
        await rig.up(project(web={}))
        await rig.deployed()
        assert set(rig.cluster.requests) == {"yesterday", "key-1"}
        await asyncio.sleep(90)
        await rig.control.scale("app", {"web": 2})
        await rig.until(lambda: set(rig.cluster.requests) == {"key-1"})
        await asyncio.sleep(90)
        assert set(rig.cluster.requests) == {"key-1"}, "law: a request of today is known"


async def test_every_state_of_a_task_is_an_event():
    async with Rig() as rig:
        told = []

        async def listen():
            async with contextlib.aclosing(rig.control.events(EventQuery("app"))) as events:
                async for event in events:
                    told.extend([event.kind] if event.task else [])

        listener = rig.group.create_task(listen())
        await asyncio.sleep(0)
        await rig.up(project(web={}))
        await rig.deployed()
        await rig.control.remove("app", volumes=False, timeout=None)
        await rig.until(lambda: "task.removed" in told)
        listener.cancel()
        assert [told[0], told[-1]] == ["task.assigned", "task.removed"]
        assert "task.running" in told
        assert len(told) == len(set(told)), "law: a state is told when it is reached, once"


async def test_no_event_shows_a_secret_value():
    async with Rig() as rig:
        told = []

        async def listen():
            async with contextlib.aclosing(rig.control.events(EventQuery())) as events:
                async for event in events:
                    told.append(event.message)  # noqa: PERF401 - one by one, as they come

        listener = rig.group.create_task(listen())
        await asyncio.sleep(0)
        said = "nft: DB_PASSWORD=hunter2 is no rule"
        rig.control.note(Event(time=1.0, kind="node.unready", node="host1", message=said))
        await rig.until(lambda: told)
        listener.cancel()
        assert told == ["nft: DB_PASSWORD=*** is no rule"]
        kept, _ = await rig.control.journal.read(EventQuery(history=True))
        assert [event.message for event in kept if event.kind == "node.unready"] == told
