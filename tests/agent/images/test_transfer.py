"""How far an image is: the bytes of what it lacked, while they arrive and when none do."""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.images.assemble import Assembly
from agent.images.content import ImageFiles
from agent.images.manifest import Blob


def blob(size, letter):
    data = letter * size
    return Blob(f"sha256:{hashlib.sha256(data).hexdigest()}", size), data


@pytest.mark.parametrize(
    ("arrived", "stored", "expected"),
    [
        ([], [], (0, 600)),
        ([(0, 40)], [], (40, 600)),
        ([(0, 100), (1, 30)], [], (130, 600)),
        ([(1, 30)], [0], (130, 600)),
        ([], [0, 1, 2], (600, 600)),
        ([(2, 999)], [], (300, 600)),  # more than it should be is not counted
    ],
)
def test_bytes_that_arrived_and_bytes_that_were_wanted(tmp_path, arrived, stored, expected):
    content = ImageFiles(tmp_path / "images")
    blobs = [blob(size, letter) for size, letter in ((100, b"a"), (200, b"b"), (300, b"c"))]
    with ThreadPoolExecutor(1) as threads, content.stage() as stage:
        assembly = Assembly(content, None, None, None, None, threads)
        assert assembly.transfer("docker.io/library/x:1") == (0, 0)
        assembly._arriving["docker.io/library/x:1"] = (stage, [one for one, _ in blobs])
        for which, size in arrived:
            name = content.blob(blobs[which][0].digest).name
            (stage / name).write_bytes(b"x" * size)
        for which in stored:
            content.put_blob(blobs[which][1])
        assert assembly.transfer("docker.io/library/x:1") == expected
        assert assembly.transfer("docker.io/library/other:1") == (0, 0)


def test_nothing_is_left_of_a_transfer_that_failed(tmp_path, monkeypatch):
    from agent.errors import Later
    from agent.images import assemble
    from agent.images.manifest import Manifest
    from agent.images.reference import parse

    content = ImageFiles(tmp_path / "images")
    with ThreadPoolExecutor(1) as threads:
        assembly = Assembly(content, None, None, None, None, threads)
        one, other = blob(5, b"c")[0], blob(7, b"l")[0]
        monkeypatch.setattr(assemble, "parse_manifest", lambda _data: Manifest(one, (other,)))
        monkeypatch.setattr(assembly, "_room", lambda _bytes: None)
        seen = []

        async def manifest(*_):
            return b"{}"

        async def fetch(reference, *_):
            seen.append(assembly.transfer(reference.name))
            raise Later("the registry does not answer")

        monkeypatch.setattr(assembly, "_manifest_bytes", manifest)
        monkeypatch.setattr(assembly, "_fetch", fetch)
        with pytest.raises(Later):
            asyncio.run(assembly._assemble(parse("x:1"), one.digest, b""))
        assert seen == [(0, 12)]
        assert assembly.transfer(parse("x:1").name) == (0, 0)
