"""`corral cp` on real containers: both ways, running and stopped, and nothing leads out."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path

import pytest

from orchestrator.client.errors import ApiRefusal
from tests.e2e.cluster import CHECKOUT

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

STACK = """
services:
  web:
    image: busybox
    command: [sh, -c, "mkdir -p /made/deep; echo one > /made/deep/file; ln -s deep /made/link;
      ln -s /proc/1/root/etc /made/magic; ln -s /../../../../etc /made/up;
      ln -s /nowhere /made/loose; mknod /made/disk b 7 200; echo shm > /dev/shm/it; touch /ready;
      trap 'exit 0' TERM; sleep inf & wait"]
    volumes: ["data:/data", "/nameless", "ro:/ro:ro"]
    healthcheck: {test: [CMD, test, -e, /ready], interval: 0.3s}
    deploy: {replicas: 2}
  shut:
    image: busybox
    command: [sleep, inf]
    read_only: true
    stop_grace_period: 0s
volumes: {data: {}, ro: {}}
"""


HERE = "/root/copied"


@pytest.fixture
def place(corral):
    corral.sh(f"mkdir {HERE}")
    yield Path(f"/proc/{corral.host.pid}/root{HERE}")
    corral.sh(f"rm -rf {HERE}")


def test_both_ways(corral, place):
    corral.compose(STACK)
    # created: all is there but a process, and files can be put there ahead
    corral("create")
    assert not [row for row in corral.rows() if row["started_at"] is not None]
    assert "created" in corral("ps", "-a", "--format", "{{.State}}").stdout
    (place / "ahead").write_text("ahead")
    corral("cp", f"{HERE}/ahead", "web:/nameless")
    corral("start")

    def inside(script, n=1):
        return corral("exec", "-T", "--index", str(n), "web", "sh", "-c", script).stdout

    assert inside("cat /nameless/ahead", 2) == "ahead"

    # out: a folder, its contents, a file over a file, a link and what it points to, tmpfs
    corral("cp", "web:/made/deep", f"{HERE}/new")
    assert (place / "new" / "file").read_text() == "one\n"
    corral("cp", "web:/made/deep", f"{HERE}/new")
    assert (place / "new" / "deep" / "file").read_text() == "one\n"
    (place / "old").write_text("old")
    corral("cp", "web:dev/shm/it", f"{HERE}/old")
    assert (place / "old").read_text() == "shm\n"
    corral("cp", "web:/made/link", f"{HERE}/")
    assert os.readlink(place / "link") == "deep"
    corral("cp", "-L", "web:/made/link", f"{HERE}/followed")
    assert (place / "followed" / "file").read_text() == "one\n"

    # into: every replica, owned by root, a name of its own; one replica; a volume; nothing of ours
    (place / "conf").write_text("ours")
    (place / "conf").chmod(0o640)
    os.chown(place / "conf", 1234, 1234)
    done = corral("cp", f"{HERE}/conf", "web:/made/deep/renamed")
    assert done.stderr.count("copied 4B to /made/deep/renamed") == 2
    for n in (1, 2):
        assert inside("stat -c '%u %a' /made/deep/renamed; cat /made/deep/renamed", n) == (
            "0 640\nours"
        )
    corral("cp", "-a", "--index", "2", f"{HERE}/conf", "web:/data")
    assert inside("stat -c %u /data/conf", 1) == "1234\n", "the volume is both replicas'"
    corral("cp", f"{HERE}/followed/.", "web:/made/link")
    assert inside("ls /made/deep").split() == ["file", "renamed"]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as out:
        out.add(place / "conf", "a/b/conf")
    pipe = place / "pipe.tar"
    pipe.write_bytes(archive.getvalue())
    command = f"cd {corral.folder}; PYTHONPATH={CHECKOUT} {sys.executable} -m orchestrator.cli.main"
    corral.sh(f"{command} cp --index 1 - web:/made < {HERE}/pipe.tar")
    assert inside("cat /made/a/b/conf") == "ours"
    corral.sh(f"{command} cp web:/made/a/. - > {HERE}/back.tar")
    with tarfile.open(place / "back.tar") as back:
        assert sorted(back.getnames()) == [".", "./b", "./b/conf"]
    assert inside("find / -xdev -name '.corral-cp*'") == ""

    # stopped: the same files, also those in volumes
    corral("stop", "web")
    corral("cp", "web:/made/deep/renamed", f"{HERE}/late")
    assert (place / "late").read_text() == "ours"
    corral("cp", "web:/data/conf", f"{HERE}/late2")
    corral("cp", "--index", "1", f"{HERE}/conf", "web:/nameless/while-stopped")
    corral("start", "web")
    assert inside("cat /nameless/while-stopped") == "ours"
    refused(corral, place)


def refused(corral, place):
    """What is not copied, with the reason; first of all what leads out of the container."""
    tasks = {row["service"]: f"/v1/tasks/{row['id']}/archive" for row in corral.rows()}
    archive = tarfile.TarInfo("a").tobuf() + bytes(1024)
    file = {"source": "a", "directory": False, "contents": False}
    out = [
        ("web", "/made/magic/passwd", "access is denied"),
        ("web", "/made/magic/.", "access is denied"),
        ("web", "/made/up/hostname-of-the-node", "there is no"),
        ("web", "/proc/1/status", "made up by the kernel"),
        ("web", "/ready/.", "a file, not a folder"),
    ]
    into = [
        ("web", "/made/magic/planted", "access is denied"),
        ("web", "/made/loose/planted", "there is no folder"),
        ("web", "/made/none/deeper", "there is no folder /made/none"),
        ("web", "/ro/planted", "file system is read-only"),
        ("web", "/proc/planted", "made up by the kernel"),
        ("web", "/etc/hosts", "mounted there on its own"),
        ("shut", "/etc/planted", "file system is read-only"),
    ]
    wrong = {}

    def send(service, path):
        return corral.client.upload(tasks[service], lambda send: send(archive), path=path, **file)

    def fetch(service, path):
        return corral.client.download(tasks[service], path=path)

    for act, cases in ((fetch, out), (send, into)):
        for service, path, why in cases:
            with pytest.raises(ApiRefusal) as refusal:
                act(service, path)
            if why not in str(refusal.value):
                wrong[service, path] = str(refusal.value)
    assert wrong == {}, wrong
    corral("cp", "web:/made", f"{HERE}/all")
    assert not (place / "all" / "disk").exists(), "a container makes no device of this machine"
    assert corral("cp", "web:/nope", ".", code=1).stderr.startswith("corral: node ")
