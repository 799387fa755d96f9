"""What the kernel's files say of a container, in both layouts of control groups."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from agent.runtime import exits, usage

UNIFIED = {
    "": {
        "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\n",
        "memory.current": "10485760\n",
        "memory.stat": "anon 4096\ninactive_file 4194304\n",
        "memory.max": "67108864\n",
        "pids.current": "7\n",
        "io.stat": "8:0 rbytes=100 wbytes=20 rios=1 wios=1\n8:16 rbytes=1 wbytes=2\n",
    }
}
SEPARATE = {
    "cpuacct": {"cpuacct.usage": "2500000000\n"},
    "memory": {
        "memory.usage_in_bytes": "10485760\n",
        "memory.stat": "inactive_file 1\ntotal_inactive_file 4194304\n",
        "memory.limit_in_bytes": "67108864\n",
    },
    "pids": {"pids.current": "7\n"},
    "blkio": {
        "blkio.throttle.io_service_bytes_recursive": "8:0 Read 100\n8:0 Write 20\n8:16 Read 1\n"
        "8:16 Write 2\nTotal 123\n"
    },
}
# As systemd mounts both at once: the unified one is there, and counts no memory.
HYBRID = {**SEPARATE, "unified": {"cpu.stat": "usage_usec 0\n"}}


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    def make(layout):
        for hierarchy, files in layout.items():
            folder = tmp_path / hierarchy / "corral/t1"
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (folder / name).write_text(text)
        tops = tuple(str(tmp_path / name) for name in layout)
        monkeypatch.setattr(exits, "_hierarchies", lambda: tops)
        return tmp_path

    return make


@pytest.mark.parametrize("layout", [UNIFIED, SEPARATE, HYBRID], ids=["v2", "v1", "both"])
def test_the_numbers(kernel, layout):
    kernel(layout)
    found = usage.usage("corral", "t1", exits.identify(os.getpid()))
    assert found.cpu == 2.5
    assert (found.memory, found.memory_limit) == (10485760 - 4194304, 67108864)
    assert found.processes == 7
    assert (found.read, found.written) == (101, 22)


@pytest.mark.parametrize(
    ("limit", "file"),
    [("max\n", "memory.max"), ("9223372036854771712\n", "memory.limit_in_bytes")],
)
def test_no_limit_is_none(kernel, limit, file):
    kernel({"": {file: limit}})
    found = usage.usage("corral", "t1", exits.identify(os.getpid()))
    assert (found.memory_limit, found.memory, found.cpu) == (0, 0, 0.0)


def test_a_task_without_a_control_group_uses_nothing(kernel):
    kernel(UNIFIED)
    assert usage.usage("corral", "t2", exits.identify(os.getpid())) is None
    assert usage.processes("corral", "t2") == ()


def test_processes_as_the_kernel_tells_them_and_those_gone_are_left_out(kernel):
    with subprocess.Popen(["sleep", "1000"]) as child:
        gone = subprocess.Popen(["true"])
        gone.wait()
        kernel({"": {"cgroup.procs": f"{child.pid}\n{gone.pid}\n"}})
        (found,) = usage.processes("corral", "t1")
        child.send_signal(signal.SIGKILL)
    assert (found.pid, found.parent, found.command) == (child.pid, os.getpid(), "sleep 1000")
    assert found.user == ("root" if os.getuid() == 0 else str(os.getuid()))
    assert (found.inside, found.terminal) == (child.pid, False)
    assert found.cpu < 5.0
