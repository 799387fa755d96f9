"""A node is drained, paused or forgotten at the very moment something is placed on it.

Law: a decision is written only if what it was decided on still is so; else it is made anew. The
task would begin there only to go, and a volume's home would be a node that takes nothing.
"""

from __future__ import annotations

import pytest

from orchestrator.store import keys
from orchestrator.store.base import Delete, Put
from orchestrator.store.memory import MemoryStore
from specs.oneoff import OneOff
from specs.task import Task
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Rig

pytestmark = pytest.mark.looptime


class Crossed(MemoryStore):
    """Another writer is faster, once: right before the first task that is placed."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.node = how, ""

    async def txn(self, compares=(), writes=()):
        placed = [node for write in writes if (node := _placed(write))]
        if placed and not self.node:
            self.node = placed[0]
            await super().txn((), (await self._change(),))
        return await super().txn(compares, writes)

    async def _change(self):
        key = keys.node(self.node)
        if self.how == "forgotten":
            return Delete(key)
        entry = await self.get(key)
        assert entry is not None
        field = (
            b'"removing":true'
            if self.how == "removed"
            else b'"availability":"%s"' % self.how.encode()
        )
        return Put(key, entry.value.replace(b"{", b"{" + field + b",", 1))


def _placed(write) -> str:
    if isinstance(write, Put) and write.key.startswith(keys.TASKS):
        return Task.model_validate_json(write.value.partition(b"\0")[2] or write.value).node or ""
    if isinstance(write, Put) and write.key.startswith(keys.ONEOFFS):
        return OneOff.model_validate_json(write.value).task.node or ""
    return ""


@pytest.mark.parametrize("how", ["drain", "pause", "removed", "forgotten"])
async def test_nothing_is_placed_on_a_node_that_is_closed_at_that_moment(how):
    store = Crossed(how)
    async with Rig(nodes=3, store=store) as rig:
        seen: list[str] = []
        rig.watchers.append(lambda node, task, what: seen.append(node.node.id))
        mount = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
        top = {"volumes": {"data": {"name": "app_data"}}}
        await rig.up(project(db={"image": "db:1", **replicas(1), **mount}, top=top))
        await rig.deployed()
        assert store.node, "the other writer was there"
        (task,) = rig.live("db")
        assert task.node != store.node
        assert rig.cluster.volumes["app_data"].node == task.node
        assert store.node not in seen, "law: it does not begin there only to go"
