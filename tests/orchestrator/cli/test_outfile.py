"""Files a command writes: whole or not at all, and nothing that was there is lost."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from orchestrator.cli import outfile
from orchestrator.cli.errors import CliError


@pytest.fixture
def here(tmp_path):
    """A folder with nothing in it."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def put(path, data=b"new", *, force=False):
    outfile.check(str(path), force=force)
    with outfile.whole(str(path)) as file:
        file.write(data)


def test_a_new_file_is_its_users_alone(here):
    put(here / "f")
    assert (here / "f").read_bytes() == b"new"
    assert stat.S_IMODE((here / "f").stat().st_mode) == 0o600
    assert os.listdir(here) == ["f"]


def test_what_is_there_stays_unless_it_is_forced(here):
    (here / "f").write_bytes(b"old")
    with pytest.raises(CliError, match="is there already"):
        put(here / "f")
    assert (here / "f").read_bytes() == b"old"
    put(here / "f", force=True)
    assert (here / "f").read_bytes() == b"new"


@pytest.mark.parametrize("target", ["there", "dangling"])
def test_a_link_is_followed(here, target):
    if target == "there":
        (here / "there").write_bytes(b"old")
    (here / "link").symlink_to(target)
    put(here / "link", force=True)
    assert (here / "link").is_symlink()
    assert (here / target).read_bytes() == b"new"


def test_a_pipe_is_written_into(here):
    os.mkfifo(here / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((here / "pipe").read_bytes()))
    reader.start()
    put(here / "pipe", force=True)
    reader.join(60)
    assert got == [b"new"]
    assert stat.S_ISFIFO((here / "pipe").stat().st_mode)


def test_a_device_is_written_into_and_stays_one():
    put("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(CliError, match=r"/dev/full: .*no space"):
        put("/dev/full")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.parametrize(
    ("path", "words"), [("", "no name"), (".", "is a folder"), ("no/such/f", "no/such/f: ")]
)
def test_what_cannot_be_a_file_is_refused_by_its_name(here, monkeypatch, path, words):
    monkeypatch.chdir(here)
    with pytest.raises(CliError, match=words):
        put(path)
    assert os.listdir(here) == []


def test_what_breaks_off_leaves_the_old_file(here):
    (here / "f").write_bytes(b"old")

    def broken_off():
        with outfile.whole(str(here / "f")) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert (here / "f").read_bytes() == b"old"
    assert os.listdir(here) == ["f"]
