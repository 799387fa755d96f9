"""`corral watch` on real containers: one stack, edited as a person would."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.client.errors import ClientError

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

STACK = """
services:
  web:
    build: .
    stop_grace_period: 0.1s
    volumes: ["kept:/app/src/d/kept"]
    deploy: {replicas: 2, update_config: {monitor: 0s}}
    develop:
      watch:
        - {action: sync+exec, path: ./src, target: /app/src,
           exec: {command: "sh -c 'echo called >> /app/calls'"}}
        - {action: rebuild, path: ./Dockerfile}
        - {action: sync+restart, path: ./web.conf, target: /app/web.conf}
        - {action: sync, path: ./extra, target: /made/extra, initial_sync: true}
volumes: {kept: {}}
"""
DOCKERFILE = """\
FROM busybox
COPY src /app/src
RUN chown -R 1234 /app
RUN mkdir /made && echo made in 1 > /made/in
CMD ["sh", "-c", "cat /app/web.conf > /app/read; sleep inf"]
"""


def test_what_is_edited_is_in_every_container(corral):
    files = {"src/a": "1", "src/d/b": "1", "extra/e": "1", ".dockerignore": "src/out\n"}
    corral.compose(STACK, Dockerfile=DOCKERFILE, **files)
    with watching(corral, "watch", "--quiet") as (look, told):
        tasks = edited(corral, look)
    assert "kept is mounted there on its own and stays" in told[0]
    with watching(corral, "up", "--watch") as (look, told):
        built(corral, look, tasks)
    assert "web: not rebuilt; what ran before runs on" in told[0]
    assert told[0].count("building after a change") == 2
    assert "Gracefully stopping" in told[0]
    assert not corral.processes(), "as up does, where it ends"
    left = corral.sh("ps -eo args").splitlines()
    assert not [line for line in left if "orchestrator.cli.main" in line], "a watch of its own"


@contextlib.contextmanager
def watching(corral, *words):
    watch = corral.popen(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    told = []
    try:
        yield Look(corral, watch), told
    finally:
        # as a terminal does: to all of the group, once each
        children = corral.sh(f"cat /proc/{watch.pid}/task/*/children").split()
        corral.sh(f"kill -INT {' '.join([str(watch.pid), *children])}", check=False)
        code, out, err = watch.finish()
        print(err)  # shown where the test fails
    assert code == 130, err
    assert "Traceback" not in out + err
    told.append(err)


class Look:
    """What is in the containers, read where their files are."""

    def __init__(self, corral, watch):
        self.corral = corral
        self.watch = watch

    def root(self, n):
        pid = self.corral.pid(f"web-{n}")
        return Path(f"/proc/{self.corral.host.pid}/root/proc/{pid}/root")

    def found(self, n):
        """Return what is in a container: its files' text, and whose they are."""
        assert self.watch.process.poll() is None, "it has ended"
        try:
            top = self.root(n) / "app/src"
            return {
                str(path.relative_to(top)): (path.read_text(), path.stat().st_uid)
                for path in sorted(top.rglob("*"))
                if path.is_file()
            }
        except (OSError, ValueError, IndexError, ClientError):
            return None  # it comes or goes just now

    def read(self, n, path):
        try:
            return (self.root(n) / path).read_text()
        except (OSError, ValueError, IndexError, ClientError):
            return None

    def all_have(self, what, want, replicas=(1, 2)):
        self.corral.until(what, lambda: all(self.found(n) == want for n in replicas), 120)

    def all_read(self, what, path, want, replicas=(1, 2)):
        self.corral.until(what, lambda: all(self.read(n, path) == want for n in replicas), 120)


BURST = {"a": ("2", 1234), "n/m/new": ("new", 1234)}


def folder(corral):
    return Path(f"/proc/{corral.host.pid}/root{corral.folder}")


def edited(corral, look):
    here = folder(corral)
    look.all_read("what was there before", "made/extra/e", "1")
    # a burst: changed, new in a new folder, gone, a folder gone; what is left out stays here
    (here / "src/a").write_text("2")
    (here / "src/n/m").mkdir(parents=True)
    (here / "src/n/m/new").write_text("new")
    (here / "src/out").mkdir()
    (here / "src/out/no").write_text("no")
    shutil.rmtree(here / "src/d")
    look.all_have("the burst", BURST)
    look.all_read("once called", "app/calls", "called\n")
    # a folder made again is heard as the first was, whatever number the disk gives it
    shutil.rmtree(here / "src/n")
    (here / "src/n/m").mkdir(parents=True)
    (here / "src/n/m/new").write_text("again")
    look.all_have("made again", {**BURST, "n/m/new": ("again", 1234)})
    (here / "src/n/m/new").write_text("new")
    look.all_have("heard again", BURST)
    # a container that comes later has what changed before
    corral("scale", "web=3")
    look.all_have("the third has all", BURST, (3,))
    # restarted in place, with the new file
    tasks = {row["id"] for row in corral.rows()}
    (here / "web.conf").write_text("configured\n")
    look.all_read("all have read it", "app/read", "configured\n", (1, 2, 3))
    assert {row["id"] for row in corral.rows()} == tasks
    return tasks


def built(corral, look, tasks):
    """A build that fails leaves what runs alone; the next one replaces it."""
    here = folder(corral)
    (here / "extra/e").write_text("2")
    look.all_read("it watches", "made/extra/e", "2", (1, 2, 3))
    (here / "Dockerfile").write_text(DOCKERFILE.replace("COPY src", "COPY nothing"))

    def failed():
        (row,) = corral.get("/v1/stacks")["stacks"]
        return row["status"] == "failed"

    corral.until("it failed", failed, 120)
    assert {row["id"] for row in corral.rows()} == tasks
    (here / "Dockerfile").write_text(DOCKERFILE.replace("made in 1", "made in 2"))
    look.all_read("the new image", "made/in", "made in 2\n", (1, 2, 3))
    look.all_have("with what it was made from", BURST, (1, 2, 3))
    look.all_read("and what no image has", "made/extra/e", "2", (1, 2, 3))
