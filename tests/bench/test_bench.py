"""The bench's own pure parts: tables and the page of figures."""

from tests.bench import docs
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
