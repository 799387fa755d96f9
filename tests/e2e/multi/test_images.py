"""What was built on one node reaches the others from each other, without any registry."""

from __future__ import annotations

import json

import pytest

from specs.wire import BLOB_PORT
from tests.e2e.multi.cluster import KEY, NODES

pytestmark = pytest.mark.real
DOCKERFILE = """
FROM corral/debian-base:12
COPY word /word
CMD ["sleep", "inf"]
"""
STACK = """
services:
  built:
    build: .
    image: built-here:latest
    init: true
    deploy:
      replicas: 2
      placement:
        max_replicas_per_node: 1
        constraints: [node.labels.run == yes]
"""
# The controller's socket on another node, so that the command runs, and builds, there.
TUNNEL = """
ssh -i KEY -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ExitOnForwardFailure=yes \
  -f -N -L /tmp/controller.sock:/run/corral/controller.sock root@n1
"""


def test_a_node_that_built_and_died_is_not_needed(cluster):
    for node in ("n2", "n3"):
        cluster("node", "label", node, "run=yes")
    cluster.compose(STACK, on="n2", Dockerfile=DOCKERFILE, word="built on n2\n")
    cluster.host("n2").run(["sh", "-c", TUNNEL.replace("KEY", KEY)], timeout=90)
    try:
        said = cluster(
            "up",
            "-d",
            on="n2",
            env={"CORRAL_HOST": "unix:///tmp/controller.sock"},
            timeout=240,
        )
    finally:
        script = 'kill "$(pgrep -f "[-]L /tmp/controller.sock")"; rm -f /tmp/controller.sock'
        cluster.host("n2").run(["sh", "-c", script])
    assert "COPY word" in said.stdout + said.stderr
    assert sorted(row["node"] for row in cluster.ready("built")) == ["n2", "n3"]
    assert (has(cluster, "n1"), has(cluster, "n2")) == (False, True)

    cluster.lab.power_off("n2")
    cluster("node", "label", "n1", "run=yes")
    cluster.until(
        "n1 runs it",
        lambda: sorted(row["node"] for row in cluster.ready("built")) == ["n1", "n3"],
        120,
    )
    for row in cluster.ready("built"):
        index = row["name"].rpartition("-")[2]
        words = ("-p", "app", "exec", "-T", "--index", index, "built", "cat", "/word")
        assert cluster(*words).stdout == "built on n2\n"


def has(cluster, node):
    """Say whether a node's image store knows the image, by what lies on its disk."""
    script = "grep -rqs built-here /var/lib/corral/agent/images"
    return cluster.host(node).run(["sh", "-c", script], check=False).returncode == 0


STRANGER = """
services:
  stranger:
    image: corral/debian-base:12
    init: true
    command: [sleep, inf]
    configs: [{source: knock, target: /knock.py}]
configs: {knock: {file: ./knock.py}}
"""
KNOCK = """
import json, socket, sys
answers = {}
for address in sys.argv[3:]:
    try:
        socket.create_connection((address, int(sys.argv[1])), timeout=float(sys.argv[2])).close()
        answers[address] = "connected"
    except OSError as error:
        answers[address] = type(error).__name__
print(json.dumps(answers))
"""


def test_neither_containers_nor_strangers_reach_the_door_for_images(cluster):
    cluster.compose(STRANGER, **{"knock.py": KNOCK})
    cluster("up", "-d")
    doors = [cluster.overlay(node) for node in NODES]
    words = ("stranger", "python3", "-I", "/knock.py", str(BLOB_PORT), "1", *doors)
    answers = json.loads(cluster("exec", "-T", *words).stdout)
    assert list(answers) == doors
    assert "connected" not in answers.values(), answers
    # From a node itself the door is there: what was tried above exists.
    knock = cluster.first.run(["python3", "-I", "-", str(BLOB_PORT), "20", *doors], stdin=KNOCK)
    knock = knock.stdout
    assert set(json.loads(knock).values()) == {"connected"}
    # Who is outside and knows the way is not let in at the address, nor at the machine's own.
    under = [cluster.host(node).address.ipv4 for node in NODES]
    client = cluster.client
    for door, via in zip(doors, under, strict=True):
        client.run(["ip", "route", "add", f"{door}/32", "via", via])
    try:
        knock = client.run(["python3", "-I", "-", *words[4:], *under], stdin=KNOCK).stdout
    finally:
        for door in doors:
            client.run(["ip", "route", "del", f"{door}/32"])
    assert list(json.loads(knock)) == [*doors, *under]
    assert "connected" not in json.loads(knock).values(), knock
