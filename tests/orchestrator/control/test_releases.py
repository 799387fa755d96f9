"""How releases begin and end: images, failures, updates that go wrong, what they keep."""

from __future__ import annotations

import asyncio
import base64

import pytest

from orchestrator.control.deploy import compiling
from orchestrator.errors import Conflict, Invalid, NotFound, Unavailable
from specs.api import ClientMachine
from specs.problems import Position
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# images


async def test_an_image_is_built_only_where_it_is_missing_and_output_is_shown():
    async with Rig() as rig:
        rig.agents.missing.add("web:1")
        web = {"build": {"context": "/src/web", "dockerfile": "Dockerfile"}}
        await rig.up(project(web=web))
        lines = [line async for line in rig.control.progress("app", None)]
        assert any(line.kind == "build" and "STEP 1" in line.message for line in lines)
        assert rig.release().images["web"] == "sha256:built-web:1"
        await rig.up(project(web=web))
        lines = [line async for line in rig.control.progress("app", None)]
        assert not any("STEP 1" in line.message for line in lines)
        rig.agents.asked.clear()
        await rig.up(project(web=web), build="always")
        await rig.deployed()
        assert rig.agents.asked == []


async def test_a_build_that_fails_fails_the_release_and_leaves_what_runs():
    async with Rig() as rig:
        await rig.up(project(web={"restart": "always"}))
        await rig.deployed()
        before = [t.id for t in rig.live()]
        rig.agents.missing.add("web:2")
        rig.agents.fail["web:2"] = Invalid(detail="RUN exited with 1")
        web = {"image": "web:2", "build": {"context": "/src"}}
        await rig.up(project(web=web), build="always")
        end = await rig.end_of()
        assert not end.ok
        assert "RUN exited with 1" in end.message
        assert [t.id for t in rig.live()] == before
        # What runs is still cared for.
        rig.fake_of(rig.live()[0]).end(rig.live()[0].id, 1)
        await rig.until(lambda: rig.ready("web") and rig.live()[0].id not in before)


async def test_a_registry_that_is_down_is_asked_again_and_then_named():
    async with Rig() as rig:
        rig.agents.fail["web:1"] = Unavailable("the registry does not answer")
        start = rig.clock.monotonic()
        await rig.up(project(web={}))
        end = await rig.end_of()
        assert "image web:1: the registry does not answer" in end.message
        assert 5 < rig.clock.monotonic() - start < 15
        assert not rig.tasks()


async def test_an_image_nobody_has_fails_at_once():
    async with Rig() as rig:
        rig.agents.fail["nope:1"] = Invalid(detail="there is no image nope:1")
        await rig.up(project(web={"image": "nope:1"}, db={}))
        end = await rig.end_of(within=1)
        assert "web: image nope:1: there is no image nope:1" in end.message


async def test_without_a_node_the_release_says_so():
    async with Rig() as rig:
        await rig.nodes["n1"].cut("the agent is not there")
        await rig.up(project(web={}))
        end = await rig.end_of()
        assert "no node is ready (host1: the agent is not there)" in end.message


async def test_builds_happen_on_the_machine_of_the_client():
    async with Rig(nodes=2) as rig:
        rig.agents.missing.add("web:1")
        web = {"build": {"context": "/src"}}
        await rig.up(project(web=web), client=ClientMachine(hostname="laptop", boot_id="elsewhere"))
        end = await rig.end_of()
        assert "laptop is no node of this cluster" in end.message


# failures


async def test_a_crashing_update_is_paused_and_the_old_tasks_serve_on():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(3)))
        await rig.deployed()
        rig.how["web:2"] = Behaviour(
            exit_code=1, runs_for=0.0, never_ready=False, reject="bad mount"
        )
        await rig.up(project(web=replicas(3, image="web:2")))
        end = await rig.end_of()
        assert end.state == "failed"
        assert "update of web failed" in end.message
        assert "bad mount" in end.message
        assert "paused" in end.message
        await asyncio.sleep(60)
        old = [t for t in rig.ready("web") if t.release == 1]
        assert len(old) == 3
        # A repaired file goes on from here.
        await rig.up(project(web=replicas(3, image="web:3")))
        await rig.deployed()
        assert {t.release for t in rig.live("web")} == {3}


async def test_an_update_that_fails_is_rolled_back_where_the_file_says_so(monkeypatch):
    compile_stack = compiling.compile_stack

    def with_rollback(*args):
        spec, problems = compile_stack(*args)
        services = {
            n: s.model_copy(
                update={"update": s.update.model_copy(update={"failure_action": "rollback"})}
            )
            for n, s in spec.services.items()
        }
        return spec.model_copy(update={"services": services}), problems

    monkeypatch.setattr(compiling, "compile_stack", with_rollback)
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(3, **CHECK)))
        await rig.deployed()
        good = rig.live("web")[0].spec_hash
        rig.how["web:2"] = Behaviour(exit_code=1, runs_for=0.0)
        rig.how["web"] = Behaviour(healthy=0.1)
        web = replicas(3, **CHECK, image="web:2", restart="no")
        await rig.up(project(web=web))
        end = await rig.end_of()
        assert end.state == "rolled_back"
        assert "rolled back to release 1" in end.message
        await rig.until(
            lambda: len([t for t in rig.ready("web") if t.spec_hash == good]) == 3, within=100
        )
        await rig.until(lambda: len(rig.live("web")) == 3)
        assert rig.cluster.stacks["app"].running == 1


async def test_no_progress_until_the_deadline_fails_and_says_who_is_waited_for():
    async with Rig() as rig:
        rig.how["db"] = Behaviour(never_ready=True)
        await rig.up(project(db=dict(CHECK), web=after("service_healthy", "db")), deadline=30.0)
        start = rig.clock.monotonic()
        end = await rig.end_of(within=100)
        assert not end.ok
        assert 29 < rig.clock.monotonic() - start < 32
        assert "no progress for 30 s" in end.message
        assert "web waits for db to be healthy" in end.message


async def test_what_is_only_watched_is_not_held_to_the_deadline():
    """All of it serves, but its update is over after ``monitor`` only: that is waited for."""
    update = {"monitor": "10m", "failure_action": "rollback"}
    web = {"restart": "always", "deploy": {"replicas": 2, "update_config": update}}
    async with Rig() as rig:
        await rig.up(project(web=web))
        await rig.deployed()
        await rig.up(project(web={**web, "image": "web:2"}), deadline=30.0)
        begun = rig.clock.monotonic()
        await rig.deployed(within=1300)
        assert 1200 < rig.clock.monotonic() - begun < 1203, "one after the other"
        # What it does in that time counts: the watching ends when a task does, not at its end.
        await rig.up(project(web={**web, "image": "web:3"}), deadline=30.0)
        await asyncio.sleep(60)
        task = rig.live("web")[0]
        rig.fake_of(task).end(task.id, 1)
        end = await rig.end_of(within=5)
        assert end.state == "rolled_back"


async def test_a_stack_that_comes_again_is_not_held_to_its_former_life():
    async with Rig() as rig:
        await rig.up(project(web=replicas(2)), deadline=30.0)
        await rig.deployed()
        await asyncio.sleep(100)
        await rig.control.remove("app", volumes=True, timeout=0)
        await rig.until(lambda: not rig.cluster.releases)
        rig.how["web"] = Behaviour(never_ready=True)
        assert await rig.up(project(web=dict(CHECK)), deadline=30.0) == 1
        start = rig.clock.monotonic()
        assert "no progress for 30 s" in (await rig.end_of(within=100)).message
        assert rig.clock.monotonic() - start > 29


async def test_a_rejected_task_is_tried_elsewhere_before_the_release_fails():
    async with Rig(nodes=3) as rig:
        rig.how["web"] = Behaviour(reject="bind source /nope does not exist")
        await rig.up(project(web={}))
        end = await rig.end_of()
        assert "could not be prepared" in end.message
        assert "bind source /nope does not exist" in end.message
        rejected = [line for line in rig.history if line.endswith("rejected")]
        assert len(rejected) == 3


async def test_a_task_that_fits_nowhere_waits_and_starts_when_there_is_room():
    async with Rig(nodes=2) as rig:
        big = {"deploy": {"resources": {"reservations": {"memory": str(16 << 30)}}}}
        await rig.up(project(web=big))
        await rig.until(lambda: rig.tasks() and rig.tasks()[0].pending_reason)
        assert "2 lack memory (needs 16 GiB" in rig.tasks()[0].pending_reason
        node = rig.cluster.nodes["n2"]
        facts = node.facts.model_copy(update={"memory": 32 << 30})
        await rig.put_node(node.model_copy(update={"facts": facts}))
        await rig.deployed()
        assert rig.live()[0].node == "n2"


async def test_an_optional_dependency_that_failed_holds_nobody():
    async with Rig() as rig:
        rig.how["seed"] = Behaviour(exit_code=1)
        await rig.up(
            project(
                seed={"restart": "no"},
                web=after("service_completed_successfully", "seed", required=False),
            )
        )
        await rig.until(lambda: rig.ready("web"))


# what a release keeps and drops


async def test_services_gone_from_the_file_are_removed_when_asked():
    async with Rig() as rig:
        await rig.up(project(web={}, old={}))
        await rig.deployed()
        await rig.up(project(web={}), remove_orphans=True)
        await rig.deployed()
        assert not rig.tasks("old")
        await rig.until(
            lambda: {s for vips in rig.cluster.vips.values() for _, s in vips} == {"web"}
        )


async def test_up_of_one_service_leaves_the_others_as_they_are():
    async with Rig() as rig:
        await rig.up(project(web={}, db={}, cache={}))
        await rig.deployed()
        before = {t.service: t.id for t in rig.live()}
        changed = project(
            web={"image": "web:2", **after("service_started", "db")}, db={}, cache={"image": "c:2"}
        )
        await rig.up(changed, services=("web",))
        await rig.deployed()
        now = {t.service: t.id for t in rig.live()}
        assert now["web"] != before["web"]
        assert now["db"] == before["db"]
        assert now["cache"] == before["cache"]
        with pytest.raises(Invalid):
            await rig.up(changed, services=("nope",))


async def test_a_completed_one_off_is_not_run_again():
    async with Rig() as rig:
        rig.how["migrate"] = Behaviour(exit_code=0)
        services = {
            "migrate": {"restart": "no"},
            "web": after("service_completed_successfully", "migrate"),
        }
        await rig.up(project(**services))
        await rig.deployed()
        services["web"] = {**services["web"], "image": "web:2"}
        await rig.up(project(**services))
        await rig.deployed()
        assert rig.history.count("app-migrate-1 complete") == 1
        services["migrate"] = {"restart": "no", "image": "migrate:2"}
        await rig.up(project(**services))
        await rig.deployed()
        assert rig.history.count("app-migrate-1 complete") == 2


async def test_an_unchanged_secret_keeps_its_version_and_a_changed_one_replaces():
    async with Rig() as rig:
        web = {"secrets": [{"source": "key", "target": "/run/secrets/key"}]}
        top = {"secrets": {"key": {"name": "app_key", "file": "/src/key"}}}
        await rig.up(project(web=web, top=top), contents={"secrets.key": b64(b"one")})
        await rig.deployed()
        first = rig.live("web")[0].id
        version = next(iter(rig.cluster.contents))
        stored = rig.cluster.contents[version]
        assert base64.b64decode(stored.sealed) == b"sealed:one"
        held = rig.nodes["n1"].wanted.contents[version]
        assert base64.b64decode(held.data) == b"one"
        assert held.secret
        await rig.up(project(web=web, top=top), contents={"secrets.key": b64(b"one")})
        await rig.deployed()
        assert list(rig.cluster.contents) == [version]
        assert rig.live("web")[0].id == first
        await rig.up(project(web=web, top=top), contents={"secrets.key": b64(b"two")})
        await rig.deployed()
        assert len(rig.cluster.contents) == 2
        assert rig.live("web")[0].id != first


async def test_history_is_bounded():
    async with Rig() as rig:
        for number in range(25):
            await rig.up(project(web={"environment": {"N": str(number)}}))
            await rig.deployed()
        await rig.until(lambda: len(rig.cluster.releases) <= 20)
        await rig.until(lambda: len(rig.cluster.parts) <= 20)


# commands


async def test_stop_keeps_the_stack_and_up_starts_it_again():
    async with Rig() as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        await rig.control.stop("app", 1.0)
        assert (await rig.end_of()).ok
        assert {t.state.value for t in rig.tasks()} == {"shutdown"}
        assert all(a.grace == 1.0 for a in rig.nodes["n1"].wanted.tasks.values())
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        await rig.until(lambda: len(rig.tasks()) == 2)
        assert len(rig.ready("web")) == 2


async def test_restart_reaches_dependents_that_want_to_follow():
    async with Rig() as rig:
        await rig.up(
            project(
                db={},
                web=after("service_started", "db", restart=True),
                log=after("service_started", "db"),
            )
        )
        await rig.deployed()
        ids = (await rig.restart("db")).tasks
        restarted = {rig.cluster.tasks[i].service for i in ids}
        assert restarted == {"db", "web"}
        await rig.until(lambda: all(rig.cluster.tasks[i].restart == 1 for i in ids))
        with pytest.raises(NotFound):
            await rig.restart("nope")


async def test_down_with_volumes_deletes_data_and_history():
    async with Rig() as rig:
        spec = project(
            db={"volumes": [{"type": "volume", "source": "data", "target": "/data"}]},
            top={"volumes": {"data": {"name": "app_data"}}},
        )
        await rig.up(spec)
        await rig.deployed()
        await rig.control.remove("app", volumes=False, timeout=0)
        assert (await rig.end_of()).ok
        assert rig.cluster.volumes["app_data"].node == "n1"
        assert rig.agents.removed == []
        assert await rig.up(spec) == 2
        await rig.deployed()
        await rig.control.remove("app", volumes=True, timeout=0)
        assert (await rig.end_of()).ok
        assert rig.agents.removed == [("n1", "app_data")]
        assert not rig.cluster.volumes
        assert not rig.cluster.releases


async def test_who_looks_at_a_removal_too_late_still_sees_its_end():
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        await rig.control.remove("app", volumes=False, timeout=0)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        assert (await rig.end_of()).ok


async def test_bad_commands_are_refused_with_words():
    async with Rig() as rig:
        with pytest.raises(NotFound):
            await rig.control.scale("app", {"web": 2})
        with pytest.raises(NotFound):
            await rig.control.remove("app", volumes=False, timeout=None)
        with pytest.raises(NotFound):
            await rig.end_of()
        await rig.up(
            project(web={}, one={"container_name": "single"}, all={"deploy": {"mode": "global"}})
        )
        await rig.deployed()
        for bad in ({"nope": 1}, {"web": -1}, {"one": 2}, {"all": 3}):
            with pytest.raises(Invalid):
                await rig.control.scale("app", bad)
        await rig.control.remove("app", volumes=False, timeout=None)
        with pytest.raises((Conflict, NotFound)):
            await rig.control.stop("app", None)


async def test_refusals_point_into_the_file():
    async with Rig() as rig:
        spec = project(web={"deploy": {"placement": {"constraints": ["node.colour == red"]}}})
        with pytest.raises(Invalid) as caught:
            await rig.up(
                spec,
                origins={
                    "services.web.deploy.placement.constraints[0]": Position("compose.yaml", 7, 11)
                },
            )
        (problem,) = caught.value.problems
        assert str(problem.position) == "compose.yaml:7:11"
        assert "node.labels.NAME" in problem.message
        ring = project(a=after("service_started", "b"), b=after("service_started", "a"))
        with pytest.raises(Invalid) as caught:
            await rig.up(ring)
        assert "a" in str(caught.value.problems[0])


async def test_what_is_no_canonical_project_is_refused_and_not_repeated():
    async with Rig() as rig:
        for service in (
            {"deploy": {"replicas": "s3cret"}},
            {"networks": {"default": {"aliases": 7}}},
            {"healthcheck": {"test": ["CMD", {"s3cret": 1}]}},
            {"depends_on": {"db": []}},
            {"secrets": [{"source": "s", "target": 1}]},
        ):
            with pytest.raises(Invalid) as caught:
                await rig.up(project(web=service))
            assert "s3cret" not in str(caught.value.detail)
        with pytest.raises(Invalid, match=r"is not a valid name"):
            await rig.up({**project(web={}), "volumes": {"v": {"name": "../x"}}})
        assert rig.cluster.stacks == {}


async def test_published_ports_belong_to_one_service_of_the_cluster():
    async with Rig() as rig:
        port = {
            "ports": [{"target": 80, "published": "8080", "protocol": "tcp", "mode": "ingress"}]
        }
        await rig.up(project(web=port))
        await rig.deployed()
        with pytest.raises(Invalid) as caught:
            await rig.up(project(other=port), stack="second")
        assert "8080/tcp is already published by service app/web" in str(caught.value.problems[0])
        # Its own port is no conflict, also where the agent reports it as listening.
        node = rig.cluster.nodes["n1"]
        facts = node.facts.model_copy(update={"listening": ("8080/tcp", "9000/tcp")})
        await rig.put_node(node.model_copy(update={"facts": facts}))
        await rig.until(lambda: rig.cluster.nodes["n1"].facts.listening)
        await rig.up(project(web={**port, "image": "web:2"}))
        await rig.deployed()
        taken = {"ports": [{"target": 80, "published": "9000", "mode": "ingress"}]}
        with pytest.raises(Invalid) as caught:
            await rig.up(project(web=taken), stack="second")
        assert "9000/tcp is held by a process on host1" in str(caught.value.problems[0])
        for reserved in ("22",):
            bad = {"ports": [{"target": 80, "published": reserved, "mode": "ingress"}]}
            with pytest.raises(Invalid):
                await rig.up(project(web=bad), stack="second")


async def test_open_ports_get_a_number_that_stays():
    async with Rig() as rig:
        port = {"ports": [{"target": 80, "protocol": "tcp", "mode": "ingress"}]}
        await rig.up(project(web=port))
        await rig.deployed()

        def published():
            return {p.published for s in rig.nodes["n1"].wanted.services.values() for p in s.ports}

        (number,) = published()
        assert 30000 <= number < 32768
        await rig.up(project(web={**port, "image": "web:2"}))
        await rig.deployed()
        assert published() == {number}


async def test_a_first_start_that_only_crashes_ends_the_release_with_its_log():
    async with Rig() as rig:
        rig.how["web"] = Behaviour(never_ready=True)
        await rig.up(project(web={"restart": "always", **CHECK}, db={}))
        await rig.until(lambda: "app-web-1 starting" in rig.history)
        await asyncio.sleep(0.1)
        (task,) = rig.live("web")
        rig.nodes["n1"].say(task.id, restarts=10, log_tail=("no route to db",))
        end = await rig.end_of(within=5)
        assert not end.ok
        assert end.service == "web"
        assert "restarted 10 times and never ready" in end.message
        assert end.log_tail == ("no route to db",)
        assert rig.ready("db"), "what runs is left as it is"


async def test_scale_works_on_a_release_that_failed():
    async with Rig() as rig:
        rig.how["bad"] = Behaviour(reject="no such device")
        await rig.up(project(web=replicas(2), bad={"restart": "no"}))
        assert not (await rig.end_of()).ok
        await rig.control.scale("app", {"web": 4})
        await rig.until(lambda: len(rig.ready("web")) == 4)
        await rig.control.scale("app", {"web": 1})
        await rig.until(lambda: len(rig.tasks("web")) == 1)
        assert [t.state.value for t in rig.tasks("bad")] == ["rejected"], "kept to be seen"
        await asyncio.sleep(120)
        assert rig.history.count("app-bad-1 preparing") == 1


async def test_a_second_stop_with_less_patience_shortens_the_first():
    async with Rig() as rig:
        rig.how["web"] = Behaviour(stop=30.0)
        await rig.up(project(web={}))
        await rig.deployed()
        task = rig.tasks()[0].id
        await rig.control.stop("app", 60.0)
        await rig.until(lambda: rig.nodes["n1"].wanted.tasks[task].desired.value == "shutdown")
        assert rig.nodes["n1"].wanted.tasks[task].grace == 60.0
        await rig.control.stop("app", 0.0)
        await rig.until(lambda: rig.nodes["n1"].wanted.tasks[task].grace == 0.0, within=5.0)
        await rig.control.stop("app", 20.0)
        assert rig.nodes["n1"].wanted.tasks[task].grace == 0.0


@pytest.mark.parametrize(
    ("what", "by"), [("up", 2), ("stop", 0), ("stop web", 0), ("down", 0), ("stop, then up", 0)]
)
async def test_whose_release_was_overtaken_is_told_by_which(what, by):
    async with Rig() as rig:
        rig.how["web"] = Behaviour(prepare=30.0)
        first = await rig.up(project(web={}))
        await asyncio.sleep(1)
        match what:
            case "up":
                await rig.up(project(web={"image": "web:2"}))
            case "down":
                await rig.control.remove("app", volumes=False, timeout=None)
            case _:
                await rig.control.stop("app", 0, ("web",) if what == "stop web" else ())
        await rig.until(lambda: rig.cluster.releases["app", first].over)
        if what == "stop, then up":
            await asyncio.sleep(1)
            await rig.up(project(web={"image": "web:2"}))
        async for line in rig.control.progress("app", first):
            if line.kind == "end":
                break
        assert (line.state, line.by) == ("superseded", by)
        assert ("release 2 took its place" in line.message) == bool(by)
