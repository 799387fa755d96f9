"""One lab host: made, entered, powered off and on.

``lab.py`` makes hosts; tests and the CLI run commands in them through :meth:`LabHost.run`. What is
on a host's disk (its root's changes, /var/lib/corral) outlives a power-off; everything else of it
does not.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.lab import cgroups, faults, links
from orchestrator.lab.layout import GATEWAY, PREFIX6, HostAddress, LabError, Layout
from specs.kit.disk import write_file
from specs.kit.programs import SYSTEM_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SITE = str(Path(sysconfig.get_path("stdlib"), "sitecustomize.py"))  # every Python reads it first
INIT = Path(__file__).with_name("init.py")
CHECKOUT = Path(__file__).resolve().parent.parent.parent
BOOT_TIMEOUT = 60.0
FILLER = "lab-full"  # what fills a host's disk
CLONE_NEWNET = 0x40000000
# The machine's root is one file system; these may be others, and a host needs them too.
OTHER_LAYERS = ("/usr", "/etc", "/opt", "/var", "/home", "/srv", "/lib", "/bin", "/sbin")
# Private to each host: the machine's own never show. Emptied by an opaque directory in the overlay.
PRIVATE = {"root": 0o700, "etc/ssh": 0o755, "var/log": 0o755, "home": 0o755, "srv": 0o755}
HIDDEN = ("opt/corral", "etc/corral", "etc/systemd/system/corral.service")
SSHD_CONFIG = """\
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
Include /etc/ssh/sshd_config.d/*.conf
"""


class LabHost:
    """A host of a lab, by name."""

    def __init__(self, layout: Layout, address: HostAddress) -> None:
        self.layout = layout
        self.name = address.host
        self.address = address
        self.dir = layout.host(self.name)
        self.disk = layout.disks / self.name
        self.cgroup = layout.cgroup(self.name)

    # ---- what it is -------------------------------------------------------------------------

    @property
    def upper(self) -> Path:
        """What this host changed of the machine's file system (seen from the machine)."""
        return self.dir / "upper"

    @property
    def pid(self) -> int | None:
        """The machine's pid of the host's pid 1, or None when it is off."""
        try:
            pid, start = (self.dir / "pid").read_text().split()
            if _start_time(int(pid)) == start:
                return int(pid)
        except (OSError, ValueError):
            pass
        return None

    @property
    def boot_id(self) -> str:
        return (self.dir / "boot_id").read_text().strip()

    @property
    def host_key(self) -> str:
        """The host's public SSH key in OpenSSH format."""
        return (self.upper / "etc/ssh/ssh_host_ed25519_key.pub").read_text().strip()

    @property
    def fingerprint(self) -> str:
        """The host key's SHA256 fingerprint, as ``node add --host-key`` takes it."""
        out = run_program(["ssh-keygen", "-lf", "-"], stdin=self.host_key)
        return out.split()[1]

    # ---- life -------------------------------------------------------------------------------

    def prepare(self, neighbours: Sequence[HostAddress]) -> None:
        """Lay out the host's disk: what an installer would have done."""
        etc = self.upper / "etc"
        for directory in (self.upper, self.dir / "root", self.dir / "work", self.disk):
            directory.mkdir(parents=True, exist_ok=True)
        for path, mode in PRIVATE.items():
            directory = self.upper / path
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(mode)
            os.setxattr(directory, "trusted.overlay.opaque", b"y")
        for path in HIDDEN:
            if Path("/", path).exists():
                (self.upper / path).parent.mkdir(parents=True, exist_ok=True)
                os.mknod(self.upper / path, 0o020000, 0)  # an overlayfs whiteout
        name = self.name
        known = "".join(f"{a.ipv4} {a.host}\n" for a in neighbours)
        for accounts in ("passwd", "group", "shadow", "gshadow"):
            _without_corral(Path("/etc", accounts), etc / accounts)
        (etc / "hostname").write_text(f"{name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{known}")
        (etc / "resolv.conf").write_text("# a lab host knows no name server\n")
        (etc / "machine-id").write_text(uuid.uuid4().hex + "\n")
        (etc / "ssh/sshd_config").write_text(SSHD_CONFIG)
        (etc / "ssh/sshd_config.d").mkdir()
        key = etc / "ssh/ssh_host_ed25519_key"
        run_program(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{name}", "-f", str(key)]
        )
        ssh = self.upper / "root/.ssh"
        ssh.mkdir(mode=0o700)
        public = self.layout.key.with_suffix(".pub").read_text()
        (ssh / "authorized_keys").write_text(public)
        (ssh / "id_ed25519.pub").write_text(public)
        (ssh / "id_ed25519").write_bytes(self.layout.key.read_bytes())
        (ssh / "id_ed25519").chmod(0o600)

    def boot(self) -> None:
        """Start the host with a new boot id; it stands, with sshd listening, when this returns."""
        if self.pid is not None:
            raise LabError(f"{self.name} is running")
        (self.dir / "boot_id").write_text(f"{uuid.uuid4()}\n")
        found = links.recorded(self.layout)
        wrong = links.set_clock(self.dir / "clock", self.name, found)
        groups = cgroups.create(self.cgroup)
        argv = [sys.executable, "-I", "-S", str(INIT), self.name]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd="/",
            env={"PATH": SYSTEM_PATH},
            umask=0o022,
        )
        try:
            self._boot(process, json.dumps(self._config(groups, wrong)), found)
        except BaseException:
            self.power_off()
            raise
        finally:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            process.wait(timeout=BOOT_TIMEOUT)

    def _boot(self, process: subprocess.Popen[str], config: str, found: set[faults.Fault]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None

        def say(word: str) -> None:
            process.stdin.write(word + "\n")  # type: ignore[union-attr]  # asserted above
            process.stdin.flush()  # type: ignore[union-attr]  # asserted above

        def hear(word: str) -> str:
            line = process.stdout.readline().strip()  # type: ignore[union-attr]  # asserted above
            if line.split(" ")[0] != word:
                raise LabError(
                    f"{self.name} does not boot: {line or 'no answer'} (see {self.dir}/console)"
                )
            return line.removeprefix(word).strip()

        say(config)
        hear("joined")
        say("go")
        pid = int(hear("pid"))
        text = f"{pid} {_start_time(pid)}".encode()
        write_file(self.dir / "pid", text, durable=False, mode=0o644)
        self._plug_in(pid)
        links.shape(self.layout, self.name, pid, found)
        say("network")
        hear("ready")

    def _plug_in(self, pid: int) -> None:
        """Connect the host's eth0 to the bridge."""
        name, mac = self.name, self.address.mac
        run_program(
            ["nsenter", f"--net={self.layout.switch}", "ip", "-batch", "-"],
            stdin=f"link add {name} type veth peer name eth0 address {mac} netns {pid}\n"
            f"link set {name} master br0 up\n",
        )

    def _config(self, groups: list[Path], wrong_clock: bool) -> dict[str, Any]:  # noqa: FBT001 - private
        found = cgroups.hierarchies()
        whole = any(h.whole for h in found)
        layers = [self._layer("/")] + [self._layer(m) for m in OTHER_LAYERS if _own_file_system(m)]
        return {
            "hostname": self.name,
            "root": str(self.dir / "root"),
            "layers": layers,
            "disk": str(self.disk),
            "boot_id": str(self.dir / "boot_id"),
            "log": str(self.dir / "console"),
            "readonly": [str(p) for p in _programs()],
            "shared": {str(self.dir / "clock"): faults.CLOCK_FOLDER} if wrong_clock else {},
            "over": {str(self.dir / "clock/sitecustomize.py"): SITE} if wrong_clock else {},
            "cgroups": [str(g) for g in groups],
            "leaves": [str(g / cgroups.LEAF) for g in groups] if whole else [],
            "hierarchies": [
                {"mount": str(h.mount), "options": h.options, "v2": h.v2} for h in found
            ],
            "network": self._network(),
            "sshd": ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/sshd_config"],
            "environment": {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
        }

    def _layer(self, lower: str) -> dict[str, str]:
        """Return one overlay of the host's root; its upper directory is made here."""
        suffix = "" if lower == "/" else lower.replace("/", "-")
        upper, work = self.dir / f"upper{suffix}", self.dir / f"work{suffix}"
        if suffix and not upper.exists():
            made = self.upper / lower.lstrip("/")  # what prepare() laid out belongs on top
            made.rename(upper) if made.is_dir() else upper.mkdir()
        work.mkdir(exist_ok=True)
        return {"lower": lower, "upper": str(upper), "work": str(work)}

    def _network(self) -> str:
        a = self.address
        return (
            "link set lo up\n"
            f"address add {a.ipv4}/24 dev eth0\n"
            f"address add {a.ipv6}/{PREFIX6} dev eth0 nodad\n"
            "link set eth0 up\n"
            f"route add default via {GATEWAY}\n"
        )

    def power_off(self) -> None:
        """Take the power away: nothing gets a signal it could handle; /run and memory are gone."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)  # the kernel ends the whole pid namespace with it
        cgroups.kill(self.cgroup)
        (self.dir / "pid").unlink(missing_ok=True)
        cgroups.remove(self.cgroup)
        self._unplug()

    def _unplug(self) -> None:
        """Take the host's port off the bridge, and with it the other end of the cable.

        The kernel does so too when the last process of the namespace has gone, but only some
        time later, and until then the port's name is taken.
        """
        words = ["nsenter", f"--net={self.layout.switch}", "ip", "link", "delete", self.name]
        subprocess.run(words, capture_output=True, check=False, timeout=90)

    def make_disk(self, mib: int) -> None:
        """Give a host that was never on a disk of its own: a file with ext4 in it."""
        image = self.layout.image(self.name)
        with image.open("wb") as file:
            file.truncate(mib << 20)
        run_program(["mkfs.ext4", "-q", "-m", "0", str(image)])
        self.disk.mkdir()
        run_program(["mount", "-o", "loop", str(image), str(self.disk)])

    def fill_disk(self) -> None:
        """Fill the host's own disk to the last block."""
        with (self.disk / FILLER).open("ab") as file, suppress(OSError):
            room = os.fstatvfs(file.fileno())
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize)
        with (self.disk / FILLER).open("ab", buffering=0) as file, suppress(OSError):
            while True:  # ends with the disk
                file.write(bytes(1 << 16))

    def free_disk(self) -> None:
        """Take away what filled the disk."""
        (self.disk / FILLER).unlink(missing_ok=True)

    def freeze(self, *, frozen: bool = True) -> None:
        """Stop every process of the host at once, or let them go on; it still answers ping."""
        cgroups.freeze(self.cgroup, frozen=frozen)

    # ---- commands inside --------------------------------------------------------------------

    def argv(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: str = "/root"
    ) -> list[str]:
        """Return the command line that runs ``command`` inside, from the machine."""
        pid = self.pid
        if pid is None:
            raise LabError(f"{self.name} is off")
        leaf = cgroups.LEAF if any(h.whole for h in cgroups.hierarchies()) else ""
        groups = [str(d / leaf / "cgroup.procs") for d in cgroups.directories(self.cgroup)]
        join = "".join(f"echo $$ > {group}; " for group in groups)
        settings = {
            "PATH": f"{SYSTEM_PATH}:{Path(sys.prefix)}/bin",
            "HOME": "/root",
            "USER": "root",
            "LANG": "C.UTF-8",
            "TERM": os.environ.get("TERM", "dumb"),
            **(env or {}),
        }
        enter = ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-C"]
        shell = ["/bin/sh", "-ec", f'{join}exec "$@"', "sh", *enter]
        return [
            *shell,
            "env",
            "-i",
            "-C",
            cwd,
            *(f"{k}={v}" for k, v in settings.items()),
            *command,
        ]

    def popen(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/root",
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """Start ``command`` inside; ``options`` as of subprocess.Popen."""
        return subprocess.Popen(self.argv(command, env, cwd), **options)

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        cwd: str = "/root",
        timeout: float = 90.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` inside and return its output; kill it all at the timeout."""
        pipe = subprocess.PIPE
        with self.popen(
            command,
            env=env,
            cwd=cwd,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            errors="replace",
        ) as process:
            try:
                out, err = process.communicate(stdin, timeout=timeout)
            except subprocess.TimeoutExpired as late:
                kill_tree(process.pid)
                out, err = process.communicate()
                raise LabError(
                    f"{self.name}: {' '.join(command)} took more than {timeout:g} s\n{out}{err}"
                ) from late
        done = subprocess.CompletedProcess(list(command), process.returncode, out, err)
        if check and done.returncode:
            raise LabError(
                f"{self.name}: {' '.join(command)} ended with {done.returncode}\n{out}{err}"
            )
        return done

    def corral(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the ``corral`` of this checkout inside."""
        return self.run(
            [sys.executable, "-m", "orchestrator.cli.main", *arguments], **_with_path(options)
        )

    @contextmanager
    def network(self) -> Iterator[None]:
        """Let sockets that this thread makes meanwhile be in the host's network."""
        if self.pid is None:
            raise LabError(f"{self.name} is off")
        with Path("/proc/thread-self/ns/net").open() as home:
            with Path(f"/proc/{self.pid}/ns/net").open() as inside:
                _set_network(inside.fileno())
            try:
                yield
            finally:
                _set_network(home.fileno())

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Put a file into the running host, parents too."""
        data = text.encode() if isinstance(text, str) else text
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"'
        argv = self.argv(["sh", "-ec", script, "sh", path, f"{mode:o}"])
        subprocess.run(argv, input=data, check=True, timeout=90)

    def read(self, path: str) -> str:
        """Return a file of the running host."""
        return self.run(["cat", path]).stdout

    def copy_in(self, source: Path, target: str) -> None:
        """Copy a directory of the machine into the running host."""
        archive = subprocess.run(
            ["tar", "-C", source, "-cf", "-", "."], capture_output=True, check=True, timeout=60
        )
        argv = self.argv(["sh", "-ec", 'mkdir -p "$1" && tar -C "$1" -xf -', "sh", target])
        subprocess.run(argv, input=archive.stdout, check=True, timeout=60)


def _without_corral(source: Path, target: Path) -> None:
    """Copy an account file of a machine that itself has corral's user or group."""
    lines = source.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("corral:")]
    if kept != lines:
        target.touch(source.stat().st_mode & 0o777)
        target.write_text("".join(kept))
        shutil.copystat(source, target)
        os.chown(target, source.stat().st_uid, source.stat().st_gid)


def _set_network(descriptor: int) -> None:
    """Move this thread into a network namespace (os.setns needs Python 3.12).

    The lab's only call of its kind: sharing agent/linux/calls.py, which the lab may not import,
    would take a module of its own for these two lines.
    """
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _with_path(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "env": {"PYTHONPATH": str(CHECKOUT), **(options.get("env") or {})}}


def _programs() -> list[Path]:
    """Return what corral itself is made of on this machine; hosts see it live and read-only."""
    wanted = [Path(sys.prefix), Path(sys.base_prefix).resolve()]
    if (CHECKOUT / "pyproject.toml").exists():
        wanted.append(CHECKOUT)
    found: list[Path] = []
    for path in sorted(wanted):
        if not any(path.is_relative_to(top) for top in [Path("/usr"), *found]):
            found.append(path)
    return found


def _own_file_system(path: str) -> bool:
    return not Path(path).is_symlink() and os.path.ismount(path)


def _start_time(pid: int) -> str:
    """Return when the process started, which together with its pid names it for ever."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def run_program(argv: list[str], stdin: str = "") -> str:
    """Run a program of the machine; return its output or raise LabError with its words."""
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, check=False, timeout=90
    )
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def kill_tree(pid: int) -> None:
    """End a process we started and everything it started."""
    children: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    except OSError:
        pass
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for child in children:
        kill_tree(child)
