"""The command line on a machine outside the cluster, over the user's own ssh.

The lab's ``client`` is the laptop: no controller, no agent, a key that n1 knows.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.multi.cluster import Cluster

pytestmark = pytest.mark.real

FILE = """\
name: app
services:
  web:
    image: busybox
    command: ["sh", "-c", "echo hello $$GREETING; cat /run/secrets/word; sleep 600"]
    environment: {GREETING: there}
    secrets: [word]
    stop_grace_period: 0.1s
    deploy: {replicas: 3, placement: {max_replicas_per_node: 1}}
  tool:
    build: ./tool
    command: ["sh", "-c", "cat /built /conf/tool.conf; sleep 600"]
    stop_grace_period: 0.1s
    volumes: ["./conf:/conf:ro"]
secrets:
  word: {file: ./word.txt}
"""


def test_a_laptop_without_a_controller(cluster: Cluster) -> None:
    client = cluster.client
    here = f"ssh://root@{cluster.ip('n1')}"
    client.run(["mkdir", "-p", "/root/laptop"])
    client.write("/root/laptop/compose.yaml", FILE)
    client.write("/root/laptop/word.txt", "secret of the laptop\n")
    client.write("/root/laptop/tool/Dockerfile", "FROM busybox\nCOPY built /built\n")
    client.write("/root/laptop/tool/built", "built from the laptop\n")
    client.write("/root/laptop/conf/tool.conf", "configured on the laptop\n")
    cluster.folder = "/root/laptop"

    def corral(*words: str, **options):
        return cluster("-H", here, *words, on="client", **options)

    try:
        # the key of the host is confirmed by a person, once, as with ssh
        refused = corral("ls", code=1)
        assert "host key of" in refused.stderr
        assert f"ssh root@{cluster.ip('n1')}" in refused.stderr
        client.write("/root/.ssh/known_hosts", f"{cluster.ip('n1')} {cluster.first.host_key}\n")
        assert corral("node", "ls", "-q").stdout.split() == ["n1", "n2", "n3"]
        assert corral("ps").returncode == 0

        corral("up", "-d")
        found = corral("ps", "--format", "{{.Service}} {{.Node}} {{.State}}").stdout.splitlines()
        assert sorted(found) == [
            "tool n1 running",
            *(f"web {n} running" for n in ("n1", "n2", "n3")),
        ]
        # Up is a service without a check before its shell has printed.
        said = lambda name: corral("logs", "--no-log-prefix", name).stdout  # noqa: E731 - short
        secrets = lambda: said("web").count("secret of the laptop") == 3  # noqa: E731 - short
        cluster.until("three know the secret", secrets, 240)
        lines = "built from the laptop\nconfigured on the laptop\n"
        cluster.until("both files of the laptop are there", lambda: said("tool") == lines, 240)
        # a command once finds the laptop's files there, too
        done = corral("run", "--rm", "-T", "tool", "cat", "/built", "/conf/tool.conf")
        assert done.stdout == lines
        # streams: exec with an exit code and what it reads, and a log that is followed
        done = corral("exec", "-T", "web", "sh", "-c", "cat; exit 7", code=7, stdin="from here\n")
        assert done.stdout == "from here\n"
        follow = """
        corral -H $0 logs -f > /tmp/followed & p=$!
        until grep -q "hello there" /tmp/followed; do sleep 0.1; done
        kill $p; wait $p; rm /tmp/followed
        """
        client.run(["sh", "-c", follow, here], cwd="/root/laptop", check=False)
        # a name for it, and the same without a flag
        corral("context", "create", "lab", "--host", here)
        cluster("context", "use", "lab", on="client")
        assert cluster("ls", "-q", on="client").stdout == "app\n"
        corral("down")
        # so many commands were one login, which stays a while
        (control,) = client.run(["sh", "-c", "ls /root/.cache/corral-ssh/*.ctl"]).stdout.split()
        client.run(["ssh", "-S", control, "-O", "check", "n1"])
    finally:
        end = "for c in /root/.cache/corral-ssh/*.ctl; do ssh -S $c -O exit n1; done"
        client.run(["sh", "-c", end], check=False)
        left = "/root/laptop /root/.config/corral /root/.cache /root/.ssh/known_hosts"
        client.run(["sh", "-c", f"rm -rf {left}"])
        deadline = time.monotonic() + 60
        while "ssh -M" in client.run(["ps", "-eo", "args"]).stdout:
            assert time.monotonic() < deadline
            time.sleep(0.05)
