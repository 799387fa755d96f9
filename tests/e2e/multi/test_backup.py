"""The controller's machine is lost: a new one, `corral restore`, and everything goes on as it was.

The steps are those of docs/backup.md. What runs on the other machines is the very same process
afterwards; what ran on the lost one runs on the new one, which has its name and its pins.
"""

from __future__ import annotations

import time

import pytest

from tests.e2e.multi.cluster import Cluster

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]  # four hosts, a busy machine

SERVICE = """
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
    init: false
    stop_grace_period: 0s
"""
SHOP = f"""
services:
  every:{SERVICE}    deploy: {{mode: global}}
  data:{SERVICE}    volumes: ["data:/data"]
    secrets: [key]
    deploy: {{placement: {{constraints: [node.hostname == n2]}}}}
  home:{SERVICE}    volumes: ["diary:/data"]
    deploy: {{placement: {{constraints: [node.labels.at == home]}}}}
volumes: {{data: {{}}, diary: {{}}}}
secrets: {{key: {{file: ./key}}}}
"""
LATER = f"services:\n  api:{SERVICE}"
WORDS = {"CORRAL_BACKUP_PASSPHRASE": "tree of words"}
FILE = "/root/b.backup"


@pytest.fixture
def lost(fresh_lab):
    """Return a cluster of n1 with the controller, n2 and n3; n4 is a machine of nobody."""
    cluster = Cluster(fresh_lab(4, client=True))
    cluster.start()
    return cluster


def carry(cluster: Cluster, source: str, target: str) -> None:
    """Take the backup to another machine."""
    cluster.host(target).write(FILE, cluster.host(source).run(["base64", FILE]).stdout)
    cluster.host(target).run(["sh", "-c", f"base64 -d {FILE} > {FILE}.new && mv {FILE}.new {FILE}"])


def others(processes: dict, *, but: str) -> dict:
    """Return the processes on all nodes but one."""
    return {task: where for task, where in processes.items() if where[0] != but}


def at(cluster: Cluster, node: str) -> dict:
    """Return the processes that are known of one node; of a new machine, those it begun."""
    return {task: where for task, where in processes(cluster).items() if where[0] == node}


def settled(cluster: Cluster, count: int) -> None:
    def well() -> bool:
        rows = cluster.rows(stack="shop")
        return len(rows) == count and all(row["ready"] for row in rows)

    cluster.until("all of it serves", well, 120)


def test_a_new_machine_takes_the_place_of_the_lost_one(lost):
    cluster = lost
    cluster("node", "label", "n1", "at=home")
    cluster.compose(SHOP, "shop", key="hunter2")
    cluster("up", "-d")
    settled(cluster, 5)
    cluster("exec", "-T", "data", "sh", "-c", "echo kept > /data/file")
    assert "0 errors" in cluster("state", "check").stdout
    cluster("backup", "--to", FILE, env=WORDS)
    assert cluster.first.run(["stat", "-c", "%a", FILE]).stdout.strip() == "600"
    assert "0 errors" in cluster("backup", "verify", FILE, env=WORDS).stdout
    before = processes(cluster)
    assert len(before) == 5

    # What must not be done is refused, and changes nothing.
    carry(cluster, "n1", "n2")
    carry(cluster, "n1", "n4")
    for host, env, words in (
        ("n1", WORDS, "runs here"),
        ("n2", WORDS, "and not n1, which had the controller"),
        ("n4", {"CORRAL_BACKUP_PASSPHRASE": "tree"}, "does not open"),
        ("n4", WORDS, "a machine answers at its address"),
    ):
        said = cluster("restore", FILE, on=host, env=env, code=1, cwd="/root").stderr
        assert words in said, said
    assert cluster.host("n4").run(["ls", "-A", "/var/lib/corral"]).stdout == ""
    assert processes(cluster) == before

    # n1 is gone for good.
    cluster.lab.power_off("n1")
    begun = time.monotonic()
    said = cluster("restore", FILE, on="n4", env=WORDS, cwd="/root").stderr
    print(f"restore took {time.monotonic() - begun:.1f} s\n{said}")
    assert "3 of 3 nodes are ready" in said
    assert "what was on n1 is not here: volume shop_diary" in said
    cluster.first = cluster.host("n4")
    # What the lost machine had is waited for: nothing begins on an empty volume by itself.
    cluster.until(
        "who needs it waits",
        lambda: "on the machine that n1 replaces" in str(cluster.rows(stack="shop")),
        120,
    )
    cluster("volume", "create", "--node", "n1", "shop_diary", on="n4", cwd="/root")
    cluster.until("n1's tasks run again", lambda: not before.items() & at(cluster, "n1").items())
    settled(cluster, 5)
    after = processes(cluster)
    assert others(after, but="n1") == others(before, but="n1"), "law: the same processes"
    assert {where[0] for where in after.values()} == {"n1", "n2", "n3"}, "by the name it had"
    assert cluster.nodes()["n1"]["labels"] == {"at": "home"}
    on4 = {"on": "n4", "cwd": "/root"}
    assert "0 errors" in cluster("state", "check", **on4).stdout
    done = cluster(
        "-p", "shop", "exec", "-T", "data", "cat", "/data/file", "/run/secrets/key", **on4
    )
    assert done.stdout == "kept\nhunter2"
    # It is a cluster like any other: the same file changes nothing, a reach across nodes works.
    cluster.host("n4").write("/root/shop/compose.yaml", SHOP)
    cluster.host("n4").write("/root/shop/key", "hunter2")
    cluster("up", "-d", on="n4", cwd="/root/shop")
    assert processes(cluster) == after

    # Then the state alone is lost, with a stack in it that the backup does not have.
    cluster("backup", "--to", FILE, "-f", env=WORDS, **on4)
    cluster.host("n4").write("/root/later/compose.yaml", LATER)
    cluster("up", "-d", on="n4", cwd="/root/later")
    (later,) = cluster.rows(stack="later")
    said = cluster("restore", FILE, env=WORDS, code=1, **on4).stderr
    assert "--force" in said
    said = cluster("restore", "--force", FILE, env=WORDS, code=1, **on4).stderr
    assert "later is not known here" in said, said
    assert "corral state adopt" in said
    assert "controller.before-" in said
    assert processes(cluster) == after, "law: nothing ends before somebody decided"
    adopted = cluster("state", "adopt", **on4).stdout
    assert "stack later: taken over" in adopted
    settled(cluster, 5)
    cluster.until(
        "later serves", lambda: [r["ready"] for r in cluster.rows(stack="later")] == [True]
    )
    assert processes(cluster) == after, "law: the same processes"
    assert cluster.rows(stack="later")[0]["id"] == later["id"]


def processes(cluster: Cluster) -> dict:
    """Return task id -> (node, pid, start time); of the controller's node pids of its machine."""
    found = {}
    for row in cluster.rows(stack="shop"):
        runs = cluster.task(row)["status"]["runs"]
        if not runs:
            continue  # it is only just placed
        run = runs[-1]
        assert run["finished_at"] is None
        found[row["id"]] = (row["node"], int(run["pid"]), run["started_at"])
    return found
