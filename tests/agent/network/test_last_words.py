"""Which sockets of a container that ended still have something to say: a table."""

from __future__ import annotations

import pytest

from agent.network.attach import left_behind

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
