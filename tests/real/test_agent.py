"""The agent with real conmon and crun: what runs, what ends, what is left.

Laws: an exit code is true or unknown; no death of the agent touches a container; nothing
leaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import os
import re
import resource
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from agent.daemon import MOST_CALLERS
from specs.stack import Healthcheck, Limits, LogConfig, Resources, RestartPolicy
from specs.states import Desired
from specs.wire import Instructions, NodeSelf, Stamp
from tests.real.agent_host import AgentHost, assignment, until
from tests.real.agent_process import ON_THE_LOOP

pytestmark = pytest.mark.real


@pytest.fixture
async def host():
    made = AgentHost()
    try:
        await made.start()
        yield made
        if made.agent.poll() is None:
            if made.tasks:
                await made.remove()
            assert await made.left() == [], "a removed task leaves nothing"
        said = (made.base / "agent.log").read_text().splitlines()
        late = [line for line in said if line.startswith(ON_THE_LOOP)]
        assert late == [], "nothing is imported or synced on the loop of an agent that is ready"
    finally:
        await made.stop()


NEVER = RestartPolicy(condition="none")


async def test_one_off_completes_with_its_output(host):
    await host.put(assignment("t1", "echo out; echo err >&2; printf tail", restart=NEVER))
    status = await host.state_of("t1", "complete")
    assert status.run.exit_code == 0
    lines = await host.logs("t1")
    assert sorted((line.stream, line.line) for line in lines) == [
        ("stderr", "err"),
        ("stdout", "out"),
        ("stdout", "tail"),
    ]
    assert [line.line for line in await host.logs("t1", tail="1")] == [lines[-1].line]


async def test_failure_tells_code_and_last_lines(host):
    await host.put(assignment("t1", "echo why it failed; exit 7", restart=NEVER))
    status = await host.state_of("t1", "failed")
    assert status.run.exit_code == 7
    assert status.log_tail == ("why it failed",)
    assert "exited with 7" in status.reason


async def test_a_missing_command_is_rejected_in_words(host):
    await host.put(assignment("t1", command=("/bin/nosuch",)))
    status = await host.state_of("t1", "rejected")
    assert "/bin/nosuch" in status.reason
    assert "not found" in status.reason


def covered(host) -> set[str]:
    """Return the task directories that the runtime made in the spawner's covered hierarchy."""
    found = set()
    for thread in Path(f"/proc/{host.agent.pid}/task").iterdir():
        folder = thread / "root/sys/fs/cgroup/unified" / host.cgroup
        if folder.is_dir():
            found |= {path.name for path in folder.iterdir()}
    return found


async def test_the_cover_over_the_unified_hierarchy_does_not_fill_up(host):
    await host.put(assignment("t1"), assignment("t2"))
    await host.ready("t1", "t2")
    hybrid = Path("/sys/fs/cgroup/unified").is_mount()
    assert covered(host) == ({"t1", "t2"} if hybrid else set())
    await host.remove("t1")
    assert covered(host) <= {"t2"}
    _, out, _ = await host.exec("t2", "echo", "still there")
    assert out == "still there\n"
    await host.remove("t2")
    assert covered(host) == set()


async def test_crash_is_restarted_in_place_with_backoff(host):
    script = "echo x >> /tmp/runs; echo run $(wc -l < /tmp/runs); exit 1"
    await host.put(assignment("t1", script, local_restarts=3))
    status = await host.state_of("t1", "failed")
    assert status.restarts == 3
    lines = [line.line for line in await host.logs("t1")]
    assert lines == ["run 1", "run 2", "run 3", "run 4"], "the writable layer survives restarts"
    starts = [run.started_at for run in status.runs]
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert all(g >= w for g, w in zip(gaps, (0.1, 0.2, 0.4), strict=True)), "back-off doubles"


async def test_sigkill_of_the_process_is_137_and_restarted(host):
    await host.put(assignment("t1"))
    (status,) = await host.ready("t1")
    os.kill(status.run.pid, signal.SIGKILL)
    again = await host.until(
        lambda seen: seen["t1"].ready and seen["t1"].run.number == 2 and seen["t1"], "second run"
    )
    assert again.runs[0].exit_code == 137


async def test_a_lost_monitor_is_noticed_and_the_exit_is_unknown(host):
    await host.put(assignment("t1"))
    (status,) = await host.ready("t1")
    monitor = int((host.run / "agent/tasks/t1/conmon.pid").read_text())
    began = time.monotonic()
    os.kill(monitor, signal.SIGKILL)
    again = await host.until(
        lambda seen: seen["t1"].ready and seen["t1"].run.number == 2 and seen["t1"], "second run"
    )
    assert time.monotonic() - began < 60.0
    assert again.runs[0].exit_code is None
    assert "monitor" in again.runs[0].reason
    assert _gone(status.run.pid)


def _gone(pid: int) -> bool:
    """Say whether a process has ended, fetched by its parent or not yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_agent_death_keeps_every_pid_and_finds_what_ended(host):
    tasks = [f"t{i}" for i in range(6)]
    await host.put(*(assignment(t) for t in tasks))
    pids = {t: s.run.pid for t, s in zip(tasks, await host.ready(*tasks), strict=True)}
    host.kill()
    os.kill(pids["t5"], signal.SIGTERM)
    host.shell(f"kill -KILL {pids['t4']}")
    until(lambda: _gone(pids["t4"]), "its end")
    began = time.monotonic()
    await host.start()
    status = await host.until(
        lambda seen: (
            len(seen) == 6
            and all(s.ready for s in seen.values())
            and seen["t4"].run.number == 2
            and dict(seen)
        ),
        "adoption",
    )
    assert time.monotonic() - began < 60.0
    for task in tasks[:4]:
        assert status[task].run.pid == pids[task], "an adopted container keeps its pid"
        assert status[task].run.number == 1
    assert status["t4"].runs[0].exit_code == 137, "what ended meanwhile has its true exit code"


async def test_sigterm_stops_the_daemon_only(host):
    await host.put(assignment("t1"))
    (status,) = await host.ready("t1")
    host.kill(signal.SIGTERM)
    assert host.agent.returncode == 0
    assert Path(f"/proc/{status.run.pid}").exists()
    await host.start()
    (again,) = await host.ready("t1")
    assert again.run.pid == status.run.pid


@pytest.mark.parametrize("seed", range(3))
async def test_agent_killed_at_any_moment_converges(host, seed):
    tasks = [f"t{i}" for i in range(8)]
    for round_number in range(2):
        await host.put(*(assignment(t) for t in tasks))
        await asyncio.sleep((seed * 3 + round_number) * 0.017)
        host.kill()
        await host.start()
        found = await host.ready(*tasks)
        assert all(s.run.number == 1 for s in found), "a half-made run is finished or undone"
        removing = (assignment(t, desired="removed", grace=0.0) for t in tasks)
        await host.put(*removing)
        await asyncio.sleep((seed * 3 + round_number) * 0.011)
        host.kill()
        await host.start()
        await host.erased(*tasks)
        await host.put(remove=tuple(tasks))
        assert await host.left() == [], "killed while removing: still nothing is left"
        tasks = [f"{t}{round_number}" for t in tasks]


async def test_a_reboot_cleans_up_and_starts_what_should_run(host):
    await host.put(
        assignment("t1"),
        assignment("t2", "exit 0", restart=NEVER),
        assignment("t3", restart=NEVER),
        assignment("t4", restart=NEVER, on_reboot="keep"),
    )
    await host.ready("t1", "t3", "t4")
    await host.state_of("t2", "complete")
    host.kill()
    boot = host.base / "boot_id"
    boot.write_text("00000000-1111-2222-3333-444444444444\n")
    host.shell(f"mount --bind {boot} /proc/sys/kernel/random/boot_id")
    for status in (host.seen["t1"], host.seen["t3"], host.seen["t4"]):
        os.kill(status.run.pid, signal.SIGKILL)
    killed = [int(line.split()[0]) for line in host.processes()]
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):  # a monitor ends with what it watches
            os.kill(pid, signal.SIGKILL)
    until(lambda: all(map(_gone, killed)), "their ends")
    # A tmpfs is empty after a reboot, and nothing is mounted.
    host.shell(f"umount -l {host.run}/agent; rm -rf {host.run}/agent; umount -l {host.state}/agent")
    await host.start()
    await host.until(
        lambda seen: all(seen[t].ready and seen[t].run.number == 2 for t in ("t1", "t3")),
        "they run again, whatever their policy",
    )
    assert host.seen["t1"].runs[0].exit_code is None
    assert host.seen["t2"].state == "complete", "a finished one-off is not run again"
    interrupted = await host.state_of("t4", "failed")
    assert "restarted" in interrupted.run.reason


async def test_stop_signal_grace_and_kill(host):
    polite = "trap 'echo bye; exit 3' USR1; echo set; sleep inf & wait"
    deaf = "trap '' TERM; echo set; sleep inf & wait"
    await host.put(
        assignment("t1", polite, stop_signal="SIGUSR1", stop_grace=60.0),
        assignment("t2", deaf, stop_grace=0.4),
    )
    await host.ready("t1", "t2")
    for task in ("t1", "t2"):
        while not await host.logs(task):
            await asyncio.sleep(0.02)
    began = time.monotonic()
    await host.put(
        *(t.model_copy(update={"desired": Desired.SHUTDOWN}) for t in host.tasks.values())
    )
    one = await host.state_of("t1", "shutdown")
    two = await host.state_of("t2", "shutdown")
    assert 0.4 <= time.monotonic() - began < 60.0
    assert one.run.exit_code == 3
    assert two.run.exit_code == 137
    assert [line.line for line in await host.logs("t1")] == ["set", "bye"], (
        "logs stay after shutdown"
    )


async def test_restart_request_makes_a_new_run_of_the_same_task(host):
    await host.put(assignment("t1"))
    (first,) = await host.ready("t1")
    await host.put(assignment("t1", restart_count=1))
    again = await host.until(
        lambda seen: seen["t1"].ready and seen["t1"].restart_done == 1 and seen["t1"], "restart"
    )
    assert again.run.number == 2
    assert again.run.pid != first.run.pid
    assert again.state == "running"


async def test_health_gates_ready_and_unhealthy_is_restarted(host):
    check = Healthcheck(
        test=("CMD", "test", "-e", "/tmp/ok"),
        interval=0.2,
        timeout=60.0,
        retries=2,
        start_period=600.0,
        start_interval=0.2,
    )
    await host.put(
        assignment("t1", "rm -f /tmp/ok; touch /tmp/up; exec sleep 1000", healthcheck=check)
    )
    starting = await host.state_of("t1", "starting")
    assert not starting.ready
    await heal(host)
    (status,) = await host.ready("t1")
    assert status.health == "healthy"
    assert status.state == "running"
    answer, _, _ = await host.exec("t1", "rm", "/tmp/ok", "/tmp/up")
    assert answer == {"exit": 0}
    sick = await host.until(lambda seen: not seen["t1"].ready and seen["t1"], "unready")
    assert sick.health == "unhealthy"
    await host.until(lambda seen: seen["t1"].run.number == 2 and seen["t1"].run.pid, "a second run")
    await heal(host)
    await host.until(lambda seen: seen["t1"].ready and seen["t1"].run.number == 2, "a healthy run")
    assert host.seen["t1"].state == "running", "a restart in place stays running"


async def heal(host) -> None:
    """Let the probes of t1 succeed, once its script has begun."""
    while True:
        with contextlib.suppress(aiohttp.WSServerHandshakeError):  # it does not run yet
            answer, _, _ = await host.exec("t1", "sh", "-c", "test -e /tmp/up && touch /tmp/ok")
            if answer == {"exit": 0}:
                return
        await asyncio.sleep(0.05)


async def test_a_hung_probe_times_out_and_does_not_pile_up(host):
    check = Healthcheck(
        test=("CMD-SHELL", "echo x >> /tmp/probes; exec sleep 100"),
        interval=0.2,
        timeout=0.3,
        retries=100,
    )
    await host.put(assignment("t1", healthcheck=check, on_unhealthy="keep"))
    await host.state_of("t1", "starting")
    await asyncio.sleep(1.5)
    _, out, _ = await host.exec("t1", "sh", "-c", "ps | grep -c 'sleep 100$'")
    assert int(out) <= 1, "at most one probe at a time"


async def test_a_check_whose_program_is_not_there_fails_like_any_other(host):
    check = Healthcheck(test=("CMD", "no-such-program"), interval=0.2, timeout=60.0, retries=2)
    await host.put(assignment("t1", healthcheck=check, on_unhealthy="keep"))
    sick = lambda seen: "t1" in seen and seen["t1"].health == "unhealthy"  # noqa: E731 - short
    await host.until(sick, "t1 is unhealthy")
    assert "no-such-program" in host.seen["t1"].health_output


async def test_out_of_memory_is_told(host):
    await host.put(
        assignment(
            "t1",
            "dd if=/dev/zero of=/dev/shm/x bs=1M count=60",
            restart=NEVER,
            resources=Resources(limits=Limits(memory=20 << 20)),
        )
    )
    status = await host.state_of("t1", "failed")
    assert status.run.oom
    assert "memory" in status.run.reason


async def test_log_rotation_loses_nothing(host):
    count = 15_000
    await host.put(
        assignment(
            "t1",
            "i=0; while [ $i -lt 15000 ]; do i=$((i+1)); echo line $i of a certain length; "
            "[ $((i % 500)) != 0 ] || sleep 0.15; done; sleep 0.2",
            restart=NEVER,
            logging=LogConfig(max_size=500_000, max_files=10),
        )
    )
    following = await host.logs("t1", follow="true")
    await host.state_of("t1", "complete")
    lines = await host.logs("t1")
    files = list((host.state / "agent/tasks/t1/log").iterdir())
    assert len(files) > 1, "it was rotated"
    wanted = [f"line {i} of a certain length" for i in range(1, count + 1)]
    assert [line.line for line in lines] == wanted
    assert [line.line for line in following] == wanted, "a follower sees every line once"


async def test_a_flood_of_output_keeps_to_its_cap_and_says_what_is_missing(host):
    """Also while the agent stands still: the container never waits, the disk never fills."""
    cap = 2 << 20
    limits = LogConfig(max_size=cap // 2, max_files=2)
    # A line of two bytes is one of 45 in the log, as fast as can be, until it is told to end.
    flood = "yes & while [ ! -e /tmp/enough ]; do sleep 0.05; done; kill $!; wait; echo; echo end"
    await host.put(assignment("t1", f"{flood}; exec sleep 1000", restart=NEVER, logging=limits))
    (status,) = await host.ready("t1")
    folder = host.state / "agent/tasks/t1/log"
    used, sizes = [], [0]

    def begun() -> int:
        """Return how many files conmon was seen to begin; inodes tell nothing, they come again."""
        return sum(after < before for before, after in itertools.pairwise(sizes))

    async def until_log(done) -> None:
        """Wait, and measure the folder all the while."""
        end = time.monotonic() + 60
        while not done():
            assert time.monotonic() < end, "it does not print on"
            found = {}
            for path in folder.glob("*.log"):
                with contextlib.suppress(FileNotFoundError):
                    one = path.stat()
                    found[one.st_ino] = one.st_size
                    if path.name == "000001.log":
                        sizes.append(one.st_size)
            used.append(sum(found.values()))
            await asyncio.sleep(0.003)

    await until_log(lambda: begun() > 2)
    host.agent.send_signal(signal.SIGSTOP)
    try:
        sizes[:] = sizes[-1:]
        await until_log(lambda: begun() > 4)
        Path(f"/proc/{status.run.pid}/root/tmp/enough").touch()
        await until_log(lambda: _end_of(folder / "000001.log").endswith(b" F end\n"))
        unseen = begun()
    finally:
        host.agent.send_signal(signal.SIGCONT)
    assert max(used) <= 2 * cap + 4096, "and the lines that say what is missing"
    deadline = time.monotonic() + 60
    while not (said := {line.line for line in await host.logs("t1")} - {"y", "", "end"}):
        assert time.monotonic() < deadline, "what is missing is said"
        await asyncio.sleep(0.02)
    (words,) = [re.match(r"corral: about (\d+\.\d) MiB of output are missing", x) for x in said]
    assert float(words[1]) >= unseen - 2 > 0, "every file that was replaced unseen"
    assert "output was dropped" in host.said()


def _end_of(path: Path) -> bytes:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        return file.read()
    return b""


async def test_exec_with_terminal_stdin_and_exit_codes(host):
    await host.put(assignment("t1", environment={"COLOUR": "blue"}, user="app"))
    await host.ready("t1")
    answer, out, err = await host.exec(
        "t1", "sh", "-c", "echo $COLOUR $X; id -u; echo e >&2; exit 9", environment={"X": "y"}
    )
    assert (answer, out, err) == ({"exit": 9}, "blue y\n1000\n", "e\n")
    answer, out, _ = await host.exec("t1", "cat", stdin=b"through stdin")
    assert (answer, out) == ({"exit": 0}, "through stdin")
    answer, out, _ = await host.exec(
        "t1", "sh", "-c", "stty size; tty", tty=True, rows=33, columns=99
    )
    assert answer == {"exit": 0}
    assert out.split() == ["33", "99", "/dev/pts/0"]
    answer, _, _ = await host.exec("t1", "nosuch")
    assert answer["exit"] == 127
    answer, _, _ = await host.exec("t1", "sh", "-c", "kill -9 $$")
    assert answer == {"exit": 137}
    answer, out, _ = await host.exec("t1", "id", "-u", user="root")
    assert out == "0\n"


async def test_a_command_never_sees_a_terminal_without_a_size(host):
    await host.put(assignment("t1"))
    await host.ready("t1")

    async def size(rows: int) -> tuple[int, list[str]]:
        _, out, _ = await host.exec("t1", "stty", "size", tty=True, rows=rows, columns=99)
        return rows, out.split()[:2]

    seen = []
    for first in range(20, 60, 8):  # eight at a time keep each other from running
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(size(rows)) for rows in range(first, first + 8)]
        seen += [task.result() for task in running]
    assert seen == [(rows, [str(rows), "99"]) for rows in range(20, 60)]


async def test_what_runs_in_a_terminal_is_an_ordinary_process(host):
    await host.put(assignment("t1"))
    await host.ready("t1")
    _, out, _ = await host.exec("t1", "cat", "/proc/self/stat", tty=True)
    # Fields 40 and 41 of stat: real-time priority and policy (proc(5)).
    fields = out.rpartition(")")[2].split()
    assert fields[37:39] == ["0", "0"]


async def test_default_security(host):
    await host.put(assignment("t1"))
    (status,) = await host.ready("t1")
    facts = Path(f"/proc/{status.run.pid}/status").read_text()
    assert "CapEff:\t00000000a80425fb" in facts
    assert "Seccomp:\t2" in facts

    async def inside(script: str) -> str:
        _, out, err = await host.exec("t1", "sh", "-c", script)
        return (out + err).strip()

    assert await inside("cat /proc/self/status | grep ^Seccomp:") == "Seccomp:\t2"
    assert await inside("ls /proc/acpi /proc/scsi 2>/dev/null | grep -v : | wc -w") == "0"
    assert "Read-only" in await inside("echo 1 > /proc/sys/kernel/msgmax")
    assert "permission denied" in await inside("mount -t tmpfs x /tmp 2>&1")
    assert await inside("ls /dev | sort | tr '\n' ' '") == (
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    )
    assert await inside("hostname") == "test-web-t1"
    assert await inside("cat /etc/hostname") == "test-web-t1"
    assert await inside("ls /proc/1/fd | tr '\n' ' '") == "0 1 2"
    assert "Read-only" in await inside("mkdir /sys/fs/cgroup/pids/x 2>&1")


async def test_a_terminal_and_open_stdin(host):
    await host.put(
        assignment("t1", "tty && exec sleep 1000", tty=True),
        assignment("t2", "read x; echo got $x", stdin_open=True, restart=NEVER),
        assignment("t3", "read x; echo end of input", restart=NEVER),
    )
    await host.ready("t1", "t2")
    await host.state_of("t3", "complete")
    while not await host.logs("t1"):
        await asyncio.sleep(0.02)
    assert [line.line for line in await host.logs("t1")] == ["/dev/pts/0"]
    assert host.seen["t2"].state == "running", "stdin stays open"


async def test_resource_limits_reach_the_kernel(host):
    limits = Resources(limits=Limits(cpus=0.5, memory=64 << 20, pids=50))
    await host.put(assignment("t1", resources=limits))
    await host.ready("t1")
    tail = f"{host.cgroup}/t1"
    top = Path("/sys/fs/cgroup")
    if (top / "memory").exists():
        assert (top / "memory" / tail / "memory.limit_in_bytes").read_text() == f"{64 << 20}\n"
        assert (top / "pids" / tail / "pids.max").read_text() == "50\n"
        assert (top / "cpu" / tail / "cpu.cfs_quota_us").read_text() == "50000\n"
    else:
        assert (top / tail / "memory.max").read_text() == f"{64 << 20}\n"
        assert (top / tail / "pids.max").read_text() == "50\n"


async def test_an_image_whose_dev_is_a_symlink_is_rejected(host):
    layer = host.state / "agent/images/layer"
    await host.put(assignment("t0"))
    await host.ready("t0")
    (layer / "dev").rmdir()
    (layer / "dev").symlink_to("/tmp")
    await host.put(assignment("t1"))
    status = await host.state_of("t1", "rejected")
    assert "/dev is not a directory" in status.reason


async def test_bad_input_is_a_problem_not_a_traceback(host):
    client = host.client
    async with client.put("/v1/instructions", data=b"{nonsense") as answer:
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"
    async with client.get("/v1/tasks/..%2f..%2fetc/logs") as answer:
        assert answer.status == 404
    async with client.get("/v1/tasks/none/logs") as answer:
        assert answer.status == 404
        assert (await answer.json())["type"] == "not-found"
    await host.put(assignment("t1"))
    async with client.get("/v1/tasks/t1/logs", params={"tail": "x"}) as answer:
        assert answer.status == 400
    for stamp, reason in ((("other", 1), "cluster"), (("test", 0), "epoch")):
        body = Instructions(
            stamp=Stamp(cluster=stamp[0], epoch=stamp[1], generation=9),
            me=NodeSelf(node="n1", name="n1"),
        )
        async with client.put("/v1/instructions", data=body.encode()) as answer:
            assert answer.status == 409
            assert (await answer.json())["reason"] == reason
    # Much, packed and as it is: refused before it is there.
    for headers, data, status in (
        ({"Content-Encoding": "gzip"}, gzip.compress(bytes(32 << 20), 1), 415),
        ({"Content-Length": str(300 << 20)}, b"{", 413),
    ):
        async with client.put("/v1/instructions", data=data, headers=headers) as answer:
            assert answer.status == status
            assert answer.content_type == "application/problem+json"
            assert answer.headers["Connection"] == "close", "the next one need not wait for it"
    # A text from a controller that does not look: named, and nothing is made of it.
    await host.put(assignment("t2", extra_hosts=(("a\n192.0.2.6 bank", "192.0.2.1"),)))
    status = await host.state_of("t2", "rejected")
    assert "extra_hosts: 'a\\n192.0.2.6 bank' is not a host name" in status.reason


async def greeted(host):
    """Ask on a connection of its own; one that found the kernel's queue full asks again."""
    path = str(host.run / "agent.sock")
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(aiohttp.ClientOSError):
                async with (
                    aiohttp.ClientSession(
                        "http://agent", connector=aiohttp.UnixConnector(path)
                    ) as fresh,
                    fresh.get("/v1/hello") as answer,
                ):
                    assert answer.status == 200
                    return
            await asyncio.sleep(0.05)


async def test_who_keeps_the_agent_waiting_stops_nobody(host):
    """Law: more connections than there may be, silent, begun, idle; whoever asks is served."""
    await host.put(assignment("t1"))
    (before,) = await host.ready("t1")
    hello = b"GET /v1/hello HTTP/1.1\r\nHost: x\r\n\r\n"
    begun = b"PUT /v1/instructions HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{"
    waiting = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    try:
        for number in range(MOST_CALLERS + 100):
            _, writer = await asyncio.open_unix_connection(str(host.run / "agent.sock"))
            writer.write((b"", hello[:20], hello, begun)[number % 4])
            waiting.append(writer)
            if number % 500 == 499:
                await greeted(host)
        (after,) = await host.ready("t1")
        assert after.run.pid == before.run.pid
    finally:
        for writer in waiting:
            writer.transport.abort()
        await asyncio.sleep(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_leave_takes_everything(host):
    await host.put(assignment("t1"), assignment("t2", "exit 1", restart=NEVER))
    await host.ready("t1")
    async with host.client.post("/v1/leave") as answer:
        assert answer.status == 200, await answer.text()
    assert await host.left() == []
    mounts = Path(f"/proc/{host.holder.pid}/mountinfo").read_text()
    assert str(host.base) not in mounts
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{host.cgroup}"))
    host.tasks = {}
    await host.put(assignment("t3"))
    await host.ready("t3")
