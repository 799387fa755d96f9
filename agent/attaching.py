"""What is said on the WebSocket of an attach (``specs/wire.py``): a task's own process, heard.

Of a one-off that is to be heard from its first byte, the command begins when we listen
(``Runner``). Whoever hangs up leaves it running; an input that was a pipe ends with that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import WSMsgType
from pydantic import ValidationError

from agent.runtime.attach import Hearing, MainProcess
from agent.runtime.failure import RuntimeFailure
from agent.shuttle import messages
from agent.tasks.record import Phase
from specs.states import FINAL
from specs.wire import AttachRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from agent.runtime.containers import OciContainers
    from agent.tasks.compose import TaskParts
    from agent.tasks.listeners import Following
    from agent.tasks.record import Record

PATIENCE = 600.0  # seconds until its container is made: an image may take that long


class Attaching:
    """Joins clients to tasks' own processes."""

    def __init__(self, tasks: TaskParts, containers: OciContainers) -> None:
        self._tasks = tasks
        self._containers = containers

    async def serve(self, websocket: web.WebSocketResponse, task: str) -> None:
        """Speak with one client until it goes or the command ends."""
        try:
            first = await websocket.receive(timeout=10.0)
            asked = AttachRequest.model_validate_json(first.data or "{}")
        except (ValidationError, TimeoutError, TypeError):
            await websocket.send_json({"error": "the first message must be an AttachRequest"})
            return
        with self._tasks.listeners.watch(task, self._tasks.holdings.record(task)) as watch:
            last = await self._converse(websocket, asked, watch, task)
        if last is not None:
            with contextlib.suppress(ConnectionError):
                await websocket.send_json(last)

    async def _converse(
        self, websocket: web.WebSocketResponse, asked: AttachRequest, watch: Following, task: str
    ) -> dict[str, object] | None:
        """Return the last message; None: the client has gone."""
        if asked.detach:
            return await self._begin(websocket, watch)
        there = await self._until(websocket, watch, lambda r: _there(r) or _over(r))
        if there is None or _over(there):
            return _ended(there) if there is not None else None
        try:
            process = MainProcess(self._containers.bundle(task))
        except RuntimeFailure as failure:
            record = await self._until(websocket, watch, _over, at_most=1.0)
            return _ended(record) if record is not None else {"error": str(failure), "exit": 1}
        try:
            if there.assignment.spec.tty and asked.rows:
                process.resize(asked.rows, asked.columns)
            await websocket.send_json({"attached": True})
            if there.phase is Phase.CREATED:
                self._tasks.listeners.arrived(task).set()
            shuttle = _Shuttle(websocket, process, asked, there, partial(self._signal, watch))
            if not await shuttle.run():
                return None
        finally:
            process.close()
        record = await self._until(websocket, watch, _over)
        return _ended(record) if record is not None else None

    async def _begin(
        self, websocket: web.WebSocketResponse, watch: Following
    ) -> dict[str, object] | None:
        record = await self._until(websocket, watch, lambda r: _begun(r) or _over(r))
        if record is None:
            return None
        return {"exit": 0} if _begun(record) else _ended(record)

    async def _until(
        self,
        websocket: web.WebSocketResponse,
        watch: Following,
        check: Callable[[Record], bool],
        at_most: float = PATIENCE,
    ) -> Record | None:
        """Return the record once it is so; None: too late, or the client has gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                while True:
                    watch.changed.clear()
                    if watch.record is not None and check(watch.record):
                        return watch.record
                    if websocket.closed:
                        return None
                    await watch.changed.wait()
        return None

    async def _signal(self, watch: Following, number: int) -> None:
        """Send a signal to the process; once it is known to run, where it has just begun.

        It may have said something before that, and whoever hears it may want it to end.
        """
        while watch.record is not None and watch.record.phase is Phase.CREATED:
            watch.changed.clear()
            await watch.changed.wait()
        record = watch.record
        if record is not None and record.process is not None and record.phase is Phase.RUNNING:
            self._containers.send(record.process, number)


class _Shuttle:
    """Carries bytes between the client and the process."""

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        process: MainProcess,
        asked: AttachRequest,
        record: Record,
        signal: Callable[[int], Awaitable[None]],
    ) -> None:
        self._websocket = websocket
        self._process = process
        self._hearing = Hearing(process, record.process)
        self._asked = asked
        self._record = record
        self._signal = signal
        self._signals: asyncio.Queue[int] = asyncio.Queue()

    async def run(self) -> bool:
        """Return whether the process ended; False: the client has gone."""
        async with asyncio.TaskGroup() as group:
            heard = group.create_task(self._hearing.run())
            outward = group.create_task(self._outward())
            inward = group.create_task(self._inward())
            signals = group.create_task(self._pass_on())
            await asyncio.wait({outward, inward}, return_when=asyncio.FIRST_COMPLETED)
            ended = outward.done()
            for each in (heard, outward, inward, signals):
                each.cancel()
        return ended

    async def _outward(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                channel, data = await self._hearing.next()
                if not data:
                    return
                await self._websocket.send_bytes(bytes((channel,)) + data)

    async def _inward(self) -> None:
        async for message in messages(self._websocket):
            if message.type is WSMsgType.BINARY and message.data[:1] == b"\0":
                if self._asked.stdin:
                    await self._input(message.data[1:])
            elif message.type is WSMsgType.TEXT:
                self._control(message.data)

    async def _pass_on(self) -> None:
        while True:
            await self._signal(await self._signals.get())

    async def _input(self, data: bytes) -> None:
        if data:
            await self._process.write(data)
        elif self._record.assignment.spec.tty:
            await self._process.write(b"\x04")  # what a terminal calls the end of input
        else:
            self._process.end_input()

    def _control(self, text: str) -> None:
        try:
            message = json.loads(text)
            if "resize" in message:
                rows, columns = message["resize"]
                self._process.resize(int(rows), int(columns))
            elif "signal" in message:
                number = int(message["signal"])
                if 0 < number < signal.NSIG:
                    self._signals.put_nowait(number)
        except (ValueError, TypeError, KeyError):
            pass  # a malformed control message is ignored, as an unknown one is


def _there(record: Record) -> bool:
    return record.phase in (Phase.CREATED, Phase.RUNNING)


def _begun(record: Record) -> bool:
    run = record.run
    return run is not None and run.started_at is not None


def _over(record: Record) -> bool:
    """Say whether there is nothing more to come of it."""
    return record.erased or record.state in FINAL


def _ended(record: Record) -> dict[str, object]:
    run = record.run
    if run is not None and run.started_at is not None and run.finished_at is not None:
        if run.exit_code is None:
            return {"error": f"{record.assignment.name} ended: {run.reason}", "exit": 1}
        return {"exit": run.exit_code}
    code = run.exit_code if run is not None and run.exit_code else 1
    why = record.reason or (run.reason if run is not None else "") or record.state.value
    return {"error": f"{record.assignment.name} did not start: {why}", "exit": code}
