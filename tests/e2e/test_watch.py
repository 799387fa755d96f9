"""`corral watch` on real containers: one stack, edited as a person would."""

from __future__ import annotations

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
    watch = corral.popen(
        "watch", "--quiet", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        edited(corral, watch)
    finally:
        watch.signal("INT")
        code, out, err = watch.finish()
        print(err)  # shown where the test fails
    assert code == 130, err
    assert "web: not rebuilt; what ran before runs on" in err
    assert "kept is mounted there on its own and stays" in err
    assert err.count("building after a change") == 2
    assert "Traceback" not in out + err


def edited(corral, watch):
    here = Path(f"/proc/{corral.host.pid}/root{corral.folder}")

    def root(n):
        return Path(f"/proc/{corral.host.pid}/root/proc/{corral.pid(f'web-{n}')}/root")

    def found(n):
        """Return what is in a container: its files' text, and whose they are."""
        assert watch.process.poll() is None, "it has ended"
        try:
            top = root(n) / "app/src"
            return {
                str(path.relative_to(top)): (path.read_text(), path.stat().st_uid)
                for path in sorted(top.rglob("*"))
                if path.is_file()
            }
        except (OSError, ValueError, IndexError, ClientError):
            return None  # it comes or goes just now

    def read(n, path):
        try:
            return (root(n) / path).read_text()
        except (OSError, ValueError, IndexError, ClientError):
            return None

    def failed():
        (row,) = corral.get("/v1/stacks")["stacks"]
        return row["status"] == "failed"

    def all_have(what, want, replicas=(1, 2)):
        corral.until(what, lambda: all(found(n) == want for n in replicas), 120)

    def all_read(what, path, want, replicas=(1, 2)):
        corral.until(what, lambda: all(read(n, path) == want for n in replicas), 120)

    all_read("what was there before", "made/extra/e", "1")
    # a burst: changed, new in a new folder, gone, a folder gone; what is left out stays here
    (here / "src/a").write_text("2")
    (here / "src/n/m").mkdir(parents=True)
    (here / "src/n/m/new").write_text("new")
    (here / "src/out").mkdir()
    (here / "src/out/no").write_text("no")
    shutil.rmtree(here / "src/d")
    burst = {"a": ("2", 1234), "n/m/new": ("new", 1234)}
    all_have("the burst", burst)
    all_read("once called", "app/calls", "called\n")
    # a container that comes later has what changed before
    corral("scale", "web=3")
    all_have("the third has all", burst, (3,))
    # restarted in place, with the new file
    tasks = {row["id"] for row in corral.rows()}
    (here / "web.conf").write_text("configured\n")
    all_read("all have read it", "app/read", "configured\n", (1, 2, 3))
    assert {row["id"] for row in corral.rows()} == tasks
    # a build that fails leaves what runs alone; the next one replaces it
    (here / "Dockerfile").write_text(DOCKERFILE.replace("COPY src", "COPY nothing"))
    corral.until("it failed", failed, 120)
    assert {row["id"] for row in corral.rows()} == tasks
    (here / "Dockerfile").write_text(DOCKERFILE.replace("made in 1", "made in 2"))
    all_read("the new image", "made/in", "made in 2\n", (1, 2, 3))
    all_have("with what it was made from", burst, (1, 2, 3))
    all_read("and what no image has", "made/extra/e", "1", (1, 2, 3))
