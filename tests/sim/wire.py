"""The network between controllers and agents: connections that carry bytes, late or not at all.

A connection stands for the SSH line to a node: requests on it are answered by the agent's own
parts, in the agent's process; what is said is encoded and read as on a real wire. A cut holds
what is under way, as TCP does; who waits gives up in his own time. What was on its way when a
connection ended may still arrive, and arrive twice: the agent must judge it by its stamp.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from agent.errors import Later, Refusal
from orchestrator.dispatch.agent import AgentClient
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.errors import Unavailable
from specs import skew
from specs.api import ApiProblem
from specs.kit.errnos import in_words
from specs.wire import (
    HEARTBEAT,
    PROTOCOL,
    SHORTEST_HEARTBEAT,
    HeldSet,
    Hello,
    Instructions,
    LeaseAnswer,
    LeaveCluster,
    Refused,
    ResolvedImage,
    ResolveImage,
)
from tests.sim.loop import Killed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from specs.node import Node
    from tests.sim.host import Agent, SimHost
    from tests.sim.loop import Process
    from tests.sim.world import World

CONNECT = 10.0  # as orchestrator.transport.ssh.CONNECT_TIMEOUT
KEEPALIVE = 9.0  # a line on which nothing came back for so long is given up


class Link:
    """The line between a controller's machine and a node, each way by itself."""

    def __init__(self) -> None:
        self.cut_to = False  # controller -> node
        self.cut_from = False
        self.loss = 0.0  # share of messages that come as late as a retransmission
        self.twice = 0.0  # share of requests that arrive twice
        self.late = 0.0  # seconds more than usual, at most
        self.good_since = 0.0  # when it was bad last, in whatever way
        self.changed = asyncio.Event()

    def set(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)
        self.good_since = asyncio.get_running_loop().time()
        self.changed.set()
        self.changed = asyncio.Event()

    @property
    def whole(self) -> bool:
        return not (self.cut_to or self.cut_from)


class Wire:
    """All lines, and the connections on them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = world.chance("wire")
        self.links: dict[tuple[str, str], Link] = {}
        self.connections: list[Connection] = []

    def link(self, place: str, host: SimHost) -> Link:
        """Return the line from where a controller is (``place``) to a machine."""
        return self.links.setdefault((place, host.name), Link())

    def of(self, host: SimHost) -> list[Connection]:
        return [c for c in self.connections if c.host is host]

    async def carry(self, link: Link, *, towards: bool) -> None:
        """Take as long as a message needs; return once it has arrived."""
        delay = self.chance.uniform(0.0005, 0.002)
        if link.late:
            delay += self.chance.uniform(0, link.late)
        if link.loss:
            tries = 0
            while self.chance.random() < link.loss and tries < 6:
                tries += 1
                delay += 0.2 * 2**tries / 2  # TCP's retransmission
        await asyncio.sleep(delay)
        while link.cut_to if towards else link.cut_from:
            await link.changed.wait()
            await asyncio.sleep(self.chance.uniform(0.05, 0.4))


class Connection:
    """One controller's line to one machine, from its opening to its end."""

    def __init__(self, wire: Wire, place: str, host: SimHost, controller: Process) -> None:
        self.wire = wire
        self.host = host
        self.link = wire.link(place, host)
        self.controller = controller
        self.closed = asyncio.Event()  # the controller knows that it has ended
        self.why = ""
        self._streams: list[asyncio.Task[Any]] = []

    def close(self, why: str = "") -> None:
        if not self.closed.is_set():
            self.why = why
            self.closed.set()
        for stream in self._streams:
            stream.cancel()
        with contextlib.suppress(ValueError):
            self.wire.connections.remove(self)

    def machine_died(self) -> None:
        """The machine is gone without a word: found out by keepalive only."""
        for stream in self._streams:
            stream.cancel()
        self.wire.world.later(KEEPALIVE, lambda: self.close("no answer to keepalive"))

    def agent_died(self) -> None:
        """The agent's socket closed; the machine says so, as soon as it is heard."""

        async def tell() -> None:
            await self.wire.carry(self.link, towards=False)
            self.close("the agent closed it")

        self.wire.world.spawn(tell())

    # Requests.

    async def request(self, method: str, path: str, body: bytes, version: int) -> tuple[int, bytes]:
        """Return (status, body). Raises ConnectionError; who waits brings his own deadline."""
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

        async def there_and_back() -> None:
            await self.wire.carry(self.link, towards=True)
            if not self.host.on:
                return
            agent = self.host.agent
            if agent is None or not agent.ready.is_set():
                result: tuple[int, bytes] | None = None
            else:
                if self.host.frozen_until > self.wire.world.now:
                    await asyncio.sleep(self.host.frozen_until - self.wire.world.now)
                result = await _as(agent, serve(agent, method, path, body, version))
                if result is None:
                    return  # it died meanwhile; the line says so by itself
            await self.wire.carry(self.link, towards=False)
            if not answer.done():
                if result is None:
                    answer.set_exception(ConnectionRefusedError(111, "Connection refused"))
                else:
                    answer.set_result(result)

        self.wire.world.spawn(there_and_back())
        if method == "PUT" and self.link.twice and self.wire.chance.random() < self.link.twice:
            self.wire.world.spawn(self._again(method, path, body, version))
        closing = asyncio.ensure_future(self.closed.wait())
        try:
            await asyncio.wait({answer, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
        if answer.done():
            return answer.result()
        raise ConnectionResetError(104, self.why or "connection lost")

    async def _again(self, method: str, path: str, body: bytes, version: int) -> None:
        """A message of ours arrives once more, some time later."""
        await asyncio.sleep(self.wire.chance.uniform(0.001, 3.0))
        await self.wire.carry(self.link, towards=True)
        agent = self.host.agent
        if self.host.on and agent is not None and agent.ready.is_set():
            self.host.say("again", method, path)
            await _as(agent, serve(agent, method, path, body, version))

    def stream(self, heartbeat: float, version: int) -> asyncio.Queue[bytes | None]:
        """Return the report lines as they arrive; None ends them."""
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def pump(agent: Agent) -> None:
            found = agent.parts.reports.stream(heartbeat)
            async with contextlib.aclosing(found) as reports:
                async for report in reports:
                    if self.host.frozen_until > self.wire.world.now:
                        await asyncio.sleep(self.host.frozen_until - self.wire.world.now)
                    data = skew.encode(report, version)
                    await self.wire.carry(self.link, towards=False)
                    lines.put_nowait(data)

        async def begin() -> None:
            await self.wire.carry(self.link, towards=True)
            agent = self.host.agent
            if agent is None or not agent.ready.is_set() or not self.host.on:
                lines.put_nowait(None)
                return
            agent.connections.append(self)
            self._streams.append(agent.begin(pump(agent)))

        self._streams.append(self.wire.world.spawn(begin()))
        return lines


async def _as(agent: Agent, work: Any) -> Any:
    """Do it in the agent's process; None: that died meanwhile."""
    task = agent.begin(work)
    dying = asyncio.ensure_future(asyncio.wait({task}))
    await dying
    if agent.dead or task.cancelled() or isinstance(task.exception(), Killed):
        return None
    return task.result()


async def serve(
    agent: Agent, method: str, path: str, body: bytes, version: int
) -> tuple[int, bytes]:
    """Answer as ``agent.server`` does; without aiohttp there is only this much of it."""
    try:
        return await _serve(agent, method, path, body, min(version, agent.host.speaks))
    except ValidationError as error:
        return _problem(400, str(error)[:200])
    except Refusal as refusal:
        return _problem(422, str(refusal))
    except Later as later:
        return _problem(503, str(later))
    except OSError as error:
        return _problem(503, f"{error.filename or 'a file'}: {in_words(error)}")


async def _serve(  # noqa: PLR0911 - a table of routes
    agent: Agent, method: str, path: str, body: bytes, version: int
) -> tuple[int, bytes]:
    host, holdings = agent.host, agent.parts.holdings
    held = holdings.held
    match method, path:
        case "GET", "/v1/hello":
            hello = Hello(
                heartbeat=SHORTEST_HEARTBEAT,
                protocol=version,
                node=held.me.node if held.me else "",
                stamp=held.stamp,
                revision=held.revision,
                stacks={name: stack.stamp for name, stack in held.objects.stacks.items()},
                facts=agent.parts.reports.facts,
            )
            return 200, skew.encode(hello, version)
        case "GET", "/v1/held":
            tasks = {one.id: one.status() for one in holdings.records() if not one.erased}
            whole = HeldSet(
                stamp=held.stamp,
                me=held.me,
                revision=held.revision,
                objects=held.objects,
                tasks=tasks,
            )
            return 200, whole.encode()
        case "PUT", "/v1/instructions":
            asked = Instructions.model_validate_json(body)
            before = held.stamp
            answer = await agent.parts.worker.accept(asked)
            refused = isinstance(answer, Refused)
            host.world.laws.instructed(host, asked, before, refused=refused)
            return (409 if refused else 200), answer.encode()
        case "POST", "/v1/images/resolve":
            wanted = ResolveImage.model_validate_json(body)
            if host.world.registry_down:
                raise Later(f"the registry of {wanted.image} does not answer")
            return 200, ResolvedImage(image=wanted.image, digest=f"sha256:{wanted.image}").encode()
        case "POST", "/v1/leave":
            asked_by = LeaveCluster.model_validate_json(body) if body else None
            left = await agent.parts.worker.leave(asked_by)
            if isinstance(left, Refused):
                return 409, left.encode()
            if left:
                raise Later(f"{', '.join(left)} would not go")
            return 204, b""
        case "GET", "/v1/listening":
            return 200, json.dumps({"ports": []}).encode()
        case "POST", "/v1/paths":
            return 200, json.dumps(
                {"paths": dict.fromkeys(json.loads(body)["paths"], "there")}
            ).encode()
        case "POST", "/v1/lease":
            answer = agent.parts.leases.answered(LeaseAnswer.model_validate_json(body))
            return 409 if isinstance(answer, Refused) else 200, answer.encode()
        case "GET", "/v1/images/transfer":
            return 200, json.dumps({"done": 0, "total": 0}).encode()
        case "DELETE", _ if path.startswith("/v1/volumes/"):
            await host.volumes_part.remove(path.removeprefix("/v1/volumes/"))
            return 204, b""
    raise AssertionError(f"the simulation knows no {method} {path}")


def _problem(status: int, detail: str) -> tuple[int, bytes]:
    return status, ApiProblem(type="x", title="x", status=status, detail=detail).encode()


class _Answer:
    """What AgentClient asks of an aiohttp response."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = body
        self.content = self

    async def read(self, _most: int = 0) -> bytes:
        return self._body

    async def json(self) -> Any:
        return json.loads(self._body)


class SimClient(AgentClient):
    """The product's client, on a simulated connection instead of aiohttp."""

    def __init__(self, connection: Connection, name: str) -> None:
        super().__init__(None, name)  # type: ignore[arg-type] - every use of it is replaced
        self._connection = connection

    @contextlib.asynccontextmanager
    async def _request(  # type: ignore[override]
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        params: dict[str, str] | None = None,
        pieces: Any = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Any]:
        data = skew.encode(body, self._version) if body is not None else b""  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(timeout):
                status, answer = await self._connection.request(method, path, data, PROTOCOL)
        except (OSError, TimeoutError) as exc:
            raise self._lost(exc) from exc
        yield _Answer(status, answer)

    async def _exchange(
        self, method: str, path: str, data: bytes | None = None, *, timeout: float
    ) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(timeout):
                return await self._connection.request(method, path, data or b"", PROTOCOL)
        except (OSError, TimeoutError) as exc:
            raise self._lost(exc) from exc

    async def _told(self, path: str, silence: float) -> AsyncGenerator[bytes, None]:
        heartbeat = float(path.partition("heartbeat=")[2] or HEARTBEAT)
        lines = self._connection.stream(heartbeat, min(self._version, PROTOCOL))
        closing = asyncio.ensure_future(self._connection.closed.wait())
        try:
            while True:
                getting = asyncio.ensure_future(lines.get())
                done, _ = await asyncio.wait(
                    {getting, closing}, timeout=silence, return_when=asyncio.FIRST_COMPLETED
                )
                if getting in done:
                    line = getting.result()
                    if line is None:
                        raise self._lost(ConnectionRefusedError(111, "Connection refused"))
                    yield line
                    continue
                getting.cancel()
                if closing in done:
                    return
                silent = TimeoutError()
                raise self._lost(silent) from silent
        finally:
            closing.cancel()


class SimDispatcher(Dispatcher):
    """The product's dispatcher, dialling over the simulated wire."""

    place = ""
    world: World
    process: Process

    @contextlib.asynccontextmanager
    async def _reach(self, node: Node) -> AsyncIterator[AgentClient]:
        host = self.world.host_at(node.address, self.place)
        link = self.world.wire.link(self.place, host)
        try:
            async with asyncio.timeout(CONNECT):
                for towards in (True, False):
                    await self.world.wire.carry(link, towards=towards)
                    if not host.on:
                        await asyncio.Event().wait()
        except TimeoutError:
            raise Unavailable(
                f"node {node.name} is not reached: no answer in {CONNECT:g} s"
            ) from None
        connection = Connection(self.world.wire, self.place, host, self.process)
        self.world.wire.connections.append(connection)
        keeper = asyncio.create_task(self._keep_alive(connection), name=f"keepalive {node.name}")
        try:
            yield SimClient(connection, node.name)
        finally:
            keeper.cancel()
            connection.close()

    async def _keep_alive(self, connection: Connection) -> None:
        """Give a line up that says nothing back."""
        silent = 0.0
        while silent < KEEPALIVE:
            if connection.link.whole and connection.host.on:
                silent = 0.0
                await connection.link.changed.wait()
            else:
                silent += 1.0
                await asyncio.sleep(1.0)
        connection.close("no answer to keepalive")
