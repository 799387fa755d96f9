"""What a release is not about: orphans, services of an off profile, unasked ones.

The first table says what becomes of a service that the next `up` does not mention, as
Docker Compose has it: kept and warned of, unless its profile is off (kept in silence) or
``--remove-orphans`` was given. The second says which tasks a partial `up` replaces.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator.api.rows import service_rows
from orchestrator.errors import Invalid
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

PORT = {"ports": [{"target": 80, "published": "8080", "protocol": "tcp", "mode": "ingress"}]}
RUN = ("starting", "running")
HOST_PORT = {"ports": [{"target": 80, "published": "8080", "protocol": "tcp", "mode": "host"}]}


async def warned(rig: Rig, spec: dict[str, Any], **more: Any) -> list[str]:
    """Deploy, wait, and return the codes of what was warned."""
    rig.deploys += 1
    from specs.api import ClientMachine, Deploy

    client = ClientMachine(hostname="host1", boot_id="boot1")
    request = Deploy(key=f"key-{rig.deploys}", project=spec, client=client, **more)
    row = await rig.control.deploy("app", request)
    await rig.deployed()
    return [w.code for w in row.warnings]


def ids(rig: Rig) -> dict[str, str]:
    return {task.name.removeprefix("app-"): task.id for task in rig.live()}


# what becomes of "old", which the first `up` brought


@pytest.mark.parametrize(
    ("next_up", "kept", "warns"),
    [
        pytest.param({}, True, True, id="gone from the file"),
        pytest.param({"remove_orphans": True}, False, False, id="--remove-orphans"),
        pytest.param({"known": ("old",)}, True, False, id="its profile is off"),
        pytest.param(
            {"known": ("old",), "remove_orphans": True}, True, False, id="off is no orphan"
        ),
        pytest.param({"services": ("web",)}, True, True, id="orphan beside a partial up"),
        pytest.param(
            {"services": ("web",), "remove_orphans": True}, False, False, id="partial, removed"
        ),
        pytest.param({"force_recreate": True}, True, True, id="--force-recreate is not about it"),
        pytest.param({"no_deps": True, "services": ("web",)}, True, True, id="--no-deps"),
    ],
)
async def test_a_service_the_next_up_lacks(next_up, kept, warns):
    async with Rig() as rig:
        await rig.up(project(web={}, old=replicas(2)))
        await rig.deployed()
        before = ids(rig)
        codes = await warned(rig, project(web={"image": "web:2"}), **next_up)
        now = ids(rig)
        assert now["web-1"] != before["web-1"]
        assert {n: i for n, i in now.items() if n.startswith("old")} == (
            {n: i for n, i in before.items() if n.startswith("old")} if kept else {}
        )
        assert codes == (["orphans"] if warns else [])


async def test_an_orphan_is_carried_on_and_on_and_replaced_when_it_is_lost():
    async with Rig(nodes=2) as rig:
        await rig.up(project(old=replicas(2, image="old:7", restart="always")))
        await rig.deployed()
        was = {t.spec_hash for t in rig.live("old")}
        for number in range(3):
            await rig.up(project(web={"image": f"web:{number}"}))
            await rig.deployed()
        (task, *_) = rig.live("old")
        await rig.control.scale("app", {"old": 3})
        await rig.until(lambda: len(rig.ready("old")) == 3)
        rig.fake_of(task).end(task.id, 1)
        await rig.until(
            lambda: len(rig.ready("old")) == 3 and task.id not in {t.id for t in rig.live("old")}
        )
        assert {t.spec_hash for t in rig.live("old")} == was
        images = {a.spec.image for n in rig.nodes.values() for a in n.wanted.tasks.values()}
        assert "old:7" in images
        # Its image is not asked for any more: the registry may be gone.
        rig.agents.asked.clear()
        await rig.up(project(web={}))
        await rig.deployed()
        assert {image for image, _ in rig.agents.asked} == {"web:1"}
        # It survives history's end and the controller's.
        for number in range(25):
            await rig.up(project(web={"environment": {"N": str(number)}}))
            await rig.deployed()
        await rig.restart_controller()
        (task, *_) = rig.live("old")
        await rig.until(lambda: rig.cluster.conditions["n1"].status == "ready")
        rig.fake_of(task).end(task.id, 1)
        await rig.until(
            lambda: len(rig.ready("old")) == 3 and task.id not in {t.id for t in rig.live("old")}
        )
        assert {t.spec_hash for t in rig.live("old")} == was


async def test_an_orphan_that_comes_back_into_the_file_is_not_replaced():
    async with Rig() as rig:
        both = project(web={}, old={})
        await rig.up(both, force_recreate=True)
        await rig.deployed()
        before = ids(rig)
        await rig.up(project(web={}))
        await rig.deployed()
        await rig.up(both)
        await rig.deployed()
        assert ids(rig) == before
        assert rig.cluster.parts[rig.release().spec].carried == {}


async def test_orphans_keep_what_their_keys_meant():
    async with Rig() as rig:
        volume = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
        first = {
            "volumes": {"data": {"name": "first"}},
            "networks": {"default": {"name": "app_one"}},
        }
        await rig.up(project(old={**volume, "restart": "always"}, top=first))
        await rig.deployed()
        before = ids(rig)
        other = {
            "volumes": {"data": {"name": "second"}},
            "networks": {"default": {"name": "app_two"}},
        }
        await rig.up(project(web=volume, top=other))
        await rig.deployed()
        await asyncio.sleep(100)
        assert ids(rig)["old-1"] == before["old-1"]
        task = rig.live("old")[0]
        rig.fake_of(task).end(task.id, 1)
        await rig.until(lambda: rig.ready("old") and rig.live("old")[0].id != task.id)
        (again,) = rig.live("old")
        assert {rig.cluster.networks[n].name for n in again.addresses} == {"app_one"}
        (web,) = rig.live("web")
        assert {rig.cluster.networks[n].name for n in web.addresses} == {"app_two"}
        wanted = rig.nodes["n1"].wanted.tasks
        assert set(wanted[again.id].volumes.values()) == {"first"}
        assert set(wanted[web.id].volumes.values()) == {"second"}
        assert {n.name for n in rig.cluster.networks.values() if not n.retired} == {
            "app_one",
            "app_two",
        }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(PORT, PORT, id="published port"),
        pytest.param(HOST_PORT, HOST_PORT, id="port of the host"),
        pytest.param({"container_name": "shop"}, {"container_name": "shop"}, id="container name"),
        pytest.param(
            {"networks": {"default": {"ipv4_address": "10.9.0.9"}}},
            {"networks": {"default": {"ipv4_address": "10.9.0.9"}}},
            id="fixed address",
        ),
    ],
)
async def test_what_an_orphan_holds_is_refused_with_the_way_out(old, new):
    async with Rig() as rig:
        net = {"default": {"name": "app_default", "ipam": {"config": [{"subnet": "10.9.0.0/24"}]}}}
        top = {"networks": net}
        await rig.up(project(old=old, top=top))
        await rig.deployed()
        with pytest.raises(Invalid) as caught:
            await rig.up(project(renamed=new, top=top))
        (problem,) = [p for p in caught.value.problems if p.severity == "error"]
        assert "app/old, which the Compose file no longer has" in problem.message
        assert "--remove-orphans" in problem.hint
        await rig.up(project(renamed=new, top=top), remove_orphans=True)
        await rig.deployed(within=200)
        assert not rig.tasks("old")


async def test_a_rollback_goes_back_to_the_very_set_of_its_release():
    async with Rig() as rig:
        update = {"failure_action": "rollback", "monitor": "1s"}
        await rig.up(project(web=replicas(1, update=update)))
        await rig.deployed()
        rig.how["web:2"] = Behaviour(reject="bad mount")
        await rig.up(project(web=replicas(1, update=update, image="web:2"), fresh={}))
        assert (await rig.end_of()).state == "rolled_back"
        stack = rig.cluster.stacks["app"]
        rows = service_rows(rig.cluster, stack, list(rig.tasks()))
        assert [(row.name, row.replicas, row.carried) for row in rows] == [("web", 1, "")]
        await rig.until(lambda: not rig.tasks("fresh"))
        await rig.until(lambda: rig.ready("web"))
        await rig.up(project(other={}))
        await rig.deployed()
        assert sorted(ids(rig)) == ["other-1", "web-1"], "fresh went with the rollback"


async def test_services_of_two_files_share_a_stack():
    async with Rig() as rig:
        await rig.up(project(a={}))
        await rig.deployed()
        await rig.up(project(b={}))
        await rig.deployed()
        await rig.up(project(a={}))
        await rig.deployed()
        assert sorted(ids(rig)) == ["a-1", "b-1"]
        await rig.control.stop("app", 0)
        assert (await rig.end_of()).ok
        await rig.up(project(a={}))
        await rig.deployed()
        await rig.until(lambda: sorted(ids(rig)) == ["a-1", "b-1"])
        await rig.control.remove("app", volumes=False, timeout=0)
        assert (await rig.end_of()).ok
        await rig.up(project(a={}))
        await rig.deployed()
        assert sorted(ids(rig)) == ["a-1"], "what was removed does not come back"


async def test_an_orphan_removed_a_moment_ago_is_not_found_again():
    async with Rig() as rig:
        rig.how["old"] = Behaviour(stop=5.0)
        await rig.up(project(web={}, old={}))
        await rig.deployed()
        await rig.up(project(web={}), remove_orphans=True)
        await rig.until(lambda: not rig.live("old"))
        await rig.up(project(web={}))
        await rig.deployed()
        assert not rig.tasks("old")


# what a partial `up` replaces

CHAIN = {"db": {}, "api": after("service_started", "db"), "web": after("service_started", "api")}


@pytest.mark.parametrize(
    ("change", "asked", "replaced"),
    [
        pytest.param({}, {"services": ("api",)}, "", id="nothing changed"),
        pytest.param({"api": "2"}, {"services": ("api",)}, "api", id="it changed"),
        pytest.param({"db": "2"}, {"services": ("api",)}, "db", id="a dependency changed"),
        pytest.param({"web": "2"}, {"services": ("api",)}, "", id="a dependent changed"),
        pytest.param({"aside": "2"}, {"services": ("api",)}, "", id="another one changed"),
        pytest.param(
            {}, {"services": ("api",), "force_recreate": True}, "api", id="--force-recreate api"
        ),
        pytest.param({}, {"force_recreate": True}, "api aside db web", id="--force-recreate"),
        pytest.param(
            {"db": "2"}, {"services": ("api",), "no_deps": True}, "", id="--no-deps, db changed"
        ),
        pytest.param(
            {"api": "2", "db": "2"}, {"services": ("api",), "no_deps": True}, "api", id="--no-deps"
        ),
        pytest.param(
            {},
            {"services": ("api",), "always_recreate_deps": True},
            "db",
            id="--always-recreate-deps",
        ),
        pytest.param(
            {},
            {"services": ("api",), "always_recreate_deps": True, "force_recreate": True},
            "api db",
            id="--always-recreate-deps --force-recreate",
        ),
        pytest.param(
            {"db": "2", "aside": "2"}, {"services": ("api", "aside")}, "aside db", id="two"
        ),
    ],
)
async def test_what_a_partial_up_replaces(change, asked, replaced):
    async with Rig() as rig:
        services = {**CHAIN, "aside": {}}
        await rig.up(project(**services))
        await rig.deployed()
        before = ids(rig)
        changed = {
            n: {**s, **({"image": f"{n}:{change[n]}"} if n in change else {})}
            for n, s in services.items()
        }
        await rig.up(project(**changed), **asked)
        await rig.deployed()
        await asyncio.sleep(10)
        now = ids(rig)
        assert sorted(n[:-2] for n in now if now[n] != before[n]) == replaced.split()
        # The release after it replaces what the file has otherwise, and nothing twice.
        await rig.up(project(**changed))
        await rig.deployed()
        last = ids(rig)
        left = set(change) - set(replaced.split())
        assert {n[:-2] for n in last if last[n] != now[n]} == left


WEB = {"services": ("web",)}
BUILD, NO_DEPS = {"build": "always"}, {"no_deps": True}


@pytest.mark.parametrize(
    ("there", "asked", "built"),
    [
        pytest.param(True, {**BUILD, **WEB}, {"web"}, id="--build web"),
        pytest.param(True, BUILD, {"web", "db", "aside"}, id="--build"),
        pytest.param(True, WEB, set(), id="web"),
        pytest.param(True, {**BUILD, **WEB, **NO_DEPS}, {"web"}, id="--build --no-deps web"),
        pytest.param(False, WEB, {"web", "db"}, id="web, nothing is built yet"),
        pytest.param(False, {**BUILD, **WEB}, {"web", "db"}, id="--build web, nothing yet"),
        pytest.param(False, {**WEB, **NO_DEPS}, {"web"}, id="--no-deps web, nothing yet"),
        pytest.param(False, {}, {"web", "db", "aside"}, id="all, nothing yet"),
    ],
)
async def test_what_a_partial_up_builds(there, asked, built):
    async with Rig() as rig:
        services = {
            "db": {"build": {"context": "/src/db"}},
            "web": {"build": {"context": "/src/web"}, **after("service_started", "db")},
            "aside": {"build": {"context": "/src/aside"}},
        }
        if there:
            await rig.up(project(**services))
            await rig.deployed()
        else:
            rig.agents.missing |= {f"{name}:1" for name in services}
        await rig.up(project(**services), **asked)
        lines = [line async for line in rig.control.progress("app", None)]
        assert {line.service for line in lines if line.kind == "build"} == built


BROKEN = [
    pytest.param({"image": "nope:1"}, id="its image cannot be had"),
    pytest.param({"image": "crash:1", "restart": "no"}, id="it exits"),
    pytest.param({"image": "reject:1"}, id="it cannot be prepared"),
    pytest.param(
        {"networks": {"default": {"link_local_ips": ["169.254.8.8"]}}, "userns_mode": "host"},
        id="a key is refused",
    ),
    pytest.param(
        {"ports": [{"target": 1, "published": "9000", "mode": "ingress"}]}, id="its port is taken"
    ),
    pytest.param({"deploy": {"placement": {"constraints": ["node.x == y"]}}}, id="constraint"),
    pytest.param(
        {"deploy": {"resources": {"reservations": {"memory": str(1 << 50)}}}}, id="fits nowhere"
    ),
]


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("first", ["alone", "after a failed up", "while it is under way"])
async def test_one_broken_service_does_not_stop_another(broken, first):
    async with Rig() as rig:
        rig.agents.fail["nope:1"] = Invalid(detail="there is no image nope:1")
        rig.how["crash:1"] = Behaviour(exit_code=3, runs_for=0.0)
        rig.how["reject:1"] = Behaviour(reject="no such device")
        node = rig.cluster.nodes["n1"]
        facts = node.facts.model_copy(update={"listening": ("9000/tcp",)})
        await rig.put_node(node.model_copy(update={"facts": facts}))
        await rig.until(lambda: rig.cluster.nodes["n1"].facts.listening)
        spec = project(other={}, dep={}, web=after("service_started", "dep"), broken=broken)
        try:
            if first != "alone":
                await rig.up(spec, deadline=20.0)
            if first == "after a failed up":
                assert not (await rig.end_of()).ok
            elif first == "while it is under way":
                await asyncio.sleep(0.03)
        except Invalid:
            pass
        await rig.up(spec, services=("web",))
        await rig.deployed(within=5)
        assert rig.ready("web")
        assert rig.ready("dep")
        await rig.up(spec, services=("other",))
        await rig.deployed(within=5)
        assert rig.ready("other")
        assert rig.ready("web")


async def test_a_partial_up_goes_on_after_a_paused_update_of_another():
    async with Rig() as rig:
        await rig.up(project(web=replicas(3), other={}))
        await rig.deployed()
        rig.how["web:2"] = Behaviour(reject="bad mount")
        bad = project(web=replicas(3, image="web:2"), other={"image": "other:2"})
        await rig.up(bad)
        assert (await rig.end_of()).state == "failed"
        serving = {t.id for t in rig.ready("web")}
        await rig.up(bad, services=("other",))
        await rig.deployed(within=7)
        assert {t.id for t in rig.ready("web")} >= serving
        await asyncio.sleep(60)
        assert {t.id for t in rig.ready("web")} >= serving
        # A repaired file goes on from here.
        await rig.up(project(web=replicas(3, image="web:3"), other={}))
        await rig.deployed()
        assert {t.release for t in rig.ready("web")} == {4}


async def test_after_a_stop_a_partial_up_starts_what_it_names_and_that_only():
    async with Rig() as rig:
        spec = project(**CHAIN, aside={}, all={"deploy": {"mode": "global"}})
        await rig.up(spec)
        await rig.deployed()
        await rig.control.stop("app", 0)
        assert (await rig.end_of()).ok
        await rig.up(spec, services=("api",))
        await rig.deployed()
        await asyncio.sleep(60)
        assert sorted(ids(rig)) == ["api-1", "db-1"]
        assert {t.state.value for t in rig.tasks("aside")} == {"shutdown"}
        await rig.up(spec, services=("web",))
        await rig.deployed()
        assert sorted(ids(rig)) == ["api-1", "db-1", "web-1"]
        await rig.control.scale("app", {"aside": 1})
        await rig.until(lambda: rig.ready("aside"))
        await rig.up(spec)
        await rig.deployed()
        assert sorted(ids(rig)) == ["all-1", "api-1", "aside-1", "db-1", "web-1"]


async def test_without_its_dependencies_a_service_waits_for_nobody():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(never_ready=True)
        spec = project(db=dict(CHECK), web=after("service_healthy", "db"))
        await rig.up(spec, services=("web",), no_deps=True)
        await rig.deployed(within=5)
        assert sorted(ids(rig)) == ["web-1"], "the dependency is not even created"
        await rig.up(spec)
        await rig.until(lambda: rig.live("db"))
        await rig.up(spec, services=("web",), no_deps=True, force_recreate=True)
        await rig.deployed(within=7)
        assert rig.ready("web")


async def test_the_progress_of_a_partial_up_is_about_what_it_names():
    async with Rig() as rig:
        spec = project(web={}, aside={})
        await rig.up(project(**spec["services"], old={}))
        await rig.deployed()
        await rig.up(spec, services=("web",))
        lines = [line async for line in rig.control.progress("app", None)]
        assert {line.service for line in lines if line.kind in ("task", "service")} == {"web"}
        assert {line.orphans for line in lines if line.kind == "release"} == {("old",)}


async def test_a_dependent_with_restart_follows_with_its_own_next_up():
    async with Rig() as rig:
        spec = project(db={}, web=after("service_started", "db", restart=True))
        await rig.up(spec)
        await rig.deployed()
        before = ids(rig)
        await rig.up(spec, services=("db",), force_recreate=True)
        await rig.deployed()
        now = ids(rig)
        assert now["db-1"] != before["db-1"]
        assert now["web-1"] == before["web-1"], "only db was named"
        await rig.up(spec)
        await rig.deployed()
        last = ids(rig)
        assert last["db-1"] == now["db-1"]
        assert last["web-1"] != now["web-1"]


@pytest.mark.parametrize(
    ("then", "ends", "left"),
    [
        pytest.param({"web": replicas(1)}, True, 1, id="fewer"),
        pytest.param({"web": replicas(4)}, True, 4, id="more"),
        pytest.param({"web": replicas(2, image="web:2")}, True, 2, id="another image and fewer"),
        pytest.param({"web": replicas(4), "bad": {"image": "reject:1"}}, False, 4, id="failed"),
        pytest.param({"web": replicas(1), "bad": {"image": "nope:1"}}, False, 3, id="no image"),
    ],
)
async def test_an_unasked_service_has_as_many_as_its_newest_release_wanted(then, ends, left):
    async with Rig() as rig:
        rig.agents.fail["nope:1"] = Invalid(detail="there is no image nope:1")
        rig.how["reject:1"] = Behaviour(reject="no such device")
        await rig.up(project(web=replicas(3), other={}))
        await rig.deployed()
        await rig.up(project(**then, other={}))
        assert (await rig.end_of()).ok is ends
        await rig.until(lambda: len(rig.ready("web")) == left)
        before = {n: i for n, i in ids(rig).items() if n.startswith("web")}
        await rig.up(project(web=replicas(7), other={"image": "other:2"}), services=("other",))
        await rig.deployed()
        await asyncio.sleep(30)
        assert {n: i for n, i in ids(rig).items() if n.startswith("web")} == before


async def test_an_order_that_was_turned_round_is_no_ring():
    async with Rig() as rig:
        await rig.up(project(a=after("service_started", "b"), b={}))
        await rig.deployed()
        before = ids(rig)
        turned = project(a={}, b=after("service_started", "a", image="b:2"))
        turned["services"]["b"]["image"] = "b:2"
        await rig.up(turned, services=("b",), no_deps=True)
        await rig.deployed()
        assert ids(rig)["a-1"] == before["a-1"]
        await rig.up(turned)
        await rig.deployed()
        assert ids(rig)["a-1"] == before["a-1"]


async def test_numbers_for_services_that_are_not_named_change_nothing():
    async with Rig() as rig:
        spec = project(web={}, aside={})
        await rig.up(spec)
        await rig.deployed()
        await rig.up(spec, services=("web",), scale={"web": 2, "aside": 3})
        await rig.deployed()
        await asyncio.sleep(10)
        assert sorted(ids(rig)) == ["aside-1", "web-1", "web-2"]


async def test_an_orphan_that_crashes_on_and_on_spoils_no_release():
    async with Rig() as rig:
        await rig.up(project(old={"restart": "always"}))
        await rig.deployed()
        rig.how["old"] = Behaviour(exit_code=1, runs_for=0.0)
        task = rig.live("old")[0]
        rig.fake_of(task).end(task.id, 1)
        await asyncio.sleep(5)
        await rig.up(project(web={}))
        await rig.deployed(within=5)
        assert rig.ready("web")


@pytest.mark.parametrize("state", ["deployed", "under way"])
async def test_single_services_stop_in_order_and_stay_down_until_they_are_named(state):
    async with Rig() as rig:
        spec = project(**CHAIN, aside={})
        if state == "under way":
            rig.how["web"] = Behaviour(never_ready=True)
            spec["services"]["web"].update(CHECK)
        await rig.up(spec, services=("web",))
        if state == "deployed":
            await rig.deployed()
        await rig.until(lambda: len([t for t in rig.live() if t.state.value in RUN]) == 3)
        await rig.control.stop("app", 1.0, ("web", "api", "db"))
        await rig.until(lambda: {t.state.value for t in rig.tasks()} == {"shutdown"})
        stopped = [line for line in rig.history if line.endswith("shutdown")]
        assert stopped == [f"app-{name}-1 shutdown" for name in ("web", "api", "db")]
        await asyncio.sleep(60)
        assert not rig.live()
        await rig.up(spec, services=("aside",))
        await rig.deployed()
        assert sorted(ids(rig)) == ["aside-1"]
        await rig.up(spec, services=("api",))
        await rig.deployed()
        assert sorted(ids(rig)) == ["api-1", "aside-1", "db-1"]
