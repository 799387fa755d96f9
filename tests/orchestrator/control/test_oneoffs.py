"""`corral run`: a container beside the replicas, once: real loops, simulated nodes.

Law: whatever becomes of a one-off, the services of its stack are as they were; it runs at most
once; and nothing of it is left when it was removed.
"""

from __future__ import annotations

import pytest

from orchestrator.errors import Conflict, Invalid, NotFound
from specs.api import ClientMachine
from specs.oneoff import ActOnOneOffs, StartOneOff
from specs.states import FINAL, TaskState
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

STAYS = Behaviour()


def asked(rig, services, service="web", **more):
    no_deps = more.pop("no_deps", False)
    deploy = rig.request(services, services=(service,), no_deps=no_deps)
    if (key := more.pop("key", "")) != "":
        deploy = deploy.model_copy(update={"key": key})
    return StartOneOff(deploy=deploy, service=service, **more)


async def answer(rig, request, stack="app"):
    lines = [line async for line in rig.control.start_oneoff(stack, request)]
    return lines[-1]


async def run(rig, services, service="web", **more):
    """Make one; return what the store has of it."""
    end = await answer(rig, asked(rig, services, service, **more))
    assert end.ok, end
    return lambda: rig.cluster.oneoffs.get(end.task)


def ended(one):
    return one() is not None and one().over


async def test_it_runs_beside_the_replicas_which_stay_as_they_were():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2), db={}))
        await rig.deployed()
        before = [(t.id, t.status.run.pid) for t in rig.live()]
        release = rig.release()
        one = await run(rig, project(web=replicas(2, command=["report"]), db={}))
        await rig.until(lambda: one().task.state is TaskState.RUNNING)
        assert one().task.name.startswith("app-web-run-")
        rig.how["web:1"] = Behaviour(exit_code=3)
        rig.fake_of(one().task).end(one().id, 3)
        await rig.until(lambda: ended(one))
        assert one().task.status.run.exit_code == 3
        assert len(one().task.status.runs) == 1, "law: it runs at most once"
        assert [(t.id, t.status.run.pid) for t in rig.live()] == before
        assert rig.release() == release, "law: it is no release"


# what it waits for, and what comes of it: (dependency's edge, its containers, what becomes)
EDGES = [
    ("service_started", {}, STAYS, "runs"),
    ("service_healthy", CHECK, Behaviour(healthy=5.0), "runs"),
    ("service_healthy", CHECK, Behaviour(never_ready=True), "waits for db to be healthy"),
    ("service_completed_successfully", {}, Behaviour(exit_code=0, runs_for=3.0), "runs"),
    ("service_completed_successfully", {}, Behaviour(exit_code=7, runs_for=3.0), "never"),
    ("service_completed_successfully", {}, STAYS, "waits for db to complete"),
]


@pytest.mark.parametrize(("condition", "more", "how", "becomes"), EDGES)
async def test_it_waits_for_what_its_service_depends_on(condition, more, how, becomes):
    async with Rig() as rig:
        rig.how["db"] = how
        services = project(db={**more, "restart": "no"}, web=after(condition, "db"))
        end = await answer(rig, asked(rig, services))
        assert (end.ok, end.needs) == (False, ("db",)), "nothing is made before what it needs is"
        await rig.up(services, services=("db",))
        one = await run(rig, services, dependencies=False)
        match becomes:
            case "runs":
                await rig.until(lambda: one().task.state is TaskState.RUNNING)
                assert rig.tasks("db")[0].status.run is not None
            case "never":
                await rig.until(lambda: ended(one))
                assert "db did not complete" in one().task.status.reason
                assert one().task.status.run is None
            case _:
                await rig.until(lambda: becomes in one().task.pending_reason)


async def test_what_runs_as_the_file_has_it_needs_no_release():
    async with Rig() as rig:
        services = project(db={}, web=after("service_started", "db"), other={})
        await rig.up(services)
        await rig.deployed()
        assert (await answer(rig, asked(rig, services))).ok
        changed = project(db={"command": ["new"]}, web=after("service_started", "db"), other={})
        assert (await answer(rig, asked(rig, changed))).needs == ("db",)
        assert (await answer(rig, asked(rig, changed, no_deps=True))).ok
        await rig.control.stop("app", None, ("db",))
        assert (await answer(rig, asked(rig, services))).needs == ("db",)


async def test_the_first_thing_of_a_stack_and_the_last():
    async with Rig() as rig:
        one = await run(rig, project(web={}))
        await rig.until(lambda: one().task.state is TaskState.RUNNING)
        assert one().addresses
        await rig.up(project(web={}))  # an `up` meanwhile: it is no replica of this
        await rig.deployed()
        assert one().task.state is TaskState.RUNNING
        assert [t.name for t in rig.live()] == ["app-web-1"]
        await rig.control.remove("app", volumes=False, timeout=None)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        assert not rig.cluster.oneoffs
        assert not any(fake.tasks for fake in rig.nodes.values()), "law: nothing of it is left"


@pytest.mark.parametrize("remove", [True, False])
@pytest.mark.parametrize("meanwhile", ["", "controller", "agent", "stop"])
async def test_what_becomes_of_it(remove, meanwhile):
    async with Rig(nodes=2) as rig:
        one = await run(rig, project(web={}), remove=remove)
        await rig.until(lambda: one().task.state is TaskState.RUNNING)
        node = rig.fake_of(one().task)
        if meanwhile == "controller":
            await rig.restart_controller()
        elif meanwhile == "agent":
            await node.lose_agent()
            await node.connect()
        if meanwhile == "stop":
            name = one().task.name
            request = ActOnOneOffs(action="stop", names=(name,), timeout=1)
            assert (await rig.control.act_on_oneoffs("app", request)).names == (name,)
        else:
            node.end(one().id, 0)
        await rig.until(lambda: ended(one))
        assert len(one().task.status.runs) == 1
        if remove:
            await rig.until(lambda: one().gone_at)
            assert not node.tasks, "law: with --rm nothing is left, whoever asked is there or not"
            assert one().task.status.run.exit_code is not None, "who asks late still has its code"
            await rig.until(lambda: one() is None, within=120)
        else:
            assert one().shown
            request = ActOnOneOffs(action="remove", services=("web",))
            await rig.control.act_on_oneoffs("app", request)
            await rig.until(lambda: one().gone_at)
            assert not node.tasks


async def test_a_node_that_is_lost_takes_it_along_and_it_does_not_run_elsewhere():
    async with Rig(nodes=2) as rig:
        one = await run(rig, project(web={}))
        await rig.until(lambda: one().task.state is TaskState.RUNNING)
        node = rig.fake_of(one().task)
        await node.cut()
        await rig.until(lambda: rig.cluster.conditions[node.node.id].status == "down", within=120)
        assert one().task.node == node.node.id
        await rig.remove_node(node.node.id)
        await rig.until(lambda: one() is None or one().gone_at)
        assert not [n for n in rig.nodes.values() if n is not node and n.tasks]


async def test_a_reboot_ends_it():
    async with Rig() as rig:
        one = await run(rig, project(web={"restart": "always"}))
        await rig.until(lambda: one().task.state is TaskState.RUNNING)
        node = rig.fake_of(one().task)
        await node.reboot()
        await node.connect()
        await rig.until(lambda: ended(one))
        assert len(one().task.status.runs) == 1, "law: it runs at most once"


async def test_said_twice_it_is_one():
    async with Rig() as rig:
        first = await answer(rig, asked(rig, project(web={}), key="same"))
        again = await answer(rig, asked(rig, project(web={}), key="same"))
        assert first.task == again.task
        assert len(rig.cluster.oneoffs) == 1


REFUSED = [
    ({"service": "wbe"}, {}, Invalid, "no service wbe"),
    ({"name": "app-web-1"}, {}, Conflict, "in use"),
    ({"name": "a b"}, {}, Invalid, "a b"),
    ({}, {"ports": [{"target": 80, "published": "8080", "protocol": "tcp"}]}, Invalid, "8080"),
    ({}, {"deploy": {"placement": {"constraints": ["nonsense"]}}}, Invalid, "nonsense"),
]


@pytest.mark.parametrize(("request_", "service", "error", "words"), REFUSED)
async def test_what_is_refused(request_, service, error, words):
    async with Rig() as rig:
        port = {"target": 80, "published": "8080", "protocol": "tcp"}
        await rig.up(project(web={"ports": [port]}))
        await rig.deployed()
        with pytest.raises(error) as caught:
            await answer(rig, asked(rig, project(web=service), **request_))
        assert words in str(caught.value.detail) + str(getattr(caught.value, "problems", ""))
        assert not rig.cluster.oneoffs
        request = ActOnOneOffs(action="stop", names=("nope",))
        with pytest.raises(NotFound):
            await rig.control.act_on_oneoffs("app", request)


async def test_the_name_of_what_was_stopped_is_in_use_until_it_is_removed():
    """`start` makes it again, and there would be two of one name."""
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        await rig.control.stop("app", 0)
        await rig.until(lambda: all(t.state in FINAL for t in rig.cluster.tasks.values()))
        again = asked(rig, project(web={}), name="app-web-1")
        with pytest.raises(Conflict, match="in use") as caught:
            await answer(rig, again)
        assert "corral -p app rm web" in str(caught.value.hint)
        await rig.control.forget("app", ("web",))
        assert (await answer(rig, again)).ok


async def test_ports_and_names_are_its_own_unless_it_takes_the_services():
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        port = {"target": 80, "published": "8081", "protocol": "tcp"}
        one = await run(rig, project(web={"ports": [port]}))
        two = await run(rig, project(web={}), aliases=True)
        await rig.until(lambda: one().task.status.ready and two().task.status.ready)
        services = rig.nodes["n1"].wanted.services.values()
        held = {s.service: {e.task for e in s.endpoints} for s in services}
        (web,) = rig.live("web")
        assert held["web"] == {web.id, two().id}
        assert held[one().task.name] == {one().id}
        published = {s.service: [p.published for p in s.ports] for s in services}
        assert published[one().task.name] == [8081]
        with pytest.raises(Invalid, match="8081"):
            await rig.up(project(web={"ports": [port]}), stack="other")


@pytest.mark.parametrize("name", ["web", "db", "new"])
async def test_the_name_of_a_service_is_not_for_a_one_off(name):
    """To nodes a one-off is a service of its name: it would take that one's endpoints and data."""
    async with Rig() as rig:
        port = {"target": 80, "published": "8080", "protocol": "tcp"}
        await rig.up(project(web={"ports": [port]}, db={}))
        await rig.deployed()
        held = rig.nodes["n1"].wanted.services
        with pytest.raises(Conflict, match=f"{name} is a service of the stack"):
            await answer(rig, asked(rig, project(web={}, new={}), name=name))
        assert not rig.cluster.oneoffs
        assert rig.nodes["n1"].wanted.services == held


@pytest.mark.parametrize("over", [True, False])
async def test_the_name_of_a_one_off_is_not_for_a_service(over):
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        one = await run(rig, project(web={}), name="db", remove=True)
        await rig.until(lambda: one().task.state is TaskState.RUNNING)
        if over:
            rig.fake_of(one().task).end(one().id, 0)
            await rig.until(lambda: one() is None or one().gone_at)
            await rig.up(project(web={}, db={}))
            await rig.deployed()
            return
        with pytest.raises(Invalid, match="db is the name of a container that `run` made"):
            await rig.up(project(web={}, db={}))
        await rig.up(project(web={}, db={}), stack="other")
        await rig.deployed("other")


@pytest.mark.parametrize("internal", [True, False])
async def test_a_file_that_says_otherwise_changes_no_network_that_is_in_use(internal):
    async with Rig() as rig:
        services, edited = project(web={}), project(web={})
        services["networks"]["default"]["internal"] = internal
        edited["networks"]["default"]["internal"] = not internal
        await rig.up(services)
        await rig.deployed()
        one = await run(rig, edited)
        await rig.until(lambda: one().task.state is TaskState.RUNNING)
        assert [n.internal for n in rig.cluster.networks.values()] == [internal]


def bound(rig, client, *, here=("/data",), source="/srv/x"):
    mount = {"type": "bind", "source": source, "target": "/data"}
    services = project(web={"volumes": [mount]})
    request = asked(rig, services, here=here)
    deploy = request.deploy.model_copy(update={"client": client})
    return request.model_copy(update={"deploy": deploy})


@pytest.mark.parametrize("node", [1, 2, 3])
async def test_a_path_that_is_typed_is_one_of_the_machine_it_is_typed_on(node):
    """Law: `run -v /srv/x:/data` never binds what another machine has under that path."""
    async with Rig(nodes=3) as rig:
        client = ClientMachine(hostname=f"host{node}", boot_id=f"boot{node}")
        end = await answer(rig, bound(rig, client))
        assert (end.ok, end.warnings) == (True, ())
        one = lambda: rig.cluster.oneoffs[end.task]  # noqa: E731
        await rig.until(lambda: one().task.state is TaskState.RUNNING)
        assert one().task.node == f"n{node}"


async def test_where_the_machine_is_no_node_it_is_said_whose_path_it_is():
    async with Rig(nodes=3) as rig:
        end = await answer(rig, bound(rig, ClientMachine(hostname="laptop", boot_id="other")))
        assert end.ok
        (warning,) = end.warnings
        assert "-v /srv/x: laptop is no node of the cluster" in warning.message
        assert "node.hostname" in warning.hint


async def test_a_typed_path_waits_for_its_machine_and_says_so():
    async with Rig(nodes=2) as rig:
        await rig.put_node(rig.nodes["n2"].node.model_copy(update={"availability": "drain"}))
        end = await answer(rig, bound(rig, ClientMachine(hostname="host2", boot_id="boot2")))
        one = lambda: rig.cluster.oneoffs[end.task]  # noqa: E731
        await rig.until(lambda: "path /srv/x of host2" in one().task.pending_reason)
