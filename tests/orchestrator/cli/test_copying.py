"""What `cp` into containers says once it is done."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.cli.commands import cp

LOST = "shop-web-1 is stopped, and start makes it anew: only what went into a volume or a folder"


@pytest.mark.parametrize(
    ("row", "warned"),
    [
        ({"state": "running", "started_at": 1.0, "finished_at": None}, False),
        ({"state": "prepared"}, False),  # `create`: start begins this very one
        ({"state": "shutdown", "started_at": 1.0, "finished_at": 2.0}, True),
        ({"state": "complete", "started_at": 1.0, "finished_at": 2.0}, True),
        ({"state": "failed", "started_at": 1.0, "finished_at": 2.0}, True),
        ({"state": "complete", "oneoff": True}, False),  # it runs once
    ],
)
def test_what_the_next_start_throws_away_is_said(monkeypatch, capsys, row, warned):
    monkeypatch.setattr(cp, "_send", lambda *_: {"bytes": 4})
    row = {"id": "t", "name": "shop-web-1", "service": "web", **row}
    assert cp._into(SimpleNamespace(), None, [row], "file", "/tmp/file") == 0
    err = capsys.readouterr().err
    assert "shop-web-1: copied 4B to /tmp/file" in err
    assert (LOST in err) is warned
