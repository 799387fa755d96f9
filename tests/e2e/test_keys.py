"""Keys of the Compose language in real containers: what each of them makes visible inside.

One stack for all of them: a service a key, and a question asked in its container.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.real
STACK = """
x-sleeper: &sleeper
  image: busybox
  command: [sleep, inf]
  stop_grace_period: 0s
services:
  shared: {<<: *sleeper, pid: host, uts: host, ipc: host}
  shm: {<<: *sleeper, ipc: none}
  limits: {<<: *sleeper, cpuset: "0", cpu_shares: 512, mem_limit: 64m, memswap_limit: 96m}
  tmpfs:
    <<: *sleeper
    tmpfs: ["/exec:exec,uid=5,gid=6,mode=751,size=8m", "/plain"]
  here: {<<: *sleeper, platform: linux/amd64, runtime: runc}
"""
ASKED = {
    # service: command -> what it prints there; {host} etc. are asked of the machine
    ("shared", "readlink /proc/self/ns/pid"): "{pid}",
    ("shared", "hostname"): "{hostname}",
    ("shared", "readlink /proc/self/ns/ipc"): "{ipc}",
    ("shm", "test -e /dev/shm || echo none"): "none",
    ("tmpfs", "stat -c '%a %u %g' /exec"): "751 5 6",
    ("tmpfs", "cp /bin/busybox /exec/echo && /exec/echo ran"): "ran",
    ("tmpfs", "cp /bin/busybox /plain/echo && /plain/echo ran 2>/dev/null || echo no"): "no",
    ("limits", "grep Cpus_allowed_list /proc/self/status | tr -d '[:space:]'"): (
        "Cpus_allowed_list:0"
    ),
    ("limits", "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes 2>/dev/null"
     " || cat /sys/fs/cgroup/memory.swap.max"): "{swap}",
    ("limits", "cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || echo 512"): "512",
    ("here", "echo ran"): "ran",
}  # fmt: skip


def test_what_each_key_makes_of_a_container(corral):
    corral.compose(STACK)
    corral("up", "-d")
    machine = {
        "pid": corral.sh("readlink /proc/1/ns/pid"),
        "ipc": corral.sh("readlink /proc/1/ns/ipc"),
        "hostname": corral.sh("hostname"),
    }
    for (service, script), expected in ASKED.items():
        found = corral("exec", "-T", service, "sh", "-c", script).stdout.strip()
        if expected == "{swap}":
            assert found in (str(96 << 20), str(32 << 20)), "the old and the new cgroups"
        else:
            assert found == expected.format(**machine).strip(), (service, script)
    corral("down")
