"""Bind sources a node cannot mount: refused in words that name the path and what to do."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.errors import Later, NoRoom, Refusal
from agent.volumes.binds import BindSources
from specs.kit import disk
from specs.stack import Mount


@pytest.fixture
def tmp_path():
    """A folder on a disk: what is below /dev, where those of unit tests may lie, is never made."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


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
        BindSources(tmp_path / "made").source(Mount(type="bind", target="/x", source=str(source)))
    assert CASES[make] in str(refused.value)
    assert "bind source" in str(refused.value)


def test_a_source_that_is_there_or_can_be_made_is_fine(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("link", "new/folder", "."):
        source = str(tmp_path / name)
        assert of(tmp_path).source(Mount(type="bind", target="/x", source=source)) == source


def of(folder):
    return BindSources(folder / "made.json")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nowhere/docker.sock", "it is Docker's socket, and Docker is not running there"),
        ("/nowhere/run/podman.sock", "it is Podman's socket"),
        ("/nowhere/mysqld.sock", "a socket, which only the program behind it makes"),
        ("/nowhere/dbus/system_bus_socket", "a socket, which only the program behind it makes"),
        ("/dev/no-such-device", "below /dev is the kernel's"),
        ("/proc/no-such-file", "below /proc is the kernel's"),
        ("/sys/no/such", "below /sys is the kernel's"),
    ],
)
def test_what_only_others_make_is_never_made(source, words, tmp_path):
    with pytest.raises(Refusal, match="is never made") as refused:
        of(tmp_path).source(Mount(type="bind", target="/x", source=source))
    assert source in str(refused.value)
    assert words in str(refused.value)
    assert not Path("/nowhere").exists()


def test_a_socket_that_is_there_is_mounted(tmp_path):
    listening = socket.socket(socket.AF_UNIX)
    path = str(tmp_path / "docker.sock")
    listening.bind(path)
    listening.close()
    assert of(tmp_path).source(Mount(type="bind", target="/x", source=path)) == path


def test_what_has_its_data_elsewhere_is_never_made(tmp_path):
    source = str(tmp_path / "db")
    with pytest.raises(Refusal, match="its data is on other nodes"):
        of(tmp_path).source(Mount(type="bind", target="/x", source=source), [source])
    assert not Path(source).exists()
    Path(source).mkdir()
    assert of(tmp_path).source(Mount(type="bind", target="/x", source=source), [source])


def test_what_was_made_is_told_from_what_was_there(tmp_path):
    binds = of(tmp_path)
    (tmp_path / "here").mkdir()
    new = tmp_path / "new" / "folder"
    binds.source(Mount(type="bind", target="/x", source=str(new)))
    asked = [str(tmp_path / name) for name in ("here", "new", "new/folder", "no")]
    assert list(binds.look(asked).values()) == ["there", "made", "made", "absent"]
    assert list(of(tmp_path).look(asked).values()) == ["there", "made", "made", "absent"]
    new.rmdir()
    assert binds.look([str(new)]) == {str(new): "absent"}
    (tmp_path / "other").mkdir()  # the inode of what went may be taken by now
    (tmp_path / "other").rename(new)
    (tmp_path / "made.json").write_text("not json")
    assert binds.look([str(new)]) == {str(new): "there"}


def test_folders_made_by_several_tasks_at_once_are_all_remembered(tmp_path):
    binds = of(tmp_path)
    new = [str(tmp_path / f"srv{n}") for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        mounts = [Mount(type="bind", target="/x", source=path) for path in new]
        assert list(pool.map(binds.source, mounts)) == new
    assert binds.look(new) == dict.fromkeys(new, "made")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoRoom),
        (errno.EDQUOT, NoRoom),
        (errno.EIO, Later),
        (errno.EROFS, Refusal),  # of the user's own file system: for good
        (errno.EACCES, Refusal),
    ],
)
@pytest.mark.parametrize("at", ["the folder", "what is remembered of it"])
def test_a_disk_that_is_full_or_broken_is_no_fault_of_the_task(
    tmp_path, monkeypatch, number, kind, at
):
    """It waited for nothing: a task was refused for good because its node's disk was full."""
    sources, source = of(tmp_path), tmp_path / "a" / "b"

    def broken(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        if at == "the folder":
            patched.setattr(Path, "mkdir", broken)
        else:
            patched.setattr(disk, "write_file", broken)
        with pytest.raises(kind):
            sources.source(Mount(type="bind", target="/x", source=str(source)))
    assert not source.parent.exists(), "law: the next try must know that it made it"
    sources.source(Mount(type="bind", target="/x", source=str(source)))
    assert sources.look([str(source)])[str(source)] == "made"
