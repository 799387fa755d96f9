"""Who is away: the controller cut off, most nodes silent, an agent dead or hung on a living host.

What runs on the hosts goes on in each case, as the very same processes.
"""

from __future__ import annotations

import time

import pytest

from orchestrator.client.client import Client
from orchestrator.client.errors import NoAnswer
from tests.e2e.multi.cluster import NODES

pytestmark = pytest.mark.real
STACK = """
services:
  web:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    deploy: {replicas: 3}
  fixed:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    deploy: {replicas: 2, placement: {constraints: [node.hostname == n3]}}
"""
DOWN = 90.0  # seconds at most until a host that was cut off is down; on a busy machine
BACK = 90.0
HELD_UP = 11.0  # seconds: nodes that say nothing for 9 are given up; its host kills it after 30


def statuses(cluster) -> list[str]:
    return [cluster.nodes()[name]["status"] for name in NODES]


def all_ready(cluster) -> bool:
    return statuses(cluster) == ["ready"] * 3


def up(cluster) -> dict[str, tuple[str, int, str]]:
    cluster.compose(STACK)
    cluster("up", "-d")
    before = cluster.processes()
    assert len(before) == 5
    return before


def living(cluster, before) -> set[str]:
    """Return which of these tasks still are the processes they were, whatever is reported."""
    return {
        task
        for task, (node, pid, start) in before.items()
        if cluster.start_time(node, pid) == start
    }


def test_nothing_is_stopped_because_most_hosts_were_not_heard(cluster):
    before = up(cluster)
    fixed = {row["id"] for row in cluster.rows("fixed")}

    # One host alone: what may run elsewhere is replaced, what may not waits for a node.
    cluster.lab.cut("n3")
    cluster.until("n3 is down", lambda: statuses(cluster)[2] == "down", DOWN)
    cluster.until("replacements are pending", lambda: len(cluster.rows("fixed")) == 4)

    # A restart is done where it can be, and does not wait for the host.
    cluster.until("web is replaced", lambda: len(reached(cluster)) == 3)
    began = reached(cluster)
    cluster("restart", "web", "-t", "0")
    assert all(again > began[task] for task, again in reached(cluster).items())
    before = cluster.processes()
    cluster.lab.cut("n2")
    cluster.until("n2 is down too", lambda: statuses(cluster)[1] == "down", DOWN)
    cluster.until("nothing waits to replace", lambda: len(cluster.rows("fixed")) == 2)
    assert living(cluster, before) == set(before)

    cluster.lab.heal("n2")
    cluster.lab.heal("n3")
    cluster.until("all nodes are ready", lambda: all_ready(cluster), BACK)
    cluster.until("exactly what is wanted", lambda: exactly(cluster), BACK)
    assert {row["id"] for row in cluster.rows("fixed")} == fixed
    assert fixed <= living(cluster, before), "the same processes"


def test_a_controller_that_is_cut_off_touches_nothing(cluster):
    first = up(cluster)
    # Stopped and started on all three hosts: as many as before, where they may be.
    cluster("stop", "-t", "0")
    assert not cluster.processes()
    cluster("start")
    before = cluster.processes()
    assert len(before) == 5
    assert not set(before) & set(first), "what ended is followed by another"
    assert {row["node"] for row in cluster.ready("fixed")} == {"n3"}
    assert len(cluster.ready("web")) == 3

    cluster.lab.cut("n1")
    cluster.until("both are down", lambda: statuses(cluster)[1:] == ["down", "down"], DOWN)
    cluster.lab.heal("n1")
    cluster.until("all nodes are ready", lambda: all_ready(cluster), BACK)
    cluster.until("exactly what is wanted", lambda: exactly(cluster), BACK)
    assert cluster.processes() == before
    held_up(cluster)
    assert cluster.processes() == before


def held_up(cluster) -> None:
    """Stop the controller for longer than it waits for a silent node, and let it go on."""
    (controller,) = cluster.daemons("n1", "orchestrator")
    signal = lambda name: cluster.first.run(["kill", f"-{name}", str(controller)])  # noqa: E731
    signal("STOP")
    try:
        stopped_at = time.monotonic()
        api = Client(f"unix:///proc/{cluster.first.pid}/root/run/corral/controller.sock")
        with pytest.raises(NoAnswer, match="the controller did not answer in time"):
            api.request("GET", "/v1/nodes", timeout=1.0)
        time.sleep(max(0.0, stopped_at + HELD_UP - time.monotonic()))
    finally:
        signal("CONT")
    cluster("ps")
    cluster.until("all nodes are ready", lambda: all_ready(cluster), BACK)
    cluster.until("exactly what is wanted", lambda: exactly(cluster), BACK)


def test_a_dead_or_hung_agent_is_restarted_by_its_host_and_costs_no_container(cluster, capsys):
    before = up(cluster)

    # Dead: back within seconds.
    (agent,) = cluster.daemons("n3", "agent")
    cluster.kill(("n3", "agent"))
    took = cluster.until("a new agent", lambda: cluster.daemons("n3", "agent") not in ([], [agent]))
    took += cluster.until("n3 is ready", lambda: all_ready(cluster), BACK)
    figures = [f"killed: back after {took:.1f} s"]

    # Hung, and on another host the supervisor is killed: both are found out by their host.
    (hung,) = cluster.daemons("n3", "agent")
    cluster.host("n3").run(["kill", "-STOP", str(hung)])
    (supervisor,) = cluster.supervisors("n2")
    agents = cluster.daemons("n2", "agent")
    cluster.host("n2").run(["kill", "-9", str(supervisor)])
    took = cluster.until("another supervisor", lambda: cluster.supervisors("n2"), BACK)
    figures.append(f"supervisor: back after {took:.1f} s")
    assert cluster.daemons("n2", "agent") == agents, "it adopts what lives"
    away, said = "agent not answering, host reachable", []

    def told():  # in what is there at one moment: its host will not wait for us
        said.append((cluster.nodes()["n3"], cluster("node", "ls").stdout))
        return away in said[-1][0]["reason"] and away in said[-1][1]

    cluster.until("it is said which of the two is away", told)
    row, _ = said[-1]
    assert row["status"] == "unknown"
    assert "tasks are replaced in " in row["reason"]
    took = cluster.until(
        "the hung one is replaced", lambda: cluster.daemons("n3", "agent") not in ([], [hung]), BACK
    )
    cluster.until("all nodes are ready", lambda: all_ready(cluster), BACK)
    figures.append(f"hung: killed after {took:.1f} s more")

    # What the new supervisor adopted it restarts as the old one would have.
    cluster.kill(("n2", "agent"))
    cluster.until("n2 has an agent", lambda: cluster.daemons("n2", "agent") not in ([], agents))
    cluster.until("all nodes are ready", lambda: all_ready(cluster), BACK)
    assert cluster.processes() == before, "no container was stopped, none was replaced"
    with capsys.disabled():
        print(f"\nagents: {'; '.join(figures)}", end="")


def test_the_controllers_host_has_its_controller_again_after_a_boot(cluster):
    """Where there is no systemd, a line of rc.local starts what `controller start` started."""
    before = {task: where for task, where in up(cluster).items() if where[0] != "n1"}
    assert before
    cluster.lab.power_off("n1")
    cluster.lab.power_on("n1")
    cluster.until("a controller", lambda: cluster.supervisors("n1"))
    cluster.until("all nodes are ready", lambda: all_ready(cluster), BACK)
    cluster.until("exactly what is wanted", lambda: exactly(cluster), BACK)
    assert living(cluster, before) == set(before)


@pytest.mark.timeout(600)  # four controllers, a busy machine
def test_an_older_state_is_decided_for_all_hosts_at_once(cluster):
    """Kept from before a change; the question names who cannot be asked, and is one for all."""
    older = up(cluster)
    state, copy = "/var/lib/corral/controller", "/root/stack/copy"
    restored(cluster, f"cp -a {state} {copy}")
    cluster("scale", "web=5")
    cluster.until("they run", lambda: len(cluster.ready("web")) == 5)
    before = cluster.processes()
    assert older.items() < before.items()
    assert {node for node, _, _ in before.values()} == set(NODES)

    cluster.lab.cut("n3")
    restored(cluster, f"rm {state}/state.db*; cp -a {copy}/state.db* {state}/")
    cluster.until("a question", lambda: cluster.get("/v1/state")["behind"])
    refused = cluster("state", "adopt", code=1).stderr
    assert "n3 cannot be asked" in refused, refused
    assert "state adopt --yes" in refused, refused
    cluster.lab.heal("n3")
    cluster.until("n3 is asked", lambda: not cluster.get("/v1/state")["absent"], BACK)
    assert living(cluster, before) == set(before), "law: nothing stops before it is decided"
    cluster("state", "adopt")
    cluster.until("all nodes are ready", lambda: all_ready(cluster), BACK)
    cluster.until("all are ready", lambda: len(cluster.ready("web")) == 5)
    assert cluster.processes() == before, "law: the same processes on all hosts"
    assert sum(cluster.containers(name) for name in NODES) == len(before)

    restored(cluster, f"rm {state}/state.db*; cp -a {copy}/state.db* {state}/")
    cluster.until("a question", lambda: cluster.get("/v1/state")["behind"])
    cluster.until("all are asked", lambda: not cluster.get("/v1/state")["absent"], BACK)
    newer = set(before) - set(older)
    stops = cluster.get("/v1/state")["stops"]
    assert len(stops) == len(newer) == 2, stops
    cluster("state", "discard", "--yes")
    cluster.until("the newer ones go", lambda: living(cluster, before) == set(older), BACK)
    cluster.until("all nodes are ready", lambda: all_ready(cluster), BACK)
    assert cluster.processes() == older, "law: only what was named stops"

    # A state that is gone altogether: the nodes are found again by what their peers keep.
    ids = {name: row["id"] for name, row in cluster.nodes().items()}
    restored(cluster, f"rm {state}/state.db*")
    cluster.until("a question", lambda: cluster.get("/v1/state")["behind"])
    cluster.until("all are asked", lambda: not cluster.get("/v1/state")["absent"], BACK)
    assert living(cluster, older) == set(older), "law: an empty store ends nothing"
    said = cluster("state", "adopt").stdout
    for name in NODES[1:]:
        assert f"node {name}: known again" in said
    cluster.until("all nodes are ready", lambda: all_ready(cluster), BACK)
    cluster.until("all are ready", lambda: len(cluster.ready("web")) == 3)
    assert {name: row["id"] for name, row in cluster.nodes().items()} == ids
    assert cluster.processes() == older, "law: the same processes"
    assert sum(cluster.containers(name) for name in NODES) == len(older)


def restored(cluster, script: str) -> None:
    """Kill the controller, run the script on its host, and start it again."""
    agents = cluster.daemons("n1", "agent")
    cluster.end_controller()
    cluster.first.run(["sh", "-c", script])
    cluster.begin()
    assert cluster.daemons("n1", "agent") == agents


def reached(cluster) -> dict[str, float]:
    """Return when the copies of web began to run that are ready on nodes that answer."""
    rows = [row for row in cluster.ready("web") if row["node_status"] != "down"]
    return {row["id"]: row["started_at"] for row in rows}


def exactly(cluster) -> bool:
    """Say whether the five tasks are all there is, by the monitors too."""
    rows = cluster.rows()
    return (
        sorted(row["service"] for row in rows) == ["fixed", "fixed", "web", "web", "web"]
        and all(row["ready"] for row in rows)
        and sum(cluster.containers(node) for node in NODES) == 5
    )
