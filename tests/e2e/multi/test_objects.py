"""Networks, volumes, secrets and configs made by hand, used by tasks on other nodes."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.real
LISTEN = (
    "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 80, Listen => 5);"
    " while (my $c = $s->accept) { print $c qq(keeper\\n); close $c }"
)
ASK = (
    "use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr => q(keeper:80), Timeout => 5)"
    " or exit 1; print <$s>"
)
KEEPER = f"""
services:
  keeper:
    image: corral/debian-base:12
    command: [perl, -e, {json.dumps(LISTEN).replace("$", "$$")}]
    init: true
    networks: [front]
    volumes: ["data:/data", "memory:/memory"]
    secrets: [key]
    configs: [{{source: page, target: /page}}]
    deploy: {{placement: {{constraints: [node.hostname == n3]}}}}
networks:
  front: {{external: true}}
volumes:
  data: {{external: true}}
  memory: {{driver_opts: {{type: tmpfs, o: size=1m}}}}
secrets:
  key: {{external: true}}
configs:
  page: {{external: true, name: page-1}}
"""
GUEST = """
services:
  guest:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    networks: [front]
    deploy: {placement: {constraints: [node.hostname == n2]}}
networks:
  front: {external: true}
"""


def listed(cluster, kind):
    return cluster(kind, "ls", "-q").stdout.split()


def test_what_was_made_by_hand_serves_stacks_on_other_nodes_and_outlives_them(cluster):
    cluster.compose(KEEPER)
    said = cluster("up", "-d", code=1).stderr
    for line, kind in ((13, "network"), (15, "volume"), (18, "secret"), (20, "config")):
        assert f"compose.yaml:{line}:" in said, said
        assert f"external {kind}" in said
    cluster("network", "create", "--label", "team=a", "front")
    cluster("volume", "create", "data")
    cluster("secret", "create", "key", "-", stdin="deep")
    cluster("config", "create", "page-1", "-", stdin="<h1>")
    assert cluster("secret", "inspect", "-f", "{{.Name}} {{.size}}", "key").stdout == "key 4\n"
    cluster("up", "-d")
    read = cluster("exec", "-T", "keeper", "cat", "/run/secrets/key", "/page").stdout
    assert read == "deep<h1>"
    cluster("exec", "-T", "keeper", "sh", "-c", "echo kept > /data/file")
    rows = [
        json.loads(line) for line in cluster("volume", "ls", "--format", "json").stdout.splitlines()
    ]
    assert [(row["Name"], row["node"], row["stack"], row["services"]) for row in rows] == [
        ("app_memory", "n3", "app", ["app/keeper"]),
        ("data", "n3", "", ["app/keeper"]),
    ]
    assert (
        cluster("volumes", "--format", "{{.Name}} {{.node}}").stdout == "app_memory n3\ndata n3\n"
    )
    kind = cluster("exec", "-T", "keeper", "sh", "-c", "grep ' /memory ' /proc/mounts").stdout
    assert "size=1024k" in kind

    # The other stack, on a third node, finds it by its name.
    cluster.compose(GUEST, "guest")
    cluster("up", "-d")
    answer = lambda: cluster("exec", "-T", "guest", "perl", "-e", ASK, code=None).stdout  # noqa: E731
    cluster.until("the guest hears the keeper", lambda: answer() == "keeper\n")
    for kind, name in (("network", "front"), ("volume", "data"), ("secret", "key")):
        assert "in use by stack" in cluster(kind, "rm", name, code=1).stderr
    cluster("network", "prune", "-f")
    cluster("volume", "prune", "-af")
    cluster("down", "-t", "0")
    cluster("-p", "app", "down", "-v", "-t", "0")
    assert listed(cluster, "network") == ["front"]
    assert listed(cluster, "volume") == ["data"], "down -v takes no external one"
    assert "/agent/mounted/" not in cluster.host("n3").run(["cat", "/proc/mounts"]).stdout
    kept = cluster.host("n3").run(["cat", "/var/lib/corral/agent/volumes/data/_data/file"])
    assert kept.stdout == "kept\n"

    # Its node is away while the volume is removed: the data goes when it is back.
    cluster.lab.cut("n3")
    cluster.until("n3 is down", lambda: cluster.nodes()["n3"]["status"] == "down", 90)
    said = cluster("volume", "rm", "data")
    assert (said.stdout, "node n3 does not answer" in said.stderr) == ("data\n", True)
    cluster.lab.heal("n3")
    cluster.until("the volume is gone", lambda: not listed(cluster, "volume"), 120)
    folder = cluster.host("n3").run(["ls", "/var/lib/corral/agent/volumes"])
    assert folder.stdout == ""
    cluster("secret", "rm", "key")
    cluster("config", "rm", "page-1")
    assert cluster("network", "prune", "-f", "--filter", "label=team=a").stdout == "front\n"
    assert [listed(cluster, kind) for kind in ("network", "secret", "config")] == [[], [], []]
