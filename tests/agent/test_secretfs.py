"""Secret files: who may read them, and that their place is made again when it was tidied up."""

from __future__ import annotations

import base64
import os
import shutil
import stat

import pytest

from agent.volumes import secretfs, shmfs
from specs.stack import FileRef
from specs.wire import Content

OWNER = (33, 34)  # the container's own user


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(secretfs, "_mount_tmpfs", lambda home, size: None)
    return secretfs.SecretFs(tmp_path)


def content(data=b"s3cret"):
    return {"c1": Content(id="c1", data=base64.b64encode(data).decode())}


def test_files_are_placed_after_the_folder_was_deleted(files, tmp_path):
    shutil.rmtree(tmp_path / "files")
    ref = FileRef(source="key", content="c1", target="/run/secrets/key")
    [mount] = files.place("t1", (ref,), (), content(), (os.getuid(), os.getgid()))
    with open(mount.source, "rb") as file:
        assert file.read() == b"s3cret"


@pytest.mark.parametrize("kind", [secretfs.SecretFs, shmfs.ShmFs])
def test_nobody_has_files_where_all_was_deleted(tmp_path, kind):
    kept = kind(tmp_path)
    assert kept.tasks() == set()
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    assert kept.tasks() == set()
    kept.remove("t1")


# Compose: the mode of the user's own file. Swarm: 0444, root. Ours: what the service says, each
# key for itself; else 0444 and the container's user.
@pytest.mark.parametrize(
    ("said", "mode", "owner"),
    [
        ({}, 0o444, (33, 34)),
        ({"mode": 0o400}, 0o400, (33, 34)),
        ({"mode": 0o440}, 0o440, (33, 34)),
        ({"mode": 0o000}, 0o000, (33, 34)),
        ({"mode": 0o555}, 0o555, (33, 34)),
        ({"uid": 999}, 0o444, (999, 34)),
        ({"gid": 999}, 0o444, (33, 999)),
        ({"uid": 0, "gid": 0}, 0o444, (0, 0)),
        ({"uid": 999, "gid": 998, "mode": 0o400}, 0o400, (999, 998)),
    ],
)
def test_who_may_read_a_file(said, mode, owner):
    ref = FileRef(source="key", content="c1", target="/run/secrets/key", **said)
    assert secretfs.access(ref, OWNER) == (mode, owner)


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_the_file_has_that_mode_and_the_way_to_it_is_closed(files, tmp_path, kind):
    me = (os.getuid(), os.getgid())
    ref = FileRef(source="key", content="c1", target="/run/secrets/key")
    chosen = ((ref,), ()) if kind == "secret" else ((), (ref,))
    [mount] = files.place("t1", *chosen, content(), me)
    assert stat.S_IMODE(os.stat(mount.source).st_mode) == 0o444
    for folder in (tmp_path / "files", tmp_path / "files/t1"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert ("noexec" in mount.options) is (kind == "secret"), "a start script may be a config"


def test_a_folder_of_an_earlier_version_is_closed(tmp_path):
    (tmp_path / "files").mkdir(mode=0o711)
    secretfs.SecretFs(tmp_path)
    assert stat.S_IMODE((tmp_path / "files").stat().st_mode) == 0o700
