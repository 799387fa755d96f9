"""What goes onto a disk is written beside the event loop: a busy disk takes its time."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from agent.identity import Identity
from agent.images.build import Builder
from agent.images.content import ImageFiles
from agent.images.peers import PeerImages
from agent.tasks.journal import Journal
from agent.tasks.writing import RecordFile
from specs.stack import BuildSpec
from specs.states import TaskState
from specs.wire import NodeSelf, ResolvedImage
from tests.agent.test_lifecycle import running
from tests.agent.test_worker import Node, named


def builder(folder):
    async def resolve(_):
        return ResolvedImage(image="x:1", digest="sha256:" + "a" * 64)

    async def hand_over(*_):
        (folder / "images/build/storage").mkdir(parents=True)

    assembly = SimpleNamespace(content=ImageFiles(folder / "images"))
    made = Builder(assembly, resolve, {}, folder / "run")
    made._hand_over = hand_over
    return made


async def what_buildah_reads(folder, _):
    await builder(folder)._prepare()


async def what_buildah_has(folder, _):
    await builder(folder)._base("x:1", BuildSpec(context="/"))


async def a_certificate(folder, _):
    images = PeerImages(ImageFiles(folder / "images"), Identity(folder / "identity"))
    await images.meet(NodeSelf(node="n", name="n", certificate="c", authority="a"), {})


async def a_record(folder, begun):
    journal = Journal(folder / "journal", folder / "tasks", folder / "run")
    begun()
    file = RecordFile(running(), journal, lambda _: None)
    file.put(file.newest.having(state=TaskState.COMPLETE), disk=True, durable=True)
    await file.written()
    journal.close()


async def instructions(folder, begun):
    node = Node(folder)
    await node.start()
    begun()
    await node.put(named("a"))
    await node.kill()


CASES = (what_buildah_reads, what_buildah_has, a_certificate, a_record, instructions)


@pytest.mark.parametrize("work", CASES)
async def test_nothing_is_synced_on_the_loop(work, tmp_path, monkeypatch):
    fsync, by = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda fd: by.append(threading.current_thread()) or fsync(fd))
    await work(tmp_path, by.clear)  # a start is nobody's to wait for
    assert by, "it is written, and onto the disk"
    late = [thread for thread in by if thread is threading.main_thread()]
    assert not late, "law: the loop waits for no disk"
