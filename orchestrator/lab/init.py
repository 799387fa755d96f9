"""The program that becomes a lab host: makes the namespaces, then is pid 1 in them.

Started by ``host.py`` as a plain file under ``python -I -S``, with its configuration as the first
line of JSON on stdin; it imports the standard library only, so what it asks of libc stands here
once more (the agent's are in agent/linux/calls.py). It talks with its starter over stdin and
stdout, and ends by itself if the starter dies before the host stands (end of file on stdin),
so a killed ``lab up`` leaves no half-made host that cannot be found: before the first "go" it has
made nothing, after it is in the host's control group.

As pid 1 it starts sshd, reaps, and restarts sshd. It is not the agent and knows nothing of
corral.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET = (
    0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000, 0x40000000,
)  # fmt: skip
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE, SHARED = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18, 1 << 20,
)  # fmt: skip
DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9),
           "tty": (5, 0), "fuse": (10, 229), "net/tun": (10, 200)}  # fmt: skip
# What a host may change: settings the kernel keeps per network or IPC namespace.
OWN_SYSCTLS = (
    "net", "fs/mqueue", "kernel/hostname", "kernel/domainname", "kernel/sem", "kernel/shmmax",
    "kernel/shmall", "kernel/shmmni", "kernel/shm_rmid_forced", "kernel/msgmax", "kernel/msgmnb",
    "kernel/msgmni",
)  # fmt: skip

SSH_PORT, LISTENING = 22, "0A"  # as host.py configures sshd; as /proc/net/tcp writes the state

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: str | Path, kind: str, flags: int = 0, data: str = "") -> None:
    arguments = (source.encode(), os.fsencode(target), kind.encode())
    check(
        libc.mount(*arguments, ctypes.c_ulong(flags), data.encode()),
        f"mount {kind} {source} on {target}",
    )


def bind(source: str | Path, target: str | Path, *, readonly: bool = False) -> None:
    mount(os.fspath(source), target, "", BIND | REC)
    if readonly:
        mount("", target, "", BIND | REMOUNT | RDONLY)


def expect(word: str) -> None:
    """Wait for the starter's word; without it, end."""
    if sys.stdin.readline().strip() != word:
        os._exit(1)


def make_root(config: dict[str, Any], root: Path) -> None:
    """Mount the host's file system under ``root``."""
    for layer in config["layers"]:
        target = Path(f"{root}{layer['lower'].rstrip('/')}")
        options = f"lowerdir={layer['lower']},upperdir={layer['upper']},workdir={layer['work']}"
        mount("overlay", target, "overlay", 0, options)
    for name in ("proc", "sys", "dev", "run", "tmp", "var/tmp", "var/lib/corral"):
        (root / name).mkdir(parents=True, exist_ok=True)
    mount("proc", root / "proc", "proc", NOSUID | NODEV | NOEXEC)
    make_proc(config, root)
    mount("sysfs", root / "sys", "sysfs", NOSUID | NODEV | NOEXEC | RDONLY)
    make_cgroups(config, root / "sys/fs/cgroup")
    make_devices(root / "dev")
    mount("tmpfs", root / "run", "tmpfs", NOSUID | NODEV, "mode=755")
    mount("tmpfs", root / "tmp", "tmpfs", NOSUID | NODEV, "mode=1777")
    mount("tmpfs", root / "var/tmp", "tmpfs", NOSUID | NODEV, "mode=1777")
    for name in ("lock", "sshd", "netns"):
        (root / "run" / name).mkdir()
    bind(config["disk"], root / "var/lib/corral")
    for path in config["readonly"]:
        target = Path(f"{root}{path}")
        target.mkdir(parents=True, exist_ok=True)
        bind(path, target, readonly=True)
    for source, path in config["shared"].items():
        target = Path(f"{root}{path}")
        target.mkdir(parents=True, exist_ok=True)
        bind(source, target)
    for source, path in config["over"].items():
        # Where a link leads is a matter of the host's own root, not of the machine's.
        target = Path(f"{root}{path}")
        while target.is_symlink():
            link = Path(target.parent, target.readlink())
            inside = link.is_relative_to(root)
            target = link if inside else Path(f"{root}{link}")
        target.touch()
        bind(source, target, readonly=True)


def make_proc(config: dict[str, Any], root: Path) -> None:
    """Keep the machine's own settings out of reach, and give the host its boot id."""
    original = root / "mnt"
    bind(root / "proc/sys", original)
    bind(root / "proc/sys", root / "proc/sys", readonly=True)
    for name in OWN_SYSCTLS:
        if (original / name).exists():
            bind(original / name, root / "proc/sys" / name)
    check(libc.umount2(os.fsencode(original), DETACH), f"umount {original}")
    bind(config["boot_id"], root / "proc/sys/kernel/random/boot_id", readonly=True)


def make_cgroups(config: dict[str, Any], target: Path) -> None:
    hierarchies = config["hierarchies"]
    if [h["mount"] for h in hierarchies] == ["/sys/fs/cgroup"]:
        mount("cgroup", target, "cgroup2", NOSUID | NODEV | NOEXEC)
        return
    mount("tmpfs", target, "tmpfs", NOSUID | NODEV | NOEXEC, "mode=755")
    for hierarchy in hierarchies:
        name = Path(hierarchy["mount"]).name
        (target / name).mkdir()
        kind = "cgroup2" if hierarchy["v2"] else "cgroup"
        mount("cgroup", target / name, kind, NOSUID | NODEV | NOEXEC, hierarchy["options"])
        for alias in hierarchy["options"].split(","):
            if "," in hierarchy["options"] and "=" not in alias and alias not in ("none", name):
                (target / alias).symlink_to(name)


def make_devices(dev: Path) -> None:
    mount("tmpfs", dev, "tmpfs", NOSUID, "mode=755")
    for name, (major, minor) in DEVICES.items():
        (dev / name).parent.mkdir(exist_ok=True)
        os.mknod(dev / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        (dev / name).chmod(0o666)
    for name in ("pts", "shm", "mqueue"):
        (dev / name).mkdir()
    mount(
        "devpts",
        dev / "pts",
        "devpts",
        NOSUID | NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )
    mount("tmpfs", dev / "shm", "tmpfs", NOSUID | NODEV, "mode=1777")
    mount("mqueue", dev / "mqueue", "mqueue", NOSUID | NODEV | NOEXEC)
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "fd").symlink_to("/proc/self/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")


def enter_root(root: Path) -> None:
    os.chdir(root)
    number = PIVOT_ROOT[os.uname().machine]
    check(libc.syscall(number, b".", b"."), "pivot_root")
    check(libc.umount2(b".", DETACH), "umount old root")  # stacked on the new one: man 2 pivot_root
    os.chdir("/")
    mount("", "/", "", SHARED | REC)  # as on a machine that systemd started


def become_host(config: dict[str, Any]) -> NoReturn:
    """Make the host around this process, report, and serve as its pid 1."""
    os.setsid()
    os.umask(0o022)
    log = os.open(config["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    mount("", "/", "", PRIVATE | REC)
    make_root(config, Path(config["root"]))
    enter_root(Path(config["root"]))
    name = config["hostname"].encode()
    check(libc.sethostname(name, len(name)), "sethostname")
    expect("network")
    for name in ("all", "default", "eth0"):  # the bridge has no duplicates to look for
        Path(f"/proc/sys/net/ipv6/conf/{name}/accept_dad").write_text("0")
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):  # inherited from the machine
        Path(f"/proc/sys/net/{name}").write_text("0")
    subprocess.run(["ip", "-batch", "-"], input=config["network"], text=True, check=True)
    signals = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    null = os.open("/dev/null", os.O_RDWR)
    sshd = start_sshd(config, null, log)
    await_listener(SSH_PORT, sshd)
    if os.access("/etc/rc.local", os.X_OK):  # how a machine without systemd starts local services
        spawn(["/etc/rc.local"], config, null, log)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    serve(config, sshd, null, log, signals)


def start_sshd(config: dict[str, Any], null: int, log: int) -> int:
    return spawn(config["sshd"], config, null, log)


def await_listener(
    port: int, pid: int, patience: float = 60.0, families: tuple[str, ...] = ("tcp", "tcp6")
) -> bool:
    """Wait until the port is listened on; False: our child has ended, or takes too long."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if all(listens(port, family) for family in families):
            return True
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False  # serve() starts it again
        time.sleep(0.005)
    return False


def listens(port: int, family: str) -> bool:
    rows = [line.split() for line in Path("/proc/net", family).read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == LISTENING for row in rows)


def spawn(argv: list[str], config: dict[str, Any], null: int, log: int) -> int:
    actions = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    return os.posix_spawn(
        argv[0], argv, config["environment"], file_actions=actions, setsigmask=[], setsid=True
    )


def serve(
    config: dict[str, Any], sshd: int, null: int, log: int, signals: set[signal.Signals]
) -> NoReturn:
    """Reap whatever ends; keep sshd running; on SIGTERM end everything."""
    while True:
        if signal.sigwait(signals) != signal.SIGCHLD:
            shut_down()
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == sshd:
                time.sleep(0.1)
                sshd = start_sshd(config, null, log)


def shut_down() -> NoReturn:
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.01)
            except ChildProcessError:
                os._exit(0)
    os._exit(0)


def main() -> int:
    """Join the host's control groups, make the namespaces, fork the host's pid 1."""
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        return 1
    config = json.loads(line)
    for file in config["cgroups"]:
        Path(file, "cgroup.procs").write_text(str(os.getpid()))
    print("joined", flush=True)
    expect("go")
    check(libc.unshare(NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWPID | NEWNET), "unshare")
    for file in config["leaves"]:
        Path(file, "cgroup.procs").write_text(str(os.getpid()))
    pid = os.fork()
    if pid:
        print(f"pid {pid}", flush=True)
        return 0
    try:
        become_host(config)
    except BaseException as error:  # noqa: BLE001 - a host that fails says why, then ends
        print(f"failed {error}", flush=True)
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
