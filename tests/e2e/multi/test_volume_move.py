"""`volume move` on three hosts: a writer's data goes with it, byte for byte, whatever is killed."""

from __future__ import annotations

import re
import time

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
SLOW = 20_000  # kbit/s at which 100 MB are still being copied when the next command is there
LONG = 240.0  # seconds at most until a move is done, on a busy machine

# A writer as databases are: it appends, overwrites in place, renames; each line says its number,
# and a number is written only after the one before it is on the disk.
WRITE = (
    "trap 'exit 0' TERM; cd /data; n=$$(tail -n 1 log 2>/dev/null || echo 0);"
    " [ -e log ] || { [ ! -e /data/first ] && touch first log; };"
    " while [ -e log ]; do n=$$((n+1)); echo $$n >> log; echo $$n > new; mv new last;"
    " echo $$n | dd of=page conv=notrunc bs=16 seek=$$((n%64)) 2>/dev/null; sync; sleep 0.02; done"
)
STACK = f"""
services:
  db:
    image: busybox
    command: [sh, -c, "{WRITE}"]
    volumes: [data:/data]
    stop_grace_period: 5s
  reader:
    image: busybox
    command: [sleep, inf]
    volumes: ["data:/data:ro"]
    stop_grace_period: 0s
volumes: {{data: {{}}}}
"""
TWO = f"""
services:
  db:
    image: busybox
    command: [sh, -c, "{WRITE}"]
    volumes: [data:/data, more:/more]
    stop_grace_period: 5s
volumes: {{data: {{}}, more: {{}}}}
"""
AT = "/var/lib/corral/agent/volumes"
FILL = """
mkdir -p deep/er; echo text > file; chown 7:8 file; chmod 0640 file; ln file second
ln -s /etc/passwd link; mkfifo pipe; truncate -s 64M holes; echo end >> holes
touch -d '2001-02-03 04:05:06.789' deep/er/old; setfattr -n user.note -v x file 2>/dev/null || true
printf x > "$(printf 'new\\nline')"; head -c 30000000 /dev/urandom > large
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'
"""
SHOW = """
find . ! -type s ! -name log ! -name last ! -name page ! -name first ! -name . \
 -printf '%P %m %U %G %y %l %s %n ' -exec sh -c '
[ -f "$0" ] && [ ! -L "$0" ] && cksum < "$0" || echo' {} \\; | sort
stat -c %y deep/er/old; stat -c %b holes; getfattr -d file 2>/dev/null || true
"""


def home(cluster):
    return cluster.get("/v1/volumes/app_data")["node"]


def sh(cluster, node, command):
    return cluster.host(node).run(["sh", "-c", command]).stdout


def lines(cluster, node):
    return [int(n) for n in sh(cluster, node, f"cat {AT}/app_data/_data/log").split()]


def begun(cluster):
    cluster.compose(STACK)
    cluster("up", "-d")
    source = home(cluster)
    sh(cluster, source, f"cd {AT}/app_data/_data; {FILL}")
    cluster.until("it writes", lambda: len(lines(cluster, source)) > 5)
    target = next(node for node in ("n2", "n3", "n1") if node != source)
    return source, target


def unbroken(numbers):
    """Law: no line is lost or written twice, and the volume was never empty."""
    return numbers == list(range(1, len(numbers) + 1))


def left(cluster):
    return {
        node: sh(cluster, node, f"ls -A {AT} 2>/dev/null").split() for node in ("n1", "n2", "n3")
    }


def test_a_writer_goes_to_another_node_with_all_it_wrote(cluster):
    source, target = begun(cluster)
    before = sh(cluster, source, f"cd {AT}/app_data/_data; {SHOW}")
    assert before.count("\n") > 8
    began = time.monotonic()
    done = cluster("volume", "move", "app_data", "--to", target)
    took = time.monotonic() - began
    assert f"volume app_data is on {target}" in done.stderr, (done.stderr, took)
    assert f"{source} keeps what it was before" in done.stderr
    assert home(cluster) == target
    cluster.until("both are there", lambda: len(cluster.ready("db")) == 1)
    assert {row["node"] for row in cluster.ready("db")} == {target}
    cluster.until("the other, too", lambda: len(cluster.ready("reader")) == 1)
    assert {row["node"] for row in cluster.ready("reader")} == {target}
    assert sh(cluster, target, f"cd {AT}/app_data/_data; {SHOW}") == before
    kept = [int(n) for n in sh(cluster, source, f"cat {AT}/.kept-app_data/_data/log").split()]
    cluster.until("it writes on", lambda: len(lines(cluster, target)) > len(kept) + 3)
    now = lines(cluster, target)
    assert unbroken(now), now
    assert now[: len(kept)] == kept
    assert "keeps what it was" in cluster("volume", "ls").stdout
    refused = cluster("volume", "move", "app_data", "--to", source, code=1)
    assert "--confirm" in refused.stderr
    # Back to what the move left: what was written since stays aside, on the other one.
    cluster("volume", "move", "app_data", "--back")
    assert home(cluster) == source
    cluster.until("it writes there", lambda: len(lines(cluster, source)) > len(kept))
    assert unbroken(lines(cluster, source))
    cluster("volume", "move", "app_data", "--confirm")
    cluster.until(
        "nothing is left",
        lambda: (
            left(cluster) == {n: ["app_data"] if n == source else [] for n in ("n1", "n2", "n3")}
        ),
    )
    cluster("down", "-v")
    cluster.until("all is gone", lambda: not any(left(cluster).values()))


@pytest.mark.parametrize("when", ["copying", "closing"])
def test_the_controller_is_killed_while_it_moves(cluster, when):
    source, target = begun(cluster)
    sh(cluster, source, f"head -c 100000000 /dev/urandom > {AT}/app_data/_data/large")

    def phase():
        move = cluster.get("/v1/volumes/app_data").get("move")
        return move["phase"] if move else "done"

    if when == "copying":
        cluster.lab.slow(source, SLOW)
    try:
        cluster("volume", "move", "app_data", "--to", target, "-d")
        cluster.until(when, lambda: phase() in (when, "done"), LONG)
        cluster.kill(("n1", "orchestrator"))
    finally:
        cluster.lab.heal(source)
    cluster.until("it is done", lambda: phase() == "done", LONG)
    row = cluster.get("/v1/volumes/app_data")
    assert row["node"] == target, row
    cluster.until("it runs", lambda: [r["node"] for r in cluster.ready("db")] == [target])
    count = len(lines(cluster, target))
    cluster.until("it writes on", lambda: len(lines(cluster, target)) > count)
    assert unbroken(lines(cluster, target))
    cluster("down", "-v")
    cluster.until("all is gone", lambda: not any(left(cluster).values()))


def test_what_cannot_be_is_refused_and_what_is_taken_back_goes_on(cluster):
    source, target = begun(cluster)
    pid = cluster.ready("db")[0]["id"]
    for arguments, words in {
        ("nowhere", "--to", target): "no volume nowhere",
        ("app_data", "--to", "n9"): "no node n9",
        ("app_data", "--to", source): f"is on {source} already",
        ("app_data", "--cancel"): "is not being moved",
        ("app_data", "--confirm"): "left anything",
        ("app_data", "--back"): "left anything",
    }.items():
        done = cluster("volume", "move", *arguments, code=1)
        assert words in done.stderr, done.stderr
    cluster("node", "pause", target)
    done = cluster("volume", "move", "app_data", "--to", target, code=1)
    assert re.search(f"{target} takes nothing now", done.stderr)
    cluster("node", "activate", target)
    sh(cluster, source, f"head -c 100000000 /dev/urandom > {AT}/app_data/_data/large")
    cluster.lab.slow(source, SLOW)  # or a fast disk has it all there before the next command
    try:
        cluster("volume", "move", "app_data", "--to", target, "-d")
        cluster("volume", "move", "app_data", "--cancel")
    finally:
        cluster.lab.heal(source)
    assert home(cluster) == source
    cluster.until("nothing is left there", lambda: not left(cluster)[target])
    assert [row["id"] for row in cluster.ready("db")] == [pid], "nobody was stopped"
    assert unbroken(lines(cluster, source))
    cluster("down", "-v")


def test_two_volumes_of_a_service_go_as_one_and_come_back(cluster):
    cluster.compose(TWO)
    cluster("up", "-d")
    source = home(cluster)
    target = next(node for node in ("n2", "n3", "n1") if node != source)
    sh(cluster, source, f"echo text > {AT}/app_more/_data/file")
    cluster.until("it writes", lambda: len(lines(cluster, source)) > 5)
    refused = cluster("volume", "move", "app_more", "--to", target, code=1)
    command = f"corral volume move app_more app_data --to {target}"
    assert command in refused.stderr, refused.stderr
    done = cluster(*command.split()[1:])
    for name in ("app_data", "app_more"):
        assert f"volume {name} is on {target}" in done.stderr
        assert cluster.get(f"/v1/volumes/{name}")["node"] == target
    cluster.until("it runs", lambda: [r["node"] for r in cluster.ready("db")] == [target])
    assert sh(cluster, target, f"cat {AT}/app_more/_data/file") == "text\n"
    count = len(lines(cluster, target))
    cluster.until("it writes on", lambda: len(lines(cluster, target)) > count)
    assert unbroken(lines(cluster, target))
    back = cluster("volume", "move", "app_data", "--back")
    assert f"volume app_more is on {source}" in back.stderr, back.stderr
    cluster.until("it runs", lambda: [r["node"] for r in cluster.ready("db")] == [source])
    cluster.until("it writes there", lambda: unbroken(lines(cluster, source)))
    cluster("volume", "move", "app_data", "--confirm")
    cluster("down", "-v")
    cluster.until("all is gone", lambda: not any(left(cluster).values()))
