"""What a refused image leaves behind is deleted beside the agent, and never begun twice at once."""

from __future__ import annotations

import fcntl
import os
import signal
import threading

import pytest

from agent.errors import Later
from agent.images.content import LEFTOVERS, ImageFiles
from agent.images.layers import LayerStore, UnpackLimits
from specs.kit import disk


@pytest.fixture
def held(monkeypatch):
    """Removals begin and do not end before this is set."""
    release, run = threading.Event(), disk.subprocess.run

    def late(*words, **options):
        release.wait(60)
        return run(*words, **options)

    monkeypatch.setattr(disk.subprocess, "run", late)
    yield release
    release.set()


def staging(content):
    return list((content.root / "staging").iterdir())


def refused(content, files=3):
    with content.stage() as stage:
        for number in range(files):
            (stage / f"file-{number}").write_text("x")


def test_leaving_a_stage_does_not_wait_for_its_files(tmp_path, held):
    content = ImageFiles(tmp_path)
    refused(content)
    (left,) = staging(content)
    # Another process that starts meanwhile sees that its owner still lives.
    ImageFiles(tmp_path).clean_staging()
    assert sorted(path.name for path in left.iterdir()) == ["file-0", "file-1", "file-2"]
    held.set()
    assert content.emptied(60)
    assert staging(content) == []


def test_an_empty_stage_is_gone_at_once(tmp_path, held):
    content = ImageFiles(tmp_path)
    refused(content, files=0)
    assert staging(content) == []


def test_a_writable_layer_is_out_of_the_way_at_once(tmp_path, held):
    """The one thread that mounts does not delete: the next task's root waits for nobody."""
    content = ImageFiles(tmp_path)
    home = content.writable / "t1"
    (home / "upper/many").mkdir(parents=True)
    content.leave_to_remover(home)
    content.leave_to_remover(content.writable / "never-was")
    assert not home.exists()
    home.mkdir()  # the task's next one
    held.set()
    assert content.emptied(60)
    assert home.exists()
    assert staging(content) == []


async def test_a_hostile_image_tried_again_and_again_does_not_fill_the_disk(tmp_path, held):
    content = ImageFiles(tmp_path)
    layers = LayerStore(content, UnpackLimits())
    for _ in range(LEFTOVERS + 1):
        assert not content.crowded()
        refused(content)
    with pytest.raises(Later, match="still being deleted"):
        await layers.unpack(tmp_path / "blob", "sha256:" + "0" * 64, None)
    held.set()
    assert content.emptied(60)
    assert not content.crowded()


def test_what_a_killed_agent_left_is_deleted_beside_the_next_one(tmp_path, held):
    content = ImageFiles(tmp_path)
    (content.root / "staging/1-dead/layer/fs").mkdir(parents=True)
    content.clean_staging()
    assert [path.name for path in staging(content)] == ["1-dead"]
    held.set()
    assert content.emptied(60)
    assert staging(content) == []


def test_what_a_killed_writer_of_a_blob_leaves_is_deleted_by_the_next_start(tmp_path):
    content = ImageFiles(tmp_path)
    child = os.fork()
    if not child:  # it is killed between the write and the name
        disk.write_all = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        content.put_blob(b"half")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert list(content.blobs.iterdir()) == [], "a half blob has no place among the whole ones"
    assert len(staging(content)) == 1
    later = ImageFiles(tmp_path)
    later.clean_staging()
    assert later.emptied(60)
    assert staging(later) == []
    assert later.read_blob(later.put_blob(b"whole"), 100) == b"whole"


def test_what_a_dying_owner_still_held_at_our_start_goes_with_our_next_work(tmp_path):
    """A killed agent's programs end a moment later than it: the next agent is there before."""
    content = ImageFiles(tmp_path)
    left = content.root / "staging/1-dying"
    (left / "layer").mkdir(parents=True)
    dying = os.open(left, os.O_RDONLY)
    fcntl.flock(dying, fcntl.LOCK_SH)
    content.clean_staging()
    assert staging(content) == [left]
    os.close(dying)
    refused(content)
    assert content.emptied(60)
    assert staging(content) == []


def test_what_waits_to_be_deleted_is_counted_once(tmp_path, held):
    content = ImageFiles(tmp_path)
    (content.writable / "t1/upper").mkdir(parents=True)
    content.leave_to_remover(content.writable / "t1")
    for _ in range(LEFTOVERS + 1):
        refused(content, files=0)
    assert not content.crowded()


@pytest.mark.parametrize("kind", ["folder", "blob"])
def test_a_sweeper_between_making_and_locking_is_survived(tmp_path, monkeypatch, kind):
    """Several processes add images: one may start just when another has made its place."""
    content, other, lock = ImageFiles(tmp_path), ImageFiles(tmp_path), fcntl.flock

    def swept_first(fd, how):
        monkeypatch.setattr(fcntl, "flock", lock)
        other.clean_staging()
        assert other.emptied(60)
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", swept_first)
    if kind == "folder":
        with content.stage() as stage:
            (stage / "file").write_text("x")
    else:
        assert content.read_blob(content.put_blob(b"whole"), 100) == b"whole"
    assert content.emptied(60)
    assert staging(content) == []
