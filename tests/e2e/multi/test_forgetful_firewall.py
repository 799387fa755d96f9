"""A stateful firewall between controller and node that forgets idle connections, without a word.

Nothing of ours is ever idle for as long as it takes: not the session, and not what goes over it
(a log nobody writes to, a command that prints nothing). One that forgets all at once (it was
restarted) eats what it does not know and lets new connections pass: that is noticed by silence.
"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.e2e.multi.cluster import CHECKOUT, NODES

pytestmark = pytest.mark.real
FORGETS = 10  # seconds; real ones take a minute and more
STACK = """
services:
  quiet:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; echo begun; while :; do sleep 0.2;
      [ -e /tmp/more ] && echo more && rm /tmp/more; done"]
    stop_grace_period: 1s
    deploy: {replicas: 1, placement: {constraints: [node.hostname == n2]}}
"""
FIREWALL = f"""
table inet forgetful {{
  set known {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout {FORGETS}s; }}
  chain in {{
    type filter hook input priority 0;
    tcp dport 22 tcp flags & (syn | ack) == syn update @known {{ ip saddr . tcp sport }} accept
    tcp dport 22 ip saddr . tcp sport @known update @known {{ ip saddr . tcp sport }} accept
    tcp dport 22 drop
  }}
}}
"""
OPTIONS = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def corral(cluster, *words):
    """Start a command of the operator."""
    argv = [sys.executable, "-m", "orchestrator.cli.main", *words]
    env = {"PYTHONPATH": str(CHECKOUT)}
    return cluster.first.popen(argv, env=env, cwd=cluster.folder, **OPTIONS)


def sessions(cluster):
    """Return the ports of the connections that the firewall of n2 knows."""
    said = cluster.host("n2").run(["nft", "list", "set", "inet", "forgetful", "known"]).stdout
    return {word for word in said.replace(",", " ").split() if word.isdigit() and int(word) > 1024}


@pytest.mark.timeout(400)
def test_nothing_is_idle_for_long_and_what_is_forgotten_is_made_anew(cluster):
    cluster.compose(STACK)
    cluster("up", "-d")
    before = cluster.processes()
    n2 = cluster.host("n2")
    n2.write("/root/firewall.nft", FIREWALL)
    n2.run(["nft", "-f", "/root/firewall.nft"])  # what there was is unknown to it
    try:
        ready = lambda: [row["status"] for row in cluster.nodes().values()] == ["ready"] * 3  # noqa: E731
        cluster.until("the session is made anew", lambda: sessions(cluster) and ready())

        logs = corral(cluster, "logs", "-f", "--no-log-prefix", "quiet")
        assert logs.stdout.readline() == "begun\n"
        patient = corral(
            cluster, "exec", "-T", "quiet", "sh", "-c", f"sleep {3 * FORGETS}; echo over"
        )
        known = sessions(cluster)
        assert patient.communicate(timeout=180)[0] == "over\n", "an idle command comes to its end"
        assert sessions(cluster) == known, "the same connections all the while"
        cluster("exec", "-T", "quiet", "touch", "/tmp/more")
        assert logs.stdout.readline() == "more\n", "an idle log goes on"

        lost = corral(cluster, "exec", "-T", "quiet", "sh", "-c", "sleep 300; echo over")
        time.sleep(1.0)
        n2.run(["nft", "flush", "set", "inet", "forgetful", "known"])
        took = cluster.until(
            "another connection", lambda: sessions(cluster) - known and ready(), 120
        )
        print(f"made anew {took:.1f} s after it was forgotten")
        out, err = lost.communicate(timeout=120)
        assert out == ""
        assert lost.returncode not in (0, None)
        assert "n2" in err or "connection" in err, err
        cluster("exec", "-T", "quiet", "touch", "/tmp/more")
        assert logs.stdout.readline() == "more\n", "a followed log goes on, nothing twice"
        assert cluster.processes() == before, "law: who is not heard for a moment is not replaced"
        assert set(cluster.nodes()) == set(NODES)
        cluster("down", "-t", "0")
        assert logs.communicate(timeout=120)[0] == "", "no line twice"
    finally:
        n2.run(["nft", "delete", "table", "inet", "forgetful"])
        n2.run(["rm", "-f", "/root/firewall.nft"])
