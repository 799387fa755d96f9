"""Bind sources a node cannot mount: refused in words that name the path and what to do."""

from __future__ import annotations

import pytest

from agent.errors import Refusal
from agent.volumes.store import _bind_source
from specs.stack import Mount


def loop(folder):
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    return folder / "a"


def itself(folder):
    (folder / "a").symlink_to("a")
    return folder / "a"


def below_a_loop(folder):
    return loop(folder) / "data"


def dangling(folder):
    (folder / "a").symlink_to("/nowhere/at/all")
    return folder / "a"


def below_a_file(folder):
    (folder / "a").write_text("")
    return folder / "a" / "data"


def long_name(folder):
    return folder / ("n" * 300)


CASES = {
    loop: "leads round in a circle",
    itself: "leads round in a circle",
    below_a_loop: "leads round in a circle",
    dangling: "is a symbolic link to /nowhere/at/all, which is not there",
    below_a_file: "a file, not a folder",
    long_name: "a name in it is longer",
}


@pytest.mark.parametrize("make", CASES)
def test_a_source_that_cannot_be_mounted_says_why(make, tmp_path):
    source = make(tmp_path)
    with pytest.raises(Refusal) as refused:
        _bind_source(Mount(type="bind", target="/x", source=str(source)))
    assert CASES[make] in str(refused.value)
    assert "bind source" in str(refused.value)


def test_a_source_that_is_there_or_can_be_made_is_fine(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("link", "new/folder", "."):
        source = str(tmp_path / name)
        assert _bind_source(Mount(type="bind", target="/x", source=source)) == source
