"""Nodes' volumes in memory, for moves: what is asked of them can fail, and laws are held.

At no moment two nodes have a container with one of the volumes, and nobody begins on an empty one.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from orchestrator.errors import Conflict, NotFound, RequestError, Unavailable
from specs.objects import CreateVolume, MoveVolume, VolumeLook
from specs.states import FINAL
from tests.orchestrator.control.builders import project
from tests.orchestrator.control.rig import FakeAgents, Rig

NAME, MORE = "app_data", "app_more"


@dataclass
class Disks(FakeAgents):
    """Nodes' volumes as folders in memory; what is asked can fail or be held up."""

    disks: dict[str, dict[str, dict[bytes, bytes]]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    faults: dict[str, list[RequestError]] = field(default_factory=dict)  # by the call
    only: str = ""  # the volume whose calls fail; empty = all
    old: set[str] = field(default_factory=set)  # nodes of an earlier version
    full: set[str] = field(default_factory=set)
    kill_at: int = 0  # the controller dies after so many calls
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event | None = None  # transfers wait for it

    def of(self, node):
        return self.disks.setdefault(node, {})

    def _called(self, what, node, name):
        self.calls.append(f"{what} {node}")
        faults = self.faults.get(what) if self.only in ("", name) else None
        if faults:
            raise faults.pop(0) if len(faults) > 1 else faults[0]
        if self.rig.nodes[node]._session is None:
            raise Unavailable(f"node {node} is not reached")

    async def _done(self):
        """Stop here for ever where the controller is to be killed."""
        if self.kill_at and len(self.calls) >= self.kill_at:
            self.kill_at = 0
            self.killed.set()
            await asyncio.Event().wait()

    def _users(self, node):
        running = [t for t in self.rig.cluster.tasks.values() if t.node == node]
        return [t.name for t in running if t.state not in FINAL and t.service == "db"]

    async def look_at_volume(self, node, name):
        self._called("look", node, name)
        if node in self.old:
            raise NotFound("no such thing here")
        held = self.of(node)
        size = sum(len(data) for data in held.get(name, {}).values())
        return VolumeLook(
            here=name in held,
            kept=f".kept-{name}" in held,
            size=size,
            entries=len(held.get(name, {})),
            free=0 if node in self.full else 1 << 40,
        )

    async def volume_tree(self, node, name, query):
        self._called("sums" if query.get("sums") else "tree", node, name)
        if query.get("unused") and (users := self._users(node)):
            raise Conflict(f"in use by {users}")
        where = f".move-{query['draft']}" if "draft" in query else name
        if self.of(node).get(name, {}).get(b"mark") == where.encode():
            where = name
        if where not in self.of(node):
            raise NotFound(f"{where} is not on {node}")
        await self._done()
        for path, data in only(self.of(node)[where]).items():
            yield b"-" + data + b" " + path + b"\0"

    async def volume_differences(self, node, name, paths):
        wanted = [path async for piece in paths for path in piece.split(b"\0") if path]
        self._called("read", node, name)
        if self.held is not None:
            await self.held.wait()
        for path in wanted:
            yield path + b"\0" + self.of(node)[name][path] + b"\0"

    async def change_volume(self, node, method, name, rest, query=(), pieces=None):
        step = rest.rpartition("/")[2]
        what = f"{method} {'draft' if method == 'DELETE' and 'drafts' in rest else step}"
        self._called(what, node, name)
        held = self.of(node)
        sent = b"".join([piece async for piece in pieces]) if pieces is not None else b""
        draft = ".move-" + (rest.split("/")[2] if "/drafts/" in rest else "")
        if what == "PUT archive":
            words = sent.split(b"\0")[:-1]
            held.setdefault(draft, {}).update(zip(words[::2], words[1::2], strict=True))
        elif what == "POST drop":
            for path in sent.split(b"\0")[:-1]:
                held[draft].pop(path)
        elif what == "POST place":
            if held.get(name, {}).get(b"mark") != draft.encode():
                assert not held.get(name), "law: nothing is written over"
                held[name] = {**held.pop(draft), b"mark": draft.encode()}
        elif what == "DELETE draft":
            held.pop(draft, None)
            if held.get(name, {}).get(b"mark") == draft.encode():
                assert not self._users(node), "law: nobody's data goes under him"
                held.pop(name)
        elif what == "POST aside":
            assert not self._users(node)
            source, target = (f".kept-{name}", name) if query else (name, f".kept-{name}")
            if source in held:
                held[target] = held.pop(source)
        elif what == "DELETE aside":
            held.pop(f".kept-{name}", None)
        await self._done()

    async def remove_volume(self, node, name):
        await super().remove_volume(node, name)
        self.of(node).pop(name, None)


DB = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
BOTH = {"volumes": [*DB["volumes"], {"type": "volume", "source": "more", "target": "/more"}]}
FILE = {"db": DB, "top": {"volumes": {"data": {"name": NAME}}}}
DATA = {b"a": b"1", b"b": b"2"}


def data_of(name):
    """Return what a volume holds; each has something of its own."""
    return {**DATA, name.encode(): b"3"} if name != NAME else dict(DATA)


@contextlib.asynccontextmanager
async def begun(nodes=2, names=(NAME,), **services):
    """Yield a rig whose service db has the volumes on host1, and its disks."""
    rig = Rig(nodes=nodes)
    rig.agents = disks = Disks(rig)

    def watch(node, _task, _what):
        """Laws, at every start of a container."""
        for name in names:
            running = {
                at
                for at, fake in rig.nodes.items()
                for record in fake.tasks.values()
                if name in record.assignment.volumes.values() and record.state.value == "running"
            }
            assert len(running) <= 1, f"law: never two writers: {running}"
            for at in running:
                assert disks.of(at).get(name), "law: nobody begins on an empty volume"

    rig.watchers.append(watch)
    async with rig:
        for name in names:
            await rig.control.make(CreateVolume(name=name, node="host1"))
            disks.of("n1")[name] = data_of(name)
        keys = ("data", "more")
        known = {k: {"name": n, "external": True} for k, n in zip(keys, names, strict=False)}
        file = {**FILE, "db": DB if len(names) == 1 else BOTH, **services}
        await rig.up(project(**{**file, "top": {"volumes": known}}))
        await rig.deployed()
        yield rig, disks


async def ask(rig, act="move", to="host2", name=NAME, along=()):
    """Ask for something of a volume's move."""
    to = to if act == "move" else ""
    await rig.control.move(name, MoveVolume(act=act, to=to, along=tuple(along)))


def row(rig, name=NAME):
    """Return what `volume ls` shows of a volume."""
    return next(one for one in rig.control.volumes().volumes if one.name == name)


async def ended(rig, within=7200.0, names=(NAME,)):
    """Wait until nothing of a move is under way."""

    def over():
        known = [v for name in names if (v := rig.cluster.volumes.get(name)) is not None]
        return all(v.move is None and (v.kept is None or v.kept.aside) for v in known)

    await rig.until(over, within)


def only(data):
    return {key: value for key, value in data.items() if key != b"mark"}


async def at(rig, disks, node, kept_on="", names=(NAME,)):
    """Hold the end of a move against the laws."""
    await rig.until(lambda: [t.node for t in rig.ready("db")] == [node])
    for name in names:
        assert rig.cluster.volumes[name].node == node
        assert only(disks.of(node)[name]) == data_of(name)
    for other, held in disks.disks.items():
        kept = [f".kept-{name}" for name in names]
        mine = list(names) if other == node else kept if other == kept_on else []
        assert sorted(held) == sorted(mine), f"law: nothing else is left on {other}"
