"""`rollback`: which release it goes to, and what becomes of everything in every situation."""

from __future__ import annotations

import asyncio
import base64

import pytest

from orchestrator.control.mirror.serving import beside
from orchestrator.errors import Conflict, Invalid, NotFound
from specs.api import Restart, Rollback
from specs.made_by import MadeBy
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime
PW = {"secrets": [{"source": "pw", "target": "/run/secrets/pw"}]}
TOP = {"secrets": {"pw": {"name": "app_pw", "file": "./pw"}}}


def b64(data):
    return base64.b64encode(data).decode()


async def deployed(rig, file=None, /, **services):
    more = services.pop("more", {})
    number = await rig.up(file or project(**services), **more)
    await rig.deployed()
    return number


async def back(rig, to=None, *services, **more):
    rig.deploys += 1
    asked = Rollback(key=f"key-{rig.deploys}", to=to, services=services, **more)
    return await rig.control.rollback("app", asked)


async def went_back(rig, to=None, *services, **more):
    row = await back(rig, to, *services, **more)
    await rig.deployed()
    return row


def images(rig):
    """Return what runs: service -> image."""
    return {task.service: rig.image_of(task) for task in rig.live()}


def content(rig, service):
    """Return the version of the secret that the service's newest release has."""
    release = rig.release()
    (ref,) = rig.cluster.parts[release.spec].services[service].task.secrets
    return ref.content


# which release


async def test_the_last_one_that_ran_before_and_again_goes_further_back():
    async with Rig() as rig:
        for tag in (1, 2, 3):
            await deployed(rig, web={"image": f"web:{tag}"})
        row = await went_back(rig)
        assert (row.number, row.to) == (4, 2)
        assert images(rig) == {"web": "web:2"}
        row = await went_back(rig)
        assert (row.number, row.to) == (5, 1)
        assert images(rig) == {"web": "web:1"}
        with pytest.raises(Conflict, match="release 1 is what ran first") as refused:
            await back(rig)
        assert "corral rollback N" in refused.value.hint
        row = await went_back(rig, 3)
        assert images(rig) == {"web": "web:3"}
        row = await went_back(rig)
        assert row.to == 2


async def test_starts_and_what_changed_nothing_are_passed_over():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"})
        await deployed(rig, web={"image": "web:2"})
        await rig.control.stop("app", None)
        await rig.until(lambda: not rig.ready("web"))
        await rig.start()
        await rig.deployed()
        await deployed(rig, web={"image": "web:2"}, more={"force_recreate": True})
        assert (await went_back(rig)).to == 1


async def test_from_one_that_failed_it_goes_to_what_ran_before():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"})
        rig.how["web:2"] = Behaviour(exit_code=1, runs_for=0.0, reject="bad mount")
        await rig.up(project(web={"image": "web:2"}))
        assert (await rig.end_of()).state == "failed"
        row = await went_back(rig)
        assert (row.number, row.to) == (3, 1)
        assert images(rig) == {"web": "web:1"}


async def test_where_nothing_ran_well_it_is_refused():
    async with Rig() as rig:
        rig.how["web:1"] = Behaviour(exit_code=1, runs_for=0.0, reject="bad mount")
        await rig.up(project(web={}))
        await rig.end_of()
        with pytest.raises(Conflict, match="nothing ran well before release 1"):
            await back(rig)
        with pytest.raises(Conflict, match="release 1 never ran well: it is failed"):
            await back(rig, 1)
        with pytest.raises(NotFound, match="there is no release 7 of app"):
            await back(rig, 7)
        with pytest.raises(NotFound, match="there is no stack other"):
            await rig.control.rollback("other", Rollback(key="k"))


async def test_what_went_back_by_itself_is_not_taken_back_twice():
    update = {"failure_action": "rollback"}
    async with Rig() as rig:
        await deployed(rig, web=replicas(2, update=update))
        rig.how["web:2"] = Behaviour(exit_code=1, runs_for=0.0, reject="bad mount")
        await rig.up(project(web=replicas(2, update=update, image="web:2")))
        assert (await rig.end_of()).state == "rolled_back"
        with pytest.raises(Conflict, match="was rolled back by itself: release 1 runs"):
            await back(rig)


async def test_one_that_is_under_way_is_superseded_and_typed_twice_it_is_one():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"})
        rig.agents.delay = 2.0
        await rig.up(project(web={"image": "web:2"}))  # pending: its image is looked up
        row = await back(rig)
        again = await back(rig)
        assert (again.number, again.joined) == (row.number, True)
        await rig.deployed()
        assert rig.cluster.releases["app", 2].state == "superseded"
        assert images(rig) == {"web": "web:1"}


async def test_the_same_key_makes_one_release():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"})
        await deployed(rig, web={"image": "web:2"})
        one = await rig.control.rollback("app", Rollback(key="same"))
        await rig.deployed()
        two = await rig.control.rollback("app", Rollback(key="same"))
        assert (one.number, one.to) == (two.number, two.to) == (3, 1)


async def test_what_runs_already_makes_no_release_and_a_dry_run_neither():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"})
        await deployed(rig, web={"image": "web:2"})
        row = await back(rig, 2)
        assert (row.unchanged, row.number) == (True, 2)
        row = await back(rig, dry_run=True)
        assert [(c.key, c.sign) for c in row.changes] == [("image", "~")]
        assert row.number == 0
        assert [number for _, number in rig.cluster.releases] == [1, 2]


# what becomes of everything


async def test_a_service_that_came_later_runs_on_unless_it_is_said():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"})
        await deployed(rig, web={"image": "web:2"}, cache={})
        row = await went_back(rig)
        (warning,) = [w for w in row.warnings if w.code == "orphans"]
        assert "cache was not there then and runs on" in warning.message
        assert images(rig) == {"web": "web:1", "cache": "cache:1"}
        await went_back(rig, 2)
        await went_back(rig, 1, remove_orphans=True)
        assert images(rig) == {"web": "web:1"}


async def test_a_service_that_was_removed_or_renamed_comes_back():
    async with Rig() as rig:
        await deployed(rig, web={}, old={})
        await deployed(rig, web={}, new={}, more={"remove_orphans": True})
        await went_back(rig)
        assert set(images(rig)) == {"web", "old", "new"}
        await went_back(rig, 1, remove_orphans=True)
        assert set(images(rig)) == {"web", "old"}


async def test_what_has_not_changed_is_not_touched():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"}, db={})
        await deployed(rig, web={"image": "web:2"}, db={})
        before = [t.id for t in rig.live("db")]
        await went_back(rig)
        assert [t.id for t in rig.live("db")] == before


async def test_what_was_made_anew_meanwhile_is_not_made_anew_again():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"}, db={})
        await deployed(rig, web={"image": "web:2"}, db={}, more={"force_recreate": True})
        before = [t.id for t in rig.live("db")]
        await went_back(rig)
        assert [t.id for t in rig.live("db")] == before
        assert images(rig)["web"] == "web:1"


async def test_secrets_are_those_of_that_time():
    async with Rig() as rig:
        file = project(db=PW, top=TOP)
        versions = []
        for value in (b"one", b"two"):
            await deployed(rig, file, more={"contents": {"secrets.pw": b64(value)}})
            versions.append(content(rig, "db"))
        row = await went_back(rig)
        assert content(rig, "db") == versions[0] != versions[1]
        assert "one" not in row.model_dump_json()
        assert [(c.section, c.key) for c in row.changes] == [
            ("services", "secrets.pw"),
            ("secrets", "version"),
        ]


async def test_a_secret_that_was_removed_by_hand_is_named_and_nothing_is_changed():
    async with Rig() as rig:
        file = project(db=PW, top=TOP)
        await deployed(rig, file, more={"contents": {"secrets.pw": b64(b"one")}})
        version = content(rig, "db")
        await deployed(rig, file, more={"contents": {"secrets.pw": b64(b"two")}})
        del rig.cluster.contents[version]
        with pytest.raises(Invalid) as refused:
            await back(rig)
        text = " ".join(problem.message for problem in refused.value.problems)
        assert "secret app_pw was removed since release 1" in text
        assert rig.release().number == 2


async def test_a_missing_external_network_is_named_and_nothing_is_changed():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"})
        await deployed(rig, web={"image": "web:2"})
        release = rig.cluster.releases["app", 1]
        spec = rig.cluster.parts[release.spec]
        shared = spec.networks["default"].model_copy(update={"name": "shared", "external": True})
        changed = spec.model_copy(update={"networks": {"default": shared}})
        rig.cluster.parts[release.spec] = changed
        with pytest.raises(Invalid) as refused:
            await back(rig)
        assert "external network shared does not exist" in str(refused.value.problems)
        assert rig.release().number == 2


async def test_an_image_that_is_gone_is_named_before_anything_stops():
    async with Rig(nodes=2) as rig:
        await deployed(rig, web={"image": "web:1"}, more={"by": MadeBy(commit="c" * 40)})
        await deployed(rig, web={"image": "web:2"})
        before = [t.id for t in rig.ready("web")]
        rig.agents.gone.add("sha256:web:1")
        await back(rig)
        end = await rig.end_of()
        assert end.state == "failed"
        assert "web: image web:1 of release 1 (sha256:web:1) is on no node" in end.message
        assert "Nothing was changed" in end.message
        assert "`corral up -d --build` from commit cccccccccccc makes it anew" in end.message
        assert [t.id for t in rig.ready("web")] == before
        await asyncio.sleep(30)
        assert [t.id for t in rig.ready("web")] == before


async def test_the_image_is_that_of_the_time_whatever_its_tag_means_now():
    async with Rig() as rig:
        await deployed(rig, web={})
        rig.agents.digests["web:1"] = "sha256:" + "b" * 64
        await deployed(rig, web={"environment": {"A": "1"}})
        await went_back(rig)
        assert rig.release().images["web"] == "sha256:web:1"


async def test_numbers_of_scale_stay_unless_the_files_own_changed():
    async with Rig() as rig:
        await deployed(rig, web=replicas(1), db=replicas(1))
        await deployed(rig, web=replicas(1, image="web:2"), db=replicas(2))
        await rig.control.scale("app", {"web": 3, "db": 4})
        await rig.until(lambda: len(rig.ready("web")) == 3 and len(rig.ready("db")) == 4)
        await went_back(rig)
        assert (len(rig.live("web")), len(rig.live("db"))) == (3, 1)


async def test_what_up_web_left_alone_is_brought_back_as_it_ran_then():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"}, db={"image": "db:1"})
        two = project(web={"image": "web:2"}, db={"image": "db:2"})
        await deployed(rig, two, more={"services": ("web",)})
        await deployed(rig, web={"image": "web:3"}, db={"image": "db:3"})
        await went_back(rig)
        assert images(rig) == {"web": "web:2", "db": "db:1"}


async def test_services_of_another_profile_go_on():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"}, cron={})
        off = {"known": ("cron",)}
        await deployed(rig, project(web={"image": "web:2"}), more=off)
        await deployed(rig, project(web={"image": "web:3"}), more=off)
        cron = [t.id for t in rig.live("cron")]
        await went_back(rig)
        assert images(rig) == {"web": "web:2", "cron": "cron:1"}
        assert [t.id for t in rig.live("cron")] == cron


async def test_one_service_alone():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"}, db={"image": "db:1"})
        await deployed(rig, web={"image": "web:2"}, db={"image": "db:2"})
        await deployed(rig, web={"image": "web:2"}, db={"image": "db:3"})
        db = [t.id for t in rig.live("db")]
        row = await went_back(rig, None, "web")
        assert (row.to, images(rig)) == (1, {"web": "web:1", "db": "db:3"})
        assert [t.id for t in rig.live("db")] == db
        with pytest.raises(NotFound, match="release 1 of app has no service nope"):
            await back(rig, 1, "nope")
        with pytest.raises(NotFound, match=r"no release of app has a service nope \(services: db"):
            await back(rig, None, "nope")
        assert (await went_back(rig, 2, "db")).number == 5
        assert images(rig) == {"web": "web:1", "db": "db:2"}


async def test_a_stopped_stack_comes_up_as_it_was():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"})
        await deployed(rig, web={"image": "web:2"})
        await rig.control.stop("app", None)
        await rig.until(lambda: not rig.ready("web"))
        await went_back(rig)
        assert images(rig) == {"web": "web:1"}
        assert len(rig.ready("web")) == 1


async def test_after_down_only_a_number_brings_it_back():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"})
        await rig.control.remove("app", volumes=False, timeout=None)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        with pytest.raises(NotFound, match="was taken down: nothing of it runs"):
            await back(rig)
        row = await went_back(rig, 1)
        assert (row.number, images(rig)) == (2, {"web": "web:1"})
        await deployed(rig, web={"image": "web:2"})
        assert (await went_back(rig)).to == 2


async def test_a_dead_node_holds_up_no_rollback():
    async with Rig(nodes=3) as rig:
        await deployed(rig, web=replicas(2, image="web:1"))
        await deployed(rig, web=replicas(2, image="web:2"))
        await rig.fake_of(rig.live("web")[0]).crash()
        await went_back(rig)
        await rig.until(lambda: len(rig.ready("web")) == 2)
        assert images(rig) == {"web": "web:1"}


async def test_rollback_config_says_in_which_order_and_a_failing_one_goes_no_further():
    update = {"order": "stop-first", "failure_action": "rollback"}
    more = {"deploy": {"rollback_config": {"order": "start-first"}}}
    async with Rig() as rig:
        for tag in (1, 2):
            await deployed(rig, web=replicas(2, update=update, image=f"web:{tag}", **more))
        least = 2

        def watch(*_):
            nonlocal least
            least = min(least, len(rig.ready("web")))

        rig.watchers.append(watch)
        await went_back(rig)
        assert least == 2
        rig.how["web:2"] = Behaviour(exit_code=1, runs_for=0.0, reject="bad mount")
        await back(rig, 2)
        assert (await rig.end_of()).state == "failed"


async def test_a_controller_that_is_killed_on_the_way_goes_on():
    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"})
        await deployed(rig, web={"image": "web:2"})
        rig.agents.delay = 1.0
        await back(rig)
        await rig.restart_controller()
        await rig.deployed()
        assert images(rig) == {"web": "web:1"}


async def test_history_says_what_it_was():
    from orchestrator.control.telling import history

    async with Rig() as rig:
        await deployed(rig, web={"image": "web:1"})
        await deployed(rig, web={"image": "web:2"})
        await went_back(rig, by=MadeBy(kind="rollback", user="anna", message="prices wrong"))
        row = next(history.rows(rig.cluster, "app"))
        assert row.changed.startswith("back to 1: web: image: web:2")
        assert (row.who, row.by.message, row.by.to) == ("anna", "prices wrong", 1)


async def test_what_goes_back_by_itself_does_so_as_rollback_config_says():
    update = {"order": "stop-first", "failure_action": "rollback", "parallelism": 0}
    more = {"deploy": {"rollback_config": {"order": "start-first"}}}
    sick = Behaviour(exit_code=1, runs_for=0.0, reject="bad mount")
    async with Rig() as rig:
        await deployed(rig, web=replicas(2, update=update, **more))
        rig.how["web:2"] = sick
        await rig.up(project(web=replicas(2, update=update, image="web:2", **more)))
        assert (await rig.end_of()).state == "rolled_back"
        await rig.until(lambda: len(rig.ready("web")) == 2, within=300)
        assert images(rig) == {"web": "web:1"}


async def test_blue_green_goes_back_at_once_to_the_set_that_stands_by():
    ours = {"x-corral": {"update": "blue-green", "keep_old": "10m"}, "restart": "always"}
    async with Rig() as rig:
        await deployed(rig, web=replicas(3, update={"monitor": "1s"}, image="web:1", **ours))
        before = {task.id for task in rig.live("web")}
        await deployed(rig, web=replicas(3, update={"monitor": "1s"}, image="web:2", **ours))
        assert len(rig.live("web")) == 6, "the old set is kept"
        verbs = rig.control
        done = await verbs.restart("app", Restart(services=("web",)))
        assert not before & {*done.tasks}
        assert len(done.tasks) == 3
        await rig.deployed()
        await verbs.pause("app", ("web",), paused=True)
        assert {t.id for t in rig.live("web") if not t.paused} == before
        await verbs.pause("app", ("web",), paused=False)
        begun = rig.clock.monotonic()
        await went_back(rig)
        assert rig.clock.monotonic() - begun < 2.0
        served = {task.id for task in rig.live("web") if task.release == 1}
        assert served == before, "the very same tasks"
        assert not any(task.release == rig.release().number for task in rig.live("web"))


async def test_a_canary_is_not_tried_on_what_ran_before():
    ours = {"x-corral": {"canary": {"replicas": 1, "promote": "manual"}}}
    async with Rig() as rig:
        await deployed(rig, web=replicas(3, image="web:1"))
        await rig.up(project(web=replicas(3, image="web:2", **ours)))
        await rig.until(lambda: len(rig.ready("web")) == 4)
        words = [beside(rig.cluster, task) for task in rig.live("web")]
        assert sorted(words) == ["", "", "", "canary"]
        row = await went_back(rig)
        assert row.to == 1
        assert images(rig) == {"web": "web:1"}
        assert len(rig.live("web")) == 3


async def test_twenty_are_kept_with_all_they_need():
    async with Rig() as rig:
        for number in range(1, 24):
            file = project(db={"image": f"db:{number}", **PW}, top=TOP)
            await deployed(rig, file, more={"contents": {"secrets.pw": b64(b"%d" % number)}})
        await asyncio.sleep(2 * 3600)  # what nobody needs is swept after an hour
        await rig.until(lambda: len(rig.cluster.contents) == 20)
        assert sorted(number for _, number in rig.cluster.releases) == list(range(4, 24))
        assert len(rig.cluster.parts) == 20
        with pytest.raises(NotFound, match="there is no release 3 of app"):
            await back(rig, 3)
        assert (await went_back(rig, 4)).number == 24
        assert images(rig) == {"db": "db:4"}
        assert content(rig, "db") in rig.cluster.contents
