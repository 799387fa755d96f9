"""The floor: what the kernel, conmon and crun cost without an orchestrator.

Starts N containers four at a time, each with a network namespace, a veth pair, an
overlay root and a conmon + crun create and start, then removes them; nothing else.
corral's own start-up time is quoted beside this figure.

    unshare -n -m python -m tests.bench.floor [N]

Needs root, a private network and mount namespace, busybox-static.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
MS_BIND = 4096
AT_ONCE = 4


def check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def make_netns(path: Path) -> None:
    """Pin a new network namespace at ``path``; the calling thread goes back to its own."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    path.touch()
    check(LIBC.unshare(CLONE_NEWNET), "unshare")
    check(LIBC.mount(b"/proc/thread-self/ns/net", str(path).encode(), None, MS_BIND, None), "bind")
    check(LIBC.setns(own, CLONE_NEWNET), "setns")
    os.close(own)


def config(root: Path, netns: Path, cgroup: str) -> dict[str, object]:
    return {
        "ociVersion": "1.0.2",
        "process": {
            "args": ["/bin/busybox", "sleep", "1000"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "env": ["PATH=/bin"],
        },
        "root": {"path": str(root)},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                {"type": "pid"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
                {"type": "network", "path": str(netns)},
            ],
        },
    }


def start(base: Path, lower: Path, number: int) -> int:
    name = f"floor-{os.getpid()}-{number}"
    here = base / name
    for part in ("upper", "work", "merged", "bundle", "exits"):
        (here / part).mkdir(parents=True)
    netns = here / "netns"
    make_netns(netns)
    subprocess.run(
        ["ip", "-batch", "-"],
        input=f"link add fl{number} type veth peer name pe{number}\n"
        f"link set pe{number} netns {netns}\nlink set fl{number} up\n",
        text=True,
        check=True,
    )
    options = f"lowerdir={lower},upperdir={here}/upper,workdir={here}/work"
    check(
        LIBC.mount(b"overlay", str(here / "merged").encode(), b"overlay", 0, options.encode()),
        "overlay",
    )
    (here / "bundle" / "config.json").write_text(
        json.dumps(config(here / "merged", netns, f"/corral-floor/{name}"))
    )
    pidfile = here / "pid"
    subprocess.run(
        [
            "conmon",
            *("--cid", name, "--cuuid", name, "--runtime", shutil.which("crun") or "crun"),
            *("--bundle", str(here / "bundle"), "--container-pidfile", str(pidfile)),
            *("--log-path", f"k8s-file:{here / 'log'}", "--exit-dir", str(here / "exits")),
            *("--runtime-arg", f"--root={base / 'crun'}", "--name", name),
            *("--persist-dir", str(here), "--full-attach", "--socket-dir-path", str(here)),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 10
    while not pidfile.exists() or not pidfile.read_text():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name}: no pid after 10 s")
        time.sleep(0.001)
    subprocess.run(["crun", f"--root={base / 'crun'}", "start", name], check=True)
    return int(pidfile.read_text())


def stop(base: Path, number: int, pid: int) -> None:
    name = f"floor-{os.getpid()}-{number}"
    here = base / name
    handle = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([handle], [], [], 10)
    os.close(handle)
    subprocess.run(["crun", f"--root={base / 'crun'}", "delete", "--force", name], check=True)
    check(LIBC.umount2(str(here / "merged").encode(), 2), "umount")
    check(LIBC.umount2(str(here / "netns").encode(), 2), "umount")


def remove_cgroups() -> None:
    """Remove ours in every hierarchy, waiting for the last processes to be gone."""
    deadline = time.monotonic() + 10
    left = list(Path("/sys/fs/cgroup").glob("*/corral-floor/*/")) + list(
        Path("/sys/fs/cgroup").glob("*/corral-floor")
    )
    while left and time.monotonic() < deadline:
        for path in list(left):
            try:
                path.rmdir()
                left.remove(path)
            except OSError:
                time.sleep(0.01)


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        print("run me under: unshare -n -m", file=sys.stderr)
        return 2
    check(LIBC.mount(b"none", b"/", None, 0x44000, None), "private mounts")  # MS_REC|MS_PRIVATE
    if Path("/sys/fs/cgroup/unified").is_mount():
        # crun refuses hybrid cgroups, so the unified tree is hidden; under a tmpfs, because
        # crun makes directories at that path and they would stay on the machine's own.
        hide = (b"tmpfs", b"/sys/fs/cgroup/unified", b"tmpfs", 0, b"size=1m")
        check(LIBC.mount(*hide), "hide unified")
    base = Path(tempfile.mkdtemp(prefix="corral-floor-"))
    lower = base / "lower"
    for part in ("bin", "proc", "dev", "sys"):
        (lower / part).mkdir(parents=True)
    shutil.copy("/bin/busybox", lower / "bin" / "busybox")
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            pids = list(pool.map(lambda n: start(base, lower, n), range(count)))
        up = time.monotonic() - began
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda n: stop(base, n, pids[n]), range(count)))
        down = time.monotonic() - began
    finally:
        shutil.rmtree(base, ignore_errors=True)
        remove_cgroups()
    print(json.dumps({"containers": count, "up_s": round(up, 3), "down_s": round(down, 3)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
