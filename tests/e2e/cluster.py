"""One machine's cluster in a lab host, as the end-to-end tests drive it.

Commands run as a user would type them; what is read back comes from the controller's API and
from the host's /proc. A test ends with :meth:`Cluster.clear`, which removes every stack and
compares the host with what it was before the test.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.client.client import Client
from orchestrator.client.errors import ClientError, NoAnswer
from orchestrator.lab.host import CHECKOUT
from tests import leaks, stalled, warm
from tests.lab_fixtures import leave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from orchestrator.lab.host import LabHost

FOLDER = "/root/stack"
DAEMONS = ("controller", "agent", "dns", "supervisor")
# Our daemons, and the nft they run for a moment, come and go; everything else that runs must not.
OURS = r"^processes: \S+ (nft |.*(-m orchestrator|-m agent|/supervisor\.py|agent\.dns))"
# The daemons' doors are bound under a passing name.
DOORS = r"^sockets: unix .*\.sock"
ROOTS = (
    "/run/corral /tmp /var/tmp /dev/shm /var/lib/corral/agent/tasks /var/lib/corral/agent/volumes"
)
# Locks, logs of the daemons and what they rewrite while nothing of a stack is there.
KEPT_FILES = re.compile(
    r"^/run/corral/[a-z.]+$|^/run/corral/projects/|^/run/corral/agent/(build|dns|network|crun|spawner)"
)


_numbers = itertools.count()


@dataclass
class Command:
    """A ``corral`` under way: the process to wait for, and the pid inside to send signals to."""

    host: LabHost
    process: subprocess.Popen[Any]
    pid: int

    def signal(self, name: str) -> None:
        self.host.run(["kill", f"-{name}", str(self.pid)], check=False)

    def finish(self, timeout: float = 90.0) -> tuple[int, str, str]:
        """Return exit code, output and errors once it has ended."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.signal("KILL")
            out, err = self.process.communicate()
            raise AssertionError(f"no end in {timeout:g} s\n{out}{err}") from None
        return self.process.returncode, out or "", err or ""


class Cluster:
    """A started controller and agent on ``host``."""

    def __init__(self, host: LabHost) -> None:
        self.host = host
        self.folder = FOLDER
        self.env: dict[str, str] = {}
        self.baseline: leaks.Snapshot = {}

    # ---- commands ---------------------------------------------------------------------------

    def __call__(
        self, *words: str, code: int | None = 0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run ``corral words`` in the stack's folder and hold its exit code against ``code``."""
        options.setdefault("cwd", self.folder)
        options.setdefault("daemons", True)
        options.setdefault("timeout", 180.0)
        options["env"] = {**self.env, **(options.get("env") or {})}
        done = warm.corral(self.host, *words, check=False, **options)
        said = f"corral {' '.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr, said
        assert code is None or done.returncode == code, said
        return done

    def popen(self, *words: str, **options: Any) -> Command:
        """Start ``corral words``."""
        env = {"PYTHONPATH": str(CHECKOUT), **self.env, **(options.pop("env", None) or {})}
        argv = [sys.executable, "-m", "orchestrator.cli.main", *words]
        note = f"/root/pid-{next(_numbers)}"
        wrapped = ["sh", "-c", f'echo $$ > {note}; exec "$@"', "sh", *argv]
        process = self.host.popen(wrapped, env=env, cwd=self.folder, **options)
        read = f"cat {note} 2>/dev/null || true"
        pid = int(self.until("the command's pid", lambda: self.sh(read)))
        self.sh(f"rm {note}")
        return Command(self.host, process, pid)

    def compose(self, text: str, name: str = "app", **files: str) -> None:
        """Lay out a stack's folder and make it the one commands run in."""
        self.folder = f"{FOLDER}/{name}"
        self.host.write(f"{self.folder}/compose.yaml", text)
        for path, content in files.items():
            self.host.write(f"{self.folder}/{path}", content)

    def sh(self, script: str, **options: Any) -> str:
        """Run a shell script on the host itself and return its output."""
        out: str = self.host.run(["sh", "-c", script], **options).stdout
        return out.strip()

    # ---- what is ----------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The API of the controller, reached through the host's root directory."""
        return Client(f"unix:///proc/{self.host.pid}/root/run/corral/controller.sock")

    def get(self, path: str, **query: Any) -> Any:
        """Read the API; a controller that was just killed is waited for."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.client.get(path, **query)
            except NoAnswer:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def rows(self, stack: str = "app", service: str = "", *, ended: bool = False) -> list[Any]:
        rows = self.get(f"/v1/stacks/{stack}/tasks", all=ended)["tasks"]
        return [row for row in rows if not service or row["service"] == service]

    def row(self, name: str, stack: str = "app") -> Any:
        (found,) = [r for r in self.rows(stack, ended=True) if r["name"] == f"{stack}-{name}"]
        return found

    def task(self, row: Any) -> Any:
        """Return a task's whole record."""
        return self.get(f"/v1/tasks/{row['id']}")

    def pid(self, name: str, stack: str = "app") -> int:
        return int(self.task(self.row(name, stack))["status"]["runs"][-1]["pid"])

    def written_at(self, name: str, path: str, stack: str = "app") -> float:
        """Return when a file that a container sees was last written, by the host's clock."""
        return float(self.sh(f"stat -c %.9Y /proc/{self.pid(name, stack)}/root{path}"))

    def processes(self, stack: str = "app") -> dict[str, tuple[int, str]]:
        """Return task id -> (pid, start time) of every container that runs."""
        found = {}
        for row in self.rows(stack):
            runs = self.task(row)["status"]["runs"]
            if runs and runs[-1]["finished_at"] is None:
                pid = int(runs[-1]["pid"])
                found[row["id"]] = (pid, self.start_time(pid))
        return found

    def start_time(self, pid: int) -> str:
        """Return when the host's process started, "" when there is none."""
        try:
            stat = Path(f"/proc/{self.host.pid}/root/proc/{pid}/stat").read_text()
        except OSError:
            return ""
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]

    def daemon(self, name: str) -> int:
        """Return a daemon's pid on the host, 0 when it does not run."""
        module = {
            "controller": "-m orchestrator --embedded",
            "agent": "-m agent",
            "dns": "-m agent.dns",
            "supervisor": "orchestrator/embedded/supervisor.py",
        }[name]
        for entry in Path(f"/proc/{self.host.pid}/root/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    if re.search(rf"{re.escape(module)}( /|$)", f"{words}") and "python" in words:
                        return int(entry.name)
        return 0

    def kill(self, *daemons: str) -> None:
        """SIGKILL daemons, all in one go."""
        pids = [str(pid) for pid in map(self.daemon, daemons) if pid]
        if pids:
            self.host.run(["kill", "-9", *pids], check=False)

    def until(self, what: str, check: Callable[[], Any], limit: float = 60.0) -> Any:
        """Wait until ``check()`` is true and return what it returned."""
        deadline = time.monotonic() + limit
        while True:
            found = check()
            if found:
                return found
            assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
            time.sleep(0.05)

    # ---- begin and end ----------------------------------------------------------------------

    def start(self) -> None:
        """Start controller and agent and run a first stack, so that per-node objects exist."""
        provide = [sys.executable, str(CHECKOUT / "scripts/base_images.py")]
        self.host.run([*provide, "busybox", "guestbook"], timeout=300)
        self.folder = "/root"
        self.begin()
        self.compose("services: {a: {image: busybox, command: [sleep, inf]}}", "warm")
        self("up", "-d")
        self("down", "-v", "-t", "0")
        # The last network's traces go a moment after `down`.
        self.until("an idle node", lambda: "blackhole 10.210.16" not in self.sh("ip route"))
        self.baseline = self.until("nobody but the daemons", self._at_rest)

    def _at_rest(self) -> leaks.Snapshot | None:
        """Return what there is, None while what ended with the first stack is still ending."""
        taken = self.snapshot()
        return None if leaks.difference({}, taken, ("processes",), (OURS,)) else taken

    def begin(self) -> None:
        """Have a controller; on a very busy machine `controller start` gives up before it is."""
        self.until(
            "a controller", lambda: self("controller", "start", code=None).returncode == 0, 240
        )

    def new_supervisor(self) -> None:
        """Have another supervisor: it adopts what lives and knows nothing of earlier crashes.

        It is waited for. On a very busy machine its start fails, and is tried again by the daemons:
        who kills those before it is there has nobody left who would start anything.
        """
        self.kill("supervisor")
        self.begin()
        self.until("a supervisor", lambda: self.daemon("supervisor"), 120)

    def snapshot(self) -> leaks.Snapshot:
        taken = leaks.here_of(self.host, leaks.RUNTIME)
        found = self.sh(f"find {ROOTS} -xdev -mindepth 1 2>/dev/null || true").splitlines()
        taken["files"] = sorted(path for path in found if not KEPT_FILES.search(path))
        return taken

    def remove_stacks(self) -> None:
        for row in self.get("/v1/stacks")["stacks"]:
            self("-p", row["name"], "down", "-v", "-t", "0")

    def clear(self) -> list[str]:
        """Remove every stack; return what differs from the baseline, and stalls of our loops."""
        self.begin()
        self.remove_stacks()
        kinds = (*leaks.RUNTIME, "files")
        self.host.run(["rm", "-rf", FOLDER])
        left = leaks.settled(self.snapshot, self.baseline, kinds=kinds, allow=(OURS, DOORS))
        return [*left, *stalled.on(self.host)]

    def stop(self) -> None:
        """Take the machine out of the cluster and end the daemons: as before the first ``up``."""
        with contextlib.suppress(ClientError, AssertionError):
            self.remove_stacks()
        self.unsupervised()
        self.kill("controller")
        leave(self.host)
        self.folder = "/root"
        self("controller", "stop", code=None)
        self.unsupervised()
        self.kill(*DAEMONS)
        self.host.run(["rm", "-rf", "/run/corral", "/var/lib/corral/controller", FOLDER])

    def unsupervised(self) -> None:
        """End the supervisor so that no daemon starts another, which would start them all."""
        self.sh("rm -f /run/corral/supervisor.pid")
        self.kill("supervisor")


def names(rows: Iterable[Any]) -> list[str]:
    """Return the tasks' names without the stack's, sorted."""
    return sorted(row["name"].partition("-")[2] for row in rows)


def json_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]
