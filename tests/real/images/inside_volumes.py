"""Volumes, binds, tmpfs, secrets: made once, filled whole, contained, and gone without a trace."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.errors import Later, Refusal
from agent.linux import calls as kernel
from agent.vocabulary import BoundMount, ImageConfig
from agent.volumes import replacing
from agent.volumes.store import VolumeStore
from specs.stack import FileRef, Mount, TaskSpec
from specs.states import Desired
from specs.wire import Assignment, Content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

IMAGE = ImageConfig(digest="sha256:" + "0" * 64)
OWNER = (1000, 1001)


@pytest.fixture
async def volumes(tmp_path: Path) -> AsyncIterator[VolumeStore]:
    async with VolumeStore(tmp_path / "state", tmp_path / "run") as store:
        yield store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with something to fill volumes from."""
    path = tmp_path / "root"
    data = path / "data"
    (data / "sub").mkdir(parents=True)
    (data / "file").write_text("from the image")
    (data / "link").symlink_to("/etc/passwd")
    os.chown(data, 33, 34)
    data.chmod(0o1750)
    (path / "lib").symlink_to("/data")
    return path


def task(*mounts: Mount, ident: str = "t1", **more: object) -> Assignment:
    return Assignment(
        id=ident, stack="s", service="w", slot=1, name="s-w-1", desired=Desired.RUNNING,
        volumes={"db": "s_db", "other": "s_other", "bad": "../bad"},
        spec=TaskSpec(image="x", mounts=mounts, **more),
    )  # fmt: skip


async def prepare(
    volumes: VolumeStore, root: Path, assignment: Assignment, **more: object
) -> tuple[BoundMount, ...]:
    contents = {
        name: Content(id=name, data=base64.b64encode(name.encode()).decode(), secret=True)
        for name in ("hush", "open")
    }
    image = more.get("image", IMAGE)
    return await volumes.prepare(assignment, image, root, contents, OWNER)


def below(path: Path) -> list[str]:
    return sorted(str(item.relative_to(path)) for item in path.rglob("*"))


DB = Mount(type="volume", source="db", target="/data")


async def test_a_new_volume_takes_the_images_content_owner_and_mode(volumes, root) -> None:
    [mount] = await prepare(volumes, root, task(DB))
    data = root.parent / "state/volumes/s_db/_data"
    assert (mount.source, mount.target, mount.type) == (str(data), "/data", "bind")
    info = data.stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (33, 34, 0o1750)
    assert below(data) == ["file", "link", "sub"]
    assert (data / "link").is_symlink()
    (data / "file").write_text("changed")
    await prepare(volumes, root, task(DB, ident="t2"))
    assert (data / "file").read_text() == "changed"
    assert volumes.held() == ("s_db",)
    for _ in range(2):
        await volumes.remove("s_db")
    assert below(root.parent / "state") == ["anonymous", "volumes"]


async def test_an_emptied_volume_stays_empty(volumes, root) -> None:
    [mount] = await prepare(volumes, root, task(DB))
    subprocess.run(["find", mount.source, "-mindepth", "1", "-delete"], check=True)
    await prepare(volumes, root, task(DB))
    assert os.listdir(mount.source) == []


@pytest.mark.parametrize("more", [{"nocopy": True}, {"target": "/none"}, {"target": "/data/file"}])
async def test_nothing_to_copy_or_not_wanted(volumes, root, more) -> None:
    [mount] = await prepare(volumes, root, task(DB.model_copy(update=more)))
    assert os.listdir(mount.source) == []
    assert stat.S_IMODE(os.stat(mount.source).st_mode) == 0o755


async def test_links_in_the_image_do_not_lead_the_copy_outside(volumes, root, tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("mine")
    (root / "out").symlink_to(secret)
    (root / "up").symlink_to("../../../../../.." + str(secret))
    (root / "magic").symlink_to("/proc/self/root" + str(secret))
    for target in ("/out", "/up", "/magic"):
        [mount] = await prepare(volumes, root, task(DB.model_copy(update={"target": target})))
        assert os.listdir(mount.source) == []
        await volumes.remove("s_db")
    [mount] = await prepare(volumes, root, task(DB.model_copy(update={"target": "/lib"})))
    assert below(root.parent / "state/volumes/s_db/_data") == ["file", "link", "sub"]


async def test_anonymous_volumes_live_and_die_with_the_task(volumes, root) -> None:
    image = ImageConfig(digest=IMAGE.digest, volumes=("/data", "/cache", "/", "relative"))
    assignment = task(Mount(type="volume", target="/anon"), DB)
    mounts = await prepare(volumes, root, assignment, image=image)
    assert [mount.target for mount in mounts] == ["/anon", "/data", "/cache"]
    again = await prepare(volumes, root, assignment, image=image)
    assert again == mounts
    other = await prepare(volumes, root, task(ident="t2"), image=image)
    assert {mount.source for mount in other}.isdisjoint(mount.source for mount in mounts)
    for name in ("t1", "t1", "t2"):
        await volumes.release(name)
    assert below(root.parent / "state/anonymous") == []
    assert volumes.held() == ("s_db",)


async def test_two_tasks_at_once_fill_a_volume_once(volumes, root) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(prepare(volumes, root, task(DB, ident=f"t{number}")))
    assert below(root.parent / "state/volumes") == [
        "s_db", "s_db/_data", "s_db/_data/file", "s_db/_data/link", "s_db/_data/sub",
    ]  # fmt: skip


async def test_subpaths_are_bound_and_never_leave_the_volume(volumes, root, tmp_path) -> None:
    [mount] = await prepare(volumes, root, task(DB))
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(outside, f"{mount.source}/out")
    os.symlink("sub", f"{mount.source}/in")
    os.symlink("..", f"{mount.source}/sub/up")
    os.symlink("../..", f"{mount.source}/sub/above")
    leaves, absent = "it leads out of where it must stay", "it is not there"
    for path, words in (
        ("out", leaves),  # a link with an absolute path
        ("sub/above", leaves),
        ("../..", leaves),
        ("..", leaves),
        (str(outside), leaves),
        ("sub/../..", leaves),
        ("nothing", absent),
        ("sub/up/nothing", absent),
    ):
        assignment = task(DB.model_copy(update={"subpath": path}))
        await prepare(volumes, root, assignment)  # it may be made until its run begins
        with pytest.raises(Refusal, match=words):
            await volumes.enter(assignment)
        await volumes.release("t1")
    os.unlink(f"{mount.source}/sub/up")
    os.unlink(f"{mount.source}/sub/above")
    assignment = task(DB.model_copy(update={"subpath": "in"}))
    [bound] = await prepare(volumes, root, assignment)
    assert (await prepare(volumes, root, assignment)) == (bound,)
    for _ in range(2):
        await volumes.enter(assignment)
    assert os.path.samefile(bound.source, f"{mount.source}/sub")
    os.rename(f"{mount.source}/sub", f"{mount.source}/old")  # what a container might do now
    os.symlink(outside, f"{mount.source}/sub")
    assert not os.path.samefile(bound.source, outside)
    assignment = task(DB.model_copy(update={"subpath": "file"}))
    await volumes.release("t1")
    [bound] = await prepare(volumes, root, assignment)
    await volumes.enter(assignment)
    assert Path(bound.source).read_text() == "from the image"
    await volumes.release("t1")
    assert below(tmp_path / "run/subpaths") == []


async def put(volumes: VolumeStore, name: str, text: str) -> None:
    """Give a volume other data: a folder ``sub`` with a file."""
    async with volumes.draft() as draft:
        (draft / "_data/sub").mkdir()
        (draft / "_data/sub/file").write_text(text)
        await volumes.put(name, draft, replace=True, users=list)


async def test_the_next_run_has_the_data_that_came_below_a_subpath_too(volumes, root) -> None:
    await prepare(volumes, root, task(DB))
    assignment = task(DB.model_copy(update={"subpath": "sub"}))
    [bound] = await prepare(volumes, root, assignment)
    await volumes.enter(assignment)
    assert os.listdir(bound.source) == []
    await put(volumes, "s_db", "restored")
    await volumes.enter(assignment)
    assert (Path(bound.source) / "file").read_text() == "restored"
    await volumes.release("t1")


async def test_a_file_may_take_a_folders_place_below_a_subpath(volumes, root) -> None:
    await prepare(volumes, root, task(DB))
    assignment = task(DB.model_copy(update={"subpath": "sub"}))
    [bound] = await prepare(volumes, root, assignment)
    await volumes.enter(assignment)
    async with volumes.draft() as draft:
        (draft / "_data/sub").write_text("restored")
        await volumes.put("s_db", draft, replace=True, users=list)
    await volumes.enter(assignment)
    assert Path(bound.source).read_text() == "restored"
    await volumes.release("t1")


async def test_no_run_begins_while_its_volume_gets_other_data(volumes, root, monkeypatch) -> None:
    await prepare(volumes, root, task(DB))
    begun, goes_on = threading.Event(), threading.Event()
    place = replacing.place

    def slowly(*args: object, **more: object) -> None:
        begun.set()
        assert goes_on.wait(60)
        place(*args, **more)

    monkeypatch.setattr(replacing, "place", slowly)
    coming = asyncio.create_task(put(volumes, "s_db", "restored"))
    await asyncio.to_thread(begun.wait, 60)
    entering = asyncio.create_task(volumes.enter(task(DB)))
    other = task(Mount(type="volume", source="other", target="/o"), ident="t2")
    other = other.model_copy(update={"volumes": {"other": "s_other"}})
    await volumes.enter(other)  # is not held up
    for _ in range(10):
        await asyncio.sleep(0)
    assert not entering.done(), "it would mount data that is about to go"
    goes_on.set()
    await coming
    await entering


async def test_binds(volumes, root, tmp_path) -> None:
    path = tmp_path / "new/deep"
    bind = Mount(type="bind", source=str(path), target="/b", read_only=True)
    [mount] = await prepare(volumes, root, task(bind))
    assert path.is_dir()
    assert mount == BoundMount(str(path), "/b", "bind", ("rbind", "rprivate", "ro"))
    await volumes.release("t1")
    assert path.is_dir()
    for change, words in (
        ({"source": str(tmp_path / "no"), "create_host_path": False}, "does not exist"),
        ({"source": "relative"}, "not an absolute path"),
        ({"source": "/etc/passwd/below"}, "a file, not a folder"),
        ({"propagation": "sideways"}, "none of"),
        ({"target": "/"}, "the container's root itself"),
        ({"target": "relative"}, "not an absolute path"),
        ({"target": "/proc/sys"}, "inside /proc"),
        ({"target": "/a\0b"}, "control characters"),
        ({"target": "/a/../../b"}, "leads upwards"),
    ):
        with pytest.raises(Refusal, match=words):
            await prepare(volumes, root, task(bind.model_copy(update=change)))
    assert not (tmp_path / "no").exists()


async def test_tmpfs_has_dockers_options(volumes, root) -> None:
    [plain] = await prepare(volumes, root, task(Mount(type="tmpfs", target="/t")))
    assert plain.options == ("noexec", "nosuid", "nodev", "mode=1777")
    sized = Mount(type="tmpfs", target="/t", tmpfs_size=1 << 20, tmpfs_mode=0o700, read_only=True)
    [mount] = await prepare(volumes, root, task(sized))
    assert (mount.type, mount.source) == ("tmpfs", "tmpfs")
    assert mount.options == ("noexec", "nosuid", "nodev", "mode=700", "size=1048576", "ro")


async def test_mounts_come_in_the_order_they_must_be_made(volumes, root) -> None:
    mounts = await prepare(
        volumes,
        root,
        task(
            Mount(type="tmpfs", target="/a/b/c"),
            Mount(type="tmpfs", target="/a"),
            Mount(type="tmpfs", target="/a/b"),
            secrets=(FileRef(source="s", target="/a/s", content="hush"),),
        ),
    )
    assert [mount.target for mount in mounts] == ["/a", "/a/b", "/a/s", "/a/b/c"]
    await volumes.release("t1")


async def test_secrets_are_on_their_own_tmpfs_with_owner_and_mode(volumes, root, tmp_path) -> None:
    assignment = task(
        secrets=(
            FileRef(source="s", target="/run/secrets/s", content="hush"),
            FileRef(source="s", target="/x", content="hush", uid=7, gid=8, mode=0o440),
        ),
        configs=(FileRef(source="c", target="/etc/c", content="open"),),
    )
    mounts = await prepare(volumes, root, assignment)
    by_target = {mount.target: mount for mount in mounts}
    expected = {
        "/run/secrets/s": (1000, 1001, 0o444, b"hush"),
        "/x": (7, 8, 0o440, b"hush"),
        "/etc/c": (1000, 1001, 0o444, b"open"),
    }
    for target, (uid, gid, mode, data) in expected.items():
        mount = by_target[target]
        info = os.stat(mount.source)
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (uid, gid, mode)
        assert Path(mount.source).read_bytes() == data
        assert kernel.filesystem_type(mount.source) == kernel.TMPFS_MAGIC
        assert {"ro", "nosuid", "nodev"} <= set(mount.options)
    assert "noexec" in by_target["/x"].options
    assert "noexec" not in by_target["/etc/c"].options  # a start script may be a config
    inodes = [os.stat(mount.source).st_ino for mount in mounts]
    again = await prepare(volumes, root, assignment)
    assert again == mounts
    assert [os.stat(mount.source).st_ino for mount in again] == inodes
    with open(mounts[0].source, "rb"):  # still open in an ending container
        await volumes.release("t1")
    await volumes.release("t1")
    assert below(tmp_path / "run/files") == []


async def test_secret_values_reach_no_disk_and_no_message(volumes, root, tmp_path) -> None:
    canary = "canary-4f1d8a"
    data = base64.b64encode(canary.encode()).decode()
    assignment = task(secrets=(FileRef(source="pw", target="/pw", content="c"),))
    content = {"c": Content(id="c", data=data, secret=True)}
    await volumes.prepare(assignment, IMAGE, root, content, OWNER)
    for path in tmp_path.rglob("*"):
        if path.is_file() and kernel.filesystem_type(str(path)) != kernel.TMPFS_MAGIC:
            assert canary.encode() not in path.read_bytes(), path
    await volumes.release("t1")
    for broken, kind, words in (
        ({}, Later, "content of pw has not reached"),
        ({"c": Content(id="c", data=canary + "!", secret=True)}, Refusal, "not base64"),
    ):
        with pytest.raises(kind, match=words) as error:
            await volumes.prepare(assignment, IMAGE, root, broken, OWNER)
        assert canary not in str(error.value)


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (Mount(type="volume", source="bad", target="/x"), "not a valid name"),
        (Mount(type="volume", source="unknown", target="/x"), "no name on this node"),
    ],
)
async def test_bad_names_are_refused(volumes, root, mount, words) -> None:
    with pytest.raises(Refusal, match=words):
        await prepare(volumes, root, task(mount))


@pytest.mark.parametrize("name", ["../x", "", ".", "a/b", "-x", "x" * 256])
async def test_no_name_leads_out_of_the_volumes(volumes, root, name) -> None:
    with pytest.raises(Refusal, match=r"not a|longer than"):
        await volumes.remove(name)
    with pytest.raises(Refusal, match="not a task id"):
        await volumes.release(name)


async def test_a_restart_forgets_the_tasks_that_are_gone(volumes, root, tmp_path) -> None:
    refs = (FileRef(source="s", target="/s", content="hush"),)
    image = ImageConfig(digest=IMAGE.digest, volumes=("/cache",))
    for name in ("t1", "t2"):
        await prepare(volumes, root, task(ident=name, secrets=refs), image=image)
    (tmp_path / "state/volumes/.new-half").mkdir()
    async with VolumeStore(tmp_path / "state", tmp_path / "run") as again:
        await again.adopt({"t2"})
        assert os.listdir(tmp_path / "run/files") == ["t2"]
        assert os.listdir(tmp_path / "state/anonymous") == ["t2"]
        assert again.held() == ()
        await again.adopt(set())
    assert below(tmp_path / "run") == ["files", "mounted", "shm", "subpaths"]


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.02, 0.03])
async def test_a_kill_while_filling_leaves_a_whole_volume_or_none(root, tmp_path, delay) -> None:
    for number in range(200):
        (root / "data" / f"f{number}").write_text("x" * 5000)
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tests.real.images.inside_volumes import DB, prepare, task\n"
        "from agent.volumes.store import VolumeStore\n"
        "tmp = Path(sys.argv[1])\n"
        "async def main():\n"
        "    async with VolumeStore(tmp / 'state', tmp / 'run') as store:\n"
        "        print('go', flush=True)\n"
        "        await prepare(store, tmp / 'root', task(DB))\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    process.kill()
    process.communicate()
    data = tmp_path / "state/volumes/s_db/_data"
    if data.exists():
        assert len(os.listdir(data)) == 203
    async with VolumeStore(tmp_path / "state", tmp_path / "run") as store:
        await prepare(store, root, task(DB))
        assert len(os.listdir(data)) == 203
        assert os.listdir(tmp_path / "state/volumes") == ["s_db"]
