"""`create`, `up --no-start`, `--no-recreate` and `-V`: what is asked of the controller."""

from __future__ import annotations

import pytest
from fake import Lines

FILE = "name: shop\nservices: {web: {image: nginx:1.27}, db: {image: redis:7.4}}\n"
ASKED = ("no_start", "no_recreate", "renew_volumes", "build", "services", "force_recreate")


@pytest.fixture
def shop(fake, tmp_path, monkeypatch):
    (tmp_path / "compose.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    row = {"stack": "shop", "number": 3, "state": "pending", "warnings": []}
    fake.on("POST", "/v1/stacks/shop/releases", row)
    end = {"kind": "end", "stack": "shop", "time": 1.0, "ok": True, "state": "deployed"}
    fake.on("GET", "/v1/stacks/shop/progress", lambda _: Lines([end]))
    return fake


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("create", {"no_start": True}),
        ("create web", {"no_start": True, "services": ["web"]}),
        (
            "create --build --no-recreate",
            {"no_start": True, "no_recreate": True, "build": "always"},
        ),
        ("create --force-recreate", {"no_start": True, "force_recreate": True}),
        ("up --no-start", {"no_start": True}),
        ("up -d -V web", {"renew_volumes": True, "services": ["web"]}),
        ("up -d --renew-anon-volumes", {"renew_volumes": True}),
        ("up -d --no-recreate db", {"no_recreate": True, "services": ["db"]}),
    ],
)
def test_what_is_asked_for(shop, corral, words, asked):
    done = corral(*words.split())
    assert done.code == 0, done.err
    (request,) = shop.asked("POST", "/v1/stacks/shop/releases")
    known = {key: request.body.get(key, False) for key in ASKED}
    nothing = {**dict.fromkeys(ASKED, False), "build": "missing", "services": []}
    assert known == {**nothing, **asked}


@pytest.mark.parametrize(
    "words",
    [
        "up --no-recreate --force-recreate",
        "create --no-recreate --force-recreate",
        "up --no-recreate --always-recreate-deps",
        "up --no-start --wait",
        "up --no-start --abort-on-container-exit",
        "up --no-start --attach web",
        "create --build --no-build",
    ],
)
def test_what_contradicts_itself_is_refused(shop, corral, words):
    done = corral(*words.split())
    assert done.code == 2
    assert "cannot be used together" in done.err
    assert not shop.asked("POST", ".*")
