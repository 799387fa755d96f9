"""`corral why` in one situation after the other, on the real loops in virtual time.

Each answer, as the command line prints it, lies in ``why/NAME.txt``; REWRITE=1 writes them anew,
to be read and committed. Where a situation is one that other orchestrators leave without a word,
its comment has the complaint.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from orchestrator.cli.show import times
from orchestrator.cli.show import why as show
from orchestrator.contracts import EventQuery
from orchestrator.control.telling.words import node_words, words_of
from orchestrator.errors import NotFound
from specs.kit.log import ASKED_BY
from specs.task import Run
from tests.fakes.simulator import Behaviour
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime
GOLDEN = Path(__file__).parent / "why"
GIB = 1 << 30


def reserves(memory=0, cpus=0.0, **more):
    found = {"reservations": {"memory": memory, **({"cpus": cpus} if cpus else {})}}
    return {"deploy": {"resources": found, **more}}


async def by(who, doing):
    token = ASKED_BY.set(who)
    try:
        return await doing
    finally:
        ASKED_BY.reset(token)


async def waited(rig, seconds=8.0):
    await asyncio.sleep(seconds)


async def no_memory(rig):  # 16: stuck without a visible error
    await rig.up(project(web=reserves(16 * GIB)))
    await waited(rig)
    return "web"


HOST1 = {"constraints": ["node.hostname == host1"]}


def three(last):
    """Return services of which the third has 3 GiB left at most."""
    first = reserves(6 * GIB, placement=HOST1)
    return project(a=first, b=reserves(5 * GIB), c=reserves(last * GIB))


async def a_little_too_much(rig):
    await rig.up(three(4))
    await waited(rig)
    return "c"


async def no_cpus(rig):
    await rig.up(project(web=reserves(0, 6.0)))
    await waited(rig)
    return "web-1"


async def no_label(rig):  # 30: waits for a constraint to be satisfied
    await rig.up(
        project(web={"deploy": {"placement": {"constraints": ["node.labels.gpu == yes"]}}})
    )
    await waited(rig)
    return "web"


async def two_rules(rig):
    web = reserves(16 * GIB, placement={"constraints": ["node.labels.gpu == yes"]})
    await rig.up(project(web=web))
    await waited(rig)
    return "web"


async def a_held_port(rig):
    ports = [{"target": 80, "published": "8080", "mode": "host"}]
    await rig.up(project(one={"ports": ports}))
    await rig.deployed()
    await rig.up(project(two=replicas(2, ports=ports)), stack="app2")
    await waited(rig)
    return "two", "app2"


async def max_a_node(rig):  # 13: start-first and one a node
    update = {"order": "start-first"}
    web = replicas(3, deploy={"placement": {"max_replicas_per_node": 1}}, update=update)
    await rig.up(project(web=web))
    await waited(rig)
    return "web"


async def all_nodes_closed(rig):
    for node in list(rig.cluster.nodes.values()):
        await rig.put_node(node.model_copy(update={"availability": "pause"}))
    await asyncio.sleep(1)
    await rig.up(project(web={}))
    await waited(rig)
    return "web"


async def another_platform(rig):
    await rig.up(project(web={"platform": "linux/arm64"}))
    await waited(rig)
    return "web"


async def gated(rig):  # 1: depends_on ignored
    rig.how["db"] = Behaviour(never_ready=True)
    files = project(db=CHECK, api={**after("service_healthy", "db"), **CHECK},
                    web=after("service_healthy", "api"))  # fmt: skip
    await rig.up(files)
    await waited(rig, 3)
    return "web"


async def gated_by_a_migration(rig):
    rig.how["migrate"] = Behaviour(exit_code=3, again=True, log_tail=("no such table",))
    await rig.up(project(migrate={"restart": "on-failure"},
                         web=after("service_completed_successfully", "migrate")))  # fmt: skip
    await waited(rig, 2)
    return "web-1"


async def a_crash_loop(rig):  # 12: an update that hangs
    rig.how["web"] = Behaviour(exit_code=127, again=True, log_tail=("sh: serve: not found",))
    await rig.up(project(web={"restart": "always"}))
    await waited(rig, 4)
    return "web"


async def out_of_memory(rig):
    await rig.up(project(web={"restart": "always", "mem_limit": 64 << 20}))
    await rig.deployed()
    task = rig.ready("web")[0]
    ended = Run(number=1, started_at=1.0, finished_at=2.0, exit_code=137, oom=True)
    fake = rig.fake_of(task)
    fake.say(task.id, runs=(ended,), restarts=1, ready=False)
    await asyncio.sleep(0.02)
    return "web-1"


async def a_job_that_fails_once_deployed(rig):
    rig.how["work"] = Behaviour(exit_code=3, runs_for=20)
    more = {"x-corral": {"max_concurrent": 2}}
    await rig.up(
        project(web={}, work={"deploy": {"mode": "replicated-job", "replicas": 5}, **more})
    )
    await rig.deployed()
    await asyncio.sleep(30)  # two have failed, two run
    return "app"


async def ended_for_good(rig):  # 31: max_attempts are opaque
    rig.how["web"] = Behaviour(exit_code=1)
    policy = {"condition": "on-failure", "max_attempts": 1}
    await rig.up(project(web={"deploy": {"restart_policy": policy}}))
    await waited(rig, 20)
    return "web"


async def no_image(rig):
    rig.how["web"] = Behaviour(reject="manifest unknown")
    await rig.up(project(web={}))
    await waited(rig)
    return "web"


async def unhealthy(rig):  # 34: liveness and readiness
    rig.how["web"] = Behaviour(healthy=0.1)
    await rig.up(project(web={**CHECK}))
    await rig.deployed()
    task = rig.ready("web")[0]
    rig.fake_of(task).unhealthy(task.id)
    await asyncio.sleep(1)
    return "web-1"


async def moved_after_node_loss(rig):  # 36: a node is lost
    await rig.up(project(web={}))
    await rig.deployed()
    task = rig.ready("web")[0]
    await rig.fake_of(task).cut("no route to host")
    await rig.until(lambda: any(t.id != task.id for t in rig.ready("web")))
    return max(rig.tasks("web"), key=lambda t: t.created_at).id


async def lost_and_replaced(rig):
    await rig.up(project(web={}))
    await rig.deployed()
    task = rig.ready("web")[0]
    await rig.fake_of(task).cut("no route to host")
    await rig.until(lambda: any(t.id != task.id for t in rig.ready("web")))
    return task.id


async def tied_to_a_lost_node(rig):  # 18: volumes are local
    data = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
    await rig.up(project(db=data, top={"volumes": {"data": {"name": "app_data"}}}))
    await rig.deployed()
    await rig.fake_of(rig.ready("db")[0]).cut("no route to host")
    await waited(rig, 10)
    return "db"


async def a_lost_node(rig):
    await tied_to_a_lost_node(rig)
    return rig.cluster.nodes[rig.tasks("db")[0].node].name


async def most_are_silent(rig):  # 36: a partition
    await rig.up(project(web=replicas(3)))
    await rig.deployed()
    for fake in list(rig.nodes.values())[:2]:
        await fake.cut("no route to host")
    await waited(rig, 10)
    return "host2"


async def drained_by_somebody(rig):  # 17: drain
    await rig.up(project(web={}))
    await rig.deployed()
    node = rig.cluster.nodes[rig.ready("web")[0].node]
    new = node.model_copy(update={"availability": "drain"})
    token = ASKED_BY.set("anna@laptop")
    told = rig.control.journal.of_nodes(node, new)
    ASKED_BY.reset(token)
    await rig.put_node(new)
    await rig.store.txn((), tuple(told.writes))
    rig.control.journal.written(told, 0)
    await rig.until(lambda: any(t.node != node.id for t in rig.ready("web")))
    return node.name


async def moved_by_a_drain(rig):
    await drained_by_somebody(rig)
    await waited(rig, 10)
    return rig.ready("web")[0].id


async def a_full_disk(rig):
    await rig.up(project(web={}))
    await rig.deployed()
    rig.control._health.troubled("n2", "", "its disk is full: 12 MiB are left")
    rig.control._hear()
    await asyncio.sleep(1)
    return "host2"


async def a_healthy_node(rig):
    return "host1"


async def scaled_by_somebody(rig):
    await rig.up(project(web={}))
    await rig.deployed()
    await by("anna@laptop", rig.control.scale("app", {"web": 3}))
    await rig.until(lambda: len(rig.ready("web")) == 3)
    return "web"


async def stopped_by_somebody(rig):
    await rig.up(project(web={}, db={}))
    await rig.deployed()
    await by("anna@laptop", rig.control.stop("app", None, ("web",)))
    await waited(rig, 2)
    return "web"


async def a_stopped_stack(rig):
    await rig.up(project(web={}))
    await rig.deployed()
    await by("anna@laptop", rig.control.stop("app", None))
    await waited(rig, 2)
    return "stack/app"


async def restarted_by_somebody(rig):
    await rig.up(project(web={}))
    await rig.deployed()
    await by("anna@laptop", rig.restart("web"))
    await waited(rig, 2)
    return "web-1"


async def paused(rig):
    await rig.up(project(web={}))
    await rig.deployed()
    await rig.control.pause("app", ("web",), paused=True)
    await waited(rig, 2)
    return "web-1"


async def replaced_by_an_update(rig):  # 2, 32: what is replaced, and what is not
    await rig.up(project(web={}, db={}))
    await rig.deployed()
    await by("anna@laptop", rig.up(project(web={"image": "web:2"}, db={})))
    await rig.deployed()
    return "web-1"


async def left_alone_by_an_update(rig):  # 32: unchanged services restarted
    await replaced_by_an_update(rig)
    return "db"


async def a_failed_update(rig):  # 12, 14: the update stops with the first that fails
    await rig.up(project(web=replicas(2)))
    await rig.deployed()
    rig.how["web:2"] = Behaviour(exit_code=1, log_tail=("bad config",))
    await by("anna@laptop", rig.up(project(web=replicas(2, image="web:2"))))
    await rig.end_of()
    return "stack/app"


async def rolled_back(rig):
    update = {"failure_action": "rollback"}
    await rig.up(project(web=replicas(2, update=update)))
    await rig.deployed()
    rig.how["web:2"] = Behaviour(exit_code=1)
    await rig.up(project(web=replicas(2, image="web:2", update=update)))
    await rig.end_of()
    await waited(rig, 5)
    return "stack/app"


async def superseded(rig):  # 33: one after the other
    rig.agents.delay = 5.0
    await rig.up(project(web={}))
    await by("ben@desk", rig.up(project(web={"image": "web:2"})))
    await asyncio.sleep(1)
    return "stack/app"


async def an_image_nobody_has(rig):
    rig.agents.fail["web:1"] = NotFound("web:1 is not in the registry")
    await rig.up(project(web={}))
    await rig.end_of()
    return "stack/app"


async def a_removed_stack(rig):  # 33: rm, then deploy
    await rig.up(project(web={}))
    await rig.deployed()
    await by("anna@laptop", rig.control.remove("app", volumes=False, timeout=None))
    await rig.until(lambda: "app" not in rig.cluster.stacks)
    return "app"


async def spread_over_what_is_reserved(rig):  # 28, 29: who is where
    await rig.up(project(web=replicas(2, **reserves(GIB)) | reserves(GIB, replicas=2)))
    await rig.deployed()
    return "web"


async def a_healthy_stack(rig):
    await rig.up(project(web={}))
    await rig.deployed()
    return "stack/app"


SITUATIONS = {
    each.__name__: each
    for each in (
        no_memory, a_little_too_much, no_cpus, no_label, two_rules, a_held_port, max_a_node,
        all_nodes_closed, another_platform, gated, gated_by_a_migration, a_crash_loop,
        a_job_that_fails_once_deployed, out_of_memory, ended_for_good, no_image, unhealthy,
        moved_after_node_loss,
        lost_and_replaced, tied_to_a_lost_node, a_lost_node, most_are_silent, drained_by_somebody,
        moved_by_a_drain, a_full_disk, a_healthy_node, scaled_by_somebody, stopped_by_somebody,
        a_stopped_stack, restarted_by_somebody, paused, replaced_by_an_update,
        left_alone_by_an_update, a_failed_update, rolled_back, superseded, an_image_nobody_has,
        a_removed_stack, spread_over_what_is_reserved, a_healthy_stack,
    )
}  # fmt: skip
THREE = {"most_are_silent"}


def in_utc(moment):
    import time

    return time.strftime("%H:%M:%S", time.gmtime(moment or 0))


async def answered(rig, situation):
    found = await SITUATIONS[situation](rig)
    name, stack = found if isinstance(found, tuple) else (found, "app")
    return await rig.control.why(name, stack)


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_why_in_every_situation(situation, monkeypatch):
    monkeypatch.setattr(times, "of_day", in_utc)
    async with Rig(nodes=3 if situation in THREE else 2) as rig:
        why = await answered(rig, situation)
    text = show.text(why.model_dump(mode="json"))
    text = re.sub(r"\bt1[0-9a-z]{12}\b", "TASK", text)
    path = GOLDEN / f"{situation}.txt"
    if os.environ.get("REWRITE"):
        path.write_text(text)
    assert text == path.read_text()


def test_there_are_as_many_situations_as_answers():
    assert len(SITUATIONS) >= 30
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(SITUATIONS)


@pytest.mark.parametrize("situation", ["no_memory", "gated", "a_crash_loop", "unhealthy"])
async def test_why_and_ps_say_it_in_the_same_words(situation):
    async with Rig(nodes=2) as rig:
        await answered(rig, situation)
        now = rig.clock.wall()
        for task in rig.live():
            why = await rig.control.why(task.id, "app")
            assert why.answer.endswith(words_of(rig.cluster, task, now).text)
        for node in rig.cluster.nodes.values():
            said = node_words(rig.cluster, node, now)
            assert said in (await rig.control.why(node.name, "")).answer


async def test_what_is_proposed_helps():
    async with Rig(nodes=2) as rig:
        await a_little_too_much(rig)
        why = await rig.control.why("c", "app")
        assert why.helps[0].startswith("reserve at most ")
        await rig.up(three(3))
        await rig.deployed()


@pytest.mark.parametrize("name", ["nope", "node/web", "task/host1", "stack/nope", "service/host1"])
async def test_what_is_nothing_is_refused_in_words(name):
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        with pytest.raises(NotFound, match="there is no "):
            await rig.control.why(name, "app")


async def test_what_a_name_means_can_be_said():
    async with Rig() as rig:
        files = project(host1={}, app={})
        await rig.up(files)
        await rig.deployed()
        meant = {n: (await rig.control.why(n, "app")).what for n in ("host1", "node/host1")}
        assert meant == {"host1": "service", "node/host1": "node"}
        assert (await rig.control.why("stack/app", "app")).what == "stack"


async def test_it_is_asked_without_writing_anything():
    async with Rig() as rig:
        await rig.up(project(web=reserves(16 * GIB)))
        await waited(rig)
        before, events = rig.cluster.revision, await rig.control.journal.read(EventQuery("app"))
        await rig.control.why("web", "app")
        assert rig.cluster.revision == before
        assert await rig.control.journal.read(EventQuery("app")) == events
