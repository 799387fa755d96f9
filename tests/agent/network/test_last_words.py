"""Which sockets of a container that ended still have something to say: a table."""

from __future__ import annotations

import pytest

from agent.network.attach import in_use, left_behind

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid"


@pytest.mark.parametrize(
    ("state", "sending", "waits"),
    [
        ("04", 4096, True),  # FIN_WAIT1
        ("09", 2, True),  # LAST_ACK
        ("0B", 70000, True),  # CLOSING
        ("04", 1, False),  # only the FIN is left
        ("04", 0, False),
        ("05", 0, False),  # FIN_WAIT2: everything was taken
        ("06", 0, False),  # TIME_WAIT
        ("0A", 128, False),  # a listener's queue length
    ],
)
def test_what_is_waited_for(state, sending, waits):
    line = (
        f"   0: 0242D20A:0050 0942D20A:C001 {state} {sending:08X}:00000000 01:00000014 00000000  0"
    )
    assert left_behind(f"{HEAD}\n{line}\n") is waits
    assert left_behind(HEAD) is False
    assert left_behind("") is False


@pytest.mark.parametrize(
    ("table", "counts", "looked_at"),
    [
        ("tcp", "sockets: used 4\nTCP: inuse 0 orphan 0 tw 9 alloc 103 mem 67\n", False),
        ("tcp", "sockets: used 4\nTCP: inuse 1 orphan 1 tw 0 alloc 103 mem 848\n", True),
        ("tcp6", "TCP6: inuse 0\nUDP6: inuse 3\n", False),
        ("tcp6", "TCP6: inuse 2\nUDP6: inuse 0\n", True),
        ("tcp", "UDP: inuse 0\n", True),  # it does not say
        ("tcp", "TCP: inuse\n", True),
        ("tcp6", None, True),
    ],
)
def test_a_table_nobody_is_in_is_not_read(tmp_path, table, counts, looked_at):
    if counts is not None:
        (tmp_path / table.replace("tcp", "sockstat")).write_text(counts)
    assert in_use(tmp_path, table) is looked_at
