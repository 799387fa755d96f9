"""A cluster of three lab hosts and a client outside it, as the multi-host tests drive it.

Commands run on n1 as an operator would type them; what is read back comes from the controller's
API and from the hosts. ``start`` joins n2 and n3 over SSH; ``clear`` ends a test: no stack is
left, and every host is as it was before the first test.
"""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.client.client import Client
from orchestrator.client.errors import NoAnswer
from orchestrator.lab.host import CHECKOUT
from tests import leaks, stalled, warm
from tests.e2e.cluster import OURS
from tests.lab_fixtures import end_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.lab.host import LabHost
    from orchestrator.lab.lab import Lab

FOLDER = "/root/stack"
KEY = "/root/.ssh/id_ed25519"
NODES = ("n1", "n2", "n3")
PROGRAMS = Path(__file__).parent / "programs"
# Of the files only those of tasks: a member's daemons rewrite their own.
OF_TASKS = "/tmp /var/tmp /dev/shm /var/lib/corral/agent/tasks /var/lib/corral/agent/volumes /run/corral/agent/netns"  # noqa: E501
# What the daemons of a member have that its first test made.
STEADY = (OURS, r"^sockets: ", r"^cgroups: \S+/corral$")
# skopeo's memory of where it saw blobs; it cannot be told another place.
SKOPEOS = r"files: /var/lib/containers/cache"


class Cluster:
    """Three nodes, of which n1 runs the controller."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.first = lab.host("n1")
        self.client = lab.client
        self.folder = FOLDER
        self.env: dict[str, str] = {}
        self.before: dict[str, leaks.Snapshot] = {}
        self.baseline: dict[str, leaks.Snapshot] = {}

    def host(self, name: str) -> LabHost:
        return self.lab.host(name)

    def ip(self, name: str) -> str:
        return str(self.lab.host(name).address.ipv4)

    # ---- commands ---------------------------------------------------------------------------

    def __call__(
        self, *words: str, code: int | None = 0, on: str = "n1", **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run ``corral words`` in the stack's folder and hold its exit code against ``code``."""
        options.setdefault("cwd", self.folder)
        options.setdefault("daemons", True)
        options.setdefault("timeout", 240.0)
        options["env"] = {**self.env, **(options.get("env") or {})}
        done = warm.corral(self.host(on), *words, check=False, **options)
        said = f"corral {' '.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr, said
        assert code is None or done.returncode == code, said
        return done

    def compose(self, text: str, name: str = "app", on: str = "n1", **files: str) -> None:
        """Lay out a stack's folder, the programs of ``programs/`` in it, and go there."""
        self.folder = f"{FOLDER}/{name}"
        self.first.run(["mkdir", "-p", self.folder])
        self.host(on).write(f"{self.folder}/compose.yaml", text)
        for program in PROGRAMS.glob("*.py"):
            self.host(on).write(f"{self.folder}/{program.name}", program.read_text())
        for path, content in files.items():
            self.host(on).write(f"{self.folder}/{path}", content)

    # ---- what is ----------------------------------------------------------------------------

    def get(self, path: str, **query: Any) -> Any:
        """Read the API; a controller that was just killed is waited for."""
        deadline = time.monotonic() + 60
        api = Client(f"unix:///proc/{self.first.pid}/root/run/corral/controller.sock")
        while True:
            try:
                return api.get(path, **query)
            except NoAnswer:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def rows(self, service: str = "", *, stack: str = "app") -> list[Any]:
        rows = self.get(f"/v1/stacks/{stack}/tasks")["tasks"]
        return [row for row in rows if not service or row["service"] == service]

    def ready(self, service: str, **where: Any) -> list[Any]:
        return [row for row in self.rows(service, **where) if row["ready"]]

    def task(self, row: Any) -> Any:
        """Return a task's whole record."""
        return self.get(f"/v1/tasks/{row['id']}")

    def nodes(self) -> dict[str, Any]:
        return {row["name"]: row for row in self.get("/v1/nodes")["nodes"]}

    def overlay(self, node: str) -> str:
        return str(self.get(f"/v1/nodes/{node}")["overlay"])

    def processes(self) -> dict[str, tuple[str, int, str]]:
        """Return task id -> (node, pid, start time) of every container that runs."""
        found = {}
        for row in self.rows():
            runs = self.task(row)["status"]["runs"]
            if runs and runs[-1]["finished_at"] is None:
                pid = int(runs[-1]["pid"])
                found[row["id"]] = (row["node"], pid, self.start_time(row["node"], pid))
        return found

    def start_time(self, node: str, pid: int) -> str:
        """Return when the host's process started, "" when there is none."""
        try:
            stat = Path(f"/proc/{self.host(node).pid}/root/proc/{pid}/stat").read_text()
        except OSError:
            return ""
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]

    def containers(self, node: str) -> int:
        """Count a host's containers by their monitors, whatever anybody reports."""
        return len(self.pids(node, lambda words: words[0].endswith("conmon")))

    def pids(self, node: str, wanted: Callable[[list[str]], bool]) -> list[int]:
        """Return the processes with such words; a child has its parent's until it has its own."""
        found: dict[int, int] = {}
        for entry in Path(f"/proc/{self.host(node).pid}/root/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    if words[0] and wanted(words):
                        parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                        found[int(entry.name)] = int(parent)
        return [pid for pid, parent in found.items() if parent not in found]

    def daemons(self, node: str, module: str) -> list[int]:
        """Return the pids of ``python -m module`` on a host."""
        return self.pids(
            node,
            lambda words: (
                "python" in words[0]
                and any(pair == ("-m", module) for pair in itertools.pairwise(words))
            ),
        )

    def supervisors(self, node: str) -> list[int]:
        """Return the pids of a host's supervisors."""
        return self.pids(node, lambda words: any(w.endswith("/supervisor.py") for w in words))

    def end_controller(self) -> None:
        """SIGKILL the controller and its supervisor, until neither is left.

        With the supervisor's pid file, or the agent would start another one.
        """

        def gone() -> bool:
            left = [*self.supervisors("n1"), *self.daemons("n1", "orchestrator")]
            kill = f"rm -f /run/corral/supervisor.pid; kill -9 {' '.join(map(str, left))}"
            self.first.run(["sh", "-c", kill if left else "true"], check=False)
            return not left

        self.until("no controller is left", gone)

    def kill(self, *what: tuple[str, str]) -> None:
        """SIGKILL daemons, given as (node, module), as much at once as possible."""
        pids = [(node, pid) for node, module in what for pid in self.daemons(node, module)]
        assert len(pids) >= len(what), f"not all run: {pids}"
        for node, pid in pids:
            self.host(node).run(["kill", "-9", str(pid)], check=False)

    def until(self, what: str, check: Callable[[], Any], limit: float = 60.0) -> float:
        """Wait until ``check()`` is true; return the seconds it took."""
        begun = time.monotonic()
        while not check():
            assert time.monotonic() - begun < limit, f"not within {limit:g} s: {what}{self.state()}"
            time.sleep(0.1)
        return time.monotonic() - begun

    def state(self) -> str:
        with suppress(Exception):
            return "\n" + "\n".join(
                f"{row['name']} on {row['node']}: {row['status']} ready={row['ready']}"
                for stack in self.get("/v1/stacks")["stacks"]
                for row in self.rows(stack=stack["name"])
            )
        return ""

    # ---- traffic ----------------------------------------------------------------------------

    def gone(self) -> bool:
        """Say whether no host has a container, by the monitors."""
        return not any(map(self.containers, NODES))

    def ask(self, host: str, questions: list[tuple[str, str, int]]) -> list[list[str]]:
        """Ask (protocol, address, port) from a host; [name, address seen, address asked] each."""
        argv = ["python3", "-I", "-", json.dumps(questions)]
        program = (PROGRAMS / "ask.py").read_text()
        answer: list[list[str]] = json.loads(self.host(host).run(argv, stdin=program).stdout)
        return answer

    @contextmanager
    def load(
        self, addresses: list[str], port: int, *, connections: int = 2
    ) -> Iterator[dict[str, Any]]:
        """Make requests from the client host meanwhile; the figures are filled in at the end."""
        argv = [sys.executable, "-I", "-c", (PROGRAMS / "load.py").read_text()]
        words = [",".join(addresses), str(port), str(connections)]
        # `up` ends when every task is ready; the nodes hear of the last one a moment later.
        self.until("every node answers", lambda: self.answering(addresses, port))
        process = self.client.popen([*argv, *words], **PIPES)
        with loading(process) as figures:
            yield figures

    def idle(self) -> bool:
        """Say whether no node holds a stack's network any more."""
        show = ["ip", "route", "show", "type", "blackhole"]
        routes = [self.host(name).run(show).stdout for name in NODES]
        return all("10.210.16" not in shown for shown in routes)

    def answering(self, addresses: list[str], port: int) -> bool:
        """Say whether a connection from the client host is taken at every address."""
        with self.client.network():
            for address in addresses:
                try:
                    socket.create_connection((address, port), 1.0).close()
                except OSError:
                    return False
        return True

    # ---- begin and end ----------------------------------------------------------------------

    def start(self) -> None:
        """Join the three hosts, as an operator does, and run a first stack on all of them."""
        self.before = {name: leaks.of_host(self.host(name)) for name in NODES}
        provide = [sys.executable, str(CHECKOUT / "scripts/base_images.py")]
        self.first.run([*provide, "busybox", "guestbook"], timeout=300)
        self.folder = "/root"
        self.begin()
        for name in NODES[1:]:
            key = self.host(name).fingerprint
            self("node", "add", f"root@{name}", "--identity", KEY, "--host-key", key)
        self.compose(WARM, "warm")
        self("up", "-d")
        self("down", "-v", "-t", "0")
        # The last network's traces go a moment after `down`.
        self.until("idle nodes", self.idle)
        self.baseline = {name: self.snapshot(name) for name in NODES}
        for taken in self.baseline.values():
            taken["processes"] = []  # only our daemons stay; a tool may just have been at work

    def begin(self) -> None:
        """Have a controller; on a very busy machine `controller start` gives up before it is."""
        self.until(
            "a controller", lambda: self("controller", "start", code=None).returncode == 0, 240
        )

    def snapshot(self, node: str) -> leaks.Snapshot:
        taken = leaks.here_of(self.host(node), leaks.RUNTIME)
        find = f"find {OF_TASKS} -xdev -mindepth 1 2>/dev/null || true"
        taken["files"] = sorted(self.host(node).run(["sh", "-c", find]).stdout.splitlines())
        return taken

    def remove_stacks(self) -> None:
        for row in self.get("/v1/stacks")["stacks"]:
            self("-p", row["name"], "down", "-v", "-t", "0")

    def repair(self) -> None:
        """End the faults of a test: power, network, labels, availability."""
        for name in NODES:
            self.lab.heal(name)
            if self.host(name).pid is None:
                self.lab.power_on(name)
        self.begin()
        self.until(
            "all nodes are ready",
            lambda: [row["status"] for row in self.nodes().values()] == ["ready"] * 3,
            120,
        )
        for name, row in self.nodes().items():
            if row["labels"]:
                self("node", "label", name, *(f"{label}-" for label in row["labels"]))

    def clear(self) -> list[str]:
        """Remove every stack; return what differs on any host from before the test."""
        self.folder = "/root"
        self.repair()
        self.remove_stacks()
        left = []
        for name in NODES:
            self.host(name).run(["rm", "-rf", FOLDER])
            kinds = (*leaks.RUNTIME, "files")
            take = lambda name=name: self.snapshot(name)  # noqa: E731 - named only for the call
            found = leaks.settled(take, self.baseline[name], kinds=kinds, allow=STEADY)
            left += [f"{name} {line}" for line in found]
            left += stalled.on(self.host(name))
        return left

    def stop(self) -> list[str]:
        """Dissolve the cluster; return what differs on any host from before it was one."""
        self.folder = "/root"
        self.repair()
        self.remove_stacks()
        left = []
        for name in NODES[1:]:
            self("node", "rm", name)
        end_cluster(self.first)
        for name in NODES:
            # The first node was no guest: its state stays where `controller stop` leaves it.
            allow = (SKOPEOS, *((r"files: /var/lib/corral",) if name == "n1" else ()))
            take = lambda name=name: leaks.of_host(self.host(name))  # noqa: E731 - as above
            found = leaks.settled(take, self.before[name], allow=allow)
            left += [f"{name} {line}" for line in found]
        return left


PIPES: dict[str, Any] = {
    "stdin": subprocess.PIPE,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
    "text": True,
}


@contextmanager
def loading(process: subprocess.Popen[Any]) -> Iterator[dict[str, Any]]:
    """Run programs/load.py in ``process`` until the block ends; then fill in its figures."""
    figures: dict[str, Any] = {}
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n", process.communicate(timeout=10)
        yield figures
    finally:
        out, errors = process.communicate("stop\n", timeout=90)
    assert process.returncode == 0, errors
    figures.update(json.loads(out))


WARM = """
services:
  every:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    ports: ["8999:80"]
    deploy: {mode: global}
"""
