"""Secret files: their place is made again when somebody tidied up below /run."""

from __future__ import annotations

import base64
import os
import shutil

from agent.volumes import secretfs
from specs.stack import FileRef
from specs.wire import Content


def test_files_are_placed_after_the_folder_was_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(secretfs, "_mount_tmpfs", lambda home, size: None)
    files = secretfs.SecretFs(tmp_path)
    shutil.rmtree(tmp_path / "files")
    ref = FileRef(source="key", content="c1", target="/run/secrets/key")
    content = Content(id="c1", data=base64.b64encode(b"s3cret").decode())
    owner = (os.getuid(), os.getgid())
    [mount] = files.place("t1", (ref,), (), {"c1": content}, owner)
    with open(mount.source, "rb") as file:
        assert file.read() == b"s3cret"
