"""Every command on a store that has no room: refused in words, nothing half done, later it works.

The disk itself being full is made in tests/e2e/test_refusals.py and tests/orchestrator/store.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.nodes.members import Nodes
from orchestrator.store.base import StoreUnavailable
from specs.states import Desired
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime
WORDS = "no space is left on its disk"


@dataclass
class Disk:
    """Between the controller and its store: full from the ``after``th transaction on."""

    rig: Rig
    left: list[str] = field(default_factory=list)
    full: bool = False
    after: int = 0
    fills_at_leave: bool = False
    room_after: float = 1e9  # seconds until there is room again

    def __post_init__(self) -> None:
        self._txn = self.rig.store.txn
        self.rig.store.txn = self

    async def __call__(self, *args: Any, **more: Any) -> Any:
        if self.full:
            if self.after <= 0:
                raise StoreUnavailable(f"writing state.db: {WORDS}")
            self.after -= 1
        return await self._txn(*args, **more)

    # What `node rm` asks the agent.
    async def leave(self, node: str) -> None:
        self.left.append(node)
        if self.fills_at_leave:
            self.full = True
            asyncio.get_running_loop().call_later(self.room_after, setattr, self, "full", False)

    def members(self) -> Nodes:
        rig = self.rig
        more = {"pool": "10.210.0.0/16", "clock": rig.clock, "rng": rig.rng}
        return Nodes(store=rig.store, cluster=rig.cluster, agents=self, **more)


async def removed(disk: Disk, name: str, *, force: bool = False) -> None:
    async for line in disk.members().remove(name, force=force):
        if line.kind == "end" and not line.ok:
            raise StoreUnavailable(f"{line.message}; {line.hint}")


NEW = project(web=replicas(2, environment={"A": "2"}))
EMPTY = {"labels": {}, "availability": "drain"}
# command -> what asks for it, and what is there some time after it worked
COMMANDS = {
    "up, another stack": (
        lambda d: d.rig.up(project(web={}), stack="other"),
        lambda rig: len(rig.ready("web", "other")) == 1,
    ),
    "up, changed": (
        lambda d: d.rig.up(NEW),
        lambda rig: {t.release for t in rig.ready("web")} == {2},
    ),
    "scale": (
        lambda d: d.rig.control.scale("app", {"web": 3}),
        lambda rig: len(rig.ready("web")) == 3,
    ),
    "restart": (
        lambda d: d.rig.restart("web"),
        lambda rig: all(t.status.restart_done == 1 for t in rig.ready("web")),
    ),
    "stop": (
        lambda d: d.rig.control.stop("app", None),
        lambda rig: not rig.live(),
    ),
    "stop, one service": (
        lambda d: d.rig.control.stop("app", None, ("web",)),
        lambda rig: not rig.live("web") and len(rig.ready("db")) == 1,
    ),
    "down": (
        lambda d: d.rig.control.remove("app", volumes=True, timeout=None),
        lambda rig: not rig.tasks() and "app" not in rig.cluster.stacks,
    ),
    "node set": (
        lambda d: d.members().update("host2", **EMPTY),
        lambda rig: rig.cluster.nodes["n2"].availability == "drain",
    ),
    "node rm": (
        lambda d: removed(d, "host2"),
        lambda rig: "n2" not in rig.cluster.nodes,
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_on_a_full_disk_is_refused_and_works_when_there_is_room(command):
    ask, there = COMMANDS[command]
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2), db={}))
        await rig.deployed()
        disk, happened = Disk(rig), []
        await asyncio.sleep(120)
        rig.watchers.append(lambda _node, task, what: happened.append(f"{task} {what}"))
        before = await rig.store.list("/")
        disk.full = True
        with pytest.raises(StoreUnavailable, match=WORDS):
            await ask(disk)
        await asyncio.sleep(30)
        after = await rig.store.list("/")
        assert (after.revision, after.entries) == (before.revision, before.entries), (
            "law: what was refused left nothing"
        )
        assert not happened, "law: nothing of it was begun"
        assert not disk.left
        assert {t.desired for t in rig.live()} == {Desired.RUNNING}
        disk.full = False
        await ask(disk)
        await rig.until(lambda: there(rig), within=120)


@pytest.mark.parametrize("after", [0, 1, 2, 4, "it left", "it left, for a while"])
async def test_a_node_that_leaves_while_the_disk_becomes_full_is_kept_or_said_to_be_gone(after):
    """It is not asked to forget us while we cannot forget it."""
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        disk, said = Disk(rig), ""
        if isinstance(after, int):
            disk.full, disk.after = True, after
        else:
            disk.fills_at_leave = True
        if after == "it left, for a while":
            disk.room_after = 10.0
        try:
            await removed(disk, "host2")
        except StoreUnavailable as exc:
            said = str(exc)
        gone = "n2" not in rig.cluster.nodes
        assert gone == (after == "it left, for a while")
        assert gone or WORDS in said
        assert bool(disk.left) == (gone or "host2 has left" in said), "law: its end is said"
        assert gone or not after or "corral node rm" in said, "law: a refusal names the way out"
        disk.full = disk.fills_at_leave = False
        if not gone:
            await removed(disk, "host2", force=bool(disk.left))
        assert "n2" not in rig.cluster.nodes
        await rig.until(lambda: len(rig.ready("web")) == 2, within=120)
