"""Small files are whole or not there, and a writer that is killed leaves nothing that is read."""

from __future__ import annotations

import os
import threading

import pytest

from specs.kit import disk


def test_a_file_is_replaced_with_its_mode(tmp_path):
    path = tmp_path / "record"
    disk.write_file(path, b"one", mode=0o644)
    disk.write_file(path, b"two", mode=0o600)

    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["record"]


def test_of_two_that_create_the_first_ones_file_stays(tmp_path):
    path = tmp_path / "key"

    assert disk.create_file(path, b"first")
    assert not disk.create_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize("write", [disk.write_file, disk.create_file])
def test_a_full_disk_leaves_the_old_file_and_no_trace(tmp_path, monkeypatch, write):
    path = tmp_path / "record"
    if write is disk.write_file:
        path.write_bytes(b"old")
    before = os.listdir(tmp_path)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write(path, b"new")

    assert os.listdir(tmp_path) == before
    assert not before or path.read_bytes() == b"old"


def test_what_a_killed_writer_left_is_swept(tmp_path):
    (tmp_path / ".record.1234").write_bytes(b"half")
    (tmp_path / "record").write_bytes(b"whole")

    disk.sweep(tmp_path)

    assert os.listdir(tmp_path) == ["record"]


def test_a_tree_is_removed_beside_its_maker_and_an_empty_one_at_once(tmp_path):
    """Whatever its size: who hands it over goes on at once, and hears when it has gone."""
    remover, gone = disk.Remover(), threading.Event()
    (tmp_path / "empty").mkdir()
    remover.remove(tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
    remover.remove(tmp_path / "never-was", gone.set)
    assert gone.is_set()
    gone.clear()
    for number in range(50):
        (tmp_path / f"tree/{number}/deep").mkdir(parents=True)
        (tmp_path / f"tree/{number}/file").write_text("x")
    remover.remove(tmp_path / "tree", gone.set)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("x")
    remover.remove(tmp_path / "other")
    assert gone.wait(300)
    assert remover.wait(300)
    assert os.listdir(tmp_path) == []
    assert remover.pending == 0


def test_what_is_being_removed_is_not_waited_for(tmp_path, monkeypatch):
    """A removal that takes long holds up neither the next one's owner nor a question."""
    release = threading.Event()
    monkeypatch.setattr(disk.subprocess, "run", lambda *_, **__: release.wait(300))
    remover, done = disk.Remover(), []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
        remover.remove(tmp_path / name, lambda name=name: done.append(name))
    assert (remover.pending, done) == (2, [])
    assert not remover.wait(0.01)
    release.set()
    assert remover.wait(300)
    assert done == ["a", "b"]
