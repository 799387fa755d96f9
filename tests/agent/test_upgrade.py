"""A node changes its agent: which links and starters are in place, killed at whichever step."""

from __future__ import annotations

import pytest

from agent import upgrade

OLD, NEW, OLDER = "0.1.0-aaa", "0.2.0-bbb", "0.0.9-zzz"
OLD_LINE = f"env -i PYTHONPATH=/opt/corral/{OLD} supervisor.py agent # corral"
NEW_LINE = "env -i PYTHONPATH=/opt/corral/current supervisor.py agent # corral"
RC = f"#!/bin/sh\nsomebody else's\n{OLD_LINE}\nexit 0\n"


class Killed(BaseException):
    """The power went, or somebody sent SIGKILL."""


class Node(upgrade.NodePlace):
    """A node in a folder; starts are counted, not made."""

    def __init__(self, root, *, systemd=False, bundle=NEW):
        self.root = root
        starter = "new unit\n" if systemd else NEW_LINE
        request = upgrade.ChangeRequest(bundle, "0.2.0", starter, systemd, {})
        layout = upgrade.NodeLayout(
            opt=root / "opt", run=root / "run", log=root / "agent.log",
            unit=root / "unit", rc=root / "rc.local",
        )  # fmt: skip
        super().__init__(request, layout)
        self.started = []

    def _restart(self):
        self.started.append((self._named("current"), self._starter()))


@pytest.fixture(params=[False, True], ids=["supervised", "systemd"])
def node(request, tmp_path):
    """A node as an earlier version left it, whose starter names the folder itself."""
    for name in (OLD, NEW, OLDER):
        folder = tmp_path / "opt" / name
        folder.mkdir(parents=True)
        (folder / "bundle.json").write_text("{}")
    (tmp_path / "opt/current").symlink_to(OLD)
    (tmp_path / "run").mkdir()
    (tmp_path / "unit").write_text("old unit\n")
    (tmp_path / "rc.local").write_text(RC)
    return Node(tmp_path, systemd=request.param)


def starter(node):
    return node._starter()


def names(node):
    return sorted(path.name for path in (node.root / "opt").iterdir() if path.is_dir())


def again(node):
    return Node(node.root, systemd=node._request.systemd)


def test_forward_then_settled_keeps_one_version_back(node):
    old = starter(node)
    node.forward()
    assert node.started == [(NEW, node._request.starter)]
    assert starter(node) != old
    node.settle()
    assert names(node) == [OLD, NEW, "current", "previous"]
    assert (node.root / "opt/previous").readlink().name == OLD


def test_back_is_what_was_there_before(node):
    old = starter(node)
    node.forward()
    assert not node.back()
    assert node.started[-1] == (OLD, old)
    assert starter(node) == old
    assert names(node) == [OLDER, OLD, NEW, "current", "previous"]


def test_what_others_wrote_stays(node):
    node.forward()
    assert "somebody else's" in (node.root / "rc.local").read_text()
    node.back()
    assert (node.root / "rc.local").read_text() == RC


def test_again_after_it_was_done_changes_nothing_but_starts(node):
    node.forward()
    node.settle()
    second = again(node)
    second.forward()
    assert second._named("current") == NEW
    assert second._named("previous") == OLD
    assert not second.back()
    assert second._named("current") == OLD


@pytest.mark.parametrize("step", range(12))
def test_killed_at_each_step_it_is_old_or_new_and_ends_well_again(node, step, monkeypatch):
    """Before and after every write; what a boot would start then is one of the two, whole."""
    old, left = starter(node), [step]

    def counted(function):
        def call(*words, **options):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            found = function(*words, **options)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return found

        return call

    monkeypatch.setattr(upgrade, "write_file", counted(upgrade.write_file))
    monkeypatch.setattr(Node, "_name", counted(upgrade.NodePlace._name))
    killed = False
    try:
        node.forward()
    except Killed:
        killed = True
    assert killed == (0 < step <= 8), "every step was met"
    monkeypatch.undo()
    # The old starter names the old folder itself, the new one what ``current`` names.
    assert starter(node) in (old, node._request.starter)
    assert node._named("current") in (OLD, NEW)
    if starter(node) == node._request.starter:
        assert node._named("current") == NEW
    second = again(node)
    second.forward()
    assert second.started[-1] == (NEW, node._request.starter)
    assert not second.back()
    assert second.started[-1] == (OLD, old)


def test_without_a_former_version_there_is_no_way_back(node):
    (node.root / "opt/current").unlink()
    node.forward()
    assert node.back() == "there is no former agent on this machine to go back to"


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("", f"#!/bin/sh\n{NEW_LINE}\n"),
        ("#!/bin/sh\n", f"#!/bin/sh\n{NEW_LINE}\n"),
        (RC, f"#!/bin/sh\nsomebody else's\n{NEW_LINE}\nexit 0\n"),
        (f"#!/bin/sh\n{NEW_LINE}\n", f"#!/bin/sh\n{NEW_LINE}\n"),
        ("#!/bin/sh\nx # corral controller\n", f"#!/bin/sh\nx # corral controller\n{NEW_LINE}\n"),
    ],
)
def test_our_line_of_rc_local(text, made):
    assert upgrade.with_line(text, NEW_LINE) == made


def test_only_one_upgrade_of_a_machine_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(upgrade, "BUSY", 0.0)
    lock = tmp_path / "lock"
    with (
        upgrade._alone(lock),
        pytest.raises(OSError, match="another corral upgrade"),
        upgrade._alone(lock),
    ):
        pass
    with upgrade._alone(lock):
        pass
