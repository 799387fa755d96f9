"""Volumes that are mounts: one for all tasks that have it, gone with the last, at whatever cut."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from agent.errors import Later, Refusal
from agent.volumes import mounted
from agent.volumes.mounted import MountedVolumes
from specs import shares
from tests.fakes.kernel_mounts import FakeMounts

MEMORY = shares.read({"type": "tmpfs", "o": "size=1m"})
NFS = shares.read({"type": "nfs", "device": "127.0.0.1:/x", "o": "nfsvers=4"})


@pytest.fixture
def kernel(monkeypatch):
    return FakeMounts(monkeypatch, mounted)


@pytest.fixture
def volumes(tmp_path, kernel):
    return MountedVolumes(tmp_path / "mounted")


def nothing(_):
    """An image without anything at the place."""


def left(volumes):
    return [str(path) for path in volumes._folder.rglob("*")]


CASES = {
    # what happens -> mounts that are there then
    "one task": ("a+x", 1),
    "one task that went": ("a+x a-", 0),
    "two tasks, one volume": ("a+x b+x", 1),
    "the first went": ("a+x b+x a-", 1),
    "both went": ("a+x b+x a- b-", 0),
    "prepared twice": ("a+x a+x a-", 0),
    "two volumes of a task": ("a+x a+y", 2),
    "both go with it": ("a+x a+y b+x a-", 1),
    "let go twice": ("a+x a- a-", 0),
    "and again": ("a+x a- b+x", 1),
    "the agent is another one in between": ("a+x ! b+x a- ! b-", 0),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mount_lives_as_long_as_a_task_has_it(case, tmp_path, kernel):
    steps, count = CASES[case]
    volumes = MountedVolumes(tmp_path / "mounted")
    for step in steps.split():
        if step == "!":
            volumes = MountedVolumes(tmp_path / "mounted")
        elif step[1] == "+":
            volumes.take(step[0], step[2], MEMORY, nothing)
        else:
            volumes.release(step[0])
    assert len(kernel.there) == count
    if not count:
        assert left(volumes) == []


def test_an_emptied_run_directory_keeps_no_task_from_ending(volumes, kernel):
    volumes._folder.rmdir()  # where nothing is mounted, it may go at any moment
    assert not volumes.of_server("a")
    volumes.release("a")
    assert volumes.tasks() == set()
    assert volumes.take("a", "x", MEMORY, nothing).is_dir()


def test_other_options_are_another_mount(volumes, kernel):
    volumes.take("a", "x", MEMORY, nothing)
    volumes.take("b", "x", shares.read({"type": "tmpfs", "o": "size=2m"}), nothing)
    assert len(kernel.there) == 2
    volumes.release("a")
    volumes.release("b")
    assert left(volumes) == []


# Where an agent is killed; the next one lets go of what tasks have that are no more.
CUTS = ("before the mount", "after the mount", "before the unmount", "after the unmount")


@pytest.mark.parametrize("cut", CUTS)
def test_nothing_is_left_whenever_the_agent_is_killed(cut, tmp_path, kernel):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    volumes = MountedVolumes(tmp_path / "mounted")
    take = lambda task: volumes.take(task, "x", MEMORY, nothing)  # noqa: E731 - named only for this
    if cut == "before the unmount":
        take("a")
    kernel.before, kernel.after = {
        "before the mount": (die, None),
        "after the mount": (None, die),
        "before the unmount": (die, None),
        "after the unmount": (None, None),
    }[cut]
    if cut == "after the unmount":
        take("a")
        kernel.after = die
    act = volumes.release if "unmount" in cut else take
    with pytest.raises(Killed):
        act("a")
    kernel.before = kernel.after = None
    again = MountedVolumes(tmp_path / "mounted")
    assert again.tasks() == {"a"}
    again.release("a")
    assert kernel.there == {}
    assert left(again) == []


def test_an_empty_one_is_filled_and_a_full_one_is_not(volumes, kernel):
    filled = []
    volumes.take("a", "x", MEMORY, lambda data: filled.append((data / "file").write_text("")))
    volumes.take("b", "x", MEMORY, filled.append)
    assert len(filled) == 1


def test_what_cannot_be_filled_leaves_nothing(volumes, kernel):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(Later, match="cannot fill volume x"):
        volumes.take("a", "x", MEMORY, full)
    assert kernel.there == {}
    assert left(volumes) == []


FAILURES = {
    errno.ENODEV: (Refusal, "modprobe nfs, or nfs-common"),
    errno.EINVAL: (Refusal, "look at o: in the file"),
    errno.EACCES: (Later, "look at its exports"),
    errno.ENOENT: (Later, "has no such share"),
    errno.ECONNREFUSED: (Later, "does not answer this node"),
    errno.ETIMEDOUT: (Later, "does not answer this node"),
    errno.EIO: (Later, "dmesg"),
}


@pytest.mark.parametrize("number", FAILURES, ids=errno.errorcode.get)
def test_a_mount_that_fails_says_what_to_do(volumes, kernel, number):
    kind, words = FAILURES[number]
    kernel.fails = number
    with pytest.raises(kind) as failed:
        volumes.take("a", "data", NFS, nothing)
    assert "cannot mount nfs 127.0.0.1:/x for volume data" in str(failed.value)
    assert words in str(failed.value)
    assert left(volumes) == []


# As Docker gives them to mount(2), which finds no server by its name: no kernel here has them.
TOLD = {
    "nfs": (
        {"type": "nfs", "device": "127.0.0.1:/x", "o": "nfsvers=4"},
        ("127.0.0.1:/x", "nfs", "addr=127.0.0.1,nfsvers=4"),
    ),
    "nfs by a name": (
        {"type": "nfs4", "device": ":/x", "o": "addr=nas.test,soft,rw"},
        (":/x", "nfs4", "addr=127.0.0.1,soft"),
    ),
    "cifs": (
        {"type": "cifs", "device": "//127.0.0.1/s", "o": "username=u,password=p=x,vers=3.0"},
        ("//127.0.0.1/s", "cifs", "ip=127.0.0.1,username=u,password=p=x,vers=3.0"),
    ),
    "cifs by a name": (
        {"type": "cifs", "device": "//nas.test/s", "o": "guest,ro"},
        ("//nas.test/s", "cifs", "ip=127.0.0.1,guest"),
    ),
}


@pytest.mark.parametrize("case", TOLD)
def test_the_kernel_gets_an_address_and_no_way_to_become_root(volumes, kernel, monkeypatch, case):
    options, told = TOLD[case]
    found = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
    monkeypatch.setattr(mounted.socket, "getaddrinfo", lambda *_, **__: [found])
    volumes.take("a", "data", shares.read(options), nothing)
    ((source, kind, flags, data),) = kernel.there.values()
    assert (source, kind, data) == told
    assert flags & (2 | 4) == 2 | 4, "nosuid, nodev"
    assert flags & 1 == ("ro" in options["o"].split(",")), "read-only where it says so"
    assert volumes.of_server("a")


def test_a_server_without_a_name_is_waited_for(volumes, kernel, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(mounted.socket, "getaddrinfo", unknown)
    nameless = shares.read({"type": "nfs", "device": "no-such-host.invalid:/x"})
    with pytest.raises(Later, match="does not find no-such-host"):
        volumes.take("a", "data", nameless, nothing)
    assert left(volumes) == []


def test_the_child_says_what_the_kernel_said(monkeypatch):
    monkeypatch.setattr(mounted, "ANSWERS", 300.0)  # an interpreter has to start for it
    with pytest.raises((FileNotFoundError, PermissionError)):
        mounted._by_child("x", "/nowhere/at/all", "tmpfs", 0, "")


def test_a_share_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(mounted, "ANSWERS", 0.1)
    monkeypatch.setattr(mounted, "_CHILD", "import time; time.sleep(3600)")
    with pytest.raises(TimeoutError):
        mounted._by_child("x", str(Path("/")), "nfs", 0, "")
