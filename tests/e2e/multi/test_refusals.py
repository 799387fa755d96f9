"""Nodes that cannot join are refused in words through the command, and nothing stays on them.

The whole list of reasons is under test in tests/real/test_bootstrap.py against the parts; here
are those an operator meets at the command line of a cluster that runs.
"""

from __future__ import annotations

import pytest

from tests import leaks
from tests.e2e.multi.cluster import KEY, NODES
from tests.lab_fixtures import end_cluster

pytestmark = pytest.mark.real


@pytest.fixture
def stranger(shared, cluster):
    """A machine outside the cluster; the test must leave it as it was."""
    host = cluster.client
    before = leaks.of_host(host)
    yield host
    left = leaks.settled(lambda: leaks.of_host(host), before)
    assert not left, "left on the refused machine:\n" + "\n".join(left)
    assert set(cluster.nodes()) == set(NODES)


def refused(cluster, address, *options, host_key=None):
    """Try to add a machine; return what was said."""
    words = ["--identity", KEY, *options]
    if host_key:
        words += ["--host-key", host_key]
    done = cluster("node", "add", address, *words, code=1)
    assert "corral: " in done.stderr, done.stderr
    return done.stderr


def test_who_cannot_be_reached_safely_is_refused(cluster, stranger):
    good = stranger.fingerprint
    other = cluster.host("n2").fingerprint
    said = refused(cluster, "root@client")
    assert good in said
    assert "--host-key" in said
    said = refused(cluster, "root@client", host_key=other)
    assert good in said
    assert other in said
    cluster.first.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/tmp/wrong"])
    said = refused(cluster, "root@client", "--identity", "/tmp/wrong", host_key=good)
    cluster.first.run(["rm", "/tmp/wrong", "/tmp/wrong.pub"])
    assert "does not accept the key" in said
    stranger.run(["useradd", "-m", "plain"])
    script = (
        "mkdir -m 700 ~plain/.ssh && cp /root/.ssh/authorized_keys ~plain/.ssh/"
        " && chown -R plain: ~plain/.ssh && usermod -p '*' plain"
    )
    stranger.run(["sh", "-c", script])
    said = refused(cluster, "plain@client", host_key=good)
    # Refused while a process of the login that was tried is still ending.
    gone = ["sh", "-c", "userdel -r plain; ! getent passwd plain"]
    cluster.until("the user is gone", lambda: stranger.run(gone, check=False).returncode == 0)
    assert "sudo" in said


def test_a_machine_that_lacks_something_is_refused_with_all_it_lacks(cluster, stranger):
    stranger.run(["sh", "-ec", "mkdir /srv/away; mv /usr/bin/conmon /usr/bin/skopeo /srv/away"])
    said = refused(cluster, "root@client", host_key=stranger.fingerprint)
    stranger.run(["sh", "-ec", "mv /srv/away/* /usr/bin; rmdir /srv/away"])
    assert "conmon" in said
    assert "skopeo" in said
    assert "apt-get install" in said


def test_members_of_this_or_another_cluster_are_refused(cluster, stranger):
    before = set(cluster.nodes())
    said = refused(cluster, "root@n2", host_key=cluster.host("n2").fingerprint)
    assert "already node n2" in said
    address = cluster.ip("n3")
    said = refused(cluster, f"root@{address}", host_key=cluster.host("n3").fingerprint)
    assert "already a node of this cluster" in said
    assert set(cluster.nodes()) == before
    start = lambda: stranger.corral("controller", "start", check=False, timeout=240)  # noqa: E731
    cluster.until("a controller", lambda: start().returncode == 0, 240)
    try:
        said = refused(cluster, "root@client", host_key=stranger.fingerprint)
        assert "runs a controller of its own" in said
        cluster.until("it runs on", lambda: "ready" in stranger.corral("node", "ls").stdout)
    finally:
        end_cluster(stranger)
        stranger.run(["sh", "-c", "rm -rf /var/lib/corral/*"])
