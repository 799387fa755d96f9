"""What --progress lets be said beside a verb's output: one law for every word on stderr."""

from __future__ import annotations

import ast
import json
import time
from pathlib import Path

import pytest
from fake import Lines

RELEASE = {"stack": "shop", "number": 3, "state": "pending", "created_at": 1.0, "warnings": []}
TASK = {"kind": "task", "service": "web", "task": "t1", "name": "shop-web-1", "node": "alpha"}
GOOD = [
    {"kind": "release", "state": "deploying"},
    {"kind": "service", "service": "web", "running": 0, "wanted": 1, "message": ""},
    {**TASK, "state": "running", "ready": True},
    {"kind": "service", "service": "web", "running": 1, "wanted": 1, "message": ""},
    {"kind": "end", "ok": True, "completed": ["migrate"]},
]
BAD = [
    GOOD[0],
    {"kind": "end", "ok": False, "message": "web exited with code 1", "exit_code": 1, "time": 1.0},
]
WARNED = {**RELEASE, "warnings": [{"message": "init is ignored", "severity": "warning"}]}


@pytest.fixture
def shop(fake, clean_environment):
    (clean_environment.work / "compose.yaml").write_text("services: {web: {image: a}}")

    def released(_request):
        time.sleep(0.6)  # long enough to be named
        return RELEASE

    fake.on("POST", "/v1/stacks/shop/releases", released)
    fake.on("POST", "/v1/stacks/shop/stop", {})
    fake.on("DELETE", "/v1/stacks/shop", {})
    fake.on("GET", "/v1/stacks/shop/progress", Lines(GOOD))
    return fake


@pytest.mark.parametrize("words", [["up", "-d"], ["stop"], ["down"]], ids=" ".join)
@pytest.mark.parametrize("wish", ["quiet", "json"])
@pytest.mark.parametrize("way", ["flag", "variable"])
def test_a_verb_that_ends_well(shop, corral, monkeypatch, words, wish, way):
    if way == "variable":
        monkeypatch.setenv("COMPOSE_PROGRESS", wish)
    done = corral(*(["--progress", wish] if way == "flag" else []), *words)
    assert (done.code, done.out) == (0, "")
    if wish == "quiet":
        assert done.err == ""
        return
    rows = [json.loads(line) for line in done.err.splitlines()]
    assert {"time", "text", "level"} == {key for row in rows for key in row}
    assert "1/1 replicas" in rows[-1]["text"]
    assert "migrate: completed before" in rows[-1]["text"]


def test_a_step_that_lasts_is_a_line_of_json_too(shop, corral):
    rows = corral("--progress", "json", "up", "-d").err.splitlines()
    assert "handing over the release" in [json.loads(row)["text"] for row in rows]


@pytest.mark.parametrize(
    ("answer", "lines", "words", "code", "level", "text"),
    [
        (RELEASE, BAD, ["up", "-d"], 1, "error", "web exited with code 1"),
        (WARNED, GOOD, ["up", "-d"], 0, "warning", "init is ignored"),
        (None, GOOD, ["-p", "blog", "stop"], 0, "warning", "there is no stack blog"),
        (None, GOOD, ["-p", "blog", "down"], 0, "warning", "blog: no such stack"),
        (None, GOOD, ["-p", "blog", "logs"], 1, "error", "Not found"),
        (None, GOOD, ["-f", "none.yaml", "up", "-d"], 1, "error", "none.yaml"),
        (None, GOOD, ["--parallel", "2", "stop"], 0, "warning", "--parallel has no effect"),
    ],
)  # fmt: skip
def test_what_went_wrong_is_said_with_quiet_and_is_json_with_json(
    shop, corral, answer, lines, words, code, level, text
):
    if answer:
        shop.on("POST", "/v1/stacks/shop/releases", answer)
    shop.on("GET", "/v1/stacks/shop/progress", Lines(lines))
    quiet = corral("--progress", "quiet", *words)
    assert (quiet.code, text in quiet.err) == (code, True), quiet.err
    done = corral("--progress", "json", *words)
    rows = [json.loads(line) for line in done.err.splitlines()]
    assert any(row["level"] == level and text in row["text"] for row in rows), rows
    assert done.code == code


ROW = {"id": "t1", "name": "shop-web-1", "service": "web", "node": "alpha", "state": "running"}
BARE = {
    # verb -> how it ends, and what somebody who wants quiet hears of it
    "pause": (0, ""),
    "kill -s HUP": (0, ""),
    "kill -s USR1 db": (1, "nothing of db runs"),
    "rm -f": (0, ""),
    "rm -f web": (0, ""),
    "node label alpha a=b": (0, ""),
    "node pause alpha": (0, ""),
    "node rm alpha": (1, "no such thing"),
    "network rm nope": (1, "Not found"),
    "network prune -f": (0, ""),
    "volume prune -f": (0, "volumes with a name stay"),
    "secret inspect nope": (1, "Not found"),
    "stats --no-stream": (1, "no answer"),
    "ps": (0, "is missing"),
    "ls": (0, "is to be decided"),
}


@pytest.fixture
def bare(fake):
    def signalled(request):
        mine = [] if "db" in request.body["services"] else ["shop-web-1"]
        return {"tasks": mine, "missed": {}, "stopping": []}

    late = {**ROW, "reason": "no answer within 5 s"}
    for method, path, answer in (
        ("GET", "/v1/stacks", {"stacks": [], "undecided": "what runs is to be decided"}),
        ("GET", "/v1/stacks/shop", {"name": "shop", "status": "running", "services": []}),
        (
            "GET",
            "/v1/stacks/shop/tasks",
            {"tasks": [{**ROW, "paused": True}], "missing": ["shop-web-2 is missing: failed"]},
        ),
        ("POST", "/v1/stacks/shop/pause", {"tasks": ["t1"]}),
        ("POST", "/v1/stacks/shop/signal", signalled),
        ("POST", "/v1/stacks/shop/forget", {"tasks": ["shop-job-1"], "running": []}),
        ("GET", "/v1/stacks/shop/usage", {"tasks": [late]}),
        ("PATCH", "/v1/nodes/alpha", {"name": "alpha", "labels": {"a": "b"}}),
        (
            "DELETE",
            "/v1/nodes/alpha",
            Lines(
                [
                    {"kind": "step", "message": "asking alpha"},
                    {"kind": "warning", "message": "alpha is slow"},
                    {
                        "kind": "end",
                        "ok": False,
                        "message": "no such thing",
                        "hint": "corral node ls",
                    },
                ]
            ),
        ),
        ("GET", "/v1/networks", {"networks": []}),
        ("GET", "/v1/volumes", {"volumes": []}),
    ):
        fake.on(method, path, answer)
    return fake


@pytest.mark.parametrize("verb", BARE)
def test_a_verb_says_no_bare_word_beside_json(bare, corral, verb):
    done = corral("--progress", "json", "-p", "shop", *verb.split())
    assert done.code == BARE[verb][0]
    for line in done.err.splitlines():
        assert {"time", "text", "level"} <= set(json.loads(line))
    assert BARE[verb][1] in done.err
    assert "shop-web-1 HUP" not in done.out
    assert "removed" not in done.out


@pytest.mark.parametrize("verb", BARE)
def test_who_wants_quiet_hears_only_what_is_wrong(bare, corral, verb):
    code, words = BARE[verb]
    done = corral("--progress", "quiet", "-p", "shop", *verb.split())
    assert done.code == code
    assert (words in done.err) if words else done.err == ""
    if verb.split()[0] in ("pause", "kill", "rm", "node"):
        assert done.out == ""


def test_nothing_is_printed_as_an_error_but_in_one_place():
    """Law: words on standard error go through ``said``, or ``--progress`` does not count there."""
    base = Path(__file__).parents[3] / "orchestrator" / "cli"
    allowed = {
        "said.py": 2,  # here
        "show/watch.py": 2,  # the views that --progress chooses, and containers' own errors
        "commands/node.py": 3,  # a question to a person on a terminal
        "planning.py": 2,  # likewise
    }
    found = {}
    for path in sorted(base.rglob("*.py")):
        calls = [
            call
            for call in ast.walk(ast.parse(path.read_text()))
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "print"
            if any("stderr" in ast.unparse(word.value) for word in call.keywords)
        ]
        if calls:
            found[str(path.relative_to(base))] = len(calls)
    assert found == allowed
