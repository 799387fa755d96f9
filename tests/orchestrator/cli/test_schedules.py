"""`corral schedule`: when services are due, what came of it, and one by hand."""

from __future__ import annotations

import json
import time

import pytest

from orchestrator.cli.commands import schedule

NOW = 1_800_000_000.0


def iteration(number=3, **more):
    return {
        "number": number,
        "task": f"t-{number}",
        "name": f"shop-report-{number}",
        "due": NOW - 7200,
        "begun_at": NOW - 7200,
        "started_at": NOW - 7199,
        "ended_at": NOW - 7100,
        "exit_code": 0,
        "outcome": "complete",
        "reason": "",
        **more,
    }


def row(**more):
    last = more.get("last", iteration())
    return {
        "stack": "shop",
        "service": "report",
        "cron": "0 2 * * *",
        "timezone": "UTC",
        "next_at": NOW + 3 * 3600,
        "why": "",
        "running": 0,
        "last": last,
        "iterations": [last] if last else [],
        "skipped": 0,
        "skipped_why": "",
        **more,
    }


@pytest.fixture(autouse=True)
def fixed_time(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setattr(schedule, "LOOK", 0.0)


def test_ls(fake, corral):
    failed = iteration(outcome="failed", exit_code=3)
    rows = [
        row(),
        row(service="vacuum", timezone="Europe/Berlin", last=failed, skipped=2, skipped_why="busy"),
        row(service="paused", next_at=None, why="paused", last=None),
        row(service="now", last=iteration(outcome="", ended_at=None, exit_code=None)),
        row(service="slow", last=iteration(outcome="late", reason="it took longer than its 5 s")),
    ]
    fake.on("GET", "/v1/schedules", {"schedules": rows})
    done = corral("schedule", "ls")
    assert done.code == 0
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    due = "in 3 h (2027-01-15 11:00:00Z) 2 h ago"
    assert lines == [
        "STACK SERVICE CRON NEXT LAST RESULT MISSED",
        f"shop report 0 2 * * * {due} complete",
        f"shop vacuum 0 2 * * * Europe/Berlin {due} failed (exit code 3) 2 (busy)",
        "shop paused 0 2 * * * paused",
        f"shop now 0 2 * * * {due} running",
        f"shop slow 0 2 * * * {due} late (it took longer than its 5 s)",
    ]
    assert corral("schedule", "ls", "-q").out.split() == [r["service"] for r in rows]
    shown = [
        json.loads(line)
        for line in corral("schedule", "ls", "--format", "json").out.split("\n")
        if line
    ]
    assert shown[0]["Name"] == "report"
    assert shown[1]["last"]["exit_code"] == 3
    corral("-p", "shop", "schedule", "ls")
    assert fake.requests[-1].query["stack"] == ["shop"]


@pytest.mark.parametrize(
    ("end", "code", "says"),
    [
        ({}, 0, "shop-report-4 complete"),
        ({"outcome": "failed", "exit_code": 3}, 3, "shop-report-4 failed (exit code 3)"),
        ({"outcome": "late", "exit_code": 143, "reason": "too long"}, 143, "late (too long)"),
        ({"outcome": "lost", "exit_code": None, "reason": "node b is gone"}, 1, "lost (node b"),
    ],
)
def test_by_hand_it_ends_as_the_iteration_does(fake, corral, end, code, says):
    looks = [iteration(4, outcome="", ended_at=None, exit_code=None), iteration(4, **end)]
    fake.on("POST", "/v1/stacks/shop/schedules/report", {"schedule": row(), "number": 4})
    fake.on(
        "GET",
        "/v1/schedules",
        lambda _: {"schedules": [row(iterations=[looks.pop(0) if len(looks) > 1 else looks[0]])]},
    )
    done = corral("-p", "shop", "schedule", "run", "report")
    assert done.code == code
    assert "shop-report-4 begins" in done.out
    assert says in done.out
    assert fake.asked("POST", "/v1/stacks/shop/schedules/report")[0].body == {"action": "run"}
    assert corral("-p", "shop", "schedule", "run", "-d", "report").code == 0


FILE = """
name: shop
services:
  report: {image: busybox, x-corral: {schedule: "0 2 * * *"}}
"""


@pytest.mark.parametrize("words", [["-d"], ["--wait"], []])
def test_up_says_when_and_attaches_to_nobody(fake, corral, clean_environment, words):
    (clean_environment.work / "compose.yaml").write_text(FILE)
    release = {"stack": "shop", "number": 1, "state": "deployed", "unchanged": True}
    fake.on("POST", "/v1/stacks/shop/releases", {**release, "created_at": NOW})
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": []})
    fake.on("GET", "/v1/schedules", {"schedules": [row(), row(service="another")]})
    done = corral("up", *words)
    assert done.code == 0
    assert "report runs in 3 h (2027-01-15 11:00:00Z)\n" in done.err
    assert "another" not in done.err
    fake.on("GET", "/v1/schedules", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert corral("up", *words).code == 0


def test_pause_and_resume(fake, corral):
    held = row(next_at=None, why="paused")
    fake.on(
        "POST",
        "/v1/stacks/shop/schedules/report",
        lambda r: {"schedule": held if r.body["action"] == "pause" else row()},
    )
    assert corral("-p", "shop", "schedule", "pause", "report").out == "report: paused\n"
    said = corral("-p", "shop", "schedule", "resume", "report").out
    assert said == "report: in 3 h (2027-01-15 11:00:00Z)\n"
