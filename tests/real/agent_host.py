"""A machine of its own for one agent: private mount and network namespaces, own directories.

A holder process keeps the namespaces, so that agents can be killed and started again in them.
Every file the agent makes is below a temporary directory the test sees as well; its cgroups have
a parent of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from specs import skew
from specs.stack import TaskSpec
from specs.states import Desired
from specs.wire import (
    PROTOCOL,
    Assignment,
    ExecRequest,
    Instructions,
    LogLine,
    NodeSelf,
    Objects,
    Report,
    Stamp,
)
from tests.real import warm_agent

if TYPE_CHECKING:
    from specs.task import TaskStatus
    from tests.real.warm_agent import Agent


def assignment(
    task: str, command: str = "exec sleep 1000", desired="running", **keys
) -> Assignment:
    outer = {
        name: keys.pop(name)
        for name in ("restart_count", "local_restarts", "grace")
        if name in keys
    }
    if "restart_count" in outer:
        outer["restart"] = outer.pop("restart_count")
    argv = ("/bin/sh", "-c", command) if isinstance(command, str) else command
    keys.setdefault("command", argv)
    keys.setdefault("network_mode", "none")
    keys.setdefault("stop_grace", 0.3)
    return Assignment(
        id=task,
        stack="test",
        service="web",
        slot=1,
        name=f"test-web-{task}",
        spec=TaskSpec(image="busybox", **keys),
        desired=Desired(desired),
        **outer,
    )


class AgentHost:
    """Start, kill and talk to an agent."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="cr-agent-", dir="/tmp"))
        self.cgroup = f"corral-test-{uuid.uuid4().hex[:8]}"
        self.run, self.state = self.base / "run", self.base / "state"
        self.holder = subprocess.Popen(
            ["unshare", "-m", "-n", "--propagation", "private", "sleep", "infinity"]
        )
        until(lambda: _namespace(self.holder.pid) != _namespace(os.getpid()), "the namespaces")
        self.agent: Agent | None = None
        self.generation = 0
        self.tasks: dict[str, Assignment] = {}
        self.seen: dict[str, TaskStatus] = {}
        self.gone: set[str] = set()
        self.client: aiohttp.ClientSession | None = None
        self.log = open(self.base / "agent.log", "ab")  # noqa: SIM115 - closed in stop()

    def inside(self, *argv: str) -> list[str]:
        return ["nsenter", "-t", str(self.holder.pid), "-m", "-n", "--", *argv]

    def shell(self, script: str) -> str:
        return subprocess.run(
            self.inside("sh", "-c", script), check=True, capture_output=True, text=True
        ).stdout

    async def start(self) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "CORRAL_STATE_DIR": str(self.state),
            "CORRAL_RUN_DIR": str(self.run),
            "CORRAL_CGROUP": self.cgroup,
        }
        self.agent = warm_agent.start(self.holder.pid, environment, self.log.fileno())
        if self.client is None:
            self.client = aiohttp.ClientSession(
                "http://agent", connector=aiohttp.UnixConnector(str(self.run / "agent.sock"))
            )
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with self.client.get("/v1/hello"):
                    return
            assert self.agent.poll() is None, "the agent ended: " + self.said()
            assert time.monotonic() < deadline, "the agent does not answer: " + self.said()
            await asyncio.sleep(0.02)

    def said(self) -> str:
        return (self.base / "agent.log").read_text()[-4000:]

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.agent.send_signal(number)
        self.agent.wait(60)

    async def put(self, *assignments: Assignment, remove: tuple[str, ...] = ()) -> None:
        """Send the whole set, with these tasks replaced."""
        for one in assignments:
            self.tasks[one.id] = one
        for task in remove:
            self.tasks.pop(task, None)
        self.generation += 1
        body = Instructions(
            stamp=Stamp(cluster="test", epoch=1, generation=self.generation),
            me=NodeSelf(node="n1", name="n1"),
            put=Objects(tasks=self.tasks),
        )
        async with self.client.put("/v1/instructions", data=body.encode()) as answer:
            assert answer.status == 200, await answer.text()

    async def until(self, condition, what: str, timeout: float = 60.0) -> TaskStatus | None:
        """Follow the reports until ``condition(seen)``; ``seen`` maps tasks to their status."""
        self.seen, self.gone = {}, set()
        try:
            async with asyncio.timeout(timeout):
                async with self.client.get("/v1/reports") as stream:
                    async for line in stream.content:
                        report = Report.model_validate_json(line)
                        self.seen.update(report.tasks)
                        self.gone.update(report.gone)
                        found = condition(self.seen)
                        if found:
                            return found
        except TimeoutError:
            pass
        raise AssertionError(f"{what} did not happen: {self.seen}\n{self.said()}")

    async def state_of(self, task: str, state: str, timeout: float = 60.0) -> TaskStatus:
        return await self.until(
            lambda seen: task in seen and seen[task].state == state and seen[task],
            f"{task} {state}",
            timeout,
        )

    async def says_of_its_room(self, wanted: str) -> None:
        """Wait until the node says this of its disk, or with "" that there is room."""
        ours = {skew.HEADER: str(PROTOCOL)}
        async with asyncio.timeout(60), self.client.get("/v1/reports", headers=ours) as stream:
            async for line in stream.content:
                said = Report.model_validate_json(line).room
                if (wanted in said) if wanted else not said:
                    return

    async def ready(self, *tasks: str, timeout: float = 60.0) -> list[TaskStatus]:
        await self.until(
            lambda seen: all(t in seen and seen[t].ready for t in tasks), f"{tasks} ready", timeout
        )
        return [self.seen[task] for task in tasks]

    async def erased(self, *tasks: str, timeout: float = 60.0) -> None:
        await self.until(lambda _: self.gone >= set(tasks), f"{tasks} gone", timeout)

    async def remove(self, *tasks: str) -> None:
        """Take tasks away as the controller does: desired = removed, then out of the set."""
        names = tasks or tuple(self.tasks)
        removed = Desired.REMOVED
        await self.put(
            *(self.tasks[t].model_copy(update={"desired": removed, "grace": 0.0}) for t in names)
        )
        await self.erased(*names)
        await self.put(remove=names)

    async def logs(self, task: str, **query: str) -> list[LogLine]:
        async with self.client.get(f"/v1/tasks/{task}/logs", params=query) as answer:
            assert answer.status == 200, await answer.text()
            return [LogLine.model_validate_json(line) async for line in answer.content]

    async def exec(self, task: str, *command: str, stdin: bytes | None = None, **keys):
        """Run a command inside; return (exit message, stdout, stderr)."""
        said = {1: b"", 2: b""}
        async with self.client.ws_connect(f"/v1/tasks/{task}/exec") as ws:
            request = ExecRequest(command=command, stdin=stdin is not None, **keys)
            await ws.send_str(request.encode().decode())
            if stdin is not None:
                await ws.send_bytes(b"\0" + stdin)
                await ws.send_bytes(b"\0")
            async for message in ws:
                if message.type is aiohttp.WSMsgType.BINARY:
                    said[message.data[0]] += message.data[1:]
                else:
                    return json.loads(message.data), said[1].decode(), said[2].decode()
        raise AssertionError("the exec ended without an answer")

    # What is left.

    async def left(self) -> list[str]:
        """What of any task stays on the machine; the ends of processes take the kernel a moment."""
        deadline = time.monotonic() + 60
        while (found := self.leftovers()) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return found

    def leftovers(self) -> list[str]:
        """Everything of any task that exists on the machine."""
        found = []
        table = Path(f"/proc/{self.holder.pid}/mountinfo").read_text()
        own = {str(self.state / "agent"), str(self.run / "agent")}
        for line in table.splitlines():
            place = line.split()[4]
            if str(self.base) in place and place not in own:
                found.append(f"mount {place}")
        for kind in ("tasks", "records", "crun"):
            for folder in (self.run / "agent" / kind, self.state / "agent" / kind):
                found += [f"file {p}" for p in folder.iterdir()] if folder.exists() else []
        for name in ("upper", "work", "roots"):
            folder = self.state / "agent/images" / name
            found += [f"file {p}" for p in folder.iterdir()] if folder.exists() else []
        for top in Path("/sys/fs/cgroup").iterdir():
            parent = top / self.cgroup
            if parent.exists():
                found += [f"cgroup {p}" for p in parent.iterdir() if p.is_dir()]
        found += [f"process {p}" for p in self.processes()]
        return found

    def processes(self) -> list[str]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (self.agent is None or int(entry.name) != self.agent.pid):
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if str(self.base) in words:
                        found.append(f"{entry.name} {words[:200]}")
        return found

    async def stop(self) -> None:
        """End everything, whatever state the test left."""
        if self.client is not None:
            await self.client.close()
        if self.agent is not None and self.agent.poll() is None:
            self.agent.terminate()
            self.agent.wait(60)
        self.log.close()
        for top in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
            parent = top / self.cgroup
            if not parent.is_dir():
                continue
            for folder in sorted(parent.rglob("cgroup.procs"), reverse=True):
                for pid in folder.read_text().split():
                    with contextlib.suppress(OSError):
                        os.kill(int(pid), signal.SIGKILL)
        for line in self.processes():
            with contextlib.suppress(OSError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        self.holder.kill()
        self.holder.wait(60)
        for top in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
            parent = top / self.cgroup
            if parent.is_dir():
                until(lambda parent=parent: _remove(parent), f"the end of {parent}")
        shutil.rmtree(self.base, ignore_errors=True)


def _remove(parent: Path) -> bool:
    for folder in sorted((p for p in parent.rglob("*") if p.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    with contextlib.suppress(OSError):
        parent.rmdir()
    return not parent.exists()


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")


def until(condition, what: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.01)
