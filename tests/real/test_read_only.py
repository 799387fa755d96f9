"""The agent on a disk that became read-only: what runs runs on, and it says what is the matter."""

from __future__ import annotations

import pytest

from specs.stack import LogConfig
from specs.wire import UNKEPT, Instructions, NodeSelf, Objects, Stamp
from tests.real.agent_host import AgentHost, assignment

pytestmark = pytest.mark.real


@pytest.fixture
async def host():
    made = AgentHost()
    try:
        made.shell(f"mkdir {made.state} && mount -t tmpfs -o size=200m s {made.state}")
        await made.start()
        yield made
    finally:
        await made.stop()


async def told(host, epoch: int, *tasks) -> int:
    """Instruct the node as a controller of this epoch does; return the answer's status."""
    body = Instructions(
        stamp=Stamp(cluster="test", epoch=epoch, generation=host.generation + 1),
        me=NodeSelf(node="n1", name="n1"),
        put=Objects(tasks={one.id: one for one in tasks}),
    )
    async with host.client.put("/v1/instructions", data=body.encode()) as answer:
        return answer.status


async def test_a_read_only_disk_takes_nothing_along(host):
    silent = LogConfig(driver="none")  # a log that is written would keep the disk from it
    names = ("t0", "t1", "t2")
    await host.put(*(assignment(name, logging=silent) for name in names))
    before = [s.run.pid for s in await host.ready(*names)]
    host.shell(f"mount -o remount,ro {host.state}")

    assert await told(host, 2) == UNKEPT, "law: nothing of an epoch that is not durable"
    assert await told(host, 1) == UNKEPT
    await host.says_of_its_room("read-only")
    assert [s.run.pid for s in await host.ready(*names)] == before
    assert (await host.exec("t1", "echo", "inside"))[1] == "inside\n"

    # The next agent comes up there, too, and knows all of them.
    host.kill()
    await host.start()
    assert [s.run.pid for s in await host.ready(*names)] == before
    await host.says_of_its_room("read-only")
    assert await told(host, 1) == UNKEPT
    # Who crashes is started again: the records of this boot are not on that disk.
    host.shell(f"kill -9 {before[2]}")
    await host.until(
        lambda seen: (s := seen.get("t2")) and s.ready and s.run.pid != before[2], "t2"
    )

    host.shell(f"mount -o remount,rw {host.state}")
    await host.says_of_its_room("")
    assert await told(host, 2, assignment("t0", logging=silent)) == 200
    assert await told(host, 1) == 409, "law: who spoke before is not heard again"
    assert [s.run.pid for s in await host.ready("t0")] == before[:1]
    assert await told(host, 2) == 200
