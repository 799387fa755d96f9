"""A path on a dead network file system holds up the look at it, and nothing else."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agent.volumes import looking
from agent.volumes.binds import BindSources
from agent.volumes.looking import Looks
from agent.volumes.store import VolumeStore
from specs.stack import Mount

LONG = 60.0


class Server:
    """What answers, until it is dead."""

    def __init__(self):
        self.alive = threading.Event()
        self.alive.set()
        self.asked = []

    def look(self, sources):
        self.asked.append(list(sources))
        assert self.alive.wait(LONG)
        return dict.fromkeys(sources, "there")


@pytest.fixture
def server():
    found = Server()
    yield found
    found.alive.set()


async def test_what_hangs_is_unknown_and_asked_of_again_when_it_has_answered(server, monkeypatch):
    looks = Looks(server.look)
    assert await looks.ask(["/a"]) == {"/a": "there"}
    server.alive.clear()
    monkeypatch.setattr(looking, "PATIENCE", 0.2)
    assert await looks.ask(["/a", "/b"]) == {"/a": "unknown", "/b": "unknown"}
    monkeypatch.setattr(looking, "PATIENCE", LONG)
    async with asyncio.timeout(LONG / 2):  # at once, and no second thread
        assert await looks.ask(["/c"]) == {"/c": "unknown"}
    assert server.asked == [["/a"], ["/a", "/b"]]
    server.alive.set()
    async with asyncio.timeout(LONG):
        while (said := await looks.ask(["/c"])) != {"/c": "there"}:
            assert said == {"/c": "unknown"}
            await asyncio.sleep(0.01)


async def test_one_question_at_a_time(server, monkeypatch):
    monkeypatch.setattr(looking, "PATIENCE", LONG)
    looks = Looks(server.look)
    answers = await asyncio.gather(*(looks.ask([f"/{n}"]) for n in range(5)))
    assert answers == [{f"/{n}": "there"} for n in range(5)]


async def test_what_a_look_raises_is_raised():
    def broken(_sources):
        raise ValueError("words")

    with pytest.raises(ValueError, match="words"):
        await Looks(broken).ask(["/a"])


async def test_a_dead_path_holds_up_neither_other_tasks_nor_the_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr(BindSources, "look", lambda _, sources: server.look(sources))
    monkeypatch.setattr(
        BindSources, "source", lambda _, mount, elsewhere: server.look([mount.source])
    )
    monkeypatch.setattr(looking, "PATIENCE", 0.2)
    server.alive.clear()
    store = VolumeStore(tmp_path / "state", tmp_path / "run")
    mount = Mount(type="bind", target="/x", source="/dead")
    elsewhere = type("Assignment", (), {"elsewhere": ()})
    stuck = [
        asyncio.create_task(store._prepare(elsewhere, mount, n, tmp_path, ())) for n in range(6)
    ]
    assert await store.look(["/dead"]) == {"/dead": "unknown"}
    async with asyncio.timeout(LONG / 2):
        await store.take("t1", "web-1")
        await store.release("t1")
    server.alive.set()
    assert {bound.target for bound in await asyncio.gather(*stuck)} == {"/x"}
    server.alive.clear()
    assert await store.look(["/dead"]) == {"/dead": "unknown"}
    async with asyncio.timeout(LONG / 2):
        await asyncio.to_thread(store.close)
    assert not server.alive.is_set()
