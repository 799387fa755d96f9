"""`corral upgrade` on the real thing: whole older agents, a broken new one, an older controller.

The older release is made here, from what is installed: another version, the wire of before, one
field fewer in what it says. Whatever happens, the containers are the very same processes.
"""

from __future__ import annotations

import sys
import time
from subprocess import DEVNULL

import pytest

from orchestrator.lab.host import CHECKOUT
from specs.kit import versions

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
OLD, NOW = "0.0.9", versions.installed()
STACK = """
services:
  web:
    image: corral/debian-base:12
    command: [python3, -u, /server.py]
    init: true
    stop_grace_period: 0s
    environment: {NAME: web}
    ports: ["9095:7000/tcp"]
    volumes: ["data:/data"]
    configs: [{source: server, target: /server.py}]
    deploy: {placement: {constraints: [node.hostname == n2]}}
  every:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    stop_grace_period: 0s
    deploy: {mode: global}
configs: {server: {file: ./server.py}}
volumes: {data: {}}
"""
# In the folder of a copy: a release before ours.
AGE = f"""
mv corral-*.dist-info corral-{OLD}.dist-info
sed -i 's/^Version:.*/Version: {OLD}/' corral-{OLD}.dist-info/METADATA
sed -i 's/^PROTOCOL = [0-9]*/PROTOCOL = 1/' specs/wire.py
sed -i '/^    routes: tuple/d' specs/node.py
sed -i '/^ *routes=routes(),$/d' agent/facts.py
grep -q 'PROTOCOL = 1' specs/wire.py
! grep -q 'routes=routes' agent/facts.py
find . -name __pycache__ -exec rm -rf {{}} +
"""
OLDER_AGENT = f"""set -e
cd /opt/corral
now=$(readlink current)
rm -rf {OLD}-old
cp -a "$now" {OLD}-old
cd {OLD}-old
{AGE}
cd ..
ln -sfn {OLD}-old current
"""
# As versions before `current` was the switch: what starts it names the folder itself.
NAMES_IT = f"sed -i 's#/opt/corral/current#/opt/corral/{OLD}-old#g' /etc/rc.local"
RESTART = """
read -r pid birth </run/corral/supervisor.pid
kill "$pid"
while [ -e /run/corral/supervisor.pid ]; do sleep 0.1; done
sh -c "$(grep '# corral$' /etc/rc.local)"
"""


def shell(cluster, node: str, script: str) -> str:
    out: str = cluster.host(node).run(["sh", "-ec", script]).stdout
    return out.strip()


def older(cluster, node: str, *, named: bool = False) -> None:
    """Have a whole agent of the release before on a node."""
    shell(cluster, node, OLDER_AGENT + (NAMES_IT if named else "") + RESTART)


def has(cluster) -> dict[str, str]:
    return {name: row["version"] for name, row in cluster.nodes().items()}


def all_ready(cluster) -> bool:
    return {row["status"] for row in cluster.nodes().values()} == {"ready"}


def settle(cluster, **wanted: str) -> None:
    """Wait until nodes are ready with these versions."""
    cluster.until(
        f"ready as {wanted}",
        lambda: all_ready(cluster) and wanted.items() <= has(cluster).items(),
        90,
    )


def served(cluster) -> bool:
    """Say whether the published port answers on every node."""
    return cluster.answering([cluster.ip(name) for name in ("n1", "n2", "n3")], 9095)


@pytest.fixture
def stack(cluster):
    cluster.compose(STACK)
    cluster("up", "-d")
    cluster("exec", "-T", "web", "sh", "-c", "echo kept > /data/mark")
    return cluster


def test_whole_older_agents_are_upgraded_and_a_broken_one_is_taken_back(stack):
    cluster = stack
    before = cluster.processes()
    assert len(before) == 4
    older(cluster, "n2")
    older(cluster, "n3", named=True)
    settle(cluster, n2=OLD, n3=OLD)
    assert cluster.processes() == before
    assert f"{OLD} (older)" in cluster("node", "ls").stdout

    # Nothing is changed by asking.
    said = cluster("upgrade", "--dry-run").stderr
    assert f"n1: {NOW} already" in said
    assert f"n2: {OLD} -> {NOW}; its agent would be restarted, 2 containers that run stay" in said
    assert f"n3: {OLD} -> {NOW}; its agent would be restarted, 1 container that runs stays" in said
    assert has(cluster) == {"n1": NOW, "n2": OLD, "n3": OLD}

    # The new agent ends as soon as it starts: the former one is there again, n3 is not touched.
    new = shell(cluster, "n2", f"basename $(ls -d /opt/corral/{NOW}-*)")
    main = f"/opt/corral/{new}/agent/__main__.py"
    shell(cluster, "n2", f"cp {main} /root/kept.py; echo 'raise SystemExit(\"broken\")' > {main}")
    done = cluster("upgrade", code=1)
    assert "the new agent is no good: it ends as soon as it starts" in done.stderr
    assert f"{OLD} is in place again; not touched: n3" in done.stderr
    assert "| broken" in done.stderr
    settle(cluster, n2=OLD, n3=OLD)
    assert cluster.processes() == before

    # Mended, it does what is left.
    shell(cluster, "n2", f"cp /root/kept.py {main}; rm /root/kept.py")
    said = cluster("upgrade").stderr
    assert f"n2: {NOW} (was {OLD}); 2 containers kept running" in said
    assert f"n3: {NOW} (was {OLD}); 1 container kept running" in said
    settle(cluster, n2=NOW, n3=NOW)
    assert cluster.processes() == before
    assert "cannot read" not in cluster("node", "ls").stdout
    assert not any(row["age"] for row in cluster.nodes().values())
    cluster.until("the port answers everywhere", lambda: served(cluster), 30)
    assert cluster("exec", "-T", "web", "cat", "/data/mark").stdout == "kept\n"
    assert "n2 is not" not in cluster("logs", "web").stderr
    for node in ("n2", "n3"):
        kept = shell(cluster, node, "cd /opt/corral && ls -d [0-9]*").split()
        assert kept == [f"{OLD}-old", new], "one version back is kept"
        assert "/opt/corral/current/supervisor.py" in shell(cluster, node, "cat /etc/rc.local")
    # What was handed over by the older one can be changed by the new one.
    cluster("restart", "every", "-t", "0")
    assert "nothing to do" in cluster("upgrade").stderr


# A checkout as another release: `corral` of it is what PYTHONPATH names.
RELEASE = """set -e
rm -rf {folder}
mkdir -p {folder}
cp -r {checkout}/specs {checkout}/agent {checkout}/orchestrator {checkout}/scheduler {folder}
mkdir {folder}/corral-{version}.dist-info
printf 'Metadata-Version: 2.1\\nName: corral\\nVersion: {version}\\n' \\
  > {folder}/corral-{version}.dist-info/METADATA
"""


def release(cluster, version: str, change: str = "true") -> dict[str, str]:
    """Install another release on n1; return the environment of its commands."""
    folder = f"/root/corral-{version}"
    script = RELEASE.format(folder=folder, checkout=CHECKOUT, version=version)
    shell(cluster, "n1", f"{script}cd {folder}\n{change}\n")
    return {"PYTHONPATH": folder}


def corral(cluster, env: dict[str, str], *words: str, code: int = 0):
    """Run the ``corral`` of a release on n1."""
    argv = [sys.executable, "-m", "orchestrator.cli.main", *words]
    done = cluster.first.run(argv, env=env, cwd="/root", timeout=240, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr.replace("| Traceback", "")
    return done


@pytest.mark.slow
def test_an_older_controller_is_upgraded_and_a_broken_one_is_taken_back(stack):
    """The broken release is tried first; then ours, from an older one that ran all the time."""
    cluster = stack
    before = cluster.processes()
    old = release(cluster, OLD)
    broken = release(
        cluster, "9.0.0", "echo 'raise SystemExit(\"no such thing\")' > orchestrator/__main__.py"
    )
    cluster("controller", "stop")
    corral(cluster, old, "controller", "start")
    assert cluster.get("/v1/version")["version"] == OLD
    agent = cluster.daemons("n1", "agent")

    done = corral(cluster, broken, "upgrade", code=1)
    assert "the new controller (9.0.0) is no good: it ends as soon as it starts" in done.stderr
    assert f"{OLD} is in place again" in done.stderr
    assert "no such thing" in done.stderr
    assert cluster.get("/v1/version")["version"] == OLD
    assert cluster.daemons("n1", "agent") == agent, "no agent was touched"

    # Other nodes are newer than this controller, by now: it leaves them as they are.
    cluster.until("all nodes are ready", lambda: all_ready(cluster), 90)
    assert f"{NOW} (newer)" in cluster("node", "ls").stdout
    said = cluster("upgrade").stderr
    assert f"controller: {NOW} (was {OLD})" in said
    assert f"this machine's agent: {NOW} (was {OLD}); 1 container kept running" in said
    settle(cluster, n1=NOW, n2=NOW, n3=NOW)
    assert cluster.processes() == before
    assert cluster("exec", "-T", "web", "cat", "/data/mark").stdout == "kept\n"
    shell(cluster, "n1", "rm -rf /root/corral-*")


HITS = ("the command", "the controller", "the node's own work", "the node's power")


def hit(cluster, what: str, process) -> None:
    if what == "the command":
        process.kill()
    elif what == "the controller":
        cluster.kill(("n1", "orchestrator"))
    elif what == "the node's own work":
        for pid in cluster.daemons("n2", "agent.upgrade"):
            cluster.host("n2").run(["kill", "-9", str(pid)], check=False)
    else:
        cluster.lab.power_off("n2")
        cluster.lab.power_on("n2")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_a_node_is_old_or_new_and_the_next_one_finishes(stack, capsys):
    cluster = stack
    rounds = []
    for moment in (0.5, 1.5, 2.5, 4.0):
        for what in HITS:
            older(cluster, "n2")
            settle(cluster, n2=OLD)
            before = cluster.processes()
            argv = [sys.executable, "-m", "orchestrator.cli.main", "upgrade"]
            process = cluster.first.popen(
                argv, env={"PYTHONPATH": str(CHECKOUT)}, stdout=DEVNULL, stderr=DEVNULL
            )
            time.sleep(moment)
            hit(cluster, what, process)
            process.wait(timeout=480)
            cluster.until("a controller", lambda: cluster.get("/v1/version"), 60)
            met = has(cluster)["n2"]
            assert met in (OLD, NOW)
            cluster.until(
                "another one ends it", lambda: cluster("upgrade", code=None).returncode == 0, 300
            )
            settle(cluster, n2=NOW)
            if what == "the node's power":
                cluster.until("all run again", lambda: len(cluster.processes()) == 4, 60)
            else:
                assert cluster.processes() == before, (what, moment)
            rounds.append(f"{what} after {moment:g} s: {met}")
    cluster.until("the port answers everywhere", lambda: served(cluster), 60)
    assert cluster("exec", "-T", "web", "cat", "/data/mark").stdout == "kept\n"
    with capsys.disabled():
        print("\n" + "\n".join(rounds))
