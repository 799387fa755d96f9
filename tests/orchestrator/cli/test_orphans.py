"""Orphans and partial `up` on the command line: what is sent, what is shown.

Whether orphans go is asked for as in Docker Compose: a flag, or a variable of the process
or of the project's ``.env``.
"""

from __future__ import annotations

import json

import pytest

from orchestrator.cli import deploy
from specs.compose.project.selection import narrowed

FILES = {
    "compose.yaml": """
name: shop
services:
  web: {image: busybox, depends_on: [db], secrets: [good]}
  db: {image: busybox, volumes: ["data:/data"]}
  aside: {image: busybox, secrets: [bad]}
  cron: {image: busybox, profiles: [cron]}
volumes: {data: {}}
secrets: {good: {file: ./good}, bad: {file: ./missing}}
""",
    "good": "word",
}
WARNING = {
    "message": "old is not in the Compose file and runs on (orphan)",
    "code": "orphans",
    "hint": "up --remove-orphans removes what the file no longer has",
    "severity": "warning",
}
RELEASE = {"stack": "shop", "number": 3, "state": "pending", "created_at": 1.0}
STREAM = [
    {"kind": "release", "state": "deployed", "orphans": ["old"]},
    {"kind": "end", "ok": True},
]


@pytest.fixture
def shop(fake, tmp_path, monkeypatch):
    from fake import Lines

    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    for name in ("COMPOSE_REMOVE_ORPHANS", "COMPOSE_IGNORE_ORPHANS"):
        monkeypatch.delenv(name, raising=False)
    fake.on("POST", "/v1/stacks/shop/releases", {**RELEASE, "warnings": [WARNING]})
    fake.on("GET", "/v1/stacks/shop/progress", Lines(STREAM))
    return fake


def sent(shop):
    return shop.asked("POST", ".*/releases")[-1].body


@pytest.mark.parametrize(
    ("flag", "environ", "dotenv", "asked"),
    [
        ([], {}, "", False),
        (["--remove-orphans"], {}, "", True),
        ([], {"COMPOSE_REMOVE_ORPHANS": "1"}, "", True),
        ([], {"COMPOSE_REMOVE_ORPHANS": "true"}, "", True),
        ([], {"COMPOSE_REMOVE_ORPHANS": "0"}, "", False),
        ([], {"COMPOSE_REMOVE_ORPHANS": "no"}, "", False),
        ([], {}, "COMPOSE_REMOVE_ORPHANS=true\n", True),
        ([], {"COMPOSE_REMOVE_ORPHANS": "false"}, "COMPOSE_REMOVE_ORPHANS=true\n", False),
    ],
)
def test_who_asks_for_orphans_to_go(
    shop, corral, tmp_path, monkeypatch, flag, environ, dotenv, asked
):
    (tmp_path / ".env").write_text(dotenv)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert corral("up", "-d", *flag, "web").code == 0
    assert sent(shop)["remove_orphans"] is asked


@pytest.mark.parametrize(
    ("ignore", "shown"), [("", True), ("0", True), ("1", False), ("true", False)]
)
def test_the_warning_can_be_silenced(shop, corral, monkeypatch, ignore, shown):
    monkeypatch.setenv("COMPOSE_IGNORE_ORPHANS", ignore)
    said = corral("up", "-d", "web").err
    assert ("old is not in the Compose file" in said) is shown
    assert "old kept as orphan" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("hint", "command", "shown"),
    [
        ("corral scale web=1", "corral", "corral scale web=1"),
        ("corral scale web=1", "corral -p shop", "corral -p shop scale web=1"),
        ("corral up db starts it", "corral -f a.yaml", "corral -f a.yaml up db starts it"),
        ("corral -p shop up tries again", "corral -p shop", "corral -p shop up tries again"),
        ("corral controller extend 10.9.0.0/16", "corral -p shop",
         "corral controller extend 10.9.0.0/16"),
        ("give db a healthcheck", "corral -p shop", "give db a healthcheck"),
        ("", "corral -p shop", ""),
    ],
)  # fmt: skip
def test_commands_to_copy_are_for_this_stack(hint, command, shown):
    warning = {"message": "m", "hint": hint}
    (told,) = deploy.told([warning], {}, command)
    assert told == {"message": "m", "hint": shown}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["web"], {"services": ["web"], "no_deps": False, "known": ["cron"]}),
        (["--no-deps", "web"], {"services": ["web"], "no_deps": True}),
        (["--always-recreate-deps", "web"], {"always_recreate_deps": True}),
        (["--force-recreate", "web"], {"services": ["web"], "force_recreate": True}),
        (["--build", "web"], {"services": ["web"], "build": "always"}),
        (["cron"], {"services": ["cron"], "known": []}),
    ],
)
def test_what_a_partial_up_sends(shop, corral, words, expected):
    assert corral("up", "-d", *words).code == 0
    assert expected.items() <= sent(shop).items()


def test_a_secret_another_service_lacks_stops_nobody(shop, corral):
    assert corral("up", "-d", "web").code == 0
    assert list(sent(shop)["contents"]) == ["secrets.good"]
    assert corral("up", "-d", "--no-deps", "db").code == 0
    assert sent(shop)["contents"] == {}
    assert corral("up", "-d", "aside").code == 1
    assert corral("up", "-d").code == 1


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], {"web", "old"}),
        (["--orphans"], {"web", "old"}),
        (["--orphans=true"], {"web", "old"}),
        (["--orphans=false"], {"web"}),
        (["--orphans", "old"], {"old"}),
        (["--orphans=false", "web"], {"web"}),
    ],
)
def test_ps_shows_orphans_unless_told_not_to(shop, corral, words, shown):
    rows = [
        {"id": "1", "name": "shop-web-1", "service": "web", "state": "running"},
        {
            "id": "2",
            "name": "shop-old-1",
            "service": "old",
            "state": "running",
            "carried": "orphan",
        },
    ]
    shop.on("GET", "/v1/stacks/shop/tasks", {"tasks": rows})
    done = corral("-p", "shop", "ps", *words)
    assert done.code == 0
    assert {name for name in ("web", "old") if f"shop-{name}-1" in done.out} == shown
    assert ("(orphan)" in done.out) is ("old" in shown)
    lines = corral("-p", "shop", "ps", "--format", "json", *words).out.splitlines()
    assert {json.loads(line)["Service"] for line in lines} == shown


@pytest.mark.parametrize(
    ("names", "dependencies", "services", "used"),
    [
        (["web"], True, {"web", "db"}, {"n", "v", "s"}),
        (["web"], False, {"web"}, {"n", "s"}),
        (["db"], True, {"db"}, {"v"}),
        (["ring"], True, {"ring", "ring2"}, set()),
        (["nobody"], True, set(), set()),
        (["old"], True, {"old"}, set()),
    ],
)
def test_a_model_is_narrowed_to_what_is_named(names, dependencies, services, used):
    model = {
        "services": {
            "web": {
                "depends_on": {"db": {}},
                "networks": {"n": None},
                "secrets": [{"source": "s"}],
            },
            "db": {"volumes": [{"type": "volume", "source": "v", "target": "/v"}]},
            "ring": {"depends_on": {"ring2": {}}},
            "ring2": {"depends_on": {"ring": {}}},
            "old": {"depends_on": {"gone": {"required": False}}},
        },
        "networks": {"n": {}, "other": {}},
        "volumes": {"v": {}},
        "secrets": {"s": {}},
    }
    whole = json.loads(json.dumps(model))
    found = narrowed(model, names, dependencies=dependencies)
    assert set(found["services"]) == services
    sections = (found.get(key, {}) for key in ("networks", "volumes", "secrets"))
    assert {name for section in sections for name in section} == used
    assert model == whole
