"""`watch` where every container is on another node: beside the controller, and on a laptop."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from orchestrator.client.errors import ClientError
from tests.e2e.multi.test_verbs import Typed

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
STACK = """
name: app
services:
  web:
    build: .
    stop_grace_period: 0s
    deploy:
      replicas: 2
      update_config: {monitor: 0s}
      placement: {max_replicas_per_node: 1, constraints: [node.hostname != n1]}
    develop:
      watch:
        - {action: sync, path: ./src, target: /app/src}
        - {action: sync+restart, path: ./web.conf, target: /app/web.conf}
        - {action: rebuild, path: ./Dockerfile}
"""
DOCKERFILE = """\
FROM busybox
COPY src /app/src
RUN mkdir /var/else /app/src/own && touch /app/src/own/kept && ln -s /var/else /app/src/m
RUN echo made in 1 > /made
CMD ["sh", "-c", "cat /app/web.conf > /app/read; exec sleep inf"]
"""


@pytest.mark.parametrize("host", ["n1", "client"])
def test_what_is_edited_here_is_in_the_containers_of_the_other_nodes(cluster, host):
    """Synced past what cannot be, restarted, built anew; left down after `down`; Ctrl-C ends it."""
    here = f"ssh://root@{cluster.ip('n1')}"
    flags = ["-H", here] if host == "client" else []
    known = f"{cluster.ip('n1')} {cluster.first.host_key}\n"
    cluster.client.write("/root/.ssh/known_hosts", known)
    cluster.compose(STACK, on=host, Dockerfile=DOCKERFILE, **{"src/a": "1", "src/d/b": "1"})
    folder = Path(f"/proc/{cluster.host(host).pid}/root{cluster.folder}")
    watch = Typed(cluster, host, [*flags, "watch", "--quiet"])
    try:
        watch.until("Watch enabled", 240)
        edited(cluster, watch, folder)
        taken_down(cluster, watch, folder, flags, host)
        watch.begun.signal(signal.SIGINT)
        assert watch.end()[0] == 130
    finally:
        watch.close()
        print(watch.heard())  # shown where the test fails
        end = "for c in /root/.cache/corral-ssh/*.ctl; do ssh -S $c -O exit n1; done"
        cluster.client.run(["sh", "-c", end], check=False)
        cluster.client.run(["rm", "-rf", "/root/.cache", "/root/.ssh/known_hosts", "/root/stack"])
        cluster.until(
            "no login is left",
            lambda: "ssh -M" not in cluster.client.run(["ps", "-eo", "args"]).stdout,
        )


def read(cluster, path):
    """Return node -> what a container's file says there; nothing of one that comes or goes."""
    found = {}
    try:
        for node, pid, _ in cluster.processes().values():
            root = Path(f"/proc/{cluster.host(node).pid}/root/proc/{pid}/root")
            found[node] = (root / path).read_text() if (root / path).is_file() else None
    except (OSError, ClientError):
        return {}
    return found


def all_read(cluster, path, text):
    want = {"n2": text, "n3": text}
    cluster.until(f"{path} is {text!r} on both", lambda: read(cluster, path) == want, 120)


def edited(cluster, watch, folder):
    all_read(cluster, "made", "made in 1\n")
    for path, text in {"src/a": "2", "src/m/f": "2", "src/own": "2", "src/zz/new": "2"}.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    (folder / "src/d/b").unlink()
    all_read(cluster, "app/src/zz/new", "2")  # which sorts after what cannot be
    all_read(cluster, "app/src/a", "2")
    all_read(cluster, "app/src/d/b", None)
    all_read(cluster, "app/src/own/kept", "")
    all_read(cluster, "var/else/f", None)
    said = watch.until("own is a folder there and stays as it is")
    assert "m is a link there and is no folder" in said
    tasks = {row["id"] for row in cluster.rows()}
    (folder / "web.conf").write_text("configured\n")
    all_read(cluster, "app/read", "configured\n")
    assert {row["id"] for row in cluster.rows()} == tasks
    for path in ("src/m/f", "src/m", "src/own"):
        (folder / path).rmdir() if (folder / path).is_dir() else (folder / path).unlink()
    (folder / "Dockerfile").write_text(DOCKERFILE.replace("made in 1", "made in 2"))
    watch.until("web: built, and up", 240)
    all_read(cluster, "made", "made in 2\n")
    all_read(cluster, "app/src/zz/new", "2")


def taken_down(cluster, watch, folder, flags, host):
    """What somebody took down stays so; what changed meanwhile is in it once it is up again."""
    for words, why in (
        (["stop", "-t", "0"], "web is left alone: app is stopped until"),
        (["down", "-t", "0"], "web is left alone: app is down until"),
    ):
        cluster("-p", "app", *words)
        number = f"made after {words[0]}"
        (folder / "Dockerfile").write_text(DOCKERFILE.replace("made in 1", number))
        watch.until(why)
        (folder / "src/a").write_text(number)
        assert cluster.gone()
        cluster(*flags, "up", "-d", on=host)
        watch.until("web: built, and up", 240)
        all_read(cluster, "made", f"{number}\n")
        all_read(cluster, "app/src/a", number)
