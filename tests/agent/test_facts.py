"""What an agent says of its machine's routes."""

from __future__ import annotations

import pytest

from agent import facts

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
