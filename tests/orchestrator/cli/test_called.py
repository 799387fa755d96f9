"""Verb by verb: a container may be called by its name or id wherever a SERVICE may stand."""

from __future__ import annotations

import json

import pytest
from fake import Exec, Lines

from tests.orchestrator.cli.test_reading import row

WEB1 = row("web-1", "web", slot=1, id="task1")
WEB2 = row("web-2", "web", slot=2, id="task2", ports=["0.0.0.0:8082->80/tcp"])
DONE = row("job-1", "job", slot=1, id="task3", state="complete", finished_at=2.0, exit_code=4)
ROWS = [WEB1, WEB2, DONE]
NAMES = ["shop-web-2", "web-2", "task2", "shop_web_2"]


@pytest.fixture
def shop(fake):
    def tasks(request):
        every = request.query.get("all") == ["1"]
        return {"tasks": [r for r in ROWS if every or r is not DONE]}

    def talk(agent):
        agent.read()
        agent.send({"exit": 0})
        agent.read()

    fake.on("GET", "/v1/stacks/shop", {"name": "shop", "services": [{"name": "web"}]})
    fake.on("GET", "/v1/stacks/shop/tasks", tasks)
    fake.on("GET", "/v1/tasks/([^/]+)/(exec|attach)", lambda *_: Exec(talk))
    fake.on("GET", "/v1/tasks/([^/]+)/streams", {"tty": False, "stdin_open": False})
    fake.on("GET", "/v1/stacks/shop/logs", Lines([{"name": "web-2", "line": "x", "time": 1.0}]))
    fake.on("POST", "/v1/stacks/shop/stop", {"name": "shop"})
    return fake


@pytest.mark.parametrize("word", NAMES)
def test_what_reads_one_container(shop, corral, word):
    assert corral("-p", "shop", "ps", "-q", word).out == "task2\n"
    assert corral("-p", "shop", "port", word, "80").out == "0.0.0.0:8082\n"
    assert corral("-p", "shop", "images", "--format", "{{.ContainerName}}", word).out == (
        "shop-web-2\n"
    )
    assert corral("-p", "shop", "exec", "-T", word, "true").code == 0
    assert shop.asked("GET", "/v1/tasks/task2/exec")
    assert corral("-p", "shop", "attach", "--no-stdin", word).code == 0
    assert shop.asked("GET", "/v1/tasks/task2/attach")
    assert corral("-p", "shop", "logs", word).out == "web-2  | x\n"
    assert shop.asked("GET", ".*/logs")[0].query["service"] == [word]


@pytest.mark.parametrize("word", ["shop-job-1", "job-1", "task3"])
def test_what_has_ended(shop, corral, word):
    assert corral("-p", "shop", "wait", word).code == 4
    assert corral("-p", "shop", "ps", "-aq", word).out == "task3\n"
    assert corral("-p", "shop", "ps", "-q", word).out == "", "nothing of it runs"
    assert corral("-p", "shop", "stop", word).code == 0
    assert shop.asked("POST", ".*/stop")[0].body["services"] == ["job"]


@pytest.mark.parametrize("verb", ["stop", "kill", "rm -fs"])
def test_what_is_about_services_refuses_one_of_several(shop, corral, verb):
    done = corral("-p", "shop", *verb.split(), "web-2")
    assert done.code == 1
    assert "web-2 is one of 2 containers of web" in done.err
    assert "corral scale web=1" in done.err
    assert not [r for r in shop.requests if r.method == "POST"]


@pytest.mark.parametrize("words", ["exec -T nope true", "port nope 80", "logs nope", "wait nope"])
def test_who_is_not_there_is_said_with_who_is(shop, corral, words):
    done = corral("-p", "shop", *words.split())
    assert done.code == 1
    assert "nope" in done.err
    assert "web" in done.err.split("hint:")[1]


def test_copying_names_one_container(shop, corral, tmp_path):
    shop.on("GET", "/v1/tasks/([^/]+)/archive", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    corral("-p", "shop", "cp", "web-2:/etc/hosts", str(tmp_path))
    assert shop.asked("GET", "/v1/tasks/task2/archive")


def test_stats_of_what_does_not_run(shop, corral):
    shop.on("GET", "/v1/stacks/shop/usage", {"tasks": []})
    done = corral("-p", "shop", "stats", "--no-stream", "-a", "--format", "json", "job-1")
    assert [json.loads(line)["Name"] for line in done.out.splitlines()] == ["shop-job-1"]


@pytest.fixture
def blue_green(shop):
    old = row("web-1", "web", slot=1, id="older", beside="stands by", created_at=9.0)
    old["ports"] = ["0.0.0.0:9999->80/tcp"]
    new = row("web-1", "web", slot=1, id="newer", ports=["0.0.0.0:8081->80/tcp"])
    shop.on("GET", "/v1/stacks/shop/tasks", {"tasks": [old, new]})
    return shop


ASKED = [(word,) for word in ("web", "web-1", "shop-web-1", "shop_web_1")] + [("--index=1", "web")]


@pytest.mark.parametrize("words", ASKED)
def test_what_stands_by_is_not_entered_by_its_name(blue_green, corral, words):
    assert corral("-p", "shop", "exec", "-T", *words, "true").code == 0
    assert corral("-p", "shop", "attach", "--no-stdin", *words).code == 0
    assert corral("-p", "shop", "port", *words, "80").out == "0.0.0.0:8081\n"
    corral("-p", "shop", "cp", *words[:-1], f"{words[-1]}:/etc/hosts", "x")
    for what in ("exec", "attach", "archive"):
        assert blue_green.asked("GET", f"/v1/tasks/newer/{what}")
        assert not blue_green.asked("GET", f"/v1/tasks/older/{what}")


def test_what_stands_by_is_entered_by_its_id(blue_green, corral):
    assert corral("-p", "shop", "exec", "-T", "older", "true").code == 0
    assert blue_green.asked("GET", "/v1/tasks/older/exec")
    assert corral("-p", "shop", "port", "older", "80").out == "0.0.0.0:9999\n"


def test_ps_lists_what_runs_beside_another_with_a_word(blue_green, corral):
    out = corral("-p", "shop", "ps").out
    assert out.count("shop-web-1") == 2
    assert out.count("(stands by)") == 1
    old = row("web-1", "web", slot=1, id="older")
    new = row("web-1", "web", slot=1, id="newer", beside="canary", created_at=9.0)
    blue_green.on("GET", "/v1/stacks/shop/tasks", {"tasks": [old, new]})
    assert sorted(corral("-p", "shop", "ps", "-q").out.split()) == ["newer", "older"]
    out = corral("-p", "shop", "ps", "-a").out
    assert out.count("(canary)") == 1
    assert "(past)" not in out
