"""The writing half of `watch`: a folder becomes what another is; what is nobody's stays."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cli.develop.rules import WatchRule
from orchestrator.cli.develop.tree import WatchedTree
from orchestrator.cli.develop.watching import pack
from specs.kit import tarpacking
from specs.kit.copyrules import CopyRefused
from specs.kit.tarstream import TarStream
from specs.kit.tarsyncing import SyncPlacer


def bring(source: Path, names, into: Path, alone=()) -> None:
    pieces: list[bytes] = []
    pack({name: str(source / name) for name in names}, pieces.append, alone=alone)
    archive = iter(pieces)
    own, base = tarpacking.descriptors(), os.open(into, os.O_RDONLY | os.O_DIRECTORY)
    try:
        SyncPlacer(base, own=own).place(TarStream(lambda: next(archive, b"")))
    finally:
        os.close(own)
        os.close(base)


def laid(folder: Path, files: dict[str, str | None]) -> None:
    """``a/: None`` is a folder, ``a: ->b`` a link."""
    for name, text in files.items():
        path = folder / name.rstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.mkdir()
        elif text.startswith("->"):
            path.symlink_to(text[2:])
        else:
            path.write_text(text)


def told(folder: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"->{path.readlink()}"
        elif path.is_dir():
            found[f"{name}/"] = None
        else:
            found[name] = path.read_text()
    return found


@pytest.mark.parametrize(
    ("here", "there", "names", "after"),
    [
        ({"a": "1"}, {}, ["a"], {"a": "1"}),
        ({"a": "2"}, {"a": "1", "b": "b"}, ["a"], {"a": "2", "b": "b"}),
        ({}, {"a": "1", "b": "b"}, ["a"], {"b": "b"}),
        ({}, {}, ["a", "x/y"], {}),
        ({"d/e/f": "1"}, {}, ["d/e/f"], {"d/": None, "d/e/": None, "d/e/f": "1"}),
        ({}, {"d/e/f": "1", "d/own": "x"}, ["d", "d/e", "d/e/f"], {}),
        ({"d/k": "k"}, {"d/k": "", "d/e/f": "1"}, ["d/e"], {"d/": None, "d/k": ""}),
        ({"a": "now a file"}, {"a/b": "1"}, ["a", "a/b"], {"a": "now a file"}),
        ({"a/b": "1"}, {"a": "was a file"}, ["a", "a/b"], {"a/": None, "a/b": "1"}),
        ({"a": "->b"}, {"a": "1"}, ["a"], {"a": "->b"}),
        ({"a": "1"}, {"a": "->/etc/hosts"}, ["a"], {"a": "1"}),
        ({}, {"a": "->/etc"}, ["a"], {}),
        ({}, {"a": "->/etc"}, ["a/hosts"], {"a": "->/etc"}),
        ({"d": "->/etc"}, {"d/hosts": "1"}, ["d", "d/hosts"], {"d": "->/etc"}),
        ({"d": "->d/a"}, {"d/a": "1"}, ["d/a", "d"], {"d": "->d/a"}),
    ],
)
def test_what_becomes_of_a_folder(tmp_path, here, there, names, after):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    laid(tmp_path / "here", here)
    laid(tmp_path / "there", there)
    bring(tmp_path / "here", names, tmp_path / "there")
    assert told(tmp_path / "there") == after


def test_a_link_is_no_way_out_and_the_rest_is_done(tmp_path):
    for name in ("here", "there", "else"):
        (tmp_path / name).mkdir()
    laid(tmp_path / "here", {"d/x": "1"})
    laid(tmp_path / "there", {"d": f"->{tmp_path}/else", "gone": "1"})
    with pytest.raises(CopyRefused, match="d is"):
        bring(tmp_path / "here", ["gone", "d/x"], tmp_path / "there")
    assert told(tmp_path / "else") == {}
    assert not (tmp_path / "there" / "gone").exists()


@pytest.mark.parametrize(
    ("here", "there", "after"),
    [
        ({"a": "2"}, {"a": "1"}, {"a": "2"}),
        ({"a": "2"}, {}, {"a": "2"}),
        ({}, {"a": "1"}, {}),
        ({}, {}, {}),
        ({"a": "->b"}, {"a": "1"}, {"a": "->b"}),
        ({"a": "2"}, {"a": "->b"}, {"a": "2"}),
        ({"a/": None}, {"a": "1"}, {"a/": None}),
        ({"a/": None}, {"a/own": "1"}, {"a/": None, "a/own": "1"}),
        ({"a": "2"}, {"a/own": "1"}, "a is a folder there"),
        ({"a": "2"}, {"a/": None}, "a is a folder there"),
        ({"a": "->b"}, {"a/own": "1"}, "a is a folder there"),
        ({}, {"a/own": "1"}, "end the target with /"),
    ],
)
def test_a_rules_own_path_takes_no_folder_away(tmp_path, here, there, after):
    """What the folder holds came with the image; what else is brought is brought."""
    for name, files in (("here", {**here, "z": "1"}), ("there", there)):
        (tmp_path / name).mkdir()
        laid(tmp_path / name, files)
    was = told(tmp_path / "there")
    if isinstance(after, str):
        with pytest.raises(CopyRefused, match=after):
            bring(tmp_path / "here", ["a", "z"], tmp_path / "there", alone=["a"])
        after = was
    else:
        bring(tmp_path / "here", ["a", "z"], tmp_path / "there", alone=["a"])
    assert told(tmp_path / "there") == {**after, "z": "1"}


@pytest.mark.skipif(os.getuid() != 0, reason="owners are root's to give")
def test_it_belongs_to_whom_it_replaces_else_to_the_folders_owner(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    laid(here, {"old": "2", "new": "2", "dir/": None, "dir/deep": "2"})
    laid(there, {"old": "1"})
    os.chown(there / "old", 1000, 1001)
    os.chown(there, 2000, 2001)
    (here / "old").chmod(0o640)
    bring(here, ["old", "new", "dir", "dir/deep"], there)
    owners = {
        name: ((there / name).stat().st_uid, (there / name).stat().st_gid)
        for name in ("old", "new", "dir", "dir/deep")
    }
    mine = (2000, 2001)
    assert owners == {"old": (1000, 1001), "new": mine, "dir": mine, "dir/deep": mine}
    assert (there / "old").stat().st_mode & 0o7777 == 0o640


NAMES = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a", "d", "d/e"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "remove", "folder", "link", "move", "look"]), NAMES, NAMES),
    max_size=14,
)


def _step(folder: Path, what: str, name: str, other: str) -> None:
    path = folder / name
    try:
        if what == "remove" or (what in ("folder", "link", "write") and path.is_dir()):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if what == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(other)
        elif what == "folder":
            path.mkdir(parents=True, exist_ok=True)
        elif what == "link":
            path.unlink(missing_ok=True)
            path.symlink_to(other)
        elif what == "move":
            path.rename(folder / other)
    except OSError:
        pass  # what cannot be is not done


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_happens_here_the_copy_is_the_same_after_a_look(steps):
    """The whole way but for the network: looks, what changed, an archive, its placing."""
    with tempfile.TemporaryDirectory() as top:
        here, there = Path(top) / "here", Path(top) / "there"
        here.mkdir()
        there.mkdir()
        rule = WatchRule("web", 0, str(here), "sync", "/app")
        tree = WatchedTree([rule])
        for what, name, other in [*steps, ("look", "a", "a")]:
            if what != "look":
                _step(here, what, name, other)
                continue
            changed = tree.look(None)
            bring(here, [rule.relative(path) or "" for path in changed], there)
            assert told(there) == told(here)
