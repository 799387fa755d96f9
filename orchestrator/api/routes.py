"""What a path of the API is: one declaration serves the router and the OpenAPI document.

Handlers get ``ApiParts`` (the controller's parts they may use), the request and the
decoded body; they return a model, or write a stream themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ValidationError

from orchestrator.api.problems import BadRequest, of_validation
from specs.api import ApiProblem
from specs.kit import callers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp import web

    from orchestrator.api.sentfiles import SentFiles
    from orchestrator.backups.making import Backups
    from orchestrator.contracts import Agents, Control, Mirror, Sealer
    from orchestrator.control.state import StateQuestion
    from orchestrator.nodes.members import Nodes
    from orchestrator.store.base import Store
    from specs.api import AddNode, Progress, Upgrade, Version
    from specs.base import Model
    from specs.kit.clock import Clock
    from specs.kit.metrics import Family

M = TypeVar("M", bound="Model")

SMALL = 256 * 1024  # a body without file contents
LARGE = 32 * 1024 * 1024  # a release with its secrets and configs


@dataclass(frozen=True)
class ApiParts:
    """What the handlers work with. ``version`` is asked anew each time: the epoch moves."""

    store: Store
    cluster: Mirror
    control: Control
    agents: Agents
    nodes: Nodes
    clock: Clock
    version: Callable[[], Version]
    superseded: Callable[[], str] = lambda: ""  # why this controller must not change anything
    settled: Callable[[], Awaitable[object]] | None = None  # returns once that is known
    state: StateQuestion | None = None
    add_node: Callable[[AddNode], AsyncIterator[Progress]] | None = None  # bootstrap over SSH
    remove_node: Callable[..., AsyncIterator[Progress]] | None = None  # and the machine's cleaning
    upgrade: Callable[[Upgrade], AsyncIterator[Progress]] | None = None
    sent: SentFiles | None = None  # files of machines outside the cluster
    backups: Backups | None = None
    sealer: Sealer | None = None
    figures: Callable[[], list[Family]] = list
    node_figures: Callable[[str], Awaitable[str]] | None = None
    export: Callable[[], dict[str, Any]] = dict  # the state without secrets

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what lists say beside their rows."""
        found = self.backups.warning if self.backups is not None else ""
        return (found,) if found else ()


@dataclass(frozen=True)
class QueryField:
    """One query parameter; flags are 0 or 1."""

    name: str
    type: Literal["string", "number", "integer", "flag"] = "string"
    repeated: bool = False
    text: str = ""


@dataclass(frozen=True)
class ApiRoute:
    method: str
    path: str
    handler: Callable[..., Awaitable[Model | web.StreamResponse]]
    summary: str
    answer: type[Model] | None = None
    stream: type[Model] | None = None  # NDJSON of these
    body: type[Model] | None = None
    limit: int = SMALL
    query: tuple[QueryField, ...] = ()
    websocket: bool = False
    archive: bool = False  # a tar stream: the answer of a GET, the body of a PUT
    always: bool = False  # also while nothing may be changed

    @property
    def changes(self) -> bool:
        """Whether the request changes anything; a superseded controller refuses these."""
        return self.method != "GET" and not self.always


async def read_body(request: web.Request, route: ApiRoute) -> Model | None:
    """Return the decoded body, never holding more than the route's limit."""
    if route.body is None:
        return None
    try:
        data = await callers.read_body(request, route.limit)
    except callers.BodyRefused as refused:
        raise _refused(refused, route) from None
    try:
        return route.body.model_validate_json(data or b"{}")
    except ValidationError as exc:
        raise BadRequest(of_validation(exc)) from None


def flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("1", "true", "yes")


def number(request: web.Request, name: str) -> float | None:
    """Return a query parameter as a finite, non-negative number; None when it is not given."""
    text = request.query.get(name)
    if text is None or text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise BadRequest(
            ApiProblem(
                type="invalid",
                title="Invalid request",
                status=422,
                detail=f"{name}={text[:40]!r} is not a number from 0 on",
            )
        )
    return value


def _refused(refused: callers.BodyRefused, route: ApiRoute) -> BadRequest:
    detail, hint = "", refused.hint
    if refused.status == 413:
        detail = f"the request is larger than {route.limit // 1024} KiB"
        hint = "secrets and configs are meant for small files; use a volume or the image"
    return BadRequest(
        ApiProblem(
            type="invalid", title=refused.title, status=refused.status, detail=detail, hint=hint
        )
    )
