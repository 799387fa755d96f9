"""What cannot work is refused or ends with a clear sentence, and leaves nothing half-made."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from orchestrator.lab.host import CHECKOUT
from tests.e2e.cluster import Cluster

pytestmark = pytest.mark.real

IDLE = """
services:
  web:
    image: IMAGE
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
"""
REGISTRY = """
version: 0.1
storage: {filesystem: {rootdirectory: /tmp/registry}}
http: {addr: "127.0.0.1:5000"}
"""
HOLD = """
import socket, sys
door = socket.socket()
door.bind(("0.0.0.0", 8090))
door.listen()
print("listening", flush=True)
sys.stdin.read()
"""


def failed_up(corral, *words, limit=300.0):
    """Run an `up` that must fail; return what it says."""
    began = time.monotonic()
    done = corral("up", "-d", *words, code=1, timeout=limit + 10)
    assert time.monotonic() - began < limit, "an error at the release's deadline is no help"
    if "app" in [row["name"] for row in corral.get("/v1/stacks")["stacks"]]:
        assert not corral.processes(), "nothing half-made runs"
    return done.stderr


@pytest.fixture
def registry(corral):
    corral.host.write("/tmp/registry.yml", REGISTRY)
    process = corral.host.popen(
        ["docker-registry", "serve", "/tmp/registry.yml"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ask = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:5000/v2/ || true"
        corral.until("the registry answers", lambda: "200" in corral.sh(ask))
        yield "127.0.0.1:5000"
    finally:
        corral.host.run(["sh", "-c", "kill -9 $(pgrep -x docker-registry)"], check=False)
        process.wait(60)
        corral.sh("rm -rf /tmp/registry /tmp/registry.yml")


def test_images_from_a_registry(corral, registry):
    corral.sh(
        "skopeo copy -q --dest-tls-verify=false "
        f"tarball:$(ls /var/cache/corral/busybox-*.tar | head -1) docker://{registry}/tools/bb:1"
    )
    corral.compose(IDLE.replace("IMAGE", f"{registry}/tools/bb:1"))
    corral("up", "-d")
    (row,) = corral.rows()
    assert row["ready"]
    corral("down")
    # What is not there is said so, with the name; nothing runs.
    corral.compose(IDLE.replace("IMAGE", f"{registry}/tools/none:7"))
    said = failed_up(corral)
    assert f"{registry}/tools/none:7" in said
    assert "not found" in said or "does not exist" in said or "no such" in said.lower()
    # A tag that is not there is another thing than a registry that is not there.
    corral.compose(IDLE.replace("IMAGE", f"{registry}/tools/bb:none"))
    assert "tools/bb:none" in failed_up(corral)
    corral("down")
    # What is here already needs no registry.
    corral.host.run(["sh", "-c", "kill -9 $(pgrep -x docker-registry)"])
    corral.compose(IDLE.replace("IMAGE", f"{registry}/tools/bb:1"))
    corral("up", "-d")


def test_a_dead_registry(corral):
    corral.compose(IDLE.replace("IMAGE", "127.0.0.1:5999/web:1"))
    said = failed_up(corral)
    assert "127.0.0.1:5999" in said
    assert "refused" in said


def test_an_unknown_registry_name(corral):
    corral.compose(IDLE.replace("IMAGE", "registry.invalid/web:1"))
    said = failed_up(corral)
    assert "registry.invalid" in said


def test_an_image_without_the_command(corral):
    corral.compose(IDLE.replace("IMAGE", "busybox").replace("[sh, -c", "[/bin/nosuch, -c"))
    said = failed_up(corral)
    assert "/bin/nosuch" in said
    assert "web-1" in said


PORT = IDLE.replace("IMAGE", "busybox") + '    ports: ["8090:80"]\n'


def test_a_port_another_stack_publishes(corral):
    corral.compose(PORT, "first")
    corral("up", "-d")
    before = corral.processes("first")
    corral.compose(PORT)
    said = failed_up(corral)
    assert "8090" in said
    assert "first" in said, "who holds it is named"
    assert corral.processes("first") == before


def test_a_port_a_process_of_the_host_holds(corral):
    listener = corral.host.popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert listener.stdout.readline() == "listening\n"
        corral.compose(PORT)
        said = failed_up(corral)
        assert "port 8090/tcp is held by a process on n1" in said
        assert "compose.yaml:6:5" in said
    finally:
        listener.communicate("", timeout=240)
    corral("up", "-d")  # at once: what the node reported before is not believed any more


def test_no_room(corral):
    corral.compose(
        IDLE.replace("IMAGE", "busybox")
        + "    deploy: {resources: {reservations: {memory: 900G}}}\n"
    )
    said = failed_up(corral, "--deadline", "2")
    assert "memory" in said
    assert "900" in said or "GiB" in said
    assert "n1" in said or "node" in said
    (row,) = corral.rows(ended=True)
    assert row["node"] == ""


def test_no_node_matches(corral):
    corral.compose(
        IDLE.replace("IMAGE", "busybox")
        + "    deploy: {placement: {constraints: [node.labels.disk == ssd]}}\n"
    )
    said = failed_up(corral, "--deadline", "2")
    assert "node.labels.disk == ssd" in said


@pytest.mark.timeout(600)
def test_a_full_disk(fresh_lab):
    (host,) = fresh_lab(1).nodes
    state = "/var/lib/corral"
    host.run(["sh", "-c", f"mkdir -p {state} && mount -t tmpfs -o size=320m none {state}"])
    host.run([sys.executable, str(CHECKOUT / "scripts/base_images.py"), "busybox"])
    corral = Cluster(host)
    corral.compose(IDLE.replace("IMAGE", "busybox"), "first")
    corral.begin()
    corral("up", "-d")
    before = corral.processes("first")
    names = [row["name"] for row in corral.get("/v1/nodes")["nodes"]]
    corral.sh(f"head -c 400m /dev/zero > {state}/filler 2>/dev/null || true")
    corral.compose(IDLE.replace("IMAGE", "busybox"))
    said = corral("up", "-d", "--deadline", "5", code=1, timeout=240).stderr
    assert "no space is left on its disk" in said
    assert "nothing was changed" in said
    assert corral.processes("first") == before, "what runs goes on"
    assert "first-web-1" in corral("-p", "first", "ps").stdout, "reading works"
    told = (
        ("-p", "first", "scale", "web=2"),
        ("-p", "first", "restart", "web"),
        ("-p", "first", "stop"),
        ("-p", "first", "down", "-v"),
        ("node", "rm", names[0]),
    )
    for words in told:
        said = corral(*words, code=1).stderr
        assert "no space is left on its disk" in said, words
        assert "nothing was changed" in said, words
        assert len(said.splitlines()) <= 3, said
    assert corral.processes("first") == before, "law: what is refused has begun nothing"
    corral.sh(f"rm {state}/filler")
    corral("-p", "first", "scale", "web=2")
    corral.until("it is scaled", lambda: len(corral.processes("first")) == 2)
    assert before.items() <= corral.processes("first").items()
    corral("-p", "first", "scale", "web=1")
    corral.until("one is left", lambda: len(corral.processes("first")) == 1)
    before = corral.processes("first")
    corral("up", "-d")
    assert [row["ready"] for row in corral.rows()] == [True]
    assert corral.processes("first") == before
    corral("down", "-v")
    corral("-p", "first", "down", "-v")
    corral("controller", "stop")
