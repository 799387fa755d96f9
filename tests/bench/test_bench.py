"""The bench's own pure parts: tables and the page of figures."""

import importlib

import pytest

from tests.bench import docs, placing, stations
from tests.bench.hosts import KINDS, _kind
from tests.bench.machine import spread, table


def test_a_table_lines_up():
    assert table(("a", "long"), [("xyz", 1)]) == "| a   | long |\n| --- | ---- |\n| xyz | 1    |"


def test_a_median_is_shown_with_its_range():
    assert spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0-3.0)"
    assert spread([1.234]) == "1.23"


def test_figures_replace_only_their_own_section():
    page = docs.replace(docs.replace("# Page\n\nwords\n", "one", "old"), "two", "other")
    again = docs.replace(page, "one", r"new \1")
    assert again == page.replace("old", r"new \1")
    assert again.startswith("# Page\n\nwords\n")
    assert "other" in again


def test_every_daemon_is_told_apart_by_its_command_line():
    lines = {
        "dns": "/venv/bin/python -P -m agent.dns /run",
        "agent": "/venv/bin/python -P -m agent",
        "controller": "/venv/bin/python -P -m orchestrator --embedded",
        "supervisor": "/venv/bin/python -I -S /x/orchestrator/embedded/supervisor.py /run",
        "conmon": "/usr/bin/conmon --cid x",
        "shim": "/usr/bin/containerd-shim-runc-v2 -namespace moby",
        "containerd": "containerd --config x",
        "dockerd": "/usr/sbin/dockerd --host x",
        "": "sleep 1000",
    }
    assert {kind: _kind(line.split(" ")) for kind, line in lines.items()} == {k: k for k in lines}
    assert {kind for _, kind in KINDS} == set(lines) - {""}


def test_every_station_is_there_to_be_noted():
    for module, names in stations.CALLS.items():
        for name in names:
            holder = importlib.import_module(module)
            for part in name.split("."):
                holder = getattr(holder, part)
            assert callable(holder), f"{module}:{name}"


def test_stations_stand_in_the_order_they_began_with_what_they_took():
    lines = ["1001000000 7 a:whole +", "1002000000 8 b:part +", "1004500000 8 b:part -"]
    text = stations.report({"began": 1.0, "wall": 0.02}, lines)
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["1.0", "0", "a", "whole"],
        ["2.0", "2.5", "1", "b", "part"],
        ["20.0", "the", "command", "has", "ended"],
    ]


@pytest.mark.parametrize("name", placing.CASES)
def test_every_case_of_placing_is_answered(name):
    case = placing.CASES[name]
    tasks = case.make(20)[:300]
    found = {"tasks": len(tasks), "seconds": [placing._once(placing.fleet(20), tasks)], "memory": 1}
    assert placing.report({"cases": {name: found}}).count("\n") == 2
    slow = {**found, "seconds": [1e9]}
    assert bool(placing.verdict({"cases": {name: slow}})) == bool(case.goal)
