"""Images from import to a mounted root and back to nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from agent.errors import Later, Refusal
from agent.images.layers import LayerMark
from agent.images.store import ImageStore
from agent.linux import calls as kernel
from specs.wire import ResolveImage
from tests.agent.images import tars


async def add(store: ImageStore, tmp_path: Path, name: str, *members: bytes) -> str:
    path = tmp_path / "archive.tar"
    path.write_bytes(tars.archive(*members))
    return await store.add(name, path, {})


async def test_a_root_is_mounted_written_remounted_and_discarded(store, busybox) -> None:
    root = await store.mount("t1", busybox)
    assert await store.mount("t1", busybox) == root
    done = subprocess.run(
        ["chroot", root, "/bin/sh", "-c", "echo hi >/new; rm /bin/vi; ls -d /bin/sh; stat -c %a /"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "/bin/sh\n755\n"
    await store.unmount("t1")
    await store.unmount("t1")
    assert not root.exists()
    root = await store.mount("t1", busybox)
    assert (root / "new").read_text() == "hi\n"
    assert not (root / "bin/vi").is_symlink()
    other = await store.mount("t2", busybox)
    assert not (other / "new").exists()
    for task in ("t1", "t2", "never"):
        await store.discard(task)
        await store.discard(task)
    assert list(store.content.writable.iterdir()) == []
    assert list(root.parent.iterdir()) == []


async def test_a_root_that_is_lent_is_never_mounted_a_second_time(store, busybox) -> None:
    """Two overlay mounts of one writable layer are undefined: a start takes the lent one."""
    root = await store.mount("t1", busybox)
    await store.unmount("t1")
    first, _ = await store.borrow("t1", busybox)
    second, _ = await store.borrow("t1", busybox)
    lent = {os.fstat(first).st_dev, os.fstat(second).st_dev}
    assert not root.exists()
    for _ in range(2):  # a start, an end, and a start again while somebody looks into it
        assert await store.mount("t1", busybox) == root
        assert {root.stat().st_dev} == lent
        (root / "mark").write_text("1")
        await store.unmount("t1")
    os.close(first)
    await store.returned("t1")
    await store.mount("t1", busybox)
    assert {root.stat().st_dev} == lent
    await store.unmount("t1")
    os.close(second)
    await store.returned("t1")
    await store.mount("t1", busybox)
    assert (root / "mark").read_text() == "1"
    third, _ = await store.borrow("t1", busybox)
    await store.discard("t1")
    os.close(third)
    await store.returned("t1")
    assert list(root.parent.iterdir()) == []
    assert descriptors_of_mounts() == 0


async def test_a_root_lent_while_it_is_mounted_stays_the_only_one(store, busybox) -> None:
    """Who is in the namespace of what ran has no other mount than those that come after it."""
    root = await store.mount("t1", busybox)
    inside = os.open(root, os.O_RDONLY)  # as a child in the task's namespace has it
    copy, _ = await store.borrow("t1", busybox)
    os.close(copy)
    await store.unmount("t1")
    second, _ = await store.borrow("t1", busybox)
    assert os.fstat(second).st_dev == os.fstat(inside).st_dev
    os.close(second)
    await store.returned("t1")
    await store.mount("t1", busybox)
    assert root.stat().st_dev == os.fstat(inside).st_dev
    os.close(inside)
    await store.returned("t1")
    await store.discard("t1")
    assert descriptors_of_mounts() == 0


def descriptors_of_mounts() -> int:
    """Return how many open descriptors of this process are of an overlay."""
    own = Path("/proc/self/fd")
    return sum(
        kernel.filesystem_type(str(own / name)) == kernel.OVERLAY_MAGIC
        for name in os.listdir(own)
        if (own / name).exists()
    )


async def test_a_restarted_store_finds_mounted_roots(store, busybox, tmp_path) -> None:
    root = await store.mount("t1", busybox)
    (root / "mark").write_text("1")
    async with ImageStore(tmp_path / "state", tmp_path / "run") as again:
        assert await again.mount("t1", busybox) == root
        assert (root / "mark").read_text() == "1"
        await again.discard("t1")


async def test_a_half_made_or_half_deleted_writable_layer_is_not_used(store, busybox) -> None:
    home = store.content.writable / "t1"
    (home / "upper").mkdir(parents=True)
    (home / "upper/half").write_text("deleted")
    root = await store.mount("t1", busybox)
    assert not (root / "half").exists()
    await store.discard("t1")


async def test_an_id_used_with_another_image_starts_anew(store, busybox, tmp_path) -> None:
    other = await add(store, tmp_path, "other", tars.file(b"only", b"x"))
    root = await store.mount("t1", busybox)
    (root / "mark").write_text("1")
    root = await store.mount("t1", other)
    assert sorted(path.name for path in root.iterdir()) == ["only"]
    await store.discard("t1")


async def test_deep_trees_of_a_container_are_removed(store, busybox) -> None:
    root = await store.mount("t1", busybox)
    program = "import os\nfor _ in range(1200): os.mkdir('deep'); os.chdir('deep')"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)
    await store.discard("t1")
    assert list(store.content.writable.iterdir()) == []


async def test_a_busy_root_is_still_taken_away(store, busybox) -> None:
    root = await store.mount("t1", busybox)
    with (root / "open").open("w"):
        await store.discard("t1")
        assert not root.exists()
    assert list(store.content.writable.iterdir()) == []


async def test_127_layers_mount_and_128_are_refused(store, tmp_path) -> None:
    layers = [tars.archive(tars.file(b"f%d" % n, b"%d" % n)) for n in range(127)]
    for n, layer in enumerate(layers):  # as if unpacked before: a process for each takes long
        home = store.content.layers / hashlib.sha256(layer).hexdigest()
        (home / "fs").mkdir(parents=True)
        (home / "fs" / f"f{n}").write_text(str(n))
        (home / "done").write_text(json.dumps(asdict(LayerMark(1, 1, opaque_root=False, boot=""))))
    digest = await put(store, "many", layers)
    root = await store.mount("t1", digest)
    assert sorted(path.name for path in root.iterdir()) == sorted(f"f{n}" for n in range(127))
    await store.discard("t1")
    with pytest.raises(Refusal, match="128 layers"):
        await put(store, "more", [*layers, tars.archive()])


async def put(store: ImageStore, name: str, layers: list[bytes]) -> str:
    """Put an image straight into the store."""
    from agent.images.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST

    blobs = [store.content.put_blob(layer) for layer in layers]
    config = json.dumps({"os": "linux", "rootfs": {"diff_ids": blobs}}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_CONFIG,
            "digest": store.content.put_blob(config),
            "size": len(config),
        },
        "layers": [
            {"mediaType": OCI_LAYER, "digest": blob, "size": len(layer)}
            for blob, layer in zip(blobs, layers, strict=True)
        ],
    }
    data = json.dumps(manifest).encode()
    store.content.put_blob(data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    await store.ensure(name, digest)
    return digest


async def test_layers_merge_with_whiteouts_opaque_and_repeats(store) -> None:
    one = tars.archive(
        tars.directory(b"d"), tars.file(b"d/a", b"1"), tars.file(b"d/b", b"1"),
        tars.directory(b"o"), tars.file(b"o/old", b"1"), tars.file(b"gone", b"1"),
    )  # fmt: skip
    two = tars.archive(
        tars.file(b"d/.wh.a"), tars.file(b".wh.gone"), tars.directory(b"o"),
        tars.file(b"o/.wh..wh..opq"), tars.file(b"o/new", b"2"),
    )  # fmt: skip
    digest = await put(store, "merged", [one, two])
    root = await store.mount("t", digest)
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    assert found == ["d", "d/b", "o", "o/new"]
    digest = await put(store, "repeated", [one, two, one])
    root = await store.mount("t", digest)
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    assert found == ["d", "d/a", "d/b", "gone", "o", "o/new", "o/old"]
    wiped = tars.archive(tars.file(b".wh..wh..opq"), tars.file(b"fresh", b"3"))
    digest = await put(store, "wiped", [one, wiped])
    root = await store.mount("t", digest)
    assert [path.name for path in root.iterdir()] == ["fresh"]
    digest = await put(store, "nothing", [])
    root = await store.mount("t", digest)
    assert list(root.iterdir()) == []
    await store.discard("t")


@pytest.mark.parametrize("name", [b"dev", b"proc", b"sys"])
async def test_a_root_whose_dev_proc_or_sys_is_a_link_is_refused(store, name) -> None:
    real = tars.archive(tars.directory(name))
    link = tars.archive(tars.symlink(name, b"/tmp"))
    file = tars.archive(tars.file(name, b"x"))
    for layers in ([link], [real, link], [file], [link, tars.archive(tars.symlink(name, b"x"))]):
        with pytest.raises(Refusal, match=f"/{name.decode()} is not a directory"):
            await put(store, "bad", layers)
    gone = tars.archive(tars.file(b".wh." + name))
    await put(store, "good", [link, real])
    await put(store, "gone", [link, gone])


async def test_names_and_policies_without_a_registry(store, busybox) -> None:
    for name in ("busybox", "busybox:latest", "docker.io/library/busybox", f"busybox@{busybox}"):
        for policy in ("missing", "never"):
            found = await store.resolve(ResolveImage(image=name, policy=policy))
            assert found.digest == busybox
    with pytest.raises(Refusal, match="nginx:1 is not on this node and its pull policy is never"):
        await store.resolve(ResolveImage(image="nginx:1", policy="never"))
    with pytest.raises(Later, match="cannot reach the registry for nginx:1"):
        await store.resolve(ResolveImage(image="nginx:1"))
    with pytest.raises(Refusal, match="lower case"):
        await store.resolve(ResolveImage(image="NGINX"))
    [info] = await store.list()
    assert (info.digest, info.names) == (busybox, ("busybox:latest",))


async def test_prune_keeps_what_is_named_kept_or_used(store, busybox, tmp_path) -> None:
    first = await add(store, tmp_path, "app", tars.file(b"v", b"1"))
    second = await add(store, tmp_path, "app", tars.file(b"v", b"2"))
    used = await add(store, tmp_path, "used", tars.file(b"u", b"1"))
    await store.mount("t1", used)
    assert await store.prune([first]) == ()
    assert await store.prune([]) == (first,)
    assert await store.prune([second], named=True) == (busybox,)
    assert {info.digest for info in await store.list()} == {second, used}
    root = await store.mount("t1", used)
    assert (root / "u").read_text() == "1"
    await store.discard("t1")
    assert set(await store.prune([], named=True)) == {second, used}
    for directory in (store.content.blobs, store.content.layers, store.content.short):
        assert list(directory.iterdir()) == []


async def test_a_layer_not_known_to_be_on_disk_is_unpacked_again_after_a_reboot(
    store, busybox
) -> None:
    record = store.content.record(busybox)
    assert record is not None
    [diff_id] = record.diff_ids
    await durable(store, diff_id)
    home = store.layers.directory(diff_id).parent
    done = json.loads((home / "done").read_text())
    (home / "done").write_text(json.dumps(done | {"boot": "another boot"}))
    (home / "fs/bin/busybox").write_bytes(b"torn")
    assert await store.list() == []
    with pytest.raises(Later, match="not complete"):
        await store.mount("t1", busybox)
    await store.ensure("busybox", busybox)
    root = await store.mount("t1", busybox)
    assert (root / "bin/busybox").stat().st_size > 1000
    await store.discard("t1")


async def durable(store: ImageStore, diff_id: str) -> None:
    """Wait until the layer is known to be on disk."""
    async with asyncio.timeout(60):
        while (done := store.layers.done(diff_id)) is None or done.boot:
            await asyncio.sleep(0.02)


async def test_upper_belongs_to_overlayfs(store, busybox) -> None:
    root = await store.mount("t1", busybox)
    assert kernel.filesystem_type(str(root)) == kernel.OVERLAY_MAGIC
    assert os.stat(root).st_mode & 0o777 == 0o755
    await store.discard("t1")
