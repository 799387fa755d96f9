"""Five joined lab hosts with disks of their own, three stacks, clients that ask, and eyes.

n1 has the controller. ``calm`` is what no command but drain is about, ``work`` is changed and
scaled, ``small`` comes and goes. Clients are processes of the machine in the network of a host's
container, so that what is done to a host does not stop them. Nothing is judged here (laws.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from orchestrator.lab.host import CHECKOUT
from orchestrator.lab.lab import Lab, down_stale
from tests import leaks, stalled
from tests.chaos.laws import Asked, Life
from tests.chaos.schedule import NODES
from tests.e2e.multi.cluster import KEY, STEADY, WARM, Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path(__file__).parent / "programs"
DISK_MIB = 1500
PORT = 9080
PATIENCE, LONG = 10.0, 4.0  # seconds a request may take; of a long one's answer
LOOK = 0.5  # seconds between two looks at what runs
# What a wrong clock is made of stays mounted until the host's next boot.
CLOCKS = r"^mounts: .*(lab-clock|sitecustomize)"
CALM = """\
services:
  web:
    image: corral/debian-base:12
    command: [python3, -u, -I, /serve.py, "80"]
    init: true
    restart: always
    networks: [front]
    ports: ["9080:80"]
    stop_grace_period: 30s
    configs: [{source: serve, target: /serve.py}]
    healthcheck: {test: [CMD, bash, -c, "exec 3<>/dev/tcp/127.0.0.1/80"],
      interval: 5s, timeout: 30s, start_period: 60s, start_interval: 300ms}
    deploy: {replicas: 4}
  data:
    image: corral/debian-base:12
    command: [python3, -u, -I, /write.py]
    init: true
    restart: always
    stop_grace_period: 0s
    configs: [{source: write, target: /write.py}]
    volumes: ["kept:/data"]
    deploy: {placement: {constraints: [node.hostname == n4]}}
  every:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    restart: always
    networks: [front]
    stop_grace_period: 0s
    deploy: {mode: global}
networks: {front: {}}
volumes: {kept: {}}
configs: {serve: {file: ./serve.py}, write: {file: ./write.py}}
"""
WORK = """\
services:
  roll:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    restart: always
    stop_grace_period: 1s
    environment: {VERSION: "${VERSION}"}
    deploy: {replicas: 3, update_config: {parallelism: 2, order: start-first, monitor: 0s}}
  base:
    image: corral/debian-base:12
    command: [python3, -u, -I, /write.py]
    init: true
    restart: always
    stop_grace_period: 1s
    environment: {VERSION: "${VERSION}"}
    configs: [{source: write, target: /write.py}]
    volumes: ["kept:/data"]
volumes: {kept: {}}
configs: {write: {file: ./write.py}}
"""
SMALL = """\
services:
  one:
    image: corral/debian-base:12
    command: [sleep, inf]
    init: true
    restart: always
    stop_grace_period: 1s
    networks: [own]
    volumes: ["dir:/data"]
networks: {own: {}}
volumes: {dir: {}}
"""
FOLDERS = {"calm": CALM, "work": WORK, "small": SMALL}


@dataclass
class Client:
    """A process that asks from a network, "outside" or a node's container. ``seen``: it lived."""

    name: str
    space: str  # its network namespace
    file: Path
    process: subprocess.Popen[bytes]
    seen: float = 0.0  # the machine's clock when its container was last seen to live


class Stage:
    """The cluster, its stacks, its clients and what is seen of them."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.cluster = Cluster(lab)
        self.baseline: dict[str, leaks.Snapshot] = {}
        self.steady: set[str] = set()
        self.began = time.monotonic()
        self._clients: dict[str, Client] = {}
        self._all: list[Client] = []

    def now(self) -> float:
        return time.monotonic() - self.began

    # ---- begin -------------------------------------------------------------------------------

    def begin(self) -> None:
        """Have a controller, five nodes, three stacks and every client at work."""
        cluster, first = self.cluster, self.lab.host("n1")
        cluster.folder = "/root"
        provide = [sys.executable, str(CHECKOUT / "scripts/base_images.py"), "guestbook"]
        first.run(provide, timeout=300)
        cluster.begin()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self._join, NODES[1:]))
        cluster.compose(WARM, "warm")
        cluster("up", "-d")
        cluster("down", "-v", "-t", "0")
        cluster.until("idle nodes", self._idle)
        self.baseline = {name: cluster.snapshot(name) for name in NODES}
        for taken in self.baseline.values():
            taken["processes"] = []  # only our daemons stay; a tool may just have been at work
        programs = {path.name: path.read_text() for path in PROGRAMS.glob("*.py")}
        for name, text in FOLDERS.items():
            cluster.compose(text, name, **programs)
            self.corral(name, "up", "-d", version=0, code=0)
        cluster.until("all is ready", lambda: not self.differs({"roll": 3, "one": 1}), 180)
        self.steady = {row["id"] for row in cluster.rows(stack="calm")}

    def _join(self, name: str) -> None:
        key = self.lab.host(name).fingerprint
        words = ("node", "add", f"root@{name}", "--identity", KEY, "--host-key", key)
        self.cluster(*words, cwd="/root")

    def _idle(self) -> bool:
        show = ["ip", "route", "show", "type", "blackhole"]
        return all("10.210.16" not in self.lab.host(n).run(show).stdout for n in NODES)

    def corral(
        self,
        stack: str,
        *words: str,
        version: int = 0,
        code: int | None = None,
        timeout: float = 240.0,
    ) -> subprocess.CompletedProcess[str]:
        """Type a command in a stack's folder. Raises LabError: killed after ``timeout`` seconds."""
        folder = f"/root/stack/{stack}" if stack else "/root"
        return self.cluster(
            *words, code=code, cwd=folder, env={"VERSION": str(version)}, timeout=timeout
        )

    # ---- clients -----------------------------------------------------------------------------

    def asking(self) -> int:
        """Count the clients that have had an answer."""
        return len({client.name for client in self._all if client.file.stat().st_size})

    def attend(self) -> None:
        """Have a client in the network of every host's container, and one outside; one thread."""
        if "outside" not in self._clients:
            addresses = ",".join(self.cluster.ip(node) for node in NODES)
            self._ask("outside", f"/proc/{self.lab.client.pid}/ns/net", "", addresses)
        self._clients["outside"].seen = time.monotonic()
        for node, pid in self.everywhere().items():
            root = f"/proc/{self.lab.host(node).pid}/root/proc/{pid}"
            with suppress(OSError):  # the host goes off while it is looked at
                now = time.monotonic()
                space = os.readlink(f"{root}/ns/net")
                if node not in self._clients or self._clients[node].space != space:
                    lines = Path(f"{root}/root/etc/resolv.conf").read_text().splitlines()
                    servers = [line.split()[1] for line in lines if line.startswith("nameserver")]
                    self._ask(node, f"{root}/ns/net", space, "-", servers[0], "web")
                self._clients[node].seen = now

    def everywhere(self) -> dict[str, int]:
        """Return node -> pid, on that host, of the container that clients live in."""
        found = {}
        for node in NODES:
            with suppress(OSError):
                pids = self.cluster.pids(node, lambda words: words[:2] == ["sleep", "inf"])
                for pid in pids:
                    folder = Path(f"/proc/{self.lab.host(node).pid}/root/proc/{pid}")
                    if "every" in (folder / "root/etc/hostname").read_text():
                        found[node] = pid
        return found

    def _ask(self, name: str, network: str, space: str, addresses: str, *names: str) -> None:
        self._end_client(name)
        program = [sys.executable, "-I", "-S", str(PROGRAMS / "ask.py")]
        port = str(PORT if name == "outside" else 80)
        words = [*program, str(PATIENCE), str(LONG), addresses, port, *names]
        file = self.folder / f"{name}.{len(self._all)}"
        with file.open("ab") as output:
            process = subprocess.Popen(
                ["nsenter", f"--net={network}", *words],
                stdout=output,
                stderr=subprocess.DEVNULL,  # its host may go at any time
            )
        self._clients[name] = Client(name, space, file, process)
        self._all.append(self._clients[name])

    def _end_client(self, name: str) -> None:
        client = self._clients.pop(name, None)
        if client is not None:
            client.process.kill()
            client.process.wait()

    def end_clients(self) -> None:
        for client in self._all:
            client.process.kill()
            client.process.wait()

    def asked(self) -> list[Asked]:
        """Return every request so far, in order of its end.

        Of a container's client only those that ended while that lived: what comes after is said
        by nobody.
        """
        nodes = {self.cluster.ip(node): node for node in NODES}
        found = []
        for client in self._all:
            for line in client.file.read_text().splitlines():
                fields = line.split(" ")
                if len(fields) != 5 or float(fields[0]) + float(fields[1]) > client.seen:
                    continue
                begun, took, kind, address, said = fields
                when, at = float(begun) - self.began, nodes.get(address, "")
                found.append(Asked(client.name, when, float(took), kind, at, said))
        return sorted(found, key=lambda one: one.ended)

    # ---- what runs ---------------------------------------------------------------------------

    def monitors(self) -> dict[tuple[str, str, str], int]:
        """Return (node, task, run) -> pid of each container's monitor, on hosts that are on.

        A run is named by its monitor, as nothing else of it is the same all the time.
        """
        found = {}
        for node in NODES:
            root = Path(f"/proc/{self.lab.host(node).pid}/root/proc")
            with suppress(OSError):
                for entry in root.iterdir():
                    with suppress(OSError, ValueError):
                        if not entry.name.isdigit():
                            continue
                        if (entry / "comm").read_text() != "conmon\n":
                            continue
                        words = (entry / "cmdline").read_bytes().decode().split("\0")
                        fields = (entry / "stat").read_text().rpartition(")")[2].split()
                        if fields[0] not in "ZX":
                            task = words[words.index("--cid") + 1]
                            found[node, task, f"{entry.name}@{fields[19]}"] = int(entry.name)
        return found

    def differs(self, wanted: dict[str, Any]) -> str:
        """Return how what there is differs from what is wanted, "" = not at all.

        ``wanted``: replicas of ``roll`` and ``one`` (a number, or what says whether it allows
        one), beside ``calm``, which is always the same.
        """
        nodes = self.cluster.nodes()
        lame = {n: row["status"] for n, row in nodes.items() if row["status"] != "ready"}
        if lame or len(nodes) != len(NODES):
            return f"nodes: {lame or nodes.keys()}"
        rows = [row for stack in FOLDERS for row in self._rows(stack)]
        counts = {"web": 4, "data": 1, "base": 1, "every": len(NODES), **wanted}
        for service, count in counts.items():
            mine = [row for row in rows if row["service"] == service]
            allowed = count.allows(len(mine)) if hasattr(count, "allows") else count == len(mine)
            if not allowed:
                return f"{service}: {len(mine)} tasks, wanted {count}"
        unready = [f"{row['name']}: {row['status']}" for row in rows if not row["ready"]]
        if unready:
            return "; ".join(unready)
        running = [task for _, task, _ in self.monitors()]
        if sorted(running) != sorted(row["id"] for row in rows):
            return f"run by the hosts: {sorted(running)}, by the controller: {_ids(rows)}"
        return ""

    def _rows(self, stack: str) -> list[Any]:
        stacks = {row["name"] for row in self.cluster.get("/v1/stacks")["stacks"]}
        return self.cluster.rows(stack=stack) if stack in stacks else []

    def versions(self) -> set[str]:
        """Return which versions the containers of ``work`` have, by their environment."""
        found = set()
        for row in self._rows("work"):
            pid = self.cluster.task(row)["status"]["runs"][-1]["pid"]
            root = f"/proc/{self.lab.host(row['node']).pid}/root/proc/{pid}/environ"
            lines = Path(root).read_bytes().decode().split("\0")
            found |= {line.partition("=")[2] for line in lines if line.startswith("VERSION=")}
        return found

    def wrote_twice(self) -> bool:
        """Tell whether a volume ever had two writers, by its own word."""
        find = ["find", "/var/lib/corral/agent/volumes", "-name", "twice"]
        return any(self.lab.host(node).run(find, check=False).stdout.strip() for node in NODES)

    def writes(self) -> dict[str, list[str]]:
        """Return volume -> the nodes that have it; one of two would be somebody's lost data."""
        found: dict[str, list[str]] = {}
        find = ["find", "/var/lib/corral/agent/volumes", "-name", "lock", "-path", "*kept*"]
        for node in NODES:
            for line in self.lab.host(node).run(find, check=False).stdout.splitlines():
                volume = "calm" if "calm" in line else "work"
                found.setdefault(volume, []).append(node)
        return found

    # ---- end ---------------------------------------------------------------------------------

    def left(self) -> list[str]:
        """Remove every stack; return what differs on any host from before the first one."""
        for stack in FOLDERS:
            if self._rows(stack):
                self.corral("", "-p", stack, "down", "-v", "-t", "0", code=0)
        with ThreadPoolExecutor(3) as pool:
            return [line for lines in pool.map(self._left_on, NODES) for line in lines]

    def _left_on(self, name: str) -> list[str]:
        host = self.lab.host(name)
        kinds = (*leaks.RUNTIME, "files")
        take = lambda: self.cluster.snapshot(name)  # noqa: E731 - named only for the call
        found = leaks.settled(
            take, self.baseline[name], kinds=kinds, allow=(*STEADY, CLOCKS), timeout=120
        )
        return [f"{name} {line}" for line in (*found, *stalled.on(host))]


class Eyes:
    """Looks all the time at which containers run on any host, and keeps clients at their places."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="eyes")
        self._lives: dict[tuple[str, str, str], Life] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def lives(self) -> list[Life]:
        return list(self._lives.values())

    def _run(self) -> None:
        while not self._ended.is_set():
            with suppress(OSError):
                self.look()
                self._stage.attend()
            self._ended.wait(LOOK)

    def look(self) -> None:
        now = self._stage.now()
        running = self._stage.monitors()
        for node, task, run in running:
            self._lives.setdefault((node, task, run), Life(node, task, run, now, None))
        for key, life in list(self._lives.items()):
            if life.ended is None and key not in running:
                ended = self._stage.now()
                self._lives[key] = Life(life.node, life.task, life.run, life.begun, ended)


def _ids(rows: list[Any]) -> list[str]:
    return sorted(f"{row['id']} {row['name']} on {row['node']}" for row in rows)


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Make it all, and take it down whatever happens."""
    down_stale()
    name = f"chaos-{uuid.uuid4().hex[:8]}"
    lab = Lab.up(name, len(NODES), client=True, owner=os.getpid(), disk=DISK_MIB)
    with ExitStack() as ends:
        ends.callback(lab.down)
        (folder / "clients").mkdir()
        made = Stage(lab, folder / "clients")
        ends.callback(made.end_clients)
        made.begin()
        yield made
