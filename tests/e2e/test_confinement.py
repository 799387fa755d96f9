"""What a container is and is not allowed by default: Docker's level, seen from inside."""

from __future__ import annotations

import platform

import pytest

pytestmark = pytest.mark.real

STACK = """
services:
  plain:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    deploy:
      resources:
        limits: {memory: 64M, cpus: "0.5", pids: 50}
  tight:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    user: "65534:65534"
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    tmpfs: [/tmp]
  default:
    image: corral/debian-base:12
    command: [sleep, inf]
    stop_grace_period: 0s
  baseline:
    image: corral/debian-base:12
    command: [sleep, inf]
    stop_grace_period: 0s
    x-corral: {security: baseline}
  restricted:
    image: corral/debian-base:12
    command: [sleep, inf]
    stop_grace_period: 0s
    user: "65534:65534"
    x-corral: {security: restricted}
"""
# Opens a socket as 32-bit programs do: int 0x80, call 102 (socketcall), operation 1, on x86-64.
SOCKETCALL = """
import ctypes, errno, mmap, struct
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
at = libc.mmap(None, 4096, 7, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40, -1, 0)  # MAP_32BIT
code = bytes.fromhex("53b86600000089fb89f1cd805bc3")
ctypes.memmove(at, code, len(code))
ctypes.memmove(at + 256, struct.pack("III", 1, 1, 0), 12)  # AF_UNIX, SOCK_STREAM
call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint)(at)
found = call(1, at + 256)
print("opened" if found >= 0 else errno.errorcode[-found])
"""


@pytest.fixture
def app(corral):
    corral.compose(STACK)
    corral("up", "-d")
    return corral


def sh(corral, service, script):
    return corral("exec", "-T", service, "sh", "-c", script).stdout.strip()


def status(corral, name):
    """Return /proc/PID/status of the container's first process, as the host sees it."""
    text = corral.host.read(f"/proc/{corral.pid(name)}/status")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_capabilities_and_seccomp(app):
    plain = status(app, "plain-1")
    assert plain["CapEff"] == "00000000a80425fb", "Docker's fourteen"
    assert plain["CapBnd"] == "00000000a80425fb"
    assert plain["CapInh"] == plain["CapAmb"] == "0" * 16
    assert plain["Seccomp"] == "2"
    assert plain["NoNewPrivs"] == "0", "Docker's default: sudo works inside"
    tight = status(app, "tight-1")
    assert tight["CapEff"] == tight["CapPrm"] == tight["CapBnd"] == "0" * 16
    assert tight["NoNewPrivs"] == "1"
    assert tight["Uid"].split() == ["65534"] * 4
    assert tight["Gid"].split() == ["65534"] * 4


def test_what_exec_gets_is_no_more(app):
    text = sh(app, "plain", "grep -E 'Cap(Eff|Bnd)|Seccomp:' /proc/self/status")
    assert text.split()[1::2] == ["00000000a80425fb", "00000000a80425fb", "2"]
    assert sh(app, "tight", "id -u; grep CapEff /proc/self/status").split()[-1] == "0" * 16


def test_levels_above_the_default_give_less(app):
    """docs/security.md: `x-corral.security`."""
    baseline, restricted = status(app, "baseline-1"), status(app, "restricted-1")
    assert baseline["CapBnd"] == "00000000800405fb", "Docker's without MKNOD, NET_RAW, AUDIT_WRITE"
    assert restricted["CapBnd"] == restricted["CapEff"] == "0" * 16
    assert baseline["NoNewPrivs"] == restricted["NoNewPrivs"] == "1"
    refused = app("exec", "-T", "restricted", "touch", "/x", code=1)
    assert "Read-only file system" in refused.stderr
    assert sh(app, "baseline", "touch /x && echo ok") == "ok"
    answers = {
        service: app("exec", "-T", service, "python3", "-c", SOCKETCALL).stdout.strip()
        for service in ("default", "baseline", "restricted")
        if platform.machine() == "x86_64"
    }
    assert answers in (
        {"default": "opened", "baseline": "ENOSYS", "restricted": "ENOSYS"},
        {},
    )


def test_system_calls_that_are_blocked(app):
    for words in (
        ["unshare", "-U", "true"],
        ["unshare", "-m", "true"],
        ["mount", "-t", "tmpfs", "none", "/mnt"],
        ["chroot", "/nowhere", "true"],
        ["mknod", "/tmp/mem", "b", "8", "0"],
        ["hostname", "other"],
    ):
        done = app("exec", "-T", "plain", *words, code=None)
        if words[0] == "mknod":
            # The capability is Docker's default; the device cgroup keeps it from being opened.
            assert app("exec", "-T", "plain", "cat", "/tmp/mem", code=None).returncode != 0
        else:
            assert done.returncode != 0, words


def test_masked_and_read_only_paths(app):
    for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"):
        # Some kernels do not have all of them.
        assert sh(app, "plain", f"cat {path} 2>/dev/null | wc -c") == "0", path
    assert sh(app, "plain", "ls -A /proc/scsi /sys/firmware 2>/dev/null | grep -v :; true") == ""
    for path in (
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_seqnum",
    ):
        refused = app("exec", "-T", "plain", "sh", "-c", f"echo x > {path}", code=None)
        assert refused.returncode != 0, path
    mounts = sh(app, "plain", "cat /proc/mounts").splitlines()
    by_path = {line.split()[1]: line.split() for line in mounts}
    assert "ro" in by_path["/sys"][3].split(",")
    assert "nosuid" in by_path["/proc"][3]
    assert {"/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"} <= set(by_path)
    assert sh(app, "plain", "ls /dev").split() == sorted(
        ["core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr",
         "stdin", "stdout", "tty", "urandom", "zero"]
    )  # fmt: skip
    assert sh(app, "plain", "ls /proc/self/fd | head -3 | tr '\\n' ' '") == "0 1 2"


def test_a_read_only_root(app):
    assert app("exec", "-T", "tight", "touch", "/x", code=1)
    assert sh(app, "tight", "touch /tmp/x && echo ok") == "ok"


def test_namespaces_are_its_own(app):
    pid = app.pid("plain-1")
    for kind in ("mnt", "pid", "net", "ipc", "uts"):
        assert app.sh(f"readlink /proc/{pid}/ns/{kind}") != app.sh(f"readlink /proc/1/ns/{kind}")
    assert sh(app, "plain", "ps -o pid,comm | grep -c ' sleep$'") == "1"
    assert sh(app, "plain", "hostname") == "app-plain-1" or sh(app, "plain", "hostname")


def test_limits_are_in_the_cgroup(app):
    task = app.row("plain-1")["id"]
    values = app.sh(
        "cd /sys/fs/cgroup; for f in memory.limit_in_bytes cpu.cfs_quota_us cpu.cfs_period_us "
        f"pids.max memory.max cpu.max; do for p in $(find . -path '*{task}*' -name $f); do "
        "echo $f $(cat $p); done; done"
    )
    found = dict(line.split(" ", 1) for line in sorted(set(values.splitlines())))
    memory = found.get("memory.max") or found.get("memory.limit_in_bytes")
    assert memory == str(64 << 20), found
    assert found["pids.max"] == "50"
    if "cpu.cfs_quota_us" in found:
        assert int(found["cpu.cfs_quota_us"]) * 2 == int(found["cpu.cfs_period_us"])
    else:
        quota, period = found["cpu.max"].split()
        assert int(quota) * 2 == int(period)
    # And they bite.
    done = app("exec", "-T", "plain", "sh", "-c", "for i in $(seq 60); do sleep 1 & done; wait",
               code=None)  # fmt: skip
    assert "fork" in done.stderr, "no more than 50 processes"
