"""What an agent says of its machine's routes and of the ports others hold."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from agent import facts
from agent.linux import sockets

HEAD = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def line(device, target, mask, gateway="00000000"):
    return f"{device}\t{target}\t{gateway}\t0001\t0\t0\t0\t{mask}\t0\t0\t0   \n"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (line("eth0", "00004D0A", "00FFFFFF"), ("10.77.0.0/24 eth0",)),
        (line("eth0", "00000000", "00000000", "FE004D0A"), ()),  # the default route
        (line("tun0", "0000080A", "0000FFFF", "01004D0A"), ("10.8.0.0/16 tun0",)),
        (line("cr-vxlan", "4000D20A", "C0FFFFFF"), ()),  # ours
        (line("cr-e1234567abcd", "4000D20A", "FFFFFFFF"), ()),  # ours: a container's
        (line("crc0", "00008A0A", "0000FFFF"), ("10.138.0.0/16 crc0",)),  # somebody else's
        (line("cr0", "00008A0A", "0000FFFF"), ("10.138.0.0/16 cr0",)),
        (line("cr", "00008A0A", "0000FFFF"), ("10.138.0.0/16 cr",)),
        (line("*", "0000D20A", "0000FFFF"), ()),  # ours: a pool's blackhole
        ("", ()),
    ],
)
def test_routes_are_the_machines_own(tmp_path, table, said):
    (tmp_path / "route").write_text(HEAD + table)
    assert facts.routes(tmp_path / "route") == said


def test_a_router_says_its_widest_routes_only(tmp_path):
    many = "".join(
        line("eth0", f"{n % 256:02X}{n // 256:02X}000B"[-8:].rjust(8, "0"), "FFFFFFFF")
        for n in range(2000)
    )
    wide = line("eth1", "0000080A", "0000FFFF")
    (tmp_path / "route").write_text(HEAD + many + wide)
    said = facts.routes(tmp_path / "route")
    assert len(said) < 2000
    assert "10.8.0.0/16 eth1" in said


def test_no_table_is_no_routes(tmp_path):
    assert facts.routes(tmp_path / "none") == ()


@contextlib.contextmanager
def bound(family, kind, *, listen=False, connected=False):
    """A socket, as this process may hold one; its port and inode."""
    with socket.socket(family, kind) as made:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        if listen:
            made.listen()
        if connected:
            made.connect(made.getsockname())
        yield made.getsockname()[1], str(os.fstat(made.fileno()).st_ino)


NET = Path("/proc/self/net")
HELD = [
    ("tcp", "a listener", {"listen": True}, True),
    ("tcp6", "a listener", {"listen": True}, True),
    ("tcp", "bound only", {}, False),
    ("tcp6", "bound only", {}, False),
    ("udp", "bound", {}, True),
    ("udp6", "bound", {}, True),
    ("udp", "connected", {"connected": True}, False),
    ("udp6", "connected", {"connected": True}, False),
]


@pytest.mark.parametrize("asked", ["the kernel", "/proc"])
@pytest.mark.parametrize(
    ("table", "what", "how", "held"), HELD, ids=[f"{table} {what}" for table, what, *_ in HELD]
)
def test_a_port_is_held_by_who_takes_what_anybody_sends(monkeypatch, table, what, how, held, asked):
    family = socket.AF_INET6 if table.endswith("6") else socket.AF_INET
    tcp = table.startswith("tcp")
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    protocol = socket.IPPROTO_TCP if tcp else socket.IPPROTO_UDP
    if asked == "/proc":
        monkeypatch.setattr(sockets, "_SOCK_DIAG_BY_FAMILY", 4711)  # a kernel that knows no such
    with bound(family, kind, **how) as (port, inode):
        by_kernel = asked == "the kernel"
        found = sockets.held(family, protocol) if by_kernel else facts.table_of(NET / table)
        assert ((port, inode) in found) is held
        if held:
            assert f"{port}/{table.removesuffix('6')}" in facts.listening()


def test_what_we_hold_ourselves_is_no_obstacle(monkeypatch):
    there = {
        (socket.AF_INET, socket.IPPROTO_TCP): [(80, "1"), (443, "2")],
        (socket.AF_INET6, socket.IPPROTO_TCP): [(80, "3")],
        (socket.AF_INET6, socket.IPPROTO_UDP): [(53, "4"), (443, "5")],
    }
    monkeypatch.setattr(sockets, "held", lambda *asked: there.get(asked, []))
    assert facts.listening() == ("53/udp", "80/tcp", "443/tcp", "443/udp")
    assert facts.listening(frozenset({"1", "2", "4"})) == ("80/tcp", "443/udp")
