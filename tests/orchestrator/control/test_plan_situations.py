"""What `corral plan` prints, situation by situation: golden texts of the controller's own plans."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.cli.show import plans
from orchestrator.errors import Invalid
from specs.problems import Position
from specs.states import TaskState
from tests.orchestrator.control.builders import CHECK, after, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.looptime
START_FIRST = {"order": "start-first", "monitor": "0s"}
DATA = {"volumes": [{"type": "volume", "source": "data", "target": "/d"}]}
VOLUMES = {"top": {"volumes": {"data": {"name": "app_data"}}}}


async def told(rig: Rig, file: dict[str, Any], **more: Any) -> list[str]:
    """Return the lines; the clusters of these tests have few nodes, all alike."""
    plan = await rig.plan(file, **more)
    return plans.lines(plan.model_dump(mode="json"))


async def runs(rig: Rig, file: dict[str, Any], **more: Any) -> None:
    await rig.up(file, **more)
    await rig.deployed(within=300)


def at(lines: list[str], *words: str) -> None:
    """Assert that each of these is said, in this order."""
    text, found = "\n".join(lines), 0
    for word in words:
        found = text.find(word, found)
        assert found >= 0, f"{word!r} is not there, or not there, in\n{text}"
        found += len(word)


async def first_up(rig):
    lines = await told(rig, project(db=CHECK, web=replicas(2) | after("service_healthy", "db")))
    at(lines, "app   release 1", "+ db   new in the file   [1 replica]", "  + app-db-1   host",
       "+ web   new in the file   [2 replicas]", "starts after db to be healthy",
       "networks made: app_default", "order   db, then web",
       "Plan: 3 to create, 0 to replace, 0 to remove, 0 kept on 2 nodes")  # fmt: skip


async def nothing(rig):
    await runs(rig, project(web={}))
    lines = await told(rig, project(web={}))
    assert lines == ["nothing to do: app runs as the file has it (release 1)"]


async def image_changed(rig):
    await runs(rig, project(web={}))
    lines = await told(rig, project(web={"image": "web:2"}))
    at(lines, "! web   image: web:1", "[1 replica, stop-first, down 0", "~ image: web:1 (1) -> ",
       "image   web:2   1 -> 2", "1 to replace (0 start-first, 1 stop-first)")  # fmt: skip


async def start_first_is_never_down(rig):
    file = {"web": replicas(2, update=START_FIRST)}
    await runs(rig, project(**file))
    file["web"]["image"] = "web:2"
    lines = await told(rig, project(**file))
    at(lines, "~ web", "start-first, 0 s down", "2 to replace (2 start-first, 0 stop-first)")


async def env_changed(rig):
    await runs(rig, project(web={"environment": {"LEVEL": "info", "API_KEY": "one"}}))
    origins = {"services.web.environment.LEVEL": Position("/w/compose.yaml", 5, 14)}
    file = project(web={"environment": {"LEVEL": "debug", "API_KEY": "two"}})
    lines = await told(rig, file, origins=origins)
    at(lines, "! web   environment.LEVEL: info -> debug, and 1 more",
       "~ environment.LEVEL: info -> debug   /w/compose.yaml:5:14",
       "~ environment.API_KEY: another value")  # fmt: skip
    assert "two" not in "\n".join(lines)


async def more_replicas(rig):
    await runs(rig, project(web=replicas(1)))
    lines = await told(rig, project(web=replicas(3)))
    at(lines, "~ web   deploy.replicas: 1 -> 3   [1 -> 3 replicas]", "+ app-web-2", "+ app-web-3",
       "Plan: 2 to create, 0 to replace, 0 to remove, 1 kept")  # fmt: skip


async def fewer_replicas(rig):
    await runs(rig, project(web=replicas(3)))
    lines = await told(rig, project(web=replicas(1)))
    at(lines, "~ web   deploy.replicas: 3 -> 1   [3 -> 1 replicas]", "- app-web-2   from host",
       "2 to remove, 1 kept")  # fmt: skip


async def orphan_stays(rig):
    await runs(rig, project(web={}, old={}))
    lines = await told(rig, project(web={"image": "web:2"}))
    at(lines, "orphans left as they are: old (--remove-orphans)")
    assert not any(line.startswith("- old") for line in lines)


async def orphan_goes(rig):
    await runs(rig, project(web={}, old={}))
    lines = await told(rig, project(web={}), remove_orphans=True)
    at(lines, "- old   not in the file any more", "- app-old-1   from host", "1 to remove, 1 kept")


async def port_opened(rig):
    await runs(rig, project(web={}))
    port = {"target": 80, "published": "8080", "protocol": "tcp", "mode": "ingress"}
    lines = await told(rig, project(web={"ports": [port]}))
    at(lines, "+ ports.8080:80", "port    opened: 8080:80 on every node (web)")
    await runs(rig, project(web={"ports": [port]}))
    at(await told(rig, project(web={})), "port    closed: 8080:80 on every node (web)")


async def volume_keeps_it(rig):
    await runs(rig, project(db=DATA, **VOLUMES))
    lines = await told(rig, project(db={**DATA, "image": "db:2"}, **VOLUMES))
    at(lines, "! db", "stop-first, down", "~ app-db-1   host", "volume app_data is there")


async def volume_made(rig):
    at(await told(rig, project(db=DATA, **VOLUMES)), "app_data will be there",
       "volumes made: app_data on host")  # fmt: skip


async def drained(rig):
    await runs(rig, project(web=replicas(2)))
    node = rig.cluster.nodes["n2"]
    file = project(web=replicas(2, environment={"A": "1"}))
    await rig.put_node(node.model_copy(update={"availability": "pause"}))
    await rig.until(lambda: rig.cluster.nodes["n2"].availability == "pause")
    at(await told(rig, file), "host2 -> host1   host2 is paused")


async def no_node_fits(rig):
    file = replicas(1, deploy={"resources": {"reservations": {"memory": str(64 << 30)}}})
    await runs(rig, project(web={}))
    before = [task.id for task in rig.tasks()]
    lines = await told(rig, project(web=file))
    at(lines, "`corral up` would not come to its end: web: ", "64 GiB", "hint: lower")
    assert [task.id for task in rig.tasks()] == before


async def constraint_nobody_satisfies(rig):
    file = replicas(1, deploy={"placement": {"constraints": ["node.labels.disk == ssd"]}})
    lines = await told(rig, project(web=file))
    at(lines, "would not come to its end: web: ", "hint: corral node label host1 disk=ssd")


async def start_first_on_full_nodes(rig):
    deploy = {"placement": {"max_replicas_per_node": 1}}
    file = replicas(2, update=START_FIRST, deploy=deploy)
    await runs(rig, project(web=file))
    lines = await told(rig, project(web={**file, "image": "web:2"}))
    at(lines, "2 to replace")
    assert not any("would not come" in line for line in lines), "it goes on slot by slot"


async def host_port_taken(rig):
    port = {"target": 80, "published": "80", "protocol": "tcp", "mode": "host"}
    file = replicas(3, ports=[port])
    lines = await told(rig, project(web=file))
    at(lines, "would not come to its end: web: ", "80")


async def restarted_with_what_it_depends_on(rig):
    web = after("service_started", "db", restart=True)
    await runs(rig, project(db={}, web=web))
    lines = await told(rig, project(db={"image": "db:2"}, web=web))
    at(lines, "! db   image: db:1", "! web   depends on db (restart: true), which is replaced")


async def profile_off(rig):
    await runs(rig, project(web={}, debug={}))
    lines = await told(rig, project(web={"image": "web:2"}), known=("debug",))
    at(lines, "! web", "1 kept")
    assert not any("debug" in line for line in lines)


async def not_built_yet(rig):
    rig.agents.missing.add("web:1")
    lines = await told(rig, project(web={"build": {"context": "/src"}}))
    at(lines, "+ web   new in the file", "image   web:1   is built by `up`")


async def not_pulled_yet(rig):
    rig.agents.missing.add("web:1")
    at(await told(rig, project(web={})), "image   web:1   is pulled by `up`")


async def secret_changed(rig):
    def file(value: str) -> dict[str, Any]:
        content = base64.b64encode(value.encode()).decode()
        use = {"secrets": [{"source": "pw", "target": "/run/secrets/pw"}]}
        top = {"secrets": {"pw": {"name": "app_pw", "file": "/pw"}}}
        return {"project": project(web=use, top=top), "contents": {"secrets.pw": content}}

    first, second = file("one"), file("two")
    await runs(rig, first.pop("project"), **first)
    asked = second.pop("project")
    lines = await told(rig, asked, **second)
    at(
        lines,
        "! web   secrets.pw",
        "~ secrets.pw: /run/secrets/pw (version ",
        "~ secrets.pw version",
    )
    again = [(await rig.plan(asked, **second)).decision for _ in range(2)]
    assert again[0] == again[1], "a new version has a random id, and the decision is the same"


async def forced(rig):
    await runs(rig, project(web={}))
    at(
        await told(rig, project(web={}), force_recreate=True),
        "! web   asked for by --force-recreate",
    )


async def network_subnet_changed(rig):
    def top(subnet: str) -> dict[str, Any]:
        ipam = {"ipam": {"config": [{"subnet": subnet}]}}
        return {"top": {"networks": {"default": {"name": "app_default", **ipam}}}}

    await runs(rig, project(web={}, **top("10.50.0.0/24")))
    at(await told(rig, project(web={}, **top("10.51.0.0/24"))),
       "! web   networks.default: subnets: 10.50.0.0/24 -> 10.51.0.0/24",
       "~ networks.default subnets: 10.50.0.0/24 -> 10.51.0.0/24")  # fmt: skip


async def one_that_completed_is_not_run_again(rig):
    rig.how["job"] = Behaviour(exit_code=0, runs_for=0.5)
    web = after("service_completed_successfully", "job")
    await runs(rig, project(job={"restart": "no"}, web=web))
    lines = await told(rig, project(job={"restart": "no"}, web={**web, "image": "web:2"}))
    at(lines, "! web", "1 to replace", "1 kept")
    assert not any("app-job-1" in line for line in lines)


def job(count=5, at_once=2, **more):
    extra = {"x-corral": {"max_concurrent": at_once}} if at_once else {}
    return {"deploy": {"mode": "replicated-job", "replicas": count}, **extra, **more}


async def job_is_new(rig):
    lines = await told(rig, project(work=job()))
    at(lines, "+ work   new in the file   [5 completions, 2 at a time]", "+ app-work-1",
       "+ app-work-2", "3 queued: begun as others complete",
       "Plan: 2 to create, 0 to replace, 0 to remove, 0 kept on 2 nodes, 3 queued")  # fmt: skip


async def job_all_at_once(rig):
    lines = await told(rig, project(work=job(3, None)))
    at(lines, "[3 completions]", "+ app-work-3", "Plan: 3 to create")
    assert not any("queued" in line for line in lines)


async def job_changed_while_it_runs(rig):
    rig.how["work"] = Behaviour(exit_code=0, runs_for=60)
    await runs(rig, project(work=job()))
    lines = await told(rig, project(work=job(environment={"A": "2"})))
    at(lines, "~ work   environment.A: 2   [5 completions, 2 at a time, all anew]", "~ app-work-1",
       "3 queued", "2 to replace")  # fmt: skip
    assert not any("down" in line or "serve" in line for line in lines), "it serves nobody"


async def job_changed_after_it_completed(rig):
    rig.how["work"] = Behaviour(exit_code=0, runs_for=20)
    await runs(rig, project(work=job()))
    await rig.until(
        lambda: sum(t.state is TaskState.COMPLETE for t in rig.tasks()) == 5, within=300
    )
    assert await told(rig, project(work=job())) == [
        "nothing to do: app runs as the file has it (release 1)"
    ]
    at(await told(rig, project(work=job(environment={"A": "2"}))),
       "~ work", "[5 completions, 2 at a time, all anew]", "3 queued")  # fmt: skip
    at(await told(rig, project(work=job(8))), "~ work   deploy.replicas: 5 -> 8",
       "[5 -> 8 completions, 2 at a time]", "+ app-work-6", "+ app-work-7", "1 queued",
       "Plan: 2 to create, 0 to replace, 0 to remove, 5 kept")  # fmt: skip


async def job_wanted_less_often(rig):
    rig.how["work"] = Behaviour(exit_code=0, runs_for=60)
    await runs(rig, project(work=job()))
    lines = await told(rig, project(work=job(1)))
    at(lines, "~ work", "[5 -> 1 completions, 2 at a time]", "- app-work-2")
    assert not any("queued" in line for line in lines)


async def job_others_wait_for(rig):
    rig.how["work"] = Behaviour(exit_code=0, runs_for=1)
    web = after("service_completed_successfully", "work")
    lines = await told(rig, project(work=job(), web=web))
    at(lines, "+ work", "[5 completions, 2 at a time]", "+ app-work-5", "+ web", "6 to create")
    assert not any("queued" in line for line in lines), "all of it is played"


async def job_on_each_node(rig):
    lines = await told(rig, project(work={"deploy": {"mode": "global-job"}}))
    at(lines, "+ work   new in the file   [2 completions]", "2 to create")


async def job_that_was_a_service(rig):
    await runs(rig, project(work=replicas(2)))
    lines = await told(rig, project(work=job()))
    at(lines, "~ work", "~ deploy.mode: replicated -> replicated-job",
       "3 queued: begun as others complete", "2 kept")  # fmt: skip
    assert "[2 -> 5 completions, 2 at a time]" in lines[1]


async def what_is_refused_is_refused(rig):
    with pytest.raises(Invalid):
        await told(rig, project(web={"depends_on": {"web": {"condition": "service_started"}}}))


SITUATIONS: tuple[Callable[[Rig], Awaitable[None]], ...] = (
    first_up, nothing, image_changed, start_first_is_never_down, env_changed, more_replicas,
    fewer_replicas, orphan_stays, orphan_goes, port_opened, volume_keeps_it, volume_made, drained,
    no_node_fits, constraint_nobody_satisfies, start_first_on_full_nodes, host_port_taken,
    restarted_with_what_it_depends_on, profile_off, not_built_yet, not_pulled_yet, secret_changed,
    forced, network_subnet_changed, one_that_completed_is_not_run_again, job_is_new,
    job_all_at_once, job_changed_while_it_runs, job_changed_after_it_completed,
    job_wanted_less_often, job_others_wait_for, job_on_each_node, job_that_was_a_service,
    what_is_refused_is_refused,
)  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda s: s.__name__)
async def test_what_plan_says(situation):
    async with Rig(nodes=2) as rig:
        rig.how["db"] = Behaviour(healthy=0.2)
        await situation(rig)


@pytest.mark.parametrize("share", [{"replicas": 1}, {"weight": "25%"}])
async def test_a_canary_that_somebody_promotes(share):
    def file(value: str) -> dict[str, Any]:
        canary = {"canary": {**share, "promote": "manual"}}
        return project(
            web={"deploy": {"replicas": 7}, "x-corral": canary, "environment": {"V": value}}
        )

    async with Rig(nodes=3) as rig:
        await runs(rig, file("1"))
        lines = await told(rig, file("2"))
        at(lines, "web", "it waits before the rest: web: ", "corral rollout promote")
        assert "not the whole plan" not in "\n".join(lines)
        assert any("7 to replace" in line for line in lines), lines
