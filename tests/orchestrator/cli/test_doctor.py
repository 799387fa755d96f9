"""`corral doctor`: a finding for each fault, with evidence and fix; a bundle without secrets."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest

from orchestrator.cli.commands import doctor
from orchestrator.cli.show import diagnosis

NOW = 1_800_000_000.0
DAY = 86400.0
CANARY = "hunter2-canary"


def node(name, **more):
    return {
        "name": name,
        "status": "ready",
        "version": "1.0",
        "availability": "active",
        "mtu": 1500,
        "facts": {"missing": [], "warnings": [], "images": []},
        **more,
    }


def figures(**more):
    lag = {
        "corral_loop_lag_seconds_count": 100.0,
        'corral_loop_lag_seconds_bucket{le="0.5"}': 100.0,
    }
    return {**lag, **more}


HEALTHY = {
    "now": NOW,
    "corral": "1.0",
    "unasked": {},
    "version": {"version": "1.0"},
    "state": {"behind": ""},
    "undecided": "",
    "check": {"records": 12, "findings": []},
    "backups": {"last_at": NOW - 3600, "failure": "", "cron": "@daily", "encrypted": True},
    "nodes": [node("n1"), node("n2")],
    "stacks": [{"name": "shop", "status": "running", "tasks": "2/2", "reason": ""}],
    "tasks": {"shop": [{"name": "shop-web-1", "service": "web", "node": "n1", "restarts": 0}]},
    "figures": figures(corral_brake=0.0),
    "node_figures": {
        "n2": figures(corral_time_seconds=NOW + 0.3, corral_asked_seconds=NOW),
    },
    "export": {"stacks": [{"name": "shop", "services": [{"name": "web", "mounts": []}]}]},
    "disk": {"path": "/var/lib/corral", "free": 50, "total": 100},
}


def ailing(**changes):
    facts = copy.deepcopy(HEALTHY)
    facts.update(changes)
    return facts


@pytest.mark.parametrize(
    ("blocks", "free", "available", "said", "level"),
    [
        (252, 223, 73, "28% full", "ok"),  # most is kept for others: 29 used of 102, as df says
        (100, 10, 5, "95% full", "warning"),  # root's own reserve
        (100, 50, 50, "50% full", "ok"),
        (100, 0, 0, "100% full", "warning"),
    ],
)
def test_a_disk_is_as_full_as_df_says(monkeypatch, blocks, free, available, said, level):
    found = SimpleNamespace(f_frsize=4096, f_blocks=blocks, f_bfree=free, f_bavail=available)
    monkeypatch.setattr(doctor.os, "statvfs", lambda _: found)
    (line,) = diagnosis._disk({"disk": doctor._disk("/var/lib/corral")})
    assert (line.level, line.evidence) == (level, f"/var/lib/corral is {said}")


def second(**more):
    """Return the nodes with one that differs."""
    return [node("n1"), node("n2", **more)]


def service(**more):
    return {"stacks": [{"name": "shop", "services": [{"name": "web", **more}]}]}


BIND = {"mounts": [{"type": "bind", "source": "/srv/data", "target": "/data"}]}
CASES = {
    "no controller": (
        ailing(unasked={"controller": "no answer"}), "error", "controller", "no answer",
    ),
    "one unasked": (ailing(unasked={"/v1/state": "late"}), "warning", "/v1/state", "late"),
    "older command": (ailing(corral="0.9"), "warning", "versions", "1.0, this command 0.9"),
    "older agent": (
        ailing(nodes=second(age="older", version="0.9")), "warning", "versions", "n2 0.9 (older)",
    ),
    "older state": (ailing(state={"behind": "older"}), "error", "state", "older"),
    "superseded": (ailing(undecided="a newer one"), "error", "state", "a newer one"),
    "records": (
        ailing(check={"records": 1, "findings": [{"severity": "error", "key": "/a", "what": "x"}]}),
        "error", "records", "/a x",
    ),
    "certificate": (
        ailing(check={"findings": [{"severity": "warning", "key": "/authority", "what": "ends"}]}),
        "warning", "records", "/authority ends",
    ),
    "no backup": (ailing(backups={"last_at": 0}), "warning", "backups", "none was made"),
    "old backup": (ailing(backups={"last_at": NOW - 30 * DAY}), "warning", "backups", "30 days"),
    "failed backup": (
        ailing(backups={"last_at": NOW, "failure": "disk full"}), "error", "backups", "disk full",
    ),
    "plain backups": (
        ailing(backups={"last_at": NOW, "cron": "@daily", "encrypted": False, "to": "/b"}),
        "note", "backups", "in the clear",
    ),
    "node down": (
        ailing(nodes=second(status="down", reason="gone")), "error", "node n2", "down: gone",
    ),
    "kernel": (
        ailing(nodes=second(facts={"missing": ["no vxlan in its kernel"]})),
        "warning", "node n2", "no vxlan",
    ),
    "node warns": (ailing(nodes=second(warnings=["sshd may ..."])), "warning", "node n2", "sshd"),
    "unread": (ailing(nodes=second(facts={"unread": ["a task"]})), "warning", "node n2", "a task"),
    "paused": (ailing(nodes=second(availability="pause")), "note", "node n2", "pause"),
    "brake": (ailing(figures=figures(corral_brake=1.0)), "error", "brake", "most nodes are silent"),
    "clock ahead": (
        ailing(node_figures={"n2": {"corral_time_seconds": NOW + 9, "corral_asked_seconds": NOW}}),
        "warning", "node n2", "9 s ahead",
    ),
    "clock behind": (
        ailing(node_figures={"n2": {"corral_time_seconds": NOW - 90, "corral_asked_seconds": NOW}}),
        "error", "node n2", "90 s behind",
    ),
    "mtu": (ailing(nodes=second(mtu=1400)), "note", "mtu", "n2 has 1400"),
    "small mtu": (
        ailing(nodes=[node("n1", mtu=1200), node("n2", mtu=1200)]),
        "warning", "mtu", "1200 is small",
    ),
    "disk": (
        ailing(disk={"path": "/var/lib/corral", "free": 5, "total": 100}),
        "warning", "disk", "95% full",
    ),
    "late loop": (
        ailing(figures=figures(**{'corral_loop_lag_seconds_bucket{le="0.5"}': 90.0})),
        "warning", "load", "in 10 of 100 looks",
    ),
    "degraded": (
        ailing(stacks=[{"name": "shop", "status": "degraded", "tasks": "1/2", "reason": "why"}]),
        "warning", "stack shop", "degraded, 1/2: why",
    ),
    "crash loop": (
        ailing(tasks={"shop": [{"name": "web-1", "service": "web", "node": "n1", "restarts": 9}]}),
        "error", "web-1", "9 restarts",
    ),
    "unpinned bind": (ailing(export=service(**BIND)), "note", "shop/web", "binds /srv/data"),
}  # fmt: skip


def test_in_a_healthy_cluster_all_is_well():
    found = diagnosis.diagnose(HEALTHY)
    assert {line.level for line in found} == {diagnosis.OK}
    said = {line.what for line in found}
    whole = {"versions", "state", "records", "backups", "nodes", "clocks", "mtu", "disk", "stacks"}
    assert said == whole


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_found_with_evidence_and_fix(case):
    facts, level, what, words = CASES[case]
    hits = [
        line for line in diagnosis.diagnose(facts) if line.what == what and words in line.evidence
    ]
    assert [line.level for line in hits] == [level]
    assert hits[0].fix or case in ("one unasked", "node warns")
    worst = diagnosis.diagnose(facts)[0].level
    assert worst == level, "law: what is healthy beside it is not blamed"


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": {"shop": [{"name": "a", "restarts": 9, "ready": True}]}},
        {"export": service(**BIND, constraints=["node.hostname == n2"])},
        {"export": service(mounts=[{"type": "bind", "source": "/etc/localtime"}])},
        {"export": service(mounts=[{"type": "volume", "source": "data"}])},
        {"export": service(**BIND), "nodes": [node("n1")]},
        {"figures": figures(**{'corral_loop_lag_seconds_bucket{le="0.5"}': 98.0})},
        {"node_figures": {}},
        {"disk": None},
        {"nodes": []},
    ],
)
def test_what_is_no_fault_is_not_told(change):
    found = diagnosis.diagnose(ailing(**change))
    assert {line.level for line in found} == {diagnosis.OK}


def test_nothing_asked_is_no_crash():
    found = diagnosis.diagnose({"unasked": {"controller": "no"}})
    assert [line.level for line in found] == [diagnosis.ERROR]


def test_a_bundle_takes_named_fields_only():
    poisoned = copy.deepcopy(HEALTHY)
    for row in (*poisoned["stacks"], *poisoned["tasks"]["shop"]):
        for name in ("reason", "command", "labels", "status_text", "new_field", "mounts"):
            row[name] = CANARY
    poisoned["stacks"][0]["status"] = "degraded"
    for row in poisoned["nodes"]:
        row["labels"] = {"a": CANARY}
    poisoned["backups"]["to"] = CANARY
    poisoned["unasked"] = {"/v1/state": CANARY}
    poisoned["state"] = {"behind": "", "stops": [CANARY]}
    lines = diagnosis.diagnose(poisoned)
    assert any(CANARY in line.evidence for line in lines), "the terminal shows it"
    made = doctor.bundle(poisoned, [line for line in lines if line.what != "/v1/state"])
    assert CANARY not in json.dumps(made)
    assert made["tasks"]["shop"][0]["name"] == "shop-web-1"


def test_an_exposition_is_read_back():
    text = '# HELP a b\n# TYPE a gauge\na 1\nb{x="y z"} 2.5\nc{le="+Inf"} 3\nbroken\nd e\n'
    found = diagnosis.figures(text)
    assert found == {"a": 1.0, 'b{x="y z"}': 2.5, 'c{le="+Inf"}': 3.0}


def test_without_a_controller_it_says_so(corral):
    done = corral("doctor")
    assert done.code == 1
    assert done.out.startswith("error   controller: no controller answers")
    assert "fix: corral controller status" in done.out
