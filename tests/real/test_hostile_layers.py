"""Layers that want out, lie or explode: contained or refused, and nothing outside changes."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
from pathlib import Path

import pytest
from backports import zstd

from agent.errors import Refusal
from agent.images.content import ImageFiles
from agent.images.layers import LayerStore, UnpackLimits
from tests.agent.images import tars
from tests.agent.images.hostile import CASES, all_cases

pytestmark = pytest.mark.real
SMALL = UnpackLimits(
    bytes=64 << 20, inodes=2000, ratio=50, ratio_free=1 << 20, floor=1 << 20, seconds=60
)


def snapshot(root: Path) -> list[tuple[object, ...]]:
    """Return everything below ``root`` that a break-out could change."""
    found: list[tuple[object, ...]] = []
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        found.append((str(path), info.st_mode, info.st_uid, info.st_nlink, info.st_mtime_ns, data))
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    (path / "sub").mkdir(parents=True)
    (path / "keep").write_text("precious")
    (path / "sub/too").write_text("also")
    return path


@pytest.fixture
def content(tmp_path: Path) -> ImageFiles:
    return ImageFiles(tmp_path / "outside-not" / "images")


async def unpack(content: ImageFiles, data: bytes, limits: UnpackLimits = SMALL) -> Path:
    """Unpack bytes as a layer and return its directory."""
    blob = content.root / "blob"
    blob.write_bytes(data)
    layers = LayerStore(content, limits)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    try:
        return layers.directory(await layers.unpack(blob, digest, None))
    finally:
        blob.unlink()


def left(content: ImageFiles) -> list[Path]:
    """Return what a refused layer left in the store."""
    assert content.emptied(60)
    return [*content.layers.iterdir(), *(content.root / "staging").iterdir()]


@pytest.mark.parametrize("name", all_cases())
async def test_contained_or_refused(name: str, content: ImageFiles, outside: Path) -> None:
    members, verdict = CASES[name](os.fsencode(outside))
    machine = [Path(path).lstat() for path in ("/etc/passwd", "/etc", "/", "/tmp")]
    before = snapshot(outside)
    if verdict:
        with pytest.raises(Refusal, match=verdict):
            await unpack(content, tars.archive(*members))
        assert left(content) == []
    else:
        files = await unpack(content, tars.archive(*members))
        _nothing_dangerous_in(files)
    assert snapshot(outside) == before
    for path, info in zip(("/etc/passwd", "/etc", "/", "/tmp"), machine, strict=True):
        now = Path(path).lstat()
        assert (now.st_ino, now.st_mode, now.st_uid, now.st_nlink if path != "/tmp" else 0) == (
            info.st_ino, info.st_mode, info.st_uid, info.st_nlink if path != "/tmp" else 0,
        )  # fmt: skip
    assert not Path("/evil").exists()


def _nothing_dangerous_in(files: Path) -> None:
    for path in files.rglob("*"):
        info = path.lstat()
        if stat.S_ISBLK(info.st_mode):
            raise AssertionError(f"a disk in a layer: {path}")
        if stat.S_ISCHR(info.st_mode):
            assert info.st_rdev in (os.makedev(1, 3), 0)
        names = os.listxattr(path, follow_symlinks=False)
        assert not [name for name in names if "overlay" in name or "selinux" in name], path


async def test_devices_only_those_every_container_has(content: ImageFiles) -> None:
    files = await unpack(
        content,
        tars.archive(
            tars.device(b"null", b"3", 1, 3),
            tars.device(b"mem", b"3", 1, 1),
            tars.device(b"sda", b"4", 8, 0),
            tars.device(b"zero-zero", b"3", 0, 0),
        ),
    )
    assert [path.name for path in files.iterdir()] == ["null"]


async def test_whiteouts_and_opaque_directories_take_overlay_form(content: ImageFiles) -> None:
    files = await unpack(
        content,
        tars.archive(
            tars.file(b".wh.gone"),
            tars.directory(b"new"),
            tars.file(b"new/.wh..wh..opq"),
            tars.file(b"missing/parents/.wh.x"),
            tars.file(b".wh.again"),
            tars.directory(b"again"),
            tars.directory(b"before"),
            tars.file(b".wh.before"),
            tars.file(b"stays", b"1"),
            tars.file(b".wh.stays"),
        ),
    )
    for name in ("gone", "missing/parents/x"):
        info = (files / name).lstat()
        assert stat.S_ISCHR(info.st_mode)
        assert info.st_rdev == 0
    for name in ("new", "again", "before"):
        assert os.getxattr(files / name, "trusted.overlay.opaque") == b"y", name
    assert (files / "stays").read_text() == "1"


async def test_modes_owners_times_and_attributes_are_kept(content: ImageFiles) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    files = await unpack(
        content,
        tars.archive(
            tars.directory(b"./", 0o711, uid=7),
            tars.directory(b"d", 0o1777, uid=5, gid=6, mtime=1000),
            tars.file(b"d/suid", b"x", mode=0o4755, uid=8, gid=9, mtime=2000),
            tars.pax([("SCHILY.xattr.security.capability", capability),
                      ("SCHILY.xattr.user.note", b"hi")])
            + tars.file(b"cap", b"x", uid=3),
            tars.symlink(b"s", b"nowhere"),
            tars.hardlink(b"twin", b"d/suid"),
            tars.pax([("uid", b"3000000"), ("mtime", b"5.25")]) + tars.file(b"pax", b""),
        ),
    )  # fmt: skip
    assert (files.stat().st_uid, files.stat().st_mode & 0o7777) == (7, 0o711)
    info = (files / "d").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777, info.st_mtime) == (5, 6, 0o1777, 1000)
    info = (files / "d/suid").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777, info.st_mtime) == (8, 9, 0o4755, 2000)
    assert (files / "twin").stat().st_ino == info.st_ino
    assert os.getxattr(files / "cap", "security.capability") == capability
    assert os.getxattr(files / "cap", "user.note") == b"hi"
    assert (files / "s").readlink() == Path("nowhere")
    assert (files / "pax").stat().st_uid == 3000000
    assert (files / "pax").stat().st_mtime == 5.25


async def test_later_members_replace_earlier_ones(content: ImageFiles) -> None:
    files = await unpack(
        content,
        tars.archive(
            tars.directory(b"a"), tars.file(b"a/x", b"1"), tars.file(b"a", b"now a file"),
            tars.file(b"b", b"1"), tars.directory(b"b"), tars.file(b"b/y", b"2"),
            tars.directory(b"c", 0o700), tars.file(b"c/z", b"3"), tars.directory(b"c", 0o755),
            tars.file(b"no/entry/for/parents", b"4"),
        ),
    )  # fmt: skip
    assert (files / "a").read_text() == "now a file"
    assert (files / "b/y").read_text() == "2"
    assert (files / "c/z").read_text() == "3"
    assert (files / "c").stat().st_mode & 0o777 == 0o755
    assert (files / "no/entry/for/parents").read_text() == "4"


async def test_sparse_files_stay_sparse(content: ImageFiles) -> None:
    member = tars.pax([("GNU.sparse.size", b"33554432"), ("GNU.sparse.map", b"16777216,3")])
    files = await unpack(content, tars.archive(member + tars.file(b"s", b"end")))
    info = (files / "s").stat()
    assert info.st_size == 32 << 20
    assert info.st_blocks * 512 < 1 << 20
    with (files / "s").open("rb") as file:
        file.seek(16 << 20)
        assert file.read(4) == b"end\0"


GOOD = tars.archive(tars.file(b"f", b"content" * 1000))


@pytest.mark.parametrize(
    "packed",
    [
        GOOD,
        gzip.compress(GOOD),
        gzip.compress(GOOD[:1000]) + gzip.compress(GOOD[1000:]),
        gzip.compress(GOOD) + bytes(700),
        zstd.compress(GOOD),
        zstd.compress(GOOD[:1000]) + zstd.compress(GOOD[1000:]),
    ],
    ids=["tar", "gzip", "gzip-members", "gzip-padded", "zstd", "zstd-frames"],
)
async def test_packings(packed: bytes, content: ImageFiles) -> None:
    files = await unpack(content, packed)
    assert files.parent.name == hashlib.sha256(GOOD).hexdigest()
    assert (files / "f").read_bytes() == b"content" * 1000


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (gzip.compress(GOOD)[:-9], "cut short|damaged"),
        (gzip.compress(GOOD)[:50] + b"garbage" + gzip.compress(GOOD)[57:], "damaged"),
        (gzip.compress(GOOD) + b"trailing", "damaged"),
        (zstd.compress(GOOD)[:-5], "cut short"),
        (zstd.compress(GOOD)[:20] + b"\xff" * 20, "damaged|cut short"),
        (b"PK\x03\x04" + bytes(600), "number|checksum"),
        (b"", ""),
    ],
    ids=["gzip-cut", "gzip-changed", "gzip-trailing", "zstd-cut", "zstd-changed", "zip", "empty"],
)
async def test_damaged_packings_are_refused(packed: bytes, words: str, content: ImageFiles) -> None:
    if not words:
        assert list((await unpack(content, packed)).iterdir()) == []
        return
    with pytest.raises(Refusal, match=words):
        await unpack(content, packed)
    assert left(content) == []


def zeros(size: int) -> bytes:
    return tars.header(b"zeros", size=size) + bytes(size) + tars.END


@pytest.mark.parametrize(
    ("data", "limits", "words"),
    [
        (gzip.compress(zeros(20 << 20), 9), SMALL, "decompression bomb"),
        (zstd.compress(zeros(20 << 20)), SMALL, "decompression bomb"),
        (gzip.compress(bytes(20 << 20)), SMALL, "bomb|lone"),
        (zeros(8 << 20), UnpackLimits(bytes=4 << 20, floor=1 << 20), "more than 4194304 bytes"),
        (
            tars.archive(*(tars.file(b"f%d" % i) for i in range(2001))),
            SMALL,
            "more than 2000 files",
        ),
        (
            tars.archive(*(tars.file(b"d%d/e/f" % i) for i in range(1000))),
            SMALL,
            "more than 2000 files",
        ),
    ],
    ids=["gzip", "zstd", "padding", "bytes", "files", "implied-directories"],
)
async def test_bombs_are_refused_at_the_cap(
    data: bytes, limits: UnpackLimits, words: str, content: ImageFiles
) -> None:
    with pytest.raises(Refusal, match=words):
        await unpack(content, data, limits)
    assert left(content) == []
