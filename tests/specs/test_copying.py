"""`cp`: where what is copied comes to stand, and that nothing comes to stand elsewhere."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent import copyjail
from orchestrator.cli.commands import cp
from orchestrator.cli.errors import CliError
from specs.kit import tarpacking, tarplacing
from specs.kit.copyrules import (
    CopyRefused,
    Landing,
    Source,
    Spot,
    land,
    land_stream,
    may_replace,
    named,
)
from specs.kit.tarpacking import Packer
from specs.kit.tarplacing import Placer
from specs.kit.tarstream import BadArchive, TarStream

FILE, FOLDER = Source(b"s", directory=False), Source(b"s", directory=True)
CONTENTS = Source(b".", directory=True, contents=True)
GONE, THERE, DIR = Spot(), Spot(file=True), Spot(directory=True)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/etc/hosts", (b"hosts", False, False)),
        (b"/etc/", (b"etc", False, True)),
        (b"/etc/.", (b".", True, True)),
        (b"etc/./", (b".", True, True)),
        (b"/", (b".", True, True)),
        (b".", (b".", True, True)),
        (b"a/..", (b".", True, True)),
        (b"a..", (b"a..", False, False)),
        (b".hidden", (b".hidden", False, False)),
    ],
)
def test_the_name_of_a_path(path, found):
    assert named(path) == found


@pytest.mark.parametrize(
    ("source", "spot", "found"),
    [  # the table of `docker cp --help`
        (FILE, GONE, Landing(inside=False, name=b"d", top=b"s")),
        (FILE, Spot(slash=True), "no such folder"),
        (FILE, THERE, Landing(inside=False, name=b"d", top=b"s")),
        (FILE, Spot(file=True, slash=True), "not a folder"),
        (FILE, DIR, Landing(inside=True, name=b"s", top=b"s")),
        (FOLDER, GONE, Landing(inside=False, name=b"d", top=b"s")),
        (FOLDER, Spot(slash=True), Landing(inside=False, name=b"d", top=b"s")),
        (FOLDER, THERE, "over a file"),
        (FOLDER, DIR, Landing(inside=True, name=b"s", top=b"s")),
        (CONTENTS, GONE, Landing(inside=False, name=b"d", top=None)),
        (CONTENTS, THERE, "over a file"),
        (CONTENTS, DIR, Landing(inside=True)),
    ],
)
def test_where_it_lands(source, spot, found):
    if isinstance(found, str):
        with pytest.raises(CopyRefused, match=found):
            land(source, spot, name=b"d")
    else:
        assert land(source, spot, name=b"d") == found


@pytest.mark.parametrize("spot", [GONE, THERE])
def test_an_archive_goes_into_a_folder_only(spot):
    assert land_stream(DIR) == Landing(inside=True)
    with pytest.raises(CopyRefused, match="a folder that is there"):
        land_stream(spot)


# ---- packing and placing ----------------------------------------------------------------------


@pytest.fixture
def own():
    fd = tarpacking.descriptors()
    yield fd
    os.close(fd)


def packed(path, name, own, **more):
    out = io.BytesIO()
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        Packer(out.write, own=own, **more).pack(handle, name)
    finally:
        os.close(handle)
    return out.getvalue()


def placed(data, folder, land, own, **more):
    source = io.BytesIO(data)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        placer = Placer(fd, land, own=own, **more)
        placer.place(TarStream(lambda: source.read(1000)))
    finally:
        os.close(fd)
    return placer


def tree(folder):
    """What is below a folder: kind, content or target, mode."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        what = (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        )
        found[str(path.relative_to(folder))] = (what, stat.S_IMODE(info.st_mode))
    return found


@pytest.fixture
def source(tmp_path):
    top = tmp_path / "source"
    (top / "deep" / "er").mkdir(parents=True)
    (top / "deep" / "file").write_bytes(b"x" * 70_000)
    (top / "empty").touch()
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o4755)
    (top / "away").symlink_to("/etc/passwd")
    (top / "twin").hardlink_to(top / "deep" / "file")
    os.mkfifo(top / "pipe")
    (top / ("long" * 60)).write_text("name")
    (top / os.fsdecode(b"not\xffutf8")).write_text("bytes")
    (top / "closed").mkdir()
    (top / "closed" / "in").write_text("it")
    (top / "closed").chmod(0o555)
    os.utime(top / "empty", (1_600_000_000, 1_600_000_000))
    return top


def test_what_is_packed_is_what_is_placed(source, tmp_path, own):
    there = tmp_path / "there"
    there.mkdir()
    data = packed(source, b"source", own)
    placed(data, there, Landing(inside=False, name=b"copy", top=b"source"), own, powers=True)
    assert tree(there / "copy") == tree(source)
    assert (there / "copy" / "empty").stat().st_mtime == 1_600_000_000
    twin, file = there / "copy" / "twin", there / "copy" / "deep" / "file"
    assert twin.stat().st_ino == file.stat().st_ino
    assert stat.S_ISFIFO((there / "copy" / "pipe").lstat().st_mode)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:  # others read it, too
        assert {"source", "source/deep/er", "source/pipe"} <= set(archive.getnames())


def test_without_powers_no_file_makes_its_user_more_than_he_is(source, tmp_path, own):
    land = Landing(inside=True, name=b"source", top=b"source")
    placed(packed(source, b"source", own), tmp_path / "source", land, own)
    assert stat.S_IMODE((tmp_path / "source/source/run").stat().st_mode) == 0o755


def test_a_folder_that_is_there_keeps_its_mode_and_what_is_in_it(source, tmp_path, own):
    there = tmp_path / "there"
    (there / "deep").mkdir(parents=True)
    there.chmod(0o1777)
    (there / "deep").chmod(0o711)
    (there / "deep" / "mine").write_text("stays")
    (there / "run").write_text("old")
    placed(packed(source, b".", own), there, Landing(inside=True), own)
    assert stat.S_IMODE(there.stat().st_mode) == 0o1777
    assert stat.S_IMODE((there / "deep").stat().st_mode) == 0o711
    assert (there / "deep" / "mine").read_text() == "stays"
    assert (there / "run").read_text() == "#!/bin/sh\n"


def entry(name, kind=tarfile.REGTYPE, data=b"", **more):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(data), more.pop("mode", 0o644)
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


END = bytes(1024)
IN = Landing(inside=True)
NAMED = Landing(inside=True, name=b"web", top=b"web")
LINK = tarfile.SYMTYPE


@pytest.mark.parametrize(
    ("land", "entries", "why"),
    [
        (IN, [entry("../out", data=b"x")], "leads out"),
        (IN, [entry("a/../../out", data=b"x")], "leads out"),
        (IN, [entry("/../out", data=b"x")], "leads out"),
        (IN, [entry("d", LINK, linkname=".."), entry("d/out", data=b"x")], "is no folder"),
        (IN, [entry("d", LINK, linkname="/"), entry("d/tmp/out", data=b"x")], "is no folder"),
        (IN, [entry("d", LINK, linkname=".."), entry("d/out/", tarfile.DIRTYPE)], "is no folder"),
        (IN, [entry("d", LINK, linkname=".."), entry("d", tarfile.DIRTYPE)], "is no folder"),
        (IN, [entry("h", tarfile.LNKTYPE, linkname="../kept")], "leads out"),
        (IN, [entry("h", tarfile.LNKTYPE, linkname="/kept")], "which is not there"),
        (IN, [entry("d", LINK, linkname=".."), entry("h", tarfile.LNKTYPE, linkname="d/kept")],
         "is no folder"),
        (IN, [entry("lead/x", data=b"x")], "is no folder"),  # a link that was there before
        (NAMED, [entry("web", tarfile.DIRTYPE), entry(".bashrc", data=b"x")], "nobody asked for"),
        (NAMED, [entry("web/../.bashrc", data=b"x")], "leads out"),
        (IN, [entry("dir", data=b"x")], "is a folder there"),
        (IN, [entry("odd", b"V")], "unknown type"),
        (IN, [entry("cut", data=b"x" * 2000)[:1000]], "cut short"),
        (IN, [entry("/".join(["d"] * 600), data=b"x")], "beyond all bounds"),
    ],
)  # fmt: skip
def test_an_archive_writes_nowhere_else(tmp_path, own, land, entries, why):
    (tmp_path / "kept").write_text("kept")
    there = tmp_path / "there"
    (there / "dir").mkdir(parents=True)
    (there / "lead").symlink_to("..")
    before = sorted(os.listdir(tmp_path))
    end = b"" if why == "cut short" else END
    with pytest.raises((CopyRefused, BadArchive), match=why):
        placed(b"".join(entries) + end, there, land, own, powers=True)
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "kept").read_text() == "kept"
    assert (tmp_path / "kept").stat().st_nlink == 1
    assert not [name for name in os.listdir(there) if name.startswith(".corral")]
    assert not (there / "cut").exists(), "half a file has no name"


def test_a_link_is_replaced_not_written_through(tmp_path, own):
    (tmp_path / "kept").write_text("kept")
    there = tmp_path / "there"
    there.mkdir()
    (there / "link").symlink_to("../kept")
    placed(entry("link", data=b"new") + END, there, IN, own)
    assert (tmp_path / "kept").read_text() == "kept"
    assert (there / "link").read_bytes() == b"new"
    assert not (there / "link").is_symlink()


@pytest.mark.parametrize("powers", [False, True])
def test_devices_are_left_out(tmp_path, own, powers):
    disk = entry("sda", tarfile.BLKTYPE, devmajor=8, devminor=0)
    kmem = entry("mem", tarfile.CHRTYPE, devmajor=1, devminor=1)
    done = placed(disk + kmem + END, tmp_path, IN, own, powers=powers)
    assert (done.left_out, os.listdir(tmp_path)) == (2, [])


@pytest.mark.parametrize("unnamed", [True, False])
def test_who_is_interrupted_leaves_the_old_file(tmp_path, own, monkeypatch, unnamed):
    (tmp_path / "file").write_text("old")
    real, calls = os.open, []

    def opened(path, flags, *rest, **more):
        if not unnamed and flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return real(path, flags, *rest, **more)

    def full(fd, piece):
        calls.append(len(piece))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(tarplacing, "write_all", full)
    with pytest.raises(OSError, match="No space"):
        placed(entry("file", data=b"new") + END, tmp_path, IN, own)
    assert calls
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"
    monkeypatch.undo()
    if not unnamed:
        monkeypatch.setattr(os, "open", opened)
    placed(entry("file", data=b"new") + entry("two", data=b"2") + END, tmp_path, IN, own)
    assert tree(tmp_path) == {"file": (b"new", 0o644), "two": (b"2", 0o644)}


def test_what_the_kernel_makes_up_is_left_out(source, own):
    inode = (source / "deep").stat().st_ino
    data = packed(source, b"s", own, unreal=lambda fd: os.fstat(fd).st_ino == inode)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
    assert "s/deep" in names
    assert "s/deep/file" not in names


def test_a_file_that_shrinks_or_grows_meanwhile_is_as_long_as_was_said(tmp_path, own):
    path = tmp_path / "log"
    path.write_bytes(b"a" * 1_000_000)
    pieces = []

    def emit(piece):
        if len(pieces) == 1:
            path.write_bytes(b"b" * 10)
        pieces.append(piece)

    handle = os.open(path, os.O_PATH)
    Packer(emit, own=own).pack(handle, b"log")
    os.close(handle)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        assert archive.getmember("log").size == 1_000_000


def pipe(place):
    os.mkfifo(place)


def listening(place):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(place))


def link(place):
    """Never to a device of this machine: what does not refuse it replaces it."""
    os.mkfifo(place.with_name("led-to"))
    place.symlink_to("led-to")


SPECIAL = [pipe, listening, link]


@pytest.mark.parametrize("make", SPECIAL)
def test_what_is_neither_file_nor_folder_is_not_replaced_here(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    make(Path("it"))
    answer = Answer(archived(tmp_path))
    args = SimpleNamespace(archive=False)
    with pytest.raises(CliError, match="neither a file nor a folder"):
        cp._place(args, {"name": "web-1"}, answer, "/f", "it")
    assert not Path("it").is_file()
    Path("old").write_text("old")
    cp._place(args, {"name": "web-1"}, Answer(archived(tmp_path)), "/f", "old")
    assert Path("old").read_text() == "new"


@pytest.mark.parametrize("make", SPECIAL)
def test_what_is_neither_file_nor_folder_is_not_replaced_there(tmp_path, monkeypatch, make):
    monkeypatch.setattr(
        copyjail, "_find", lambda root, path, follow: os.open(path, os.O_PATH | os.O_CLOEXEC)
    )
    monkeypatch.chdir(tmp_path)
    make(Path("it"))
    with pytest.raises(CopyRefused, match="neither a file nor a folder"):
        copyjail._spot(0, b"it", slash=False)
    Path("old").write_text("old")
    assert copyjail._spot(0, b"old", slash=False) == Spot(file=True)
    assert copyjail._spot(0, b".", slash=False) == Spot(directory=True)
    assert copyjail._spot(0, b"gone", slash=True) == Spot(slash=True)


class Answer:
    """An archive as it is downloaded."""

    def __init__(self, data):
        self.data = data

    def more(self):
        data, self.data = self.data, b""
        return data


def archived(folder):
    made = folder / "made"
    made.write_text("new")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(made, "f")
    return out.getvalue()


REG, LNK = stat.S_IFREG, stat.S_IFLNK
FIFO, SOCK, CHR, BLK = stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK
# what is there -> by what it may be replaced; a device only by itself
REPLACED = {
    REG: {REG, LNK, FIFO, CHR, BLK},
    LNK: {REG, LNK, FIFO, CHR, BLK},
    FIFO: {FIFO},
    SOCK: set(),
    CHR: {CHR},
    BLK: {BLK},
}


@pytest.mark.parametrize("there", REPLACED)
@pytest.mark.parametrize("comes", [REG, LNK, FIFO, CHR, BLK])
def test_what_replaces_what(there, comes):
    found = may_replace(there | 0o600, comes | 0o644, same=True)
    assert found is (comes in REPLACED[there])
    if there in (CHR, BLK):
        assert not may_replace(there, comes, same=False), "another device is not the device"


@pytest.mark.parametrize("make", [pipe, listening])
@pytest.mark.parametrize(
    "comes",
    [
        entry("it", data=b"x"),
        entry("it", LINK, linkname="f"),
        entry("f", data=b"x") + entry("it", tarfile.LNKTYPE, linkname="f"),
    ],
    ids=["file", "link", "hard link"],
)
def test_what_stands_in_a_folder_is_left_alone(tmp_path, own, make, comes):
    """`cp web:/null /dev` names a folder; what is in it is as safe as by its own name."""
    make(tmp_path / "it")
    before = (tmp_path / "it").lstat().st_ino
    with pytest.raises(CopyRefused, match="it is there and is neither a file nor a folder"):
        placed(comes + END, tmp_path, IN, own)
    assert (tmp_path / "it").lstat().st_ino == before
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".corral")]


def test_a_pipe_is_copied_again(tmp_path, own):
    pipe(tmp_path / "it")
    placed(entry("it", tarfile.FIFOTYPE) + END, tmp_path, IN, own)
    assert stat.S_ISFIFO((tmp_path / "it").lstat().st_mode)
