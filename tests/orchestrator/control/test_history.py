"""What each release changed, who made it, and what differs between two: over real releases."""

from __future__ import annotations

import base64

import pytest

from orchestrator.control.telling import history
from specs.made_by import MadeBy
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

ANNA = MadeBy(kind="up", user="anna", uid=1007, host="laptop", message="prices", commit="c" * 40)


def rows(rig, service=""):
    return list(history.rows(rig.cluster, "app", service))


def phrases(rig, service=""):
    return {row.number: row.changed for row in rows(rig, service)}


def differences(rig, before, after):
    one, other = (rig.cluster.releases[("app", number)] for number in (before, after))
    found = history.diff(rig.cluster, one, other)
    return [(c.section, c.name, c.key, c.sign, c.old, c.new) for c in found.changes]


async def deployed(rig, file, **more):
    number = await rig.up(file, **more)
    await rig.deployed()
    return number


def files(**contents):
    sent = {key: base64.b64encode(data).decode() for key, data in contents.items()}
    return {f"{key.partition('__')[0]}.{key.partition('__')[2]}": v for key, v in sent.items()}


async def test_each_release_says_what_it_changed_and_who_made_it_why():
    web = {"image": "web:1", "environment": {"A": "1"}}
    async with Rig() as rig:
        await deployed(rig, project(web=web, db={}), by=ANNA)
        await deployed(rig, project(web={**web, "image": "web:2"}, db={}))
        await deployed(rig, project(web={**web, "environment": {"A": "2", "B": "3"}}, db={}))
        await deployed(rig, project(web=replicas(2), cache={}), remove_orphans=True)
        await deployed(rig, project(web=replicas(2), cache={}), force_recreate=True)
        found = phrases(rig)
        assert found[1] == "new: web, db"
        assert found[2].startswith("web: image: web:1")
        assert found[3] == "web: image, environment.A, environment.B"
        assert found[4].endswith("new: cache; gone: db")
        assert found[5] == "all anew (--force-recreate)"
        first = rows(rig)[-1]
        assert (first.who, first.by.host, first.by.message) == ("anna@laptop", "laptop", "prices")
        assert [row.number for row in rows(rig)] == [5, 4, 3, 2, 1]
        assert [row.number for row in rows(rig) if row.running] == [5]
        assert [row.number for row in rows(rig, "db")] == [4, 1]


async def test_a_failed_release_has_its_reason_and_the_next_is_compared_with_what_was_deployed():
    async with Rig() as rig:
        await deployed(rig, project(web={}))
        rig.how["web:2"] = Behaviour(exit_code=1, runs_for=0.0, reject="bad mount")
        await rig.up(project(web={"image": "web:2"}))
        await rig.end_of()
        await deployed(rig, project(web={"image": "web:3"}))
        newest, failed, first = rows(rig)
        assert (failed.state, failed.running) == ("failed", False)
        assert "bad mount" in failed.reason
        assert "web:1" in newest.changed
        assert "web:3" in newest.changed
        assert first.changed == "new: web"


async def test_what_a_release_was_not_about_is_no_difference():
    with_pw = {"secrets": [{"source": "pw", "target": "/run/secrets/pw"}]}
    top = {"secrets": {"pw": {"name": "app_pw", "file": "./pw"}}}
    async with Rig() as rig:
        file = project(web={}, db=with_pw, top=top)
        await deployed(rig, file, contents=files(secrets__pw=b"1"))
        changed = project(web={"image": "web:2"}, db=with_pw, top=top)
        await deployed(rig, changed, services=("web",))
        assert {name for _, name, *_ in differences(rig, 1, 2)} == {"web"}
        assert [row.number for row in rows(rig, "db")] == [1]


async def test_a_secret_differs_by_its_version_only():
    use = {"secrets": [{"source": "pw", "target": "/run/secrets/pw"}]}
    top = {"secrets": {"pw": {"name": "app_pw", "file": "./pw"}}}
    async with Rig() as rig:
        for value in (b"first-value", b"second-value"):
            await deployed(rig, project(db=use, top=top), contents=files(secrets__pw=value))
        (one, other) = differences(rig, 1, 2)
        assert one[:4] == ("services", "db", "secrets.pw", "~")
        assert other[:4] == ("secrets", "pw", "version", "~")
        told = repr((one, other))
        assert "first-value" not in told
        assert "second-value" not in told
        assert phrases(rig)[2] == "db: secrets.pw"


async def test_a_tag_that_leads_elsewhere_is_a_difference_by_digest():
    async with Rig() as rig:
        await deployed(rig, project(web={}))
        rig.agents.digests["web:1"] = "sha256:" + "b" * 64
        await deployed(rig, project(web={}))
        assert differences(rig, 1, 1) == []
        ((section, name, key, sign, old, new),) = differences(rig, 1, 2)
        assert (section, name, key, sign) == ("services", "web", "image", "~")
        assert "web:1" in old
        assert "b" * 12 in new


async def test_history_outlives_down():
    async with Rig() as rig:
        await deployed(rig, project(web={}))
        await rig.control.remove("app", volumes=False, timeout=None)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        assert [(row.number, row.running) for row in rows(rig)] == [(1, False)]
