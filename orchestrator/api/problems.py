"""Errors become problem+json here, and only here (RFC 9457).

A refusal keeps its words. What nobody foresaw becomes a ``bug`` with a number to
look for in the log; its text never leaves the process, because it may hold content.
"""

from __future__ import annotations

import logging
import os
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.api import caller
from orchestrator.errors import RequestError
from orchestrator.store import base as store
from specs.api import ApiProblem, ProblemRow
from specs.kit import callers
from specs.kit.log import ASKED_BY, REQUEST
from specs.problems import SpecError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pydantic import ValidationError


log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"


class BadRequest(Exception):
    """The request is not what the API takes; ``problem`` is the whole answer."""

    def __init__(self, problem: ApiProblem) -> None:
        self.problem = problem
        super().__init__(problem.detail)


@web.middleware
async def middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer with a problem where the handler raised. What it logs has the request's id.

    So does the line about every request that was to change something, whatever came of it.
    """
    number, began = os.urandom(4).hex(), time.monotonic()
    token, who = REQUEST.set(number), ASKED_BY.set("")
    response: web.StreamResponse | None = None
    try:
        response = await _answered(request, handler)
        if not response.prepared:
            response.headers["Corral-Request"] = number
        return response
    finally:
        if request.method != "GET":
            log.info(
                "request",
                extra={
                    "method": request.method,
                    "path": request.path,
                    "status": response.status if response is not None else 0,  # 0: it went away
                    "seconds": round(time.monotonic() - began, 3),
                },
            )
        REQUEST.reset(token)
        ASKED_BY.reset(who)


async def _answered(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        with callers.answering(request.protocol):
            if request.method != "GET":
                await caller.note(request)
            return await handler(request)
    except Exception as exc:
        problem = describe(exc)
        if problem.type == "bug":
            log.exception(
                "request failed",
                extra={"incident": problem.detail, "method": request.method, "path": request.path},
            )
        return respond(problem, unread=not request.content.at_eof())


def respond(problem: ApiProblem, *, unread: bool = False) -> web.Response:
    """Return the answer. ``unread``: a body is on its way that nobody takes."""
    response = web.Response(
        status=problem.status, body=problem.model_dump_json().encode(), content_type=CONTENT_TYPE
    )
    if unread or problem.status in callers.UNREAD:
        response.force_close()
    return response


def describe(exc: Exception) -> ApiProblem:
    """Return the problem that stands for an exception."""
    match exc:
        case BadRequest():
            return exc.problem
        case RequestError():
            return ApiProblem(
                type=exc.type,
                title=exc.title,
                status=exc.status,
                detail=exc.detail,
                hint=exc.hint,
                problems=tuple(map(ProblemRow.of, exc.problems)),
            )
        case SpecError():
            return ApiProblem(
                type="invalid",
                title="Invalid request",
                status=422,
                detail=f"{len(exc.problems)} problems in the files",
                problems=tuple(map(ProblemRow.of, exc.problems)),
            )
        case store.StoreError():
            return of_store(exc)
        case web.HTTPException():
            return of_http(exc)
        case _:
            incident = os.urandom(4).hex()
            return ApiProblem(
                type="bug",
                title="Internal error",
                status=500,
                detail=f"the controller made a mistake (incident {incident})",
                hint=f"its log has the details: look for {incident}",
            )


def of_store(exc: store.StoreError) -> ApiProblem:
    match exc:
        case store.TooLarge():
            return ApiProblem(
                type="invalid", title="Too large", status=413, detail=str(exc),
                hint="secrets and configs are meant for small files; use a volume or the image",
            )  # fmt: skip
        case store.Damaged():
            return ApiProblem(
                type="unavailable", title="The state file is damaged", status=503, detail=str(exc)
            )
        case _:
            return ApiProblem(
                type="unavailable", title="Not possible right now", status=503, detail=str(exc),
                hint="nothing was changed; try again",
            )  # fmt: skip


def of_http(exc: web.HTTPException) -> ApiProblem:
    """Return aiohttp's own refusals (unknown path, wrong method) in our form."""
    title = HTTPStatus(exc.status).phrase
    kind = {404: "not-found", 405: "not-found"}.get(exc.status, "invalid")
    return ApiProblem(
        type=kind, title=title, status=exc.status, detail=exc.text or title,
        hint="GET /v1/openapi.json lists what there is" if exc.status in (404, 405) else "",
    )  # fmt: skip


def of_validation(exc: ValidationError) -> ApiProblem:
    """Return what is wrong with a request's body, by path. Never echoes values: secrets."""
    problems = tuple(
        ProblemRow(
            message=str(error["msg"]),
            code=str(error["type"]),
            path=".".join(str(part) for part in error["loc"]),
        )
        for error in exc.errors(include_url=False, include_input=False, include_context=False)
    )
    first = problems[0]
    return ApiProblem(
        type="invalid",
        title="Invalid request",
        status=422,
        detail=f"{first.path}: {first.message}" if first.path else first.message,
        hint="is the client of the controller's version? corral version",
        problems=problems,
    )
