"""A service in another one's network: what is published there reaches it, and it goes with it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.real
STACK = """
services:
  web:
    image: busybox
    command: [sleep, "434343"]
    stop_grace_period: 0s
    restart: always
    hostname: front
    extra_hosts: ["old.test:192.0.2.7"]
    ports: ["18080:80"]
    ipc: shareable
    shm_size: 8m
  side:
    image: busybox
    command: [sh, -c, "mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www"]
    stop_grace_period: 0s
    network_mode: service:web
  third:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    network_mode: service:side
  seer:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    pid: service:web
    ipc: service:web
"""


def served(corral):
    ask = "curl -sS -m 5 http://127.0.0.1:18080/ 2>/dev/null || true"
    return corral.until("the page", lambda: corral.sh(ask))


def inside(corral, name):
    """Return the network a container is in."""
    return corral.sh(f"readlink /proc/{corral.pid(name)}/ns/net")


def seen(corral):
    """Say whether who shares web's processes sees them, as the first of a namespace of two."""
    found = corral("exec", "-T", "seer", "ps", "-o", "pid,args", code=None).stdout
    return any(line.split() == ["1", "sleep", "434343"] for line in found.splitlines())


def ids(corral):
    return {row["service"]: row["id"] for row in corral.rows()}


def test_a_network_of_two_through_a_day(corral):
    corral.compose(STACK)
    corral("up", "-d")
    assert served(corral) == "front"
    assert inside(corral, "side-1") == inside(corral, "third-1") == inside(corral, "web-1")
    asked = "hostname; cat /etc/hosts /etc/resolv.conf; ip -o -4 addr show eth0; nslookup side"
    said = {
        name: corral("exec", "-T", name, "sh", "-c", asked, code=None).stdout
        for name in ("web", "side", "third")
    }
    assert said["web"] == said["side"] == said["third"]
    assert "192.0.2.7" in said["side"]
    assert corral("port", "side", "80", code=None).stdout == ""
    assert seen(corral)
    corral("exec", "-T", "web", "touch", "/dev/shm/written")
    assert corral("exec", "-T", "seer", "ls", "/dev/shm").stdout == "written\n"
    assert "8.0M" in corral("exec", "-T", "seer", "df", "-h", "/dev/shm").stdout
    namespace = "readlink /proc/self/ns/ipc"
    asked = [corral("exec", "-T", s, *namespace.split()).stdout for s in ("seer", "web", "side")]
    assert asked[0] == asked[1] != asked[2]
    assert inside(corral, "seer-1") != inside(corral, "web-1")

    # The partner ends by itself and is restarted in place: its network stays, and who serves there;
    # its processes end, and who shared them, though no policy says so, begins again beside it.
    before = corral.processes()
    corral.sh(f"kill -9 {corral.pid('web-1')}")
    corral.until("another run", lambda: corral.row("web-1")["restarts"] == 1)
    assert served(corral) == "front"
    after = corral.processes()
    ended = {ids(corral)["web"], ids(corral)["seer"]}
    assert {t: p for t, p in before.items() if t not in ended}.items() <= after.items()
    corral.until("another run of both", lambda: corral.row("seer-1")["restarts"] == 1)
    corral.until("it runs", lambda: seen(corral))
    assert corral("exec", "-T", "seer", "ls", "/dev/shm").stdout == ""

    # What is restarted by command has its dependents restarted after it, as in Compose.
    corral("restart", "web")
    assert not set(after.values()) & set(corral.processes().values())
    corral.until("it runs again", lambda: seen(corral))
    assert served(corral) == "front"

    # Another agent takes over what there is.
    before = corral.processes()
    corral.kill("agent")
    corral.until("an agent", lambda: corral.daemon("agent"))
    assert served(corral) == "front"
    assert corral.processes() == before
    corral.until("it is seen", lambda: seen(corral))

    # Another partner is another network: all of them are new.
    old = ids(corral)
    corral("up", "-d", "--force-recreate", "web")
    corral.until("the new ones", lambda: not set(old.values()) & set(ids(corral).values()))
    assert served(corral) == "front"
    assert inside(corral, "side-1") == inside(corral, "third-1") == inside(corral, "web-1")
    corral("run", "--rm", "-T", "side", "wget", "-q", "-O", "-", "http://127.0.0.1/")
