"""One agent's HTTP API, as calls: specs/wire.py from the controller's side.

Made by session.py for a connected node; used by it and by the dispatcher's
``agents`` seam. Knows nothing of sessions, epochs or the store. Every failure
becomes an orchestrator.errors class that names the node. In
one piece, because it is one API: a call after the other, and how all of them fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import aiohttp

from orchestrator.dispatch.direct import Direct, ended
from orchestrator.dispatch.instructions import Spelled, spell
from orchestrator.dispatch.ndjson import LineTooLong, lines
from orchestrator.dispatch.relay import join
from orchestrator.errors import Conflict, Invalid, NotFound, RequestError, Unavailable, Unkept
from specs import skew, wire
from specs.images import ForgottenImages
from specs.inside import Copied, NodeProcesses, NodeUsage
from specs.objects import Restored, VolumeLook
from specs.wire import (
    HEARTBEAT,
    PROTOCOL,
    Acknowledged,
    AskPaths,
    BuildEvent,
    HeldSet,
    Hello,
    ImageInfo,
    LeaseQuestion,
    LeaveCluster,
    LogLine,
    Refused,
    Report,
    ResolvedImage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence

    from aiohttp.web import WebSocketResponse

    from orchestrator.contracts import LogQuery
    from specs.base import Model
    from specs.images import ForgetImages
    from specs.inside import SignalTasks
    from specs.paths import PathState
    from specs.wire import BuildImage, Instructions, LeaseAnswer, ResolveImage

M = TypeVar("M", bound="Model")

SHORT = 10.0  # hello, lists
INSTRUCT = 30.0  # journalling a full set, with fsync on a busy disk
PULL = 1800.0  # one image, or a build that prints nothing
LEASE = 5.0  # an answer that comes later is of no use
LEAVE = 120.0  # stopping what is left and taking the network down
MAX_MESSAGE = 1024 * 1024  # of an exec channel
_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)
_CLOSED = (RuntimeError, AssertionError, AttributeError)  # aiohttp's, of a closed session


def _at(kind: str, name: str, rest: str = "") -> str:
    """Return the path of one object: whatever its name holds, it is one part of it."""
    return f"/v1/{kind}/{quote(name, safe='')}{rest}"


class AgentClient:
    """``http`` is a session whose connections end at the agent of node ``name``."""

    def __init__(
        self, http: aiohttp.ClientSession, name: str, spelled: Spelled | None = None
    ) -> None:
        self._http = http
        self._spelled = spelled or Spelled()  # all nodes' together
        self._direct = Direct(http)
        self._version = PROTOCOL  # the agent's, once it has said hello
        self._answers: set[aiohttp.ClientResponse] = set()  # those that are being read
        self.name = name

    def end(self) -> None:
        """Break off what is being read, before the connections are closed.

        Of a connection that is closed here, aiohttp tells nobody who reads its answer.
        """
        for answer in self._answers:
            answer.content.set_exception(ended())
        self._direct.close()

    async def hello(self) -> Hello:
        status, data = await self._exchange("GET", "/v1/hello", timeout=SHORT)
        if status >= 400:
            raise self._refusal(status, data)
        hello = self._decode(Hello, data)
        self._version = min(hello.protocol, PROTOCOL)
        return hello

    async def held(self) -> HeldSet:
        """Return what the node holds, whole."""
        return await self._call("GET", "/v1/held", HeldSet, timeout=INSTRUCT)

    async def instruct(self, instructions: Instructions) -> Acknowledged | Refused:
        """Send instructions; a refusal by the protocol's rules is an answer, not an error."""
        status, data = await self._exchange(
            "PUT", "/v1/instructions", self._spell(instructions), timeout=INSTRUCT
        )
        if status == 409:
            return self._decode(Refused, data)
        if status >= 400:
            raise self._refusal(status, data)
        return self._decode(Acknowledged, data)

    def _spell(self, instructions: Instructions) -> bytes:
        if self._version >= PROTOCOL:
            return spell(instructions, self._spelled)
        return skew.encode(instructions, self._version)

    async def reports(
        self, *, silence: float, heartbeat: float = HEARTBEAT
    ) -> AsyncGenerator[Report, None]:
        """Yield reports; TimeoutError when the agent says nothing for ``silence`` seconds.

        What cannot be read of one is left out and named in it.
        """
        query = f"?heartbeat={heartbeat:g}" if heartbeat != HEARTBEAT else ""
        async with contextlib.aclosing(self._told(f"/v1/reports{query}", silence)) as found:
            async for line in found:
                read = self._read(Report, line)
                yield read.value if read.whole else read.value.with_unread(read.notes())

    async def _exchange(
        self, method: str, path: str, data: bytes | None = None, *, timeout: float
    ) -> tuple[int, bytes]:
        """Return the status and all of the answer to what may be asked twice."""
        with self._in_words():
            async with asyncio.timeout(timeout):
                return await self._direct.exchange(method, path, self._fields(data), data)

    async def _told(self, path: str, silence: float) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a stream that the agent goes on with for as long as we listen."""
        with self._in_words():
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(SHORT):
                    status, body = await stack.enter_async_context(
                        self._direct.stream("GET", path, self._fields())
                    )
                if status >= 400:
                    raise self._refusal(status, await body.read(MAX_MESSAGE))
                async with contextlib.aclosing(lines(body, silence=silence)) as found:
                    async for line in found:
                        yield line

    def _fields(self, data: bytes | None = None) -> dict[str, str]:
        kind = {"Content-Type": "application/json"} if data is not None else {}
        return {skew.HEADER: str(PROTOCOL), **kind}

    async def resolve_image(self, request: ResolveImage) -> ResolvedImage:
        return await self._call(
            "POST", "/v1/images/resolve", ResolvedImage, body=request, timeout=PULL
        )

    def build(self, request: BuildImage) -> AsyncGenerator[BuildEvent, None]:
        return self._stream("POST", "/v1/builds", BuildEvent, body=request, silence=PULL)

    def logs(self, task: str, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        wanted = {
            "follow": "1" if query.follow else None,
            "tail": query.tail,
            "since": query.since,
            "after": ".".join(map(str, query.after)) if query.after is not None else None,
        }
        params = {key: str(value) for key, value in wanted.items() if value is not None}
        # A followed log may be silent for days; a dead agent closes or resets the connection.
        silence = None if query.follow else SHORT * 3
        return self._stream(
            "GET",
            _at("tasks", task, "/logs"),
            LogLine,
            params=params,
            silence=silence,
        )

    async def metrics(self) -> str:
        """Return the agent's figures, as it writes them."""
        async with self._request("GET", "/v1/metrics", timeout=SHORT) as answer:
            if answer.status == 404:
                raise Unavailable(
                    f"node {self.name} runs an older corral that tells no figures",
                    hint="corral upgrade brings it to this version",
                )
            await self._check(answer)
            return (await answer.content.read(MAX_MESSAGE)).decode(errors="replace")

    async def images(self) -> tuple[ImageInfo, ...]:
        async with self._request("GET", "/v1/images", timeout=SHORT) as answer:
            await self._check(answer)
            found = (await answer.json())["images"]
        return tuple(ImageInfo.model_validate(each) for each in found)

    async def transfer(self, image: str) -> tuple[int, int]:
        async with self._request(
            "GET", "/v1/images/transfer", params={"image": image}, timeout=SHORT
        ) as answer:
            await self._check(answer)
            found = await answer.json()
        return int(found["done"]), int(found["total"])

    async def forget_images(self, request: ForgetImages) -> ForgottenImages:
        return await self._call(
            "POST", "/v1/images/forget", ForgottenImages, body=request, timeout=INSTRUCT
        )

    async def listening(self) -> tuple[str, ...]:
        async with self._request("GET", "/v1/listening", timeout=SHORT) as answer:
            await self._check(answer)
            return tuple(map(str, (await answer.json())["ports"]))

    async def paths(self, asked: Sequence[str]) -> dict[str, PathState]:
        body = AskPaths(paths=tuple(asked))
        async with self._request("POST", "/v1/paths", body=body, timeout=SHORT) as answer:
            await self._check(answer)
            found: dict[str, PathState] = (await answer.json())["paths"]
            return found

    async def usage(self, stack: str) -> NodeUsage:
        return await self._call(
            "GET", "/v1/usage", NodeUsage, params={"stack": stack}, timeout=SHORT
        )

    async def processes(self, stack: str) -> NodeProcesses:
        return await self._call(
            "GET", "/v1/processes", NodeProcesses, params={"stack": stack}, timeout=SHORT
        )

    async def signal(self, request: SignalTasks) -> tuple[str, ...]:
        async with self._request("POST", "/v1/signal", body=request, timeout=SHORT) as answer:
            await self._check(answer)
            return tuple(map(str, (await answer.json())["tasks"]))

    def read_archive(self, task: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """Yield the archive of a path in a task; an error before its first byte is raised."""
        return self._pieces(_at("tasks", task, "/archive"), dict(query))

    def read_volume(self, name: str) -> AsyncGenerator[bytes, None]:
        """Yield the archive of a volume; an error before its first byte is raised."""
        return self._pieces(_at("volumes", name, "/archive"), {})

    def volume_tree(self, name: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """Yield the records of what a volume holds, or a draft of one."""
        return self._pieces(_at("volumes", name, "/tree"), dict(query))

    def volume_differences(
        self, name: str, paths: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        """Yield an archive of those entries of a volume."""
        return self._pieces(_at("volumes", name, "/differences"), {}, "POST", paths)

    async def look_at_volume(self, name: str) -> VolumeLook:
        """Return what the node has of a volume, and what is free. Raises NotFound: an older one."""
        async with self._request("GET", _at("volumes", name, "/look"), timeout=PULL) as answer:
            await self._check(answer)
            return self._decode(VolumeLook, await answer.read())

    async def change_volume(
        self,
        method: str,
        name: str,
        rest: str,
        query: Mapping[str, str],
        pieces: AsyncIterator[bytes] | None = None,
    ) -> None:
        """Have the node do a step of a volume's move."""
        timeout = LEAVE if pieces is None else None
        path = _at("volumes", name, rest)
        async with self._request(
            method, path, params=dict(query), pieces=pieces, timeout=timeout
        ) as answer:
            await self._check(answer)

    async def _pieces(
        self,
        path: str,
        query: dict[str, str],
        method: str = "GET",
        sent: AsyncIterator[bytes] | None = None,
    ) -> AsyncGenerator[bytes, None]:
        async with self._request(method, path, params=query, pieces=sent) as answer:
            await self._check(answer)
            async for piece in answer.content.iter_any():
                yield piece

    async def write_volume(
        self, name: str, query: Mapping[str, str], pieces: AsyncIterator[bytes]
    ) -> Restored:
        """Make an archive a volume's data."""
        return await self._put(_at("volumes", name, "/archive"), query, pieces, Restored)

    async def write_archive(
        self, task: str, query: Mapping[str, str], pieces: AsyncIterator[bytes]
    ) -> Copied:
        """Send an archive to a path in a task."""
        return await self._put(_at("tasks", task, "/archive"), query, pieces, Copied)

    async def _put(
        self, path: str, query: Mapping[str, str], pieces: AsyncIterator[bytes], model: type[M]
    ) -> M:
        async with self._request("PUT", path, params=dict(query), pieces=pieces) as answer:
            await self._check(answer)
            return self._decode(model, await answer.read())

    async def remove_volume(self, name: str) -> None:
        async with self._request("DELETE", _at("volumes", name), timeout=LEAVE) as answer:
            if answer.status != 404:
                await self._check(answer)

    async def lease(self, answer: LeaseAnswer) -> LeaseQuestion | Refused:
        """Answer the node's last question for leases; return the next one."""
        async with self._request("POST", "/v1/lease", body=answer, timeout=LEASE) as found:
            if found.status == 409:
                return self._decode(Refused, await found.read())
            await self._check(found)
            return self._decode(LeaseQuestion, await found.read())

    async def leave(self, asked: LeaveCluster | None = None) -> Refused | None:
        """Have the node forget its cluster; a refusal by the protocol's rules is an answer."""
        async with self._request("POST", "/v1/leave", body=asked, timeout=LEAVE) as answer:
            if answer.status == 409:
                return self._decode(Refused, await answer.read())
            await self._check(answer)
            return None

    async def exec(self, task: str, websocket: WebSocketResponse) -> None:
        """Carry messages both ways until the agent's side or the client's ends."""
        await self._relay(_at("tasks", task, "/exec"), websocket)

    async def attach(self, task: str, websocket: WebSocketResponse) -> None:
        """Likewise, to the task's own process."""
        await self._relay(_at("tasks", task, "/attach"), websocket)

    async def _relay(self, path: str, websocket: WebSocketResponse) -> None:
        try:
            async with self._http.ws_connect(
                path, max_msg_size=MAX_MESSAGE, autoclose=True
            ) as agent:
                await join(websocket, agent)
        except aiohttp.WSServerHandshakeError as exc:
            raise self._refusal(exc.status, b"") from exc
        except (*_ERRORS, *_CLOSED) as exc:
            raise self._lost(exc) from exc

    async def _call(
        self,
        method: str,
        path: str,
        model: type[M],
        *,
        timeout: float,
        body: Model | None = None,
        params: dict[str, str] | None = None,
    ) -> M:
        async with self._request(method, path, body=body, params=params, timeout=timeout) as answer:
            await self._check(answer)
            return self._decode(model, await answer.read())

    async def _stream(
        self,
        method: str,
        path: str,
        model: type[M],
        *,
        body: Model | None = None,
        params: dict[str, str] | None = None,
        silence: float | None,
    ) -> AsyncGenerator[M, None]:
        async with self._request(method, path, body=body, params=params) as answer:
            await self._check(answer)
            async with contextlib.aclosing(lines(answer.content, silence=silence)) as found:
                async for line in found:
                    yield self._decode(model, line)

    @contextlib.asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Model | None = None,
        params: dict[str, str] | None = None,
        pieces: AsyncIterator[bytes] | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        data = skew.encode(body, self._version) if body is not None else None
        with self._in_words():
            async with self._http.request(
                method,
                path,
                data=pieces if data is None else data,
                params=params,
                headers=self._fields(data),
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=SHORT),
            ) as answer:
                self._answers.add(answer)
                try:
                    yield answer
                finally:
                    self._answers.discard(answer)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        """Raise Unavailable for what ends a connection, and for a line without end."""
        try:
            yield
        except (*_ERRORS, *_CLOSED) as exc:
            raise self._lost(exc) from exc
        except LineTooLong as exc:
            raise Unavailable(f"node {self.name} sent a line without end") from exc

    async def _check(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status >= 400:
            raise self._refusal(answer.status, await answer.content.read(MAX_MESSAGE))

    def _decode(self, model: type[M], data: bytes) -> M:
        return self._read(model, data).value

    def _read(self, model: type[M], data: bytes) -> skew.Reading[M]:
        try:
            return skew.decode(model, data)
        except skew.Unreadable as exc:
            raise Unavailable(
                f"node {self.name} answered something else than {model.__name__} ({exc})",
                hint="is its agent of this version? corral node ls shows the versions",
            ) from exc

    def _refusal(self, status: int, body: bytes) -> RequestError:
        """Return our error for the agent's problem+json."""
        problem: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            loaded = json.loads(body)
            problem = loaded if isinstance(loaded, dict) else {}
        detail = str(problem.get("detail") or problem.get("title") or f"answered {status}")
        hint = str(problem.get("hint") or "")
        text = f"node {self.name}: {detail}"
        match status:
            case 404:
                return NotFound(text, hint=hint)
            case 409:
                return Conflict(text, hint=hint)
            case wire.UNKEPT:
                return Unkept(text, hint=hint)
            case _ if status < 500:
                return Invalid(detail=text, hint=hint)
            case _:
                return Unavailable(text, hint=hint)

    def _lost(self, exc: BaseException) -> Unavailable:
        if isinstance(exc, _CLOSED):
            if not self._http.closed:
                raise exc
            exc = ended()
        return Unavailable(
            f"node {self.name} is not reached: {describe(exc)}",
            hint=f"corral node inspect {self.name}",
        )


def describe(exc: BaseException) -> str:
    """Return a connection's failure in words, without Python's class names."""
    match exc:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorError():
            return (exc.os_error.strerror or str(exc.os_error)).lower()
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return "the connection broke"
        case OSError() if exc.strerror:
            return exc.strerror.lower()
        case _:
            return str(exc) or type(exc).__name__
