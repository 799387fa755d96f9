"""Who can reach whom: other networks, other stacks, the host, its daemons, the metadata address."""

from __future__ import annotations

import ipaddress
import subprocess
import sys

import pytest

pytestmark = pytest.mark.real

SERVE = "[sh, -c, 'nc -ll -p 6379 -e cat']"
STACK = f"""
services:
  proxy:
    image: busybox
    command: {SERVE}
    networks: [front]
    ports: ["8080:6379"]
    stop_grace_period: 0s
  web:
    image: busybox
    command: {SERVE}
    networks: [front, back]
    stop_grace_period: 0s
  redis:
    image: busybox
    command: {SERVE}
    networks: [back]
    stop_grace_period: 0s
networks:
  front: {{}}
  back: {{internal: true}}
"""
OTHER = f"""
services:
  stranger:
    image: busybox
    command: {SERVE}
    stop_grace_period: 0s
"""
METADATA = "169.254.169.254"
LISTEN = """
import socket, sys
doors = []
for address in sys.argv[1:]:
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind((address, 7777))
    door.listen()
    doors.append(door)
print("listening", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def stacks(corral):
    corral.compose(OTHER, "other")
    corral("up", "-d")
    corral.compose(STACK)
    corral("up", "-d")
    corral.until("all listen", lambda: all(
        reached(corral, service, [("127.0.0.1", 6379)]) for service in ("proxy", "web", "redis")
    ))  # fmt: skip
    return corral


def reached(corral, service, targets, *, expected=()):
    """Return which (address, port) the service's container can connect to.

    What should answer has the time that the name server and the other end need on a busy machine.
    """
    script = "".join(
        f"(nc -w {60 if (address, port) in expected else 1} {address} {port} </dev/null"
        f" >/dev/null 2>&1 && echo {address} {port}) & "
        for address, port in targets
    )
    done = corral("exec", "-T", service, "sh", "-c", script + "wait", stdin="")
    return {(line.split()[0], int(line.split()[1])) for line in done.stdout.splitlines()}


def reaches(corral, service, targets, expected):
    """Hold that it connects to exactly these of the targets."""
    assert reached(corral, service, targets, expected=expected) == expected


def address(corral, service, stack="app"):
    (row,) = corral.rows(stack, service)
    return row["addresses"]


def pool(address):
    """Return the network of a stack that an address is in: they start as /26."""
    return ipaddress.ip_interface(f"{address}/26").network


def test_only_shared_networks_connect(stacks):
    corral = stacks
    (redis,) = address(corral, "redis")
    (proxy,) = address(corral, "proxy")
    (stranger,) = address(corral, "stranger", "other")
    web = address(corral, "web")
    reaches(corral, "web", [(redis, 6379), (proxy, 6379)], {(redis, 6379), (proxy, 6379)})
    everyone = [(a, 6379) for a in (redis, proxy, stranger, *web)]
    front = next(a for a in web if pool(a) == pool(proxy))
    back = next(a for a in web if a != front)
    reaches(corral, "proxy", everyone, {(proxy, 6379), (front, 6379)})
    reaches(corral, "redis", everyone, {(redis, 6379), (back, 6379)})
    # By name: neither other networks' services nor other stacks' exist; VIPs are no way round.
    for service, name in (("proxy", "redis"), ("redis", "proxy"), ("web", "stranger")):
        assert corral("exec", "-T", service, "nslookup", name, code=None).returncode != 0
    names = [("redis", 6379), ("proxy", 6379)]
    reaches(corral, "web", names, set(names))
    vip = next(
        line.split()[-1]
        for line in corral("exec", "-T", "web", "nslookup", "redis").stdout.splitlines()
        if "10.210." in line and "127.0.0.11" not in line
    )
    assert reached(corral, "proxy", [(vip, 6379)]) == set()
    # An internal network has no way out; a published port is not reached from inside it.
    host = corral.host.address.ipv4
    assert reached(corral, "redis", [(host, 8080), ("192.0.2.1", 80)]) == set()


def test_the_host_is_closed_to_containers(stacks):
    corral = stacks
    host = corral.host.address.ipv4
    overlay = corral.sh("ip -4 -o address show dev cr-vxlan | awk '{print $4}' | cut -d/ -f1")
    corral.sh(f"ip address add {METADATA}/32 dev lo")
    listener = corral.host.popen(
        [sys.executable, "-c", LISTEN, "0.0.0.0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert listener.stdout.readline() == "listening\n"
        places = [a for a in (host, overlay, "169.254.1.1", METADATA, "10.210.0.1") if a]
        assert corral.sh(f"nc -w 1 {METADATA} 7777 </dev/null && echo open") == "open"
        targets = [(a, port) for a in dict.fromkeys(places) for port in (22, 7777, 8473, 53)]
        for service in ("proxy", "redis"):
            assert reached(corral, service, targets) == set(), "no port of the host is open"
    finally:
        listener.communicate("", timeout=240)
        corral.sh(f"ip address del {METADATA}/32 dev lo")


def test_the_daemons_sockets_are_not_in_a_container(stacks):
    corral = stacks
    find = "find / -xdev -type s 2>/dev/null; find /run /var -name '*.sock' 2>/dev/null; ls /run"
    seen = corral("exec", "-T", "proxy", "sh", "-c", find).stdout
    assert "sock" not in seen
    assert "corral" not in seen
    # Abstract sockets belong to the network namespace; the container's holds none.
    unix = corral("exec", "-T", "proxy", "cat", "/proc/net/unix").stdout
    assert len(unix.splitlines()) == 1, unix
