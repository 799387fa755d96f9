"""Ctrl-C in `up -d`: what is offered undoes this release, and nothing that was there before."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from fake import Problem

DOWN = "Undo it: corral -p shop down\n"
BACK = (
    "Release 2 is what ran before: to undo this one, corral -p shop rollback "
    "(corral -p shop down would remove the whole stack)\n"
)


@pytest.fixture
def interrupted(fake, monkeypatch):
    from orchestrator.cli import project
    from orchestrator.cli.show import watch

    found = SimpleNamespace(
        name="shop",
        model={"name": "shop", "services": {"web": {"image": "busybox"}}},
        origins={},
        warnings=(),
        disabled={},
        profiles=(),
        sources={"-": ""},  # nothing to come back to
        working_dir="/shop",
        files=("/shop/compose.yaml",),
        environment=os.environ,
    )
    monkeypatch.setattr(project, "load", lambda flags, services=(), **_: found)
    monkeypatch.setattr(project, "contents", lambda _project, *_, **__: {})

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "follow", interrupt)
    row = {"stack": "shop", "number": 3, "state": "pending", "created_at": 1.0, "warnings": []}
    fake.on("POST", "/v1/stacks/shop/releases", row)
    return fake


def gone(_request):
    raise Problem(404, {"type": "not-found", "title": "Not found", "status": 404})


@pytest.mark.parametrize(
    ("stack", "offered"),
    [
        ({"running": 2}, BACK),
        ({"running": 0}, DOWN),
        ({"running": None}, DOWN),
        ({}, DOWN),
        (gone, DOWN),
    ],
    ids=["an update", "the first release", "none", "an older controller", "the stack is gone"],
)
@pytest.mark.parametrize("how", ["-d", "--wait"])
def test_what_an_interrupt_offers(interrupted, corral, stack, offered, how):
    interrupted.on("GET", "/v1/stacks/shop", stack)
    done = corral("-p", "shop", "up", how)
    assert done.code == 130
    assert done.err.endswith(
        f"release 3 of shop goes on in the background. See it: corral -p shop ps. {offered}"
    )
