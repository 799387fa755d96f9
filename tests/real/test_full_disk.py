"""The agent on a disk without bytes, then without inodes. What runs runs on; what goes, goes."""

from __future__ import annotations

import asyncio

import pytest

from specs.stack import RestartPolicy
from tests.real.agent_host import AgentHost, assignment, until

pytestmark = pytest.mark.real


@pytest.fixture
async def host():
    made = AgentHost()
    try:
        made.shell(
            f"mkdir {made.state} && mount -t tmpfs -o size=24m,nr_inodes=2000 s {made.state}"
        )
        await made.start()
        yield made
    finally:
        await made.stop()


async def test_a_full_disk_takes_nothing_along(host):
    reserve, journal = host.state / "agent/journal/reserve", host.state / "agent/journal/set.log"
    await host.put(*(assignment(f"t{n}", "echo said; exec sleep 1000") for n in range(5)))
    before = await host.ready(*(f"t{n}" for n in range(5)))
    until(lambda: host.shell(f"ls {reserve} 2>/dev/null | wc -l").strip() == "4", "the reserve")

    def fill() -> None:
        host.shell(f"cat /dev/zero >> {host.state}/big 2>/dev/null || true")

    fill()
    await host.says_of_its_room("MiB free")
    # By the reserve, and when that is used up as well: what goes makes room, which is taken again.
    await host.remove("t4")
    host.shell(f"rm -f {reserve}/*")
    fill()
    await host.remove("t3")
    fill()
    await host.put(assignment("t2", desired="shutdown"))
    await host.state_of("t2", "shutdown")
    assert [line.line for line in await host.logs("t1")] == ["said"]
    assert (await host.exec("t1", "echo", "inside"))[1] == "inside\n"
    # Killed while it owes what it was told, the next one is in doubt: nothing begins, nothing ends.
    fill()
    await host.put(assignment("t5"))
    assert host.shell(f"stat -c %a {journal}").strip() == "400"
    host.kill()
    fill()
    await host.start()
    after = await host.ready("t0", "t1")
    assert [s.run.pid for s in after] == [s.run.pid for s in before[:2]]
    assert not [p for p in host.processes() if "t3" in p or "t4" in p]
    await host.put()

    host.shell(f"rm {host.state}/big")
    await host.ready("t0", "t1", "t5")
    await host.says_of_its_room("")
    until(lambda: host.shell(f"stat -c %a {journal}").strip() == "600", "what was owed")

    host.shell(f"cd {host.state} && mkdir many && cd many && seq 3000 | xargs touch || true")
    await host.says_of_its_room("inodes free")
    await host.remove("t5")
    after = await host.ready("t0", "t1")
    assert [s.run.pid for s in after] == [s.run.pid for s in before[:2]]
    host.shell(f"rm -r {host.state}/many")
    await host.remove()


async def said(host, words: str) -> list[str]:
    """Return the log once it says this."""
    async with asyncio.timeout(60):
        while True:
            lines = [line.line for line in await host.logs("t0")]
            if any(words in line for line in lines):
                return lines
            await asyncio.sleep(0.3)


@pytest.mark.parametrize("ends", [False, True])
async def test_a_log_says_what_a_full_disk_did_not_take(host, ends):
    loop = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"
    never = RestartPolicy(condition="none")
    await host.put(assignment("t0", loop, restart=never))
    await host.ready("t0")
    lines = await said(host, "line 9")
    assert lines[0] == "line 1"
    host.shell(f"cat /dev/zero >> {host.state}/big 2>/dev/null || true")
    await said(host, "corral: output is being lost since")
    if ends:
        (pid,) = [s.run.pid for s in await host.ready("t0")]
        host.shell(f"kill -9 {pid}")
        await host.state_of("t0", "failed")
    host.shell(f"rm {host.state}/big")
    lines = await said(host, "of output are missing here: the node's disk took nothing")
    (gap,) = [at for at, line in enumerate(lines) if line.startswith("corral: ")]
    assert gap > 1, "what came before is there"
    async with asyncio.timeout(60):
        while not (ends or lines[gap + 1 :]):
            lines = [line.line for line in await host.logs("t0")]
    assert bool(lines[gap + 1 :]) is not ends, "law: it stands where it is missing"
