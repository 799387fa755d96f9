"""What one `corral up` leaves on its way: on the wire, in the store, on the node, in /proc.

``Wire`` stands between the command and the controller and keeps what both say. ``Traces``
reads the rest, each thing when it is first asked for.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import sqlite3
import struct
import tempfile
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agent.sealing import NodeSeal
from orchestrator.client.client import Client
from orchestrator.keys.sealing import SEALED
from orchestrator.keys.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cluster import Cluster

STATE, RUN = "/var/lib/corral", "/run/corral"
DOOR = "/run/relay.sock"


@dataclass
class Exchange:
    """One request and its answer, as bytes; who asked, and when."""

    argv: str
    time: float
    said: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)

    @property
    def line(self) -> str:
        return self.said.partition(b"\r\n")[0].decode()

    @property
    def body(self) -> Any:
        return json.loads(self.said.partition(b"\r\n\r\n")[2])

    @property
    def answer(self) -> tuple[int, list[Any]]:
        """Status and the JSON objects of the body (a stream has several)."""
        head, _, body = self.heard.partition(b"\r\n\r\n")
        found = []
        for text in body.decode().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(text))
        return int(head.split()[1]), [item for item in found if isinstance(item, dict)]


class Wire:
    """A socket in the host that passes everything on to the controller and remembers it."""

    def __init__(self, corral: Cluster) -> None:
        self._path = Path(f"/proc/{corral.host.pid}/root{DOOR}")
        self._target = corral.client.path
        self._threads: list[threading.Thread] = []
        self.exchanges: list[Exchange] = []
        self.host = f"unix://{DOOR}"

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX)
        self._path.unlink(missing_ok=True)
        self._socket.bind(str(self._path))
        self._socket.listen()
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._path.unlink(missing_ok=True)
        for thread in self._threads:
            thread.join(10)
        self._socket.close()

    def _start(self, work: Any, *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here = self._socket.accept()[0]
                pid = struct.unpack("3i", here.getsockopt(1, socket.SO_PEERCRED, 12))[0]
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                exchange = Exchange(words.decode(), time.time())
                self.exchanges.append(exchange)
                self._start(self._pass_on, here, exchange)

    def _pass_on(self, here: socket.socket, exchange: Exchange) -> None:
        with here, socket.socket(socket.AF_UNIX) as there:
            there.connect(self._target)
            asking = threading.Thread(target=_pump, args=(here, there, exchange.said))
            asking.start()
            _pump(there, here, exchange.heard)
            asking.join()


def _pump(source: socket.socket, target: socket.socket, record: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            record += data
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Events:
    """The controller's events of one stack, collected beside what the test does."""

    def __init__(self, corral: Cluster, stack: str) -> None:
        self._stream = corral.client.stream("GET", "/v1/events", query={"stack": stack})
        self.seen: list[Any] = []
        self._thread = threading.Thread(target=self._collect, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._thread.join(10)

    def _collect(self) -> None:
        self.seen.extend(self._stream)


class Traces:
    """What is left of one `up` of a stack with one task."""

    def __init__(self, corral: Cluster, stack: str) -> None:
        self.corral, self.host, self.stack = corral, corral.host, stack
        self.mark = ""
        self.exchanges: list[Exchange] = []
        self.events: list[Any] = []
        self.said = ""  # by the command, on stderr
        self.ended = 0.0

    # On the wire.

    @cached_property
    def post(self) -> Exchange:
        (found,) = [e for e in self.exchanges if e.line.startswith("POST ")]
        return found

    @property
    def request(self) -> Any:
        return self.post.body

    @cached_property
    def progress(self) -> list[Any]:
        (found,) = [e for e in self.exchanges if "/progress" in e.line]
        return found.answer[1]

    # In the store.

    @cached_property
    def store(self) -> dict[str, tuple[Any, int]]:
        """Key -> value and the revision that wrote it."""
        controller = self.root(f"{STATE}/controller")
        with tempfile.TemporaryDirectory() as copy:
            # The controller keeps the file locked for itself; a copy needs its log, too, and
            # nothing may have moved from the one to the other meanwhile.
            before = None
            while before != (before := _stamps(controller)):
                for path in controller.glob("state.db*"):
                    shutil.copy(path, copy)
            with contextlib.closing(sqlite3.connect(f"{copy}/state.db")) as file:
                rows = file.execute("SELECT key, value, version FROM entries").fetchall()
        vault = Vault((controller / "key").read_bytes())
        found = {}
        for key, value, version in rows:
            name, plain = key, value
            if key.startswith(SEALED):
                name, _, plain = vault.open(value).partition(b"\0")
                name = name.decode()
            found[name] = (json.loads(plain), version)
        return found

    def root(self, path: str) -> Path:
        """Return where a path of the host is for us."""
        return Path(f"/proc/{self.host.pid}/root{path}")

    def files_with(self, text: str, *folders: str) -> list[str]:
        """Return the files below these folders of the host that have the text in their bytes."""
        found = []
        for folder in folders:
            for path in self.root(folder).rglob("*"):
                with contextlib.suppress(OSError):
                    if path.is_file() and text.encode() in path.read_bytes():
                        found.append(str(path).partition("/root")[2])
        return found

    def records(self, prefix: str) -> list[Any]:
        return [value for key, (value, _) in self.store.items() if key.startswith(prefix)]

    @cached_property
    def release(self) -> Any:
        return max(self.records(f"/releases/{self.stack}/"), key=lambda r: r["number"])

    @cached_property
    def task(self) -> Any:
        (found,) = self.records(f"/tasks/{self.stack}/")
        return found

    @cached_property
    def network(self) -> Any:
        (found,) = [n for n in self.records("/networks/") if n["stack"] == self.stack]
        return found

    @cached_property
    def node(self) -> Any:
        (found,) = self.records("/nodes/")
        return found

    # On the node.

    def agent(self, path: str) -> Any:
        """Ask the agent itself."""
        return Client(f"unix:///proc/{self.host.pid}/root{RUN}/agent.sock").get(path)

    @cached_property
    def report(self) -> Any:
        """The first line of the agent's reports: everything it knows."""
        agent = Client(f"unix:///proc/{self.host.pid}/root{RUN}/agent.sock")
        stream = agent.stream("GET", "/v1/reports")
        try:
            return next(iter(stream))
        finally:
            stream.close()

    @cached_property
    def seal(self) -> NodeSeal:
        """What the agent's files are sealed by."""
        return NodeSeal(self.root(f"{STATE}/agent/node.key"))

    @cached_property
    def journal(self) -> list[tuple[str, str]]:
        """Checksum and sealed text of each line of the instruction set."""
        text = self.host.read(f"{STATE}/agent/journal/set.log")
        return [(line[:8], line[9:]) for line in text.splitlines()]

    @cached_property
    def instructions(self) -> list[Any]:
        return [json.loads(self.seal.open(text.encode())) for _, text in self.journal]

    @cached_property
    def assignment(self) -> Any:
        """The task as it was first sent to the node."""
        found = (i.get("put", {}).get("tasks", {}).get(self.task["id"]) for i in self.instructions)
        return next(assignment for assignment in found if assignment)

    @cached_property
    def record(self) -> Any:
        text = self.host.read(f"{RUN}/agent/records/{self.task['id']}")
        return json.loads(self.seal.open(text.encode()))

    def bundle(self, name: str) -> str:
        return f"{RUN}/agent/tasks/{self.task['id']}/{name}"

    @cached_property
    def config(self) -> Any:
        return json.loads(self.host.read(self.bundle("config.json")))

    def changed_at(self, path: str) -> float:
        return float(self.corral.sh(f"stat -c %.9Y {path}"))

    # In /proc.

    @property
    def pid(self) -> int:
        return int(self.task["status"]["runs"][-1]["pid"])

    def proc(self, name: str, pid: int = 0) -> str:
        return self.host.read(f"/proc/{pid or self.pid}/{name}").replace("\0", "\n")

    def inside(self, path: str) -> str:
        """Return a file as the container sees it."""
        return self.host.read(f"/proc/{self.pid}/root{path}")


def _stamps(controller: Path) -> list[tuple[str, int, int]]:
    found = ((path.name, path.stat()) for path in controller.glob("state.db*"))
    return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


def stations(readme: str) -> Iterator[str]:
    """Yield the files that the README's straight line names, in its order."""
    section = re.search(r"^## The straight line\n(.*?)(?=^## )", readme, re.MULTILINE | re.DOTALL)
    assert section is not None, "README.md has a section 'The straight line'"
    for line in section[1].splitlines():
        if re.match(r"\d+\. ", line):
            yield from re.findall(r"\]\(([^)]+)\)", line)
