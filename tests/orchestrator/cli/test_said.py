"""What --progress lets be said beside a verb's output: one law for every word on stderr."""

from __future__ import annotations

import json
import time

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
