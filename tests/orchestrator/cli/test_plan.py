"""`corral plan` and `up --plan`: codes, files, what is refused, what made a change."""

from __future__ import annotations

import json
import os
import stat

import pytest

from orchestrator.cli.show import plans

FILE = """
name: shop
services:
  web: {image: "busybox:$TAG", environment: {DB_PASSWORD: "$PASS", LEVEL: info}}
"""
OVER = "services: {web: {environment: {LEVEL: debug}}}\n"
TASK = {"slot": 1, "name": "shop-web-1", "does": "replace", "node": "n1", "before": "n1"}
WEB = {"name": "web", "sign": "~", "reason": "r", "replicas": [1, 1], "tasks": [TASK],
       "order": "stop-first", "down": [0.6, 10.6], "least": [0, 1]}  # fmt: skip
PLAN = {"stack": "shop", "release": 3, "next": 4, "decision": "d1", "services": [WEB],
        "places": {"web.1": "n-id"}, "takes": 6.0,
        "changes": [{"section": "services", "name": "web", "key": key, "sign": "~", "old": "a",
                     "new": "b", "path": f"services.web.{key}", "text": f"{key}: a -> b",
                     "position": None, "replaces": True}
                    for key in ("image", "environment.LEVEL", "environment.DB_PASSWORD")],
        }  # fmt: skip
NOTHING = {"stack": "shop", "release": 3, "next": 3, "decision": "unchanged", "unchanged": True}
RELEASE = {"stack": "shop", "number": 4, "state": "pending", "created_at": 1.0, "warnings": []}


@pytest.fixture
def shop(fake, clean_environment):
    work = clean_environment.work
    (work / "compose.yaml").write_text(FILE)
    (work / "compose.override.yaml").write_text(OVER)
    (work / ".env").write_text("TAG=1.36\nPASS=hush\n")
    fake.on("POST", "/v1/stacks/shop/plan", PLAN)
    fake.on("POST", "/v1/stacks/shop/releases", RELEASE)
    return fake


def test_the_code_says_whether_there_is_something_to_do(shop, corral):
    assert corral("plan").code == 3
    shop.on("POST", "/v1/stacks/shop/plan", NOTHING)
    done = corral("plan")
    assert (done.code, done.out) == (0, "nothing to do: shop runs as the file has it (release 3)\n")
    shop.on("POST", "/v1/stacks/shop/plan", {**PLAN, "fails": "web: no node", "hint": "add one"})
    done = corral("plan")
    assert done.code == 1
    assert "would not come to its end: web: no node" in done.out
    assert corral("up", "--dry-run").code == 0
    assert corral("plan", "--build", "--no-build").code == 2


def test_what_made_a_change_is_said_and_no_secret(shop, corral):
    out = corral("plan").out
    assert "$TAG = 1.36 from .env:1" in out
    assert "over compose.yaml:4:" in out
    assert "$PASS = *** from .env:2" in out
    assert "hush" not in out, "what is put into a secret is one, whatever its name"
    assert json.loads(corral("plan", "--format", "json").out)["decision"] == "d1"


def test_a_kept_plan_is_held_to(shop, corral, clean_environment):
    kept = clean_environment.work / "my.plan"
    assert corral("plan", "--scale", "web=1", "-o", "my.plan").code == 3
    assert stat.S_IMODE(os.stat(kept).st_mode) == 0o600
    assert corral("plan", "-o", "my.plan").code == 1, "it is there already"
    assert corral("up", "-d", "--no-start", "--plan", "my.plan").code == 2
    assert corral("up", "-d", "--scale", "web=2", "--plan", "my.plan").code == 2
    shop.on("POST", "/v1/stacks/shop/plan", {**PLAN, "decision": "d2", "services": []})
    done = corral("up", "-d", "--plan", "my.plan")
    assert done.code == 1
    assert "  - replace shop-web-1   n1" in done.err
    assert "nothing was changed" in done.err
    (clean_environment.work / "no.plan").write_text("{}")
    assert "is no plan" in corral("up", "-d", "--plan", "no.plan").err
    assert "No such file" in corral("up", "-d", "--plan", "none.plan").err


def kept(**more):
    options = more.pop("options", {"services": [], "scale": {"web": 1}})
    return json.dumps({"format": 1, "options": options, "plan": {**PLAN, **more}})


NO_PLANS = {
    "nothing": "",
    "no JSON": "{",
    "no text": "\0\1",
    "nested without an end": "[" * 100_000,
    "objects without an end": '{"a":' * 100_000,
    "a list": "[]",
    "empty": "{}",
    "another format": kept().replace('"format": 1', '"format": 2'),
    "no options": json.dumps({"format": 1, "plan": PLAN}),
    "options null": kept(options=None),
    "options a list": kept(options=[1]),
    "scale a word": kept(options={"scale": "x"}),
    "scale of words": kept(options={"scale": {"web": "x"}}),
    "services a word": kept(options={"services": "web"}),
    "services of numbers": kept(options={"services": [5]}),
    "build a list": kept(options={"build": []}),
    "a flag that is a word": kept(options={"no_deps": "no"}),
    "seconds that are a word": kept(options={"timeout": "x"}),
    "seconds that are a list": kept(options={"deadline": [1]}),
    "plan null": json.dumps({"format": 1, "options": {}, "plan": None}),
    "no stack": kept(stack=None),
    "stack a list": kept(stack=["shop"]),
    "no decision": kept(decision=""),
    "a service that is a number": kept(services=[5]),
    "services a number": kept(services=5),
    "a service without tasks' words": kept(services=[{"tasks": [{}]}]),
    "tasks a number": kept(services=[{"tasks": 5}]),
    "a change that is null": kept(changes=[None]),
    "a change without words": kept(changes=[{}]),
    "images a word": kept(images="x"),
}


@pytest.mark.parametrize("case", NO_PLANS)
def test_a_file_that_is_no_plan_is_one_sentence(shop, corral, clean_environment, case):
    (clean_environment.work / "no.plan").write_text(NO_PLANS[case])
    shop.on("POST", "/v1/stacks/shop/plan", {**PLAN, "decision": "another"})  # it is stale, too
    done = corral("up", "-d", "--plan", "no.plan")
    assert done.code == 1
    assert "no.plan is no plan of this version: make it again (corral plan -o FILE)" in done.err
    assert "Traceback" not in done.err
    assert not shop.asked("POST", "/v1/stacks/shop/releases")


def test_a_question_needs_somebody(shop, corral):
    done = corral("up", "-d", "--confirm")
    assert done.code == 2
    assert "nobody is there" in done.err


def test_it_fits_the_terminal_and_is_coloured_there_only():
    for line in plans.lines(PLAN):
        assert len(plans.painted(line, colour=False, limit=40)) <= 40
    head = plans.short(PLAN)[0]
    assert head.startswith("! web")
    assert plans.painted(head, colour=True, limit=0).startswith("\x1b[35;1m!")
    assert plans.painted("  app-web-1", colour=True, limit=0) == "  app-web-1"
    assert plans.differences(PLAN, PLAN) == [
        "  what the file means is another (a value, or what is in a secret or config)"
    ]
