"""Who has a volume, as far as anybody can say: its data is not exchanged under them."""

from __future__ import annotations

import pytest

from agent import saving
from agent.errors import NoRoom
from agent.saving import Saving
from agent.tasks.adoption import Found
from agent.tasks.holdings import Holdings, Stray
from agent.tasks.record import Record
from specs.kit.room import ARCHIVES, Room
from specs.stack import TaskSpec
from specs.wire import Assignment


def assigned(volume):
    return Assignment(
        id="t1",
        stack="app",
        service="web",
        slot=1,
        name="app-web-1",
        desired="running",
        spec=TaskSpec(image="i"),
        volumes={"data": volume},
    )


def recorded(volume):
    return Record(id="t1", state="running", assignment=assigned(volume))


@pytest.mark.parametrize(
    ("found", "uses"),
    [
        (Found(damaged="torn"), True),  # nobody knows what it mounts, and it may run
        (Found(assignment=assigned("app_data")), True),
        (Found(assignment=assigned("app_other")), False),
        (Found(record=recorded("app_data")), True),
        (Found(record=recorded("app_data"), assignment=assigned("app_other")), True),
        (Found(record=recorded("app_other")), False),
    ],
)
def test_what_could_not_be_read_may_use_it(found, uses):
    holdings = Holdings()
    holdings.strays["t1"] = Stray(found, "torn")
    told = Saving(holdings, volumes=None).users("app_data")
    assert told == (["t1 (nobody can say what it uses)"] if uses else [])


def test_what_nobody_knows_the_size_of_is_refused_before_the_disk_is_full(tmp_path, monkeypatch):
    free, seen = 1 << 30, []
    monkeypatch.setattr(saving, "measure", lambda _: Room(free - sum(seen), 2 << 30))
    spared = saving._Spared(tmp_path, lambda piece: seen.append(len(piece)))
    piece = bytes(1 << 20)

    def poured():
        for _ in range(2048):
            spared.see(piece)

    with pytest.raises(NoRoom, match="must stay free"):
        poured()
    left = free - sum(seen)
    assert ARCHIVES - saving._STRIDE <= left < ARCHIVES
