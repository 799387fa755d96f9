"""The agent's side of the dns process: start it, feed it, give it sockets, replace it when it dies.

Called from one thread only (agent.network.node's dns thread); every call is a
short exchange on a unix socket with a deadline. Copies of all resolver sockets
stay here, so a question that meets a crash waits in the kernel until the next
process answers it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.dns.server import VERSION
from specs.kit import disk
from specs.kit.failpoints import reached

log = logging.getLogger(__name__)

_DEADLINE = 5.0  # one exchange; the process answers in microseconds
_START = 10.0  # a cold interpreter on a busy machine
_ROOT = Path(__file__).resolve().parents[2]  # where ``agent`` can be imported from


class ResolverDown(Exception):
    """The dns process does not answer; the message says what was tried."""


class Resolver:
    """The dns process of this node."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._link: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._copies: dict[str, tuple[socket.socket, socket.socket]] = {}
        self._snapshot: dict[str, Any] | None = None
        # Numbers of a former agent's snapshots must not look like ours.
        self._number = int(time.time() * 1000)
        self._unsaved = False

    # --- the process ---

    def ensure(self) -> bool:
        """Make sure a process answers; return whether a new one had to be started."""
        if self._process is not None:
            self._process.poll()  # reap it if it died
        if self._link is not None and not _hung_up(self._link):
            return False
        self._disconnect()
        if self._connect():
            return False
        self._start()
        if self._snapshot is not None:
            self._send(self._snapshot)
        for task, sockets in self._copies.items():
            self._hold(task, sockets)
        return True

    def _connect(self) -> bool:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        link.settimeout(_DEADLINE)
        try:
            link.connect(str(self._directory / "control.sock"))
        except OSError:
            link.close()
            return False
        self._link = link
        try:
            version = self._call("hello")[0].get("version")
        except ResolverDown:
            return False
        if version == VERSION:
            return True
        log.info("another version of the dns process runs; taking over from it")
        self._take_over()
        return False

    def _take_over(self) -> None:
        """Get the sockets of an older process and end it; our copies bridge the gap."""
        with suppress(ResolverDown):
            for task in self._call("held")[0].get("tasks", ()):
                self._borrow(task)
            self._call("quit")
        self._disconnect()
        time.sleep(0.05)  # it leaves its loop and gives the lock back

    def _start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "PYTHONPATH": str(_ROOT),
            "MALLOC_ARENA_MAX": "1",
        }
        end = time.monotonic() + _START
        while True:
            with (self._directory / "dns.log").open("ab") as output:
                # -S: no site-packages; it needs the standard library only, and stays small.
                self._process = subprocess.Popen(
                    [sys.executable, "-S", "-m", "agent.dns", str(self._directory)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    cwd="/",
                    start_new_session=True,  # it outlives us
                )
            while time.monotonic() < end:
                if self._connect():
                    return
                if self._process.poll() is not None:
                    break  # 3 = the old one has not let go of the lock yet
                time.sleep(0.01)
            else:
                tail = self._log_tail()
                raise ResolverDown(f"the dns process did not start within {_START:.0f} s{tail}")
            time.sleep(0.05)

    def _log_tail(self) -> str:
        with suppress(OSError):
            lines = (self._directory / "dns.log").read_text().splitlines()
            return ": " + lines[-1] if lines else ""
        return ""

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _call(
        self, operation: str, fds: tuple[int, ...] = (), **arguments: Any
    ) -> tuple[dict[str, Any], list[int]]:
        if self._link is None:
            raise ResolverDown("the dns process is not running")
        try:
            socket.send_fds(self._link, [json.dumps({"op": operation, **arguments}).encode()], fds)
            data, got, _, _ = socket.recv_fds(self._link, 1 << 17, 8)
        except OSError as error:
            self._disconnect()
            raise ResolverDown(f"the dns process does not answer: {error}") from error
        if not data:
            self._disconnect()
            raise ResolverDown("the dns process ended")
        answer: dict[str, Any] = json.loads(data)
        if "error" in answer:
            raise ResolverDown(f"the dns process refused {operation}: {answer['error']}")
        return answer, list(got)

    def _retrying(
        self, operation: str, fds: tuple[int, ...] = (), **arguments: Any
    ) -> tuple[dict[str, Any], list[int]]:
        """Call; on a process that just died, start the next one and call that."""
        self.ensure()
        try:
            return self._call(operation, fds, **arguments)
        except ResolverDown:
            self.ensure()
            return self._call(operation, fds, **arguments)

    # --- what it serves ---

    def publish(self, snapshot: dict[str, Any], changed: set[str]) -> None:
        """Put a snapshot in force; ``changed`` are the services that differ from the last one."""
        before, self._number = self._number, self._number + 1
        reached("dns.reload_mid")
        self._snapshot = snapshot
        self._unsaved = True
        if self.ensure():
            return  # a new process has been given all of it
        part = {key: snapshot["services"].get(key) for key in changed}
        change = {**snapshot, "services": part, "patch": True, "after": before}
        try:
            if self._send(change) == self._number:
                return
        except ResolverDown:
            if self.ensure():
                return
        self._send(snapshot)

    def _send(self, data: dict[str, Any]) -> int:
        """Send a snapshot or change by descriptor; return the number the process is at now."""
        with os.fdopen(os.memfd_create("zones"), "wb+") as file:
            file.write(json.dumps({**data, "number": self._number}).encode())
            file.seek(0)
            return int(self._call("load", (file.fileno(),))[0]["snapshot"])

    def save(self) -> None:
        """Write the snapshot to disk (atomically) for people and for a process without us."""
        if self._snapshot is None or not self._unsaved:
            return
        path = self._directory / "zones.json"
        path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have tidied up in /run
        text = json.dumps({**self._snapshot, "number": 0}, separators=(",", ":"))
        disk.write_file(path, text.encode(), durable=False, mode=0o644)
        self._unsaved = False

    def hold(self, task: str, sockets: tuple[socket.socket, socket.socket]) -> None:
        """Serve a task's container on these sockets; copies stay here."""
        self._forget(task)
        self._copies[task] = sockets
        if not self.ensure():
            self._hold(task, sockets)
        reached("net.after_dns")

    def _hold(self, task: str, sockets: tuple[socket.socket, socket.socket]) -> None:
        self._call("hold", (sockets[0].fileno(), sockets[1].fileno()), task=task)

    def holds(self, task: str) -> bool:
        """Say whether the task's sockets are known here."""
        return task in self._copies

    def drop(self, tasks: list[str]) -> None:
        """Close the sockets of tasks that are gone, here and there."""
        for task in tasks:
            self._forget(task)
        with suppress(ResolverDown):
            if self._link is not None or self._connect():
                self._call("drop", tasks=tasks)

    def adopt(self, tasks: set[str]) -> set[str]:
        """Take copies of what a running process holds for ``tasks``, drop the rest.

        Returns the tasks whose sockets are in hand; the others need new ones.
        """
        if not tasks and self._link is None and not self._connect():
            return set()  # nothing runs and nothing is needed
        self.ensure()
        held = set(self._call("held")[0]["tasks"])
        if held - tasks:
            self._call("drop", tasks=sorted(held - tasks))
        for task in sorted(held & tasks - self._copies.keys()):
            self._borrow(task)
        return set(self._copies)

    def adopt_one(self, task: str) -> None:
        """Take copies of what the running process holds for one task."""
        self.ensure()
        if task in self._call("held")[0]["tasks"]:
            self._borrow(task)

    def _borrow(self, task: str) -> None:
        self._forget(task)
        _, fds = self._call("lend", task=task)
        udp, tcp = (socket.socket(fileno=fd) for fd in fds)
        self._copies[task] = (udp, tcp)

    def _forget(self, task: str) -> None:
        for link in self._copies.pop(task, ()):
            link.close()

    def stats(self) -> dict[str, Any]:
        """Return the process's counters."""
        answer: dict[str, Any] = self._retrying("stats")[0]
        return answer

    @property
    def pid(self) -> int:
        """Return the process's id."""
        return int(self._retrying("hello")[0]["pid"])

    def quit(self) -> None:
        """End the process for good (the node leaves)."""
        with suppress(ResolverDown):
            if self._link is not None or self._connect():
                self._call("quit")
                self._await_end()
        self.close()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)
            self._process = None
        self._snapshot, self._unsaved = None, False
        shutil.rmtree(self._directory, ignore_errors=True)

    def _await_end(self) -> None:
        """Wait until the process has hung up, at most two seconds."""
        if self._link is not None:
            poller = select.poll()
            poller.register(self._link, select.POLLIN)
            poller.poll(2000)

    def close(self) -> None:
        """Let go of everything but leave the process serving."""
        self._disconnect()
        for task in list(self._copies):
            self._forget(task)


def _hung_up(link: socket.socket) -> bool:
    """Say whether the other end is gone, without sending anything."""
    poller = select.poll()
    poller.register(link, select.POLLIN)
    return bool(poller.poll(0))  # nothing is ever sent unasked: readable means closed
