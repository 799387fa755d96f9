"""Four joined lab hosts with a stack on them, clients that ask it all the time, and eyes.

n1 has the controller, n4 is what most faults happen to. n1 and n4 have a disk of their own (a file
with ext4 on it), so that it can be filled. The clients are processes of the machine that only
use the network of a container, or of the host ``client``: what is done to a host does not stop
them, so that they see all of it. Nothing here decides what a fault means (cases.py, figures.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from orchestrator.client.client import Client
from orchestrator.client.errors import ClientError
from orchestrator.lab import cgroups
from orchestrator.lab.host import CHECKOUT, run_program
from orchestrator.lab.lab import Lab, down_stale
from tests.bench.faults.figures import Request, parse
from tests.e2e.multi.cluster import KEY, Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.lab.host import LabHost

NODES = ("n1", "n2", "n3", "n4")
DISKS = ("n1", "n4")  # the hosts whose disk can be filled
DISK_MIB = 1500
PORT = 9080
WANTED = 4  # replicas of web
RATE, PATIENCE = 15.0, 2.0  # requests a second of a client; seconds one may take
LOOK = 0.1  # seconds between two looks at what runs
PROGRAM = str(Path(__file__).with_name("asking.py"))
WRITER = (CHECKOUT / "tests/chaos/programs/write.py").read_text()
STACK = """\
services:
  web:
    image: corral/debian-base:12
    command: [python3, -u, -I, /slow.py, serve, "80"]
    init: true
    restart: always
    networks: [front]
    ports: ["9080:80"]
    stop_grace_period: 2s
    configs: [{source: slow, target: /slow.py}]
    healthcheck: {test: [CMD, bash, -c, "exec 3<>/dev/tcp/127.0.0.1/80"],
      interval: 3s, start_period: 20s, start_interval: 200ms}
    deploy: {replicas: 4}
  data:
    image: corral/debian-base:12
    command: [python3, -u, -I, /writer.py]
    init: true
    restart: always
    stop_grace_period: 0s
    configs: [{source: writer, target: /writer.py}]
    volumes: ["kept:/data"]
    deploy: {placement: {constraints: [node.hostname == n4]}}
  every:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    networks: [front]
    stop_grace_period: 0s
    deploy: {mode: global}
networks: {front: {}}
volumes: {kept: {}}
configs: {slow: {file: ./slow.py}, writer: {file: ./writer.py}}
"""


class Clients:
    """Processes that ask; what they found so far is read from their files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, network: str, address: str, port: int) -> None:
        """Ask from a network namespace; one client more than once is the same client."""
        self.stop(name)
        words = [sys.executable, "-I", "-S", PROGRAM, address, str(port), str(RATE), str(PATIENCE)]
        with (self._folder / name).open("ab") as output:
            self._processes[name] = subprocess.Popen(
                ["nsenter", f"--net={network}", *words], stdout=output
            )

    def stop(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def close(self) -> None:
        for name in list(self._processes):
            self.stop(name)

    def requests(self, names: Callable[[str], bool]) -> list[Request]:
        """Return what the clients with such a name found."""
        found: list[Request] = []
        for file in self._folder.iterdir():
            if names(file.name):
                found += parse(file.name, file.read_text())
        return found


class Eyes:
    """Looks ten times a second at which tasks have a process, on any host, whatever is reported."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.most = 0  # copies of web at once
        self.writers = 0  # tasks of data at once, on the host with its volume

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(LOOK):
            running = self._stage.running()
            of = self._stage.service_of
            unknown = [task for _, task in running if task not in of]
            if unknown:
                self._stage.learn()
            self.most = max(self.most, sum(of.get(task) == "web" for _, task in running))
            data = [where for where, task in running if of.get(task) == "data"]
            self.writers = max([self.writers, *(data.count(host) for host in data)])


class Stage:
    """The cluster, its stack and its clients. ``settings``: the controller's environment."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.cluster = Cluster(lab)
        self.clients = Clients(folder)
        self.service_of: dict[str, str] = {}
        self.no_controller = threading.Event()

    def host(self, name: str) -> LabHost:
        return self.lab.host(name)

    def begin(self, settings: dict[str, str]) -> None:
        """Have a controller, four nodes and the stack."""
        cluster = self.cluster
        provide = [sys.executable, str(CHECKOUT / "scripts/base_images.py"), "busybox", "guestbook"]
        cluster.folder = "/root"
        done = self.host("n1").corral("controller", "start", env=settings, timeout=240)
        assert done.returncode == 0
        self.host("n1").run(provide, timeout=300)
        for name in NODES[1:]:
            key = self.host(name).fingerprint
            cluster("node", "add", f"root@{name}", "--identity", KEY, "--host-key", key)
        cluster.compose(STACK, **{"writer.py": WRITER})
        cluster("up", "-d")
        self.balance()

    def balance(self) -> None:
        """Have one web task on each node, and every client where it belongs."""
        cluster = self.cluster
        cluster.until("all nodes are ready", self.all_ready, 180)
        cluster.until("the stack is whole", self.whole, 180)
        for _ in range(5):
            if sorted(row["node"] for row in cluster.ready("web")) == [*NODES]:
                break
            cluster("scale", "web=0", code=None)
            cluster("scale", f"web={WANTED}", code=None)
            cluster.until("the stack is whole", self.whole, 180)
        else:
            raise AssertionError(f"web is not on every node{cluster.state()}")
        self.learn()
        self.ask()
        cluster.until("nothing fails", lambda: self.quiet(3.0), 120)

    def ask(self) -> None:
        """Start the clients, those anew whose container is another one."""
        words = (
            "exec",
            "-T",
            "every",
            "python3",
            "-c",
            "import socket as s;print(s.gethostbyname('web'))",
        )
        vip = self.cluster(*words).stdout.strip()
        for task, (node, pid, _) in self.cluster.processes().items():
            if self.service_of.get(task) == "every":
                network = f"/proc/{self.host(node).pid}/root/proc/{pid}/ns/net"
                self.clients.start(f"vip-{node}", network, vip, 80)
        outside = f"/proc/{self.lab.client.pid}/ns/net"
        for node in NODES:
            self.clients.start(f"port-{node}", outside, self.cluster.ip(node), PORT)

    # ---- what is -----------------------------------------------------------------------------

    def learn(self) -> None:
        """Note which service each task belongs to; a controller that is away is not waited for."""
        api = Client(f"unix:///proc/{self.host('n1').pid}/root/run/corral/controller.sock")
        with suppress(ClientError):
            for row in api.get("/v1/stacks/app/tasks")["tasks"]:
                self.service_of[row["id"]] = row["service"]

    def running(self) -> list[tuple[str, str]]:
        """Return (host, task) of every task that has a process."""
        found = []
        for name in NODES:
            for top in cgroups.directories(f"{self.host(name).cgroup}/corral")[:1]:
                with suppress(OSError):  # the host goes off while it is looked at
                    groups = [group for group in top.iterdir() if group.is_dir()]
                    found += [(name, group.name) for group in groups if _populated(group)]
        return found

    def all_ready(self) -> bool:
        return [row["status"] for row in self.cluster.nodes().values()] == ["ready"] * len(NODES)

    def whole(self) -> bool:
        """Say whether there is exactly what is wanted, by the hosts too."""
        rows = self.cluster.rows()
        services = sorted(row["service"] for row in rows)
        wanted = ["data", *["every"] * len(NODES), *["web"] * WANTED]
        return (
            services == wanted
            and all(row["ready"] for row in rows)
            and {task for _, task in self.running()} == {row["id"] for row in rows}
        )

    def quiet(self, seconds: float, *, without: str = "") -> bool:
        """Say whether nothing failed lately, as far as other hosts' clients know."""
        now = time.monotonic()
        names = lambda name: not (without and name.endswith(without))  # noqa: E731 - two uses
        recent = [r for r in self.clients.requests(names) if r.begun > now - seconds - PATIENCE]
        old = [r for r in recent if r.begun < now - PATIENCE]
        return len(old) > 10 and all(request.task for request in recent)

    def wrote_twice(self) -> bool:
        """Say whether the volume ever had two writers, by its own word."""
        find = ["find", "/var/lib/corral/agent/volumes", "-name", "twice"]
        return bool(self.host("n4").run(find).stdout.strip())

    # ---- what is done ------------------------------------------------------------------------

    def end_controller(self) -> None:
        """Have no controller until ``no_controller`` is cleared: what starts one is killed too."""

        def kill() -> bool:
            cluster = self.cluster
            left = [*cluster.supervisors("n1"), *cluster.daemons("n1", "orchestrator")]
            for pid in left:
                self.host("n1").run(["kill", "-9", str(pid)], check=False)
            return not left

        def keep_killing() -> None:
            while self.no_controller.is_set():
                kill()
                time.sleep(LOOK)

        self.no_controller.set()
        self.cluster.until("no controller is left", kill, 30)
        threading.Thread(target=keep_killing, daemon=True).start()

    def fill(self, name: str) -> None:
        """Fill a host's disk to the last block."""
        script = "cd /var/lib/corral; fallocate -l $(df --output=avail -B1 . | tail -1) full;"
        script += " cat /dev/zero >> full; sync; true"
        self.host(name).run(["sh", "-c", script], timeout=120)

    def free(self, name: str) -> None:
        self.host(name).run(["rm", "-f", "/var/lib/corral/full"])

    def remount(self, name: str, place: str, how: str, *, check: bool = True) -> None:
        """Have a host's disk be ``ro`` or ``rw`` for what its daemons open there."""
        self.host(name).run(["mount", "-o", f"remount,bind,{how}", place], check=check)

    def kill_tasks(self, node: str, *services: str) -> None:
        """SIGKILL the first process of a node's containers of these services."""
        for task, (where, pid, _) in self.cluster.processes().items():
            if where == node and self.service_of.get(task) in services:
                self.host(node).run(["kill", "-9", str(pid)], check=False)


def _populated(group: Path) -> bool:
    try:
        if (group / "cgroup.procs").read_text().strip():
            return True
        return any(_populated(inner) for inner in group.iterdir() if inner.is_dir())
    except OSError:
        return False


@contextmanager
def stage(folder: Path, settings: dict[str, str]) -> Iterator[Stage]:
    """Make it all, and take it down whatever happens. In a mount namespace of ours."""
    down_stale()
    lab = Lab.up(f"faults-{uuid.uuid4().hex[:8]}", len(NODES), client=True, owner=os.getpid())
    with ExitStack() as ends:
        ends.callback(lab.down)
        for name in DISKS:
            ends.callback(_own_disk(lab, name, folder))
        made = Stage(lab, folder / "clients")
        (folder / "clients").mkdir()
        ends.callback(made.clients.close)
        made.begin(settings)
        yield made


def _own_disk(lab: Lab, name: str, folder: Path) -> Callable[[], None]:
    """Give a host a disk of its own; return what takes it away again."""
    host, image = lab.host(name), folder / f"{name}.ext4"
    host.power_off()
    with image.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    run_program(["mkfs.ext4", "-q", "-m", "0", str(image)])
    run_program(["mount", "-o", "loop", str(image), str(host.disk)])
    host.boot()

    def away() -> None:
        lab.host(name).power_off()
        run_program(["umount", "--lazy", str(host.disk)])

    return away
