"""A carried service whose slots hold copies of two releases: which of them goes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.control.planning import keeping, stopping
from scheduler.reconcile import WantedService
from scheduler.replicas import Replica
from specs.states import TaskState

SERVES = {"ready": True}
COMES = {"state": TaskState.STARTING}
DOWN = {"unheard": True, "lost": True}
SILENT = {"ready": True, "unheard": True}


@pytest.mark.parametrize(
    ("old", "new", "kept", "stopped"),
    [
        (SERVES, COMES, "old", ["new"]),  # the update stays where it was
        (SERVES, SERVES, "new", ["old"]),
        (COMES, SERVES, "new", ["old"]),
        # The node of the old one is silent or down: it may be the one that serves.
        (DOWN, COMES, "new", []),
        (DOWN, SERVES, "new", ["old"]),
        (SILENT, COMES, "old", []),
        (SILENT, SERVES, "new", ["old"]),
        (COMES, SILENT, "new", []),
        (SILENT, SILENT, "new", []),
        (DOWN, DOWN, "new", []),
    ],
)
def test_what_is_not_heard_is_stopped_only_where_another_serves(
    monkeypatch, old, new, kept, stopped
):
    told: list[str] = []
    monkeypatch.setattr(stopping, "begin", lambda _pass, task: told.append(task))
    pass_ = SimpleNamespace(
        specs=SimpleNamespace(of=lambda _s, number, _n: SimpleNamespace(hash=f"of {number}")),
        draft=SimpleNamespace(task=lambda name: name),
    )
    spec = SimpleNamespace(carried=("web",))
    service = SimpleNamespace(name="web")
    effective = SimpleNamespace(stack="app", hash="of 2", service=service, spec=spec)
    copies = [
        Replica("old", 1, "old", "n1", release=1, created_at=1.0, **old),
        Replica("new", 1, "new", "n2", release=2, created_at=2.0, **new),
    ]
    found = keeping.as_it_is(pass_, effective, WantedService({1: "new"}), copies)
    assert found.wanted.slots == {1: kept}
    assert told == stopped
