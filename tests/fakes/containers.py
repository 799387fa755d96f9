"""Containers that exist only in memory: a process is a number that a test ends by hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.runtime.containers import joined
from agent.vocabulary import Exit, FoundRun, Process

if TYPE_CHECKING:
    from agent.runtime.failure import RuntimeFailure


@dataclass
class FakeContainers:
    """``behaviour`` maps a task to how its runs end by themselves: (seconds, code)."""

    behaviour: dict[str, tuple[float, int]] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)  # ignore everything but SIGKILL
    broken: dict[str, RuntimeFailure] = field(default_factory=dict)
    written: dict[str, dict] = field(default_factory=dict)
    alive: dict[str, Process] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    ends: dict[int, asyncio.Future] = field(default_factory=dict)
    sent: list[tuple[int, int]] = field(default_factory=list)
    frozen: set[str] = field(default_factory=set)
    stubborn: dict[str, RuntimeFailure] = field(default_factory=dict)  # does not freeze
    held: dict[str, list[int]] = field(default_factory=dict)  # signals to what is frozen
    creating: int = 0
    most_at_once: int = 0
    pids: int = 100

    def write(self, task, config):
        self.written[task] = config

    def config(self, task):
        return self.written[task]

    async def create(self, task, run, spec, *, once=False):
        assert task in self.written, "a container without a bundle"
        assert task not in self.alive, "two containers of one task"
        self.creating += 1
        self.most_at_once = max(self.most_at_once, self.creating)
        await asyncio.sleep(0.01)
        self.creating -= 1
        if task in self.broken:
            raise self.broken[task]
        self.pids += 2
        process = Process(pid=self.pids, start=1)
        self.alive[task] = process
        self.states[task] = "created"
        self.ends[process.pid] = asyncio.get_running_loop().create_future()
        return process, Process(pid=self.pids + 1, start=1)

    async def start(self, task):
        self.states[task] = "running"
        if task in self.behaviour:
            after, code = self.behaviour[task]
            pid = self.alive[task].pid
            asyncio.get_running_loop().call_later(after, self.end, pid, code)

    async def state(self, task):
        return self.states.get(task)

    async def find(self, task):
        process = self.alive.get(task)
        if process is None:
            return None
        monitor = Process(pid=process.pid + 1, start=1)
        begun, paused = self.states[task] != "created", task in self.frozen
        other = joined(self.written[task])
        beside = Process(pid=other, start=1) if other else None
        return FoundRun(1, process, monitor, begun=begun, paused=paused, beside=beside)

    async def follow(self, task, process, monitor):
        return await asyncio.shield(self.ends[process.pid])

    def end(self, pid, code):
        if not self.ends[pid].done():
            self.ends[pid].set_result(Exit(code))

    def send(self, process, number):
        self.sent.append((process.pid, number))
        task = next((t for t, p in self.alive.items() if p == process), "")
        if task in self.frozen:
            self.held.setdefault(task, []).append(number)  # until it goes on
            return True
        if number == 9 or task not in self.deaf:
            self.end(process.pid, 128 + number)
        return True

    async def freeze(self, task, *, paused):
        if task in self.stubborn:
            raise self.stubborn[task]
        self.frozen = self.frozen | {task} if paused else self.frozen - {task}
        for number in [] if paused else self.held.pop(task, []):
            self.send(self.alive[task], number)

    async def clear(self, task):
        process = self.alive.pop(task, None)
        self.states.pop(task, None)
        self.frozen = self.frozen - {task}
        if process is not None:
            self.end(process.pid, 137)

    async def erase(self, task):
        await self.clear(task)
        self.written.pop(task, None)

    def last_lines(self, task, count):
        return ["the last line"]

    def known(self):
        return set(self.written)
