"""The writing half of `watch`: a folder becomes what another is; what is nobody's stays."""

from __future__ import annotations

import errno
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


def bring(source: Path, names, into: Path) -> None:
    pieces: list[bytes] = []
    pack({name: f"{source}/{name}" for name in names}, pieces.append)
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
        ({}, {"d/e/f": "1", "d/own": "x"}, ["d", "d/", "d/e", "d/e/", "d/e/f"], {}),
        ({"d/k": "k"}, {"d/k": "", "d/e/f": "1"}, ["d/e", "d/e/"],
         {"d/": None, "d/k": ""}),
        ({"a": "now a file"}, {"a/b": "1"}, ["a", "a/", "a/b"], {"a": "now a file"}),
        ({"a/b": "1"}, {"a": "was a file"}, ["a", "a/b"], {"a/": None, "a/b": "1"}),
        ({"a": "->b"}, {"a": "1"}, ["a"], {"a": "->b"}),
        ({"a": "1"}, {"a": "->/etc/hosts"}, ["a"], {"a": "1"}),
        ({}, {"a": "->/etc"}, ["a"], {}),
        ({}, {"a": "->/etc"}, ["a/hosts"], {"a": "->/etc"}),
        ({"d": "->/etc"}, {"d/hosts": "1"}, ["d", "d/", "d/hosts"], {"d": "->/etc"}),
        ({"d": "->d/a"}, {"d/a": "1"}, ["d/a", "d", "d/"], {"d": "->d/a"}),
        ({"d/new": "1"}, {"d/own": "1"}, ["d/", "d", "d/new"],
         {"d/": None, "d/own": "1", "d/new": "1"}),
    ],
)  # fmt: skip
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
        ({}, {"a/own": "1"}, "a is a folder there"),
        ({}, {"a/": None}, "a is a folder there"),
    ],
)
@pytest.mark.parametrize("below", ["", "d/"])
def test_what_was_no_folder_here_takes_none_away(tmp_path, here, there, after, below):
    """What the folder holds came with the image or was made there; the rest is brought."""
    here, there = ({f"{below}{k}": v for k, v in one.items()} for one in (here, there))
    if isinstance(after, dict):
        after = {f"{below}{k}": v for k, v in after.items()} | ({"d/": None} if below else {})
    for name, files in (("here", {**here, "z": "1"}), ("there", there)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "d").mkdir()
        laid(tmp_path / name, files)
    was = told(tmp_path / "there")
    names = [f"{below}a", "z"]
    if isinstance(after, str):
        with pytest.raises(CopyRefused, match=after):
            bring(tmp_path / "here", names, tmp_path / "there")
        after = was
    else:
        bring(tmp_path / "here", names, tmp_path / "there")
    assert told(tmp_path / "there") == {**after, "d/": None, "z": "1"}


def test_a_file_of_this_name_takes_away_the_folder_that_was_brought_and_no_later_one(tmp_path):
    """The whole way of a name: a folder here, a file, gone, and then the container's own folder."""
    here, there = tmp_path / "here", tmp_path / "there"
    laid(here, {"a/b": "1"})
    there.mkdir()
    tree = WatchedTree([rule := WatchRule("web", 0, str(here), "sync", "/app")])
    bring(here, ["a", "a/b"], there)
    (there / "a" / "own").write_text("with it")
    shutil.rmtree(here / "a")
    (here / "a").write_text("a file")
    bring(here, [rule.relative(path) or "" for path in tree.look(None)], there)
    assert told(there) == {"a": "a file"}
    (there / "a").unlink()
    laid(there, {"a/own": "1"})
    for step in ("write", "remove"):
        (here / "a").write_text("again") if step == "write" else (here / "a").unlink()
        with pytest.raises(CopyRefused, match="a is a folder there and stays as it is"):
            bring(here, [rule.relative(path) or "" for path in tree.look(None)], there)
        assert told(there) == {"a/": None, "a/own": "1"}


@pytest.mark.parametrize(
    ("here", "there", "names", "why"),
    [
        ({"m/f": "2"}, {"m": "->/var/empty"}, ["m/f"], "m/f: m is there and is no folder"),
        ({"m/f": "2"}, {"m": "a file"}, ["m/f"], "m/f: m is there and is no folder"),
        ({"m/": None}, {"m": "->/var/empty"}, ["m"], "m is a link there and is no folder"),
        ({"m": "2"}, {"m/own": "1"}, ["m"], "m is a folder there and stays as it is"),
        ({}, {"m/own": "1"}, ["m"], "m is a folder there and stays as it is"),
        ({"m": "->b"}, {"m/own": "1"}, ["m"], "m is a folder there and stays as it is"),
    ],
)
def test_what_one_name_cannot_have_leaves_no_other_out(tmp_path, here, there, names, why):
    """Whatever sorts before it and after it is brought, changed or gone."""
    more = {"a": "2", "k/f": "2", "z": "2", "zz/f": "2"}
    for name, files in (("here", {**here, **more}), ("there", {**there, "b": "1", "y": "1"})):
        (tmp_path / name).mkdir()
        laid(tmp_path / name, files)
    was = told(tmp_path / "there")
    with pytest.raises(CopyRefused) as refused:
        bring(tmp_path / "here", [*more, "k", "zz", "b", "y", *names], tmp_path / "there")
    assert str(refused.value).startswith(why)
    kept = {name: text for name, text in was.items() if name not in ("b", "y")}
    assert told(tmp_path / "there") == {**kept, **more, "k/": None, "zz/": None}


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.EROFS, "m/f: the file system is read-only"),
        (errno.EACCES, "m/f: access is denied"),
        (errno.ENAMETOOLONG, "m/f: a name in it is longer"),
        (errno.ENOSPC, None),
        (errno.EDQUOT, None),
    ],
)
def test_what_the_kernel_refuses_of_one_name_leaves_no_other_out(
    tmp_path, monkeypatch, number, what
):
    """What may work later is an OSError still: all of it is asked for again then."""
    here, there = tmp_path / "here", tmp_path / "there"
    laid(here, {"a": "2", "m/f": "2", "z": "2"})
    laid(there, {"m/": None})
    real, number_of = os.link, (there / "m").stat().st_ino

    def link(*args, dst_dir_fd, **how):
        if os.fstat(dst_dir_fd).st_ino == number_of:
            raise OSError(number, os.strerror(number))
        return real(*args, dst_dir_fd=dst_dir_fd, **how)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(CopyRefused if what else OSError) as refused:
        bring(here, ["a", "m/f", "z"], there)
    assert what is None or str(refused.value).startswith(what)
    assert told(there) == {"a": "2", "m/": None, "z": "2"}


def test_many_refusals_are_counted(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    laid(here, {f"{n}": "1" for n in range(8)})
    laid(there, {f"{n}/": None for n in range(8)})
    with pytest.raises(CopyRefused, match=r"; and 3 more$"):
        bring(here, [f"{n}" for n in range(8)], there)


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
