"""What `corral upgrade` asks of a controller, refuses by itself, and says."""

from __future__ import annotations

import pytest
from fake import Lines, Problem

from specs.kit import versions

MINE = versions.installed()


def is_at(fake, version):
    fake.on("GET", "/v1/version", {"version": version, "api": 1, "cluster": "c", "epoch": 1})


def says(fake, *lines):
    fake.on("POST", "/v1/upgrade", lambda _request: Lines(lines))


@pytest.fixture
def controller(fake):
    rows = [
        {"name": "n1", "address": "root@n1", "version": MINE, "status": "ready"},
        {"name": "n2", "address": "root@n2", "version": "0.0.9", "status": "ready", "age": "older"},
    ]
    fake.on("GET", "/v1/nodes", {"nodes": rows})
    says(fake, {"kind": "step", "message": "n2: 0.0.9 -> 9"}, {"kind": "end", "ok": True})
    return fake


@pytest.fixture
def elsewhere(controller, monkeypatch):
    """The same controller, as another machine's."""
    monkeypatch.setenv("CORRAL_HOST", f"unix://{controller.path}")
    monkeypatch.setenv("CORRAL_RUN_DIR", "/nowhere")


def body(fake):
    return fake.asked("POST", "/v1/upgrade")[-1].body


def test_it_asks_for_the_nodes_that_are_named(controller, corral):
    done = corral("upgrade", "--nodes", "n1,n2", "--nodes", "n3", "-i", "/k/ey")
    assert done.code == 0
    assert body(controller) == {"nodes": ["n1", "n2", "n3"], "identity": "/k/ey"}
    assert f"controller: {MINE} already" in done.err
    assert "  n2: 0.0.9 -> 9" in done.err


def test_a_dry_run_says_against_which_version(controller, corral):
    is_at(controller, "0.0.1")
    done = corral("upgrade", "--dry-run")
    assert done.code == 0
    assert f"controller: 0.0.1 -> {MINE}; would be restarted" in done.err
    assert body(controller) == {"nodes": [], "dry_run": True, "version": MINE, "here": True}


@pytest.mark.parametrize("status", [400, 404])
def test_a_controller_that_cannot_say_it_yet(controller, corral, status):
    is_at(controller, "0.0.1")

    def unknown(_request):
        raise Problem(status, {"title": "Not found"})

    controller.on("POST", "/v1/upgrade", unknown)
    done = corral("upgrade", "--dry-run")
    assert done.code == 0
    assert f"n1: {MINE} already" in done.err
    assert f"n2: 0.0.9 -> {MINE}" in done.err
    missing = corral("upgrade", "--dry-run", "--nodes", "n7")
    assert (missing.code, "there is no node n7" in missing.err) == (1, True)


def test_nothing_goes_back(controller, corral):
    is_at(controller, "99.0.0")
    for words in (("upgrade",), ("upgrade", "--dry-run")):
        done = corral(*words)
        assert done.code == 1
        assert f"the controller has 99.0.0, which is newer than this corral ({MINE})" in done.err
        assert "install corral 99.0.0 here" in done.err
    assert not controller.asked("POST", "/v1/upgrade")


def test_another_machines_controller_is_not_ours_to_restart(controller, elsewhere, corral):
    is_at(controller, "0.0.1")
    done = corral("upgrade")
    assert done.code == 1
    assert "it is another machine's" in done.err
    assert "as root on the controller's machine" in done.err
    is_at(controller, MINE)
    assert corral("upgrade").code == 0


def test_a_failure_has_its_last_words_and_its_hint(controller, corral):
    says(
        controller,
        {"kind": "warning", "message": "n4: skipped: no route"},
        {"kind": "end", "ok": False, "message": "n2: no good; 0.0.9 is in place again",
         "log_tail": ["Traceback"], "hint": "mend it"},
    )  # fmt: skip
    done = corral("upgrade")
    assert done.code == 1
    assert "warning: n4: skipped: no route" in done.err
    assert "corral: upgrade failed: n2: no good; 0.0.9 is in place again" in done.err
    assert "    | Traceback" in done.err
    assert "  hint: mend it" in done.err


def test_a_second_one_is_refused_by_name(controller, corral):
    def busy(_request):
        detail = "another corral upgrade is under way: it is at node n2"
        raise Problem(409, {"type": "conflict", "title": "Conflict", "detail": detail})

    controller.on("POST", "/v1/upgrade", busy)
    done = corral("upgrade")
    assert done.code == 1
    assert "another corral upgrade is under way: it is at node n2" in done.err


def test_node_ls_marks_other_versions(controller, corral):
    out = corral("node", "ls").out
    assert "0.0.9 (older)" in out
    assert f"{MINE} (" not in out
